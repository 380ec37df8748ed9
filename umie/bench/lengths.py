"""Lengths of real inputs in tokens, so that ragged shapes are as ragged as they are in use."""

from __future__ import annotations

from pathlib import Path

from umie import tasks
from umie.errors import UmieError
from umie.records import read_jsonl

MOST = 5_000  # records are enough for a distribution


def read_lengths(path: Path) -> list[int]:
    """Return the number of tokens of each query about the records of a JSONL file: the instruction, then the text.

    The tokens are those of the embedded data set's tokenizer, which needs no download.

    Args:
        path: records in JSONL; ``umie data convert`` makes them.

    Raises:
        UmieError: the file cannot be read, or gives no query.
    """
    from umie.composition import default_tokenizer

    tokenizer = default_tokenizer({"source": "tiny"})
    built = {name: tasks.registry.build(name) for name in tasks.registry.names()}
    texts = []
    for number, record in enumerate(read_jsonl(path)):
        if number == MOST:
            break
        for name, task in built.items():
            if record.annotated_for(name):
                texts += [f"{query.instruction} {record.text}".rstrip() for query in task.queries(record)]
    if not texts:
        raise UmieError(f"{path}: no record gives a query: give records that are annotated for a task")
    return [len(token_ids) for token_ids in tokenizer(texts)["input_ids"]]
