"""Carry out the calls of answers: grounders look for their phrases, and the answers are read with what they find."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from umie.errors import UmieError, at, check_choice, check_kind
from umie.grounders import registry
from umie.grounders.base import Grounder
from umie.records import MEDIA, Medium, Record
from umie.records.model import with_places
from umie.records.places import NOWHERE, PLACES
from umie.tasks import Items, Task
from umie.tasks.calls import calls_in, unlabeled


def build_grounders(given: Mapping[str, Any]) -> dict[Medium, Grounder]:
    """Return the grounder of each medium, from its name, from a mapping with name and options, or as it is.

    Raises:
        UmieError: a medium or a name is unknown, options are wrong, or a grounder is for another medium.
    """
    check_kind("grounders", given, Mapping, "use a grounder for each medium, such as {'image': 'grounding'}")
    built: dict[Medium, Grounder] = {}
    for name, part in given.items():
        with at("grounders"):
            check_choice("medium", name, MEDIA)
            medium: Medium = MEDIA[MEDIA.index(name)]
            check_kind(f"that of the {medium}", part, str | Mapping | Grounder, "use a name, or name and options")
            if isinstance(part, Mapping) and "name" not in part:
                raise UmieError(f"that of the {medium} has no name: use one of {', '.join(registry.names())}")
            options = {"name": part} if isinstance(part, str) else part
            found = registry.build(**options) if isinstance(options, Mapping) else options
            if found.medium != medium:
                raise UmieError(f"{registry.name_of(type(found))} looks into {found.medium}: set it for {found.medium}")
            built[medium] = found
    return built


def carry_out(
    grounders: Mapping[Medium, Grounder],
    task: Task[Any],
    records: Sequence[Record],
    answers: Sequence[Items[Any]],
    outputs: Sequence[str],
    *,
    hidden: Collection[Medium] = (),
    skips_unreadable: bool = False,
) -> tuple[list[Record], list[Items[Any]]]:
    """Return the records with the places that the calls of answers found, and the items of each answer.

    What is found follows a record's own places, with the phrase as its label. Each medium of a record is looked into
    once, for all phrases. In a medium without a grounder, calls find the record's own places with that label.

    Args:
        grounders: the grounder of each medium.
        task: the task, whose style has calls.
        records: the records.
        answers: the items of the answers to ``task.queries`` of each record, in order, as they were read before.
        outputs: their written form.
        hidden: media in which nothing is looked for or found.
        skips_unreadable: find nothing in a medium that cannot be read, instead of raising.

    Raises:
        UmieError: a medium cannot be read.
    """
    found_records, found_items, start = [], [], 0
    for record in records:
        queries = task.queries(record)
        end = start + len(queries)
        own = list(zip(queries, outputs[start:end], answers[start:end], strict=True))
        start = end
        parsed = (task.style.parse(output, task.answer_schema(record, query.target))[0] for query, output, _ in own)
        calls = dict.fromkeys(call for items in parsed for item in items for call in calls_in(item.places))
        found = record
        finding = {medium: one for medium, one in grounders.items() if one.finds()}
        for medium in dict.fromkeys(call.medium for call in calls):
            if medium not in hidden and medium not in finding:
                continue
            found = unlabeled(found, medium)
            if medium in hidden:
                continue
            phrases = [call.phrase for call in calls if call.medium == medium]
            try:
                found = _with_found(found, record, finding[medium], phrases)
            except UmieError:
                if not skips_unreadable:
                    raise
        items = [task.parse(output, found, query.target, before.scored) for query, output, before in own]
        for medium in found.media:
            if medium in grounders and grounders[medium].refines() and medium not in hidden:
                answered = task.with_items(found, [item for one in items for item in one])
                try:
                    sharper: dict[str, Any] = {PLACES[medium]: grounders[medium].refined(answered).places(medium)}
                    found = replace(found, **sharper)
                except UmieError:
                    if not skips_unreadable:
                        raise
        found_records.append(found)
        found_items += items
    return found_records, found_items


def without_found(record: Record, given: Record) -> Record:
    """Return a record with the places of the one that was given, and with events that do not refer to found ones.

    A task that asks about its events then has the input that it was trained on.
    """
    own: dict[str, Any] = {PLACES[medium]: given.places(medium) for medium in MEDIA}
    if all(record.places(medium) == given.places(medium) for medium in MEDIA):
        return record
    return replace(record, **own, events=tuple(with_places(event, NOWHERE) for event in record.events))


def _with_found(found: Record, record: Record, grounder: Grounder, phrases: Sequence[str]) -> Record:
    medium = grounder.medium
    places: list[Any] = list(found.places(medium))
    grounder.counts["phrases"] += len(phrases)
    for number in range(len(record.of(medium))):
        known = [one for one in record.places(medium) if getattr(one, "image", 0) == number]
        for phrase, own in zip(phrases, grounder.find(record.resolved(medium, number), phrases, known), strict=True):
            places += [replace(one, label=phrase, **({"image": number} if number else {})) for one in own]
    grounder.num_found += len(places) - len(found.places(medium))
    changes: dict[str, Any] = {PLACES[medium]: tuple(places)}
    return replace(found, **changes)
