"""Carry out the calls of answers: grounders look for their phrases, and the answers are read with what they find."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from umie.errors import UmieError, at, check_choice, check_kind
from umie.grounders import registry
from umie.grounders.base import Grounder
from umie.records import MEDIA, Medium, Record
from umie.records.model import with_places
from umie.records.overlap import extent
from umie.records.places import NOWHERE, PLACES
from umie.tasks import Items, Task
from umie.tasks.calls import calls_in

OnUnreadable = Callable[[Record, Medium, int, UmieError], None]  # with the number of the image


def build_grounders(given: Mapping[str, Any]) -> dict[Medium, Grounder]:
    """Return the grounder of each medium, from its name, from a mapping with name and options, or as it is.

    Weights are loaded when something is looked for first.

    Raises:
        UmieError: a medium or a name is unknown, options are wrong, or a grounder is for another medium.
    """
    check_kind("grounders", given, Mapping, "use a grounder for each medium, such as {'image': 'grounding'}")
    built: dict[Medium, Grounder] = {}
    for name, part in given.items():
        with at("grounders"):
            check_choice("medium", name, MEDIA)
            medium: Medium = MEDIA[MEDIA.index(name)]
            found = part if isinstance(part, Grounder) else _constructed(medium, part)
            if found.medium != medium:
                raise UmieError(f"{registry.name_of(type(found))} looks into {found.medium}: set it for {found.medium}")
            built[medium] = found
    return built


def _constructed(medium: Medium, part: Any) -> Grounder:
    check_kind(f"that of the {medium}", part, str | Mapping, "use a name, or name and options")
    options = {"name": part} if isinstance(part, str) else dict(part)
    if "name" not in options:
        raise UmieError(f"that of the {medium} has no name: use one of {', '.join(registry.names())}")
    return registry.construct(options.pop("name"), options)


def carry_out(
    grounders: Mapping[Medium, Grounder],
    task: Task[Any],
    records: Sequence[Record],
    answers: Sequence[Items[Any]],
    outputs: Sequence[str],
    *,
    on_unreadable: OnUnreadable,
    hidden: Collection[Medium] = (),
) -> tuple[list[Record], list[Items[Any]]]:
    """Return the records with the places that the calls of answers found, and the items of each answer.

    What is found follows a record's own places, with the phrase as its label. Each medium of a record is looked into
    once, for all phrases. In a medium without a grounder, nothing is found; without any grounder at all, calls find
    the record's own places with that label.

    Args:
        grounders: the grounder of each medium.
        task: the task, whose style has calls.
        records: the records.
        answers: the items of the answers to ``task.queries`` of each record, in order, as they were read before.
        outputs: their written form.
        on_unreadable: called with the record and the error for each medium that cannot be read.
        hidden: media in which nothing is looked for or found.
    """
    found_records, found_items, start = [], [], 0
    for record in records:
        queries = task.queries(record)
        end = start + len(queries)
        own = list(zip(queries, outputs[start:end], answers[start:end], strict=True))
        start = end
        parsed = (task.style.parse(output, task.answer_schema(record, query.target))[0] for query, output, _ in own)
        calls = dict.fromkeys(call for items in parsed for item in items for call in calls_in(item.places))
        found, seen = record, record  # with what was found; and with labels only where a call of these answers leads
        for medium in dict.fromkeys(call.medium for call in calls):
            if not grounders and medium not in hidden:
                continue
            places: dict[str, list[Any]] = {}
            if medium in grounders and medium not in hidden:
                phrases = [call.phrase for call in calls if call.medium == medium]
                places, errors = grounders[medium].look(record, phrases)
                for number, error in errors.items():
                    on_unreadable(record, medium, number, error)
            found, seen = _with_found(found, seen, medium, places)
        found_records.append(found)
        found_items += [task.parse(output, seen, query.target, before.scored) for query, output, before in own]
    return found_records, found_items


def without_found(record: Record, given: Record) -> Record:
    """Return a record with the places of the one that was given, and with events that do not refer to found ones.

    A task that asks about its events then has the input that it was trained on.
    """
    own: dict[str, Any] = {PLACES[medium]: given.places(medium) for medium in MEDIA}
    if all(record.places(medium) == given.places(medium) for medium in MEDIA):
        return record
    return replace(record, **own, events=tuple(with_places(event, NOWHERE) for event in record.events))


def _with_found(
    found: Record, seen: Record, medium: Medium, places: Mapping[str, Sequence[Any]]
) -> tuple[Record, Record]:
    """Return both records with places by phrase; in the second one, no other place of the medium has a label.

    A place that the same phrase found before, for another task, is not added again.
    """
    own: list[Any] = list(found.places(medium))
    labels: list[str | None] = [None] * len(own)
    known = {(place.label, extent(place)): index for index, place in reversed(list(enumerate(own)))}
    for phrase, some in places.items():
        for place in (replace(one, label=phrase) for one in some):
            index = known.setdefault((phrase, extent(place)), len(own))
            if index == len(own):
                own.append(place)
                labels.append(None)
            labels[index] = phrase
    bare = tuple(replace(place, label=label) for place, label in zip(own, labels, strict=True))
    changes: tuple[dict[str, Any], dict[str, Any]] = {PLACES[medium]: tuple(own)}, {PLACES[medium]: bare}
    return replace(found, **changes[0]), replace(seen, **changes[1])
