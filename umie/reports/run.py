"""The report of a run: a Markdown page with scores and figures, and all numbers as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from umie.experiments.config import PARTS, RunConfig
from umie.experiments.run import BEST, RunResult
from umie.experiments.scored_tasks import DEV_MEAN, dev_mean_keys, f1_name, measure_of
from umie.files import atomic_write, json_text
from umie.reports.gates import draw_gates
from umie.reports.model_card import write_model_card
from umie.reports.style import (
    BLUE,
    DASHED,
    DOTTED,
    GRAY,
    add_legend,
    clean_axes,
    log_scale,
    new_figure,
    panels,
    save_figure,
    series_style,
)
from umie.reports.tables import markdown_table, shown_interval
from umie.scoring.report import grounded_note
from umie.versions import versions

CURVES, GATES, PAGE, NUMBERS = "curves.png", "gates.png", "report.md", "scores.json"
_STEPS = "training step (updates of the weights)"
LIBRARIES = ("torch", "transformers")


def write_run_report(run: RunResult) -> str:
    """Write the page, the scores and the figures of a run into its folder; return the page.

    The figures are the curves and, if the fusion has a gate, its distribution, each as PNG, PDF and SVG.
    """
    draw_curves(run, run.folder / CURVES)
    last = list(run.gates.values())[-1] if run.gates else {}
    gates = {run.titles.get(key, key): values for key, values in last.items() if values}
    if gates:
        draw_gates(gates, run.folder / GATES, vector=True)
    page = "\n".join(_page(run, has_gates=bool(gates)))
    with atomic_write(run.folder / PAGE) as file:
        file.write(page)
    numbers = {
        "measured": dict(run.measured),
        "metrics": run.metrics,
        "history": list(run.history),
        "facts": list(run.facts),
        "versions": versions(*LIBRARIES),
    }
    with atomic_write(run.folder / NUMBERS) as file:
        file.write(json_text(numbers, indent=1))
    if (run.folder / BEST).is_dir():
        write_model_card(run, run.folder / BEST)
    return page


def draw_curves(run: RunResult, path: Path) -> None:
    """Draw the training loss and the dev scores against the step."""
    losses = [(entry["step"], entry["loss"]) for entry in run.history if "loss" in entry]
    scored = [entry for entry in run.history if "eval_mean_f1" in entry]
    figure = new_figure(9 if scored else 5, 3.6)
    number = 2 if scored else 1
    loss_axes, *score_axes = panels(figure, number, number)
    if losses:
        loss_axes.plot(*zip(*losses, strict=True), color=BLUE)
        values = [loss for _, loss in losses]
        if min(values) > 0 and max(values) > 10 * min(values):
            log_scale(loss_axes)
    clean_axes(loss_axes, title="Training loss", x=_STEPS, y="mean loss (nats)")
    for axes in score_axes:
        _draw_scores(axes, run, scored)
        add_legend(figure, loc="outside right upper", columns=1)
    for axes in (loss_axes, *score_axes):
        axes.locator_params(axis="x", nbins=6, integer=True)
    save_figure(figure, path, vector=True)


def _draw_scores(axes: Any, run: RunResult, scored: Sequence[Mapping[str, Any]]) -> None:
    """Draw the dev scores; earlier lines are wider to remain visible below later ones with equal values."""
    steps = [entry["step"] for entry in scored]
    titles = {f"eval_{key.replace(' ', '_')}_f1": title for key, title in run.titles.items()}
    names = [name for name in titles if name in scored[0]]
    for number, name in enumerate(names):
        above = len(names) - 1 - number  # lines that may cover it
        style = {**series_style(number), "linewidth": 1.3 + 0.6 * above, "markersize": 3.5 + 1.5 * above}
        axes.plot(steps, [entry[name] for entry in scored], label=titles[name], **style)
    if len(names) > 1:
        axes.plot(steps, [entry["eval_mean_f1"] for entry in scored], label="mean", **{**DASHED, "linewidth": 1.8})
    if best := run.measured.get("best_step"):
        axes.axvline(best, label=f"best: step {best}", **{**DOTTED, "color": GRAY})
    axes.set_ylim(-0.02, 1.02)
    clean_axes(axes, title="Scores on the dev split", x=_STEPS, y="micro-F1 (0 to 1)")


def _page(run: RunResult, *, has_gates: bool) -> Iterator[str]:
    config, measured = run.config, run.measured
    yield f"# {config.name}\n"
    columns = ["", "F1", "P", "R", "found", "gold", "dropped", "mean gate", "gate closed"]
    for split, metrics in run.metrics.items():
        rows = []
        for key, values in metrics.items():
            gate = [f"{values['gate_mean']:.3f}", f"{values['gate_closed']:.0%}"] if "gate_mean" in values else ["", ""]
            shares = [shown_interval(values), f"{values['precision']:.3f}", f"{values['recall']:.3f}"]
            counts = [values[name] for name in ("predicted", "gold", "dropped")]
            rows.append([run.titles.get(key, key), *shares, *counts, *gate])
        yield f"Best model on **{split}**: {f1_name(config)} with its 95% bootstrap interval over records.\n"
        yield f"{markdown_table(columns, rows)}\n"
    if grounded := [task.upper() for task in run.corpus.tasks if measure_of(config, task)]:
        yield f"{grounded_note(grounded)}\n"
    yield f"![training loss and dev scores]({CURVES})\n"
    if has_gates:
        yield f"![gates by task]({GATES})\n"
    yield "## Setup\n"
    for sentence in (*_weights(config), *run.facts):
        yield f"- {sentence}"
    yield (
        f"- {measured['steps']} steps, {measured['seconds']:.0f} s (this call, with data preparation and scoring), "
        f"training loss {measured['train_loss']:.4f}"
    )
    if "best_step" in measured:
        metric = config.checkpoints.metric_for_best_model if config.checkpoints else DEV_MEAN
        over = f" (of {', '.join(dev_mean_keys(config, run.corpus))})" if metric == DEV_MEAN else ""
        yield f"- best dev score: {metric}{over} {measured['best']:.3f} at step {measured['best_step']}"
    yield f"- {', '.join(f'{name} {version}' for name, version in versions(*LIBRARIES).items())}; seed {config.seed}"
    for note in config.notes:
        yield f"- {note}"
    yield ""


def _weights(config: RunConfig) -> Iterator[str]:
    if config.start_from is not None:
        yield f"weights: {config.start_from}"
        return
    parts = {slot: part for slot in PARTS if (part := getattr(config, slot)) is not None}
    shown = "; ".join(f"{slot}: {json_text(part)}" for slot, part in parts.items())
    start = "; text-only warm start" if config.warm_start is not None else ""
    yield f"{shown}{start}" + (f" (preset {config.preset})" if config.preset else "")
