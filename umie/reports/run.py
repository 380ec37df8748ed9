"""The report of a run: scores, curves and gates as a page with figures, and everything as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from umie.experiments.config import RunConfig
from umie.experiments.run import RunResult
from umie.experiments.variant import MEAN
from umie.files import atomic_write
from umie.reports.tables import markdown_table, shown_interval
from umie.versions import versions

CURVES, GATES, PAGE, NUMBERS = "curves.png", "gates.png", "report.md", "scores.json"
LIBRARIES = ("torch", "transformers")


def write_run_report(run: RunResult) -> str:
    """Write ``report.md``, ``scores.json``, ``curves.png`` and ``gates.png`` into the run's folder; return the page."""
    from umie.reports.gates import draw_gates

    draw_curves(run, run.folder / CURVES)
    last = list(run.gates)[-1] if run.gates else None
    gates = {} if last is None else {run.titles.get(key, key): list(own) for key, own in run.gates[last].items()}
    if gates:
        draw_gates(gates, run.folder / GATES)
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
        json.dump(numbers, file, indent=1, ensure_ascii=False)
    return page


def draw_curves(run: RunResult, path: Path) -> None:
    """Draw the loss and the dev scores against the step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    losses = [(entry["step"], entry["loss"]) for entry in run.history if "loss" in entry]
    scored = [(entry["step"], entry) for entry in run.history if "eval_mean_f1" in entry]
    figure = Figure(figsize=(9 if scored else 5, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 if scored else 1, squeeze=False)[0]
    axes[0].plot(*zip(*losses, strict=True), color="#4477aa") if losses else None
    axes[0].set(title="training loss", xlabel="step", ylabel="cross-entropy (nats a token)", yscale="log")
    if scored:
        names = [name for name in scored[0][1] if name.startswith("eval_") and name.endswith("_f1")]
        for name in names:
            label = name.removeprefix("eval_").removesuffix("_f1")
            style = {"color": "black", "linewidth": 2} if label == "mean" else {"linewidth": 1.2}
            axes[1].plot(
                [step for step, _ in scored], [entry[name] for _, entry in scored], marker=".", label=label, **style
            )
        best = run.measured.get("best_step")
        if best:
            axes[1].axvline(best, color="grey", linestyle=":", label=f"best: step {best}")
        axes[1].set(title="dev split", xlabel="step", ylabel="strict micro-F1", ylim=(-0.02, 1.02))
        axes[1].legend(fontsize="small", loc="best")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=130)


def _page(run: RunResult, *, has_gates: bool) -> Iterator[str]:
    config, measured = run.config, run.measured
    yield f"# {config.name}\n"
    for split, metrics in run.metrics.items():
        yield f"Best model on **{split}**: strict micro-F1 with the 95 % interval of sampling the records.\n"
        table = markdown_table(
            ["", "F1", "P", "R", "found", "gold", "dropped", "gate, mean", "gate <= 0"], list(_rows(run, metrics))
        )
        yield f"{table}\n"
    yield f"![loss and dev scores]({CURVES})\n"
    if has_gates:
        yield f"![the gate by task]({GATES})\n"
    yield "## What it rests on\n"
    for sentence in (*_weights(config), *run.facts):
        yield f"- {sentence}"
    yield (
        f"- {measured['steps']} steps, {measured['seconds']:.0f} s (this call, data and scoring included), "
        f"training loss {measured['train_loss']:.4f}"
    )
    if "best_step" in measured:
        yield f"- best on dev: {config.checkpoints.metric_for_best_model if config.checkpoints else MEAN} {measured['best']:.4f} at step {measured['best_step']}"
    yield f"- {', '.join(f'{name} {version}' for name, version in versions(*LIBRARIES).items())}; seed {config.seed}"
    for note in config.notes:
        yield f"- {note}"
    yield ""


def _rows(run: RunResult, metrics: Mapping[str, Any]) -> Iterator[list[str]]:
    for key, values in metrics.items():
        gate = [f"{values['gate_mean']:.3f}", f"{values['gate_closed']:.0%}"] if "gate_mean" in values else ["", ""]
        yield [
            run.titles.get(key, key),
            shown_interval(values),
            f"{values['precision']:.3f}",
            f"{values['recall']:.3f}",
            str(values["predicted"]),
            str(values["gold"]),
            str(values["dropped"]),
            *gate,
        ]


def _weights(config: RunConfig) -> Iterator[str]:
    if config.start_from is not None:
        yield f"weights: from {config.start_from}"
        return
    parts = {slot: getattr(config, slot) for slot in ("encoder", "fusion", "decoder")}
    shown = "; ".join(f"{slot}: {json.dumps(part, ensure_ascii=False)}" for slot, part in parts.items())
    start = " after a text-only start from random weights" if config.warm_start is not None else ""
    yield f"{shown}{start}" + (f" (preset {config.preset})" if config.preset else "")
