"""Lengths of real inputs in tokens, so that ragged shapes are as ragged as in practice."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from umie import tasks
from umie.errors import UmieError
from umie.records import read_jsonl

MAX_RECORDS = 5_000  # enough for a distribution


def read_lengths(path: Path) -> list[int]:
    """Return the number of tokens (instruction and text) of each query about the records of a JSONL file.

    They are counted with the tokenizer of the embedded data set, which needs no download.

    Args:
        path: records in JSONL; ``umie data convert`` writes them.

    Raises:
        UmieError: the file cannot be read or yields no query.
    """
    from umie.composition import default_tokenizer

    tokenizer = default_tokenizer({"source": "tiny"})
    built = {name: tasks.registry.build(name) for name in tasks.registry.names()}
    texts = [
        f"{query.instruction} {record.text}".rstrip()
        for record in islice(read_jsonl(path), MAX_RECORDS)
        for name, task in built.items()
        if record.annotated_for(name)
        for query in task.queries(record)
    ]
    if not texts:
        raise UmieError(f"{path}: no record yields a query: use records that are annotated for a task")
    return [len(token_ids) for token_ids in tokenizer(texts)["input_ids"]]
