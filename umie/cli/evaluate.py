"""`umie evaluate`: scores of a file of predictions, of any system."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from umie.cli.console import out
from umie.errors import UmieError

if TYPE_CHECKING:
    from umie.scoring import Line, Released, Report, Score


_EXAMPLE = """
Both files are JSONL, one record a line; predictions hold what was found in
place of the annotation, as in

    {"id": "7", "text": "In Rome",
     "entities": [{"type": "location", "span": [3, 7]}]}

on one line. For example:

    umie evaluate --predictions p.jsonl --gold g.jsonl --labels

Lines are joined by id where each has its own, else by order. A mention
without offsets, {"type": "location", "text": "Rome"}, is scored by its
string, under that name only. docs/scores.md defines every figure.

With --task, records that are annotated for none of the tasks need no line,
so that the files of a grid's cell (cells/HASH/mner.jsonl) can be scored.

Exit code: 0 scored, 2 bad input.
"""


def evaluate(
    predictions: Annotated[Path, typer.Option(help="What a system predicted, JSONL.")],
    gold: Annotated[Path, typer.Option(help="The annotated records, JSONL.")],
    other: Annotated[
        Path | None, typer.Option(help="Predictions of another system, to compare with: two paired tests.")
    ] = None,
    train: Annotated[
        Path | None, typer.Option(help="Training records: baselines learn from them, in place of gold.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="A task to score: mner, mre, med, meae; may be repeated. By default all that gold has."),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Events of one of M2E2's splits alone: text-only, image-only, multimedia.")
    ] = "all",
    labels: Annotated[bool, typer.Option("--labels", help="Print the score of each label, too.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything to this JSON file.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw F1 and intervals into this PNG.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="What resamples are drawn from.")] = 0,
    resamples: Annotated[int, typer.Option(min=100, max=100_000, help="Resamples of the records.")] = 1000,
) -> None:
    """Score predictions: strict and diagnostic F1 with 95 % intervals, baselines, and the published scorer's."""
    from umie.records import read_jsonl
    from umie.scoring import read_answers, read_gold, score_answers, unknown_labels

    if figure is not None and figure.suffix != ".png":
        raise UmieError(f"--figure {figure}: give a name that ends in .png")
    wanted = read_gold(gold)
    records = [line.record for line in wanted]
    answers = read_answers(predictions, wanted, gold, task)
    report = score_answers(
        records,
        answers,
        tasks=task,
        split=split,
        other=None if other is None else read_answers(other, wanted, gold, task),
        train=None if train is None else list(read_jsonl(train)),
        resamples=resamples,
        seed=seed,
    )
    _print_scores(report)
    if labels:
        _print_labels(report)
    if other is not None:
        _print_comparison(report, predictions, other)
    for released in report.released:
        _print_released(released)
    for name in dict.fromkeys(line.task for line in report.lines):
        unknown = unknown_labels(name, [answer.record for answer in answers], records)
        if unknown:
            shown = ", ".join(f"{label} ({count})" for label, count in unknown.most_common(8))
            _say(f"note: {name}: {unknown.total()} predictions have labels that gold does not know: {shown}")
    for name, reason in report.left_out.items():
        _say(f"left out: {name}: {reason}")
    if json_file is not None:
        files = {"predictions": predictions, "gold": gold, "other": other, "train": train}
        _write_json(json_file, report, {name: path for name, path in files.items() if path is not None})
    if figure is not None:
        from umie.scoring.plot import draw

        draw(report, figure)
        _say(f"Written: {figure}")


evaluate.__doc__ = f"{evaluate.__doc__}\n{_EXAMPLE}"


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


def _title(task: str, split: str, lines: list[Line]) -> str:
    return f"{task}, {split}, {lines[0].records} records"


def _print_scores(report: Report) -> None:
    baselines = list(dict.fromkeys((line.task, line.baseline) for line in report.lines))
    for task, split, lines in report.parts():
        table = _table(
            _title(task, split, lines), "figure", "F1", "95 % interval", "P", "R", "found", "gold", "baseline"
        )
        for line in lines:
            number = baselines.index((line.task, line.baseline)) + 1
            row = [line.name, _percent(line.score.f1), _interval(line.interval), *_numbers(line.score)]
            table.add_row(*row, f"{_percent(line.baseline_f1)} ({number})")
        out.print(table)
    for number, (task, name) in enumerate(baselines, start=1):
        _say(f"baseline ({number}) {task}: {name}")
    _say(f"intervals: {report.resamples} resamples of the records, seed {report.seed}")


def _print_labels(report: Report) -> None:
    for task, split, lines in report.parts():
        title = f"{_title(task, split, lines)}, {lines[0].figure}"
        table = _table(title, "label", "F1", "95 % interval", "P", "R", "found", "gold")
        for label, (score, edges) in lines[0].labels.items():
            table.add_row(escape(label), _percent(score.f1), _interval(edges), *_numbers(score))
        out.print(table)


def _print_comparison(report: Report, predictions: Path, other: Path) -> None:
    _say(f"A is {predictions}, B is {other}; two-sided p: paired bootstrap, approximate randomisation")
    for task, split, lines in report.parts():
        table = _table(_title(task, split, lines), "figure", "A", "B", "A - B", "95 % interval", "p boot", "p rand")
        for line in lines:
            if line.versus is not None:
                versus = line.versus
                row = [line.name, _percent(line.score.f1), _percent(versus.other), f"{100 * versus.difference:+.1f}"]
                row += [_interval(versus.interval), f"{versus.p_bootstrap:.4f}", f"{versus.p_randomisation:.4f}"]
                table.add_row(*row)
        out.print(table)


def _print_released(released: Released) -> None:
    dropped = sum(released.dropped.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in released.dropped.items())
    ignored = sum(released.dropped_predictions.values())
    _say(
        f"released {released.task}: F1 {_percent(released.f1)}, P {_percent(released.precision)}, "
        f"R {_percent(released.recall)} as the published scorer counts. It drops {dropped} of {released.gold} gold "
        f"items ({_percent(released.dropped_share)} %{f': {reasons}' if reasons else ''}) and {ignored} of "
        f"{released.predicted} predictions; a perfect prediction gets F1 {_percent(released.perfect)}, for "
        f"{released.perfect_found} of {released.gold} items"
    )


def _write_json(path: Path, report: Report, files: dict[str, Path]) -> None:
    import numpy
    import scipy

    import umie
    from umie.files import atomic_write
    from umie.scoring import to_json

    content: dict[str, Any] = {
        "files": {name: {"path": str(file), "sha256": _digest(file)} for name, file in files.items()},
        "versions": {
            "umie": umie.__version__,
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "scipy": scipy.__version__,
        },
        **to_json(report),
    }
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    _say(f"Written: {path}")


def _say(what: str) -> None:
    out.print(what, highlight=False, markup=False, soft_wrap=True)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UmieError(f"{path}: cannot read: {error.strerror}") from error
