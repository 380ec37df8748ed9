"""`transformers_video`: clips and tracks through VideoMAE or V-JEPA 2."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from umie.encoders import registry
from umie.encoders.base import WHOLE_IMAGE, VideoPreprocessor, boxes_at
from umie.encoders.transformers_base import Family, TransformersConfig, TransformersEncoder
from umie.errors import UmieError, check_whole, shown
from umie.media import Clip
from umie.records import Box, Track

IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
STANDARD = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
MAX_SIDE = 4096  # pixels
_ROUNDING = 1e-6  # seconds


@dataclass(frozen=True)
class VideoFamily(Family):
    """A family of models of tubelets: squares of some pixels of some consecutive frames.

    Args:
        frames: the option of the configuration that holds the number of frames.
        side: that of the height and the width of a frame, in pixels.
        pixels: the keyword of the frames in the model's forward.
        colors: the mean and the standard deviation of the colors, where a preparation does not say them.
    """

    frames: str = ""
    side: str = ""
    pixels: str = ""
    colors: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class TransformersVideoConfig(TransformersConfig):
    """Options of the encoder of clips from transformers.

    Frames have the size, the colors and the interpolation of the checkpoint, but are not cropped, so that a track at
    the edge is seen.
    """

    FAMILIES: ClassVar[Mapping[str, VideoFamily]] = {
        "videomae": VideoFamily(frames="num_frames", side="image_size", pixels="pixel_values", colors=STANDARD),
        "vjepa2": VideoFamily(
            module="encoder",
            unused={"pred_num_hidden_layers": 1},
            frames="frames_per_clip",
            side="crop_size",
            pixels="pixel_values_videos",
            colors=IMAGENET,
        ),
    }
    PREPARED_BY: ClassVar[tuple[tuple[str, str | None], ...]] = (
        ("processor_config.json", "video_processor"),
        ("processor_config.json", "image_processor"),
        ("video_preprocessor_config.json", None),
        ("preprocessor_config.json", None),
    )

    @property
    def num_frames(self) -> int:
        """Frames of a clip that the model sees; those of shorter clips are repeated."""
        return int(self.shape[self.family.frames])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames, in pixels."""
        return _pair(self.shape[self.family.side])

    @property
    def grid(self) -> tuple[int, int, int]:
        """The number of tubelets in time, height and width."""
        (height, width), (patch_height, patch_width) = self.size, _pair(self.shape["patch_size"])
        return self.num_frames // int(self.shape["tubelet_size"]), height // patch_height, width // patch_width

    def check(self) -> None:
        """Raise UmieError for a configuration or a preparation with which no clip can be prepared."""
        for name in (self.family.frames, "tubelet_size"):
            check_whole(name, self.shape[name], 1)
        if not 0 < min(self.size) <= max(self.size) <= MAX_SIDE or min(self.grid) < 1:
            raise UmieError(f"{self._name}: its frames have {self.size} pixels and {self.grid} tubelets: correct it")
        colors = self.colors
        for name, values in colors.items():
            if not all(isinstance(value, int | float) and abs(value) < 1e3 for value in values):
                raise UmieError(f"{self._name}: {name} is {shown(values)}: use three numbers")
        if not all(len(values) == 3 for values in colors.values()) or 0 in colors["image_std"]:
            raise UmieError(f"{self._name}: the colors are {shown(colors)}: use three numbers each, and std above 0")

    @property
    def colors(self) -> dict[str, list[Any]]:
        """The mean and the standard deviation of the colors, of values from 0 to 1."""
        values = {**self.family.colors, **{name: self.prepared[name] for name in IMAGENET if self.prepared.get(name)}}
        if self.prepared.get("do_normalize") is False:
            values = {"image_mean": (0, 0, 0), "image_std": (1, 1, 1)}
        return {name: list(value) if isinstance(value, list | tuple) else [value] * 3 for name, value in values.items()}

    @property
    def resampling(self) -> Image.Resampling:
        """How frames are interpolated."""
        bicubic = self.prepared.get("resample") == Image.Resampling.BICUBIC
        return Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR


def _pair(value: Any) -> tuple[int, int]:
    height, width = (value, value) if isinstance(value, int) else value
    return int(height), int(width)


class TransformersVideoPreprocessor(VideoPreprocessor):
    """Prepares the frames of a clip, and finds the tubelets under its tracks.

    ``pixels [3, T, H, W]`` are the frames, at equal distances in time; ``tubelets [V, N]`` is True for the tubelets
    of each slot, row by row and time by time.
    """

    config: TransformersVideoConfig

    def tensors(self, clip: Clip, tracks: Sequence[Track | None]) -> dict[str, Tensor]:
        """Return the tensors of one clip."""
        num_frames, (height, width) = self.config.num_frames, self.config.size
        part = (clip.seconds - clip.times[0]) / num_frames
        middles = [clip.times[0] + (step + 0.5) * part + _ROUNDING for step in range(num_frames)]
        chosen = [bisect_right(clip.times, middle) - 1 for middle in middles]
        frames = {index: self._pixels(clip.frames[index], height, width) for index in sorted(set(chosen))}
        in_tubelet = num_frames // self.config.grid[0]
        shown_at = [clip.times[index] for index in chosen[: self.config.grid[0] * in_tubelet]]
        times = [sum(shown_at[step : step + in_tubelet]) / in_tubelet for step in range(0, len(shown_at), in_tubelet)]
        boxes = [[WHOLE_IMAGE] * len(times) if track is None else boxes_at(track, times) for track in tracks]
        tubelets = torch.stack([torch.stack([self._under(box) for box in own]).flatten() for own in boxes])
        return {"pixels": torch.stack([frames[index] for index in chosen], dim=1), "tubelets": tubelets}

    def no_tensors(self) -> dict[str, Tensor]:
        """Return no frames."""
        count = torch.Size(self.config.grid).numel()
        return {"pixels": torch.zeros(3, 0, 0, 0), "tubelets": torch.zeros(0, count, dtype=torch.bool)}

    def _pixels(self, frame: Image.Image, height: int, width: int) -> Tensor:
        """Return a frame as ``[3, H, W]``."""
        resized = frame.resize((width, height), self.config.resampling)
        flat = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)
        mean, std = (torch.tensor(self.config.colors[name]).view(3, 1, 1) for name in IMAGENET)
        return (flat.view(height, width, 3).permute(2, 0, 1) / 255 - mean) / std

    def _under(self, box: Box | None) -> Tensor:
        """Return which tubelets ``[h, w]`` have their center in a box, or are nearest to it; none without one."""
        _, rows, columns = self.config.grid
        if box is None:
            return torch.zeros(rows, columns, dtype=torch.bool)
        sides = []
        for count, start, end in ((rows, box[1], box[3]), (columns, box[0], box[2])):
            centers = (torch.arange(count) + 0.5) / count
            inside = (centers >= start) & (centers <= end)
            if not inside.any():
                inside[(centers - (start + end) / 2).abs().argmin()] = True
            sides.append(inside)
        return sides[0][:, None] & sides[1]


@registry.register("transformers_video")
class TransformersVideoEncoder(TransformersEncoder):
    """Clips through a video model of transformers: the mean of the tubelets under the box of each track over time."""

    Config = TransformersVideoConfig
    Preprocessor = TransformersVideoPreprocessor
    config: TransformersVideoConfig

    def __init__(self, config: TransformersVideoConfig) -> None:
        config.check()
        super().__init__(config)

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``[B, V, Dv]``."""
        mask, tubelets = inputs["visual_mask"], inputs["tubelets"]
        rows = mask.any(1).nonzero().squeeze(1)
        slots = torch.zeros(*mask.shape, self.feature_dim, dtype=self._dtype, device=mask.device)
        if not len(rows):
            return slots
        pixels = inputs["pixels"][rows].transpose(1, 2).to(self._dtype)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.trainable):
            states = self.tower(**{self.config.family.pixels: pixels}).last_hidden_state.float()
            under = tubelets[rows].float()
            found = (under @ states) / under.sum(2, keepdim=True).clamp(min=1)  # padding slots have none
            return slots.index_copy(0, rows, found.to(self._dtype))
