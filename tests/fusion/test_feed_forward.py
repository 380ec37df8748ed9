"""The feed-forward layer against its plain reference and T5's: values, gradients, and memory."""

import pytest
import torch

from umie.fusion.kernels.base import add_gated
from umie.fusion.kernels.cpu import feed_forward
from umie.fusion.layers import GatedFeedForward

PARTS = ("states", "residual", "gate", "up", "down")


def build(d_model=6, d_ff=20, dtype=torch.float64):
    torch.manual_seed(0)
    return GatedFeedForward(d_model, d_ff).to(dtype)


def draw(*sizes, dtype=torch.float64, seed=0):
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def reference(layer, states, residual=None):
    weights = layer.gate.weight, layer.up.weight, layer.down.weight
    out = feed_forward.gated_feed_forward_reference(states, *weights)
    return out if residual is None else residual + out


def results(function, layer, states, residual, wanted=PARTS):
    """Return the value and the gradients of ``wanted``, from a loss that weights every number differently."""
    leaves = {"states": states, "residual": residual}
    leaves = {name: x.detach().clone().requires_grad_(name in wanted) for name, x in leaves.items() if x is not None}
    weights = {"gate": layer.gate.weight, "up": layer.up.weight, "down": layer.down.weight}
    for name, weight in weights.items():
        weight.requires_grad_(name in wanted)
    out = function(leaves["states"], leaves.get("residual"))
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
@pytest.mark.parametrize("with_residual", [False, True])
def test_equals_the_reference(with_residual, d_ff, dtype, tolerance):
    layer = build(d_ff=d_ff, dtype=dtype)
    states, residual = draw(3, 5, 6, dtype=dtype), draw(3, 5, 6, dtype=dtype, seed=1) if with_residual else None
    before = states.clone(), None if residual is None else residual.clone()
    found = results(layer, layer, states, residual)
    assert_equal_results(found, results(lambda *x: reference(layer, *x), layer, states, residual), tolerance)
    with torch.no_grad():
        assert_equal_results({"value": layer(states, residual)}, {"value": found["value"]}, tolerance)
    assert torch.equal(states, before[0])
    assert residual is None or torch.equal(residual, before[1])


@pytest.mark.parametrize(
    "sizes",
    [(4, 6), (2, 3, 6), (2, 1, 3, 6), (6,), (0, 6)],
    ids=str,
)
def test_any_number_of_dimensions(sizes):
    layer = build()
    torch.testing.assert_close(layer(draw(*sizes)), reference(layer, draw(*sizes)))


@pytest.mark.parametrize("with_residual", [False, True])
def test_gradcheck_over_slices(monkeypatch, with_residual):
    monkeypatch.setattr(feed_forward, "NUM_COLUMNS_TRAINING", 3)
    layer = build(d_model=3, d_ff=7)
    states, residual = draw(4, 3).requires_grad_(), draw(4, 3, seed=1).requires_grad_() if with_residual else None

    def compute(states, residual, *weights):
        named = dict(zip(("gate.weight", "up.weight", "down.weight"), weights, strict=True))
        return torch.func.functional_call(layer, named, (states, residual))

    assert torch.autograd.gradcheck(compute, (states, residual, *layer.parameters()))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("only_this", [True, False], ids=["only trainable", "only frozen"])
def test_frozen_parts(part, only_this):
    layer = build(d_ff=1030)
    states, residual = draw(3, 5, 6), draw(3, 5, 6, seed=1)
    wanted = [name for name in PARTS if (name == part) == only_this]
    found = results(layer, layer, states, residual, wanted)
    expected = results(lambda *x: reference(layer, *x), layer, states, residual, wanted)
    assert set(found) == {"value", *wanted}
    assert_equal_results(found, expected, 1e-10)


def test_a_second_derivative_raises():
    """The backward pass is not differentiable, so a second derivative would be wrong."""
    layer, states = build(), draw(2, 6).requires_grad_()
    (grad,) = torch.autograd.grad(layer(states).square().sum(), states, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bits_and_autocast(dtype):
    layer, states, residual = build(d_model=32, d_ff=1030), draw(40, 32), draw(40, 32, seed=1)
    exact = results(lambda *x: reference(layer, *x), layer, states, residual)
    layer.float()
    with torch.autocast("cpu", dtype):
        mixed = results(layer, layer, states.float(), residual.float())
    assert all(result.dtype == torch.float32 for result in mixed.values())
    assert_equal_results(mixed, exact, 2e-2 if dtype == torch.bfloat16 else 3e-3)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        layer.down.weight.zero_()
        assert torch.equal(layer(states.float(), residual.float()), residual.float())  # the residual is not rounded
        layer.down.weight.copy_(build(d_model=32, d_ff=1030).down.weight)
    low = results(layer.to(dtype), layer, states.to(dtype), residual.to(dtype))
    assert all(result.dtype == dtype for result in low.values())
    assert_equal_results(low, exact, 2e-2 if dtype == torch.bfloat16 else 3e-3)


@pytest.mark.parametrize("d_ff", [64, 2500])
def test_saves_half_as_much_as_the_reference(d_ff, kept_bytes):
    layer, states = build(8, d_ff, torch.float32), draw(50, 8, dtype=torch.float32).requires_grad_()
    given = [states, *layer.parameters()]
    ours, plain = kept_bytes(lambda: layer(states), given), kept_bytes(lambda: reference(layer, states), given)
    assert plain == 4 * 50 * d_ff * 4
    assert ours <= plain / 2
    layer.requires_grad_(False)
    assert kept_bytes(lambda: layer(states.detach()), given) == 0


def test_without_gradients_memory_is_that_of_one_slice(peak_bytes):
    """Even if the weights are trainable."""
    layer, states = build(8, 8192, torch.float32), draw(64, 8, dtype=torch.float32)
    of_one_slice = 64 * feed_forward.NUM_COLUMNS * 4

    def compute():
        with torch.no_grad():
            layer(states)

    assert peak_bytes(compute) < 5 * of_one_slice


def test_equals_t5():
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


def test_a_hook_on_a_projection_is_called():
    layer, states, calls = build(), draw(2, 6), []
    layer.up.register_forward_hook(lambda module, inputs, out: calls.append(out.shape) or 2 * out)
    torch.testing.assert_close(layer(states), reference(build(), states) * 2)
    assert len(calls) == 1


def test_only_the_residual_is_trainable():
    layer = build().requires_grad_(False)
    states, residual = draw(4, 6), draw(4, 6).requires_grad_()
    out = layer(states, residual)
    out.square().sum().backward()
    torch.testing.assert_close(residual.grad, 2 * out.detach())


def test_reuses_the_residual_only_without_gradients():
    layer, states, residual = build(), draw(4, 6), draw(4, 6, seed=3)
    expected, before = reference(layer, states, residual), residual.clone()
    torch.testing.assert_close(layer(states, residual, reuse_residual=True), expected)
    assert torch.equal(residual, before)
    with torch.no_grad():
        torch.testing.assert_close(layer(states, residual), expected)
        assert torch.equal(residual, before)
        result = layer(states, residual, reuse_residual=True)
    torch.testing.assert_close(result, expected)
    assert result.data_ptr() == residual.data_ptr()


@pytest.mark.parametrize("gate", [None, torch.tensor([0.5, -2.0])], ids=["no gate", "gate"])
@pytest.mark.parametrize("with_residual", [False, True])
def test_add_gated(with_residual, gate):
    states, residual = draw(2, 3, 4), draw(2, 3, 4, seed=1) if with_residual else None
    factor = 1.0 if gate is None else gate.double()[:, None, None]
    expected, before = factor * states + (0 if residual is None else residual), states.clone()
    gate = None if gate is None else gate.double()
    torch.testing.assert_close(add_gated(residual, gate, states, reuse_states=True), expected)
    with torch.no_grad():
        torch.testing.assert_close(add_gated(residual, gate, states), expected)
        assert torch.equal(states, before)
        torch.testing.assert_close(add_gated(residual, gate, states, reuse_states=True), expected)
    assert torch.equal(states, before) == (gate is None or not with_residual)
