"""The rows of a result as ratios: to the limit, to the nearest peer, to the floor of a device, in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from umie.bench.ratios import Spread, ratio
from umie.bench.results import DONE, Results, Row

PLAIN = "plain"  # what the names of the plain implementations begin with


@dataclass(frozen=True)
class Entry:
    """A row beside those that it is compared with.

    Args:
        row: the row.
        of_limit: its time by that of the bare products.
        of_peer: its time by that of the nearest peer, the fastest of its block.
        of_floor: its time by the least that bytes and operations allow.
        of_plain_memory: its peak memory by that of the plain block.
    """

    row: Row
    of_limit: Spread | None = None
    of_peer: Spread | None = None
    of_floor: float | None = None
    of_plain_memory: float | None = None


@dataclass(frozen=True)
class Block:
    """All entries of one block that were measured in turn."""

    shape: str
    dtype: str
    direction: str
    name: str
    entries: Sequence[Entry]
    peer: Row | None
    limit: Row | None
    plain: Row | None

    @property
    def chosen(self) -> Entry | None:
        """Our own as a user gets it; None where it was not timed."""
        return next((entry for entry in self.entries if entry.row.chosen and entry.row.status == DONE), None)


def blocks_of(results: Results) -> Iterator[Block]:
    """Yield the blocks in the order in which they were measured."""
    found: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in results.rows:
        found.setdefault((*row.group, row.block), []).append(row)
    order = {group: index for index, group in enumerate(dict.fromkeys(row.group for row in results.rows))}
    for key, rows in sorted(found.items(), key=lambda item: order[item[0][:3]]):
        timed = [row for row in rows if row.time is not None]
        peers = [row for row in timed if row.kind == "peer"]
        peer = min(peers, key=_median, default=None)
        limit = next((row for row in timed if row.kind == "limit"), None)
        plain = next((row for row in peers if row.name.startswith(PLAIN)), None)
        yield Block(*key, [_entry(row, peer, limit, plain) for row in rows], peer, limit, plain)


def _entry(row: Row, peer: Row | None, limit: Row | None, plain: Row | None) -> Entry:
    if row.time is None:
        return Entry(row)
    return Entry(
        row,
        of_limit=ratio(row.seconds, limit.seconds) if limit is not None and limit is not row else None,
        of_peer=ratio(row.seconds, peer.seconds) if peer is not None and row.kind == "ours" else None,
        of_floor=row.time.median / row.floor_s if row.floor_s else None,
        of_plain_memory=_shares(row, plain),
    )


def _shares(row: Row, plain: Row | None) -> float | None:
    if plain is None or not plain.peak_bytes or row.peak_bytes is None:
        return None
    return row.peak_bytes / plain.peak_bytes


def _median(row: Row) -> float:
    assert row.time is not None
    return row.time.median


def figure(value: float) -> str:
    """Return a number with three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def with_quartiles(found: Spread | None) -> str:
    """Return a median with its quartiles; ``-`` for nothing."""
    return "-" if found is None else f"{figure(found.median)} ({figure(found.low)}-{figure(found.high)})"


def mebibytes(num_bytes: int | None) -> str:
    """Return bytes in MiB; ``-`` for nothing."""
    return "-" if num_bytes is None else figure(num_bytes / 2**20)
