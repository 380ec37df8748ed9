"""The tables of a grid about places: the mIoU of each medium, how grounding fails, and what calls could reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from umie.experiments.summary import GridLike, Interval, Row, rows
from umie.reports.tables import markdown_table
from umie.scoring.grounding_errors import ANNOTATED, MIOU, PREDICTED

Sums: TypeAlias = dict[str, tuple[float, float]]
_MIOU = tuple(name for one in MIOU.values() for name in (one, f"{one}, by item"))


def place_tables(run: GridLike) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return what each table says, its header and its rows, one for each variant; none without grounded tasks."""
    table = rows(run)
    sums = {row.variant: [_summed(line["metrics"]) for line in row.lines] for row in table}  # by seed
    about = "over all grounded tasks, as the mean over seeds with its 95% interval"
    found = []
    for said, names in (
        (f"Mean IoU of places (docs/scores.md), {about}.", _MIOU),
        (f"Predicted groundings: the share with each verdict, {about}.", tuple(PREDICTED)),
        (f"Annotated groundings: the share with each verdict, {about}.", tuple(ANNOTATED)),
    ):
        shares = {variant: _shares(by_seed, names) for variant, by_seed in sums.items()}
        used = [name for name in names if any(name in own for own in shares.values())]
        if used:
            body = [[variant, *(str(own.get(name, "-")) for name in used)] for variant, own in shares.items()]
            if names is not _MIOU:
                body = [[variant, _out_of(sums[variant], used[0]), *cells] for variant, *cells in body]
                meanings = {**PREDICTED, **ANNOTATED}
                said += " " + "; ".join(f"{name}: {meanings[name]}" for name in used) + "."
            found.append((said, ["variant", *([] if names is _MIOU else ["number"]), *used], body))
    calls = {row.variant: _gold_calls(row) for row in table}
    keys = [one.key for one in run.scored if any(one.key in own for own in calls.values())]
    if keys:
        titles = {one.key: one.title for one in run.scored}
        body = [[variant, *(str(own.get(key, "-")) for key in keys)] for variant, own in calls.items() if own]
        said = (
            "Annotated calls, carried out by the grounders: the F1 that each variant with calls would have if none of "
            "its answers was wrong. What is missing to 1 are errors of the grounders."
        )
        found.append((said, ["variant", *(titles[key] for key in keys)], body))
    return found


def places_section(run: GridLike) -> str:
    """Return the tables as Markdown; empty without grounded tasks."""
    return "\n\n".join(
        part for said, header, body in place_tables(run) for part in (said, markdown_table(header, body))
    )


def _shares(by_seed: Sequence[Sums], names: Sequence[str]) -> dict[str, Interval]:
    """Return the interval over seeds of each share that a variant has."""
    return {
        name: Interval.of([own[name][0] / own[name][1] for own in by_seed])
        for name in names
        if by_seed and all(own.get(name, (0, 0))[1] for own in by_seed)
    }


def _out_of(by_seed: Sequence[Sums], name: str) -> str:
    """Return the number of groundings that shares are of, as the mean over seeds."""
    numbers = [own.get(name, (0.0, 0.0))[1] for own in by_seed]
    return f"{sum(numbers) / len(numbers):.0f}" if numbers else "-"


def _summed(metrics: Mapping[str, Any]) -> Sums:
    """Return the total of each line over all tasks, and what it is out of."""
    found: Sums = {}
    for one in metrics.values():
        for name, (total, out_of) in one.get("groundings", {}).items():
            before = found.get(name, (0.0, 0.0))
            found[name] = before[0] + total, before[1] + out_of
    return found


def _gold_calls(row: Row) -> dict[str, Interval]:
    keys = [key for line in row.lines[:1] for key, one in line["metrics"].items() if "gold_calls" in one]
    return {key: Interval.of([line["metrics"][key]["gold_calls"] for line in row.lines]) for key in keys}
