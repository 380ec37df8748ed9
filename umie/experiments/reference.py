"""Published scores that reports show next to the measured ones; those of the paper are in ``paper.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from umie.configs import as_list
from umie.errors import UmieError, UnknownNameError, shown
from umie.experiments.scored_tasks import ScoredTask


@dataclass(frozen=True)
class Reference:
    """Published scores of one system."""

    title: str
    source: str
    values: Mapping[str, Mapping[str, float]]  # F1 in percent, by data set and task
    wording: str | None = None  # the instruction that was used, if the source distinguishes several

    def f1(self, one: ScoredTask) -> float | None:
        """Return the published F1 (0..1) of a scored task, or None."""
        if self.wording is not None and one.wording is not None and not one.key.endswith(f"[{self.wording}]"):
            return None
        value = self.values.get(one.data_set, {}).get(one.task)
        return None if value is None else value / 100


class Published(NamedTuple):
    """Published F1 (0..1) of everything that a grid scores, None where nothing was published."""

    title: str
    source: str
    values: list[float | None]

    @property
    def label(self) -> str:
        """The title and the short source, e.g. ``paper: UMIE-Base (Table 4)``."""
        return f"{self.title} ({self.source.split(':')[0]})"


@cache
def paper() -> dict[str, Any]:
    """Return the scores, data sizes and gate statistics of the paper."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("paper.json").read_text(encoding="utf-8"))
    return found


def read_reference(value: object) -> list[Reference]:
    """Read the key ``reference`` of a grid file.

    ``value`` is None, the name of a table of the paper such as ``paper-table-4-base``, a mapping with custom scores (F1
    in percent by data set and task, and optionally ``title`` and ``source``), or a list of names and mappings.

    Raises:
        UmieError: unknown table, or a value that is not an F1 in percent.
    """
    return [row for one in as_list(value) for row in _rows(one)]


def _rows(value: object) -> list[Reference]:
    tables = paper()["tables"]
    if isinstance(value, dict):
        scores = {name: by_task for name, by_task in value.items() if name not in ("title", "source")}
        for name, by_task in scores.items():
            is_valid = isinstance(by_task, dict) and all(
                type(score) in (int, float) and 0 <= score <= 100 for score in by_task.values()
            )
            if not is_valid:
                raise UmieError(
                    f"reference: {name!r} is {shown(by_task)}: use F1 in percent by task, as in {{mner: 88}}"
                )
        return [Reference(str(value.get("title", "reference")), str(value.get("source", "the grid file")), scores)]
    if not isinstance(value, str) or value not in tables:
        raise UnknownNameError("reference", value, tables)
    table = tables[value]
    if "values" in table:
        return [Reference(table["title"], table["source"], table["values"])]
    return [
        Reference(f"{table['title']}, {wording}", table["source"], values, wording)
        for wording, values in table["wordings"].items()
    ]


def published(rows: Sequence[Reference], scored: Sequence[ScoredTask]) -> list[Published]:
    """Return the published scores of each system that has any for the scored tasks.

    If the grid scores several wordings, the rows of one system for different wordings are merged.
    """
    merged: dict[tuple[str, str], list[float | None]] = {}
    for row in rows:
        is_wording = row.wording is not None and any(one.wording is not None for one in scored)
        title = row.title.removesuffix(f", {row.wording}") if is_wording else row.title
        before = merged.setdefault((title, row.source), [None] * len(scored))
        merged[title, row.source] = [
            new if old is None else old for old, new in zip(before, (row.f1(one) for one in scored), strict=True)
        ]
    return [Published(title, source, values) for (title, source), values in merged.items() if any(values)]
