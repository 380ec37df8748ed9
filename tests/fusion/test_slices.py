"""Slices of a batch: the same states as for the whole batch, with less memory."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from umie.fusion import registry
from umie.fusion.kernels.cpu.slices import NUM_TOKENS, in_slices


def watched(seen):
    """Return a function that treats examples independently and records the size of each call."""

    def function(states, mask, gate):
        seen.append(len(states))
        return gate[:, None, None] * states.masked_fill(~mask[..., None], 0).cumsum(1)

    return function


def draw(batch, tokens, width=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(batch, tokens, width, generator=generator)
    return states, torch.rand(batch, tokens, generator=generator) < 0.7, torch.randn(batch, generator=generator)


@given(batch=st.integers(0, 12), tokens=st.sampled_from([0, 1, 200, 682, 1024, 2047, 2048, 2049]))
def test_equals_the_whole_batch(batch, tokens):
    arguments, seen = draw(batch, tokens), []
    with torch.no_grad():
        found = in_slices(watched(seen), *arguments)
    assert torch.equal(found, watched([])(*arguments))
    assert sum(seen) == batch
    assert all(size * tokens <= NUM_TOKENS or size == 1 for size in seen)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_slices_only_without_gradients(mode):
    arguments, seen = draw(9, NUM_TOKENS // 2), []
    arguments[0].requires_grad_()
    whole = in_slices(watched(seen), *arguments)
    assert seen == [9]
    with mode():
        assert torch.equal(in_slices(watched(seen), *arguments), whole)
    assert seen[1:] == [2, 2, 2, 2, 1]
    with mode():
        assert torch.equal(in_slices(watched(seen), *arguments, whole=True), whole)
    assert seen[6:] == [9]
    (grad,) = torch.autograd.grad(whole.sum(), arguments[0])
    assert grad.isfinite().all()


def test_keeps_the_dtype_of_the_result():
    with torch.no_grad():
        found = in_slices(lambda states: states.bfloat16(), torch.ones(4, 1400, 2))
    assert found.dtype == torch.bfloat16
    assert found.shape == (4, 1400, 2)


FUSIONS = [("gated", {"residual": "paper"}), ("gated", {"residual": "released"}), ("cross_attention", {})]


@pytest.mark.parametrize(("name", "options"), FUSIONS)
@pytest.mark.parametrize("backend", ["auto", "absorbed"])
def test_a_fusion_in_slices_equals_it_whole(name, options, backend):
    torch.manual_seed(0)
    fusion = registry.build(name, d_model=16, num_heads=2, backend=backend, **options).eval()
    text, text_mask, _ = draw(5, 600, 16)
    visual, visual_mask, _ = draw(5, 9, 16, seed=1)
    visual_mask[2] = False
    whole = fusion(text, text_mask, visual, visual_mask).states  # with gradients: not sliced
    with torch.no_grad():
        sliced = fusion(text, text_mask, visual, visual_mask).states
    torch.testing.assert_close(sliced[text_mask], whole[text_mask], atol=1e-5, rtol=1e-5)
    assert torch.equal(sliced[2][text_mask[2]], text[2][text_mask[2]])


def test_lowers_peak_memory(peak_bytes):
    """Only the intermediate results of one slice are alive at a time."""
    torch.manual_seed(0)
    fusion = registry.build("gated", d_model=16, num_heads=2, d_ff=64, residual="released", gate=0.3, backend="sdpa")
    fusion = fusion.eval().requires_grad_(False)
    text, text_mask, _ = draw(16, 256, 16)
    text_mask.fill_(True)  # padding would be set to zero in a copy of the text
    visual, visual_mask, _ = draw(16, 4, 16, seed=1)

    def sliced():
        with torch.no_grad():
            fusion(text, text_mask, visual, visual_mask)

    def whole():
        fusion(text, text_mask, visual, visual_mask)  # all weights are frozen: nothing is saved for a gradient

    assert peak_bytes(sliced) < 0.6 * peak_bytes(whole)
