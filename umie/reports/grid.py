"""The report of a grid: one summary for each variant, as Markdown, CSV and a figure."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from umie.experiments.reference import joined
from umie.experiments.scheduler import GridRun
from umie.experiments.summary import MEAN, Row, mean_ceiling, mean_of, rows, score, title
from umie.files import atomic_write
from umie.reports.gate_figures import HISTOGRAM, SWEEP, draw_gates, gate_report
from umie.reports.grid_facts import data_facts
from umie.reports.grid_figure import draw
from umie.reports.tables import markdown_table, shown_interval
from umie.tasks import task_class

FIGURES = ("figure.png", SWEEP, HISTOGRAM)
TWO_SEEDS = "; with two of them the quantile is 12.7, so the interval is wide"


def write_report(run: GridRun, output: Path) -> str:
    """Write ``table.md``, ``table.csv`` and ``figure.png``; return the Markdown.

    A grid that varies the gate gets ``gate_sweep.png`` and ``gate_histogram.png`` too.
    """
    table = rows(run)
    gate = gate_report(run, output, draw_gates(run, output))
    markdown = _markdown(run, table, gate)
    with atomic_write(output / "table.md") as file:
        file.write(markdown)
    with atomic_write(output / "table.csv") as file:
        file.write(_csv(run, table))
    draw(run, table, output / FIGURES[0])
    return markdown


def findings(run: GridRun) -> list[str]:
    """Set every cell beside the ceiling of text alone, which nothing that sees no image may pass."""
    found = []
    for cell in run.cells:
        line = run.results.get(cell.hash)
        if line is None or line["status"] != "ok" or not run.ceilings:
            continue
        name = f"{cell.variant}, seed {cell.seed}"
        if line["uses_image"]:
            ceiling_of_mean = mean_ceiling(run)
            if ceiling_of_mean is not None:
                above = score(line, MEAN, run.mean_over) - ceiling_of_mean
                found.append(f"{name}: mean {abs(above):.3f} {'above' if above > 0 else 'BELOW'} the mean ceiling")
            continue
        for task, ceiling in run.ceilings.items():
            f1, low = line["metrics"][task]["f1"], line["metrics"][task]["interval"][0]
            verdict = "holds" if low <= ceiling else "DOES NOT HOLD"
            found.append(
                f"{name}: {title(run, task)} {f1:.3f}, interval from {low:.3f}, ceiling {ceiling:.3f}: {verdict}"
            )
    return found


def _markdown(run: GridRun, table: Sequence[Row], gate: str) -> str:
    tasks = [one.key for one in run.scored]
    averaged = ", ".join(title(run, task) for task in run.mean_over)
    header = [
        "variant",
        "seeds",
        *(title(run, task) for task in tasks),
        MEAN,
        "gate",
        "gate closed",
        "visual gradient",
    ]
    header += ["parameters", "train s"]
    body = []
    if run.ceilings:
        known = [run.ceilings.get(task) for task in tasks]
        body.append(_given_row("ceiling of text alone", [*known, mean_ceiling(run)]))
    for name, source, values in joined(run.grid.reference, run.scored):
        by_key = dict(zip(tasks, values, strict=True))
        counted = [by_key[key] for key in run.mean_over]
        printed = [value for value in counted if value is not None]
        mean = statistics.mean(printed) if len(printed) == len(counted) else None
        body.append(_given_row(f"{name} ({source.split(':')[0]})", [*values, mean]))
    for row in table:
        health = [mean_of(row.lines, "health", key) for key in ("gate_mean", "gate_closed", "visual_gradient")]
        opening, closed, gradient = health
        body.append(
            [
                row.variant,
                str(len(row.lines)),
                *(str(row.scores[name]) for name in [*tasks, MEAN]),
                "-" if opening is None else f"{opening:.2f}",
                "-" if closed is None else f"{closed:.0%}",
                "-" if gradient is None else f"{gradient:.2g}",
                f"{row.lines[0]['parameters']:,}" if row.lines else "-",
                "-" if not row.lines else f"{statistics.mean(line['seconds']['train'] for line in row.lines):.0f}",
            ]
        )
    split = run.grid.first.evaluation.split
    num_records = sum(run.data.sets[name].num_records[split] for name in {one.data_set for one in run.scored})
    parts = [
        f"# {run.grid.name}",
        f"Strict micro-F1 on the {split} split ({num_records} records). Mean over seeds ± half width "
        f"of the 95 % interval (Student's t over seeds{TWO_SEEDS if len(run.grid.seeds) == 2 else ''}). "
        f"`{MEAN}` averages {averaged}.",
        markdown_table(header, body),
        _glossary(run),
        "## Every cell",
        _cells(run, tasks),
        "## Data",
        data_facts(run),
    ]
    if gate:
        parts += ["## The gate", gate]
    if found := findings(run):
        parts += ["## Beside the ceiling of text alone", "\n".join(f"- {finding}" for finding in found)]
    if run.grid.first.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in run.grid.first.notes)]
    if run.crashed:
        parts.append(f"## Crashed ({len(run.crashed)}; run the grid again to try them again)")
        for cell in run.crashed:
            line = run.results.get(cell.hash, {})
            parts.append(f"{cell.variant}, seed {cell.seed}: {line.get('error', 'not run')}")
            parts.append(f"```\n{line.get('traceback', '')}\n```")
    return "\n\n".join(parts) + "\n"


def _given_row(name: str, values: Sequence[float | None]) -> list[str]:
    """Return a row of figures that no cell has reached: a ceiling, or what is published."""
    return [f"*{name}*", "", *("" if value is None else f"{value:.3f}" for value in values), "", "", "", "", ""]


def _glossary(run: GridRun) -> str:
    lines = []
    if run.ceilings:
        lines.append(
            "*Ceiling of text alone*: the best F1 that any rule can reach which sees only the text, computed from the "
            "distribution that the data set is drawn from."
        )
    if any(one.is_oracle for one in run.scored):
        lines.append(
            "*MEAE (oracle events)* is asked about the annotated events, type and trigger: an oracle beside a "
            "pipeline that detects them first."
        )
    if any(task_class(one.task).is_staged and not one.is_oracle for one in run.scored):
        lines.append("*MEAE* is asked about the events that MED predicted: an argument of a missed event is missed.")
    for name, source, _ in joined(run.grid.reference, run.scored):
        lines.append(f"*{name}*: {source}; printed there, not measured here.")
    lines.append(
        "*Gate*: mean over the records with an image; *gate closed*: share of them with g <= 0, where the visual path "
        "starves; *visual gradient*: norm of the loss's gradient on the visual path after training."
    )
    return "\n\n".join(lines)


def _cells(run: GridRun, tasks: Sequence[str]) -> str:
    header = [
        "variant",
        "seed",
        *(f"{title(run, task)} [95 %]" for task in tasks),
        MEAN,
        "gate closed",
        "dropped",
        "encoder calls",
    ]
    body = []
    for cell in run.cells:
        line = run.results.get(cell.hash)
        if line is None or line["status"] != "ok":
            body.append(
                [cell.variant, str(cell.seed), *["crashed" if line else "not run"] * (len(tasks) + 1), "", "", ""]
            )
            continue
        metrics = line["metrics"]
        closed = line["health"].get("gate_closed")
        body.append(
            [
                cell.variant,
                str(cell.seed),
                *(shown_interval(metrics[task]) for task in tasks),
                f"{score(line, MEAN, run.mean_over):.3f}",
                "-" if closed is None else f"{closed:.0%}",
                str(sum(metrics[task]["dropped"] for task in tasks)),
                f"{line.get('images', {}).get('encoder_calls', '-')}",
            ]
        )
    return markdown_table(header, body) + (
        "\n\nIntervals here come from resampling the records of the split, for one trained model. *Dropped*: generated "
        "items that were ill-formed, not in the text, or no region. *Encoder calls*: images that went through the "
        "visual encoder."
    )


def _csv(run: GridRun, table: Sequence[Row]) -> str:
    """One line for each variant and task, with the single values beside mean and interval."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    published = joined(run.grid.reference, run.scored)
    names = [f"reference: {name}" for name, _, _ in published]
    header = ["variant", "task", "num_seeds", "f1_mean", "f1_t95_half_width", "f1_by_seed", "ceiling", *names]
    writer.writerow(header)
    keys = [one.key for one in run.scored]
    oracles = [one.key for one in run.scored if one.is_oracle]
    for row in table:
        for name, interval in row.scores.items():
            values = [score(line, name, run.mean_over) for line in row.lines]
            ceiling = mean_ceiling(run) if name == MEAN else run.ceilings.get(name)
            writer.writerow(
                [
                    row.variant,
                    f"{name} (oracle events)" if name in oracles else name,
                    len(values),
                    _plain(interval.mean),
                    _plain(interval.half_width),
                    " ".join(f"{line['seed']}:{value:.6f}" for line, value in zip(row.lines, values, strict=True)),
                    _plain(ceiling),
                    *("" if name == MEAN else _plain(values[keys.index(name)]) for _, _, values in published),
                ]
            )
    return buffer.getvalue()


def _plain(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6f}"
