"""Files of sound and video: opened safely, by PyAV where nothing else reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from umie.errors import UmieError, import_extra, one_line
from umie.files import MAX_HEAD, check_content, open_regular

MAX_BYTES = 4 << 30  # of a file
# FFmpeg's names. The playlists among its formats (concat, hls, dash, sdp, ...) would open other files, and URLs.
FORMATS = "wav,w64,aiff,au,caf,mp3,flac,ogg,aac,amr,mov,matroska,avi,mpeg,mpegts,flv,asf,ivf,yuv4mpegpipe"
# Their headers say how long they are; of the others, FFmpeg only estimates it.
_TIMED = {"wav", "w64", "aiff", "caf", "flac", "mov", "matroska", "avi"}
_TIME_BASE = 1_000_000  # FFmpeg's times of a whole file are microseconds


@contextmanager
def opened(source: object, what: str) -> Iterator[BufferedReader]:
    """Open a regular file to read; raise whatever is raised in the block as a UmieError that names the file.

    Args:
        source: the path.
        what: the kind of file, for error messages.
    """
    if not isinstance(source, str | Path):
        raise UmieError(f"expected a {what} in memory or a path, not {type(source).__name__}")
    with readable(str(source), what), open_regular(source) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise UmieError(f"it has {size:,} bytes, and the limit is {MAX_BYTES:,}: cut it into shorter files")
        check_content(file.read(MAX_HEAD))
        file.seek(0)
        yield file


def is_folder(source: object) -> bool:
    """Return whether a path is that of a directory; other objects are not."""
    if not isinstance(source, str | Path):
        return False
    with readable(str(source), "clip"):  # a name may be too long
        return Path(source).is_dir()


@contextmanager
def readable(name: str, what: str) -> Iterator[None]:
    """Raise whatever is raised in the block as a UmieError that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise UmieError(f"{name}: no such {what}") from error
    except Exception as error:  # PyAV raises nearly anything: OSError, ValueError, EOFError, ...
        reason = getattr(error, "strerror", None) or one_line(error) or type(error).__name__
        raise UmieError(f"{name}: not a readable {what} ({reason})") from error


@contextmanager
def container(file: BufferedReader, **options: str) -> Iterator[Any]:
    """Open a file with PyAV, which reads this file and no other.

    Args:
        file: the file.
        options: of the decoders.

    Raises:
        UmieError: PyAV is not installed, or does not know the format.
    """
    # here, because few data sets need it: PCM WAV files and images are read without it
    av = import_extra("av", "media", "a format other than PCM WAV or images")
    try:
        found = av.open(
            _Quiet(file),
            "r",
            options=options,
            container_options={"format_whitelist": FORMATS, "protocol_whitelist": "none"},
            io_open=_refused,
            metadata_errors="replace",
        )
    except av.FFmpegError as error:
        reason = f"it is damaged, or its format is not one of {FORMATS.replace(',', ', ')}"
        raise UmieError(f"{error.strerror}: {reason}") from error
    with found:
        yield found


class _Quiet:
    """A file without its name, so that only its content counts, whose errors PyAV does not print."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self.read, self.tell = file.read, file.tell

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):  # damaged files lead before their start
            return -1


def _refused(url: str, *_: Any) -> Any:
    raise UmieError(f"it refers to another file, {url}: save it as one file")


def first(streams: Sequence[Any], what: str) -> Any:
    """Return the first stream of a kind; raise UmieError if there is none, or its codec is unknown."""
    if not streams:
        raise UmieError(f"it has no {what}")
    if streams[0].codec_context is None:
        raise UmieError(f"its {what} has a codec that PyAV does not decode: save it with another one")
    return streams[0]


def start_of(file: Any) -> float:
    """Return the time at which a container begins, which is second 0 of its sound and of its frames."""
    return max(0, file.start_time or 0) / _TIME_BASE


def packets_of(file: Any, stream: Any) -> Iterator[Any]:
    """Yield the packets of a stream, the last one empty, which ends its decoding.

    Raises:
        UmieError: the file ends before the time that its header says.
    """
    end, gap, last = 0.0, 0.0, None
    for packet in file.demux():
        if packet.pts is not None:
            time = float(packet.pts * packet.time_base)
            end = max(end, time + float((packet.duration or 0) * packet.time_base))
            if packet.stream.index == stream.index:
                gap = max(gap, time - (time if last is None else last))
                last = time
        if packet.stream.index == stream.index:
            yield packet
    said = (file.duration or 0) / _TIME_BASE
    # headers are rounded, and some formats do not say how long the last frame is
    if _TIMED.intersection(file.format.name.split(",")) and end - start_of(file) < 0.95 * said - 0.1 - gap:
        raise UmieError(f"it is truncated: it ends after {end - start_of(file):.3g} of {said:.3g} seconds")
