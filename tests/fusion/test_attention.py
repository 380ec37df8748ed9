"""Attention against a loop, and its edge cases: no slots, one token, one slot."""

import math

import pytest
import torch

from umie.fusion.attention import MultiHeadAttention, attention, attention_weights, head_width

MASK = torch.tensor([[True, False, True, True], [False] * 4, [False, False, False, True]])


def draw(batch=3, tokens=5, slots=4, heads=2, width=6, dtype=torch.float32, grad=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, tokens, heads, width), (batch, slots, heads, width), (batch, slots, heads, width))
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    return [value.requires_grad_(grad) for value in drawn]


def plain(q, k, v, *, key_mask, scale):
    """Return attention for one example, head and query at a time, over the real keys only."""
    out = torch.zeros_like(q)
    for row, real in enumerate(key_mask):
        for head in range(q.shape[2]):
            for token in range(q.shape[1]):
                if real.any():
                    logits = k[row, real, head] @ q[row, token, head] * scale
                    out[row, token, head] = logits.softmax(0) @ v[row, real, head]
    return out


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_equals_a_loop_in_values_and_gradients(scale, backend):
    inputs = draw(dtype=torch.float64, grad=True)
    weights = torch.randn(3, 5, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    out = attention(*inputs, key_mask=MASK, scale=scale, backend=backend)
    expected_out = plain(*inputs, key_mask=MASK, scale=scale)
    torch.testing.assert_close(out, expected_out)
    found = torch.autograd.grad((out * weights).sum(), inputs)
    for gradient, expected in zip(found, torch.autograd.grad((expected_out * weights).sum(), inputs), strict=True):
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12), (torch.bfloat16, 5e-2)], ids=str
)
def test_weights_are_the_ones_that_sum_the_values(dtype, tolerance):
    """Values and gradients in every precision, against float64."""
    inputs = draw(dtype=dtype, grad=True)
    exact = [value.detach().double().requires_grad_() for value in inputs]
    out = attention(*inputs, key_mask=MASK, scale=0.4)
    weights = attention_weights(*exact[:2], key_mask=MASK, scale=0.4)
    expected_out = torch.einsum("bhtv,bvhd->bthd", weights, exact[2])
    assert out.dtype == dtype
    assert weights.dtype == torch.float64
    torch.testing.assert_close(out.double(), expected_out, atol=tolerance, rtol=0)
    found = torch.autograd.grad(out.square().sum(), inputs)
    for gradient, expected in zip(found, torch.autograd.grad(expected_out.square().sum(), exact), strict=True):
        torch.testing.assert_close(gradient.double(), expected, atol=10 * tolerance, rtol=0)


def test_weights_sum_to_one_over_real_slots():
    q, k, _ = draw()
    weights = attention_weights(q, k, key_mask=MASK, scale=0.4)
    assert weights.shape == (3, 2, 5, 4)
    torch.testing.assert_close(weights.sum(-1)[[0, 2]], torch.ones(2, 2, 5))
    assert not weights[~MASK[:, None, None, :].expand_as(weights)].any()
    assert (weights[2, :, :, 3] == 1).all()


def test_an_example_without_keys_gives_zeros_and_no_gradient():
    inputs = draw(grad=True)
    out = attention(*inputs, key_mask=MASK, scale=1.0)
    assert torch.equal(out[1], torch.zeros_like(out[1]))
    assert out[[0, 2]].any(dim=-1).all()
    out.square().sum().backward()
    for value in inputs:
        assert value.grad.isfinite().all()
        assert not value.grad[1].any()


def test_masked_keys_never_matter():
    q, k, v = draw()
    expected = attention(q, k, v, key_mask=MASK, scale=1.0)
    k[~MASK], v[~MASK] = 1e6, -1e6
    torch.testing.assert_close(attention(q, k, v, key_mask=MASK, scale=1.0), expected)


def test_one_query_and_one_key():
    q, k, v = draw(tokens=1, slots=1)
    mask = torch.ones(3, 1, dtype=torch.bool)
    torch.testing.assert_close(attention(q, k, v, key_mask=mask, scale=1.0), v)
    assert torch.equal(attention_weights(q, k, key_mask=mask, scale=1.0), torch.ones(3, 2, 1, 1))
    assert not attention(q, k, v, key_mask=~mask, scale=1.0).any()


def test_extreme_logits_stay_finite():
    q, k, v = draw()
    out = attention(1e4 * q, 1e4 * k, v, key_mask=MASK, scale=1.0)
    weights = attention_weights(1e4 * q, 1e4 * k, key_mask=MASK, scale=1.0)
    assert out.isfinite().all()
    torch.testing.assert_close(out, torch.einsum("bhtv,bvhd->bthd", weights, v))


@pytest.mark.parametrize("mask", [MASK, MASK[:, -1:]], ids=["several keys", "one key"])
def test_gradcheck(mask):
    inputs = draw(tokens=2, slots=mask.shape[1], width=3, dtype=torch.float64, grad=True)
    assert torch.autograd.gradcheck(lambda q, k, v: attention(q, k, v, key_mask=mask, scale=0.7), inputs)


def test_gradcheck_of_the_weights():
    q, k, _ = draw(tokens=2, width=3, dtype=torch.float64, grad=True)
    assert torch.autograd.gradcheck(lambda q, k: attention_weights(q, k, key_mask=MASK, scale=0.7), (q, k))


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("head_dim", [None, 5])
@pytest.mark.parametrize("scaled", [True, False])
def test_layer_equals_its_projections_around_attention(scaled, head_dim, backend):
    torch.manual_seed(0)
    layer = MultiHeadAttention(12, 3, head_dim, scaled=scaled, backend=backend).double()
    width = head_dim or 4
    queries, keys = torch.randn(3, 5, 12).double(), torch.randn(3, 4, 12).double()
    with torch.no_grad():
        out, weights = layer(queries, keys, MASK), layer.weights(queries, keys, MASK)
        q, k, v = (
            (states @ projection.weight.T).view(3, -1, 3, width)
            for states, projection in ((queries, layer.query), (keys, layer.key), (keys, layer.value))
        )
        scale = 1 / math.sqrt(width) if scaled else 1.0
        expected = plain(q, k, v, key_mask=MASK, scale=scale).reshape(3, 5, -1) @ layer.output.weight.T
    torch.testing.assert_close(out, expected)
    assert weights.shape == (3, 3, 5, 4)
    assert not out[1].any()
    assert all(projection.bias is None for projection in (layer.query, layer.key, layer.value, layer.output))


@pytest.mark.parametrize("scaled", [True, False])
def test_logits_start_with_unit_variance(scaled):
    torch.manual_seed(0)
    layer = MultiHeadAttention(64, 4, 16, scaled=scaled)
    states = torch.randn(400, 64)
    with torch.no_grad():
        q, k = (projection(states).view(400, 4, 16) for projection in (layer.query, layer.key))
        logits = torch.einsum("thd,vhd->htv", q, k) * layer.scale
    assert 0.7 < logits.std() < 1.4


def test_head_width():
    assert head_width(512, 8, None) == 64
    assert head_width(512, 6, 64) == 64
    with pytest.raises(ValueError, match="num_heads=6 does not divide d_model=512"):
        head_width(512, 6, None)
