"""ImageBind from your own checkout, as an encoder of sounds and one of videos, whose features are in one space.

    umie data features -i records.jsonl -o cache --plugin own_imagebind.py \
        --encoder imagebind_audio --option checkout=ImageBind --option weights=imagebind_huge.pth

The code in the folder ``checkout`` is run, so use one that you trust. ImageBind's code and weights may not be used
commercially (CC BY-NC-SA 4.0), and it needs the packages in its requirements.txt.
"""

import importlib
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.transforms.functional import normalize, to_tensor
from transformers import ASTFeatureExtractor

from umie.encoders import AudioPreprocessor, VideoPreprocessor, registry
from umie.encoders.base import WHOLE_IMAGE, boxes_at
from umie.encoders.tower import BackboneConfig, BackboneEncoder, cut
from umie.errors import UmieError
from umie.weights import read_state_dict

WINDOW = 2  # seconds of sound that ImageBind hears at once
SIDE = 224  # pixels
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class ImageBindConfig(BackboneConfig):
    """Options.

    Args:
        checkout: the folder of the repository, which contains ``imagebind/models/imagebind_model.py``.
        weights: the file imagebind_huge.pth; None for random weights.
        num_windows: windows of two seconds of each segment, evenly spaced; their features are averaged.
        num_frames: frames of a clip, evenly spaced; each track is seen in pairs of them.
    """

    FINGERPRINT_EXCLUDE = BackboneConfig.FINGERPRINT_EXCLUDE | {"checkout", "weights"}
    weights_option = "weights"
    rate = 16_000  # of the sound, in samples per second

    checkout: str = "ImageBind"
    weights: str | None = None
    num_windows: int = 3
    num_frames: int = 8
    max_seconds: float = 600.0
    feature_dim: int = 1024


class Windows(AudioPreprocessor):
    """``windows [V, S, 1, 128, 204]`` are log-mel features of windows of each slot."""

    def __init__(self, config):
        super().__init__(config)
        with warnings.catch_warnings(action="ignore"):  # of a filter that no frequency falls into
            self.mel = ASTFeatureExtractor(max_length=204)  # as ImageBind prepares sound

    def tensors(self, sound, intervals):
        length, slots = WINDOW * sound.rate, []
        for start, end in intervals:
            own = sound.samples[int(start * sound.rate) : max(int(end * sound.rate), int(start * sound.rate) + 1)]
            begins = np.linspace(0, max(0, len(own) - length), self.config.num_windows).astype(int)
            parts = [own[begin : begin + length] - own[begin : begin + length].mean() for begin in begins]
            padded = [np.pad(part, (0, max(0, sound.rate // 10 - len(part)))) for part in parts]
            slots.append(torch.stack([self.mel(part, sound.rate, return_tensors="pt").input_values for part in padded]))
        return {"windows": torch.stack(slots).transpose(3, 4)}

    def no_tensors(self):
        return {"windows": torch.zeros(0, 0, 1, 128, 204)}


class Pairs(VideoPreprocessor):
    """``pairs [V, S, 3, 2, 224, 224]`` are pairs of frames, cropped to each track; those of short ones are repeated."""

    def tensors(self, clip, tracks):
        number, slots = max(1, self.config.num_frames // 2) * 2, []
        for track in tracks:
            boxes = [WHOLE_IMAGE] * len(clip.times) if track is None else boxes_at(track, clip.times)
            seen = [cut(frame, box).resize((SIDE, SIDE), 3) for frame, box in zip(clip.frames, boxes) if box]  # noqa: B905
            frames = [normalize(to_tensor(one), MEAN, STD) for one in seen]
            chosen = torch.stack([frames[step * len(frames) // number] for step in range(number)])
            slots.append(chosen.view(-1, 2, 3, SIDE, SIDE).transpose(1, 2))
        return {"pairs": torch.stack(slots)}

    def no_tensors(self):
        return {"pairs": torch.zeros(0, 0, 3, 2, SIDE, SIDE)}


class ImageBindEncoder(BackboneEncoder):
    """The part of ImageBind for one medium: features of length 1."""

    Config = ImageBindConfig
    modality: str

    def __init__(self, config):
        model = imported(config.checkout).imagebind_huge(pretrained=False)
        for parts in model.children():  # of each modality: stems, trunks, heads, scales
            for name in set(parts) - {self.modality}:
                del parts[name]
        super().__init__(config, model)

    def load_weights(self):
        if self.config.weights is not None:
            state, own = read_state_dict(self.config.weights), self.tower.state_dict()
            self.load_tower({name: value for name, value in state.items() if name in own}, self.config.weights)

    def features(self, inputs):
        mask, (given,) = inputs["visual_mask"], [inputs[name] for name in ("windows", "pairs") if name in inputs]
        slots = torch.zeros(*mask.shape, self.feature_dim, dtype=self._dtype, device=mask.device)
        if mask.any():
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.trainable):
                found = self.tower({self.modality: given[mask].to(self._dtype)})[self.modality]
            slots[mask] = nn.functional.normalize(found, dim=-1)
        return slots


@registry.register("imagebind_audio")
class ImageBindAudio(ImageBindEncoder):
    """Sounds through ImageBind from your own checkout: the mean over windows of each segment."""

    Preprocessor, modality = Windows, "audio"


@registry.register("imagebind_video")
class ImageBindVideo(ImageBindEncoder):
    """Videos through ImageBind from your own checkout: the mean over pairs of frames, cropped to each track."""

    Preprocessor, modality = Pairs, "vision"


def imported(checkout):
    """Return the module ``imagebind.models.imagebind_model`` of a checkout; its code is run."""
    path = Path(checkout).resolve() / "imagebind" / "models" / "imagebind_model.py"
    if not path.is_file():
        raise UmieError(f"checkout is {checkout!r}: no such file as {path}: clone facebookresearch/ImageBind there")
    sys.path.insert(0, str(path.parents[2]))
    try:
        module = importlib.import_module("imagebind.models.imagebind_model")
    finally:
        sys.path.remove(str(path.parents[2]))
    if Path(module.__file__).resolve() != path:
        raise UmieError(f"checkout is {checkout!r}, but imagebind is imported from {module.__file__}: use that folder")
    return module
