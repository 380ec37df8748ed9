"""Matches: whether a place shows what a phrase says; for decoders that are to point at places."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

from umie.errors import UmieError
from umie.records import MEDIA, Medium, Record
from umie.records.places import PLACES, place_name
from umie.tasks import grammar, registry
from umie.tasks.base import Query, Task
from umie.tasks.calls import phrase_of

YES, NO = "yes", "no"
OR = "|"  # between two labels of a place; no phrase contains it


class Shown(NamedTuple):
    """A place, by its medium and its number from 0, and a phrase that says what it shows."""

    medium: Medium
    number: int
    phrase: str
    is_shown: bool = True


@registry.register("match")
class Match(Task[Shown]):
    """Whether places show phrases: each labeled place is asked about with its label, and with that of another one.

    The items of a record are its labeled places, of an answer also what is not shown; a place that two phrases are
    said to show has both as its label, ``dog | left man``. The text is not in the input. In
    REAMO's third stage of tuning, a phrase and the features of its region, track or segment are to be matched (2024,
    Section 4).
    """

    name = "match"
    is_auxiliary = True
    default_labels = (YES, NO)
    rank = 5
    label_noun = "answer"
    templates: ClassVar[Mapping[str, str]] = {
        "paper": "Does {place} show {phrase}? Options: {labels}.",
        "I0": "Given the options: {labels}. Does {place} show {phrase}?",
        "I1": "Answer the following, {labels}: {place} shows {phrase}.",
        "I2": "Please say whether {place} shows {phrase}. Option: {labels}.",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if set(self.labels) != {YES, NO}:
            raise UmieError(f"the labels of match are {', '.join(self.labels)}: use {YES} and {NO}")
        if self.config.grounded:
            raise UmieError("a match is about a place that the query names: leave grounded out")

    @property
    def names_places(self) -> bool:
        """Whether places have names that matter; those in the query do."""
        return True

    def queries(self, record: Record) -> list[Query]:
        """Return two queries for each labeled place, or one if no other place of the medium has another label."""
        queries = []
        items = self.items(record)
        for medium, number, phrase, _ in items:
            others = [one.phrase for one in items if one.medium == medium and one.phrase != phrase]
            asked = {phrase: YES}
            if others:
                asked[others[number % len(others)]] = NO
            for wanted, answer in asked.items():
                queries.append(
                    replace(
                        self._query(
                            [grammar.ParsedItem(answer)],
                            Shown(medium, number, wanted),
                            place=place_name(medium, number),
                            phrase=wanted,
                        ),
                        hides_text=True,
                    )
                )
        return queries

    def answer_schema(self, record: Record, target: Any = None) -> grammar.AnswerSchema:
        """Return a schema of one of the two answers."""
        return grammar.AnswerSchema(labels=self.labels, bare=True, at_least_one=True)

    def items(self, record: Record) -> list[Shown]:
        """Return the labeled places of the media that the record has."""
        found = []
        for medium in record.media:
            own: tuple[Any, ...] = record.places(medium)
            for number, place in enumerate(own):
                phrases = map(phrase_of, (place.label or "").split(OR))
                found += [Shown(medium, number, phrase) for phrase in phrases if phrase]
        return found

    def with_items(self, record: Record, items: Iterable[Shown]) -> Record:
        """Return the record with these labels of places as the only ones, and without other annotation."""
        labels: dict[tuple[Medium, int], str] = {}
        for medium, number, phrase, is_shown in items:
            if is_shown:
                before = labels.get((medium, number))
                labels[medium, number] = f"{before} {OR} {phrase}" if before else phrase
        places: dict[str, Any] = {}
        for medium in MEDIA:
            own: tuple[Any, ...] = record.places(medium)
            places[PLACES[medium]] = tuple(
                replace(place, label=labels.get((medium, number))) for number, place in enumerate(own)
            )
        return replace(record, **places, gold=None)

    def label_of(self, item: Shown) -> str:
        """Return the answer."""
        return YES if item.is_shown else NO

    def used_labels(self, record: Record) -> Iterator[str]:
        """Yield both answers where there is something to ask."""
        return (query.items[0].label for query in self.queries(record))

    def is_annotated(self, record: Record) -> bool:
        """Return False: labels of places are an annotation for matches only where a record lists the task."""
        return False

    def _read(self, raw: grammar.ParsedItem, record: Record, target: Any) -> Shown | None:
        if target is None or raw.filler is not None or raw.places or raw.label not in self.labels:
            return None
        return Shown(target.medium, target.number, target.phrase, raw.label == YES)
