"""Limits: what is counted is what real modules do, and bare products do no less and no more."""

import dataclasses
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from umie.bench import shapes
from umie.bench.limits import (
    BLOCKS,
    bare_products,
    copy_bandwidth,
    floor_s,
    has_products,
    least_bytes,
    matrix_rate,
    multiplications,
)
from umie.bench.peers.registry import peers
from umie.bench.shapes import Shape, draw
from umie.errors import UmieError
from umie.fusion import registry

WITH_PRODUCTS = [block for block in BLOCKS if has_products(block)]
RATES = {"dtype": torch.float32, "rate": 1e9, "bandwidth": 1e9}


@pytest.fixture(autouse=True)
def sizes(monkeypatch):
    monkeypatch.setattr(shapes, "SIZES", {**shapes.SIZES, "odd": (40, 3, 16, 64)})


def shape_of(batch=3, tokens=7, slots=5, ragged=False):
    return Shape(size="odd", batch=batch, tokens=tokens, slots=slots, ragged=ragged)


def weights_of(shape):
    return registry.build("gated", residual="released", **shape.widths).state_dict()


def inputs_of(shape, dtype=torch.float32):
    return draw(shape, device="cpu", dtype=dtype)


def call(module, inputs, grad=False):
    text, visual = inputs.text.clone().requires_grad_(grad), inputs.visual.clone().requires_grad_(grad)
    return module(text, inputs.text_mask, visual, inputs.visual_mask)


def operations(module, inputs, backward):
    """Multiplications and additions of all products, as torch counts them."""
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        out = call(module, inputs, grad=backward)
        if backward:
            out.backward(torch.ones_like(out))
    return counter.get_total_flops()


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("block", WITH_PRODUCTS)
def test_bare_products_are_those_that_are_counted(block, backward):
    shape = shape_of()
    module = bare_products(shape, block, weights_of(shape))
    assert operations(module, inputs_of(shape), backward) == 2 * multiplications(shape, block, backward=backward)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("block", ["released", "paper"])
def test_a_plain_block_does_them_and_its_gate(block, backward):
    shape = shape_of()
    plain = {peer.name: peer.build(shape, weights_of(shape)) for peer in peers() if peer.name.startswith("plain")}
    whole = operations(plain[f"plain {block}"], inputs_of(shape), backward)
    gate = operations(plain["plain gate"], inputs_of(shape), backward)
    assert whole - gate == 2 * multiplications(shape, block, backward=backward)
    assert gate > 2 * multiplications(shape, "gate", backward=backward)


@pytest.mark.parametrize("block", WITH_PRODUCTS)
def test_bare_products_stand_where_the_block_stands(block):
    shape = shape_of()
    module, inputs = bare_products(shape, block, weights_of(shape)).to(torch.bfloat16), inputs_of(shape, torch.bfloat16)
    out = call(module, inputs, grad=True)
    assert out.dtype == torch.bfloat16
    if block != "gate":
        assert out.shape == inputs.text.shape
    out.backward(torch.ones_like(out))
    assert not list(module.parameters())  # nothing to accumulate gradients in


def test_bare_products_are_taken_with_our_weights():
    shape = shape_of()
    weights, inputs = weights_of(shape), inputs_of(shape)
    module = bare_products(shape, "released", weights)
    torch.testing.assert_close(call(module, inputs), module.hidden @ weights["feed_forward.down.weight"].T)
    module = bare_products(shape, "paper", weights)
    torch.testing.assert_close(call(module, inputs), module.mixed @ weights["attention.output.weight"].T)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("block", BLOCKS)
def test_ragged_inputs_count_what_is_real(block, backward):
    shape = shape_of(batch=5, ragged=True)
    inputs = inputs_of(shape)
    lengths = list(zip(inputs.text_mask.sum(1).tolist(), inputs.visual_mask.sum(1).tolist(), strict=True))
    wanted = sum(
        multiplications(Shape(size="odd", batch=1, tokens=tokens, slots=slots), block, backward=backward)
        for tokens, slots in lengths
        if slots
    )
    assert multiplications(shape, block, backward=backward, inputs=inputs) == wanted
    assert 0 in dict(map(reversed, lengths))
    dense = dataclasses.replace(shape, ragged=False)
    assert multiplications(dense, block, inputs=inputs_of(dense)) == multiplications(shape, block)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("block", BLOCKS)
def test_bytes_are_those_of_tensors(block, dtype):
    shape = shape_of()
    inputs = inputs_of(shape, dtype)
    gated = block in ("released", "paper", "gate")
    options = {"residual": "paper" if block == "paper" else "released"} if gated else {}
    fusion = registry.build("gated" if gated else block, **options, **shape.widths).to(dtype)
    out = call(fusion, inputs)
    tensors = [inputs.text, inputs.visual, out.gate if block == "gate" else out.states]
    tensors += [
        parameter for name, parameter in fusion.named_parameters() if block != "gate" or name.startswith("gate_")
    ]
    wanted = sum(tensor.nbytes for tensor in tensors)
    assert least_bytes(shape, block, dtype) == wanted
    assert least_bytes(shape, block, dtype, backward=True) == 2 * wanted


def test_bytes_of_ragged_inputs_are_those_of_real_states():
    shape = shape_of(ragged=True)
    inputs = inputs_of(shape)
    real = (2 * inputs.text_mask.sum() + 2 * inputs.visual_mask.sum()).item() * 40 * 4
    assert (
        least_bytes(shape, "concat", torch.float32, inputs=inputs) == real < least_bytes(shape, "concat", torch.float32)
    )


@pytest.mark.parametrize("block", BLOCKS)
def test_the_floor_is_the_slower_of_bytes_and_operations(block):
    shape = shape_of()
    num_bytes, count = least_bytes(shape, block, torch.float32), multiplications(shape, block)
    assert floor_s(shape, block, **RATES) == pytest.approx(max(num_bytes, 2 * count) / 1e9)
    assert floor_s(shape, block, **{**RATES, "rate": 1e30}) == pytest.approx(num_bytes / 1e9)
    if count:
        assert floor_s(shape, block, **{**RATES, "bandwidth": 1e30}) == pytest.approx(2 * count / 1e9)
    assert floor_s(shape, block, **RATES, backward=True) >= 2 * floor_s(shape, block, **RATES)
    ragged = inputs_of(shape_of(ragged=True))
    assert floor_s(shape, block, **RATES, inputs=ragged) < floor_s(shape, block, **RATES)


def test_rates_are_measured():
    for rate in (matrix_rate("cpu", torch.float32, size=64), copy_bandwidth("cpu", num_bytes=1 << 16)):
        assert 0 < rate < math.inf


def test_blocks_without_products_and_unknown_ones_are_refused():
    shape = shape_of()
    with pytest.raises(UmieError, match=r"^block 'concat' has no matrix products: give one of released, paper"):
        bare_products(shape, "concat", weights_of(shape))
    assert not has_products("concat")
    assert not has_products("text_only")
    for count in (lambda: multiplications(shape, "relased"), lambda: least_bytes(shape, "relased", torch.float32)):
        with pytest.raises(UmieError, match="Did you mean 'released'"):
            count()
