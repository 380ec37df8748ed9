"""What a run of the benchmarks found: a row for each operation and direction, and where it ran; and its JSON form."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umie.bench.ratios import Spread, spread
from umie.errors import UmieError
from umie.files import atomic_write, read_json

FORMAT = 1
DONE, WRONG, CANNOT, MISSED = "done", "wrong", "cannot run", "not reached"


@dataclass(kw_only=True)
class Row:
    """One operation in one direction.

    Args:
        shape: as text; ``widths`` has its numbers.
        widths: ``size, batch, tokens, slots, ragged``.
        dtype: of weights and states.
        direction: ``forward`` or ``forward+backward``.
        block: what is computed.
        name: by what.
        kind: ``ours``, ``peer`` or ``limit``.
        chosen: what a user of ours gets without asking for a backend.
        status: ``done``, ``wrong``, ``cannot run`` or ``not reached``.
        reason: why it is not done, or was not weighed.
        note: what a reader should know.
        error: of its values, relative to the norm.
        gradient_error: the largest of its gradients.
        seconds: of one operation, a figure for each round.
        peak_bytes: the most that it holds at a time.
        floor_s: the least time that bytes and operations allow on this device; None where nobody measured them.
    """

    shape: str
    widths: Mapping[str, Any]
    dtype: str
    direction: str
    block: str
    name: str
    kind: str
    chosen: bool = False
    status: str = MISSED
    reason: str | None = None
    note: str = ""
    error: float | None = None
    gradient_error: float | None = None
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    floor_s: float | None = None

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What tells this row from all others."""
        return self.shape, self.dtype, self.direction, self.block, self.name

    @property
    def group(self) -> tuple[str, str, str]:
        """What rows share that were measured in turn."""
        return self.shape, self.dtype, self.direction

    @property
    def time(self) -> Spread | None:
        """Seconds of one operation; None where it was not timed."""
        return spread(self.seconds) if self.status == DONE and self.seconds else None


@dataclass(kw_only=True)
class Results:
    """All rows, and what they were measured on.

    Args:
        environment: device, versions, threads, and what else a reader must know to compare.
        options: what was asked for.
        rows: in the order of the table.
        complete: False where the run was interrupted.
    """

    environment: dict[str, Any]
    options: dict[str, Any]
    rows: list[Row]
    complete: bool = True

    def write(self, path: Path) -> None:
        """Write JSON; nobody sees half of it."""
        data = {"format": FORMAT, **dataclasses.asdict(self)}
        with atomic_write(path) as file:
            json.dump(_plain(data), file, indent=1, ensure_ascii=False, allow_nan=False)
            file.write("\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read what ``write`` wrote.

        Raises:
            UmieError: it is no result of `umie bench`, or of another version of it.
        """
        data = read_json(path, "a file that `umie bench` wrote")
        found = data.get("format") if isinstance(data, dict) else None
        if found != FORMAT:
            raise UmieError(f"{path}: format is {found!r}, not {FORMAT}: give a file that this `umie bench` wrote")
        try:
            rows = [Row(**row) for row in data["rows"]]
            results = cls(
                environment=dict(data["environment"]),
                options=dict(data["options"]),
                rows=rows,
                complete=bool(data["complete"]),
            )
            for row in rows:
                _check(row)
        except (KeyError, TypeError, ValueError) as error:
            raise UmieError(f"{path}: is no result of `umie bench` ({error}): measure again") from error
        return results


def _check(row: Row) -> None:
    if 0 in row.seconds:
        raise ValueError(f"the row {row.block} {row.name} took no time")
    numbers = [row.seconds, [value for value in (row.peak_bytes, row.floor_s) if value is not None]]
    for value in (value for values in numbers for value in values):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"{value!r} in the row {row.block} {row.name} is no time and no size")
    if not all(isinstance(part, str) for part in (*row.key, row.kind, row.status)):
        raise ValueError(f"the row {row.block} {row.name} has no name, kind or status")


def _plain(value: Any) -> Any:
    """Return a value without NaN and infinity, which JSON does not have; an error that is NaN stands in ``reason``."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def file_name(environment: Mapping[str, Any], dtypes: list[str]) -> str:
    """Return what a file of results is called: device, threads, dtypes and the version of torch are in it."""
    device = str(environment["device"]).split(":")[0]
    if device == "cpu":
        place = f"cpu_{environment['threads']}threads"
    else:
        place = re.sub(r"[^a-z0-9]+", "-", str(environment["device_name"]).lower()).strip("-")
    torch_version = str(environment["versions"]["torch"]).partition("+")[0]
    return f"fusion_torch{torch_version}_{place}_{'_'.join(dtypes)}"
