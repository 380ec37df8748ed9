"""The tensors that parts pass to each other."""

import pytest
import torch

from umie.errors import UmieError
from umie.types import VisualFeatures


def draw(**changes: torch.Tensor) -> VisualFeatures:
    parts = {"features": torch.zeros(2, 3, 5), "boxes": torch.zeros(2, 3, 4), "mask": torch.ones(2, 3).bool()}
    return VisualFeatures(**{**parts, **changes})


@pytest.mark.parametrize(
    ("name", "shape"), [("features", (2, 3)), ("features", (2, 4, 5)), ("boxes", (2, 3, 5)), ("mask", (3, 3))]
)
def test_mismatched_shapes_are_reported(name: str, shape: tuple[int, ...]):
    tensor = torch.zeros(shape, dtype=torch.bool if name == "mask" else torch.float32)
    with pytest.raises(ValueError, match=r"expects features \[B, V, Dv\]"):
        draw(**{name: tensor})


def test_masks_of_0_and_1_are_converted_and_others_refused():
    for dtype in (torch.float32, torch.long):
        assert draw(mask=torch.ones(2, 3, dtype=dtype)).mask.dtype == torch.bool
    with pytest.raises(UmieError, match="other than 0 and 1"):
        draw(mask=torch.full((2, 3), -1e9))


def test_a_change_of_dtype_does_not_change_the_mask():
    moved = draw().to(torch.bfloat16)
    assert moved.features.dtype == moved.boxes.dtype == torch.bfloat16
    assert moved.mask.dtype == torch.bool
