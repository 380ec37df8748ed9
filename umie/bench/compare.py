"""What moved between two results beyond noise."""

from __future__ import annotations

from dataclasses import dataclass

from umie.bench.lines import TOO_FEW
from umie.bench.ratios import Spread, ratio, spread
from umie.bench.results import DONE, Results, Row
from umie.errors import UmieError

TOLERANCE = 0.05  # least relative difference of two medians that is called a move
SAME = ("device", "device_name", "threads")  # what two results must share
MEMORY_TOLERANCE = 0.01  # memory is counted, not measured: it has no noise


@dataclass(frozen=True)
class Move:
    """One row that is not what it was.

    Args:
        row: of the newer result; of the older where it is gone.
        verdict: ``slower``, ``faster``, ``more memory``, ``less memory``, ``new``, ``gone``, ``broken`` or ``mended``.
        detail: the figures, as they stand in the table.
        is_sure: False for a time of too few rounds.
    """

    row: Row
    verdict: str
    detail: str
    is_sure: bool = True

    @property
    def is_worse(self) -> bool:
        """Whether the exit code tells of it."""
        return self.is_sure and self.verdict in ("slower", "more memory", "broken")


def differences(old: Results, new: Results) -> list[str]:
    """Return in what the two runs differ so that their times say nothing together."""
    found = []
    for name in SAME:
        before, after = old.environment.get(name), new.environment.get(name)
        if before != after:
            found.append(f"{name.replace('_', ' ')} was {before}, is {after}")
    dtypes = [sorted({row.dtype for row in results.rows}) for results in (old, new)]
    if not set(dtypes[0]) & set(dtypes[1]):
        found.append(f"dtypes were {', '.join(dtypes[0])}, are {', '.join(dtypes[1])}")
    return found


def moves(old: Results, new: Results, *, tolerance: float = TOLERANCE, of_limit: bool = False) -> list[Move]:
    """Return what moved: quartile ranges that have nothing in common, and medians further apart than the tolerance.

    Args:
        old: the result before.
        new: the result after.
        tolerance: least relative difference of the medians.
        of_limit: compare the ratios to the bare products, which a machine that is busier leaves alone, in place of
            times; rows without a limit are compared by their times.

    Raises:
        UmieError: the two have no row in common.
    """
    before, after = ({row.key: row for row in results.rows} for results in (old, new))
    if not before.keys() & after.keys():
        raise UmieError("the two results have no row in common: measure the same shapes, dtypes and blocks")
    figures = [_figures(results, of_limit) for results in (old, new)]
    found = []
    for key, row in after.items():
        was = before.get(key)
        if was is None:
            found.append(Move(row, "new", row.status if row.status != DONE else _ms(row)))
        elif was.status != row.status:
            verdict = "broken" if was.status == DONE else "mended" if row.status == DONE else "new"
            found.append(Move(row, verdict, f"was {was.reason or was.status}, is {row.reason or row.status}"))
        elif key in figures[0] and key in figures[1]:
            found += _moved(row, was, figures[0][key], figures[1][key], tolerance, of_limit)
    found += [Move(row, "gone", _ms(row)) for key, row in before.items() if key not in after]
    return found


def _moved(row: Row, was: Row, old: Spread, new: Spread, tolerance: float, of_limit: bool) -> list[Move]:
    found = []
    change = new.median / old.median
    if new.apart(old) and not 1 / (1 + tolerance) <= change <= 1 + tolerance:
        unit = "x bare products" if of_limit and row.kind != "limit" else "ms"
        detail = f"{_shown(old, unit)} -> {_shown(new, unit)} {unit}, x {change:.2f}"
        sure = old.is_enough and new.is_enough
        found.append(Move(row, "slower" if change > 1 else "faster", detail if sure else f"{detail}, {TOO_FEW}", sure))
    if was.peak_bytes and row.peak_bytes is not None:
        share = row.peak_bytes / was.peak_bytes
        if abs(share - 1) > MEMORY_TOLERANCE:
            detail = f"{was.peak_bytes / 2**20:.3g} -> {row.peak_bytes / 2**20:.3g} MiB, x {share:.2f}"
            found.append(Move(row, "more memory" if share > 1 else "less memory", detail))
    return found


def _figures(results: Results, of_limit: bool) -> dict[tuple[str, str, str, str, str], Spread]:
    """Return what is compared of each timed row."""
    limits = {
        (*row.group, row.block): row
        for row in results.rows
        if of_limit and row.kind == "limit" and row.time is not None
    }
    found = {}
    for row in results.rows:
        if row.time is None:
            continue
        limit = limits.get((*row.group, row.block))
        beside = limit is not None and limit is not row
        found[row.key] = ratio(row.seconds, limit.seconds) if limit and beside else spread(row.seconds).times(1000)
    return found


def _shown(found: Spread, unit: str) -> str:
    return f"{found.median:.3g} ({found.low:.3g}-{found.high:.3g})"


def _ms(row: Row) -> str:
    return f"{1000 * row.time.median:.3g} ms" if row.time else row.status
