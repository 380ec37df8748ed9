"""RMSNorm against torch's: values, gradients, precisions, and the memory saved for the gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from umie.fusion.kernels.cpu.norm import rms_norm_reference
from umie.fusion.layers import RMSNorm


def build(width, dtype=torch.float64):
    norm = RMSNorm(width).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-0.5, 1.7, width))
    return norm


def draw(*sizes, dtype=torch.float64, seed=0):
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def reference(norm, x):
    return rms_norm_reference(x, norm.weight, norm.eps)


def results(function, norm, x):
    """Return the value and the gradients of states and weight."""
    x = x.detach().clone().requires_grad_()
    out = function(x)
    loss = (out * draw(*out.shape, seed=5).to(out.dtype)).sum()
    return out.detach(), *torch.autograd.grad(loss, [x, norm.weight])


def assert_equal_results(found, expected, tolerance):
    for result, exact in zip(found, expected, strict=True):
        assert (result.double() - exact.double()).norm() <= tolerance * exact.double().norm()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str)
@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    width=st.integers(1, 40),
    size=st.sampled_from([1e-4, 1.0, 1e5]),
    seed=st.integers(0, 99),
)
def test_equals_the_reference(dtype, tolerance, sizes, width, size, seed):
    norm, x = build(width), size * draw(*sizes, width, seed=seed)
    exact = results(lambda x: reference(norm, x), norm, x.to(dtype).double())
    norm = norm.to(dtype)
    value, grad_x, grad_weight = results(norm, norm, x.to(dtype))
    assert value.dtype == grad_x.dtype == grad_weight.dtype == dtype
    # The component along the states vanishes (all of it for one number), so compare with the size before projection.
    scale = torch.rsqrt(x.square().mean(-1) + norm.eps).max() * norm.weight.double().abs().max()
    assert (grad_x.double() - exact[1]).norm() <= 2 * tolerance * scale * draw(*x.shape, seed=5).norm()
    # the gradient of the weight is a sum over the states, whose terms may cancel: compare with their size
    terms = draw(*x.shape, seed=5) * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.eps)
    assert (grad_weight.double() - exact[2]).norm() <= tolerance * terms.abs().flatten(0, -2).sum(0).norm()
    assert_equal_results([value], [exact[0]], tolerance)


def test_states_of_one_token():
    norm, x = build(4), draw(4)
    assert_equal_results(results(norm, norm, x), results(lambda x: reference(norm, x), norm, x), 1e-10)


def test_gradcheck():
    x, weight = draw(3, 5).requires_grad_(), build(5).weight
    norm = RMSNorm(5)
    assert torch.autograd.gradcheck(
        lambda x, weight: torch.func.functional_call(norm, {"weight": weight}, (x,)), (x, weight)
    )


def test_states_of_zeros_have_finite_gradients():
    found = results(norm := build(4), norm, torch.zeros(2, 4))
    assert_equal_results(found, results(lambda x: reference(norm, x.double()), norm, torch.zeros(2, 4).double()), 1e-6)
    assert not found[0].any()
    assert found[1].isfinite().all()


def test_epsilon_is_t5s():
    x = torch.full((1, 4), 1e-3, dtype=torch.float64)
    torch.testing.assert_close(RMSNorm(4).double()(x), x / (2e-6) ** 0.5)


@pytest.mark.parametrize("learns", ["states", "weight", "neither"])
def test_frozen_parts(learns):
    norm, x = build(6), draw(4, 6).requires_grad_(learns == "states")
    norm.weight.requires_grad_(learns == "weight")
    expected, found = reference(norm, x), norm(x)
    torch.testing.assert_close(found, expected)
    assert found.requires_grad == (learns != "neither")
    if learns != "neither":
        leaf = x if learns == "states" else norm.weight
        grads = [torch.autograd.grad(out.square().sum(), leaf)[0] for out in (found, expected)]
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bits(dtype):
    """All in 16 bits, and 16-bit states with float32 weights, as under autocast."""
    x, exact_norm = 3 * draw(50, 64), build(64)
    rounded = x.to(dtype)
    low = build(64, dtype)
    exact_norm.weight.data = low.weight.data.double()
    exact = results(lambda x: reference(exact_norm, x), exact_norm, rounded.double())
    tolerance = 1e-2 if dtype == torch.bfloat16 else 2e-3
    found = results(low, low, rounded)
    assert all(result.dtype == dtype for result in found)
    assert_equal_results(found, exact, tolerance)
    wide = low.float()
    mixed = results(wide, wide, rounded)
    assert [result.dtype for result in mixed] == [dtype, dtype, torch.float32]
    assert_equal_results(mixed, exact, tolerance / 2)
    with torch.autocast("cpu", dtype):
        assert torch.equal(wide(rounded), mixed[0])
        assert wide(rounded.float()).dtype == torch.float32


def test_large_states_in_half_precision_do_not_overflow():
    """300 ** 2 overflows float16."""
    x = torch.full((2, 8), 300.0, dtype=torch.float16)
    torch.testing.assert_close(RMSNorm(8).half()(x), torch.ones(2, 8, dtype=torch.float16))


def test_strided_states():
    norm, x = build(6), draw(6, 4, 3).transpose(0, 2)
    assert not x.is_contiguous()
    torch.testing.assert_close(norm(x), reference(norm, x))


def test_saves_one_number_per_token(kept_bytes):
    norm, x = build(64, torch.float32), draw(10, 7, 64, dtype=torch.float32).requires_grad_()
    assert kept_bytes(lambda: norm(x), [x, norm.weight]) == 10 * 7 * 4
    with torch.no_grad():
        assert kept_bytes(lambda: norm(x), [x, norm.weight]) == 0
