"""The contract of a fusion, checked on a small batch before it is timed.

A fusion from a plugin has no reference implementation: run in float64 it can show rounding errors, but not that it
uses padding or ignores the image mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from umie.types import FusedStates

ROWS = ((5, 3), (4, 0), (1, 1), (7, 2))  # real tokens and real slots of each example; the second has no image
TOLERANCE = 1e-5
GARBAGE = 100.0  # scale of the values at padding


def broken_contract(fusion: nn.Module, d_model: int) -> str | None:
    """Return the first clause that a fusion breaks, or None if it keeps the contract.

    Args:
        fusion: in float32 on the CPU, in evaluation mode; its gradients are cleared.
        d_model: the width D.
    """
    text, text_mask, visual, visual_mask = _batch(d_model)
    text.requires_grad_()
    visual.requires_grad_()
    fused = fusion(text, text_mask, visual, visual_mask)
    if not isinstance(fused, FusedStates):
        return f"returns {type(fused).__name__}, not FusedStates"
    num_tokens = text.shape[1]
    if fused.states.shape != (*fused.mask.shape, d_model) or fused.mask.dtype != torch.bool:
        shapes = f"states {list(fused.states.shape)} and mask {list(fused.mask.shape)}"
        return f"returns {shapes}, not states [B, T', D] and a bool mask [B, T']"
    if not torch.equal(fused.mask[:, :num_tokens], text_mask):
        return "the mask of the fused states does not begin with the text mask"
    together = _real(fused)
    with torch.no_grad():
        for row, (tokens, slots) in enumerate(ROWS):
            slots = max(slots, 1)
            one = slice(row, row + 1)
            single = fusion(text[one, :tokens], text_mask[one, :tokens], visual[one, :slots], visual_mask[one, :slots])
            if not _close(together[row], _real(single)[0]):
                return "an example depends on padding or on the other examples of its batch"
        without = fusion(text, text_mask, visual, torch.zeros_like(visual_mask))
        if not all(map(torch.equal, _real(without), _real(FusedStates(text, text_mask)))):
            return "without an image the fused states are not exactly the text states"
    weights = torch.randn(fused.states.shape, generator=torch.Generator().manual_seed(1))
    loss: Any = (fused.states * weights)[fused.mask].sum()
    loss.backward()
    for name, gradient in _gradients(fusion, text, visual, uses_image=getattr(fusion, "uses_image", True)).items():
        if gradient is None or not gradient.any():
            return f"no gradient reaches {name}"
        if not gradient.isfinite().all():
            return f"the gradient of {name} is not finite"
    fusion.zero_grad(set_to_none=True)
    return None


def _batch(d_model: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors: list[Tensor] = []
    for lengths in zip(*ROWS, strict=True):
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        states = torch.randn(*mask.shape, d_model, generator=generator)
        tensors += [torch.where(mask[..., None], states, GARBAGE * states), mask]
    text, text_mask, visual, visual_mask = tensors
    return text, text_mask, visual, visual_mask


def _real(fused: FusedStates) -> list[Tensor]:
    return [states[mask] for states, mask in zip(fused.states, fused.mask, strict=True)]


def _close(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


def _gradients(fusion: nn.Module, text: Tensor, visual: Tensor, *, uses_image: bool) -> dict[str, Tensor | None]:
    found = {"the text": text.grad, **({"the visual states": visual.grad} if uses_image else {})}
    return found | {f"the parameter {name}": value.grad for name, value in fusion.named_parameters()}
