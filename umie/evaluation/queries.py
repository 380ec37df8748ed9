"""QueryDataset: all queries of some tasks about some records, as the tensors that training and evaluation batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from umie.errors import UmieError
from umie.processor import UmieProcessor
from umie.records import Record
from umie.tasks import Query, Task

KEPT_BYTES = 1 << 30  # images beyond this are preprocessed anew each time, so that memory stays bounded


class QueryDataset(Dataset[dict[str, Tensor]]):
    """Texts are encoded once; images when they are first asked for, and shared by the queries of a record.

    Args:
        records: the records; a task is asked about those that are annotated for it, and that the processor's
            policy for images does not leave out.
        tasks: names of the tasks, or built tasks, e.g. with the label schema of one data set.
        processor: encodes them.

    Attributes:
        asked: the record and the query of each item.
        lengths: number of input tokens of each query.

    Raises:
        UmieError: there is nothing to ask.
    """

    def __init__(self, records: Sequence[Record], tasks: Sequence[str | Task[Any]], processor: UmieProcessor) -> None:
        self._processor = processor
        self.asked: list[tuple[Record, Query]] = []
        self._texts: list[dict[str, Tensor]] = []
        self._images: dict[int, dict[str, Tensor]] = {}
        self._kept_bytes = 0
        self._source: object = processor.features
        built = [processor.task(task) for task in tasks]
        for record in processor.usable(records):
            for task in built:
                if record.annotated_for(task.name):
                    queries = task.queries(record)
                    self.asked += [(record, query) for query in queries]
                    self._texts += [processor.encode_query(record, query) for query in queries]
        if not self._texts:
            raise UmieError(f"no record gives a query for any of the tasks {', '.join(task.name for task in built)}")
        self.lengths = [len(text["input_ids"]) for text in self._texts]

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {**self._texts[index], **self._visual_tensors(self.asked[index][0])}

    def _visual_tensors(self, record: Record) -> dict[str, Tensor]:
        if self._processor.features is not self._source:  # what is kept was made by another source
            self._source = self._processor.features
            self._images.clear()
            self._kept_bytes = 0
        with_image = self._images.get(id(record))
        if with_image is None:
            with_image = self._processor.encode_image(record)
            if self._processor.features is not None:  # mapped from files, of which a process may hold so many
                with_image = {name: tensor.clone() for name, tensor in with_image.items()}
            num_bytes = sum(tensor.nbytes for tensor in with_image.values())
            if self._kept_bytes + num_bytes <= KEPT_BYTES:
                self._kept_bytes += num_bytes
                self._images[id(record)] = with_image
        return with_image
