"""The figures: which there are for each task, what each counts, and which split of M2E2 it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from umie.records import Record
from umie.scoring import events, mentions
from umie.scoring.tally import Tally

TASKS = ("mner", "mre", "med", "meae")
EVENT_TASKS = ("med", "meae")
SPLITS = ("text-only", "image-only", "multimedia")


@dataclass(frozen=True)
class Figure:
    """One way to count what is right.

    Args:
        task: the task it is about.
        name: how tables call it.
        count: counts one record, label by label.
        definition: one sentence, for tables and files.
        strings: it compares strings, so it can score a system that gives no offsets.
        split: the only split of M2E2 it is defined on.
    """

    task: str
    name: str
    count: Callable[[Record, Record], Tally]
    definition: str
    strings: bool = False
    split: str | None = None


def _figure(task: str, name: str, count: Callable[[Record, Record], Tally], split: str | None = None) -> Figure:
    return Figure(task, name, count, " ".join((count.__doc__ or "").partition("\n\n")[0].split()), split=split)


def _strings(task: str) -> Figure:
    def count(predicted: Record, gold: Record) -> Tally:
        return mentions.tally_strings(mentions.strings_of(task, predicted), gold, task)

    definition = "Label and strings are equal, offsets are not looked at; a string that gold holds twice counts twice."
    return Figure(task, "string", count, definition, strings=True)


FIGURES = (
    _figure("mner", "strict", mentions.entities_strict),
    _figure("mner", "boundary", mentions.entities_boundary),
    _figure("mner", "type", mentions.entities_type),
    _strings("mner"),
    _figure("mre", "strict", mentions.relations_strict),
    _figure("mre", "with none", mentions.relations_with_none),
    _strings("mre"),
    _figure("med", "strict", events.events_strict),
    _figure("med", "type", events.events_type),
    _figure("med", "trigger", events.events_trigger),
    _figure("med", "textual", events.events_textual),
    _figure("med", "visual", events.events_visual),
    _figure("med", "text or picture", events.events_multimedia, split="multimedia"),
    _strings("med"),
    _figure("meae", "strict", events.arguments_strict),
    _figure("meae", "textual", events.arguments_textual),
    _figure("meae", "visual instance", events.arguments_instance),
    _figure("meae", "visual union", events.arguments_union),
    _figure("meae", "by type", events.arguments_by_type),
    _figure("meae", "textual by type", events.arguments_textual_by_type),
    _figure("meae", "visual instance by type", events.arguments_instance_by_type),
    _figure("meae", "visual union by type", events.arguments_union_by_type),
    _strings("meae"),
)
"""All figures; the first of a task is its headline."""


def figures_of(task: str) -> list[Figure]:
    """Return the figures of a task, the headline first."""
    return [figure for figure in FIGURES if figure.task == task]


def split_of(record: Record) -> str:
    """Return which split of M2E2 a record belongs to: by whether it has a text, a picture, or both.

    Source: M2E2 is scored on sentences alone, on pictures alone, and on pairs of both that show one event. What
    a record has does not depend on any system, so every prediction about it counts in its split.
    """
    if record.image is None:
        return "text-only"
    return "multimedia" if record.text.strip() else "image-only"
