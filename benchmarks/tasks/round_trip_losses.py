"""Losses of the output styles: python benchmarks/tasks/round_trip_losses.py [NUM_RANDOM].

Counts the answers that are not preserved by writing and parsing, by style and reason, over the published files, if they
are available, and over random records with difficult spans and texts.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "tasks"))

from published import FILES, FOLDER, published
from random_records import asked_about, losses, random_record
from rich.console import Console
from rich.table import Table

from umie.records import Record
from umie.tasks import registry
from umie.tasks.styles import STYLES


def count(
    name: str, records: Iterable[tuple[Record, tuple[str, ...] | None]]
) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Return the numbers of queries and items, and the number of lost answers by style and reason."""
    totals: Counter[str] = Counter()
    lost: Counter[tuple[str, str]] = Counter()
    for record, labels in records:
        queries = registry.build(name, labels=labels).queries(record)
        for style in STYLES:
            task = registry.build(name, labels=labels, style=style)
            for query, reference in zip(task.queries(record), queries, strict=True):
                expected = asked_about(task, record, query)
                answer = task.parse(query.answer, record.text, query.target, len(record.regions))
                if style == "structured":
                    totals += Counter(queries=1, items=len(expected))
                if set(answer) != expected or answer.dropped:
                    lost[style, " + ".join(sorted(losses(task, record, reference))) or "UNKNOWN"] += 1
    return totals, lost


def main() -> None:
    """Print one row per file, task, style and reason."""
    table = Table("records of", "task", "queries", "items", "style", "lost", "reason")
    for format_name, file in [(name, file) for name, file in FILES if (FOLDER / file).exists()]:
        records = published(format_name, file)
        for name in records[0].tasks or ():
            row(table, file, name, *count(name, ((record, None) for record in records)))
    num_random = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    for name in registry.names() if num_random else ():
        drawn = (random_record(random.Random(f"{name}/{seed}").randint) for seed in range(num_random))
        row(table, f"{num_random} random", name, *count(name, drawn))
    Console(width=140).print(table)


def row(table: Table, source: str, name: str, totals: Counter[str], lost: Counter[tuple[str, str]]) -> None:
    """Add the rows of a file: one per lossless style, and one per reason of a loss."""
    for style in STYLES:
        found = {reason: number for (where, reason), number in lost.items() if where == style} or {"": 0}
        for reason, number in sorted(found.items()):
            table.add_row(source, name, str(totals["queries"]), str(totals["items"]), style, str(number), reason)


if __name__ == "__main__":
    main()
