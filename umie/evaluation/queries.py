"""QueryDataset: the queries of several tasks about records, as tensors for training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from umie.errors import UmieError
from umie.processor import UmieProcessor
from umie.records import Record
from umie.tasks import Query, Task


class QueryDataset(Dataset[dict[str, Tensor]]):
    """Encoded queries. Texts are encoded once, an image on first access, for all data sets of a processor together.

    Args:
        records: the records. Each task is asked about the records that are annotated for it and whose image the
            processor does not skip.
        tasks: names of tasks, or task objects, e.g. with the label schema of one data set.
        processor: the processor that encodes the queries.

    Attributes:
        asked: the record and the query of each item.
        lengths: the number of input tokens of each query.

    Raises:
        UmieError: no record has a query.
    """

    def __init__(self, records: Sequence[Record], tasks: Sequence[str | Task[Any]], processor: UmieProcessor) -> None:
        self._processor = processor
        self.asked: list[tuple[Record, Query]] = []
        self._texts: list[dict[str, Tensor]] = []
        built = [processor.task(task) for task in tasks]
        for record in processor.usable(records):
            for task in built:
                if record.annotated_for(task.name):
                    queries = task.queries(record)
                    self.asked += [(record, query) for query in queries]
                    self._texts += [processor.encode_query(record, query, task) for query in queries]
        if not self._texts:
            names = ", ".join(task.name for task in built)
            raise UmieError(f"no record has a query for any of these tasks: {names}")
        self.lengths = [text["input_ids"].shape[-1] for text in self._texts]

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {**self._texts[index], **self._processor.encode_media(self.asked[index][0], cached=True)}
