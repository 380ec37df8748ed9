"""`energy`: where a sound is louder than the noise around it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from umie.encoders.proposing import Candidates, PlaceProposer, ProposerConfig
from umie.encoders.segments import registry
from umie.encoders.segments.intervals import Levels, high_intervals
from umie.errors import UmieError, check_flag, check_positive, check_share, shown
from umie.media import Sound, open_sound
from umie.records import Segment

LOWEST = -100.0  # dB relative to full scale
_OCTAVES = 8
_BLOCK = 1_000  # frames whose spectra are held at once


@dataclass(frozen=True, kw_only=True)
class EnergyProposerConfig(ProposerConfig):
    """Options of segments by energy.

    Args:
        step: seconds of the frames whose level is compared.
        onset: dB above the noise floor that a segment has to reach.
        release: dB above the noise floor down to which it extends on both sides, so that fading ends belong to it.
        fall: dB below the loudest frame of a segment at which it ends at the latest.
        noise_share: share of the frames (0..1) that are quieter than the noise floor; the rest may be louder.
        silence: dB relative to full scale below which nothing is heard.
        min_length: seconds of the shortest segment.
        min_gap: seconds of the shortest silence between two segments.
        nested: whether to search in each segment for what rises above the rest of it, such as a horn during a siren.
    """

    step: float = 0.01
    onset: float = 12.0
    release: float = 6.0
    fall: float = 45.0
    noise_share: float = 0.1
    silence: float = -60.0
    min_length: float = 0.06
    min_gap: float = 0.07
    nested: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("step", "onset", "release", "fall", "min_length", "min_gap"):
            check_positive(name, getattr(self, name))
        check_flag("nested", self.nested)
        check_share("noise_share", self.noise_share)
        value: Any = self.silence
        if not isinstance(value, int | float) or isinstance(value, bool) or not LOWEST <= value <= 0:
            raise UmieError(f"silence is {shown(value)}: use dB relative to full scale, {LOWEST:g} to 0")
        if self.release > self.onset:
            raise UmieError(f"release is {self.release:g} and onset {self.onset:g}: use a lower release")


@registry.register("energy")
class EnergyProposer(PlaceProposer[Segment]):
    """Intervals whose level rises above the noise floor, with hysteresis; overlapping sounds are one segment.

    The noise floor of each octave is a low quantile of its levels over the whole sound; the level is the mean over the
    octaves, relative to their floors, so that rumble does not hide what is higher. If nothing rises above the floor,
    the sound has either no pauses or no events; it is one segment then, unless it is silent. The score of a segment is
    how far it rises above the floor, relative to the loudest one.
    """

    Config = EnergyProposerConfig
    medium = "audio"
    config: EnergyProposerConfig

    def candidates(self, source: Any, text: str | None, name: str | None) -> Candidates[Segment]:
        """Return the segments of a sound; see ``MediumProposer.candidates``."""
        config, sound = self.config, open_sound(source)
        hop = max(1, round(config.step * sound.rate))  # samples
        powers = _powers(sound, hop)
        lowest = 10 ** ((config.silence - config.onset) / 10) / powers.shape[1]
        levels = self._levels(powers, lowest)
        if levels.max() < config.onset:
            levels = _levels(powers, np.full(powers.shape[1], lowest))
        step = hop / sound.rate
        found = self._intervals(levels, step)
        if config.nested:
            for first, last in tuple(found):
                inner = self._intervals(self._levels(powers[first:last], lowest), step)
                found += [(first + start, first + end) for start, end in inner]
        highest = levels.max()
        segments = (
            Segment((first * hop / sound.rate, min(last * hop / sound.rate, sound.seconds))) for first, last in found
        )
        scores = (float(levels[first:last].max() / highest) for first, last in found)
        return Candidates(list(zip(segments, scores, strict=True)))

    def _intervals(self, levels: Levels, step: float) -> list[tuple[int, int]]:
        config = self.config
        names = ("onset", "release", "fall", "min_length", "min_gap")
        return high_intervals(levels, step, **{name: getattr(config, name) for name in names})

    def _levels(self, powers: Levels, lowest: float) -> Levels:
        return _levels(powers, np.maximum(np.quantile(powers, self.config.noise_share, axis=0), lowest))


def _powers(sound: Sound, hop: int) -> Levels:
    """Return the power of each frame, of ``hop`` samples, in each octave ``[frames, octaves]``.

    1 is the power of a full-scale square wave.
    """
    window = np.hanning(3 * hop + 2)[1:-1].astype(np.float32)  # of three frames, most of it in the middle one
    octaves = [2**power for power in range(_OCTAVES) if 2**power < len(window) // 2]
    edges = sorted({max(1, len(window) // 2 // octave) for octave in (*octaves[1:], len(window))})
    padded = np.pad(sound.samples, (hop, 2 * hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, len(window))[::hop]
    blocks = []
    for start in range(0, len(frames), _BLOCK):
        spectrum = np.fft.rfft(frames[start : start + _BLOCK] * window)
        blocks.append(np.add.reduceat(spectrum.real**2 + spectrum.imag**2, edges, axis=1))
    powers: Levels = np.concatenate(blocks)[: math.ceil(len(sound.samples) / hop)]
    return powers * (2 / (len(window) * float(np.square(window).sum())))


def _levels(powers: Levels, floors: Levels) -> Levels:
    """Return the level of each frame in dB above the noise floor, 0 for what is below it."""
    levels: Levels = 10 * np.log10(np.maximum((powers / floors).mean(axis=1), 1.0))
    return levels
