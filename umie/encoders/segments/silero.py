"""`silero`: where someone speaks, by the voice activity detector of Silero."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from umie.encoders.proposing import Candidates, PlaceProposer, ProposerConfig
from umie.encoders.segments import registry
from umie.encoders.segments.intervals import high_intervals
from umie.errors import UmieError, check_positive, check_share, check_text
from umie.media import open_sound
from umie.records import Segment
from umie.weights import load_state, read_state_dict

RATE = 16_000  # samples per second
CHUNK = 512  # samples that one probability is about
_CONTEXT = 64  # samples before a chunk that are seen with it
_WINDOW = 256  # samples of a spectrum
_BLOCK = 1_000  # chunks whose spectra are held at once


@dataclass(frozen=True, kw_only=True)
class SileroProposerConfig(ProposerConfig):
    """Options of segments of speech.

    Args:
        weights: the file ``silero_vad_16k.safetensors``; by default, that of the installed package silero-vad.
        onset: probability of speech (0..1) that a segment has to exceed.
        release: probability down to which it extends on both sides.
        min_length: seconds of the shortest segment, before padding.
        min_gap: seconds of the shortest pause between two segments.
        padding: seconds that are added on both sides.
    """

    weights: str | None = None
    onset: float = 0.5
    release: float = 0.35
    min_length: float = 0.25
    min_gap: float = 0.1
    padding: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights is not None:
            check_text("weights", self.weights)
        for name in ("onset", "release", "padding"):
            check_share(name, getattr(self, name))
        for name in ("min_length", "min_gap"):
            check_positive(name, getattr(self, name))
        if self.release > self.onset:
            raise UmieError(f"release is {self.release:g} and onset {self.onset:g}: use a lower release")


@registry.register("silero")
class SileroProposer(PlaceProposer[Segment]):
    """Intervals of speech, whoever speaks. The score of a segment is its mean probability of speech.

    Source: Silero VAD 6, the network for 16 kHz, whose weights are in the package silero-vad (MIT). Deviation: segments
    begin where the probability exceeds ``release``, not ``onset``.
    """

    Config = SileroProposerConfig
    medium = "audio"
    config: SileroProposerConfig

    def load_weights(self) -> None:
        """Load the weights; raise UmieError if they are not there, or not those of this network."""
        _ = self._network

    def candidates(self, source: Any, text: str | None, name: str | None) -> Candidates[Segment]:
        """Return the segments of a sound; see ``MediumProposer.candidates``."""
        config, sound = self.config, open_sound(source, RATE)
        with torch.inference_mode():
            levels = self._network(torch.from_numpy(sound.samples)).numpy()
        step = CHUNK / RATE
        names = ("onset", "release", "min_length", "min_gap")
        found = []
        for first, last in high_intervals(levels, step, **{name: getattr(config, name) for name in names}):
            start, end = max(0.0, first * step - config.padding), min(last * step + config.padding, sound.seconds)
            if start < end:
                found.append((Segment((start, end)), float(levels[first:last].mean())))
        return Candidates(found)

    @cached_property
    def _network(self) -> SileroNetwork:
        path = _installed() if self.config.weights is None else Path(self.config.weights)
        network = SileroNetwork().eval()
        load_state(network, read_state_dict(path), path)
        return network


class SileroNetwork(nn.Module):
    """Spectra of a chunk of sound, four convolutions over them, and a recurrent cell over the chunks.

    The names of the parameters are those of the weight file; ``stft_conv`` has the windowed waves of a Fourier
    transform, cosines and then sines.
    """

    def __init__(self) -> None:
        super().__init__()
        bands = _WINDOW // 2 + 1
        self.stft_conv = nn.Conv1d(1, 2 * bands, _WINDOW, stride=_WINDOW // 2, bias=False)
        self.conv1 = nn.Conv1d(bands, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, samples: Tensor) -> Tensor:
        """Return the probability of speech in each chunk ``[ceil(N / CHUNK)]`` of mono sound ``[N]`` at 16 kHz."""
        num_chunks = -(-len(samples) // CHUNK)
        padded = F.pad(samples, (_CONTEXT, num_chunks * CHUNK - len(samples)))
        chunks = padded.unfold(0, _CONTEXT + CHUNK, CHUNK)
        spectra = torch.cat([self._spectra(block) for block in torch.split(chunks, _BLOCK)])
        state: tuple[Tensor, Tensor] | None = None
        states = []
        for spectrum in spectra:
            state = self.lstm_cell(spectrum[None], state)
            states.append(state[0])
        outputs: Tensor = self.final_conv(torch.cat(states).relu()[..., None])
        return outputs.sigmoid().flatten()

    def _spectra(self, chunks: Tensor) -> Tensor:
        """Return what the convolutions see in chunks ``[N, _CONTEXT + CHUNK]``: ``[N, 128]``."""
        waves = self.stft_conv(F.pad(chunks[:, None], (0, _CONTEXT), mode="reflect"))
        found = torch.hypot(*waves.chunk(2, dim=1))
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            found = layer(found).relu()
        return found.flatten(1)


def _installed() -> Path:
    spec = importlib.util.find_spec("silero_vad")  # does not run the package
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "data" / "silero_vad_16k.safetensors"
        if path.exists():
            return path
    raise UmieError(
        "weights is None, and the package silero-vad is not installed: pip install --no-deps 'silero-vad>=6.1', or set "
        "weights to its file silero_vad_16k.safetensors"
    )
