"""Scores on the terminal: tables of measures, labels and two systems, and notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from umie.cli.console import number_table, out, print_line
from umie.scoring.groups import GROUPINGS
from umie.scoring.report import decimal, decimal_interval

if TYPE_CHECKING:
    from umie.evaluation.checkpoint import DecodingResult
    from umie.reports.predictions import FileScores
    from umie.scoring import Line, Report, Score, Versus

_LOOK: dict[str, Any] = {"title_justify": "left", "box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0)}


def _numbers(score: Score) -> list[str]:
    return [decimal(score.precision), decimal(score.recall), str(score.predicted), str(score.gold)]


def _table(task: str, modality: str, lines: Sequence[Line], columns: Sequence[str], about: str = "") -> Table:
    """Return a table that fits 80 columns: long names wrap, numbers do not."""
    title = escape(f"{task}, {modality}, {lines[0].records} records{about}")
    return number_table(*columns, no_wrap=True, title=title, **_LOOK)


def _groups(group_by: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the main measures of each group of records in one table, if there are several."""
    if rows:
        more = "; for all measures of one: --modality" if group_by == "combination" else ""
        title = f"by {GROUPINGS[group_by]}{more}"
        table = number_table(
            "task", "media" if more else "records", "measure", *columns, no_wrap=True, title=title, **_LOOK
        )
        for column in table.columns[1:3]:
            column.justify = "left"
        for row in rows:
            table.add_row(*row)
        out.print(table)


def _group(line: Line) -> tuple[str, str, str]:
    return escape(line.task), line.modality, line.name


def print_scores(report: Report) -> None:
    """Print all measures in a table for each task, and the main ones of all groups of records in one table."""
    baselines = list(dict.fromkeys((line.task, line.baseline) for line in report.lines))
    columns = ("measure", "F1", "95% interval", "P", "R", "pred", "gold", "baseline")
    for task, modality, lines in report.overall():
        table = _table(task, modality, lines, columns)
        for line in lines:
            number = baselines.index((line.task, line.baseline)) + 1
            row = [line.name, decimal(line.score.f1), decimal_interval(line.interval), *_numbers(line.score)]
            table.add_row(*row, f"{decimal(line.baseline_f1)} ({number})")
        out.print(table)
    groups = []
    for line in report.by_group():
        score, edges = decimal(line.score.f1), decimal_interval(line.interval)
        groups.append((*_group(line), score, edges, *_numbers(line.score)))
    _groups(report.group_by, ("F1", "95% interval", "P", "R", "pred", "gold"), groups)
    if not groups and report.group_by != "combination":
        print_line(f"by {GROUPINGS[report.group_by]}: there are not two groups of records to show")
    for task, found in report.grounding_lines.items():
        title = escape(f"{task}, groundings: the places that show items; docs/scores.md defines the lines")
        table = number_table("", "value", "95% interval", "count", "out of", no_wrap=True, title=title, **_LOOK)
        for one in found:
            table.add_row(one.name, decimal(one.value), decimal_interval(one.interval), one.number, str(one.out_of))
        out.print(table)
    for number, (task, name) in enumerate(baselines, start=1):
        print_line(f"baseline ({number}) {task}: {name}")
    print_line(f"intervals: {report.resamples} resamples of the records, seed {report.seed}")


def print_labels(report: Report) -> None:
    """Print the score of each label, over all records."""
    columns = ("label", "F1", "95% interval", "P", "R", "pred", "gold")
    for task, modality, lines in report.overall():
        table = _table(task, modality, lines, columns, f", {lines[0].measure}")
        for label, (score, edges) in lines[0].labels.items():
            table.add_row(escape(label), decimal(score.f1), decimal_interval(edges), *_numbers(score))
        out.print(table)


def print_comparison(report: Report, predictions: object, other: object) -> None:
    """Print two tests between two systems with these names."""
    print_line(f"A is {predictions}, B is {other}; two-sided p: paired bootstrap, approximate randomization")
    columns = ("A", "B", "A - B", "95% interval", "p boot", "p rand")
    for task, modality, lines in report.overall():
        table = _table(task, modality, lines, ("measure", *columns))
        for line in lines:
            if line.versus is not None:
                table.add_row(line.name, *_compared(line.score, line.versus))
        out.print(table)
    groups = [
        (*_group(line), *_compared(line.score, line.versus)) for line in report.by_group() if line.versus is not None
    ]
    _groups(report.group_by, columns, groups)


def _compared(score: Score, versus: Versus) -> list[str]:
    row = [decimal(score.f1), decimal(versus.other), f"{versus.difference:+.3f}", decimal_interval(versus.interval)]
    return [*row, f"{versus.p_bootstrap:.4f}", f"{versus.p_randomization:.4f}"]


def print_checkpoint(results: Sequence[DecodingResult], *, with_labels: bool) -> None:
    """Print the scores of a checkpoint, with one or two decodings, and notes."""
    from umie.reports.checkpoint_page import ORACLE, notes_of

    for result in results:
        if len(results) > 1:
            print_line(f"{result.decoding} decoding")
        print_scores(result.report)
        if with_labels:
            print_labels(result.report)
        if result.oracles:
            print_line(f"note: {', '.join(result.oracles)}: {ORACLE}")
        for note in notes_of(result):
            print_line(f"note: {note}")
    if len(results) > 1:
        print_comparison(results[0].report, results[0].decoding, results[1].decoding)


def print_files(scores: FileScores, *, with_labels: bool) -> None:
    """Print the scores of a file of predictions, and notes."""
    report, files = scores.report, scores.files
    print_scores(report)
    if with_labels:
        print_labels(report)
    if files.other is not None:
        print_comparison(report, files.predictions, files.other)
    for released in report.released:
        if not released.perfect_found:
            print_line(f"released {released.task}: does not apply: the published scorer reads none of the items")
            continue
        reasons = ", ".join(f"{count} {reason}" for reason, count in released.dropped.items())
        print_line(
            f"released {released.task}: F1 {decimal(released.f1)}, P {decimal(released.precision)}, "
            f"R {decimal(released.recall)} with the published scorer. It drops {sum(released.dropped.values())} of "
            f"{released.gold} gold items ({100 * released.dropped_share:.1f}%{f': {reasons}' if reasons else ''}) and "
            f"{sum(released.dropped_predictions.values())} of {released.predicted} predictions; a perfect prediction "
            f"has F1 {decimal(released.perfect)}, from {released.perfect_found} of {released.gold} items"
        )
    for task, labels in scores.unknown.items():
        shown = ", ".join(f"{label} ({count})" for label, count in labels.most_common(8))
        print_line(f"note: {task}: {labels.total()} predictions have labels that do not occur in gold: {shown}")
    for name, reason in report.left_out.items():
        print_line(f"omitted: {name}: {reason}")
