"""`absorbed`, image by image, against its form for all images at once: values, gradients, and memory."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from umie.fusion.kernels import KernelCase, LayerInputs, Projections, absorbed, registry
from umie.fusion.kernels.conditions import needs_gradient

PARTS = ("queries", "k", "v", "query", "output", "residual")


def draw(batch=3, tokens=5, slots=4, heads=2, width=3, d_model=7, dtype=torch.float64, seed=0, residual=True):
    """Return the arguments of both forms by name; the last image has no real slot, so its values are zeros."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {
        "queries": (batch, tokens, d_model),
        "k": (batch, heads, slots, width),
        "v": (batch, heads, slots, width),
        "query": (heads, width, d_model),
        "output": (heads, width, d_model),
        "residual": (batch, tokens, d_model),
    }
    drawn = {
        name: torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for name, size in sizes.items()
    }
    bias = torch.zeros(batch, slots, dtype=dtype)
    bias[0, 1:] = -torch.inf
    drawn["k"][-1], drawn["v"][-1] = 0, 0
    return {name: drawn.get(name, bias) for name in (*PARTS[:5], "bias", "residual") if residual or name != "residual"}


def image_by_image(queries, k, v, query, output, bias, residual=None):
    save = needs_gradient(queries, k, v, query, output)
    return absorbed._ImageByImage.apply(queries, k, v, query, output, bias, residual, save, None)


def whole_batch(queries, k, v, query, output, bias, residual=None):
    out = absorbed._whole_batch(queries, k, v, query, output, bias, 0.0)
    return out if residual is None else residual + out


def results(function, arguments, wanted=PARTS):
    leaves = {name: x.detach().clone().requires_grad_(name in wanted) for name, x in arguments.items()}
    out = function(**leaves)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out.dtype)
    asked = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    grads = torch.autograd.grad((out * upstream).sum(), list(asked.values()))
    return {"value": out.detach(), **dict(zip(asked, grads, strict=True))}


def assert_equal_results(found, expected, tolerance):
    assert found.keys() == expected.keys()
    floor = 0.3 * max(result.norm() for result in expected.values())
    for name, result in found.items():
        assert (result.double() - expected[name]).norm() <= tolerance * max(expected[name].norm(), floor), name


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str)
@settings(max_examples=25)
@given(sizes=st.tuples(*(st.integers(1, most) for most in (4, 5, 6, 3, 5, 12))), seed=st.integers(0, 99))
def test_equals_the_whole_batch(dtype, tolerance, residual, sizes, seed):
    arguments = draw(*sizes, dtype=dtype, seed=seed, residual=residual)
    exact = {name: x.double() for name, x in arguments.items()}
    assert_equal_results(results(image_by_image, arguments), results(whole_batch, exact), tolerance)
    with torch.no_grad():
        torch.testing.assert_close(image_by_image(**arguments), whole_batch(**arguments))


@pytest.mark.parametrize("residual", [True, False])
def test_gradcheck(residual):
    arguments = draw(tokens=2, slots=3, d_model=4, residual=residual)
    names = [name for name in PARTS if name in arguments]

    def compute(*values):
        return image_by_image(**{**arguments, **dict(zip(names, values, strict=True))})

    assert torch.autograd.gradcheck(compute, [arguments[name].requires_grad_() for name in names])


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("only_this", [True, False], ids=["only trainable", "only frozen"])
def test_frozen_parts(part, only_this):
    wanted = [name for name in PARTS if (name == part) == only_this]
    arguments = draw()
    found, expected = results(image_by_image, arguments, wanted), results(whole_batch, arguments, wanted)
    assert set(found) == {"value", *wanted}
    assert_equal_results(found, expected, 1e-10)


def test_saves_only_the_attention_weights(kept_bytes):
    arguments = draw(batch=4, tokens=30, slots=9, heads=2, width=3, d_model=24, dtype=torch.float32)
    leaves = {name: x.requires_grad_(name != "bias") for name, x in arguments.items()}
    given = list(leaves.values())
    ours = kept_bytes(lambda: image_by_image(**leaves), given)
    assert ours == 4 * 30 * 2 * 9 * 4
    assert ours < 0.5 * kept_bytes(lambda: whole_batch(**leaves), given)


def run_layer(queries, keys, weights):
    mask = torch.ones(keys.shape[:2], dtype=torch.bool)
    inputs = LayerInputs(
        queries=queries, keys=keys, weights=weights, num_heads=4, key_mask=mask, scale=0.3, residual=queries
    )
    return registry.build("absorbed").layer(inputs)


def test_without_gradients_memory_is_that_of_one_image(peak_bytes):
    """Even if the weights are trainable, as when a model is evaluated during training."""
    batch, tokens, slots = 16, 64, 32
    torch.manual_seed(0)
    shapes = ((32, 16), (32, 16), (32, 16), (16, 32))
    weights = Projections(*(torch.randn(shape, requires_grad=True) for shape in shapes))
    queries, keys = torch.randn(batch, tokens, 16), torch.randn(batch, slots, 16)

    def compute():
        with torch.no_grad():
            run_layer(queries, keys, weights)

    of_all_weights = batch * tokens * 4 * slots * 4
    assert peak_bytes(compute) < of_all_weights


BASE = KernelCase(
    device="cpu", dtype=torch.float32, batch=8, num_queries=256, num_keys=37, num_heads=12, head_dim=64, d_model=768
)


def test_cost_counts_multiply_adds_and_weights_folding():
    kernel = registry.build("absorbed")
    per_token = 2 * 12 * 37 * 768
    fixed = 2 * 37 * 768 * 12 * 64 * (1 + absorbed.FOLD_COST)
    assert kernel.cost(BASE) == 8 * (256 * per_token + fixed)
    assert kernel.cost(dataclasses.replace(BASE, num_queries=0)) == 8 * fixed


@pytest.mark.parametrize("change", [{"device": "cuda"}, {"compiling": True}, {"d_model": None}], ids=str)
def test_auto_never_chooses_it_where_it_is_not_measured(change):
    assert registry.build("absorbed").cost(dataclasses.replace(BASE, **change)) is None


def test_only_the_residual_is_trainable():
    arguments = draw(tokens=3, slots=4, residual=True)
    fixed = {name: x.detach() for name, x in arguments.items()}
    fixed["residual"].requires_grad_()
    image_by_image(**fixed).square().sum().backward()
    expected = 2 * image_by_image(**fixed).detach()
    torch.testing.assert_close(fixed["residual"].grad, expected)


def test_residual_in_another_precision():
    queries, keys, residual = torch.randn(2, 3, 8), torch.randn(2, 4, 8), torch.randn(2, 3, 8).double()
    weights = Projections(*(torch.randn(8, 8) for _ in range(4)))
    inputs = LayerInputs(
        queries=queries,
        keys=keys,
        weights=weights,
        num_heads=2,
        key_mask=torch.ones(2, 4, dtype=torch.bool),
        scale=0.3,
        residual=residual,
    )
    found, expected = (registry.build(name).layer(inputs) for name in ("absorbed", "reference"))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
