"""MRE: multimodal relation extraction, with one query per pair of head and tail."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any, ClassVar

from umie.errors import UmieError
from umie.records import NO_RELATION, Places, Record, Relation, Span
from umie.records.places import NOWHERE
from umie.tasks import grammar, registry
from umie.tasks.base import FieldTask, Pair, Query, places_of, written

ENDS = ("head", "tail")


@registry.register("mre")
class MRE(FieldTask[Relation]):
    """The relation of the pair in the query; ``none`` is a label but never counts as a positive.

    If ``grounded``, also the places that show head and tail. An end without a span is named by its places.

    Source: UMIE, Table 2, with its two typos corrected. The paper prints variants only for MNER; I0 to I2 are analogous
    paraphrases.
    """

    name = "mre"
    default_labels = (
        "part of", "contain", "present in", "none", "held on", "member of", "peer", "place of residence",
        "locate at", "alternate names", "neighbor", "subsidiary", "awarded", "couple", "parent", "nationality",
        "place of birth", "charges", "siblings", "religion", "race",
    )  # fmt: skip
    kind = "relations"
    source = "mner"
    rank = 1
    label_noun = "relation"
    templates: ClassVar[Mapping[str, str]] = {
        "paper": "Please extract the following relation between {head} and {tail}: {labels}.",
        "I0": "Given the relations: {labels}. Please extract the relation between {head} and {tail}.",
        "I1": "Identify the relation between {head} and {tail} from the given sentence: {labels}.",
        "I2": "Please extract the relation between {head} and {tail} in the sentence. Option: {labels}.",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for end in self.field_labels:
            if end in self.labels:
                raise UmieError(f"the relation {end!r} has the name of an end, whose places are asked for: rename it")

    @property
    def field_labels(self) -> tuple[str, ...]:
        """``head`` and ``tail`` if ``grounded``: items with the places of each end."""
        return ENDS if self.config.grounded else ()

    def queries(self, record: Record) -> list[Query]:
        """Return one query per pair, in the order of the record; its answer lists the relations of the pair."""
        pairs: dict[Pair, list[Relation]] = {}
        for relation in record.relations:
            pairs.setdefault(_pair_of(relation), []).append(relation)
        queries = []
        for pair, relations in pairs.items():
            head, tail = _strings(pair, record)
            raw = [grammar.ParsedItem(name) for name in dict.fromkeys(relation.type for relation in relations)]
            if self.config.grounded:
                given = {"head": relations[0].head_places, "tail": relations[0].tail_places}
                raw += [
                    replace(written(end, record, span, places, self.style), filler=None, occurrence=1)
                    for end, span, places, asked in zip(given, pair[:2], given.values(), pair[2:], strict=True)
                    if places and not asked
                ]
            queries.append(self._query(raw, pair, (head, tail), head=head, tail=tail))
        return queries

    def answer_schema(self, record: Record, target: Any = None) -> grammar.AnswerSchema:
        """Return a schema of at least one relation, which may be ``none``, and of the places of head and tail."""
        ends = [end for end, span in zip(ENDS, (target or (None, None))[:2], strict=True) if span is not None]
        places = self.place_names(record) if self.config.grounded and ends else ()
        return grammar.AnswerSchema(
            labels=self.labels,
            bare=True,
            places=places,
            placed_labels=tuple(ends) if places else (),
            grounded=bool(places),
            pair=None if target is None else _strings(target, record),
            at_least_one=True,
        )

    def target_spans(self, target: Any) -> tuple[Span | None, ...]:
        """Return the head and the tail."""
        return () if target is None else tuple(target[:2])

    def target_places(self, target: Any) -> tuple[Places, ...]:
        """Return the places of a head and a tail without a span."""
        return () if target is None else tuple(target[2:])

    def needs_source(self, given: Record, asked: Collection[str]) -> bool:
        """Return False if pairs are given, or if entities are given and MNER is not asked."""
        return not given.relations and (self.source in asked or not given.entities)

    def with_subjects(
        self, found: Record, given: Record, *, from_source: bool, max_subjects: int | None = None
    ) -> tuple[Record, int]:
        """Return the record with the pairs to ask about, and their number; if there are too many, keep the closest."""
        if given.relations:
            pairs = list(dict.fromkeys(map(_pair_of, given.relations)))
            return replace(found, relations=tuple(Relation(NO_RELATION, *pair) for pair in pairs)), len(pairs)
        entities = (found if from_source else given).entities
        spans = sorted({entity.span for entity in entities if entity.span is not None})
        unwritten = sorted({entity.places for entity in entities if entity.span is None})
        number = len(spans) * (len(spans) - 1) + len(unwritten) * (len(unwritten) - 1)
        if max_subjects is None or number <= max_subjects:
            close = list(permutations(spans, 2))
        else:
            close = sorted(_closest(spans, max_subjects))
        pairs = [Pair(head, tail) for head, tail in close]
        pairs += [Pair(None, None, head, tail) for head, tail in permutations(unwritten, 2)]
        pairs = pairs[:max_subjects]
        return replace(found, relations=tuple(Relation(NO_RELATION, *pair) for pair in pairs)), number

    def _read(self, raw: grammar.ParsedItem, record: Record, target: Any) -> Relation | None:
        if raw.filler is not None or raw.places or target is None:
            return None
        return Relation(raw.label, *target)

    def _read_all(self, raw_items: Sequence[grammar.ParsedItem], record: Record, target: Any) -> list[Relation | None]:
        """Return the relation of each item; items of the places of an end give the first relation, with these."""
        read: list[Relation | None] = []
        ends: dict[str, Places] = {}
        for raw in raw_items:
            is_end = raw.label in self.field_labels and raw.filler is None and bool(raw.places)
            places = places_of(raw, record) if is_end else None
            if places is not None and target is not None and target[ENDS.index(raw.label)] is not None:
                ends[raw.label] = places.with_those_of(ends.get(raw.label, NOWHERE))
                read.append(None)
            else:
                read.append(self._read(raw, record, target))
        placed = [
            item
            and replace(
                item,
                head_places=ends.get("head", item.head_places),
                tail_places=ends.get("tail", item.tail_places),
            )
            for item in read
        ]
        first = next((item for item in placed if item is not None), None)
        return [
            first if item is None and raw.label in ends and raw.places else item
            for raw, item in zip(raw_items, placed, strict=True)
        ]


def _pair_of(relation: Relation) -> Pair:
    """Return what a query about a relation names: the span of each end, or its places if it has no span."""
    head_places, tail_places = (
        places if span is None else NOWHERE
        for span, places in ((relation.head, relation.head_places), (relation.tail, relation.tail_places))
    )
    return Pair(relation.head, relation.tail, head_places, tail_places)


def _strings(pair: Sequence[Any], record: Record) -> tuple[str, str]:
    """Return the strings of head and tail: the covered text, or the names of places."""
    head, tail, *places = pair
    written = [
        " ".join(shown.names) if span is None else record.surface(span)
        for span, shown in zip((head, tail), places, strict=True)
    ]
    return written[0], written[1]


def _closest(spans: Sequence[Span], number: int) -> list[tuple[Span, Span]]:
    """Return the ordered pairs of sorted spans with the fewest characters between them, without building all pairs."""
    found: list[tuple[int, tuple[Span, Span]]] = []  # with the gap, which is negative if the spans overlap
    largest = math.inf
    for place, first in enumerate(spans):
        for second in spans[place + 1 :]:
            if second[0] - first[1] > largest:
                break  # and so are all later ones
            gap = second[0] - min(first[1], second[1])
            found += [(gap, (first, second)), (gap, (second, first))]
        if len(found) > 4 * number:
            found = sorted(found)[:number]
            largest = found[-1][0]
    return [pair for _, pair in sorted(found)[:number]]
