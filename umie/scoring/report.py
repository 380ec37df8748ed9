"""What an evaluation found, and its JSON form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from umie.errors import UmieError
from umie.scoring.released import Released
from umie.scoring.resampling import LEVEL
from umie.scoring.score_sheet import Score

_WITH_MACRO = ("with none", "string")  # beside each task's first measure; the JSON form has all


class Versus(NamedTuple):
    """One measure of two systems on the same records.

    Args:
        other: the F1 of the other system.
        difference: F1 minus the other's.
        interval: 95 % of the differences over resamples of the records.
        p_bootstrap: two-sided p of the paired bootstrap.
        p_randomization: two-sided p of approximate randomization.
    """

    other: float
    difference: float
    interval: tuple[float, float]
    p_bootstrap: float
    p_randomization: float


@dataclass(frozen=True)
class Line:
    """One measure.

    Args:
        task: the task.
        measure: the name of the measure.
        average: ``micro``, or ``macro`` over labels.
        modality: ``all``, or the modality of M2E2.
        definition: what counts as right.
        records: the number of records.
        score: precision, recall, F1 and the totals.
        interval: 95 % of the F1 over resamples of the records.
        baseline: what the baseline does.
        baseline_f1: what it reaches.
        labels: the score of each label with the interval of its F1; empty for macro and without labels.
        versus: the comparison with the other system, if there is one that the measure can score.
    """

    task: str
    measure: str
    average: str
    modality: str
    definition: str
    records: int
    score: Score
    interval: tuple[float, float]
    baseline: str
    baseline_f1: float
    labels: dict[str, tuple[Score, tuple[float, float]]]
    versus: Versus | None = None

    @property
    def name(self) -> str:
        """The measure and, where it is not micro, the average."""
        return self.measure if self.average == "micro" else f"{self.measure}, {self.average}"


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Args:
        lines: the measures; those in which nothing is predicted and nothing annotated are left out.
        released: what the published scorer says, for each task that is answered with offsets.
        resamples: how many resamples the intervals and tests rest on.
        seed: what they are drawn from.
        left_out: why a task, or ``released`` of a task, is not there.
    """

    lines: list[Line]
    released: list[Released]
    resamples: int
    seed: int
    left_out: dict[str, str] = field(default_factory=dict)

    def parts(self) -> Iterator[tuple[str, str, list[Line]]]:
        """Yield task, modality and lines of what belongs in one table; macro averages of the main measures only."""
        for task, modality in dict.fromkeys((line.task, line.modality) for line in self.lines):
            lines = [line for line in self.lines if (line.task, line.modality) == (task, modality)]
            main = (lines[0].measure, *_WITH_MACRO)
            yield task, modality, [line for line in lines if line.average == "micro" or line.measure in main]

    def line(self, task: str, measure: str, average: str = "micro", modality: str | None = None) -> Line:
        """Return one line; without a modality the first that has the measure."""
        for line in self.lines:
            if (line.task, line.measure, line.average) == (task, measure, average) and modality in (
                None,
                line.modality,
            ):
                return line
        raise UmieError(f"there is no measure {task} {measure} {average} {modality or ''}".rstrip())


def to_json(report: Report) -> dict[str, Any]:
    """Return a report as plain values for a JSON file."""

    def score(value: Score) -> dict[str, float]:
        return value._asdict()

    def line(item: Line) -> dict[str, Any]:
        labels = {label: {**score(value), "interval": list(edges)} for label, (value, edges) in item.labels.items()}
        versus = None if item.versus is None else {**item.versus._asdict(), "interval": list(item.versus.interval)}
        return {
            "task": item.task,
            "measure": item.measure,
            "average": item.average,
            "modality": item.modality,
            "definition": item.definition,
            "records": item.records,
            **score(item.score),
            "interval": list(item.interval),
            "baseline": {"name": item.baseline, "f1": item.baseline_f1},
            "labels": labels,
            "versus": versus,
        }

    return {
        "resamples": report.resamples,
        "seed": report.seed,
        "level": LEVEL,
        "measures": [line(item) for item in report.lines],
        "released": [{**vars(item), "dropped_share": item.dropped_share} for item in report.released],
        "left_out": report.left_out,
    }
