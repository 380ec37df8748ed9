"""Time of parsing outputs of length 1, 10 and 100 in every style: `make bench`; it must grow linearly.

The outputs are well-formed answers, and strings that are slow to parse with backtracking. Compare rows within a run.
"""

from __future__ import annotations

import time

import pytest

from umie import tasks
from umie.records import Event
from umie.tasks.base import Pair
from umie.tasks.styles import STYLES

PIECES = {
    "open bracket": "[",
    "escape": "|",
    "digit": "9",
    "space": " ",
    "comma": "a, ",
    "open item": "[person: ",
    "words of the text": "Ann ",
    "spot": "<spot>",
    "spots between spaces": " <spot> ",
    "sentinel 0": "<extra_id_0>",
    "sentinel 5": "<extra_id_5>",
    "half sentinel": "<extra_id_",
    "structured items": "[person: Ann] ",
    "paper items": "Person, Ann <spot> ",
    "relations": "Ann, peer, Ann Ann <spot> ",
    "numbered items": "[person: Ann]99 ",
    "released items": " <extra_id_0> person <extra_id_5> Ann <extra_id_1>",
}
LENGTH = 1000  # characters for size 1; real answers have a few hundred at most
TEXT = "Ann Ann Ann, a person, is in [NY] | NY " * 5
TARGETS = {"mre": Pair((0, 3), (0, 7)), "meae": Event("meet")}


def output(piece: str, size: int) -> str:
    """Return an output of a given size; words are in one long item, so that they are searched in the text."""
    if piece == PIECES["words of the text"]:
        return f"[person: {piece * (LENGTH * size // 4)}]"
    return (piece * (LENGTH * size // len(piece) + 1))[: LENGTH * size]


@pytest.mark.parametrize("size", [1, 10, 100])
@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("style", STYLES)
def test_parse(benchmark, style, piece, size):
    task = tasks.registry.build("meae", style=style)
    string = output(PIECES[piece], size)
    benchmark.pedantic(task.parse, (string, TEXT, TARGETS["meae"], 2), rounds=5, iterations=max(1, 100 // size**2))


@pytest.mark.parametrize("name", tasks.registry.names())
def test_time_grows_with_the_length(benchmark, name):
    """Require at most 20 times the time for 10 times the length of answer and text, in every style."""

    def best_of(task, string, size) -> float:
        times = []
        for _ in range(3):
            start = time.process_time()
            task.parse(string, TEXT * size, TARGETS.get(name), 2)
            times.append(time.process_time() - start)
        return min(times)

    def worst() -> tuple[float, str]:
        ratios = []
        for style in STYLES:
            task = tasks.registry.build(name, style=style)
            for piece in PIECES:
                short, long = (best_of(task, output(PIECES[piece], size), size) for size in (10, 100))
                ratios.append((long / max(short, 1e-4), f"{style}, {piece}"))
        return max(ratios)

    ratio, which = benchmark.pedantic(worst, rounds=1)
    benchmark.extra_info["worst ratio for 10 times the length"] = round(ratio, 1)
    benchmark.extra_info["where"] = which
    assert ratio < 20, (ratio, which)
