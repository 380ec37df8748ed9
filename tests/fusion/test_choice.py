"""The choice of backend: by cost, by name, and the reasons for and against each."""

import dataclasses

import pytest
import torch

from umie.errors import UmieError
from umie.fusion import attention as attention_module
from umie.fusion import registry as fusions
from umie.fusion.attention import MultiHeadAttention, attention, explain
from umie.fusion.kernels import Kernel, KernelCase, registry

BASE = KernelCase(
    device="cpu", dtype=torch.float32, batch=8, num_queries=256, num_keys=37, num_heads=12, head_dim=64, d_model=768
)
WITHOUT_PROJECTIONS = dataclasses.replace(BASE, d_model=None)
CASES = [
    dataclasses.replace(BASE, **change)
    for change in (
        {},
        {"num_queries": 32},
        {"num_queries": 1, "num_keys": 1},
        {"num_keys": 400},
        {"d_model": None},
        {"device": "cuda"},
        {"compiling": True},
        {"dtype": torch.bfloat16, "needs_grad": True, "dropout": 0.1},
        {"num_heads": 32, "d_model": 2048},
    )
]
every_name = pytest.mark.parametrize("name", registry.names())


@pytest.mark.parametrize(("num_queries", "name"), [(256, "absorbed"), (32, "sdpa")])
@pytest.mark.parametrize("needs_grad", [True, False])
def test_auto_folds_long_texts(num_queries, name, needs_grad):
    """FLAN-T5 base on a CPU."""
    assert explain(dataclasses.replace(BASE, num_queries=num_queries, needs_grad=needs_grad)).chosen == name


@pytest.mark.parametrize("case", [case for case in CASES if case.device == "cpu"], ids=str)
def test_auto_takes_the_lowest_cost_of_those_that_run(case):
    kernels = {name: registry.build(name) for name in registry.names()}
    costs = {name: kernel.cost(case) for name, kernel in kernels.items() if kernel.unsupported_reason(case) is None}
    costs = {name: cost for name, cost in costs.items() if cost is not None}
    chosen = explain(case).chosen
    assert costs[chosen] == min(costs.values())
    assert all(cost > 0 for cost in costs.values())


@pytest.mark.parametrize("case", [case for case in CASES if case.device == "cpu"], ids=str)
def test_explain_has_a_line_for_each_backend_and_marks_one(case):
    found = explain(case)
    lines = str(found).splitlines()
    assert [line[2:].split(":")[0] for line in lines] == registry.names()
    assert [line[2:].split(":")[0] for line in lines if line.startswith("* ")] == [found.chosen]
    assert sum("(the least)" in line for line in lines) == 1
    assert "(the least)" in found.reasons[found.chosen]
    assert found.case == case
    for name in registry.names():
        reason = registry.build(name).unsupported_reason(case)
        if reason is not None:
            assert found.reasons[name] == f"cannot run: {reason}"
    assert found.reasons["reference"] == "runs only if named"


@every_name
@pytest.mark.parametrize("case", [BASE, WITHOUT_PROJECTIONS, dataclasses.replace(BASE, dtype=torch.float64)], ids=str)
def test_a_named_backend_is_marked_or_rejected_with_its_reason(name, case):
    reason = registry.build(name).unsupported_reason(case)
    if reason is None:
        found = explain(case, name)
        assert found.chosen == name
        assert f"* {name}: " in str(found)
    else:
        with pytest.raises(UmieError) as caught:
            explain(case, name)
        message = str(caught.value)
        assert repr(name) in message
        assert reason in message
        assert "'auto'" in message
        assert "\n" not in message


@every_name
def test_a_named_backend_in_attention(name):
    q, kv = torch.randn(2, 3, 2, 4), torch.randn(2, 5, 2, 4)
    mask = torch.ones(2, 5, dtype=torch.bool)
    case = KernelCase(
        device="cpu", dtype=q.dtype, batch=2, num_queries=3, num_keys=5, num_heads=2, head_dim=4, needs_grad=False
    )
    reason = registry.build(name).unsupported_reason(case)
    if reason is None:
        assert attention(q, kv, kv, key_mask=mask, scale=1.0, backend=name).shape == q.shape
    else:
        with pytest.raises(UmieError) as caught:
            attention(q, kv, kv, key_mask=mask, scale=1.0, backend=name)
        assert reason in str(caught.value)


@pytest.mark.parametrize("name", ["absorbed", "xformers"])
def test_some_backends_need_projections_or_a_gpu(name):
    # so that the tests above reject something
    assert registry.build(name).unsupported_reason(WITHOUT_PROJECTIONS)


@pytest.mark.parametrize("wrong", ["spda", "flash", "", None, 3, ["sdpa"]])
def test_an_unknown_name_lists_the_choices(wrong):
    states, mask = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, dtype=torch.bool)
    calls = [
        lambda: attention(states, states, states, key_mask=mask, scale=1.0, backend=wrong),
        lambda: MultiHeadAttention(4, 2, None, scaled=True, backend=wrong),
        lambda: fusions.build("gated", d_model=4, num_heads=2, backend=wrong),
        lambda: explain(BASE, wrong),
    ]
    for call in calls if not isinstance(wrong, list) else calls[1:]:
        with pytest.raises(UmieError) as caught:
            call()
        message = str(caught.value)
        assert message.startswith("Unknown attention backend")
        for name in ("auto", *registry.names()):
            assert name in message
        assert "\n" not in message
        assert ("Did you mean 'sdpa'?" in message) == (wrong in ("spda", ["sdpa"]))


def test_the_choice_follows_each_call(monkeypatch):
    """A short and a long text in one layer use different backends and have the same values."""
    layer = MultiHeadAttention(768, 12, None, scaled=True).eval()
    keys, mask = torch.randn(1, 37, 768), torch.ones(1, 37, dtype=torch.bool)
    seen, choose = [], attention_module._choose

    def watch(case, backend):
        kernel = choose(case, backend)
        seen.append((case.num_queries, type(kernel).__name__))
        return kernel

    monkeypatch.setattr(attention_module, "_choose", watch)
    queries = torch.randn(1, 256, 768)
    with torch.no_grad():
        long = layer(queries, keys, mask)
        short = layer(queries[:, :32], keys, mask)
    assert seen == [(256, "Absorbed"), (32, "Sdpa")]
    torch.testing.assert_close(long[:, :32], short, atol=1e-5, rtol=1e-5)


def test_the_choice_sees_autocast_dropout_and_gradients(monkeypatch):
    seen, choose = [], attention_module._choose
    monkeypatch.setattr(attention_module, "_choose", lambda case, name: seen.append(case) or choose(case, name))
    layer = MultiHeadAttention(8, 2, None, scaled=True, dropout=0.25)
    states, mask = torch.randn(2, 3, 8), torch.ones(2, 3, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        layer(states, states, mask)
    layer.eval()(states, states, mask)
    with torch.no_grad():
        layer(states, states, mask)
    assert [(case.dtype, case.dropout, case.needs_grad) for case in seen] == [
        (torch.bfloat16, 0.25, True),
        (torch.float32, 0.0, True),
        (torch.float32, 0.0, False),
    ]
    assert all((case.batch, case.num_queries, case.num_keys, case.d_model) == (2, 3, 3, 8) for case in seen)


FUSIONS = [("gated", {"residual": "paper"}), ("gated", {"residual": "released"}), ("cross_attention", {})]


@every_name
@pytest.mark.parametrize(("fusion", "options"), FUSIONS)
def test_a_fusion_has_the_same_values_and_gradients_with_every_backend(name, fusion, options):
    reason = registry.build(name).unsupported_reason(dataclasses.replace(BASE, needs_grad=True))
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    torch.manual_seed(2)
    text, visual = torch.randn(4, 7, 24), torch.randn(4, 5, 24)
    text_mask, visual_mask = torch.rand(4, 7) < 0.7, torch.rand(4, 5) < 0.7
    text_mask[:, 0], visual_mask[1] = True, False
    found = []
    for backend in ("reference", name):
        torch.manual_seed(0)
        module = fusions.build(fusion, d_model=24, num_heads=3, backend=backend, **options)
        leaves = [text.clone().requires_grad_(), visual.clone().requires_grad_()]
        states = module(leaves[0], text_mask, leaves[1], visual_mask).states[text_mask]
        grads = torch.autograd.grad(states.square().sum(), [*leaves, *module.parameters()])
        found.append([states.detach(), *grads])
    for expected, mine in zip(*found, strict=True):
        assert (mine - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize(
    "backend",
    ["auto", *registry.names()],
)
def test_training_with_dropout_inside_and_after_attention(backend):
    """Training with both kinds of dropout gives finite gradients in every backend that runs here."""
    reason = (
        None
        if backend == "auto"
        else registry.build(backend).unsupported_reason(dataclasses.replace(BASE, dropout=0.2))
    )
    if reason is not None:
        pytest.skip(f"{backend}: {reason}")
    torch.manual_seed(0)
    for fusion, options in FUSIONS:
        for attention_dropout in (0.0, 0.2):
            module = fusions.build(
                fusion,
                d_model=24,
                num_heads=3,
                backend=backend,
                dropout=0.2,
                attention_dropout=attention_dropout,
                **options,
            ).train()
            text, visual = torch.randn(2, 7, 24), torch.randn(2, 5, 24)
            masks = torch.ones(2, 7, dtype=torch.bool), torch.ones(2, 5, dtype=torch.bool)
            module(text, masks[0], visual, masks[1]).states.square().sum().backward()
            assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


def test_auto_skips_a_free_backend_that_cannot_run(monkeypatch):
    """Both in the layer and in `explain`."""

    class Free(Kernel):
        def unsupported_reason(self, case):
            return "it is not built"

        def cost(self, case):
            return 0.0

    monkeypatch.setitem(registry._parts, "free", Free)
    monkeypatch.setattr(attention_module, "_BUILT", {})
    attention_module._choose.cache_clear()
    assert explain(BASE).chosen == "absorbed"
    assert explain(BASE).reasons["free"] == "cannot run: it is not built"
    assert attention_module._choose(BASE, "auto") is attention_module._named("absorbed")
    attention_module._choose.cache_clear()
