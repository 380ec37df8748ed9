"""`file`: existing segments, from JSON, JSONL, TSV or Audacity's label files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from umie.encoders.place_files import PlaceFileConfig, PlaceFileProposer, label_of, number_of, score_of
from umie.encoders.proposing import Candidates
from umie.encoders.segments import registry
from umie.errors import UmieError, at, shown
from umie.files import read_lines
from umie.media import open_sound
from umie.records import Segment

NOT_FINITE = "segments with times that are not finite"
NO_LENGTH = "segments without length"
OUTSIDE = "segments outside the sound"
_ROUNDING = 0.05  # seconds by which a segment may end after its sound without being counted as clipped


class SegmentRow(NamedTuple):
    """A segment as it is in a file; its times may be anything."""

    start: float
    end: float
    label: str | None
    score: float


@registry.register("file")
class SegmentFileProposer(PlaceFileProposer[Segment]):
    """Segments from annotation files, found by the name of the sound; a sound without annotation has no segments.

    SEGMENTS in JSON is a list of ``{"interval": [start, end], "label": "dog", "score": 0.9}``, or ``{"start": ...,
    "end": ...}``, in seconds; label and score are optional (the score is then 1). A line of JSONL is ``{"audio":
    "1.wav", "segments": SEGMENTS}``, or has one segment's own keys instead. A table for all sounds (.tsv, .txt) has the
    columns file name, start, end, and optionally label and score, separated by tabs; a header is skipped. The file of
    one sound in a directory is JSON (SEGMENTS), or has the columns start, end and label (.txt, .tsv), as Audacity
    writes them.

    The sound is opened, for its length. Segments beyond it are clipped, invalid ones dropped, and both are counted.
    """

    Config = PlaceFileConfig
    medium = "audio"
    suffixes: tuple[str, ...] = (".txt", ".tsv")

    def _of_json(self, value: Mapping[str, Any]) -> SegmentRow:
        times = value["interval"] if "interval" in value else [value.get("start"), value.get("end")]
        if not isinstance(times, list) or len(times) != 2:
            raise UmieError(f"interval is {shown(times)}: expected [start, end] in seconds")
        start, end = (number_of(time, name) for time, name in zip(times, ("start", "end"), strict=True))
        return SegmentRow(start, end, label_of(value), score_of(value))

    def _of_text(self, path: Path) -> list[SegmentRow]:
        return [_row(columns) for columns in _columns(path, 2)]

    def _table_of_text(self, path: Path) -> Iterator[tuple[str, list[SegmentRow]]]:
        for columns in _columns(path, 3):
            yield columns[0], [_row(columns[1:])]

    def _candidates(self, places: list[SegmentRow], source: Any) -> Candidates[Segment]:
        seconds = open_sound(source).seconds
        found = Candidates[Segment]()
        for start, end, label, score in places:
            if not (math.isfinite(start) and math.isfinite(end)):
                found.dropped[NOT_FINITE] += 1
            elif end <= start:
                found.dropped[NO_LENGTH] += 1
            elif end <= 0 or start >= seconds:
                found.dropped[OUTSIDE] += 1
            else:
                found.num_clipped += start < 0 or end > seconds + _ROUNDING
                found.found.append((Segment((max(0.0, start), min(end, seconds)), label), score))
        return found


def _columns(path: Path, least: int) -> Iterator[Sequence[str]]:
    """Yield the columns of each line that has at least ``least``, the last two of which are times; skip a header."""
    for number, line in read_lines(path):
        columns = line.split("\t")
        if not line.strip() or columns[0] == "\\":  # the frequencies of Audacity's spectral selections
            continue
        with at(f"{path}:{number}"):
            if len(columns) < least:
                raise UmieError(f"{shown(line)} has {len(columns)} columns: expected {least}, separated by tabs")
            try:
                number_of(columns[least - 1], "end")
                number_of(columns[least - 2], "start")
            except UmieError:
                if number == 1:
                    continue
                raise
        yield columns


def _row(columns: Sequence[str]) -> SegmentRow:
    label = columns[2].strip() if len(columns) > 2 else ""
    score = score_of({"score": columns[3] if len(columns) > 3 else None})
    return SegmentRow(float(columns[0]), float(columns[1]), label or None, score)
