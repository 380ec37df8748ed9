"""The limit of a block: bare products are those of a real block, no more and no fewer."""

import pytest
import torch
from counting import multiplications
from torch.utils.flop_counter import FlopCounterMode

from umie.bench import shapes
from umie.bench.peers.registry import peers
from umie.bench.products import BLOCKS, bare_products
from umie.bench.shapes import Shape, draw
from umie.errors import UmieError
from umie.fusion import registry

both = pytest.mark.parametrize("backward", [False, True], ids=["forward", "both"])


@pytest.fixture(autouse=True)
def sizes(monkeypatch):
    monkeypatch.setattr(shapes, "SIZES", {**shapes.SIZES, "odd": (40, 3, 16, 64)})


@pytest.fixture
def shape():
    return Shape(size="odd", batch=3, tokens=7, slots=5)


def weights_of(shape):
    return registry.build("gated", residual="released", **shape.widths).state_dict()


def inputs_of(shape, dtype=torch.float32):
    return draw(shape, device="cpu", dtype=dtype)


def call(module, inputs, grad=False):
    text, visual = inputs.text.clone().requires_grad_(grad), inputs.visual.clone().requires_grad_(grad)
    return module(text, inputs.text_mask, visual, inputs.visual_mask)


def operations(module, inputs, backward):
    """Multiplications and additions of all products, counted by torch."""
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        out = call(module, inputs, grad=backward)
        if backward:
            out.backward(torch.ones_like(out))
    return counter.get_total_flops()


@both
@pytest.mark.parametrize("block", BLOCKS)
def test_bare_products_are_those_of_the_formula(shape, block, backward):
    module = bare_products(shape, block, weights_of(shape))
    assert operations(module, inputs_of(shape), backward) == 2 * multiplications(shape, block, backward=backward)


@both
@pytest.mark.parametrize("block", ["released", "paper"])
def test_a_plain_block_computes_them_and_its_gate(shape, block, backward):
    plain = {peer.name: peer.build(shape, weights_of(shape)) for peer in peers() if peer.name.startswith("plain")}
    whole = operations(plain[f"plain {block}"], inputs_of(shape), backward)
    gate = operations(plain["plain gate"], inputs_of(shape), backward)
    assert whole - gate == 2 * multiplications(shape, block, backward=backward)
    assert gate > 2 * multiplications(shape, "gate", backward=backward)


@pytest.mark.parametrize("block", BLOCKS)
def test_bare_products_are_called_like_the_block(shape, block):
    module, inputs = bare_products(shape, block, weights_of(shape)).to(torch.bfloat16), inputs_of(shape, torch.bfloat16)
    out = call(module, inputs, grad=True)
    assert out.dtype == torch.bfloat16
    if block != "gate":
        assert out.shape == inputs.text.shape
    out.backward(torch.ones_like(out))
    assert not list(module.parameters())  # no gradients are accumulated


def test_bare_products_use_our_weights(shape):
    weights, inputs = weights_of(shape), inputs_of(shape)
    module = bare_products(shape, "released", weights)
    torch.testing.assert_close(call(module, inputs), module.hidden @ weights["feed_forward.down.weight"].T)
    module = bare_products(shape, "paper", weights)
    torch.testing.assert_close(call(module, inputs), module.mixed @ weights["attention.output.weight"].T)


def test_a_block_without_products_is_refused(shape):
    with pytest.raises(UmieError, match=r"'concat'.*released"):
        bare_products(shape, "concat", weights_of(shape))
