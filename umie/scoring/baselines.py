"""Baselines without a model, reported with every score."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from umie.records import (
    MEDIA,
    NO_RELATION,
    Argument,
    Entity,
    Event,
    Places,
    Record,
    Region,
    Relation,
    Segment,
    Span,
    Track,
    is_no_relation,
)
from umie.records.model import with_places
from umie.records.places import NOWHERE, PLACES
from umie.scoring import groundings
from umie.scoring.measures import measures_of
from umie.scoring.strict import strict_sheet
from umie.tasks import registry

_WORD = re.compile(r"\S+")
_Mentions = Mapping[tuple[str, ...], str]


@dataclass(frozen=True)
class Baseline:
    """A predictor without a model."""

    name: str  # a description, including the data that it learned from
    answer: Callable[[Record], Record]  # returns a record with the predictions as its annotation


def baseline_of(task: str, measure: str, gold: Sequence[Record], train: Sequence[Record] | None) -> Baseline:
    """Return the baseline of a task.

    It depends on the kind of the task:

    - entities: the mentions of the training records wherever their words occur, each with its most frequent type; a
      record without a text gets the most frequent type of an entity without a span. Nothing without training records.
    - relations: the most frequent relation for every pair of gold; ``none`` only in the measure that includes it.
    - events: the triggers of the training records wherever their words occur, each with its most frequent type; a
      record without a text gets the most frequent type. Without training records, every record gets the most frequent
      type without a trigger.
    - arguments: for the events of gold (an advantage over real systems), the argument words of the training records for
      the event's type, each with its most frequent role; every region, track and segment of gold gets the most frequent
      role of its medium.
    - other kinds: nothing.

    In ``pointing``, which is about mentions that are found, the mentions are those of gold; if regions have labels, as
    those of a detector do, the one whose label ends with the last word of the mention shows it, if there is one.

    In measures of grounding, and where there is no span, the largest region, the longest track and the longest segment
    show each item; an end of a relation without a span has the places that the query names.

    The most frequent label is taken from ``gold`` if there are no training records.
    """
    source = "gold" if train is None else "train"
    learned = gold if train is None else [record for record in train if record.annotated_for(task)]
    builders = {"entities": _entities, "relations": _relations, "events": _events, "arguments": _arguments}
    if measure == "pointing":
        return _pointing(gold)
    built = registry.build(task)
    if built.kind not in builders:
        return Baseline("nothing", lambda record: built.with_items(record, ()))
    return builders[built.kind](learned, source, measure)


def baseline_score(
    task: str, gold: Sequence[Record], train: Sequence[Record] | None, measure: str | None = None
) -> tuple[str, float]:
    """Return the name of a task's baseline, and its micro-F1 on the records annotated for the task.

    ``measure`` is the measure; None for the main one.
    """
    gold = [record for record in gold if record.annotated_for(task)]
    baseline = baseline_of(task, measure or measures_of(task)[0].name, gold, train)
    return baseline.name, strict_sheet(task, list(map(baseline.answer, gold)), gold, measure).score().f1


def most_frequent(values: Iterable[str]) -> str | None:
    """Return the most frequent value, the alphabetically first in a tie; None without values."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value)) if counts else None


def memorized(mentions: Iterable[tuple[str, str]]) -> dict[tuple[str, ...], str]:
    """Return the most frequent label of each mention, by its words."""
    labels: dict[tuple[str, ...], list[str]] = {}
    for text, label in mentions:
        labels.setdefault(tuple(text.split()), []).append(label)
    return {words: most_frequent(found) or "" for words, found in labels.items()}


def find_mentions(text: str, known: _Mentions) -> Iterator[tuple[str, Span]]:
    """Yield label and span of known mentions in a text, without overlaps; at each word the longest match wins."""
    words = [(match.group(), match.span()) for match in _WORD.finditer(text)]
    longest = max(map(len, known), default=0)
    start = 0
    while start < len(words):
        for size in range(min(longest, len(words) - start), 0, -1):
            label = known.get(tuple(word for word, _ in words[start : start + size]))
            if label is not None:
                yield label, (words[start][1][0], words[start + size - 1][1][1])
                start += size
                break
        else:
            start += 1


def _entities(learned: Sequence[Record], source: str, measure: str) -> Baseline:
    if source == "gold":
        return Baseline("nothing", lambda record: replace(record, entities=()))
    entities = [entity for record in learned for entity in record.entities]
    known = memorized((entity.text, entity.type) for entity in entities if entity.span)
    unwritten = most_frequent(entity.type for entity in entities if entity.span is None)

    def answer(record: Record) -> Record:
        largest = _largest(record)
        shown = largest if measure in groundings.NAMES else NOWHERE
        found = [Entity(kind, span, "", *shown) for kind, span in find_mentions(record.text, known)]
        if unwritten is not None and largest and not record.text.strip():
            found.append(Entity(unwritten, None, "", *largest))
        return replace(record, entities=tuple(found))

    without = "" if unwritten is None else f"; without a text {unwritten!r}"
    return Baseline(f"mentions of train{without}{_where(learned, measure)}", answer)


def _pointing(gold: Sequence[Record]) -> Baseline:
    def answer(record: Record) -> Record:
        found = []
        for entity in record.entities:
            words = entity.text.lower().split()
            named = [index for index, region in enumerate(record.regions) if words and _noun(region) == words[-1]]
            shown = Places(regions=(named[0],)) if named else _largest(record)
            found.append(with_places(entity, shown))
        return replace(record, entities=tuple(found))

    labeled = any(_noun(region) for record in gold for region in record.regions)
    named = ", or in the one labeled like its last word" if labeled else ""
    chances = [
        1 / len(record.places(medium))
        for record in gold
        for entity in record.entities
        for medium in MEDIA
        if len(entity.places.of(medium)) == 1 and not entity.places.without(medium)
    ]
    chance = f"; at random {sum(chances) / len(chances):.3f}" if chances else ""
    return Baseline(f"gold mentions{_where(gold, 'pointing')}{named}{chance}", answer)


def _noun(region: Region) -> str:
    """Return the last word of a region's label."""
    return (region.label or "").lower().rpartition(" ")[2]


def _largest(record: Record) -> Places:
    """Return the largest region, the longest track and the longest segment."""

    def size(place: Region | Segment | Track) -> float:
        if isinstance(place, Region):
            x1, y1, x2, y2 = place.box
            return (x2 - x1) * (y2 - y1)
        return place.interval[1] - place.interval[0]

    largest = []
    for medium in MEDIA:
        places = record.places(medium)
        largest.append((max(range(len(places)), key=lambda index: size(places[index])),) if places else ())
    return Places(*largest)


def _where(learned: Sequence[Record], measure: str) -> str:
    """Return, for the names of baselines, where items are in a measure of grounding."""
    if measure not in groundings.NAMES:
        return ""
    sizes = {"image": "largest region", "video": "longest track", "audio": "longest segment"}
    named = [sizes[medium] for medium in MEDIA if any(record.places(medium) for record in learned)]
    return f", in the {' and '.join(named or [sizes['image']])}"


def _relations(learned: Sequence[Record], source: str, measure: str) -> Baseline:
    types = [NO_RELATION for record in learned for item in record.relations if is_no_relation(item.type)]
    if measure != "with none":
        types = []
    types += [item.type for record in learned for item in record.relations if not is_no_relation(item.type)]
    name = most_frequent(types)
    if name is None:
        return Baseline("nothing", lambda record: replace(record, relations=()))

    def answer(record: Record) -> Record:
        shown = _largest(record) if measure in groundings.NAMES else NOWHERE
        pairs = dict.fromkeys(
            Relation(
                name,
                item.head,
                item.tail,
                item.head_places if item.head is None else shown,
                item.tail_places if item.tail is None else shown,
            )
            for item in record.relations
        )
        return replace(record, relations=tuple(pairs))

    return Baseline(f"always {name!r}, most frequent in {source}{_where(learned, measure)}", answer)


def _events(learned: Sequence[Record], source: str, measure: str) -> Baseline:
    name = most_frequent(event.type for record in learned for event in record.events)
    if name is None:
        return Baseline("nothing", lambda record: replace(record, events=()))
    known = memorized(
        (record.surface(event.trigger), event.type)
        for record in learned
        for event in record.events
        if source == "train" and event.trigger is not None
    )

    def answer(record: Record) -> Record:
        shown = _largest(record) if measure in groundings.NAMES else NOWHERE
        bare = source == "gold" or not record.text.strip()
        found = [(name, None)] if bare else find_mentions(record.text, known)
        return replace(record, events=tuple(Event(kind, span, (), *shown) for kind, span in found))

    always = f"always {name!r} without trigger, most frequent in {source}"
    title = always if source == "gold" else f"triggers of train; without a text {name!r}"
    return Baseline(f"{title}{_where(learned, measure)}", answer)


def _arguments(learned: Sequence[Record], source: str, measure: str) -> Baseline:
    arguments = [argument for record in learned for event in record.events for argument in event.arguments]
    unwritten = [argument for argument in arguments if argument.span is None]
    roles = {
        medium: most_frequent(argument.role for argument in unwritten if argument.places.of(medium)) for medium in MEDIA
    }
    mentions: dict[str, list[tuple[str, str]]] = {}
    for record in learned if source == "train" else ():
        for event in record.events:
            mentions.setdefault(event.type, []).extend(
                (record.surface(argument.span), argument.role)
                for argument in event.arguments
                if argument.span is not None
            )
    known = {name: memorized(found) for name, found in mentions.items()}

    def answer(record: Record) -> Record:
        shown = _largest(record) if measure in groundings.NAMES else NOWHERE
        placed = [
            Argument(role, None, *NOWHERE._replace(**{PLACES[medium]: (index,)}))
            for medium, role in roles.items()
            if role is not None
            for index in range(len(record.places(medium)))
        ]
        events = []
        for event in record.events:
            found = find_mentions(record.text, known.get(event.type, {}))
            spans = (Argument(role, span, *shown) for role, span in found)
            events.append(replace(event, arguments=(*spans, *placed)))
        return replace(record, events=tuple(events))

    parts = ["arguments of train"] if source == "train" else []
    parts += [
        f"every {PLACES[medium][:-1]} {role!r}, most frequent in {source}" for medium, role in roles.items() if role
    ]
    where = _where(learned, measure) if source == "train" else ""
    return Baseline(f"gold events; {'; '.join(parts or ['nothing'])}{where}", answer)
