"""The report of an evaluated checkpoint as a Markdown page: scores first, then the setup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from umie.evaluation.checkpoint import DecodingResult
from umie.evaluation.gates import gate_summary
from umie.reports.tables import markdown_table
from umie.scoring import Line, Score
from umie.scoring.report import percent, percent_interval

_COUNTS = {
    "truncated_inputs": "inputs truncated to the longest that the model accepts",
    "dropped_items": "items dropped from answers because they are malformed or not in the text or image",
}

ORACLE = "Arguments were extracted for the annotated events: these are not the scores of a complete system."


def page(title: str, results: Sequence[DecodingResult], facts: Mapping[str, Any], figures: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        title: the title of the page.
        results: one for each decoding.
        facts: the setup: names and values by heading; ``notes`` is a list of sentences.
        figures: the file of each figure by its name: ``gates``, and for each decoding, e.g. ``free``, ``scores-free``
            and ``labels-free``.
    """
    return "\n".join(_lines(title, results, facts, figures)) + "\n"


def notes_of(result: DecodingResult) -> list[str]:
    """Return counts and omissions of an evaluation as sentences."""
    notes = []
    for task, counts in result.counts.items():
        notes += [
            f"{task}, {result.decoding}: {said}: {counts[name]:,}" for name, said in _COUNTS.items() if counts[name]
        ]
    if result.unreadable:
        reason = next(iter(result.unreadable.values()))
        notes.append(
            f"{result.decoding}: unreadable images, whose records were evaluated without an image: "
            f"{len(result.unreadable):,}; the first: {reason}"
        )
    notes += [f"{result.decoding}: omitted: {name}: {reason}" for name, reason in result.report.left_out.items()]
    return notes


def _lines(
    title: str, results: Sequence[DecodingResult], facts: Mapping[str, Any], figures: Mapping[str, str]
) -> Iterator[str]:
    yield f"# {title}"
    yield ""
    yield from _main_table(results)
    resamples = results[0].report.resamples
    yield f"Strict micro-F1 in %, 95 % intervals over {resamples:,} resamples of the records."
    if any(result.oracles for result in results):
        yield ORACLE
    yield ""
    yield from _comparison(results)
    notes = [*facts.get("notes", ()), *(note for result in results for note in notes_of(result))]
    if notes:
        yield "## Notes"
        yield ""
        yield from (f"- {note}" for note in notes)
        yield ""
    for result in results:
        yield from _of_decoding(result, figures, len(results) > 1)
    yield from _gate(results[0], figures.get("gates"))
    for heading in (name for name in facts if name != "notes"):
        yield f"## {heading.capitalize()}"
        yield ""
        yield from _table(("", ""), [(name, _shown(value)) for name, value in facts[heading].items()])


def _main_table(results: Sequence[DecodingResult]) -> Iterator[str]:
    rows = []
    for result in results:
        for line in result.report.main_lines():
            name = f"{line.task.upper()}{' (oracle events)' if line.task in result.oracles else ''}"
            baseline = f"{percent(line.baseline_f1)} ({line.baseline})"
            rows.append((name, result.decoding, f"**{percent(line.score.f1)}**", *_numbers(line), baseline))
    columns = ("task", "decoding", "F1", "interval", "P", "R", "predicted", "gold", "records", "baseline")
    yield from _table(columns, rows)


def _comparison(results: Sequence[DecodingResult]) -> Iterator[str]:
    lines = [line for line in results[0].report.main_lines() if line.versus is not None]
    if not lines:
        return
    rows = []
    for line in lines:
        versus = line.versus
        if versus is not None:
            edges = f"{100 * versus.interval[0]:+.1f} to {100 * versus.interval[1]:+.1f}"
            ps = (f"{versus.p_bootstrap:.4f}", f"{versus.p_randomization:.4f}")
            rows.append((line.task.upper(), f"{100 * versus.difference:+.1f}", edges, *ps))
    first, second = (result.decoding for result in results[:2])
    columns = ("task", f"{first} - {second}", "interval", "p, paired bootstrap", "p, randomization")
    yield from _table(columns, rows)


def _of_decoding(result: DecodingResult, figures: Mapping[str, str], is_one_of_two: bool) -> Iterator[str]:
    suffix = f", {result.decoding}" if is_one_of_two else ""
    names = {name: figures.get(f"{name}-{result.decoding}") for name in ("scores", "labels")}
    yield f"## All measures{suffix}"
    yield ""
    yield from _image(names["scores"], "F1 with intervals")
    for task, modality, lines in result.report.parts():
        yield f"### {task.upper()}, {modality}"
        yield ""
        rows = [(line.name, percent(line.score.f1), *_numbers(line)[:-1], percent(line.baseline_f1)) for line in lines]
        yield from _table(("measure", "F1", "interval", "P", "R", "predicted", "gold", "baseline"), rows)
    labeled = [line for line in result.report.main_lines() if line.labels]
    if labeled:
        yield f"## Labels{suffix}"
        yield ""
        yield from _image(names["labels"], "F1 of each label")
    for line in labeled:
        yield f"### {line.task.upper()}"
        yield ""
        rows = [
            (label, percent(score.f1), percent_interval(edges), *_precision_recall(score))
            for label, (score, edges) in line.labels.items()
        ]
        yield from _table(("label", "F1", "interval", "P", "R", "predicted", "gold"), rows)


def _gate(result: DecodingResult, file: str | None) -> Iterator[str]:
    yield "## Gate"
    yield ""
    if not any(result.gates.values()):
        yield "None: the fusion has no gate, or no query is about an image."
        yield ""
        return
    yield from _image(file, "histogram of the gate for each task")
    rows = [
        (task.upper(), f"{len(own):,}", *(f"{value:.3f}" for value in gate_summary(own).values()))
        for task, own in result.gates.items()
        if own
    ]
    yield from _table(("task", "queries about an image", *gate_summary([0.0])), rows)


def _numbers(line: Line) -> tuple[str, ...]:
    return percent_interval(line.interval), *_precision_recall(line.score), str(line.records)


def _precision_recall(score: Score) -> tuple[str, ...]:
    return percent(score.precision), percent(score.recall), str(score.predicted), str(score.gold)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield markdown_table(columns, rows)
    yield ""


def _image(file: str | None, text: str) -> Iterator[str]:
    if file is not None:
        yield f"![{text}]({file})"
        yield ""


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_shown(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
