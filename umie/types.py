"""The values that parts pass to each other: visual features from encoders, fused states from fusion modules.

Shapes: B batch, T text tokens, V visual slots, D model width, H heads. Masks are bool, True = real.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from umie.errors import UmieError, UnknownNameError

if TYPE_CHECKING:
    import torch

IMAGE_POLICIES = ("error", "text_only", "skip")  # for images that are missing or unreadable
SPLITS = ("train", "dev", "test")
NUM_STEPS = 8  # times at which the path of a track through a video is known
IGNORED = -100  # label of positions left out of the loss
FEATURES = "visual_features"  # batch key: features [B, V, Dv] that were computed earlier, in place of images


def key_of(medium: str, name: str) -> str:
    """Return the batch key of a tensor of a medium; those of the image have no prefix."""
    return name if medium == "image" else f"{medium}.{name}"


def check_image_policy(policy: object) -> None:
    """Raise UnknownNameError unless ``policy`` is one of IMAGE_POLICIES."""
    if policy not in IMAGE_POLICIES:
        raise UnknownNameError("policy for missing images", policy, IMAGE_POLICIES)


def bool_mask(name: str, mask: torch.Tensor) -> torch.Tensor:
    """Return a mask as bool, True = real; ``name`` is for the message.

    Raises:
        UmieError: the mask has values other than 0 and 1, such as an additive one of 0 and -inf.
    """
    import torch

    if not isinstance(mask, torch.Tensor):
        raise UmieError(f"{name} is a {type(mask).__name__}: pass a bool tensor, True = real")
    if mask.dtype == torch.bool:
        return mask
    # a compiler cannot branch on values, and reading whole numbers from a GPU would wait for it
    read = mask.is_floating_point() or mask.device.type == "cpu"
    if read and not torch.compiler.is_compiling() and not ((mask == 0) | (mask == 1)).all():
        raise UmieError(f"{name} has values other than 0 and 1: pass a bool mask, True = real")
    return mask.bool()


@dataclass(frozen=True)
class VisualFeatures:
    """Features of the slots of a batch in one medium: the whole image, video or sound first, then its places.

    Args:
        features: ``[B, V, Dv]``.
        boxes: ``[B, V, 4]`` as x1, y1, x2, y2, relative to the image (0..1); of a track, the box in the middle.
        mask: bool ``[B, V]``, True where the slot is real; one of 0 and 1 is converted.
        spans: ``[B, V, 2]``, start and end relative to the length of the video or sound (0..1); None for an image.
        paths: ``[B, V, P, 4]``, how far a track has moved at P equidistant times: its edges, in widths and heights of
            its first box; None without tracks.

    Raises:
        UmieError: the shapes do not match, or the mask has other values.
    """

    features: torch.Tensor
    boxes: torch.Tensor
    mask: torch.Tensor
    spans: torch.Tensor | None = None
    paths: torch.Tensor | None = None

    def __post_init__(self) -> None:
        slots = tuple(self.features.shape[:2])
        if self.features.ndim != 3 or tuple(self.boxes.shape) != (*slots, 4) or tuple(self.mask.shape) != slots:
            raise UmieError(
                "VisualFeatures expects features [B, V, Dv], boxes [B, V, 4], mask [B, V]; got "
                f"{list(self.features.shape)}, {list(self.boxes.shape)}, {list(self.mask.shape)}."
            )
        if self.spans is not None and tuple(self.spans.shape) != (*slots, 2):
            raise UmieError(f"VisualFeatures expects spans [B, V, 2]; got {list(self.spans.shape)}")
        if self.paths is not None and (self.paths.ndim, *self.paths.shape[:2], self.paths.shape[-1]) != (4, *slots, 4):
            raise UmieError(f"VisualFeatures expects paths [B, V, P, 4]; got {list(self.paths.shape)}")
        object.__setattr__(self, "mask", bool_mask("the mask of VisualFeatures", self.mask))

    def to(self, *args: Any, **kwargs: Any) -> VisualFeatures:
        """Return a copy moved by ``Tensor.to``; a change of dtype does not touch the mask."""
        moved = self.features.to(*args, **kwargs)
        return dataclasses.replace(
            self,
            features=moved,
            boxes=self.boxes.to(*args, **kwargs),
            mask=self.mask.to(moved.device),
            spans=None if self.spans is None else self.spans.to(*args, **kwargs),
            paths=None if self.paths is None else self.paths.to(*args, **kwargs),
        )


@dataclass(frozen=True)
class FusedStates:
    """The states that the decoder attends to.

    Args:
        states: ``[B, T', D]``; T' is T, or T + V if the fusion appends visual slots.
        mask: bool ``[B, T']``.
        gate: ``[B]`` or finer, or None if the fusion has no gate.
        attention: ``[B, H, T, V]`` weights over the visual slots, if requested.
        visual: ``[B, V, D]``, the visual states, added by the model for decoders that score visual slots.
        num_text: T, the number of positions of the text, added by the model; None if unknown.
    """

    states: torch.Tensor
    mask: torch.Tensor
    gate: torch.Tensor | None = None
    attention: torch.Tensor | None = None
    visual: torch.Tensor | None = None
    num_text: int | None = None
