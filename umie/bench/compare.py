"""Changes between two results that exceed the noise."""

from __future__ import annotations

from dataclasses import dataclass

from umie.bench.ratios import Spread, ratio, spread
from umie.bench.results import DONE, Results, Row, RowKey
from umie.errors import UmieError

TOLERANCE = 0.05  # minimum relative difference of two medians that counts as a change
SAME = ("device", "device_name", "threads")  # must be equal for two results to be comparable
MEMORY_TOLERANCE = 0.01  # memory is counted and has no noise


@dataclass(frozen=True)
class Change:
    """A row of the newer result that changed, or of the older one if it is gone."""

    row: Row
    verdict: str  # slower, faster, more memory, less memory, new, gone, broken, fixed
    detail: str
    is_sure: bool = True  # False for a time of too few rounds

    @property
    def is_worse(self) -> bool:
        """Whether the change is a regression."""
        return self.is_sure and self.verdict in ("slower", "more memory", "broken")


def differences(old: Results, new: Results) -> list[str]:
    """Return the differences between two runs that make their times incomparable."""
    found = []
    for name in SAME:
        before, after = old.environment.get(name), new.environment.get(name)
        if before != after:
            found.append(f"{name.replace('_', ' ')} was {before}, is {after}")
    dtypes = [sorted({row.dtype for row in results.rows}) for results in (old, new)]
    if not set(dtypes[0]) & set(dtypes[1]):
        found.append(f"dtypes were {', '.join(dtypes[0])}, are {', '.join(dtypes[1])}")
    return found


def changes(old: Results, new: Results, *, tolerance: float = TOLERANCE, of_limit: bool = False) -> list[Change]:
    """Return the changes: interquartile ranges that do not overlap, and medians that differ by the tolerance or more.

    With ``of_limit`` they are those of the ratios to the bare matrix products, which do not depend on the load of the
    machine, instead of times. Rows without a limit are compared by their times.

    Raises:
        UmieError: the two results have no row in common.
    """
    before, after = ({row.key: row for row in results.rows} for results in (old, new))
    if not before.keys() & after.keys():
        raise UmieError("the two results have no row in common: measure the same shapes, dtypes and blocks")
    old_times, new_times = (_compared(results, of_limit) for results in (old, new))
    found = []
    for key, row in after.items():
        was = before.get(key)
        if was is None:
            found.append(Change(row, "new", _milliseconds(row)))
            continue
        if was.status != row.status:
            verdict = "broken" if was.status == DONE else "fixed" if row.status == DONE else "new"
            found.append(Change(row, verdict, f"was {was.reason or was.status}, is {row.reason or row.status}"))
            continue
        if key in old_times and key in new_times:
            unit = "x bare products" if of_limit and row.kind != "limit" else "ms"
            earlier, now = old_times[key], new_times[key]
            change = now.median / earlier.median
            if now.is_apart(earlier) and not 1 / (1 + tolerance) <= change <= 1 + tolerance:
                is_sure = earlier.is_enough and now.is_enough
                detail = f"{earlier} -> {now} {unit}, x {change:.2f}" + ("" if is_sure else ", too few rounds")
                found.append(Change(row, "slower" if change > 1 else "faster", detail, is_sure))
        if was.peak_bytes and row.peak_bytes is not None:
            share = row.peak_bytes / was.peak_bytes
            if abs(share - 1) > MEMORY_TOLERANCE:
                detail = f"{was.peak_bytes / 2**20:.3g} -> {row.peak_bytes / 2**20:.3g} MiB, x {share:.2f}"
                found.append(Change(row, "more memory" if share > 1 else "less memory", detail))
    return found + [Change(row, "gone", _milliseconds(row)) for key, row in before.items() if key not in after]


def _compared(results: Results, of_limit: bool) -> dict[RowKey, Spread]:
    """Return the compared quantity of each timed row."""
    timed = [row for row in results.rows if row.time is not None]
    limits = {(*row.group, row.block): row for row in timed if of_limit and row.kind == "limit"}
    found = {}
    for row in timed:
        limit = limits.get((*row.group, row.block), row)
        found[row.key] = spread(row.seconds).times(1000) if limit is row else ratio(row.seconds, limit.seconds)
    return found


def _milliseconds(row: Row) -> str:
    return f"{1000 * row.time.median:.3g} ms" if row.time else row.status
