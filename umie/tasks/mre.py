"""MRE: multimodal relation extraction; one query for each head-tail pair."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from umie.records import NO_RELATION, Record, Relation
from umie.tasks import grammar, registry
from umie.tasks.base import Pair, Query, Task


@registry.register("mre")
class MRE(Task[Relation]):
    """The relation of a pair, which the query names; ``none`` is asked about and never a positive.

    Source: UMIE, Table 2, with its two typos mended. The paper prints variants for MNER only; I0 to I2 are
    the same rewordings, applied here.
    """

    name = "mre"
    default_labels = (
        "part of", "contain", "present in", "none", "held on", "member of", "peer", "place of residence",
        "locate at", "alternate names", "neighbor", "subsidiary", "awarded", "couple", "parent", "nationality",
        "place of birth", "charges", "siblings", "religion", "race",
    )  # fmt: skip
    label_noun = "relation"
    templates: ClassVar[Mapping[str, str]] = {
        "paper": "Please extract the following relation between {head} and {tail}: {labels}.",
        "I0": "Given the relations: {labels}. Please extract the relation between {head} and {tail}.",
        "I1": "Identify the relation between {head} and {tail} from the given sentence: {labels}.",
        "I2": "Please extract the relation between {head} and {tail} in the sentence. Option: {labels}.",
    }

    def queries(self, record: Record) -> list[Query]:
        """Return one query for each pair, in the order of the record; its target lists the pair's relations."""
        pairs: dict[Pair, list[str]] = {}
        for relation in record.relations:
            types = pairs.setdefault(Pair(relation.head, relation.tail), [])
            if relation.type not in types:
                types.append(relation.type)
        return [
            Query(
                self._instruct(head=record.surface(pair.head), tail=record.surface(pair.tail)),
                self.style.linearise(
                    (grammar.RawItem(name) for name in types),
                    (record.surface(pair.head), record.surface(pair.tail)),
                ),
                pair,
                self.style.markers,
            )
            for pair, types in pairs.items()
        ]

    def forms(self, text: str, focus: Any = None, num_regions: int = 0) -> grammar.Forms:
        """Return relations alone, at least one; ``none`` is one of them."""
        pair = None if focus is None else (text[slice(*focus[0])], text[slice(*focus[1])])
        return grammar.Forms(labels=self.labels, bare=True, pair=pair, at_least_one=True)

    def items(self, record: Record) -> list[Relation]:
        """Return the record's relations, unrelated pairs among them."""
        return list(record.relations)

    def keys(self, item: Relation) -> Iterator[Hashable]:
        """Yield type, head and tail; nothing for ``none``."""
        if item.type.lower() != NO_RELATION:
            yield (item.type, item.head, item.tail)

    def with_items(self, record: Record, items: Iterable[Relation]) -> Record:
        """Return the record with these relations."""
        return replace(record, relations=tuple(items))

    def used_labels(self, record: Record) -> Iterator[str]:
        """Yield the relation types."""
        return (relation.type for relation in record.relations)

    def _read(self, raw: grammar.RawItem, text: str, focus: Any, num_regions: int) -> Relation | None:
        if raw.filler is not None or focus is None:
            return None
        return Relation(raw.label, *focus)
