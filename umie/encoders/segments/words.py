"""`words`: the words of a forced aligner or a speech recognizer, from TextGrid, CSV or JSON files."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umie.encoders.place_files import PlaceFileConfig, number_of, score_of
from umie.encoders.proposing import Candidates
from umie.encoders.segments import registry
from umie.encoders.segments.file import SegmentFileProposer, SegmentRow
from umie.encoders.segments.textgrid import read_textgrid
from umie.errors import UmieError, at, shown
from umie.files import read_lines
from umie.records import Segment

SILENCES = frozenset({"", "<eps>", "sil", "sp"})  # what aligners call a pause
_SCORES = ("score", "probability", "confidence", "conf")
_COLUMNS = (("begin", "start"), ("end",), ("label", "word", "text"))


@dataclass(frozen=True, kw_only=True)
class WordsProposerConfig(PlaceFileConfig):
    """Options of words from files.

    Args:
        path: a directory with a file per sound, or a JSON, JSONL or TSV file for all sounds.
        tier: the tier of the words in TextGrids, or how its name ends (``speaker - words``); their type in CSV files.
        max_gap: words with at most so many seconds between them are one segment; by default, each word is one.
    """

    tier: str = "words"
    max_gap: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.tier, str):
            raise UmieError(f"tier is {shown(self.tier)}: use the name of a tier")
        gap: Any = self.max_gap
        if gap is not None and (not isinstance(gap, int | float) or isinstance(gap, bool) or not 0 <= gap < math.inf):
            raise UmieError(f"max_gap is {shown(gap)}: use seconds, 0 or more")


@registry.register("words")
class WordsProposer(SegmentFileProposer):
    """Words with their times, found by the name of the sound; the label of a segment is its text.

    The file of a sound is a TextGrid (of the Montreal Forced Aligner, Praat, ...), a CSV file (MFA: Begin, End, Label,
    Type) or JSON: WORDS, a list of ``{"word": "Rome", "start": 1.2, "end": 1.5}``, ``{"words": WORDS}``, or
    ``{"segments": [{"words": WORDS}, ...]}`` (Whisper, WhisperX); ``probability``, ``confidence`` or ``score`` is the
    score. A file for all sounds has ``{"1.wav": JSON, ...}``, or an object with ``audio`` and ``words`` in each line.
    Texts and tables as in ``file`` are read, too. Pauses are skipped; words without times are dropped and counted.
    """

    Config = WordsProposerConfig
    suffixes: tuple[str, ...] = (".TextGrid", ".csv", ".txt", ".tsv")
    config: WordsProposerConfig

    def _list_of(self, value: object) -> list[SegmentRow]:
        if isinstance(value, Mapping) and isinstance(parts := value.get("segments"), list):
            if not all(isinstance(part, Mapping) and isinstance(part.get("words"), list) for part in parts):
                raise UmieError("a segment has no list of words: transcribe with word timestamps")
            value = [word for part in parts for word in part["words"]]
        elif isinstance(value, Mapping):
            value = value.get("words")
        return _spoken(super()._list_of(value))

    def _of_object(self, value: Mapping[str, Any]) -> list[SegmentRow]:
        return self._list_of(value)

    def _of_json(self, value: Mapping[str, Any]) -> SegmentRow:
        word = value.get("word", value.get("text"))
        if not isinstance(word, str):
            raise UmieError(f"word is {shown(word)}: use a string")
        # recognizers do not know when some words were said
        start, end = (math.nan if value.get(key) is None else number_of(value[key], key) for key in ("start", "end"))
        score = next((value[key] for key in _SCORES if key in value), None)
        return SegmentRow(start, end, word.strip(), score_of({"score": score}))

    def _of_text(self, path: Path) -> list[SegmentRow]:
        if path.suffix == ".csv":
            return _spoken(self._of_csv(path))
        if path.suffix != ".TextGrid":
            return super()._of_text(path)
        tiers = read_textgrid(path)
        found = [name for name in tiers if name.endswith(self.config.tier)]
        if not found:
            raise UmieError(f"{path}: has no tier {self.config.tier!r}: set tier to one of {shown(sorted(tiers))}")
        return _spoken(SegmentRow(start, end, text.strip(), 1.0) for name in found for start, end, text in tiers[name])

    def _of_csv(self, path: Path) -> Iterator[SegmentRow]:
        places: list[int] = []
        kind = None
        for number, line in read_lines(path):
            with at(f"{path}:{number}"):
                try:
                    values = [value.strip() for value in next(csv.reader([line], strict=True), [])]
                except csv.Error as error:
                    raise UmieError(f"{shown(line)} is not CSV: {error}") from error
                if not places:
                    names = [value.casefold() for value in values]
                    kind = names.index("type") if "type" in names else None
                    places = [names.index(name) for known in _COLUMNS for name in known if name in names]
                    if len(places) != len(_COLUMNS):
                        raise UmieError(f"{shown(line)} has not the columns begin, end and label")
                elif values and (kind is None or values[kind : kind + 1] == [self.config.tier]):
                    if len(values) <= max(places):
                        raise UmieError(f"{shown(line)} has {len(values)} columns: expected those of the first line")
                    start, end, label = (values[place] for place in places)
                    yield SegmentRow(number_of(start, "begin"), number_of(end, "end"), label, 1.0)

    def _candidates(self, places: list[SegmentRow], source: Any) -> Candidates[Segment]:
        gap = self.config.max_gap
        return super()._candidates(places if gap is None else joined(places, gap), source)


def joined(words: Sequence[SegmentRow], max_gap: float) -> list[SegmentRow]:
    """Return words joined to segments where at most ``max_gap`` seconds are between them; the score is their mean."""
    timed = sorted((word for word in words if math.isfinite(word.start + word.end)), key=lambda word: word[:2])
    groups: list[list[SegmentRow]] = []
    ends: list[float] = []  # of the groups
    for word in timed:
        if groups and word.start - ends[-1] <= max_gap:
            groups[-1].append(word)
            ends[-1] = max(ends[-1], word.end)
        else:
            groups.append([word])
            ends.append(word.end)
    segments = [
        SegmentRow(
            group[0].start,
            end,
            " ".join(word.label for word in group if word.label),
            sum(word.score for word in group) / len(group),
        )
        for group, end in zip(groups, ends, strict=True)
    ]
    return [*segments, *(word for word in words if not math.isfinite(word.start + word.end))]


def _spoken(words: Iterator[SegmentRow] | Sequence[SegmentRow]) -> list[SegmentRow]:
    return [word for word in words if word.label not in SILENCES]
