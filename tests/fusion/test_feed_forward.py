"""The feed-forward layer against its plain twin and T5's: values, gradients, and what is kept for them."""

import pytest
import torch
from torch import nn

from umie.fusion import feed_forward
from umie.fusion.feed_forward import GatedFeedForward

PARTS = ("added", "states", "gate", "up", "down")


def build(d_model=6, d_ff=20, dtype=torch.float64):
    torch.manual_seed(0)
    return GatedFeedForward(d_model, d_ff).to(dtype)


def draw(*sizes, dtype=torch.float64, seed=0):
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def plain(layer, added, states):
    return layer.plain(states) if added is None else added + layer.plain(states)


def results(function, layer, added, states, wanted=PARTS):
    """Return the value and the gradients of what is wanted, from a loss that weighs every number differently."""
    leaves = {"added": added, "states": states}
    leaves = {name: x.detach().clone().requires_grad_(name in wanted) for name, x in leaves.items() if x is not None}
    weights = {"gate": layer.gate.weight, "up": layer.up.weight, "down": layer.down.weight}
    for name, weight in weights.items():
        weight.requires_grad_(name in wanted)
    out = function(leaves.get("added"), leaves["states"])
    asked = {name: x for name, x in (leaves | weights).items() if name in wanted}
    loss = (out * draw(*out.shape, seed=9).to(out.dtype)).sum()
    return {"value": out.detach(), **dict(zip(asked, torch.autograd.grad(loss, list(asked.values())), strict=True))}


def assert_equal_results(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, result in found.items():
        difference = (result.double() - expected[name].double()).norm()
        assert difference <= tolerance * expected[name].double().norm(), name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str)
@pytest.mark.parametrize("d_ff", [1, 20, 1024, 1025, 2500])
@pytest.mark.parametrize("with_added", [False, True])
def test_equals_its_plain_twin(with_added, d_ff, dtype, tolerance):
    layer = build(d_ff=d_ff, dtype=dtype)
    states, added = draw(3, 5, 6, dtype=dtype), draw(3, 5, 6, dtype=dtype, seed=1) if with_added else None
    kept = states.clone(), None if added is None else added.clone()
    found = results(layer.add_to, layer, added, states)
    assert_equal_results(found, results(lambda *x: plain(layer, *x), layer, added, states), tolerance)
    with torch.no_grad():
        assert_equal_results({"value": layer.add_to(added, states)}, {"value": found["value"]}, tolerance)
    assert torch.equal(states, kept[0])
    assert added is None or torch.equal(added, kept[1])


@pytest.mark.parametrize(
    "sizes",
    [(4, 6), (2, 3, 6), (2, 1, 3, 6), (6,), (0, 6)],
    ids=str,
)
def test_any_number_of_dimensions(sizes):
    layer = build()
    torch.testing.assert_close(layer(draw(*sizes)), layer.plain(draw(*sizes)))


@pytest.mark.parametrize("with_added", [False, True])
def test_gradcheck_over_slices(monkeypatch, with_added):
    monkeypatch.setattr(feed_forward, "NUM_COLUMNS_TRAINING", 3)
    layer = build(d_model=3, d_ff=7)
    states, added = draw(4, 3).requires_grad_(), draw(4, 3, seed=1).requires_grad_() if with_added else None

    def compute(states, added, *weights):
        named = dict(zip(("gate.weight", "up.weight", "down.weight"), weights, strict=True))
        return torch.func.functional_call(
            _AddTo(layer), {f"layer.{key}": x for key, x in named.items()}, (added, states)
        )

    assert torch.autograd.gradcheck(compute, (states, added, *layer.parameters()))


class _AddTo(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, added, states):
        return self.layer.add_to(added, states)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("alone", [True, False], ids=["learns alone", "frozen alone"])
def test_frozen_parts(part, alone):
    layer = build(d_ff=1030)
    states, added = draw(3, 5, 6), draw(3, 5, 6, seed=1)
    wanted = [name for name in PARTS if (name == part) == alone]
    found = results(layer.add_to, layer, added, states, wanted)
    expected = results(lambda *x: plain(layer, *x), layer, added, states, wanted)
    assert set(found) == {"value", *wanted}
    assert_equal_results(found, expected, 1e-10)


def test_a_second_gradient_is_refused():
    """Rather than wrong: the gradient is not written in differentiable steps."""
    layer, states = build(), draw(2, 6).requires_grad_()
    (grad,) = torch.autograd.grad(layer(states).square().sum(), states, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bits_and_autocast(dtype):
    layer, states, added = build(d_model=32, d_ff=1030), draw(40, 32), draw(40, 32, seed=1)
    exact = results(lambda *x: plain(layer, *x), layer, added, states)
    layer.float()
    with torch.autocast("cpu", dtype):
        mixed = results(layer.add_to, layer, added.float(), states.float())
    assert all(result.dtype == torch.float32 for result in mixed.values())
    assert_equal_results(mixed, exact, 2e-2 if dtype == torch.bfloat16 else 3e-3)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        layer.down.weight.zero_()
        assert torch.equal(layer.add_to(added.float(), states.float()), added.float())  # what is added is not rounded
        layer.down.weight.copy_(build(d_model=32, d_ff=1030).down.weight)
    low = results(layer.to(dtype).add_to, layer, added.to(dtype), states.to(dtype))
    assert all(result.dtype == dtype for result in low.values())
    assert_equal_results(low, exact, 2e-2 if dtype == torch.bfloat16 else 3e-3)


@pytest.mark.parametrize("d_ff", [64, 2500])
def test_keeps_half_of_what_the_plain_layer_keeps(d_ff, kept_bytes):
    layer, states = build(8, d_ff, torch.float32), draw(50, 8, dtype=torch.float32).requires_grad_()
    given = [states, *layer.parameters()]
    ours, twin = kept_bytes(lambda: layer(states), given), kept_bytes(lambda: layer.plain(states), given)
    assert twin == 4 * 50 * d_ff * 4
    assert ours <= twin / 2
    layer.requires_grad_(False)
    assert kept_bytes(lambda: layer(states.detach()), given) == 0


def test_without_gradients_nothing_is_kept_even_if_the_weights_learn(peak_bytes):
    """The inner products of one slice at a time are alive, not those of all."""
    layer, states = build(8, 8192, torch.float32), draw(64, 8, dtype=torch.float32)
    of_one_slice = 64 * feed_forward.NUM_COLUMNS * 4

    def compute():
        with torch.no_grad():
            layer(states)

    assert peak_bytes(compute) < 5 * of_one_slice


def test_is_that_of_t5():
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5DenseGatedActDense

    torch.manual_seed(0)
    ours = GatedFeedForward(8, 20)
    config = T5Config(d_model=8, d_ff=20, feed_forward_proj="gated-gelu", dropout_rate=0.0)
    theirs = T5DenseGatedActDense(config)
    names = {"wi_0.weight": "gate.weight", "wi_1.weight": "up.weight", "wo.weight": "down.weight"}
    theirs.load_state_dict({name: ours.state_dict()[own] for name, own in names.items()})
    states = torch.randn(3, 8)
    torch.testing.assert_close(ours(states), theirs(states))


def test_a_hook_on_a_part_is_called():
    layer, states, seen = build(), draw(2, 6), []
    layer.up.register_forward_hook(lambda module, inputs, out: seen.append(out.shape) or 2 * out)
    torch.testing.assert_close(layer(states), layer.plain(states))
    assert seen
    torch.testing.assert_close(layer(states), 2 * build().plain(states))


def test_what_is_added_alone_may_learn():
    layer = build().requires_grad_(False)
    states, added = draw(4, 6), draw(4, 6).requires_grad_()
    out = layer.add_to(added, states)
    out.square().sum().backward()
    torch.testing.assert_close(added.grad, 2 * out.detach())


def test_in_place_without_gradients_alone():
    layer, states, added = build(), draw(4, 6), draw(4, 6, seed=3)
    expected, before = added + layer.plain(states), added.clone()
    torch.testing.assert_close(layer.add_to(added, states, in_place=True), expected)
    assert torch.equal(added, before)
    with torch.no_grad():
        torch.testing.assert_close(layer.add_to(added, states), expected)
        assert torch.equal(added, before)
        result = layer.add_to(added, states, in_place=True)
    torch.testing.assert_close(result, expected)
    assert result.data_ptr() == added.data_ptr()
