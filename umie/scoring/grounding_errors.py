"""How grounding fails: a verdict on each place that an answer or the annotation names, and the mIoU of each medium.

A *grounding* is a place that shows one part of an item: an entity, a trigger, an argument, the head or the tail of a
relation. Source of the classes: Zhang et al., Recognizing Everything from All Modalities at Once: Grounded Multimodal
Universal Information Extraction (2024), which names them and does not define them; the definitions are those of
``PREDICTED`` and ``ANNOTATED``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from umie.records import MEDIA, Places, Record
from umie.records.overlap import Place, extent, place_iou, same_place
from umie.records.places import Medium
from umie.scoring.boxes import overlap
from umie.scoring.counts import Key
from umie.scoring.groundings import items_of

RIGHT, FOUND = "right", "found"
PREDICTED: Mapping[str, str] = {
    RIGHT: "the item is right, and the place matches one of the item's at IoU >= 0.5",
    "absent medium": "the record does not have this medium",
    "repetition": "the item repeats one that is right, or the place is named twice",
    "propagation": "the item is wrong for another reason",
    "over-grounding": "the item is right, but has no place in this medium",
    "wrong match": "the item is right, but the place is that of another annotated item",
    "wrong place": "the item is right, but the place is that of no annotated item",
}
"""The verdicts on predicted groundings; each grounding has exactly one, the first that holds."""
ANNOTATED: Mapping[str, str] = {
    FOUND: "the item is found, and one of its predicted places matches this one at IoU >= 0.5",
    "miss-grounding": "the item is found, without this place",
    "incomplete": "the item is not found",
}
"""The verdicts on annotated groundings; each grounding has exactly one."""
MIOU: Mapping[Medium, str] = {"image": "I-Seg", "video": "V-Trck", "audio": "A-Seg"}
"""The names of the mIoU of each medium."""


class Verdict(NamedTuple):
    """The verdict on one grounding."""

    verdict: str  # a key of PREDICTED, or of ANNOTATED
    medium: Medium
    place: int  # its index among the places of its own record in this medium
    item: Key  # of a type or role and of offsets, see ``umie.scoring.groundings``
    part: int  # of the item: 1 for the tail of a relation, otherwise 0


class Overlap(NamedTuple):
    """The sum of the IoUs of matched places in a record, and the number of pairs that it is the mean of."""

    total: float = 0.0
    size: int = 0

    def with_that_of(self, other: Overlap) -> Overlap:
        """Return the sum of both."""
        return Overlap(self.total + other.total, self.size + other.size)


@dataclass(frozen=True)
class Diagnosis:
    """The verdicts on all groundings of a record, and the overlap of its places by medium."""

    predicted: Sequence[Verdict]
    annotated: Sequence[Verdict]
    as_sets: Mapping[Medium, Overlap]  # of the places of all items, whatever item they belong to, as in the paper
    tied: Mapping[Medium, Overlap]  # of the places of each item by itself

    @property
    def counts(self) -> Counter[str]:
        """The number of groundings with each verdict."""
        return Counter(one.verdict for one in (*self.predicted, *self.annotated))


def diagnose(kind: str, predicted: Record, gold: Record) -> Diagnosis:
    """Judge the groundings of one record.

    Predicted and annotated items with equal types and offsets are paired one to one; where several are equal, so that
    most of their places match. An overlap is the sum of the IoUs of places of the two sides, paired one to one so that
    it is largest, over the number of pairs if the smaller side is filled up with empty places.

    Args:
        kind: of the task: ``entities``, ``relations``, ``events`` or ``arguments``.
        predicted: the answers, with their own places.
        gold: the annotation.
    """
    mine, theirs = _items(kind, predicted), _distinct(_items(kind, gold))
    pairs = _paired(mine, theirs)
    paired = set(pairs.values())
    wrong: list[Verdict] = []
    missed: list[Verdict] = []
    tied: dict[Medium, Overlap] = {medium: Overlap() for medium in MEDIA}
    for number, item in enumerate(mine):
        own = theirs[pairs[number]] if number in pairs else None
        is_repeated = own is None and any(_repeats(item, mine[right]) for right in pairs)
        for part, medium, places in item.groups():
            wanted = [] if own is None else own.places(part, medium)
            tied[medium] = tied[medium].with_that_of(_overlap([place for _, place in places], wanted))
            matched = _matched([place for _, place in places], wanted)
            for row, (index, place) in enumerate(places):
                if row in matched:
                    verdict = RIGHT
                elif medium not in gold.media:
                    verdict = "absent medium"
                elif own is None:
                    verdict = "repetition" if is_repeated else "propagation"
                elif not wanted:
                    verdict = "over-grounding"
                elif any(same_place(place, one) for one in wanted):
                    verdict = "repetition"
                elif any(same_place(place, one) for other in theirs for one in other.all_places(medium)):
                    verdict = "wrong match"
                else:
                    verdict = "wrong place"
                wrong.append(Verdict(verdict, medium, index, item.key, part))
    found = {own: number for number, own in pairs.items()}
    for number, item in enumerate(theirs):
        for part, medium, places in item.groups():
            named = mine[found[number]].places(part, medium) if number in found else []
            if number not in paired or not named:
                tied[medium] = tied[medium].with_that_of(Overlap(0.0, len(places)))
            matched = _matched([place for _, place in places], named)
            for row, (index, _) in enumerate(places):
                missing = "miss-grounding" if number in found else "incomplete"
                missed.append(Verdict(FOUND if row in matched else missing, medium, index, item.key, part))
    as_sets = {
        medium: _overlap(*(_set(own.all_places(medium) for own in side) for side in (mine, theirs))) for medium in MEDIA
    }
    return Diagnosis(wrong, missed, as_sets, tied)


class GroundingLine(NamedTuple):
    """One line of the table of groundings."""

    name: str  # of a verdict or of an mIoU
    definition: str
    value: float  # the share of groundings with the verdict, or the mIoU
    interval: tuple[float, float]  # its 95% interval over resamples of the records
    total: float  # groundings with the verdict, or the sum of IoUs
    out_of: int  # predicted or annotated groundings, or pairs

    @property
    def number(self) -> str:
        """The total in tables: a number of groundings, or a sum of IoUs with one decimal."""
        return f"{self.total:.1f}".removesuffix(".0")


def grounding_lines(
    kind: str, predicted: Sequence[Record], gold: Sequence[Record], resamples: int, seed: int
) -> list[GroundingLine]:
    """Return the mIoU of each medium and the share of each verdict, over all records; empty without groundings.

    Of the mIoU of media without places there is no line.
    """
    import numpy as np

    from umie.scoring.resampling import bootstrap_sums, interval

    found = [diagnose(kind, *pair) for pair in zip(predicted, gold, strict=True)]
    rows: list[tuple[str, str, list[tuple[float, int]]]] = []
    for medium, name in MIOU.items():
        said = "the mean IoU of pairs of places of a record"
        rows.append((name, f"{said}, whatever item they belong to", [one.as_sets[medium] for one in found]))
        rows.append((f"{name}, by item", f"{said}, of the same item", [one.tied[medium] for one in found]))
    for verdicts, side in ((PREDICTED, "predicted"), (ANNOTATED, "annotated")):
        sizes = [len(getattr(one, side)) for one in found]
        for name, said in verdicts.items():
            counts = [sum(own.verdict == name for own in getattr(one, side)) for one in found]
            rows.append((name, f"{side} groundings: {said}", list(zip(counts, sizes, strict=True))))
    lines = []
    for name, said, pairs in rows:
        table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
        total, out_of = table.sum(axis=0).tolist()
        if out_of:
            sums = bootstrap_sums(table, resamples, seed)
            with np.errstate(invalid="ignore"):
                edges = interval(sums[:, 0] / sums[:, 1])  # NaN in a resample without groundings
            lines.append(GroundingLine(name, said, total / out_of, edges, total, int(out_of)))
    return lines


@dataclass(frozen=True)
class _Item:
    key: Key
    parts: Sequence[Mapping[Medium, Sequence[tuple[int, Place]]]]  # the distinct places, with their indices

    def groups(self) -> Iterable[tuple[int, Medium, Sequence[tuple[int, Place]]]]:
        """Yield the places of each part in each medium, if there are any."""
        for number, part in enumerate(self.parts):
            for medium, places in part.items():
                if places:
                    yield number, medium, places

    def places(self, part: int, medium: Medium) -> list[Place]:
        return [place for _, place in self.parts[part].get(medium, ())]

    def all_places(self, medium: Medium) -> list[Place]:
        return [place for number in range(len(self.parts)) for place in self.places(number, medium)]

    @property
    def identity(self) -> object:
        shown = {(part, extent(place)) for part, _, places in self.groups() for _, place in places}
        return self.key, frozenset(shown)


def _items(kind: str, record: Record) -> list[_Item]:
    return [
        _Item(key, [{medium: _places(record, part, medium) for medium in MEDIA} for part in parts])
        for key, parts in items_of(kind)(record)
    ]


def _places(record: Record, part: Places, medium: Medium) -> list[tuple[int, Place]]:
    """Return the distinct places that show a part of an item."""
    places = record.places(medium)
    return list({extent(places[index]): (index, places[index]) for index in reversed(part.of(medium))}.values())[::-1]


def _distinct(items: Iterable[_Item]) -> list[_Item]:
    return list({item.identity: item for item in items}.values())


def _set(places: Iterable[Sequence[Place]]) -> list[Place]:
    return list({extent(place): place for own in places for place in own}.values())


def _paired(mine: Sequence[_Item], theirs: Sequence[_Item]) -> dict[int, int]:
    """Pair items with equal keys, so that most of their places match; return the second indices by the first."""
    groups: dict[Key, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, items in enumerate((mine, theirs)):
        for number, item in enumerate(items):
            groups[item.key][side].append(number)
    pairs: dict[int, int] = {}
    for rows, columns in groups.values():
        if rows and columns:

            def agreement(row: int, column: int) -> float:
                one, other = mine[row], theirs[column]
                names = [(part, medium) for part in range(len(one.parts)) for medium in MEDIA]
                return float(sum(len(_matched(one.places(*name), other.places(*name))) for name in names))

            pairs |= _assigned(rows, columns, agreement)
    return pairs


def _matched(places: Sequence[Place], others: Sequence[Place]) -> dict[int, int]:
    """Return the largest one-to-one matching of places with IoU >= 0.5, by the index of the first."""
    fits = _assigned(
        range(len(places)), range(len(others)), lambda row, column: same_place(places[row], others[column])
    )
    return {row: column for row, column in fits.items() if same_place(places[row], others[column])}


def _overlap(places: Sequence[Place], others: Sequence[Place]) -> Overlap:
    def value(row: int, column: int) -> float:
        return place_iou(places[row], others[column])

    pairs = _assigned(range(len(places)), range(len(others)), value)
    return Overlap(sum(value(*pair) for pair in pairs.items()), max(len(places), len(others)))


def _assigned(rows: Sequence[int], columns: Sequence[int], value: Callable[[int, int], Any]) -> dict[int, int]:
    """Assign rows to columns, one to one, so that the sum of values is largest."""
    if not rows or not columns:
        return {}
    if len(rows) == len(columns) == 1:
        return {rows[0]: columns[0]}
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    values = np.array([[float(value(row, column)) for column in columns] for row in rows])
    return {
        rows[row]: columns[column] for row, column in zip(*linear_sum_assignment(values, maximize=True), strict=True)
    }


def _repeats(item: _Item, right: _Item) -> bool:
    """Return whether an item repeats one that is right: an equal one, or one of its type with its words or place."""
    if item.key == right.key:
        return True
    if item.key[0] != right.key[0]:
        return False
    values = list(zip(item.key[1:], right.key[1:], strict=True))
    spans = [pair for pair in values if None not in pair and isinstance(pair[0], tuple)]
    if spans and all(overlap(*pair) if pair in spans else pair[0] == pair[1] for pair in values):
        return True
    return any(
        same_place(place, other)
        for medium in MEDIA
        for place in item.all_places(medium)
        for other in right.all_places(medium)
    )
