"""The report of a grid: one summary for each variant, as Markdown, CSV and a figure."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from umie.files import atomic_write
from umie.grid.figure import draw
from umie.grid.run import GridRun
from umie.grid.summary import MEAN, Row, mean_ceiling, rows, score, title

MIN_PICTURE_SHARE = 0.5  # below it, the table says that it is no evidence about fusion
TWO_SEEDS = "; with two of them the quantile is 12.7, so the interval is wide"


def write_report(run: GridRun, output: Path) -> str:
    """Write ``table.md``, ``table.csv`` and ``figure.png``; return the Markdown."""
    table = rows(run)
    markdown = _markdown(run, table)
    with atomic_write(output / "table.md") as file:
        file.write(markdown)
    with atomic_write(output / "table.csv") as file:
        file.write(_csv(run, table))
    draw(run, table, output / "figure.png")
    return markdown


def findings(run: GridRun) -> list[str]:
    """Set every cell beside the ceiling of text alone, which nothing that sees no picture may pass."""
    found = []
    for cell in run.cells:
        line = run.results.get(cell.hash)
        if line is None or line["status"] != "ok" or not run.data.ceilings:
            continue
        name = f"{cell.variant}, seed {cell.seed}"
        if line["uses_picture"]:
            above = score(line, MEAN, run.grid.mean_over) - mean_ceiling(run)
            found.append(f"{name}: mean {abs(above):.3f} {'above' if above > 0 else 'BELOW'} the mean ceiling")
            continue
        for task, ceiling in run.data.ceilings.items():
            f1, error = line["metrics"][task]["f1"], 1.96 * line["metrics"][task]["standard_error"]
            verdict = "holds" if f1 <= ceiling + error else "DOES NOT HOLD"
            found.append(
                f"{name}: {title(run, task)} {f1:.3f} <= ceiling {ceiling:.3f} + sampling error {error:.3f}: {verdict}"
            )
    return found


def _markdown(run: GridRun, table: Sequence[Row]) -> str:
    tasks = list(run.data.tasks)
    averaged = ", ".join(title(run, task) for task in run.grid.mean_over)
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
    if run.data.ceilings:
        known = [f"{run.data.ceilings[task]:.3f}" for task in tasks]
        body.append(["*ceiling of text alone*", "", *known, f"{mean_ceiling(run):.3f}", "", "", "", "", ""])
    for row in table:
        health = [_mean_of(row.lines, "health", key) for key in ("gate_mean", "gate_closed", "visual_gradient")]
        gate, closed, gradient = health
        body.append(
            [
                row.variant,
                str(len(row.lines)),
                *(str(row.scores[name]) for name in [*tasks, MEAN]),
                "-" if gate is None else f"{gate:.2f}",
                "-" if closed is None else f"{closed:.0%}",
                "-" if gradient is None else f"{gradient:.2g}",
                f"{row.lines[0]['parameters']:,}" if row.lines else "-",
                "-" if not row.lines else f"{statistics.mean(line['seconds']['train'] for line in row.lines):.0f}",
            ]
        )
    split = run.grid.evaluation.split
    parts = [
        f"# {run.grid.name}",
        f"Strict micro-F1 on the {split} split ({run.data.num_records[split]} records). Mean over seeds ± half width "
        f"of the 95 % interval (Student's t over seeds{TWO_SEEDS if len(run.grid.seeds) == 2 else ''}). "
        f"`{MEAN}` averages {averaged}.",
        _markdown_table(header, body),
        _glossary(run),
        "## Every cell",
        _cells(run, tasks),
        "## Data",
        _data_facts(run),
    ]
    if found := findings(run):
        parts += ["## Beside the ceiling of text alone", "\n".join(f"- {finding}" for finding in found)]
    if run.grid.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in run.grid.notes)]
    if run.crashed:
        parts.append(f"## Crashed ({len(run.crashed)}; run the grid again to try them again)")
        for cell in run.crashed:
            line = run.results.get(cell.hash, {})
            parts.append(f"{cell.variant}, seed {cell.seed}: {line.get('error', 'not run')}")
            parts.append(f"```\n{line.get('traceback', '')}\n```")
    return "\n\n".join(parts) + "\n"


def _glossary(run: GridRun) -> str:
    lines = []
    if run.data.ceilings:
        lines.append(
            "*Ceiling of text alone*: the best F1 that any rule can reach which sees only the text, computed from the "
            "distribution that the data set is drawn from."
        )
    if "meae" in run.data.tasks and run.grid.asks_about_gold_events:
        lines.append(
            f"*{title(run, 'meae')}* is asked about the annotated events, type and trigger: an oracle beside a "
            "pipeline that detects them first."
        )
    elif "meae" in run.data.tasks:
        lines.append("*MEAE* is asked about the events that MED predicted: an argument of a missed event is missed.")
    lines.append(
        "*Gate*: mean over the records with a picture; *gate closed*: share of them with g <= 0, where the visual path "
        "starves; *visual gradient*: norm of the loss's gradient on the visual path after training."
    )
    return "\n\n".join(lines)


def _cells(run: GridRun, tasks: Sequence[str]) -> str:
    header = [
        "variant",
        "seed",
        *(f"{title(run, task)} (± 1.96 s.e.)" for task in tasks),
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
                *(f"{metrics[task]['f1']:.3f} ± {1.96 * metrics[task]['standard_error']:.3f}" for task in tasks),
                f"{score(line, MEAN, run.grid.mean_over):.3f}",
                "-" if closed is None else f"{closed:.0%}",
                str(sum(metrics[task]["dropped"] for task in tasks)),
                f"{line.get('pictures', {}).get('encoder_calls', '-')}",
            ]
        )
    return _markdown_table(header, body) + (
        "\n\n± here is the sampling error over the records of the split, for one trained model. *Dropped*: generated "
        "items that were ill-formed, not in the text, or no region. *Encoder calls*: pictures that went through the "
        "visual encoder."
    )


def _data_facts(run: GridRun) -> str:
    facts = [
        f"- {split}: {run.data.num_records[split]} records, {run.data.num_pictures[split]} with a picture"
        for split in run.data.num_records
    ]
    facts += [
        f"- {count} records of {split} have a text that stands in train too: their scores flatter"
        for split, count in run.data.num_seen.items()
        if count
    ]
    missing = run.grid.missing_pictures
    facts.append(f"- a picture that is missing or cannot be read: `{missing}`")
    for split, reasons in run.data.unreadable.items():
        if reasons:
            kept = "left out" if missing == "skip" else "taken as text alone"
            reason = next(iter(reasons.values()))
            facts.append(
                f"- pictures of {split} that cannot be read: {len(reasons)}, their records are {kept}; e.g. {reason}"
            )
    facts += _random_encoders(run)
    facts += _encoded(run)
    facts += _boxes_left_out(run)
    facts.append(f"- decoding: {_decoding(run)}")
    for options in run.grid.training:
        facts.append(f"- training: {', '.join(f'{name} {value}' for name, value in options.items()) or 'defaults'}")
    lines = [line for line in run.results.values() if line["status"] == "ok"]
    truncated = {
        f"{name.replace('_', ' ')} ({split})": max(line["counts"].get(split, {}).get(name, 0) for line in lines)
        for split in ("train", run.grid.evaluation.split)
        for name in ("truncated_inputs", "truncated_targets")
        if lines
    }
    facts += [f"- {name}: {count}" for name, count in truncated.items() if count]
    evaluated = run.grid.evaluation.split
    if run.data.num_pictures[evaluated] < MIN_PICTURE_SHARE * run.data.num_records[evaluated]:
        facts.append(
            f"- only {run.data.num_pictures[evaluated]} of {run.data.num_records[evaluated]} records of {evaluated} "
            "have a picture: so few are no evidence about fusion"
        )
    environments = {
        f"device {line['device']}, {line['threads']} threads a cell; "
        + ", ".join(f"{name} {version}" for name, version in line["versions"].items())
        for line in lines
    }
    facts += [f"- {environment}" for environment in sorted(environments)]
    return "\n".join(facts)


def _encoded(run: GridRun) -> list[str]:
    """Say how often pictures went through frozen encoders whose features are kept."""
    stored = [
        line["pictures"]
        for line in run.results.values()
        if line["status"] == "ok" and line.get("pictures", {}).get("features") == "stored"
    ]
    if not stored:
        return []
    calls = sum(pictures["encoder_calls"] for pictures in stored)
    different = len({pictures["encoder"] for pictures in stored})
    most = max(pictures["readable"] for pictures in stored)
    return [
        f"- frozen encoders: {different} (by options and weights); cells: {len(stored)}; pictures: {most:,}; encoder "
        f"calls: {calls:,}, all else came from the feature store"
    ]


def _random_encoders(run: GridRun) -> list[str]:
    """Name frozen encoders that see nothing, for want of weights."""
    from umie import encoders

    random: dict[str, None] = {}
    for cell in run.cells:
        options = dict(cell.parts["encoder"])
        part = encoders.registry.get(options.pop("name"))
        config = part.Config(**options)  # type: ignore[attr-defined] # every encoder has one
        if config.has_random_weights and not config.trainable:
            random[cell.parts["encoder"]["name"]] = None
    return [
        f"- the weights of the frozen encoder {name} are random, others in every cell: its features say nothing"
        for name in random
    ]


def _boxes_left_out(run: GridRun) -> list[str]:
    """Say how many boxes of looked-up features were of no use."""
    counts = [line["pictures"]["boxes"] for line in run.results.values() if line.get("pictures", {}).get("boxes")]
    reasons = {reason for boxes in counts for reason in boxes if reason != "boxes"}
    left_out = {reason: max(boxes.get(reason, 0) for boxes in counts) for reason in sorted(reasons)}
    told = ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in left_out.items())
    return [f"- boxes of looked-up features that were left out: {told}"] if told else []


def _decoding(run: GridRun) -> str:
    evaluation = run.grid.evaluation
    options = ", ".join(f"{name} {value}" for name, value in evaluation.generation.items()) or "greedy"
    return f"{'under the grammar (constrained)' if evaluation.constrained else 'free'}, {options}"


def _markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    body = [[value.replace("|", "\\|") for value in line] for line in body]
    columns = [max(len(str(line[index])) for line in [header, *body]) for index in range(len(header))]
    lines = [header, ["-" * width for width in columns], *body]
    return "\n".join(
        "| " + " | ".join(str(value).ljust(width) for value, width in zip(line, columns, strict=True)) + " |"
        for line in lines
    )


def _csv(run: GridRun, table: Sequence[Row]) -> str:
    """One line for each variant and task, with the single values beside mean and interval."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["variant", "task", "num_seeds", "f1_mean", "f1_t95_half_width", "f1_by_seed", "ceiling"])
    for row in table:
        for name, interval in row.scores.items():
            values = [score(line, name, run.grid.mean_over) for line in row.lines]
            ceiling = run.data.ceilings.get(name, mean_ceiling(run) if run.data.ceilings and name == MEAN else None)
            writer.writerow(
                [
                    row.variant,
                    name if title(run, name) == name.upper() or name == MEAN else title(run, name).lower(),
                    len(values),
                    _plain(interval.mean),
                    _plain(interval.half_width),
                    " ".join(f"{line['seed']}:{value:.6f}" for line, value in zip(row.lines, values, strict=True)),
                    _plain(ceiling),
                ]
            )
    return buffer.getvalue()


def _mean_of(lines: Sequence[Mapping[str, Any]], group: str, key: str) -> float | None:
    values = [line[group][key] for line in lines if key in line[group]]
    return statistics.mean(values) if values else None


def _plain(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6f}"
