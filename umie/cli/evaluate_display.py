"""Tables of scores on the terminal: figures, labels, two systems, the published scorer's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from umie.cli.console import out

if TYPE_CHECKING:
    from umie.scoring import Line, Released, Report, Score


def say(what: str) -> None:
    """Print a line on standard output as it is."""
    out.print(what, highlight=False, markup=False, soft_wrap=True)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _interval(edges: tuple[float, float]) -> str:
    return f"{_percent(edges[0])} to {_percent(edges[1])}"


def _numbers(score: Score) -> list[str]:
    return [_percent(score.precision), _percent(score.recall), str(score.predicted), str(score.gold)]


def _table(title: str, first: str, *columns: str) -> Table:
    """Return a table that fits 80 columns: numbers are never cut, a long name goes on in the next line."""
    table = Table(first, title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _title(task: str, modality: str, lines: list[Line]) -> str:
    return f"{task}, {modality}, {lines[0].records} records"


def print_scores(report: Report) -> None:
    """Print every figure, a table for each task and modality."""
    baselines = list(dict.fromkeys((line.task, line.baseline) for line in report.lines))
    for task, modality, lines in report.parts():
        table = _table(
            _title(task, modality, lines), "measure", "F1", "95 % interval", "P", "R", "found", "gold", "baseline"
        )
        for line in lines:
            number = baselines.index((line.task, line.baseline)) + 1
            row = [line.name, _percent(line.score.f1), _interval(line.interval), *_numbers(line.score)]
            table.add_row(*row, f"{_percent(line.baseline_f1)} ({number})")
        out.print(table)
    for number, (task, name) in enumerate(baselines, start=1):
        say(f"baseline ({number}) {task}: {name}")
    say(f"intervals: {report.resamples} resamples of the records, seed {report.seed}")


def print_labels(report: Report) -> None:
    """Print the score of each label."""
    for task, modality, lines in report.parts():
        title = f"{_title(task, modality, lines)}, {lines[0].measure}"
        table = _table(title, "label", "F1", "95 % interval", "P", "R", "found", "gold")
        for label, (score, edges) in lines[0].labels.items():
            table.add_row(escape(label), _percent(score.f1), _interval(edges), *_numbers(score))
        out.print(table)


def print_comparison(report: Report, predictions: object, other: object) -> None:
    """Print the two tests of two systems, under the names that are given."""
    say(f"A is {predictions}, B is {other}; two-sided p: paired bootstrap, approximate randomization")
    for task, modality, lines in report.parts():
        table = _table(_title(task, modality, lines), "measure", "A", "B", "A - B", "95 % interval", "p boot", "p rand")
        for line in lines:
            if line.versus is not None:
                versus = line.versus
                row = [line.name, _percent(line.score.f1), _percent(versus.other), f"{100 * versus.difference:+.1f}"]
                row += [_interval(versus.interval), f"{versus.p_bootstrap:.4f}", f"{versus.p_randomization:.4f}"]
                table.add_row(*row)
        out.print(table)


def print_released(released: Released) -> None:
    """Print what the published scorer says."""
    dropped = sum(released.dropped.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in released.dropped.items())
    ignored = sum(released.dropped_predictions.values())
    say(
        f"released {released.task}: F1 {_percent(released.f1)}, P {_percent(released.precision)}, "
        f"R {_percent(released.recall)} as the published scorer counts. It drops {dropped} of {released.gold} gold "
        f"items ({_percent(released.dropped_share)} %{f': {reasons}' if reasons else ''}) and {ignored} of "
        f"{released.predicted} predictions; a perfect prediction gets F1 {_percent(released.perfect)}, for "
        f"{released.perfect_found} of {released.gold} items"
    )
