"""The xformers backend: its calls to the library and its reasons; the kernel itself only on CUDA."""

import inspect
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packed_layers import KEYS, QUERIES, Plain, compare, draw, run
from torch._subclasses.fake_tensor import FakeTensorMode

from umie.errors import UmieError
from umie.fusion.attention import MultiHeadAttention, explain
from umie.fusion.kernels import KernelCase, registry
from umie.fusion.kernels.packing import Packing, blocks_reference
from umie.fusion.kernels.xformers import Xformers, aligned, library, refusal

CASE = {"batch": 2, "num_queries": 4, "num_keys": 3, "num_heads": 2, "head_dim": 8, "d_model": 16, "needs_grad": True}
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU xformers may be imported")


@pytest.fixture(scope="module")
def fmha():
    pytest.importorskip("xformers", reason="xformers is not installed")
    return library()


def forbid_import(monkeypatch):
    for name in ("xformers", "xformers.ops.fmha"):
        monkeypatch.setitem(sys.modules, name, None)
    library.cache_clear()


@without_gpu
@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_without_a_gpu_it_is_rejected_without_import(device, monkeypatch):
    forbid_import(monkeypatch)
    expected = {
        "cpu": "xformers has kernels only for CUDA, not for cpu",
        "cuda": "no CUDA device is available, and xformers has kernels only for CUDA",
        "mps": "xformers has kernels only for CUDA, not for mps",
    }[device]
    case = KernelCase(device=device, dtype=torch.float32, **CASE)
    assert explain(case).reasons["xformers"] == f"cannot run: {expected}"
    with pytest.raises(UmieError, match=f"attention backend 'xformers' cannot run here: {expected}"):
        explain(case, "xformers")


@without_gpu
def test_a_layer_that_names_it_raises_the_reason():
    layer = MultiHeadAttention(16, 2, 8, scaled=True, backend="xformers")
    with pytest.raises(UmieError, match="cannot run here: xformers has kernels only for CUDA, not for cpu"):
        layer(torch.randn(5, 4, 16), torch.randn(5, 2, 16), KEYS)


def test_reasons_that_need_no_library(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    forbid_import(monkeypatch)
    kernel = registry.build("xformers")
    double = KernelCase(device="cuda", dtype=torch.float64, **CASE)
    assert kernel.unsupported_reason(double) == (
        "xformers has kernels for torch.float32, torch.float16, torch.bfloat16, not for torch.float64"
    )
    compiled = KernelCase(device="cuda", dtype=torch.float32, compiling=True, **CASE)
    assert "depends on the data" in kernel.unsupported_reason(compiled)
    missing = kernel.unsupported_reason(KernelCase(device="cuda", dtype=torch.float32, **CASE))
    assert missing.startswith("xformers cannot be imported (")
    assert missing.endswith("pip install 'umie[xformers]'")
    assert kernel.cost(double) is None


@pytest.mark.slow  # the fixture fmha imports it in this process, where pytest makes warnings errors
def test_the_library_is_imported_without_warnings(fmha):
    """In a separate process where warnings are errors; once per process, as its operators require."""
    code = "from umie.fusion.kernels.xformers import library; assert library() is library()"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


lengths = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 5)), min_size=1, max_size=6)


def ragged(pairs, tokens=7, slots=6):
    """Return the packing of examples with these numbers of tokens and slots."""
    counts = torch.tensor(pairs)
    return Packing.of(torch.arange(tokens) < counts[:, :1], torch.arange(slots) < counts[:, 1:])


@given(lengths)
def test_the_mask_is_that_of_xformers(fmha, pairs):
    packing = ragged(pairs)
    bias = fmha.BlockDiagonalMask.from_seqlens(
        list(packing.num_tokens), list(packing.num_slots), device=torch.device("cpu")
    )
    mask = packing.block_mask()
    expected = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
    assert torch.equal(bias.materialize(tuple(mask.shape)), expected)
    assert bias.q_seqinfo.seqstart.dtype == torch.int32


def test_a_block_without_slots_has_no_softmax(fmha):
    """The reason why such examples are not packed."""
    bias = fmha.BlockDiagonalMask.from_seqlens([2, 1], [3, 0], device=torch.device("cpu")).materialize((3, 3))
    assert bias.softmax(-1)[2].isnan().all()


@pytest.fixture
def calls(fmha, monkeypatch):
    """Record the library's calls; compute their results from the explicit mask, as its kernels do not run on a CPU."""
    recorded = []
    signature = inspect.signature(fmha.memory_efficient_attention)

    def answer(*arguments, **options):
        call = signature.bind(*arguments, **options).arguments
        recorded.append(call)
        q, k, v, bias = (call[name] for name in ("query", "key", "value", "attn_bias"))
        fmha.Inputs(q, k, v, attn_bias=bias, p=call["p"], scale=call["scale"]).validate_inputs()
        assert all(states.shape[-1] % 8 == 0 and states.is_contiguous() for states in (q, k, v))
        mask = bias.materialize((q.shape[2], q.shape[1], k.shape[1]), dtype=q.dtype)
        logits = torch.einsum("bnhd,bmhd->bhnm", q, k) * call["scale"] + mask
        return torch.einsum("bhnm,bmhd->bnhd", logits.softmax(-1), v)

    monkeypatch.setattr(fmha, "memory_efficient_attention", answer)
    return recorded


@pytest.mark.parametrize("width", [3, 8, 20])
def test_the_layer_around_the_kernel(calls, width):
    """Everything but the kernel: packing, widths that are not a multiple of 8, the call, unpacking, gradients."""
    compare(Xformers(), draw((5, 4, 2, 2, width, 5)), 2, QUERIES, KEYS)
    (call,) = calls
    assert call["query"].shape == (1, 7, 2, aligned(width))
    assert call["key"].shape == (1, 4, 2, aligned(width))
    assert call["scale"] == 1.0
    assert call["p"] == 0.0


def test_the_library_is_not_called_without_an_image(calls):
    compare(Xformers(), draw((5, 4, 2, 2, 3, 5)), 2, QUERIES, torch.zeros_like(KEYS))
    assert not calls


@pytest.mark.parametrize("scale", [0.3, 0.0, -0.3])
def test_the_kernel_gets_a_positive_scale(calls, scale):
    packing = ragged([(3, 2), (1, 4)])
    q, k, v = (torch.randn(1, n, 2, 8, dtype=torch.float64) for n in (4, 6, 6))
    expected = blocks_reference(q, k, v, packing, scale, 0.0)
    torch.testing.assert_close(Xformers().blocks(q, k, v, packing, scale, 0.0), expected)
    assert calls[0]["scale"] > 0


def test_dropout_is_passed_on(calls):
    run(Xformers(), draw((5, 4, 2, 2, 3, 5)), 2, QUERIES, KEYS, dropout=0.25)
    assert calls[0]["p"] == 0.25


def rejected(fmha, monkeypatch, capability, dtype, width, *, dropout=0.0, needs_grad=True):
    """Return why xformers' dispatcher rejects inputs on a GPU of this capability; None if it does not."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    bias = fmha.BlockDiagonalMask.from_seqlens([1, 1], [1, 1], device=torch.device("cpu"))
    with FakeTensorMode():
        sample = torch.empty(1, 2, 2, width, dtype=dtype, device="cuda")
    return refusal(
        fmha, fmha.Inputs(sample, sample, sample, attn_bias=bias, p=dropout, scale=1.0), needs_grad=needs_grad
    )


needs_kernels = pytest.mark.skipif(
    torch.version.cuda is None, reason="torch without CUDA has no kernels for the dispatcher to choose from"
)


@needs_kernels
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("width", [8, 64, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_kernels_of_torch_are_used_whether_or_not_the_extension_loads(fmha, monkeypatch, dtype, width, dropout):
    monkeypatch.setattr(fmha.common, "_built_with_cuda", False)  # as with a missing extension
    assert rejected(fmha, monkeypatch, (9, 0), dtype, width, dropout=dropout) is None
    assert fmha.common._built_with_cuda is False


@needs_kernels
def test_reasons_come_from_xformers(fmha, monkeypatch):
    reason = rejected(fmha, monkeypatch, (9, 0), torch.float32, 6)
    assert "cutlassF-pt: query.shape[-1] % 4 != 0" in reason
    assert "\n" not in reason
    assert "too new" in rejected(fmha, monkeypatch, (12, 0), torch.float32, 64)
    assert "bf16 is only supported on A100+ GPUs" in rejected(fmha, monkeypatch, (7, 5), torch.bfloat16, 64)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert "fa2B" in rejected(fmha, monkeypatch, (9, 0), torch.bfloat16, 64)  # forward is deterministic
    assert rejected(fmha, monkeypatch, (9, 0), torch.bfloat16, 64, needs_grad=False) is None


def test_an_error_of_the_kernel_leaves_the_library_unchanged(fmha, monkeypatch):
    monkeypatch.setattr(fmha.common, "_built_with_cuda", False)
    packing = ragged([(3, 2), (1, 4)])
    with pytest.raises(NotImplementedError, match="device=cpu"):
        Xformers().blocks(*(torch.randn(1, n, 2, 8) for n in (4, 6, 6)), packing, 1.0, 0.0)
    assert fmha.common._built_with_cuda is False


def on_gpu(dtype, width):
    """Return the backend, or skip with its reason."""
    kernel = registry.build("xformers")
    reason = kernel.unsupported_reason(KernelCase(device="cuda", dtype=dtype, **{**CASE, "head_dim": width}))
    if reason is not None:
        pytest.skip(f"xformers: {reason}")
    return kernel


@pytest.mark.parametrize("width", [5, 64])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 1e-2)], ids=str
)
def test_the_kernel_on_cuda(dtype, tolerance, width):
    """Values and gradients of the packed layer against the padded and packed references in float64."""
    kernel = on_gpu(dtype, width)
    inputs = {name: value.to("cuda", dtype) for name, value in draw((5, 4, 2, 2, width, 32)).items()}
    query_mask, key_mask = QUERIES.cuda(), KEYS.cuda()
    found = []
    for each, precision in ((kernel, dtype), (registry.build("reference"), torch.float64), (Plain(), torch.float64)):
        leaves = {name: value.to(precision).requires_grad_() for name, value in inputs.items()}
        out = run(each, leaves, 2, query_mask, key_mask)
        upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).cuda() * query_mask[..., None]
        grads = torch.autograd.grad((out * upstream.to(out.dtype)).sum(), list(leaves.values()))
        found.append([out.detach() * query_mask[..., None], *grads])
    for mine, *others in zip(*found, strict=True):
        for other in others:
            assert (mine.double() - other).norm() <= tolerance * other.norm()


def test_dropout_on_cuda():
    kernel = on_gpu(torch.float32, 8)
    inputs = {name: value.to("cuda", torch.float32) for name, value in draw((2, 200, 1, 2, 8, 16), gate=False).items()}
    inputs["output"] = torch.eye(16, device="cuda")
    every = torch.ones(2, 200, dtype=torch.bool, device="cuda")
    out = run(kernel, inputs, 2, every, every[:, :1], dropout=0.25) - inputs["residual"]
    kept = out.view(2, 200, 2, 8).abs().amax(-1, keepdim=True) > 1e-5
    value = (inputs["keys"] @ inputs["value"].T / 0.75).view(2, 1, 2, 8)
    torch.testing.assert_close(out.view(2, 200, 2, 8), kept * value, atol=1e-4, rtol=1e-4)
    assert 0.65 < kept.double().mean() < 0.85
