"""`file`: existing tracks, from JSON, JSONL or MOT files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from umie.encoders.place_files import PlaceFileConfig, PlaceFileProposer, label_of, number_of, score_of
from umie.encoders.proposing import AnnotationError, Candidates
from umie.encoders.tracks import registry
from umie.errors import UmieError, at, check_choice, check_positive, shown
from umie.files import read_lines
from umie.media import open_clip
from umie.media.clip import FRAME_RATE
from umie.media.container import is_folder
from umie.records import Box, Track

Unit = Literal["relative", "absolute"]

NOT_FINITE = "tracks with boxes or times that are not finite"
NO_TIMES = "tracks whose times do not ascend"
OUTSIDE = "tracks outside the video"
_ROUNDING = 0.5  # pixels by which a box may extend beyond the frame without being counted as clipped


@dataclass(frozen=True, kw_only=True)
class TrackFileConfig(PlaceFileConfig):
    """Options of tracks from files.

    Args:
        path: a JSON or JSONL file for all videos, or a directory with ``<video>.json``, ``<video>.txt`` (MOT) or
            ``<video>/gt/gt.txt`` for each video.
        boxes: the unit of x1, y1, x2, y2 in JSON, "relative" (0..1) or "absolute" (pixels); MOT files have pixels.
        frame_rate: frames per second of MOT files, which count frames from 1; of a folder of frames, only 25, at which
            encoders read it.
        nms: see ProposerConfig; by default no annotated track is suppressed.
    """

    boxes: Unit = "relative"
    frame_rate: float = FRAME_RATE

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("boxes", self.boxes, get_args(Unit))
        check_positive("frame_rate", self.frame_rate)


class _Row(NamedTuple):
    times: list[float]
    boxes: list[list[float] | None]
    in_pixels: bool
    label: str | None
    score: float


@registry.register("file")
class TrackFileProposer(PlaceFileProposer[Track]):
    """Tracks from annotation files, found by the name of the video; a video without annotation has no tracks.

    TRACKS in JSON is a list of ``{"times": [0, 0.5], "boxes": [[x1, y1, x2, y2], null], "label": "dog", "score":
    0.9}``; label and score are optional (the score is then 1). A line of JSONL is ``{"video": "1.mp4", "tracks":
    TRACKS}``. Lines of MOT files are ``frame,id,left,top,width,height,confidence,...``; lines of confidence 0 are
    ignored, as the challenge says.

    The first frame is read, for its size. Boxes are clipped to it; invalid tracks are dropped, and both are counted.
    """

    Config = TrackFileConfig
    medium = "video"
    suffixes = (".txt", "/gt/gt.txt")
    config: TrackFileConfig

    def _of_json(self, value: Mapping[str, Any]) -> _Row:
        times, boxes = value.get("times"), value.get("boxes")
        if not isinstance(times, list) or not isinstance(boxes, list) or len(times) != len(boxes) or not times:
            raise UmieError("expected times and boxes, two lists of the same length")
        for box in boxes:
            if box is not None and (not isinstance(box, list) or len(box) != 4):
                raise UmieError(f"box is {shown(box)}: expected [x1, y1, x2, y2] or null")
        return _Row(
            [number_of(time, "time") for time in times],
            [None if box is None else [number_of(edge, "box") for edge in box] for box in boxes],
            self.config.boxes == "absolute",
            label_of(value),
            score_of(value),
        )

    def _of_text(self, path: Path) -> list[_Row]:
        tracks: dict[float, dict[float, list[float]]] = {}
        for number, line in read_lines(path):
            if not line.strip():
                continue
            with at(f"{path}:{number}"):
                values = [number_of(value.strip(), "a column") for value in line.split(",")]
                if len(values) < 6:
                    raise UmieError(f"{shown(line)} has {len(values)} columns: expected frame,id,left,top,width,height")
                frame, body, left, top, width, height = values[:6]
                if values[6:7] == [0]:
                    continue
                if not frame >= 1:
                    raise UmieError(f"frame is {frame:g}: frames count from 1")
                if frame in tracks.setdefault(body, {}):
                    raise UmieError(f"id {body:g} has two boxes in frame {frame:g}")
                # pixels count from 1
                tracks[body][frame] = [left - 1, top - 1, left - 1 + width, top - 1 + height]
        found = []
        for frames in tracks.values():
            ordered = sorted(frames)
            times = [(frame - 1) / self.config.frame_rate for frame in ordered]
            found.append(_Row(times, [frames[frame] for frame in ordered], True, None, 1.0))
        return found

    def _table_of_text(self, path: Path) -> Iterator[tuple[str, list[_Row]]]:
        raise UmieError(f"path is {str(path)!r}: MOT files name no video; use the directory of <video>.txt, or JSON")

    def _candidates(self, places: list[_Row], source: Any) -> Candidates[Track]:
        if self.config.frame_rate != FRAME_RATE and is_folder(source):
            raise AnnotationError(
                f"{source}: frame_rate is {self.config.frame_rate:g}, but a folder of frames is read at {FRAME_RATE:g} "
                "frames per second: leave frame_rate out"
            )
        clip = open_clip(source, 1)
        size = clip.frames[0].size
        found = Candidates[Track]()
        for row in places:
            edges = [edge for box in row.boxes if box is not None for edge in box]
            if not all(map(math.isfinite, (*row.times, *edges))):
                found.dropped[NOT_FINITE] += 1
                continue
            if row.times != sorted(set(row.times)):
                found.dropped[NO_TIMES] += 1
                continue
            scale = size * 2 if row.in_pixels else (1.0,) * 4
            kept, is_clipped = [], False
            for time, box in zip(row.times, row.boxes, strict=True):
                if 0 <= time < clip.seconds:
                    inside_box, beyond = _clipped(box, scale, size)
                    is_clipped |= beyond
                    kept.append((time, inside_box))
                else:
                    is_clipped = True
            if all(box is None for _, box in kept):
                found.dropped[OUTSIDE] += 1
                continue
            found.num_clipped += is_clipped
            times, boxes = zip(*kept, strict=True)
            found.found.append((Track(times, boxes, row.label), row.score))
        return found


def _clipped(box: list[float] | None, scale: tuple[float, ...], size: tuple[int, int]) -> tuple[Box | None, bool]:
    """Return a box relative to the frame, None if nothing of it is inside, and whether it extends beyond the frame."""
    if box is None:
        return None, False
    edges = [edge / unit for edge, unit in zip(box, scale, strict=True)]
    x1, y1, x2, y2 = (min(max(edge, 0.0), 1.0) for edge in edges)
    beyond = any(not -_ROUNDING <= edge * side <= side + _ROUNDING for edge, side in zip(edges, size * 2, strict=True))
    return ((x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None), beyond
