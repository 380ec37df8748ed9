"""Rows compared with the limit, the fastest peer, and the plain implementation of their block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from umie.bench.ratios import Spread, ratio
from umie.bench.results import DONE, Results, Row

PLAIN = "plain"  # prefix of the names of the plain implementations


@dataclass
class Entry:
    """A row and its ratios."""

    row: Row
    of_limit: Spread | None = None  # time relative to the bare matrix products
    of_peer: Spread | None = None  # time relative to the fastest peer of the block
    of_plain_memory: float | None = None  # peak memory relative to the plain implementation


@dataclass(frozen=True)
class Block:
    """The entries of one block that were timed in alternation."""

    shape: str
    dtype: str
    direction: str
    name: str
    entries: Sequence[Entry]
    peer: Row | None

    @property
    def timed(self) -> list[Entry]:
        """The entries that were timed."""
        return [entry for entry in self.entries if entry.row.status == DONE]


def blocks_of(results: Results) -> Iterator[Block]:
    """Yield the blocks in the order in which they were measured."""
    found: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in results.rows:
        found.setdefault((*row.group, row.block), []).append(row)
    order = {group: index for index, group in enumerate(dict.fromkeys(row.group for row in results.rows))}
    for key, rows in sorted(found.items(), key=lambda item: order[item[0][:3]]):
        times = {row.key: row.time.median for row in rows if row.time is not None}
        peers = [row for row in rows if row.kind == "peer" and row.key in times]
        peer = min(peers, key=lambda row: times[row.key], default=None)
        limit = next((row for row in rows if row.kind == "limit" and row.key in times), None)
        plain = next((row for row in peers if row.name.startswith(PLAIN)), None)
        plain_bytes = None if plain is None else plain.peak_bytes
        entries = []
        for row in rows:
            entry = Entry(row)
            if row.time is not None:
                if limit is not None and limit is not row:
                    entry.of_limit = ratio(row.seconds, limit.seconds)
                if peer is not None and row.kind == "ours":
                    entry.of_peer = ratio(row.seconds, peer.seconds)
                if plain_bytes and row.peak_bytes is not None:
                    entry.of_plain_memory = row.peak_bytes / plain_bytes
            entries.append(entry)
        yield Block(*key, entries, peer)


def not_timed(results: Results) -> list[tuple[str, str]]:
    """Return operations that were not timed or whose memory was not measured, with the reason.

    Directions and shapes that share a reason are one line.
    """
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in results.rows:
        if row.status != DONE or row.reason:
            found.setdefault((row.block, row.name, row.reason or row.status), []).append(row)
    done = {(row.block, row.name) for row in results.rows if row.status == DONE}
    lines = []
    for (block, name, reason), rows in found.items():
        where = "; ".join(dict.fromkeys(f"{row.shape} {row.dtype} {row.direction}" for row in rows))
        lines.append((f"{block}: {name}" + (f" ({where})" if (block, name) in done else ""), reason))
    return lines
