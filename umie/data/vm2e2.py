"""VM2E2: news videos with timed events, whose arguments have boxes in key frames, and their descriptions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from umie.data import registry
from umie.data.reading import OnError, OptionalPath, are_numbers, field, file_name, parsed_lines
from umie.errors import UmieError, at, shown
from umie.files import parse_json
from umie.records import Argument, Box, Event, Record, Track

LICENSE = "unknown: no license file; the videos belong to their publishers"
FRAME_SIZE = "640x360"
WHOLE_FRAME = (0.0, 0.0, 1.0, 1.0)
TEXTS = ("text", "title")
MAX_NUMBER = 1e6  # of a pixel or a second
_HUMPS = re.compile(r"(?<=[a-z])(?=[A-Z])")


@registry.register("vm2e2")
def read(
    path: str | Path,
    *,
    images: OptionalPath = None,
    regions: OptionalPath = None,
    on_error: OnError | None = None,
    frame_size: str = FRAME_SIZE,
    text: str = "text",
) -> Iterator[Record]:
    """Yield one MED and MEAE record per video; events have no trigger in the text, but a time.

    Source: Chen et al. 2021, Joint Multimedia Event Extraction from Video and Article. The file is a joined .jsonl file
    with a video per line: ``video`` (file name), ``id``, ``title``, ``text`` (the description) and ``video_events``
    with ``type``, ``span_s`` (seconds) and ``key_frames``, each with ``t_s`` and ``arguments`` with ``role`` and
    ``box_xywh`` (pixels). Events in texts are not read: they are the output of a model.

    The place of an event is a track of the whole frame from its first to its last second. An argument is a track
    through the key frames if at most one box of each has its role; otherwise each box is an argument by itself, because
    nothing says which of them show the same thing. Boxes are in a frame of 640 x 360 pixels, whatever the size of the
    video: no file says so, but those of 99% of the videos fit into it and fill it. What is outside is cut off.
    Arguments without a role are left out.

    Args:
        path: the file.
        images: the directory of the videos.
        regions: not used; boxes are in the file.
        on_error: is called with each error; see ``umie.data``.
        frame_size: width and height of the frame of the boxes in pixels, such as 640x360.
        text: the text of the records: ``text`` (the description) or ``title``.

    Raises:
        UmieError: the file cannot be read, or an option is wrong; without ``on_error``, a line cannot be read.
    """
    if regions is not None:
        raise UmieError(f"{path}: vm2e2 files contain their boxes: leave regions out")
    size = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", str(frame_size))
    if size is None:
        raise UmieError(f"frame_size is {shown(frame_size)}: use width and height in pixels, such as {FRAME_SIZE}")
    if text not in TEXTS:
        raise UmieError(f"text is {shown(text)}: use one of {', '.join(TEXTS)}")
    folder = None if images is None else str(images)
    width, height = int(size[1]), int(size[2])
    yield from parsed_lines(Path(path), partial(_record, Path(path), folder, (width, height), text), on_error)


def _record(path: Path, folder: str | None, size: tuple[int, int], text: str, number: int, line: str) -> Record:
    data = parse_json(line)
    given, name = (_text(data, key) for key in (text, "id"))
    video = file_name(field(data, "video", str, "the line"), "video")
    tracks: list[Track] = []
    events = []
    for index, item in enumerate(field(data, "video_events", list, "the line")):
        with at(f"event {index} (counted from 0)"):
            events.append(_event(item, size, tracks))
    return Record(
        text=given.strip(),
        video=None if folder is None else video,
        image_folder=folder,
        tracks=tuple(tracks),
        events=tuple(events),
        id=name or f"{path.stem}:{number}",
        tasks=("med", "meae"),
        source=f"VM2E2: {path.name}",
        license=LICENSE,
    )


def _text(data: Any, key: str) -> str:
    """Return a field that may be null or absent as a text."""
    value = field({key: None} | data if isinstance(data, dict) else data, key, object, "the line")
    if value is not None and not isinstance(value, str):
        raise UmieError(f"field {shown(key)} of the line is {shown(value)}: expected a string, or null")
    return value or ""


def _event(item: Any, size: tuple[int, int], tracks: list[Track]) -> Event:
    """Return an event, and add its place and those of its arguments to the tracks."""
    label = _words(field(item, "type", str, "an event"))
    times = field(item, "span_s", list, "an event")
    if not _are_plausible(times, 2):
        raise UmieError(f"span_s is {shown(times)}: expected the first and the last second")
    own = len(tracks)
    tracks.append(Track(tuple(times), (WHOLE_FRAME, WHOLE_FRAME), label))
    boxes: dict[str, dict[float, dict[Box, None]]] = {}  # by role and time, each once
    for number, frame in enumerate(field(item, "key_frames", list, "an event")):
        with at(f"key frame {number} (counted from 0)"):
            time: Any = field(frame, "t_s", object, "a key frame")
            if not _are_plausible([time], 1) or not times[0] <= time <= times[1]:
                raise UmieError(f"t_s is {shown(time)}: expected a second of the event, {times[0]} to {times[1]}")
            for argument in field(frame, "arguments", list, "a key frame"):
                found = _argument(argument, size)
                if found is not None:
                    role, box = found
                    boxes.setdefault(role, {}).setdefault(float(time), {})[box] = None
    arguments = []
    for role, by_time in boxes.items():
        for track in _tracks(role, by_time):
            arguments.append(Argument(role, tracks=(len(tracks),)))
            tracks.append(track)
    return Event(label, arguments=tuple(arguments), tracks=(own,))


def _tracks(role: str, boxes: Mapping[float, Iterable[Box]]) -> Iterator[Track]:
    """Yield one track through all times if each has one box, and otherwise a track for each box."""
    found = [(time, box) for time in sorted(boxes) for box in boxes[time]]
    if len(found) == len(boxes):
        yield Track(tuple(time for time, _ in found), tuple(box for _, box in found), role)
    else:
        yield from (Track((time,), (box,), role) for time, box in found)


def _argument(argument: Any, size: tuple[int, int]) -> tuple[str, Box] | None:
    """Return the role and the box of an argument; None without a role, or if nothing of the box is in the frame."""
    role = field(argument, "role", object, "an argument")
    values = field(argument, "box_xywh", list, "an argument")
    if role is None:
        return None
    if not isinstance(role, str) or not role.strip():
        raise UmieError(f"role is {shown(role)}: expected a name, or null")
    if len(values) < 4 or len(values) % 2 or not _are_plausible(values, len(values)):
        raise UmieError(
            f"box_xywh is {shown(values)}: expected x, y, width and height in pixels, or a polygon's points"
        )
    across, down = values[0::2], values[1::2]
    if len(values) == 4:
        across, down = [values[0], values[0] + values[2]], [values[1], values[1] + values[3]]
    x1, x2 = (min(max(edge / size[0], 0.0), 1.0) for edge in (min(across), max(across)))
    y1, y2 = (min(max(edge / size[1], 0.0), 1.0) for edge in (min(down), max(down)))
    return (_words(role), (x1, y1, x2, y2)) if x1 < x2 and y1 < y2 else None


def _are_plausible(values: list[Any], count: int) -> bool:
    """Return whether values are numbers that are no more than any frame or second, such as an integer of 400 digits."""
    return are_numbers(values, count) and all(abs(value) < MAX_NUMBER for value in values)


def _words(name: str) -> str:
    """Return the last part of a name in words: Conflict.Attack.DetonateExplode becomes detonate explode."""
    words = _HUMPS.sub(" ", name.rpartition(".")[2]).lower().strip()
    if not words:
        raise UmieError(f"{shown(name)} is no name of a type or role")
    return words
