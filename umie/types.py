"""The values that parts pass to each other: visual features from encoders, fused states from fusion modules.

Shapes: B batch, T text tokens, V visual slots, D model width, H heads. Masks are bool, True = real.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from umie.errors import UnknownNameError

if TYPE_CHECKING:
    import torch

IMAGE_POLICIES = ("error", "text_only", "skip")  # for images that are missing or unreadable
SPLITS = ("train", "dev", "test")
IGNORED = -100  # label of positions left out of the loss
FEATURES = "visual_features"  # batch key: features [B, V, Dv] that were computed earlier, in place of images


def check_image_policy(policy: object) -> None:
    """Raise UnknownNameError unless ``policy`` is one of IMAGE_POLICIES."""
    if policy not in IMAGE_POLICIES:
        raise UnknownNameError("policy for missing images", policy, IMAGE_POLICIES)


@dataclass(frozen=True)
class VisualFeatures:
    """Features of the visual slots of a batch: the whole image first, then its regions.

    Args:
        features: ``[B, V, Dv]``.
        boxes: ``[B, V, 4]`` as x1, y1, x2, y2, relative to the image (0..1).
        mask: bool ``[B, V]``, True where the slot is real.

    Raises:
        ValueError: the shapes do not match, or the mask is not bool.
    """

    features: torch.Tensor
    boxes: torch.Tensor
    mask: torch.Tensor

    def __post_init__(self) -> None:
        slots = tuple(self.features.shape[:2])
        if self.features.ndim != 3 or tuple(self.boxes.shape) != (*slots, 4) or tuple(self.mask.shape) != slots:
            raise ValueError(
                "VisualFeatures expects features [B, V, Dv], boxes [B, V, 4], mask [B, V]; got "
                f"{list(self.features.shape)}, {list(self.boxes.shape)}, {list(self.mask.shape)}."
            )
        if str(self.mask.dtype) != "torch.bool":
            raise ValueError(f"VisualFeatures expects a bool mask (True = real), got {self.mask.dtype}.")

    def to(self, *args: Any, **kwargs: Any) -> VisualFeatures:
        """Return a copy moved by ``Tensor.to``; a change of dtype touches the features and boxes only."""
        moved = self.features.to(*args, **kwargs)
        return dataclasses.replace(
            self,
            features=moved,
            boxes=self.boxes.to(*args, **kwargs),
            mask=self.mask.to(moved.device),
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
    """

    states: torch.Tensor
    mask: torch.Tensor
    gate: torch.Tensor | None = None
    attention: torch.Tensor | None = None
    visual: torch.Tensor | None = None
