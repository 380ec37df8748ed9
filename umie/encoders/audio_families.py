"""The audio models of transformers by family: what they take, and the frames that they return."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from umie.encoders.transformers_base import Family, Whole
from umie.errors import UmieError
from umie.media.sound import Samples

_NO_MASKING = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}  # would hide parts of the sound in training
_AST_HOP, _AST_WINDOW = 160, 400  # samples; its feature extractor has no options for them


@dataclass(frozen=True)
class AudioFamily(Family):
    """A family that takes the samples of a whole sound, such as wav2vec 2.0."""

    EXTRACTOR: ClassVar[str] = "Wav2Vec2FeatureExtractor"

    def extractor(self, prepared: Mapping[str, Any]) -> Any:
        """Return the feature extractor of transformers with these options."""
        import transformers

        return getattr(transformers, self.EXTRACTOR)(**prepared)

    def window(self, extractor: Any) -> int | None:
        """Return the samples of a window; None if a sound is heard at once, whatever its length."""
        return None

    def num_frames(self, shape: Mapping[str, Any]) -> int | None:
        """Return the frames of a window; None if a sound is heard at once."""
        return None

    def steps(self, shape: Mapping[str, Any], extractor: Any) -> tuple[float, float]:
        """Return the center of the first frame and the distance of two frames, in samples."""
        hop, reach = 1, 1
        for kernel, stride in zip(shape["conv_kernel"], shape["conv_stride"], strict=True):
            reach += (kernel - 1) * hop
            hop *= stride
        adapted = shape["adapter_stride"] ** shape["num_adapter_layers"] if shape.get("add_adapter") else 1
        return (reach - 1) / 2, hop * adapted

    def width(self, shape: Mapping[str, Any]) -> int:
        """Return the width of the frames."""
        return int((shape.get("add_adapter") and shape.get("output_hidden_size")) or shape["hidden_size"])

    def check(self, shape: Mapping[str, Any], extractor: Any) -> None:
        """Raise UmieError if the model does not take what the feature extractor prepares."""

    def prepare(self, extractor: Any, samples: Samples) -> Tensor:
        """Return one window of samples as the model takes it, ``[M, N]``."""
        return _prepared(extractor, samples, "input_values").view(1, -1)

    def run(self, tower: Any, shape: Mapping[str, Any], windows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return frames ``[n, F, Dv]`` of windows ``[n, M, N]``, and their pooled output ``[n, Dv]``, if any."""
        return tower(input_values=windows[:, 0]).last_hidden_state, None


class PeAudio(AudioFamily):
    """PE-Audio: a frame every 40 ms of samples at 48 kHz, in the space that it shares with video and text."""

    EXTRACTOR = "PeAudioFeatureExtractor"

    def steps(self, shape: Mapping[str, Any], extractor: Any) -> tuple[float, float]:
        """Return the center of the first frame and the distance of two frames, in samples."""
        return extractor.hop_length / 2, extractor.hop_length

    def width(self, shape: Mapping[str, Any]) -> int:
        """Return the width of the shared space."""
        return int(shape["text_config"]["hidden_size"])

    def check(self, shape: Mapping[str, Any], extractor: Any) -> None:
        """Raise UmieError if the model does not take what the feature extractor prepares."""
        hop = math.prod(shape["audio_config"]["dac_config"]["downsampling_ratios"])
        _check_equal("hop_length", extractor.hop_length, hop)

    def run(self, tower: Any, shape: Mapping[str, Any], windows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the frames and the class token, projected."""
        found = tower["encoder"](input_values=windows)
        return tower["head"](found.last_hidden_state), tower["head"](found.pooler_output)


class Whisper(AudioFamily):
    """The encoder of Whisper: windows of 30 s as log-mel features, a frame every 20 ms."""

    EXTRACTOR = "WhisperFeatureExtractor"

    def window(self, extractor: Any) -> int | None:
        """Return the samples of a window."""
        return int(extractor.n_samples)

    def num_frames(self, shape: Mapping[str, Any]) -> int | None:
        """Return the frames of a window."""
        return int(shape["max_source_positions"])

    def steps(self, shape: Mapping[str, Any], extractor: Any) -> tuple[float, float]:
        """Return the center of the first frame and the distance of two frames, in samples."""
        return 0, 2 * extractor.hop_length  # the second convolution has a stride of 2

    def width(self, shape: Mapping[str, Any]) -> int:
        """Return the width of the frames."""
        return int(shape["d_model"])

    def check(self, shape: Mapping[str, Any], extractor: Any) -> None:
        """Raise UmieError if the model does not take what the feature extractor prepares."""
        _check_equal("feature_size", extractor.feature_size, shape["num_mel_bins"])
        _check_equal("frames of a window", extractor.nb_max_frames, 2 * shape["max_source_positions"])

    def prepare(self, extractor: Any, samples: Samples) -> Tensor:
        """Return the log-mel features of a window."""
        return _prepared(extractor, samples, "input_features")[0]

    def run(self, tower: Any, shape: Mapping[str, Any], windows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the frames."""
        return tower(input_features=windows).last_hidden_state, None


class Ast(AudioFamily):
    """AST: windows of 10.24 s as log-mel features; a frame is the mean of the patches of all frequencies at a time."""

    EXTRACTOR = "ASTFeatureExtractor"

    def window(self, extractor: Any) -> int | None:
        """Return the samples of a window."""
        return int(extractor.max_length) * _AST_HOP

    def num_frames(self, shape: Mapping[str, Any]) -> int | None:
        """Return the frames of a window."""
        return int((shape["max_length"] - shape["patch_size"]) // shape["time_stride"] + 1)

    def steps(self, shape: Mapping[str, Any], extractor: Any) -> tuple[float, float]:
        """Return the center of the first frame and the distance of two frames, in samples."""
        patch = (shape["patch_size"] - 1) * _AST_HOP + _AST_WINDOW
        return patch / 2, shape["time_stride"] * _AST_HOP

    def check(self, shape: Mapping[str, Any], extractor: Any) -> None:
        """Raise UmieError if the model does not take what the feature extractor prepares."""
        for name in ("num_mel_bins", "max_length"):
            _check_equal(name, getattr(extractor, name), shape[name])

    def prepare(self, extractor: Any, samples: Samples) -> Tensor:
        """Return the log-mel features of a window."""
        return _prepared(extractor, samples, "input_values")[0].T

    def run(self, tower: Any, shape: Mapping[str, Any], windows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the frames and the mean of the class and the distillation token."""
        found = tower(input_values=windows.transpose(1, 2))
        patches = found.last_hidden_state[:, 2:]  # after the two tokens: frequency by frequency
        by_frequency = patches.reshape(len(windows), -1, self.num_frames(shape) or 1, patches.shape[2])
        return by_frequency.mean(1), found.pooler_output


class Clap(AudioFamily):
    """The audio tower of CLAP: windows of 10 s as log-mel features; a frame is the mean of all frequencies."""

    EXTRACTOR = "ClapFeatureExtractor"

    def window(self, extractor: Any) -> int | None:
        """Return the samples of a window."""
        return int(extractor.nb_max_samples)

    def num_frames(self, shape: Mapping[str, Any]) -> int | None:
        """Return the frames of a window; the spectrogram is folded into a square, and every stage halves it."""
        stride = shape["patch_stride"]
        stride = stride if isinstance(stride, int) else stride[1]
        steps = shape["spec_size"] // 2 ** (len(shape["depths"]) - 1) // stride
        return int(steps * (shape["spec_size"] // shape["num_mel_bins"]))

    def steps(self, shape: Mapping[str, Any], extractor: Any) -> tuple[float, float]:
        """Return the center of the first frame and the distance of two frames, in samples."""
        hop = extractor.nb_max_samples / (self.num_frames(shape) or 1)
        return hop / 2, hop

    def width(self, shape: Mapping[str, Any]) -> int:
        """Return the width of the frames; every stage doubles it."""
        return int(shape["patch_embeds_hidden_size"] * 2 ** (len(shape["depths"]) - 1))

    def check(self, shape: Mapping[str, Any], extractor: Any) -> None:
        """Raise UmieError if the model does not take what the feature extractor prepares."""
        _check_equal("feature_size", extractor.feature_size, shape["num_mel_bins"])

    def prepare(self, extractor: Any, samples: Samples) -> Tensor:
        """Return the log-mel features of a window, that of each channel below the last; with "fusion" there are 4."""
        return _prepared(extractor, samples, "input_features")[0].transpose(1, 2).flatten(0, 1)

    def run(self, tower: Any, shape: Mapping[str, Any], windows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the frames and their mean."""
        images = windows.view(len(windows), -1, shape["num_mel_bins"], windows.shape[2]).transpose(2, 3)
        longer = torch.zeros(len(windows), 1, dtype=torch.bool, device=windows.device)
        found = tower(input_features=images, is_longer=longer)
        return found.last_hidden_state.mean(2).transpose(1, 2), found.pooler_output


def _prepared(extractor: Any, samples: Samples, name: str) -> Tensor:
    found = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="np")
    return torch.from_numpy(np.asarray(found[name], dtype=np.float32))


def _check_equal(name: str, prepared: int, taken: int) -> None:
    if prepared != taken:
        raise UmieError(f"{name} is {prepared} in the preparation of sounds, but the model takes {taken}: correct one")


NO_TEXT = {
    "text_config": {
        "num_hidden_layers": 1, "layer_types": None, "vocab_size": 1, "pad_token_id": 0, "bos_token_id": 0,
        "eos_token_id": 0, "cls_token_id": 0, "sep_token_id": 0,
    }
}  # fmt: skip
"""Options that make the text model of PE-AV small, which encoders of other media do not use."""

FAMILIES: Mapping[str, AudioFamily] = {
    "wav2vec2": AudioFamily(unused=_NO_MASKING),
    "wavlm": AudioFamily(unused=_NO_MASKING),
    "hubert": AudioFamily(unused=_NO_MASKING),
    "whisper": Whisper(module="encoder", frozen=("embed_positions",), unused={"decoder_layers": 1}),
    "audio-spectrogram-transformer": Ast(),
    "clap_audio_model": Clap(model="ClapAudioModel"),
    "pe_audio": PeAudio(
        module="audio_encoder",
        head="audio_head",
        frozen=("encoder.embedder.dac_encoder", "encoder.embedder.bottleneck"),
        unused=NO_TEXT,
    ),
}
"""The encoders that are known, by the ``model_type`` of their configurations."""
WHOLES = {
    "clap": Whole("audio_config", "audio_model"),
    "pe_audio_video": Whole("audio_config", "audio_model"),
}
