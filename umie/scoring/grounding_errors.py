"""How grounding fails: a verdict on each place that an answer or the annotation names, and the mIoU of each medium.

A *grounding* is a place that shows one part of an item: an entity, a trigger, an argument, the head or the tail of a
relation. Source of the classes: Zhang et al., Recognizing Everything from All Modalities at Once: Grounded Multimodal
Universal Information Extraction (2024), which names them and does not define them; the definitions are those of
``PREDICTED`` and ``ANNOTATED``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from umie.records import MEDIA, Places, Record
from umie.records.overlap import IOU_THRESHOLD, ROUNDING, Place, extent, place_iou
from umie.records.places import Medium
from umie.scoring.boxes import overlap
from umie.scoring.counts import Key
from umie.scoring.groundings import items_of

RIGHT, FOUND = "right", "found"
PREDICTED: Mapping[str, str] = {
    RIGHT: "the item is right, and the place matches one of the item's at IoU >= 0.5, one to one",
    "repetition": "the item is wrong and repeats a right one, or another of its places matches the same place better",
    "wrong match": "the item is right, but the place is that of another annotated item, or of the other end",
    "wrong place": "the item is right, but the place is that of no annotated item",
    "over-grounding": "the item is right, but has no place in this medium",
    "absent medium": "the record does not have this medium",
    "propagation": "the item is wrong, and repeats no right one",
}
"""The verdicts on predicted groundings; each grounding has exactly one."""
ANNOTATED: Mapping[str, str] = {
    FOUND: "the item is found, and one of its predicted places matches this one at IoU >= 0.5, one to one",
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

    predicted: Sequence[Verdict] = ()
    annotated: Sequence[Verdict] = ()
    by_set: Mapping[Medium, Overlap] = field(default_factory=dict)  # of all places, whatever item they belong to
    by_item: Mapping[Medium, Overlap] = field(default_factory=dict)  # of the places of the same item

    @property
    def counts(self) -> Counter[str]:
        """The number of groundings with each verdict."""
        return Counter(one.verdict for one in (*self.predicted, *self.annotated))


def diagnose(kind: str, predicted: Record, gold: Record) -> Diagnosis:
    """Judge the groundings of one record.

    Predicted and annotated items with equal types and offsets are paired one to one; where several are equal, so that
    most of their places match. Equal places of an item count once. An overlap is the sum of the IoUs of places of the
    two sides, paired one to one so that it is largest, over the number of pairs if the smaller side is filled up with
    empty places.

    A wrong item repeats a right one if types (and events, of arguments) are equal, and so are the words or the places
    of each part, by overlap.

    Args:
        kind: of the task: ``entities``, ``relations``, ``events`` or ``arguments``.
        predicted: the answers, with their own places.
        gold: the annotation.
    """
    mine, theirs = _items(kind, predicted), _distinct(_items(kind, gold))
    if not any(item.has_places for item in (*mine, *theirs)):
        return Diagnosis()
    overlaps = _Overlaps()
    pairs = _paired(mine, theirs, overlaps)
    named = {medium: _set(own.all_places(medium) for own in mine) for medium in MEDIA}
    wanted_by_any = {medium: _set(own.all_places(medium) for own in theirs) for medium in MEDIA}
    absent = {medium for medium in MEDIA if medium not in gold.media and not gold.places(medium)}
    by_item: dict[Medium, Overlap] = {medium: Overlap() for medium in MEDIA}
    judged: list[Verdict] = []
    for number, item in enumerate(mine):
        if not item.has_places:
            continue
        own = theirs[pairs[number]] if number in pairs else None
        is_repeated = own is None and any(_repeats(item, mine[right], overlaps) for right in pairs)
        for part, medium, places in item.groups():
            wanted = [] if own is None else own.places(part, medium)
            shown = [place for _, place in places]
            by_item[medium] = by_item[medium].with_that_of(overlaps.of(shown, wanted))
            matched = overlaps.matched(shown, wanted)
            for row, (index, place) in enumerate(places):
                if row in matched:
                    verdict = RIGHT
                elif medium in absent:
                    verdict = "absent medium"
                elif own is None:
                    verdict = "repetition" if is_repeated else "propagation"
                elif not wanted:
                    verdict = "over-grounding"
                elif any(overlaps.same(place, one) for one in wanted):
                    verdict = "repetition"
                elif any(overlaps.same(place, one) for one in wanted_by_any[medium]):
                    verdict = "wrong match"
                else:
                    verdict = "wrong place"
                judged.append(Verdict(verdict, medium, index, item.key, part))
    found = {own: number for number, own in pairs.items()}
    missed: list[Verdict] = []
    for number, item in enumerate(theirs):
        for part, medium, places in item.groups():
            answered = mine[found[number]].places(part, medium) if number in found else []
            if not answered:
                by_item[medium] = by_item[medium].with_that_of(Overlap(0.0, len(places)))
            matched = overlaps.matched([place for _, place in places], answered)
            missing = "miss-grounding" if number in found else "incomplete"
            for row, (index, _) in enumerate(places):
                missed.append(Verdict(FOUND if row in matched else missing, medium, index, item.key, part))
    by_set = {medium: overlaps.of(named[medium], wanted_by_any[medium]) for medium in MEDIA}
    return Diagnosis(judged, missed, by_set, by_item)


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


@dataclass(frozen=True)
class Groundings:
    """The groundings of a task, in all records that are scored."""

    rows: Sequence[int]  # the records, by their indices among all
    found: Sequence[Diagnosis]  # one for each of them

    def lines(self, resamples: int, seed: int) -> list[GroundingLine]:
        """Return the mIoU of each medium with places, and the share of each verdict; empty without groundings."""
        import numpy as np

        from umie.scoring.resampling import bootstrap_sums, interval

        rows = self._rows()
        table = np.array([pairs for _, _, pairs in rows], dtype=np.float64).transpose(1, 0, 2)  # [records, rows, 2]
        sums = bootstrap_sums(table, resamples, seed)
        lines = []
        for row, (name, said, _) in enumerate(rows):
            total, out_of = table[:, row].sum(axis=0).tolist()
            if out_of:
                with np.errstate(invalid="ignore"):
                    edges = interval(sums[:, row, 0] / sums[:, row, 1])  # NaN in a resample without groundings
                lines.append(GroundingLine(name, said, total / out_of, edges, total, int(out_of)))
        return lines

    @property
    def totals(self) -> dict[str, tuple[float, int]]:
        """The total of each line, by its name, and what it is out of."""
        sums = {name: (sum(one for one, _ in pairs), sum(size for _, size in pairs)) for name, _, pairs in self._rows()}
        return {name: (round(total, 6), out_of) for name, (total, out_of) in sums.items() if out_of}

    def _rows(self) -> list[tuple[str, str, list[tuple[float, int]]]]:
        """Return the name and definition of each line, and the total of each record with what it is out of."""
        rows: list[tuple[str, str, list[tuple[float, int]]]] = []
        for medium, name in MIOU.items():
            said = "the mean IoU of pairs of places of a record"
            by_set = [one.by_set.get(medium, Overlap()) for one in self.found]
            rows.append((name, f"{said}, whatever item they belong to", [(one.total, one.size) for one in by_set]))
            by_item = [one.by_item.get(medium, Overlap()) for one in self.found]
            rows.append((f"{name}, by item", f"{said}, of the same item", [(one.total, one.size) for one in by_item]))
        for verdicts, side in ((PREDICTED, "predicted"), (ANNOTATED, "annotated")):
            counts = [Counter(own.verdict for own in getattr(one, side)) for one in self.found]
            for name, said in verdicts.items():
                rows.append((name, f"{side} groundings: {said}", [(own[name], own.total()) for own in counts]))
        return rows


class _Overlaps:
    """The IoUs of the places of one record, each computed once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], float] = {}  # by the identity of places, which the records keep

    def iou(self, place: Place, other: Place) -> float:
        key = (id(place), id(other))
        if key not in self._known:
            self._known[key] = place_iou(place, other)
        return self._known[key]

    def same(self, place: Place, other: Place) -> bool:
        return self.iou(place, other) >= IOU_THRESHOLD - ROUNDING

    def of(self, places: Sequence[Place], others: Sequence[Place]) -> Overlap:
        """Return the overlap of two sides."""
        pairs = self._assigned(places, others, self.iou)
        total = sum(self.iou(places[row], others[column]) for row, column in pairs.items())
        return Overlap(total, max(len(places), len(others)))

    def matched(self, places: Sequence[Place], others: Sequence[Place]) -> dict[int, int]:
        """Return the largest one-to-one matching of places with IoU >= 0.5; of several, the one that overlaps most."""

        def value(place: Place, other: Place) -> float:
            return 1 + self.iou(place, other) / 1000 if self.same(place, other) else 0.0

        pairs = self._assigned(places, others, value)
        return {row: column for row, column in pairs.items() if self.same(places[row], others[column])}

    @staticmethod
    def _assigned(
        places: Sequence[Place], others: Sequence[Place], value: Callable[[Place, Place], float]
    ) -> dict[int, int]:
        if len(places) == len(others) == 1:
            return {0: 0}
        return _best(len(places), len(others), lambda row, column: value(places[row], others[column]))


def _best(num_rows: int, num_columns: int, value: Callable[[int, int], float]) -> dict[int, int]:
    """Assign rows to columns, one to one, so that the sum of values is largest."""
    if not num_rows or not num_columns:
        return {}
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    values = np.array([[value(row, column) for column in range(num_columns)] for row in range(num_rows)])
    rows, columns = linear_sum_assignment(values, maximize=True)
    return dict(zip(rows.tolist(), columns.tolist(), strict=True))


@dataclass(frozen=True)
class _Item:
    key: Key
    parts: Sequence[Mapping[Medium, Sequence[tuple[int, Place]]]]  # the distinct places, with their indices

    @property
    def has_places(self) -> bool:
        return any(places for part in self.parts for places in part.values())

    def groups(self) -> Iterator[tuple[int, Medium, Sequence[tuple[int, Place]]]]:
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
    """Return the items with their places; a query names the places of an end without a span, so these do not count."""
    return [
        _Item(
            key,
            [
                {medium: _places(record, part, medium) for medium in MEDIA if part.of(medium) and not is_named}
                for part, is_named in zip(parts, _named_by_query(kind, key), strict=True)
            ],
        )
        for key, parts in items_of(kind)(record)
    ]


def _named_by_query(kind: str, key: Key) -> Sequence[bool]:
    """Return for each part of an item whether the query names its places: those of the ends of a pair without spans."""
    return [key[1] is None, key[2] is None] if kind == "relations" else [False]


def _places(record: Record, part: Places, medium: Medium) -> list[tuple[int, Place]]:
    """Return the distinct places that show a part of an item."""
    places = record.places(medium)
    return list({extent(places[index]): (index, places[index]) for index in reversed(part.of(medium))}.values())[::-1]


def _distinct(items: Iterable[_Item]) -> list[_Item]:
    return list({item.identity: item for item in items}.values())


def _set(places: Iterable[Sequence[Place]]) -> list[Place]:
    return list({extent(place): place for own in places for place in own}.values())


def _paired(mine: Sequence[_Item], theirs: Sequence[_Item], overlaps: _Overlaps) -> dict[int, int]:
    """Pair items with equal keys, so that most of their places match; return the second indices by the first."""
    groups: dict[Key, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, items in enumerate((mine, theirs)):
        for number, item in enumerate(items):
            groups[item.key][side].append(number)
    pairs: dict[int, int] = {}
    for rows, columns in groups.values():

        def agreement(row: int, column: int, rows: Sequence[int] = rows, columns: Sequence[int] = columns) -> float:
            other = theirs[columns[column]]
            return sum(
                any(overlaps.same(place, one) for one in other.places(part, medium))
                for part, medium, places in mine[rows[row]].groups()
                for _, place in places
            )

        single = len(rows) == len(columns) == 1
        found = {0: 0} if single else _best(len(rows), len(columns), agreement)
        pairs |= {rows[row]: columns[column] for row, column in found.items()}
    return pairs


def _repeats(item: _Item, right: _Item, overlaps: _Overlaps) -> bool:
    """Return whether an item repeats one that is right; see ``diagnose``."""
    num_parts = len(item.parts)
    fields = zip(item.key[num_parts + 1 :], right.key[num_parts + 1 :], strict=True)  # of arguments, the event
    if item.key[0] != right.key[0] or not all(one == other or _share(one, other) for one, other in fields):
        return False
    return all(
        _share(item.key[part + 1], right.key[part + 1])
        or any(
            overlaps.same(place, other)
            for medium in MEDIA
            for place in item.places(part, medium)
            for other in right.places(part, medium)
        )
        for part in range(num_parts)
    )


def _share(one: object, other: object) -> bool:
    """Return whether two values are spans that share a character."""
    return isinstance(one, tuple) and isinstance(other, tuple) and overlap(one, other)
