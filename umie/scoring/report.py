"""The result of an evaluation, and its JSON form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from umie.errors import UmieError
from umie.scoring.grounding_errors import GroundingLine, Groundings
from umie.scoring.released import Released
from umie.scoring.resampling import LEVEL
from umie.scoring.score_sheet import Score

GROUNDED = "an item is correct only if the places that show it are, too (`grounded`)."
_WITH_MACRO = ("with none", "string")  # along with each task's main measure; the JSON form has all


class Versus(NamedTuple):
    """One measure of two systems on the same records."""

    other: float  # the F1 of the other system
    difference: float  # the F1 minus that of the other system
    interval: tuple[float, float]  # the 95% interval of the difference
    p_bootstrap: float  # the two-sided p of the paired bootstrap
    p_randomization: float  # the two-sided p of approximate randomization


@dataclass(frozen=True)
class Line:
    """The score of one measure on one group of records."""

    task: str
    measure: str
    average: str  # ``micro``, or ``macro`` over labels
    modality: str  # ``all``, or the name of a group, by default of the combination of text and media, e.g. ``T+A``
    definition: str  # when an item is correct
    records: int
    score: Score
    interval: tuple[float, float]  # the 95% interval of the F1
    baseline: str  # a description
    baseline_f1: float
    labels: dict[str, tuple[Score, tuple[float, float]]]  # with intervals; empty for macro averages and without labels
    versus: Versus | None = None  # None if the measure cannot score the other system

    @property
    def name(self) -> str:
        """The measure and, unless it is micro, the average."""
        return self.measure if self.average == "micro" else f"{self.measure}, {self.average}"


@dataclass(frozen=True)
class Report:
    """The result of an evaluation; measures without predicted and annotated items are omitted."""

    lines: list[Line]
    released: list[Released]  # the published scorer's result for each task with offsets
    resamples: int
    seed: int
    left_out: dict[str, str] = field(default_factory=dict)  # why a task, or ``released`` of a task, is missing
    groundings: dict[str, Groundings] = field(default_factory=dict)  # of tasks whose items places show
    group_by: str = "combination"  # what the groups of records are; see ``umie.scoring.groups``

    @cached_property
    def grounding_lines(self) -> dict[str, list[GroundingLine]]:
        """The lines of the table of groundings, by task whose items places show."""
        lines = {task: found.lines(self.resamples, self.seed) for task, found in self.groundings.items()}
        return {task: own for task, own in lines.items() if own}

    def parts(self) -> Iterator[tuple[str, str, list[Line]]]:
        """Yield the task, modality and lines of each table; macro averages only of the main measures."""
        for task, modality in dict.fromkeys((line.task, line.modality) for line in self.lines):
            lines = [line for line in self.lines if (line.task, line.modality) == (task, modality)]
            main = (lines[0].measure, *_WITH_MACRO)
            yield task, modality, [line for line in lines if line.average == "micro" or line.measure in main]

    def overall(self) -> Iterator[tuple[str, str, list[Line]]]:
        """Yield those of ``parts`` that are about all records of a task."""
        seen: set[str] = set()
        for task, modality, lines in self.parts():
            if task not in seen:
                yield task, modality, lines
            seen.add(task)

    def by_group(self) -> Iterator[Line]:
        """Yield micro scores of each task for each group of records, such as combinations of media.

        They are those of the main measure, and of ``grounded`` if places show items.
        """
        whole = {task: modality for task, modality, _ in self.overall()}
        for task, modality, lines in self.parts():
            if modality != whole[task]:
                yield lines[0]
                yield from (line for line in lines[1:] if line.measure == "grounded" and line.average == "micro")

    def main_lines(self) -> list[Line]:
        """Return the first line of each task: the micro score of its main measure over all records."""
        first: dict[str, Line] = {}
        for line in self.lines:
            first.setdefault(line.task, line)
        return list(first.values())

    def line(self, task: str, measure: str, average: str = "micro", modality: str | None = None) -> Line:
        """Return one line; without a modality, the first with the measure."""
        for line in self.lines:
            found = (line.task, line.measure, line.average) == (task, measure, average)
            if found and modality in (None, line.modality):
                return line
        raise UmieError(f"there is no measure {task} {measure} {average} {modality or ''}".rstrip())


def decimal(value: float) -> str:
    """Return a score with three decimals, as all tables print it."""
    return f"{value:.3f}"


def decimal_interval(edges: tuple[float, float]) -> str:
    """Return an interval of scores."""
    return f"{decimal(edges[0])} to {decimal(edges[1])}"


def grounded_note(tasks: Iterable[str]) -> str:
    """Return what the score of grounded tasks means; ``tasks`` are their names in tables."""
    return f"{', '.join(tasks)}: {GROUNDED}"


def to_json(report: Report) -> dict[str, Any]:
    """Return a report as plain values for a JSON file."""

    def line(item: Line) -> dict[str, Any]:
        labels = {label: {**score._asdict(), "interval": list(edges)} for label, (score, edges) in item.labels.items()}
        versus = None if item.versus is None else {**item.versus._asdict(), "interval": list(item.versus.interval)}
        return {
            "task": item.task,
            "measure": item.measure,
            "average": item.average,
            "modality": item.modality,
            "definition": item.definition,
            "records": item.records,
            **item.score._asdict(),
            "interval": list(item.interval),
            "baseline": {"name": item.baseline, "f1": item.baseline_f1},
            "labels": labels,
            "versus": versus,
        }

    return {
        "resamples": report.resamples,
        "seed": report.seed,
        "level": LEVEL,
        "group_by": report.group_by,
        "measures": [line(item) for item in report.lines],
        "groundings": {
            task: [{**item._asdict(), "interval": list(item.interval)} for item in lines]
            for task, lines in report.grounding_lines.items()
        },
        "released": [{**vars(item), "dropped_share": item.dropped_share} for item in report.released],
        "left_out": report.left_out,
    }
