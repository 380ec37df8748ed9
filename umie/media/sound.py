"""Reading sound: mono, in -1..1, at the sample rate that is asked for, or a clear error."""

from __future__ import annotations

import math
import os
import wave
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from umie.errors import UmieError, check_whole
from umie.media.container import container, first, opened, packets_of, start_of

Samples: TypeAlias = npt.NDArray[np.float32]

MAX_SECONDS = 3_600
MIN_RATE, MAX_RATE = 1_000, 400_000  # in Hz
MAX_SAMPLES = MAX_SECONDS * 48_000  # of a channel: 0.7 GB
MAX_CHANNELS = 64
_OVERSHOOT = 4.0  # lossy formats go beyond -1..1; integers that are stored as floats go further
_BLOCK = 1 << 16  # samples of a channel that are read at once


@dataclass(frozen=True, eq=False)
class Sound:
    """Mono sound.

    Args:
        samples: float32 [N], in -1..1.
        rate: samples per second, 1,000 to 400,000.

    Raises:
        UmieError: the samples or the rate are not of this kind, or the sound is longer than an hour.
    """

    samples: Samples
    rate: int

    def __post_init__(self) -> None:
        _check_rate(self.rate)
        samples = self.samples
        if not isinstance(samples, np.ndarray) or samples.dtype != np.float32 or samples.ndim != 1:
            kind = (
                f"{samples.dtype} {list(samples.shape)}" if isinstance(samples, np.ndarray) else type(samples).__name__
            )
            raise UmieError(f"samples is {kind}: use a numpy array, float32 [N], of one channel")
        _check_length(len(samples), self.rate)
        low, high = samples.min(), samples.max()  # NaN if there is one, which no comparison accepts
        if not (low >= -1 and high <= 1):
            raise UmieError(f"samples are {low:g} to {high:g}: divide them by their largest value, without NaN")

    @property
    def seconds(self) -> float:
        """The duration."""
        return len(self.samples) / self.rate


SoundSource: TypeAlias = Sound | str | Path


def open_sound(source: SoundSource, rate: int | None = None) -> Sound:
    """Return a sound: the mean of its channels, clipped to -1..1, resampled where its rate is another one.

    Second 0 is the start of the file: if the sound of a video begins later, silence precedes it.

    Args:
        source: a sound, or the path of a WAV file, or of any file of sound or video if PyAV is installed.
        rate: samples per second of the result; None for those of the source.

    Raises:
        UmieError: the file does not exist, cannot be decoded, is truncated or beyond the limits of this module.
    """
    if rate is not None:
        _check_rate(rate)
    if isinstance(source, Sound):
        return _resampled(source, rate)
    with opened(source, "sound") as file:
        return _resampled(_wave(file) or _decoded(file), rate)


def _check_rate(rate: object) -> None:
    check_whole("rate", rate, MIN_RATE)
    if rate > MAX_RATE:  # type: ignore[operator] # a whole number by then
        raise UmieError(f"rate is {rate}: use at most {MAX_RATE:,} Hz")


def _check_length(samples: float, rate: int) -> None:
    """Raise UmieError unless a channel has 1 sample to MAX_SECONDS."""
    if not samples > 0:
        raise UmieError("it has no samples: use a sound that is not empty")
    if samples > rate * MAX_SECONDS:
        raise UmieError(f"it has {samples / rate:,.0f} seconds, and the limit is {MAX_SECONDS:,}: cut it into pieces")
    if samples > MAX_SAMPLES:
        raise UmieError(f"it has {samples:,.0f} samples, and the limit is {MAX_SAMPLES:,}: use a lower rate")


def _check_channels(channels: int) -> None:
    if not 0 < channels <= MAX_CHANNELS:
        raise UmieError(f"it has {channels} channels, and the limit is {MAX_CHANNELS}: mix them")


def _wave(file: BufferedReader) -> Sound | None:
    """Return the sound of a WAV file with PCM samples; None for what the wave module does not read."""
    head = file.read(12)
    file.seek(0)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    try:
        wav = wave.Wave_read(file)
    except (
        wave.Error,
        EOFError,
        RuntimeError,
    ):  # floats, a compression, a header that a pipe left unfinished, or damage
        file.seek(0)
        return None
    channels, width, rate, frames = wav.getnchannels(), wav.getsampwidth(), wav.getframerate(), wav.getnframes()
    _check_rate(rate)
    _check_channels(channels)
    _check_length(frames, rate)
    if width > 4:
        raise UmieError(f"its samples have {8 * width} bits: save it with 16, 24 or 32")
    if frames * channels * width <= os.fstat(file.fileno()).st_size:
        mixed = np.empty(frames, np.float32)
        for start in range(0, frames, _BLOCK):
            data = wav.readframes(min(_BLOCK, frames - start))
            if len(data) < channels * width * min(_BLOCK, frames - start):
                break
            mixed[start : start + _BLOCK] = _mixed(_whole_numbers(data, width).reshape(-1, channels))
        else:
            return Sound(mixed, rate)
    raise UmieError(f"it is truncated: its header says {frames:,} samples, and there are fewer; save it again")


def _whole_numbers(data: bytes, width: int) -> npt.NDArray[Any]:
    if width != 3:
        return np.frombuffer(data, f"{'u' if width == 1 else 'i'}{width}")
    padded = np.zeros((len(data) // 3, 4), np.uint8)
    padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return padded.view("<i4")[:, 0]


def _mixed(values: npt.NDArray[Any]) -> Samples:
    """Return the mean of the channels of samples [N, channels] of any type, scaled to -1..1."""
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinite samples are refused later
        mixed: npt.NDArray[np.float64] = values.mean(axis=1, dtype=np.float64)
    if values.dtype.kind != "f":
        half = 2.0 ** (8 * values.dtype.itemsize - 1)
        mixed = (mixed - (half if values.dtype.kind == "u" else 0.0)) / half
    with np.errstate(over="ignore"):
        return mixed.astype(np.float32)


def _decoded(file: BufferedReader) -> Sound:
    """Return the first sound of a file, decoded by PyAV."""
    with container(file) as found:
        stream = first(found.streams.audio, "sound")
        rate = stream.codec_context.sample_rate
        _check_rate(rate)
        _check_channels(stream.codec_context.layout.nb_channels)
        if stream.duration is not None and stream.time_base:
            _check_length(float(stream.duration * stream.time_base) * rate, rate)
        blocks: list[Samples] = []
        length = 0
        for packet in packets_of(found, stream):
            for frame in packet.decode():
                if frame.sample_rate != rate:
                    raise UmieError(f"its rate changes from {rate} to {frame.sample_rate} Hz: save it with one rate")
                if not blocks and frame.time is not None:
                    length = max(0, round((frame.time - start_of(found)) * rate))
                    _check_length(length + 1, rate)
                    blocks.append(np.zeros(length, np.float32))
                values = frame.to_ndarray()
                channels = frame.layout.nb_channels
                blocks.append(_mixed(values.T if frame.format.is_planar else values.reshape(-1, channels)))
                length += len(blocks[-1])
                if length > rate * MAX_SECONDS or length > MAX_SAMPLES:
                    _check_length(length, rate)
        _check_length(length, rate)
    samples = np.concatenate(blocks)
    low, high = samples.min(), samples.max()
    if not (low >= -_OVERSHOOT and high <= _OVERSHOOT):  # nor NaN
        raise UmieError(f"its samples are {low:g} to {high:g}: save it with samples of -1 to 1")
    return Sound(np.clip(samples, -1, 1, out=samples), rate)


def _resampled(sound: Sound, rate: int | None) -> Sound:
    if rate is None or rate == sound.rate:
        return sound
    _check_length(len(sound.samples) / sound.rate * rate, rate)
    from scipy.signal import resample_poly  # here, because it is slow to import

    common = math.gcd(rate, sound.rate)
    samples = resample_poly(sound.samples, rate // common, sound.rate // common)
    return Sound(np.clip(samples, -1, 1, out=samples), rate)  # filters overshoot
