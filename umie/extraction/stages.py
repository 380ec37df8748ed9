"""The stages of an extraction: its tasks in the order of asking, and a record as they fill it in."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from umie import tasks
from umie.errors import UmieError, UnknownNameError
from umie.extraction.images import EncodedImage, image_size
from umie.extraction.result import Extraction, ExtractionAnswer, Notice
from umie.processor import UmieProcessor
from umie.records import Record
from umie.tasks import Task

Labels = Mapping[str, Sequence[str]]


def choose_tasks(wanted: Sequence[str] | None, processor: UmieProcessor) -> tuple[str, ...]:
    """Return the names of the tasks to ask, each once, in the order of asking.

    Args:
        wanted: task names; None selects the tasks of the checkpoint, or all known tasks if it does not name any.
        processor: the processor of the checkpoint.

    Raises:
        UmieError: a task is unknown, or the list is empty.
    """
    if wanted is None:
        return tasks.ordered(processor.task_options) or tasks.ordered()
    if isinstance(wanted, str):
        raise UmieError(f"tasks is {wanted!r}: pass a list of task names, [{wanted!r}]")
    if not wanted:
        raise UmieError("tasks is empty: name at least one task, or omit it")
    return tasks.ordered(wanted)


def build_tasks(
    names: Collection[str], labels: Labels | None, processor: UmieProcessor
) -> tuple[dict[str, Task[Any]], list[Notice]]:
    """Return the tasks and the tasks they depend on, with the given labels, and notices about untrained labels.

    Raises:
        UmieError: labels are given for a task that is not asked, or they are not valid.
    """
    needed = tasks.with_sources(names)
    built = {name: processor.task(name) for name in needed}
    notices = []
    for name, given in (labels or {}).items():
        if name not in built:
            raise UnknownNameError("task in labels:", name, needed)
        known = built[name].labels
        options = {**processor.task_options.get(name, {}), "labels": given}
        built[name] = tasks.registry.build(name, **options)
        new = [label for label in built[name].labels if label not in known]
        if new:
            notices.append(
                Notice("labels", f"{name}: the checkpoint was not trained on the labels {', '.join(map(repr, new))}")
            )
    return built, notices


@dataclass
class Draft:
    """An unfinished extraction.

    Args:
        given: the record as passed in.
        image: its encoded image.
        names: the requested tasks.

    Attributes:
        found: the record without its annotation; each task adds its items.
    """

    given: Record
    image: EncodedImage
    names: tuple[str, ...]
    found: Record = field(init=False)
    notices: list[Notice] = field(default_factory=list)
    answers: list[ExtractionAnswer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.found = replace(self.given, entities=(), relations=(), events=(), tasks=self.names, labels=None)

    def prepare(self, task: Task[Any], max_pairs: int) -> None:
        """Add what a task asks about, such as pairs of entities, to the record."""
        self.found, number = task.with_subjects(
            self.found,
            self.given,
            from_source=task.needs_source(self.given, self.names),
            max_subjects=max_pairs,
        )
        if number > max_pairs and not self.given.relations:
            message = f"{task.name}: only the {max_pairs} nearest of {number} entity pairs were asked about"
            self.notices.append(Notice("pairs", message))

    def finish(self, notices: Sequence[Notice]) -> Extraction:
        """Return the extraction.

        Args:
            notices: the warnings that hold for all records of the call.
        """
        record = self.found
        requested = [tasks.task_class(name) for name in self.names]
        for source in {answer.task for answer in self.answers} - set(self.names):
            if not any(task.source == source and task.is_staged for task in requested):
                record = tasks.registry.build(source).with_items(record, ())
        warnings = [*notices, *self.image.notices, *self.notices]
        for task in dict.fromkeys(answer.task for answer in self.answers):
            own = [answer for answer in self.answers if answer.task == task]
            if any(answer.is_truncated for answer in own):
                warnings.append(Notice("truncated", f"{task}: the text is too long for the model and was truncated"))
            dropped = sum(answer.dropped for answer in own)
            if dropped:
                warnings.append(Notice("dropped", f"{task}: dropped {dropped} invalid items of the output"))
        has_region = any(argument.region is not None for event in record.events for argument in event.arguments)
        size = image_size(record) if has_region else None
        return Extraction(record, tuple(warnings), size, tuple(self.answers))
