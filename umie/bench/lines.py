"""What is expected of the fusion, held against what a run measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from umie.bench.operations import FORWARD, TRAINING
from umie.bench.ratios import Spread, ratio
from umie.bench.results import DONE, Results
from umie.bench.shapes import NUM_SLOTS
from umie.bench.table import Block, Entry, blocks_of

SLOWER = 1.05  # most time of our choice by that of its nearest peer
GATE = 8.0  # least time of the plain gate by that of ours
MEMORY = 0.9  # most peak of forward and backward by that of the plain block
# block, backend, most time by that of the bare products: without gradients, at _BARE_SHAPE in float32, as the gate
BARE = (("released", "sdpa", 1.06), ("released", "absorbed", 1.0), ("paper", "absorbed", 0.9))
TOO_FEW = "too few rounds"
_BARE_SHAPE = {"size": "base", "batch": 8, "tokens": 256, "slots": NUM_SLOTS, "ragged": False}
_MEMORY_SHAPE = {"batch": 16, "tokens": 256, "slots": NUM_SLOTS, "ragged": False}


@dataclass(frozen=True)
class Line:
    """One expectation.

    Args:
        what: is compared with what, where.
        found: the ratio, as it stands in the table.
        bound: what it shall be.
        holds: whether it is; None where too few rounds were made to say.
    """

    what: str
    found: str
    bound: str
    holds: bool | None

    @property
    def verdict(self) -> str:
        """``yes``, ``no``, or that there are too few rounds."""
        return TOO_FEW if self.holds is None else "yes" if self.holds else "no"


def lines(results: Results) -> list[Line]:
    """Return the expectations whose rows were measured; those for a CPU on a CPU alone."""
    found: list[Line] = []
    blocks = list(blocks_of(results))
    if str(results.environment["device"]) == "cpu":
        found += _gate(blocks)
        found += _bare(blocks)
    found += _memory(blocks)
    return [*found, *_peers(blocks)]


def _gate(blocks: Iterable[Block]) -> Iterator[Line]:
    for block in blocks:
        if block.name != "gate" or block.direction != FORWARD or block.plain is None or block.dtype != "float32":
            continue
        if (chosen := block.chosen) is not None and _fits(chosen, _BARE_SHAPE):
            faster = ratio(block.plain.seconds, chosen.row.seconds)
            what = f"{block.plain.name} by {chosen.row.name}: {_place(block)}"
            yield Line(what, _shown(faster), f"at least {GATE:g}", _judged(faster, faster.median >= GATE))


def _bare(blocks: Iterable[Block]) -> Iterator[Line]:
    for block in blocks:
        for name, backend, most in BARE:
            if (block.name, block.direction, block.dtype) != (name, FORWARD, "float32"):
                continue
            for entry in block.entries:
                if entry.row.name == f"umie {backend}" and entry.of_limit and _fits(entry, _BARE_SHAPE):
                    what = f"{entry.row.name} by bare products: {_place(block)}"
                    holds = _judged(entry.of_limit, entry.of_limit.median <= most)
                    yield Line(what, _shown(entry.of_limit), f"at most {most:g}", holds)


def _memory(blocks: Iterable[Block]) -> Iterator[Line]:
    for block in blocks:
        chosen = block.chosen
        if block.direction != TRAINING or chosen is None or chosen.of_plain_memory is None or block.name == "gate":
            continue
        if block.dtype == "float32" and _fits(chosen, _MEMORY_SHAPE):
            share = chosen.of_plain_memory
            what = f"peak memory of {chosen.row.name} by that of the plain block: {_place(block)}"
            yield Line(what, f"{share:.2f}", f"at most {MEMORY:g}", share <= MEMORY)


def _peers(blocks: Iterable[Block]) -> Iterator[Line]:
    for block in blocks:
        chosen = block.chosen
        if chosen is None or chosen.of_peer is None or block.peer is None:
            continue
        what = f"{chosen.row.name} by {block.peer.name}: {_place(block)}"
        holds = _judged(chosen.of_peer, chosen.of_peer.median <= SLOWER)
        yield Line(what, _shown(chosen.of_peer), f"at most {SLOWER:g}", holds)


def _judged(found: Spread, holds: bool) -> bool | None:
    return holds if found.is_enough else None


def _fits(entry: Entry, wanted: Mapping[str, object]) -> bool:
    return entry.row.status == DONE and all(entry.row.widths.get(name) == value for name, value in wanted.items())


def _place(block: Block) -> str:
    return f"{block.name}, {block.direction}, {block.shape}, {block.dtype}"


def _shown(found: Spread) -> str:
    return f"{found.median:.3g} ({found.low:.3g} to {found.high:.3g})"
