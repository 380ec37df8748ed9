"""Random samples of a file."""

from __future__ import annotations

import random
from collections.abc import Callable

from umie.data.source import Source
from umie.records import Record


def draw_records(
    source: Source, number: int, seed: int = 0, *, progress: Callable[[], None] = lambda: None
) -> list[tuple[int, Record]]:
    """Return a random sample of the records of a file with their numbers, in the order of the file.

    Source: reservoir sampling, algorithm R (Vitter 1985): one pass, and memory for the sample only.

    Args:
        source: the file.
        number: the size of the sample; a shorter file is returned as a whole.
        seed: the random seed.
        progress: called once per record.

    Raises:
        UmieError: the file cannot be read.
    """
    generator = random.Random(seed)
    drawn: list[tuple[int, Record]] = []
    for position, item in enumerate(source.numbered()):
        progress()
        slot = position if position < number else generator.randint(0, position)
        if slot < number:
            drawn[slot : slot + 1] = [item]
    return sorted(drawn, key=lambda item: item[0])
