"""The report of an evaluated checkpoint as a Markdown page: scores first, then the setup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from umie.evaluation.checkpoint import DecodingResult
from umie.reports.tables import markdown_table
from umie.scoring import Score
from umie.scoring.gates import gate_summary
from umie.scoring.report import decimal, decimal_interval, grounded_note

_COUNTS = {
    "truncated_inputs": "inputs truncated to the longest that the model accepts",
    "unwritable_inputs": "inputs with characters that the tokenizer cannot write",
    "unwritable_targets": "targets with characters that the tokenizer cannot write",
    "unreachable_spans": "annotated spans that are no candidates: too long, truncated, or inside a word",
    "unreachable_regions": "annotated regions that are no candidates: beyond the encoder's max_regions",
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
    parts = [f"# {title}", *_main_scores(results)]
    if notes := [*facts.get("notes", ()), *(note for result in results for note in notes_of(result))]:
        parts += ["## Notes", "\n".join(f"- {note}" for note in notes)]
    for result in results:
        parts += _of_decoding(result, figures, f", {result.decoding}" if len(results) > 1 else "")
    parts.append("## Gate")
    if gates := {task: own for task, own in results[0].gates.items() if own}:
        rows = [
            (task.upper(), f"{len(own):,}", *(f"{value:.3f}" for value in gate_summary(own).values()))
            for task, own in gates.items()
        ]
        parts.append(f"![histogram of the gate for each task]({figures['gates']})")
        parts.append(markdown_table(("task", "queries about media", *gate_summary([0.0])), rows))
    else:
        parts.append("None: the fusion has no gate, or no query is about media that the model sees.")
    for heading, values in facts.items():
        if heading != "notes":
            rows = [(name, _shown(value)) for name, value in values.items()]
            parts += [f"## {heading.capitalize()}", markdown_table(("", ""), rows)]
    return "\n\n".join(parts) + "\n\n"


def notes_of(result: DecodingResult) -> list[str]:
    """Return counts and omissions of an evaluation as sentences."""
    notes = []
    for task, counts in result.counts.items():
        found = [(said, counts[name]) for name, said in _COUNTS.items() if counts[name]]
        notes += [f"{task}, {result.decoding}: {said}: {count:,}" for said, count in found]
    if result.unreadable:
        reason = next(iter(result.unreadable.values()))
        notes.append(
            f"{result.decoding}: unreadable images, whose records were evaluated without an image: "
            f"{len(result.unreadable):,}; the first: {reason}"
        )
    notes += [f"{result.decoding}: omitted: {name}: {reason}" for name, reason in result.report.left_out.items()]
    return notes


def _main_scores(results: Sequence[DecodingResult]) -> Iterator[str]:
    """Yield the strict scores of all decodings, and the comparison of two decodings."""
    rows: list[Sequence[object]] = []
    for result in results:
        for line in result.report.main_lines():
            name = f"{line.task.upper()}{' (oracle events)' if line.task in result.oracles else ''}"
            baseline = f"{decimal(line.baseline_f1)} ({line.baseline})"
            scores = _numbers(line.score, line.interval)
            rows.append((name, result.decoding, f"**{decimal(line.score.f1)}**", *scores, line.records, baseline))
    columns = ("task", "decoding", "F1", "interval", "P", "R", "predicted", "gold", "records", "baseline")
    yield markdown_table(columns, rows)
    report = results[0].report
    explained = f"Strict micro-F1, with 95% intervals over {report.resamples:,} resamples of the records."
    grounded = [line.task.upper() for line in report.main_lines() if line.measure == "grounded"]
    explained += f"\n{grounded_note(grounded)}" if grounded else ""
    yield f"{explained}\n{ORACLE}" if any(result.oracles for result in results) else explained
    rows = []
    for line in report.main_lines():
        if (versus := line.versus) is not None:
            edges = f"{versus.interval[0]:+.3f} to {versus.interval[1]:+.3f}"
            ps = (f"{versus.p_bootstrap:.4f}", f"{versus.p_randomization:.4f}")
            rows.append((line.task.upper(), f"{versus.difference:+.3f}", edges, *ps))
    if rows:
        first, second = (result.decoding for result in results[:2])
        tests = ("p, paired bootstrap", "p, randomization")
        yield markdown_table(("task", f"{first} - {second}", "interval", *tests), rows)


def _of_decoding(result: DecodingResult, figures: Mapping[str, str], suffix: str) -> Iterator[str]:
    yield f"## All measures{suffix}"
    if (file := figures.get(f"scores-{result.decoding}")) is not None:
        yield f"![F1 with intervals]({file})"
    columns = ("measure", "F1", "interval", "P", "R", "predicted", "gold", "baseline")
    for task, modality, lines in result.report.parts():
        yield f"### {task.upper()}, {modality}"
        rows = [
            (line.name, decimal(line.score.f1), *_numbers(line.score, line.interval), decimal(line.baseline_f1))
            for line in lines
        ]
        yield markdown_table(columns, rows)
    if groundings := result.report.grounding_lines:
        yield f"## Groundings{suffix}"
    for task, found in groundings.items():
        shown = [
            (one.name, decimal(one.value), decimal_interval(one.interval), one.number, one.out_of, one.definition)
            for one in found
        ]
        yield f"### {task.upper()}"
        yield markdown_table(("", "value", "interval", "count", "out of", ""), shown)
    labeled = [line for line in result.report.main_lines() if line.labels]
    if labeled:
        yield f"## Labels{suffix}"
    if (file := figures.get(f"labels-{result.decoding}")) is not None:
        yield f"![F1 of each label]({file})"
    for line in labeled:
        yield f"### {line.task.upper()}"
        rows = [
            (label, decimal(score.f1), *_numbers(score, interval)) for label, (score, interval) in line.labels.items()
        ]
        yield markdown_table(("label", *columns[1:-1]), rows)


def _numbers(score: Score, interval: tuple[float, float]) -> tuple[object, ...]:
    return (decimal_interval(interval), decimal(score.precision), decimal(score.recall), score.predicted, score.gold)


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_shown(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
