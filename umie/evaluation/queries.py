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

MAX_CACHED_BYTES = 1 << 30  # of preprocessed images; others are preprocessed again on each access


class QueryDataset(Dataset[dict[str, Tensor]]):
    """Encoded queries. Texts are encoded once; an image is encoded on first access and shared by its record's queries.

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
        self._images: dict[int, dict[str, Tensor]] = {}
        self._cached_bytes = 0
        self._source: object = processor.features
        built = [processor.task(task) for task in tasks]
        for record in processor.usable(records):
            for task in built:
                if record.annotated_for(task.name):
                    queries = task.queries(record)
                    self.asked += [(record, query) for query in queries]
                    self._texts += [processor.encode_query(record, query) for query in queries]
        if not self._texts:
            names = ", ".join(task.name for task in built)
            raise UmieError(f"no record has a query for any of these tasks: {names}")
        self.lengths = [len(text["input_ids"]) for text in self._texts]

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {**self._texts[index], **self._visual_tensors(self.asked[index][0])}

    def _visual_tensors(self, record: Record) -> dict[str, Tensor]:
        if self._processor.features is not self._source:  # the cached tensors are from another source
            self._source = self._processor.features
            self._images.clear()
            self._cached_bytes = 0
        tensors = self._images.get(id(record))
        if tensors is None:
            tensors = self._processor.encode_image(record)
            if self._processor.features is not None:  # memory-mapped: a process can open only so many files
                tensors = {name: tensor.clone() for name, tensor in tensors.items()}
            num_bytes = sum(tensor.nbytes for tensor in tensors.values())
            if self._cached_bytes + num_bytes <= MAX_CACHED_BYTES:
                self._cached_bytes += num_bytes
                self._images[id(record)] = tensors
        return tensors
