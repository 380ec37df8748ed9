"""The results of a benchmark run: one row per operation and direction, the environment, and the JSON format."""

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
        shape: the shape as text; ``widths`` holds its numbers.
        widths: ``size, batch, tokens, slots, ragged``.
        dtype: the dtype of weights and states.
        direction: ``forward`` or ``forward+backward``.
        block: the computation.
        name: the implementation.
        kind: ``ours``, ``peer`` or ``limit``.
        chosen: whether this is the default of our library, without a backend chosen by name.
        status: ``done``, ``wrong``, ``cannot run`` or ``not reached``.
        reason: why it is not done, or why its memory was not measured.
        note: a remark for the reader.
        error: relative error of the values, by the norm.
        gradient_error: the largest relative error of a gradient.
        seconds: the time of one operation, for each round.
        peak_bytes: peak memory.
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

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """The identity of this row within a run."""
        return self.shape, self.dtype, self.direction, self.block, self.name

    @property
    def group(self) -> tuple[str, str, str]:
        """The identity of the rows that were timed in alternation with this one."""
        return self.shape, self.dtype, self.direction

    @property
    def time(self) -> Spread | None:
        """The seconds of one operation, or None if it was not timed."""
        return spread(self.seconds) if self.status == DONE and self.seconds else None


@dataclass(kw_only=True)
class Results:
    """All rows of a run and the environment they were measured in.

    Args:
        environment: device, versions, threads, and so on; see ``umie.bench.environment``.
        options: the options of the run.
        rows: the rows in the order of the tables.
        complete: False if the run was interrupted.
    """

    environment: dict[str, Any]
    options: dict[str, Any]
    rows: list[Row]
    complete: bool = True

    def write(self, path: Path) -> None:
        """Write the results as JSON."""
        data = {"format": FORMAT, **dataclasses.asdict(self)}
        for row in data["rows"]:  # JSON has no NaN; `reason` reports such an error
            row |= {key: None for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)}
        with atomic_write(path) as file:
            json.dump(data, file, indent=1, ensure_ascii=False, allow_nan=False)
            file.write("\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read results from JSON; columns that older versions wrote and this one does not know are ignored.

        Raises:
            UmieError: the file is not a result of ``umie bench``.
        """
        data = read_json(path, "a result of `umie bench`")
        found = data.get("format") if isinstance(data, dict) else None
        if found != FORMAT:
            raise UmieError(f"{path}: format is {found!r}, not {FORMAT}: use a file written by this `umie bench`")
        columns = [column.name for column in dataclasses.fields(Row)]
        try:
            rows = [Row(**{name: row[name] for name in columns if name in row}) for row in data["rows"]]
            for row in rows:
                _check(row)
            return cls(
                environment=dict(data["environment"]),
                options=dict(data["options"]),
                rows=rows,
                complete=bool(data["complete"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UmieError(f"{path}: not a valid result of `umie bench` ({error}): measure again") from error


def _check(row: Row) -> None:
    if not all(isinstance(part, str) for part in (*row.key, row.kind, row.status)):
        raise ValueError("a row without a name, kind or status")
    numbers = [*row.seconds, *([] if row.peak_bytes is None else [row.peak_bytes])]
    for value in numbers:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"{value!r} in the row {row.block} {row.name} is not a time or a size")
    if 0 in row.seconds:
        raise ValueError(f"a time of 0 in the row {row.block} {row.name}")


def file_name(environment: Mapping[str, Any], dtypes: list[str]) -> str:
    """Return the name of a result file, made of the torch version, device, threads, and dtypes."""
    device = str(environment["device"]).split(":")[0]
    if device == "cpu":
        place = f"cpu_{environment['threads']}threads"
    else:
        place = re.sub(r"[^a-z0-9]+", "-", str(environment["device_name"]).lower()).strip("-")
    torch_version = str(environment["versions"]["torch"]).partition("+")[0]
    return f"fusion_torch{torch_version}_{place}_{'_'.join(dtypes)}"
