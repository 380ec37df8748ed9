"""MRE: multimodal relation extraction, with one query per pair of head and tail."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any, ClassVar

from umie.records import NO_RELATION, Record, Relation, Span
from umie.tasks import grammar, registry
from umie.tasks.base import FieldTask, Pair, Query


@registry.register("mre")
class MRE(FieldTask[Relation]):
    """The relation of the pair in the query; ``none`` is a label but never counts as a positive.

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

    def queries(self, record: Record) -> list[Query]:
        """Return one query per pair, in the order of the record; its answer lists the relations of the pair."""
        pairs: dict[Pair, list[str]] = {}
        for relation in record.relations:
            types = pairs.setdefault(Pair(relation.head, relation.tail), [])
            if relation.type not in types:
                types.append(relation.type)
        queries = []
        for pair, types in pairs.items():
            head, tail = record.surface(pair.head), record.surface(pair.tail)
            raw = (grammar.ParsedItem(name) for name in types)
            queries.append(self._query(raw, pair, (head, tail), head=head, tail=tail))
        return queries

    def answer_schema(self, record: Record, target: Any = None) -> grammar.AnswerSchema:
        """Return a schema of at least one relation, which may be ``none``."""
        pair = None if target is None else (record.text[slice(*target[0])], record.text[slice(*target[1])])
        return grammar.AnswerSchema(labels=self.labels, bare=True, pair=pair, at_least_one=True)

    def target_spans(self, target: Any) -> tuple[Span, ...]:
        """Return the head and the tail."""
        return () if target is None else tuple(target)

    def needs_source(self, given: Record, asked: Collection[str]) -> bool:
        """Return False if pairs are given, or if entities are given and MNER is not asked."""
        return not given.relations and (self.source in asked or not given.entities)

    def with_subjects(
        self, found: Record, given: Record, *, from_source: bool, max_subjects: int | None = None
    ) -> tuple[Record, int]:
        """Return the record with the pairs to ask about, and their number; if there are too many, keep the closest."""
        if given.relations:
            pairs = list(dict.fromkeys((item.head, item.tail) for item in given.relations))
            number = len(pairs)
        else:
            spans = sorted({entity.span for entity in (found if from_source else given).entities})
            number = len(spans) * (len(spans) - 1)
            if max_subjects is None or number <= max_subjects:
                pairs = list(permutations(spans, 2))
            else:
                pairs = sorted(_closest(spans, max_subjects))
        return replace(found, relations=tuple(Relation(NO_RELATION, head, tail) for head, tail in pairs)), number

    def _read(self, raw: grammar.ParsedItem, record: Record, target: Any) -> Relation | None:
        if raw.filler is not None or raw.places or target is None:
            return None
        return Relation(raw.label, *target)


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
