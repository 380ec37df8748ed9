"""`transformers_video`: clips and tracks through VideoMAE, V-JEPA 2 or PE-AV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from umie.encoders import registry
from umie.encoders.audio_families import NO_TEXT
from umie.encoders.base import WHOLE_IMAGE, VideoPreprocessor, boxes_at
from umie.encoders.tower import cut
from umie.encoders.transformers_base import Family, TransformersConfig, TransformersEncoder, Whole
from umie.errors import UmieError, check_whole, shown
from umie.media import Clip
from umie.records import Box, Track

IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
STANDARD = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
MAX_SIDE = 4096  # pixels


@dataclass(frozen=True)
class VideoFamily(Family):
    """A family of models of tubelets: squares of some pixels of some consecutive frames.

    Args:
        frames: the option of the configuration that is the number of frames.
        is_fixed: whether the model takes no other number of frames.
        side: the option that is the height and the width of a frame, in pixels.
        pixels: the keyword of the frames in the model's forward.
        colors: the mean and the standard deviation of the colors, where a preparation does not have them.
    """

    frames: str = ""
    is_fixed: bool = False
    side: str = ""
    pixels: str = "pixel_values_videos"
    colors: Mapping[str, Any] = None  # type: ignore[assignment] # every family has them

    def num_frames(self, shape: Mapping[str, Any], prepared: Mapping[str, Any]) -> Any:
        """Return the frames of a clip that the checkpoint sees."""
        return shape[self.frames]

    def size(self, shape: Mapping[str, Any], prepared: Mapping[str, Any]) -> tuple[int, int]:
        """Return height and width of the frames, in pixels."""
        return _pair(shape[self.side])

    def grid(self, shape: Mapping[str, Any], num_frames: int) -> tuple[int, int, int] | None:
        """Return the number of tubelets in time, height and width; None if a clip is seen as a whole."""
        (height, width), (rows, columns) = _pair(shape[self.side]), _pair(shape["patch_size"])
        return num_frames // int(shape["tubelet_size"]), height // rows, width // columns

    def run(self, tower: Any, clips: Tensor) -> Tensor:
        """Return the tubelets ``[n, N, Dv]`` of clips ``[n, T, 3, H, W]``, or one vector ``[n, 1, Dv]`` of each."""
        states: Tensor = tower(**{self.pixels: clips}).last_hidden_state
        return states


class PeVideo(VideoFamily):
    """PE-AV: one vector of a clip, in the space that it shares with sound and text."""

    def num_frames(self, shape: Mapping[str, Any], prepared: Mapping[str, Any]) -> Any:
        """Return the frames of a clip: 16, unless the checkpoint has another number."""
        return prepared.get("num_frames") or 16

    def size(self, shape: Mapping[str, Any], prepared: Mapping[str, Any]) -> tuple[int, int]:
        """Return height and width of the frames, in pixels."""
        size = prepared.get("size") or {}
        if not isinstance(size, Mapping) or not {"height", "width"} <= size.keys():
            raise UmieError(f"size is {shown(size)} in the preparation of videos: set its height and its width")
        return size["height"], size["width"]

    def grid(self, shape: Mapping[str, Any], num_frames: int) -> tuple[int, int, int] | None:
        """Return None: a clip is seen as a whole."""
        return None

    def width(self, shape: Mapping[str, Any]) -> int:
        """Return the width of the shared space."""
        return int(shape["text_config"]["hidden_size"])

    def run(self, tower: Any, clips: Tensor) -> Tensor:
        """Return the class token of clips, projected."""
        vectors: Tensor = tower["head"](tower["encoder"](pixel_values_videos=clips).pooler_output)
        return vectors[:, None]


@dataclass(frozen=True, kw_only=True)
class TransformersVideoConfig(TransformersConfig):
    """Options of the encoder of clips from transformers.

    Frames have the size, the colors and the interpolation of the checkpoint, but are not cropped, so that a track at
    the edge is seen.

    Args:
        num_frames: frames of a clip that the model sees, evenly spaced; those of shorter clips are repeated. None: as
            many as the checkpoint was trained with. VideoMAE takes no other number.
    """

    FAMILIES: ClassVar[Mapping[str, VideoFamily]] = {
        "videomae": VideoFamily(
            frames="num_frames", is_fixed=True, side="image_size", pixels="pixel_values", colors=STANDARD
        ),
        "vjepa2": VideoFamily(
            module="encoder",
            unused={"pred_num_hidden_layers": 1},
            frames="frames_per_clip",
            side="crop_size",
            colors=IMAGENET,
        ),
        "pe_video": PeVideo(module="video_encoder", head="video_head", unused=NO_TEXT, colors=STANDARD),
    }
    WHOLES: ClassVar[Mapping[str, Whole]] = {"pe_audio_video": Whole("video_config", "video_model")}
    PREPARED_BY: ClassVar[tuple[tuple[str, str | None], ...]] = (
        ("processor_config.json", "video_processor"),
        ("processor_config.json", "image_processor"),
        ("video_preprocessor_config.json", None),
        ("preprocessor_config.json", None),
    )

    num_frames: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_frames is not None:
            check_whole("num_frames", self.num_frames, 1)

    @property
    def seen_frames(self) -> int:
        """The frames of a clip that the model sees."""
        own = self.family.num_frames(self.shape, self.prepared)
        return int(own if self.num_frames is None else self.num_frames)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames, in pixels."""
        size: tuple[int, int] = self.family.size(self.shape, self.prepared)
        return size

    @property
    def grid(self) -> tuple[int, int, int] | None:
        """The number of tubelets in time, height and width; None if a clip is seen as a whole."""
        grid: tuple[int, int, int] | None = self.family.grid(self.shape, self.seen_frames)
        return grid

    def check(self) -> None:
        """Raise UmieError for a configuration or a preparation with which no clip can be prepared."""
        own = self.family.num_frames(self.shape, self.prepared)
        check_whole(f"{self._name}: its number of frames", own, 1)
        if self.family.is_fixed and self.num_frames not in (None, own):
            raise UmieError(f"num_frames is {self.num_frames}: {self.shape['model_type']} takes {own}, leave it out")
        if not all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in self.size):
            raise UmieError(f"{self._name}: its frames have {shown(list(self.size))} pixels: correct them")
        check_whole(f"{self._name}: tubelet_size", self.shape.get("tubelet_size", 1), 1)
        if self.grid is not None and min(self.grid) < 1:
            raise UmieError(f"{self._name}: {self.seen_frames} frames have {list(self.grid)} tubelets: use more frames")
        for name, values in self.colors.items():
            numbers = all(isinstance(value, int | float) and abs(value) < 1e3 for value in values)
            if len(values) != 3 or not numbers or (name == "image_std" and 0 in values):
                raise UmieError(f"{self._name}: {name} is {shown(values)}: use three numbers, of image_std above 0")

    @property
    def colors(self) -> dict[str, list[Any]]:
        """The mean and the standard deviation of the colors, of values from 0 to 1."""
        values = {**self.family.colors, **{name: self.prepared[name] for name in IMAGENET if self.prepared.get(name)}}
        if self.prepared.get("do_normalize") is False:
            values = {"image_mean": 0, "image_std": 1}
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

    ``clips [C, T, 3, H, W]`` are frames in 0..255. For a model of tubelets, C is 1, and ``tubelets [V, N]`` is True for
    the tubelets of each slot, time by time and row by row. For a model that sees a clip as a whole, C is V: the clip of
    a track is what is under its box in the frames that show it.
    """

    config: TransformersVideoConfig

    @property
    def num_frames(self) -> int:
        """The most frames of a clip that the encoder sees."""
        return self.config.seen_frames

    def tensors(self, clip: Clip, tracks: Sequence[Track | None]) -> dict[str, Tensor]:
        """Return the tensors of one clip."""
        grid = self.config.grid
        if grid is None:
            found = []
            for track in tracks:
                boxes = [WHOLE_IMAGE] * len(clip.times) if track is None else boxes_at(track, clip.times)
                visible = [cut(frame, box) for frame, box in zip(clip.frames, boxes, strict=True) if box is not None]
                found.append(self._clip(visible))
            return {"clips": torch.stack(found)}
        shown_at = [clip.times[index] for index in self._spread(len(clip.times))]
        depth = int(self.config.shape["tubelet_size"])
        times = [sum(shown_at[depth * step : depth * (step + 1)]) / depth for step in range(grid[0])]
        tubelets = []
        for track in tracks:
            boxes = [WHOLE_IMAGE] * len(times) if track is None else boxes_at(track, times)
            tubelets.append(torch.stack([_under(box, *grid[1:]) for box in boxes]).flatten())
        return {"clips": self._clip(clip.frames)[None], "tubelets": torch.stack(tubelets)}

    def no_tensors(self) -> dict[str, Tensor]:
        """Return no frames."""
        grid = self.config.grid
        clips = torch.zeros(0, 0, 3, 0, 0, dtype=torch.uint8)
        if grid is None:
            return {"clips": clips}
        return {"clips": clips, "tubelets": torch.zeros(0, torch.Size(grid).numel(), dtype=torch.bool)}

    def _spread(self, count: int) -> list[int]:
        """Return which of some frames, at most ``num_frames``, the model sees; fewer are repeated."""
        return [step * count // self.num_frames for step in range(self.num_frames)]

    def _clip(self, frames: Sequence[Image.Image]) -> Tensor:
        """Return frames as ``[T, 3, H, W]`` in 0..255."""
        height, width = self.config.size
        resized = [frame.resize((width, height), self.config.resampling).tobytes() for frame in frames]
        flat = torch.frombuffer(bytearray(b"".join(resized)), dtype=torch.uint8)
        return flat.view(-1, height, width, 3).permute(0, 3, 1, 2)[self._spread(len(frames))]


def _under(box: Box | None, rows: int, columns: int) -> Tensor:
    """Return which tubelets ``[rows, columns]`` have their center in a box, or are nearest to it; none without one."""
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
    """Clips through a video model of transformers: the mean of the tubelets under each track, or a clip of each."""

    Config = TransformersVideoConfig
    Preprocessor = TransformersVideoPreprocessor
    config: TransformersVideoConfig

    def __init__(self, config: TransformersVideoConfig) -> None:
        config.check()
        super().__init__(config)

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``[B, V, Dv]``."""
        mask = inputs["visual_mask"]
        slots = torch.zeros(*mask.shape, self.feature_dim, dtype=self._dtype, device=mask.device)
        if not mask.any():
            return slots
        if "tubelets" not in inputs:
            slots[mask] = self._run(inputs["clips"][mask]).squeeze(1)
            return slots
        rows = mask.any(1)
        under = inputs["tubelets"][rows].float()
        states = self._run(inputs["clips"][rows, 0]).float()
        # padding slots have no tubelets
        slots[rows] = ((under @ states) / under.sum(2, keepdim=True).clamp(min=1)).to(self._dtype)
        return slots

    def _run(self, clips: Tensor) -> Tensor:
        """Return what the family returns for clips ``[n, T, 3, H, W]`` in 0..255, some at once."""
        mean, std = (torch.tensor(self.config.colors[name], device=clips.device)[:, None, None] for name in IMAGENET)
        _, num_frames, _, height, width = clips.shape
        found = []
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.trainable):
            for some in torch.split(clips, self.num_at_once(num_frames * height, width)):
                colors = ((some / 255 - mean) / std).to(self._dtype)
                found.append(self.config.family.run(self.tower, colors))
        return torch.cat(found)
