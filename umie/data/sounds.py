"""Sounds of the embedded media set: four timbres in a row, with silence between them, drawn with numpy."""

from __future__ import annotations

import random
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from umie.files import atomic_write
from umie.media import Sound
from umie.records.places import Interval

RATE = 4000  # in Hz
SECONDS = 3.0
NUM_SOUNDS = 4
EARLY, LATE = (0, 1), (2, 3)  # indices of the sounds in each half
_LENGTHS = (0.35, 0.6)  # seconds
_GAP = 0.05  # seconds before and after each sound, at least
_RAMP = 0.01  # seconds in which a sound begins and ends
_SCALE = 2**15

Samples: TypeAlias = npt.NDArray[np.float64]
Timbre: TypeAlias = Callable[[Samples, np.random.Generator], Samples]


def draw_sound(rng: random.Random, timbres: Sequence[str]) -> tuple[Sound, list[Interval]]:
    """Draw the four ``timbres`` one after another, with random starts, lengths, pitches and volumes.

    Return the sound and the interval of each, in seconds.
    """
    noise = np.random.default_rng(rng.getrandbits(32))
    mixed = np.zeros(round(SECONDS * RATE))
    intervals: list[Interval] = []
    part = SECONDS / NUM_SOUNDS
    for number, name in zip(range(NUM_SOUNDS), timbres, strict=True):
        length = rng.uniform(*_LENGTHS)
        first = round((number * part + rng.uniform(_GAP, part - _GAP - length)) * RATE)
        times = np.arange(round(length * RATE)) / RATE
        samples = TIMBRES[name](times, noise)
        ramp = np.minimum(1, np.minimum(times, times[::-1]) / _RAMP)
        mixed[first : first + len(times)] = rng.uniform(0.5, 0.9) * ramp * samples / np.abs(samples).max()
        intervals.append((first / RATE, (first + len(times)) / RATE))
    whole = np.round(mixed * _SCALE) + 0.0  # as in the file, which has no negative zero
    return Sound((whole / _SCALE).astype(np.float32), RATE), intervals


def save_sound(sound: Sound, path: Path) -> None:
    """Write a sound as a WAV file of 16 bits."""
    with atomic_write(path, "wb") as file:
        write_wav(sound, file)


def write_wav(sound: Sound, file: IO[bytes]) -> None:
    """Write a sound as WAV of 16 bits into an open file."""
    with wave.open(file, "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(sound.rate)
        whole = np.minimum(np.round(sound.samples * _SCALE), _SCALE - 1)  # 1 has no number of 16 bits
        target.writeframes(whole.astype("<i2").tobytes())


def _waves(times: Samples, pitches: Any, amplitudes: Any) -> Samples:
    """Return a sum of sine waves; ``pitches`` are in Hz."""
    phases = 2 * np.pi * np.outer(pitches, times)
    summed: Samples = np.asarray(amplitudes) @ np.sin(phases)
    return summed


def _fading(times: Samples, rest: float, rate: float | None = None) -> Samples:
    """Return a volume that falls from 1 to ``rest``, over the whole sound or ``rate`` times per second.

    It never falls to silence, so that the interval of a sound is what is heard of it.
    """
    share = times / times[-1] if rate is None else (times * rate) % 1
    volume: Samples = rest**share
    return volume


def _voice(lowest: float, highest: float) -> Timbre:
    """Return a voice with a pitch in this range: a tone whose harmonics are loudest at two formants."""

    def sing(times: Samples, noise: np.random.Generator) -> Samples:
        pitch = noise.uniform(lowest, highest)
        pitches = pitch * np.arange(1, int(0.45 * RATE / pitch) + 1)
        formants = np.exp(-(((pitches - 500) / 200) ** 2)) + 0.6 * np.exp(-(((pitches - 1400) / 200) ** 2))
        return _waves(times, pitches, formants + 0.6 * (pitches == pitch))

    return sing


def _bell(times: Samples, noise: np.random.Generator) -> Samples:
    pitches = noise.uniform(330, 400) * np.array([1, 2.4, 3.9])
    return _waves(times, pitches, [1, 0.7, 0.5]) * _fading(times, 0.3)


def _horn(times: Samples, noise: np.random.Generator) -> Samples:
    pitch = noise.uniform(520, 600)
    return _waves(times, [pitch, 2 * pitch, 3 * pitch], [1, 0.2, 0.4])


def _sweep(times: Samples, noise: np.random.Generator) -> Samples:
    low, high = noise.uniform(250, 400), noise.uniform(1500, 1700)
    slope = (high - low) / times[-1]
    rising: Samples = np.sin(2 * np.pi * (low * times + slope * times**2 / 2))
    return rising


def _hiss(times: Samples, noise: np.random.Generator) -> Samples:
    return np.diff(noise.uniform(-1, 1, len(times) + 1))


def _drum(times: Samples, noise: np.random.Generator) -> Samples:
    return _waves(times, [noise.uniform(150, 180)], [1]) * _fading(times, 0.3, noise.uniform(5, 8))


def _click(times: Samples, noise: np.random.Generator) -> Samples:
    return _waves(times, [noise.uniform(1100, 1300)], [1]) * _fading(times, 0.02, noise.uniform(30, 40))


def _hum(times: Samples, noise: np.random.Generator) -> Samples:
    return _waves(times, noise.uniform(50, 60) * np.array([1, 2]), [1, 0.3])


TIMBRES: dict[str, Timbre] = {
    # with a meaning
    "voice": _voice(145, 175),
    "bell": _bell,
    "horn": _horn,
    "sweep": _sweep,
    # two people
    "low voice": _voice(85, 105),
    "high voice": _voice(230, 270),
    # without meaning
    "hiss": _hiss,
    "drum": _drum,
    "click": _click,
    "hum": _hum,
}

VOICES = ("low voice", "high voice")
SOUND_FILLERS = ("hiss", "drum", "click", "hum")
