"""Fuzz every output parser: pip install atheris; python tests/fuzz/fuzz_outputs.py CORPUS_FOLDER -max_total_time=600.

The first byte of an input chooses task and style; then come the number of regions, the ends of the pair that MRE
asks about, and, up to a NUL byte, the text; the rest is what a decoder is said to have written. A finding is any
exception, an item that is not in the text or the image, an answer that is read otherwise once it was written
again, or ten seconds for one input. ``-max_len=4096`` lets the inputs grow; ``PYTHONPATH`` must hold umie.
"""

from __future__ import annotations

from typing import Any

import atheris

with atheris.instrument_imports(include=["umie"]):
    from umie import tasks
    from umie.records import Argument, Entity, Event, Record, Region, Relation
    from umie.tasks import Task
    from umie.tasks.base import Pair
    from umie.tasks.styles import STYLES

    tasks.registry.names()  # imports every task

import harness  # after the instrumented imports

TEXT = "Ann [NY] NY, O1 <spot> 😀 <extra_id_5> Ann"
SEED = Record(
    TEXT,
    regions=(Region((0.0, 0.0, 1.0, 1.0)),),
    entities=(Entity("person", (0, 3)), Entity("location", (9, 11)), Entity("location", (4, 8))),
    relations=(Relation("part of", (0, 3), (9, 11)),),
    events=(Event("meet"), Event("attack", (0, 3), (Argument("Place", (9, 11)), Argument("Target", regions=(0,))))),
)


def decoded(content: bytes) -> str:
    """Return any bytes as a string, half pairs of UTF-16 too, where they are spelled."""
    try:
        return content.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return content.decode("utf-8", "replace")


def target(task: Task[Any]) -> harness.Target:
    """Return what reads an output of this task, and checks what was read."""

    def read(content: bytes) -> None:
        if len(content) < 4:
            return
        written, _, output = content[3:].partition(b"\0")
        text = written.decode("utf-8", "ignore")
        target: Any = Event("meet")
        if task.name == "mre":
            if not text:
                return
            head, tail = (content[1] % len(text), content[2] % len(text))
            target = Pair((head, len(text)), (tail, tail + 1))
        num_regions = content[0] % 4
        regions = tuple(Region((0, 0, (index + 1) / 4, 1)) for index in range(num_regions))
        record = Record(text, image="x", regions=regions)
        found = task.parse(decoded(output), record, target)
        assert found.dropped >= 0
        if not found:
            return
        record = task.with_items(record, found)  # which refuses spans outside
        structured = type(task)(type(task.config)(style="structured"))
        for query in structured.queries(record):
            again = structured.parse(query.answer, record, query.target)
            assert again.dropped == 0, query.answer
            assert set(again) <= set(found), (query.answer, again, found)

    return read


def is_calling(style: str) -> bool:
    """Return whether a style calls for places, so that its tasks must be grounded."""
    return STYLES[style].calls is not None


def seeds() -> list[tuple[str, bytes]]:
    """Return the written answers of a record, in every style."""
    return [
        (f"{name}/{style}", bytes([1, 0, 9]) + TEXT.encode() + b"\0" + query.answer.encode())
        for name in tasks.ordered()
        for style in STYLES
        for query in tasks.registry.build(name, style=style, grounded=is_calling(style)).queries(SEED)
    ]


def main() -> None:
    """Fuzz all parsers."""
    targets = {
        f"{name}/{style}": target(tasks.registry.build(name, style=style, grounded=is_calling(style)))
        for name in tasks.ordered()
        for style in STYLES
    }
    harness.run(targets, seeds())


if __name__ == "__main__":
    main()
