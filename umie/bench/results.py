"""The results of a benchmark run: one row per operation and direction, the environment, and the JSON format."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from umie.bench.ratios import Spread, spread
from umie.errors import UmieError
from umie.files import atomic_write, read_json

FORMAT = 1
RowKey = tuple[str, str, str, str, str]
DONE, WRONG, CANNOT, MISSED = "done", "wrong", "cannot run", "not reached"


@dataclass(kw_only=True)
class Row:
    """One operation in one direction, with its time in each round."""

    shape: str
    widths: Mapping[str, Any]  # size, batch, tokens, slots, ragged
    dtype: str
    direction: str  # forward or forward+backward
    block: str  # the computation
    name: str  # the implementation
    kind: str  # ours, peer or limit
    chosen: bool = False  # whether this is the default of our library, without a backend chosen by name
    status: str = MISSED  # done, wrong, cannot run or not reached
    reason: str | None = None  # why it is not done, or why its memory was not measured
    note: str = ""
    error: float | None = None  # relative error of the values, by the norm
    gradient_error: float | None = None  # the largest relative error of a gradient
    seconds: list[Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]] = field(default_factory=list)
    peak_bytes: Annotated[int, Field(strict=True, ge=0)] | None = None

    @property
    def key(self) -> RowKey:
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
    """All rows of a run, in the order of the tables, and the environment they were measured in."""

    environment: dict[str, Any]  # see ``umie.bench.environment``
    options: dict[str, Any]
    rows: list[Row]
    complete: bool = True  # False if the run was interrupted

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
        try:
            return TypeAdapter(cls).validate_python({"complete": None, **data})  # it must be in the file
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UmieError(
                f"{path}: not a valid result of `umie bench` ({where}: {first['msg']}): measure again"
            ) from error


def file_name(environment: Mapping[str, Any], dtypes: list[str]) -> str:
    """Return the name of a result file, made of the torch version, device, threads, and dtypes."""
    device = str(environment["device"]).split(":")[0]
    if device == "cpu":
        place = f"cpu_{environment['threads']}threads"
    else:
        place = re.sub(r"[^a-z0-9]+", "-", str(environment["device_name"]).lower()).strip("-")
    torch_version = str(environment["versions"]["torch"]).partition("+")[0]
    return f"fusion_torch{torch_version}_{place}_{'_'.join(dtypes)}"
