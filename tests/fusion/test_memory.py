"""The gated block against a plain implementation of its equations: the same numbers, with less memory."""

import pytest
import torch
import torch.nn.functional as F

from umie.fusion import registry
from umie.fusion.attention import attention_weights
from umie.fusion.kernels.cpu.feed_forward import gated_feed_forward_reference

# H * V / D (the attention weights) and F / D (the feed-forward layer) are close to those of FLAN-T5 base.
D_MODEL, NUM_HEADS, SLOTS, TOKENS, BATCH = 64, 4, 9, 64, 6
BACKENDS = ("auto", "sdpa", "absorbed")


def build(residual, backend):
    torch.manual_seed(0)
    return registry.build("gated", d_model=D_MODEL, num_heads=NUM_HEADS, residual=residual, backend=backend)


def draw():
    torch.manual_seed(1)
    text, visual = torch.randn(BATCH, TOKENS, D_MODEL), torch.randn(BATCH, SLOTS, D_MODEL)
    text_mask, visual_mask = torch.rand(BATCH, TOKENS) < 0.8, torch.rand(BATCH, SLOTS) < 0.8
    text_mask[:, 0], visual_mask[:, 0] = True, True
    return text.requires_grad_(), text_mask, visual.requires_grad_(), visual_mask


def norm(x, weight):
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def plain(fusion, text, text_mask, visual, visual_mask):
    """Return the fused states from torch operations; the gate projects tokens before averaging."""
    layer = fusion.attention
    q, k, v = (
        projection(states).view(BATCH, -1, NUM_HEADS, layer.head_dim)
        for projection, states in (
            (layer.query, norm(text, fusion.norm.weight)),
            (layer.key, visual),
            (layer.value, visual),
        )
    )
    weights = attention_weights(q, k, key_mask=visual_mask, scale=layer.scale)
    found = layer.output(torch.einsum("bhtv,bvhd->bthd", weights, v).flatten(2))
    means = [
        (projection(states) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        for projection, states, mask in (
            (fusion.gate_text, text, text_mask),
            (fusion.gate_visual, visual, visual_mask),
        )
    ]
    gate = F.leaky_relu(torch.e**0.5 * F.cosine_similarity(*means), 0.01)
    if fusion.config.residual == "released":
        gate = F.leaky_relu(gate, 0.01)
        found = text + found
        found = found + gated_feed_forward_reference(
            norm(found, fusion.feed_forward_norm.weight),
            *(layer.weight for layer in (fusion.feed_forward.gate, fusion.feed_forward.up, fusion.feed_forward.down)),
        )
    return text + gate[:, None, None] * found


def ours(fusion, *inputs):
    return fusion(*inputs).states


def run_both_ways(function, fusion, inputs):
    """Run forward and backward, and free the gradients."""
    function(fusion, *inputs).square().sum().backward()
    for leaf in (inputs[0], inputs[2], *fusion.parameters()):
        leaf.grad = None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("residual", ["paper", "released"])
def test_equals_the_plain_block(residual, backend):
    fusion, inputs = build(residual, backend), draw()
    found, expected = (function(fusion, *inputs)[inputs[1]] for function in (ours, plain))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    leaves = [inputs[0], inputs[2], *fusion.parameters()]
    grads = (torch.autograd.grad(states.square().mean(), leaves) for states in (found, expected))
    for mine, other in zip(*grads, strict=True):
        assert (mine - other).norm() <= 2e-5 * other.norm()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("residual", ["paper", "released"])
def test_saves_less_than_the_plain_block(residual, backend, kept_bytes):
    fusion, inputs = build(residual, backend), draw()
    given = [*inputs, *fusion.parameters()]
    kept, reference = (kept_bytes(lambda f=function: f(fusion, *inputs), given) for function in (ours, plain))
    assert kept <= {"paper": 0.4, "released": 0.5}[residual] * reference


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("residual", ["paper", "released"])
def test_peak_memory_is_below_that_of_the_plain_block(residual, backend, peak_bytes):
    fusion, inputs = build(residual, backend), draw()
    peak, reference = (peak_bytes(lambda f=function: run_both_ways(f, fusion, inputs)) for function in (ours, plain))
    assert peak <= 0.8 * reference
