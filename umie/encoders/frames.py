"""`frames`: any encoder of images on key frames of a clip."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from umie.encoders import registry
from umie.encoders.base import EncoderConfig, VideoPreprocessor, VisualEncoder, boxes_at, pad_stack
from umie.errors import UmieError, check_whole, shown
from umie.media import Clip
from umie.records import Track

OF_FRAME = "frame_"  # begins the names of the tensors of the encoder of images


@dataclass(frozen=True, kw_only=True)
class FramesEncoderConfig(EncoderConfig):
    """Options of the encoder of key frames.

    Args:
        encoder: name and options of an encoder of images, e.g. ``{"name": "clip", "mode": "pool"}``, or only its name.
            Its ``max_regions`` is that of this encoder.
        num_frames: the most frames of a clip that are encoded.
        trainable: overrides that of the encoder of images; None leaves it.
    """

    encoder: Mapping[str, Any] | str = "tiny"
    num_frames: int = 8
    trainable: bool | None = None  # type: ignore[assignment] # a bool once it is built

    def __post_init__(self) -> None:
        check_whole("num_frames", self.num_frames, 1)
        named = {"name": self.encoder} if isinstance(self.encoder, str) else self.encoder
        if not isinstance(named, Mapping) or not isinstance(named.get("name"), str):
            raise UmieError(
                f"encoder is {shown(self.encoder)}: use the name of an encoder of images, or name and options"
            )
        object.__setattr__(self, "encoder", dict(named))
        part: Any = registry.get(self.name)
        if part.Preprocessor.medium != "image" or part.reads_features:
            raise UmieError(f"encoder is {self.name!r}: use one that sees images, such as clip or timm")
        object.__setattr__(self, "trainable", self.inner.trainable)
        super().__post_init__()

    @property
    def name(self) -> str:
        """The name of the encoder of images."""
        return str(self._options["name"])

    @cached_property
    def inner(self) -> Any:
        """The options of the encoder of images."""
        options = {name: value for name, value in self._options.items() if name != "name"}
        registry.check(self.name, options)
        part: Any = registry.get(self.name)
        own = {"max_regions": self.max_regions, "trainable": self.trainable}
        return part.Config(**options | {name: value for name, value in own.items() if value is not None})

    @property
    def _options(self) -> Mapping[str, Any]:
        return self.encoder if isinstance(self.encoder, Mapping) else {"name": self.encoder}

    @property
    def weights_source(self) -> str | None:
        """The pretrained weights of the encoder of images, if any."""
        source: str | None = self.inner.weights_source
        return source

    @property
    def has_random_weights(self) -> bool:
        """Whether pretrained weights can be loaded and none are specified."""
        return bool(self.inner.has_random_weights)

    def identity(self) -> dict[str, Any]:
        """Return the options that features depend on."""
        return {"num_frames": self.num_frames, "encoder": [self.name, self.inner.identity()]}


class FramesPreprocessor(VideoPreprocessor):
    """Prepares key frames as the encoder of images does, each with the boxes of the tracks that are visible in it.

    The tensors of that encoder have a further first dimension, of the frames. ``slots [V, F]`` is the number of a slot
    in each frame, counted from 1; 0 where it is not visible.
    """

    config: FramesEncoderConfig

    def __init__(self, config: FramesEncoderConfig) -> None:
        super().__init__(config)
        part: Any = registry.get(config.name)
        self.image = part.Preprocessor(config.inner)

    def tensors(self, clip: Clip, tracks: Sequence[Track | None]) -> dict[str, Tensor]:
        """Return the tensors of one clip."""
        boxes = [boxes_at(track, clip.times) for track in tracks if track is not None]
        slots = torch.zeros(len(tracks), len(clip.times), dtype=torch.long)
        slots[0] = 1
        frames = []
        for number, frame in enumerate(clip.frames):
            visible = [slot for slot, own in enumerate(boxes, 1) if own[number] is not None]
            slots[visible, number] = torch.arange(len(visible)) + 2
            frames.append(self.image.one(frame, [boxes[slot - 1][number] for slot in visible]))
        found = {OF_FRAME + name: pad_stack([frame[name] for frame in frames]) for name in frames[0]}
        return {"slots": slots, **found}

    def no_tensors(self) -> dict[str, Tensor]:
        """Return no frames."""
        nothing = {OF_FRAME + name: tensor[None][:0] for name, tensor in self.image.nothing().items()}
        return {"slots": torch.zeros(0, 0, dtype=torch.long), **nothing}


@registry.register("frames")
class FramesEncoder(VisualEncoder):
    """Key frames through any encoder of images: the mean of each track's regions over the frames that show it."""

    Config = FramesEncoderConfig
    Preprocessor = FramesPreprocessor
    config: FramesEncoderConfig

    def __init__(self, config: FramesEncoderConfig) -> None:
        super().__init__(config)
        options = asdict(config.inner)
        self.image_encoder = registry.construct(config.name, options)
        self.train()

    @property
    def feature_dim(self) -> int:
        """Width of the features of the encoder of images."""
        return self.image_encoder.feature_dim

    def load_weights(self) -> None:
        """Load the weights of the encoder of images."""
        self.image_encoder.load_weights()

    def saved_options(self) -> dict[str, Any]:
        """Return the options of the encoder of images, with those that it saves."""
        return {"encoder": {**self.config._options, **self.image_encoder.saved_options()}}

    def fingerprint(self) -> str:
        """Return a hash of everything features depend on; see ``VisualEncoder.fingerprint``."""
        parts = [type(self).__name__, self.config.num_frames, self.image_encoder.fingerprint()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``[B, V, Dv]``."""
        own = {name.removeprefix(OF_FRAME): value for name, value in inputs.items() if name.startswith(OF_FRAME)}
        batch, num_frames = own["visual_mask"].shape[:2]
        found = self.image_encoder(**{name: value.flatten(0, 1) for name, value in own.items()}).features
        found = found.unflatten(0, (batch, num_frames))  # [B, F, slots of a frame, Dv]
        number = torch.arange(found.shape[2], device=found.device)
        shown_in = inputs["slots"][..., None] == number + 1  # [B, V, F, slots of a frame]
        count = shown_in.sum((2, 3)).clamp(min=1)[..., None]
        slots: Tensor = shown_in.flatten(2).to(found.dtype) @ found.flatten(1, 2) / count
        return slots
