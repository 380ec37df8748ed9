"""Reading video: some frames of a clip, as displayed, in RGB, or a clear error."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image, UnidentifiedImageError

from umie.errors import UmieError, check_positive, check_whole
from umie.images import displayed, image_ending, limited_pixels, open_format, open_image, orientation_of
from umie.media.container import container, first, is_folder, opened, packets_of, readable, start_of

MAX_FRAMES = 1_000_000  # of a file or a folder: 9 hours of 30 frames per second
FRAME_RATE = 25.0  # frames per second, where a clip does not say it
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")  # in other formats, further images are pages or previews
_NO_DURATION = 0.1  # seconds that browsers show a frame whose duration is 0
_KEPT = 1 << 24  # pixels of an animation that are held in memory while its times are read
_ROUNDING = 1e-6  # seconds
_COVER = 1 << 10  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of a video.

    Args:
        frames: images in RGB, as displayed.
        times: the seconds at which the frames start, from 0, ascending.
        seconds: the duration of the clip, from second 0.

    Raises:
        UmieError: there are no frames, or the times do not fit.
    """

    frames: tuple[Image.Image, ...]
    times: tuple[float, ...]
    seconds: float

    def __post_init__(self) -> None:
        if not self.frames or len(self.frames) != len(self.times):
            raise UmieError(f"a clip has {len(self.frames)} frames and {len(self.times)} times: use one time per frame")
        for number, frame in enumerate(self.frames):
            if not isinstance(frame, Image.Image) or frame.mode != "RGB" or not min(frame.size):
                raise UmieError(f"frames[{number}] is not an image in RGB: use umie.images.open_image")
        bounds = (*self.times, self.seconds)
        if not all(math.isfinite(time) for time in bounds) or self.times[0] < 0:
            raise UmieError("a time of a clip is negative, NaN or infinite: use seconds from its start")
        for number, (time, following) in enumerate(pairwise(bounds)):
            if not time < following:
                raise UmieError(f"times[{number}] is {time:g}, and what follows is {following:g}: use ascending times")


ClipSource: TypeAlias = Clip | str | Path


def open_clip(source: ClipSource, max_frames: int, *, frame_rate: float = FRAME_RATE) -> Clip:
    """Return a clip of at most ``max_frames`` frames that are evenly spaced over the source.

    If the source has more, the time from its first frame to its end is cut into ``max_frames`` parts of equal length,
    and the frame that is displayed at the middle of each part is taken, each frame once.

    Args:
        source: a clip; the path of an image, where an animation (GIF, PNG, WebP) has its own times; the path of a
            folder, whose images are frames in natural order (2 before 10); or the path of a video, if PyAV is
            installed.
        max_frames: at least 1.
        frame_rate: frames per second of a folder; a still image is displayed as long as one of these frames.

    Raises:
        UmieError: the file does not exist, cannot be decoded, is truncated or beyond the limits of this module.
    """
    check_whole("max_frames", max_frames, 1)
    check_positive("frame_rate", frame_rate)
    if isinstance(source, Clip):
        chosen = _chosen(source.times, source.seconds, max_frames)
        return Clip(tuple(source.frames[i] for i in chosen), tuple(source.times[i] for i in chosen), source.seconds)
    if is_folder(source):
        paths = frame_paths(Path(source))
        times = [number / frame_rate for number in range(len(paths))]
        chosen = _chosen(times, len(paths) / frame_rate, max_frames)
        frames = tuple(open_image(paths[i]) for i in chosen)
        return Clip(frames, tuple(times[i] for i in chosen), len(paths) / frame_rate)
    with opened(source, "clip") as file:
        try:
            with limited_pixels(), open_format(file) as image:
                return _animation(image, max_frames, 1 / frame_rate)
        except UnidentifiedImageError:
            file.seek(0)
            return _video(file, max_frames)


def frame_paths(folder: Path) -> list[Path]:
    """Return the images in a folder in natural order; raise UmieError if there are none."""
    with readable(str(folder), "folder of frames"):
        paths = [path for path in folder.iterdir() if image_ending(path.name) and not path.name.startswith(".")]
        _check_count(len(paths))
    return sorted(paths, key=lambda path: (_natural(path.name), path.name))


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _check_count(frames: int) -> None:
    if not frames:
        raise UmieError("it has no frames: use a clip that is not empty")
    if frames > MAX_FRAMES:
        raise UmieError(f"it has {frames:,} frames, and the limit is {MAX_FRAMES:,}: cut it into shorter clips")


def _chosen(times: Sequence[float], seconds: float, most: int) -> list[int]:
    """Return the numbers of the frames that ``open_clip`` takes."""
    if len(times) <= most:
        return list(range(len(times)))
    part = (seconds - times[0]) / most
    middles = (times[0] + (number + 0.5) * part for number in range(most))
    return sorted({bisect_right(times, middle + _ROUNDING) - 1 for middle in middles})


def _animation(image: Image.Image, max_frames: int, still: float) -> Clip:
    count = getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1
    if count == 1:
        return Clip((displayed(image),), (0.0,), still)
    _check_count(count)
    skipped = int(bool(image.info.get("default_image")))  # a PNG for programs that do not show animations
    keeps = count * image.width * image.height <= _KEPT  # else the chosen frames are decoded again
    kept, times, end = [], [], 0.0
    for number in range(skipped, count):
        image.seek(number)
        image.load()  # WebP knows its durations only then
        times.append(end)
        end += (image.info.get("duration") or 0) / 1000 or _NO_DURATION
        if keeps:
            kept.append(image.copy())
    orientation = orientation_of(image)
    chosen = _chosen(times, end, max_frames)
    frames = []
    for number in chosen:
        if not keeps:
            image.seek(skipped + number)
        frames.append(displayed(kept[number] if keeps else image, orientation))
    return Clip(tuple(frames), tuple(times[number] for number in chosen), end)


def _video(file: BufferedReader, max_frames: int) -> Clip:
    """Return frames of a video: its packets have all times, and only what leads to the chosen frames is decoded."""
    limit = Image.MAX_IMAGE_PIXELS or 2**31 - 1
    with container(file, max_pixels=str(limit)) as found:
        # the others are the covers of music
        stream = first([stream for stream in found.streams.video if not int(stream.disposition) & _COVER], "video")
        stream.codec_context.options = {"max_pixels": str(limit)}
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > limit:
            raise UmieError(f"its frames have {width} x {height} pixels, and the limit is {limit:,}: make it smaller")
        durations, keys = {}, []
        for packet in packets_of(found, stream):
            if packet.pts is None or packet.is_discard:
                continue
            durations[packet.pts] = packet.duration or 0
            if packet.is_keyframe:
                keys.append(packet.pts)
            if len(durations) > MAX_FRAMES:
                _check_count(len(durations))
        _check_count(len(durations))
        zero, base = start_of(found), stream.time_base
        starts = sorted(durations)
        times = [max(0.0, float(start * base) - zero) for start in starts]
        last = float(durations[starts[-1]] * base) or (times[-1] - times[-2] if len(times) > 1 else 1 / FRAME_RATE)
        seconds = times[-1] + last
        wanted = [starts[number] for number in _chosen(times, seconds, max_frames)]
        frames = {frame.pts: _upright(frame) for frame in _at(found, stream, wanted, sorted(keys))}
        _check_count(len(frames))
        return Clip(tuple(frames.values()), tuple(max(0.0, float(start * base) - zero) for start in frames), seconds)


def _upright(frame: Any) -> Image.Image:
    image: Image.Image = frame.to_image()
    turn = _TURNS.get(frame.rotation % 360)
    return image if turn is None else image.transpose(turn)


def _at(file: Any, stream: Any, wanted: list[int], keys: list[int]) -> Iterator[Any]:
    """Yield the frames at ascending times, decoded from the keyframe before each where that is ahead."""
    frames: Iterator[Any] | None = None
    position = start = min(keys[:1] + wanted[:1])
    for time in wanted:
        key = keys[bisect_right(keys, time) - 1] if keys and keys[0] <= time else start
        if frames is None or key > position:
            file.seek(key, stream=stream)
            frames = _timed(file.decode(stream))
            found = next(frames, None)
            if found is None or found.pts > key:  # the file has no index, and what was found is too far ahead
                file.seek(0, unsupported_byte_offset=True)
                keys, frames = [], _timed(file.decode(stream))
            else:
                frames = chain((found,), frames)
        for frame in frames:
            position = frame.pts
            if position >= time:  # a later one only if the packet at this time is not displayed
                yield frame
                break


def _timed(frames: Iterator[Any]) -> Iterator[Any]:
    return (frame for frame in frames if frame.pts is not None)
