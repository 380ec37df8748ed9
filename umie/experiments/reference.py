"""Published figures that a report shows beside the measured ones; those of the paper lie in paper.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from umie.errors import UmieError, UnknownNameError, shown
from umie.experiments.scored_tasks import ScoredTask

Scores = Mapping[str, Mapping[str, float]]  # F1 in percent, by data set and task


@dataclass(frozen=True)
class Reference:
    """One row of published figures.

    Args:
        title: what tables call it.
        source: where it is printed.
        values: by data set and task.
        wording: the instruction that they were reached with, where the source tells several apart.
    """

    title: str
    source: str
    values: Scores = field(default_factory=dict)
    wording: str | None = None

    def f1(self, one: ScoredTask) -> float | None:
        """Return the published F1 (0..1) of what a grid scores, or None."""
        if self.wording is not None and one.wording is not None and not one.key.endswith(f"[{self.wording}]"):
            return None
        value = self.values.get(one.data_set, {}).get(one.task)
        return None if value is None else value / 100


@cache
def paper() -> dict[str, Any]:
    """Return the figures of the paper."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("paper.json").read_text(encoding="utf-8"))
    return found


def read_reference(value: object) -> list[Reference]:
    """Return the key ``reference`` of a grid file as rows.

    Args:
        value: None; names of the paper's tables (``paper-table-4-base``), one or a list; or figures of one's own, F1
            in percent by data set and task, with ``title`` and ``source``.

    Raises:
        UmieError: no such table, or a value that is no F1 in percent.
    """
    several = list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
    return [row for one in several for row in _rows(one)]


def _rows(value: object) -> list[Reference]:
    tables = paper()["tables"]
    if isinstance(value, dict):
        title, source = str(value.get("title", "reference")), str(value.get("source", "the grid file"))
        scores = {name: given for name, given in value.items() if name not in ("title", "source")}
        for name, given in scores.items():
            fits = isinstance(given, dict) and all(_is_percent(number) for number in given.values())
            if not fits:
                raise UmieError(f"reference of {name!r} is {shown(given)}: give F1 in percent (0 to 100) by task")
        return [Reference(title, source, scores)]
    if not isinstance(value, str) or value not in tables:
        raise UnknownNameError("reference", value, tables)
    table = tables[value]
    if "values" in table:
        return [Reference(table["title"], table["source"], table["values"])]
    return [
        Reference(f"{table['title']}, {wording}", table["source"], values, wording)
        for wording, values in table["wordings"].items()
    ]


def joined(rows: Sequence[Reference], scored: Sequence[ScoredTask]) -> list[tuple[str, str, list[float | None]]]:
    """Return title, source and F1 of each row that has any of what a grid scores.

    Rows of several wordings become one where the grid scores each wording on its own.
    """
    merged: dict[tuple[str, str], list[float | None]] = {}
    for row in rows:
        is_wording = row.wording is not None and any(one.wording is not None for one in scored)
        title = row.title.removesuffix(f", {row.wording}") if is_wording else row.title
        before = merged.setdefault((title, row.source), [None] * len(scored))
        merged[title, row.source] = [
            new if old is None else old for old, new in zip(before, (row.f1(one) for one in scored), strict=True)
        ]
    return [(title, source, values) for (title, source), values in merged.items() if any(values)]


def _is_percent(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100
