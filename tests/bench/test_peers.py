"""Peers: each matches its own equation, values and gradients, and differs from ours only as its note says."""

import ast
import dataclasses
import functools
import sys
from pathlib import Path

import pytest
import torch
from counting import multiplications
from torch.utils.flop_counter import FlopCounterMode

import umie.bench
from umie.bench import shapes
from umie.bench.peers.registry import peers
from umie.bench.shapes import Shape, draw
from umie.fusion import registry

SIZES = {"odd": (40, 3, 16, 64), "long": (48, 2, 8, 30)}  # neither I = D nor F = 8/3 D
# T5's norm always computes in float32, and so does x-transformers' softmax without flash: the masking value of float64
# becomes -inf there, and the gradients of an example without an image are NaN.
THROUGH_FLOAT32, NOT_IN_FLOAT64 = "transformers T5", "x-transformers, einsum"
PEERS = {f"{peer.name} vs {peer.block}": peer for peer in peers()}
every_peer = pytest.mark.parametrize("peer", [pytest.param(peer, id=name) for name, peer in PEERS.items()])


@pytest.fixture(autouse=True)
def sizes(monkeypatch):
    monkeypatch.setattr(shapes, "SIZES", {**shapes.SIZES, **SIZES})


def shape_of(size="odd", batch=3, tokens=7, slots=5, ragged=False):
    return Shape(size=size, batch=batch, tokens=tokens, slots=slots, ragged=ragged)


@functools.cache
def weights_of(size):
    """Weights of the released block with an open gate and norms that are not 1."""
    torch.manual_seed(0)
    shape = shape_of(size)
    fusion = registry.build("gated", residual="released", **shape.widths)
    inputs = draw(shape, device="cpu", dtype=torch.float32)
    fusion.initialize(inputs.text, inputs.text_mask, inputs.visual, inputs.visual_mask)
    for norm in (fusion.norm, fusion.feed_forward_norm):
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    return {name: value.detach() for name, value in fusion.state_dict().items()}


def available(name):
    peer = PEERS[name]
    if reason := peer.unsupported_reason():
        pytest.skip(reason)
    return peer


def results(module, inputs):
    """The output and all gradients, those of parameters by name."""
    text, visual = inputs.text.clone().requires_grad_(), inputs.visual.clone().requires_grad_()
    out = module(text, inputs.text_mask, visual, inputs.visual_mask)
    out.backward(inputs.grad if out.ndim == 3 else inputs.grad[:, 0, 0])
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in module.named_parameters()}
    return {"out": out.detach(), "gradient of text": text.grad, "gradient of visual": visual.grad, **gradients}


def output(module, inputs):
    with torch.no_grad():
        return module.to(inputs.text.dtype)(inputs.text, inputs.text_mask, inputs.visual, inputs.visual_mask)


def distance(found, wanted):
    return float((found.detach().double() - wanted.detach()).norm() / wanted.detach().norm())


@every_peer
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ragged", [False, True], ids=["dense", "ragged"])
def test_values_and_gradients_match_the_equation(peer, size, ragged):
    if reason := peer.unsupported_reason():
        pytest.skip(reason)
    if peer.dense_only and ragged:
        pytest.skip("it has no mask")
    shape, weights = shape_of(size, ragged=ragged), weights_of(size)
    inputs = draw(shape, device="cpu", dtype=torch.float64)
    wanted = results(peer.build_reference(shape, weights).double(), inputs)
    assert wanted["out"].dtype == torch.float64
    for dtype in (torch.float32,) if peer.name == NOT_IN_FLOAT64 else (torch.float32, torch.float64):
        exact = dtype == torch.float64 and not peer.name.startswith(THROUGH_FLOAT32)
        found = results(peer.build(shape, weights).to(dtype), draw(shape, device="cpu", dtype=dtype))
        assert found.keys() == wanted.keys()
        for name, value in found.items():
            assert value.dtype == dtype
            assert distance(value, wanted[name]) < (1e-12 if exact else 2e-6), name


def test_ragged_shapes_have_an_example_without_an_image():
    inputs = draw(shape_of(ragged=True), device="cpu", dtype=torch.float32)
    assert not inputs.visual_mask[-1].any()
    assert inputs.visual_mask.any()


@pytest.mark.parametrize("ragged", [False, True], ids=["dense", "ragged"])
@pytest.mark.parametrize("residual", ["released", "paper"])
def test_the_plain_block_is_our_block(residual, ragged):
    shape = shape_of(ragged=ragged)
    inputs = draw(shape, device="cpu", dtype=torch.float64)
    fusion = registry.build("gated", residual=residual, backend="reference", **shape.widths).double()
    fusion.load_state_dict(weights_of("odd"), strict=residual == "released")
    wanted = fusion(inputs.text, inputs.text_mask, inputs.visual, inputs.visual_mask)
    for build in (
        PEERS[f"plain {residual} vs {residual}"].build,
        PEERS[f"plain {residual} vs {residual}"].build_reference,
    ):
        assert distance(output(build(shape, weights_of("odd")), inputs), wanted.states) < 1e-14
    gate = PEERS["plain gate vs gate"]
    if residual == "released":
        assert wanted.gate.max() > 0.3
        for build in (gate.build, gate.build_reference):
            torch.testing.assert_close(output(build(shape, weights_of("odd")), inputs), wanted.gate, rtol=1e-12, atol=0)


def test_x_transformers_attention_is_our_cross_attention():
    peer = available("x-transformers vs cross_attention")
    shape = shape_of(ragged=True)
    inputs = draw(shape, device="cpu", dtype=torch.float64)
    ours = registry.build("cross_attention", **shape.widths).double()
    ours.load_state_dict(weights_of("odd"), strict=False)
    wanted = ours(inputs.text, inputs.text_mask, inputs.visual, inputs.visual_mask).states
    assert distance(output(peer.build(shape, weights_of("odd")), inputs), wanted) < 1e-6  # the norm's epsilon


@pytest.mark.parametrize(
    ("name", "scaled"),
    [("transformers T5 with FFN", False), ("transformers T5 with FFN, eager", False), ("x-transformers", True)],
)
def test_with_a_feed_forward_layer_a_peer_equals_our_ungated_block(name, scaled):
    shape = shape_of()
    inputs = draw(shape, device="cpu", dtype=torch.float64)
    ours = registry.build("gated", residual="released", gate=1.0, scaled=scaled, **shape.widths).double()
    ours.load_state_dict(weights_of("odd"), strict=False)
    wanted = ours(inputs.text, inputs.text_mask, inputs.visual, inputs.visual_mask).states - inputs.text
    peer = available(f"{name} vs released").build(shape, weights_of("odd"))
    for parameter in (parameter for key, parameter in peer.named_parameters() if key.endswith("bias")):
        torch.nn.init.zeros_(parameter)
    assert distance(output(peer, inputs), wanted) < 1e-6


@every_peer
def test_padding_slots_change_nothing_unless_the_peer_is_dense_only(peer):
    if reason := peer.unsupported_reason():
        pytest.skip(reason)
    inputs = draw(shape_of(batch=8, ragged=True), device="cpu", dtype=torch.float32)
    seen = inputs.visual_mask.any(1)
    assert not inputs.visual_mask[seen].all()
    noise = torch.where(inputs.visual_mask[..., None], 0.0, 3.0)
    module = peer.build(shape_of(), weights_of("odd"))
    found, wanted = (
        output(module, dataclasses.replace(inputs, visual=visual))[seen]
        for visual in (inputs.visual, inputs.visual + noise)
    )
    assert peer.dense_only != torch.allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_t5_notices_a_new_mask():
    peer = available("transformers T5 vs cross_attention")
    shape = shape_of()
    layer, reference = (build(shape, weights_of("odd")) for build in (peer.build, peer.build_reference))
    for ragged, dtype in ((False, torch.float64), (True, torch.float64), (True, torch.float32), (False, torch.float32)):
        inputs = draw(shape_of(ragged=ragged), device="cpu", dtype=dtype)
        for _ in range(2):
            assert distance(output(layer, inputs), output(reference, inputs).double()) < 1e-6


def test_flamingo_attends_as_if_the_first_token_were_the_image():
    block = available("flamingo-pytorch vs released").build(shape_of(), weights_of("odd"))
    inputs = draw(shape_of(), device="cpu", dtype=torch.float64)
    first = torch.zeros(inputs.text.shape[:2]).bool()
    first[:, 0] = True
    with torch.no_grad():
        wanted = block.double().block(inputs.text, inputs.visual[:, None], media_locations=first)
    torch.testing.assert_close(output(block, inputs), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "name",
    [
        "transformers T5, eager vs cross_attention",
        "transformers T5 with FFN, eager vs released",
        "x-transformers, einsum vs cross_attention",
        "x-transformers, einsum vs released",
        "flamingo-pytorch vs released",
    ],
)
@pytest.mark.parametrize("size", ["long", "odd", "small"])
def test_peers_have_as_many_multiplications_as_our_block(name, size):
    peer, shape = available(name), shape_of(size)
    inputs = draw(shape, device="cpu", dtype=torch.float32)
    module = peer.build(shape, weights_of(size))
    with FlopCounterMode(display=False) as counter:
        output(module, inputs)
    assert counter.get_total_flops() == 2 * multiplications(shape, peer.block)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    for module in ("x_transformers", "flamingo_pytorch"):
        monkeypatch.setitem(sys.modules, module, None)
    reasons = {peer.name: peer.unsupported_reason() for peer in peers()}
    missing = {"x-transformers": "x-transformers", "x-transformers, einsum": "x-transformers"}
    missing["flamingo-pytorch"] = "flamingo-pytorch"
    assert {name for name, reason in reasons.items() if reason is not None} == missing.keys()
    for name, package in missing.items():
        assert reasons[name] == f"{package} is not installed: pip install 'umie[bench]'"


def test_names_are_unique_within_a_block():
    assert len(PEERS) == len(peers())
    assert {peer.block for peer in peers()} == {"released", "paper", "cross_attention", "gate"}


def test_other_libraries_are_imported_lazily():
    for path in Path(umie.bench.__file__).parent.glob("peers/*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"transformers", "x_transformers", "flamingo_pytorch"}
