"""Check that a fusion obeys its contract: shapes, masks, padding, and text states without an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from umie.errors import UmieError
from umie.fusion.base import Fusion
from umie.types import FusedStates

# Real text tokens and visual slots of each example; the second has no image.
LENGTHS = ((5, 3), (3, 0), (1, 4))
Example = tuple[Tensor, Tensor]  # real text states [N, D] and visual states [M, D]


def check_fusion(fusion: Fusion, *, gradients: bool = False) -> None:
    """Run a fusion on small random batches and check its output; takes a few milliseconds.

    The checks run in evaluation mode, on the device and in the dtype of the fusion's weights (which must be real, not
    on the meta device). The module's mode and gradients and the global random state are left unchanged.

    With ``gradients`` it also checks that a finite gradient reaches the text, the image if it is used, and every
    parameter that requires one.

    Raises:
        UmieError: ``forward`` raises, or does not return ``FusedStates``; a shape, dtype or mask is wrong; the states
            at real positions are not finite, or depend on padding or on other examples; an example whose visual mask
            is all False does not return its text states exactly; or a gradient is missing. The message names the class
            and what is broken.
    """
    weight = next(fusion.parameters(), torch.empty(0))
    generator = torch.Generator().manual_seed(0)

    def draw(length: int) -> Tensor:
        return torch.randn(length, fusion.config.d_model, generator=generator).to(weight.device, weight.dtype)

    examples = [(draw(num_tokens), draw(num_slots)) for num_tokens, num_slots in LENGTHS]
    was_training, devices = fusion.training, [weight.device] if weight.device.type == "cuda" else []
    fusion.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices):
            _check_padding(fusion, examples)
            without = [(text, visual[:0]) for text, visual in examples]
            for (text, _), states in zip(examples, _fuse(fusion, without, slots=3), strict=True):
                if not torch.equal(states, text):
                    raise _error(fusion, "the states of an example without an image differ from its text states")
            if gradients:
                _check_gradients(fusion, examples)
    finally:
        fusion.train(was_training)


def _check_padding(fusion: Fusion, examples: Sequence[Example]) -> None:
    together = _fuse(fusion, examples)
    precision = torch.finfo(together[0].dtype)
    padding = min(1e4, precision.max**0.25)  # large, so that it shows, but its products stay finite in float16
    wide = _fuse(fusion, examples, tokens=9, slots=8, padding=padding)
    separate = [_fuse(fusion, [example], padding=-padding)[0] for example in examples]
    tolerance = 100 * precision.eps**0.75  # float32: 6e-4
    for states, *others in zip(together, wide, separate, strict=True):
        scale = max(1.0, float(states.abs().max()))
        if any(not torch.allclose(states, other, rtol=0, atol=tolerance * scale) for other in others):
            raise _error(
                fusion,
                "the states of an example depend on its padding or on the other examples of the batch; mask the "
                "visual states with visual_mask, and the text states with text_mask",
            )


def _check_gradients(fusion: Fusion, examples: Sequence[Example]) -> None:
    with torch.enable_grad():
        examples = [(text.requires_grad_(), visual.requires_grad_()) for text, visual in examples]
        states = torch.cat(_fuse(fusion, examples))
        weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(1)).to(states)
        loss = (states * weights).sum()
    leaves = [("the text", text) for text, _ in examples]
    if fusion.uses_image:
        leaves += [("the visual states", visual) for _, visual in examples if len(visual)]
    leaves += [(f"the parameter {name}", value) for name, value in fusion.named_parameters() if value.requires_grad]
    found = torch.autograd.grad(loss, [leaf for _, leaf in leaves], allow_unused=True)
    for (name, _), gradient in zip(leaves, found, strict=True):
        if gradient is None or not gradient.any():
            raise _error(fusion, f"no gradient reaches {name}")
        if not gradient.isfinite().all():
            raise _error(fusion, f"the gradient of {name} is not finite")


def _fuse(
    fusion: Fusion, examples: Sequence[Example], *, tokens: int = 0, slots: int = 1, padding: float = 1.0
) -> list[Tensor]:
    """Return the states at the real positions of each example, after checking shapes, dtypes and masks.

    Texts are padded to at least ``tokens``, and images to at least ``slots``, with the value ``padding``.
    """
    text, text_mask = _pad([text for text, _ in examples], tokens, padding)
    visual, visual_mask = _pad([visual for _, visual in examples], slots, padding)
    try:
        fused = fusion(text, text_mask, visual, visual_mask)
    except Exception as error:
        shapes = f"text {list(text.shape)} and visual {list(visual.shape)}"
        raise _error(fusion, f"forward raises on {shapes}: {type(error).__name__}: {error}") from error
    if not isinstance(fused, FusedStates):
        raise _error(fusion, f"forward returns {type(fused).__name__} instead of umie.fusion.FusedStates")
    states, mask = fused.states, fused.mask
    batch, length, d_model = text.shape
    if states.ndim != 3 or states.shape[0] != batch or states.shape[1] < length or states.shape[2] != d_model:
        expected = f"[{batch}, {length} or more, {d_model}]"
        raise _error(fusion, f"states have the shape {list(states.shape)}; expected {expected}")
    if states.dtype != text.dtype:
        raise _error(fusion, f"states have the dtype {states.dtype}; expected that of the text, {text.dtype}")
    if mask.shape != states.shape[:2] or mask.dtype != torch.bool:
        expected = f"torch.bool {list(states.shape[:2])}"
        raise _error(fusion, f"the mask is {mask.dtype} {list(mask.shape)}; expected {expected}")
    if not torch.equal(mask[:, :length], text_mask):
        raise _error(fusion, f"the first {length} columns of the mask differ from text_mask")
    if fused.gate is not None and fused.gate.shape[:1] != text.shape[:1]:
        raise _error(fusion, f"the gate has the shape {list(fused.gate.shape)}; expected [{batch}]")
    if not states[mask].isfinite().all():
        raise _error(fusion, "states at real positions are not finite")
    return [row[real] for row, real in zip(states, mask, strict=True)]


def _pad(rows: Sequence[Tensor], minimum: int, padding: float) -> tuple[Tensor, Tensor]:
    length = max(minimum, *map(len, rows))
    states = rows[0].new_full((len(rows), length, rows[0].shape[1]), padding)
    mask = torch.zeros(len(rows), length, dtype=torch.bool, device=states.device)
    for index, row in enumerate(rows):
        states[index, : len(row)], mask[index, : len(row)] = row, True
    return states, mask


def _error(fusion: Fusion, problem: str) -> UmieError:
    return UmieError(f"fusion {type(fusion).__name__}: {problem}")
