"""Extractor: from a text and an image to what a trained model finds in them."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias, overload

from umie.errors import UmieError, check_flag, check_whole, shown
from umie.extraction import stages
from umie.extraction.answering import Asked, generate
from umie.extraction.draft import Draft
from umie.extraction.images import look
from umie.extraction.loading import load_checkpoint
from umie.extraction.result import Answer, Extraction, Notice
from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.records import Box, Record, Region
from umie.tasks import Items, Task
from umie.types import IMAGE_POLICIES, check_image_policy

if TYPE_CHECKING:
    from PIL.Image import Image

Labels: TypeAlias = Mapping[str, Sequence[str]]
Place: TypeAlias = Callable[[int], str]  # what a message calls the item of this index, from 0

BATCHES = 4  # that are sorted by length together


class Extractor:
    """A trained variant, ready to use.

    What is found in a text does not depend on what else is asked about, nor on the size of the batch: answers are
    the same in float32. In half precision two words that are equally probable up to its rounding may change places.

    Args:
        model: the variant; it is put into evaluation mode.
        processor: its processor; the extractor takes a copy.
        batch_size: queries at once. Memory holds four batches of records, whatever the length of a stream.
        constrained: let only well-formed answers through: labels of the schema, spans of the text, regions of the
            image; see ``umie.constrained``.
        max_pairs: the most pairs of entities that MRE asks about in one text, where no pairs are given.
        missing_images: what an image that cannot be read does: ``error``; ``text_only``, the text alone is asked
            about; ``skip``, nothing is. None takes the processor's policy.
        generation_options: for transformers' generate, e.g. ``num_beams=4``.
    """

    def __init__(
        self,
        model: UmieModel,
        processor: UmieProcessor,
        *,
        batch_size: int = 16,
        constrained: bool = True,
        max_pairs: int = 132,
        missing_images: str | None = None,
        **generation_options: Any,
    ) -> None:
        check_whole("batch_size", batch_size, 1)
        check_whole("max_pairs", max_pairs, 1)
        check_flag("constrained", constrained)
        self.policy = processor.missing_images if missing_images is None else missing_images
        check_image_policy(self.policy)
        self.model = model.eval()
        self.processor = copy.copy(processor)
        self.processor.counts, self.processor.unreadable = Counter(), {}
        self.processor.missing_images = IMAGE_POLICIES[0]  # errors come here, and the policy is followed here
        self.batch_size = batch_size
        self.constrained = constrained
        self.max_pairs = max_pairs
        self.generation_options = generation_options

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, device: str | None = None, dtype: str = "float32", **options: Any
    ) -> Self:
        """Load a folder that ``model.save_pretrained`` and ``processor.save_pretrained`` wrote.

        Args:
            folder: the folder.
            device: e.g. ``cpu``, ``cuda:1``; by default a GPU where there is one.
            dtype: ``float32``, ``bfloat16`` or ``float16``.
            options: as for the constructor.

        Raises:
            UmieError: there is no such folder, it is incomplete, or the device cannot be used.
        """
        model, processor = load_checkpoint(folder, device, dtype)
        return cls(model, processor, **options)

    @overload
    def extract(  # type: ignore[overload-overlap] # a string is an iterable of strings, too
        self,
        text: str | Record,
        image: str | Path | Image | None = None,
        *,
        tasks: Sequence[str] | None = None,
        labels: Labels | None = None,
        regions: Sequence[Region | Box] | None = None,
    ) -> Extraction: ...

    @overload
    def extract(
        self,
        text: Iterable[str | Record],
        image: None = None,
        *,
        tasks: Sequence[str] | None = None,
        labels: Labels | None = None,
        regions: None = None,
    ) -> list[Extraction]: ...

    def extract(
        self,
        text: str | Record | Iterable[str | Record],
        image: str | Path | Image | None = None,
        *,
        tasks: Sequence[str] | None = None,
        labels: Labels | None = None,
        regions: Sequence[Region | Box] | None = None,
    ) -> Extraction | list[Extraction]:
        """Return what the model finds in a text and its image.

        MNER and MED are asked about the text. MRE is asked about the pairs of a record's ``relations``, or where it
        has none, about every ordered pair of the entities that MNER found (the record's own, where MNER is not among
        the tasks). MEAE is asked about the events that MED found (the record's own, where MED is not among the tasks).

        Args:
            text: a text, a record, or several of them, which give a list. A record's annotation does not get into
                the result, but for the pairs and events named above.
            image: path or PIL image of one text's image; a record brings its own.
            tasks: what to ask; by default what the checkpoint was trained for.
            labels: for a task, the labels to look for in place of the checkpoint's, also ones that it never saw.
            regions: regions of the image, x1, y1, x2, y2 relative to its size (0..1), as ``umie.Region``: those
                that an argument of an event can be. None takes the record's.

        Raises:
            UmieError: bad input; an image that cannot be read, under the policy ``error``.
        """
        if isinstance(text, Iterable) and not isinstance(text, str):
            if image is not None or regions is not None:
                raise UmieError("image and regions belong to one text: put them into records, umie.Record(text, image)")
            return list(self.extract_many(text, tasks=tasks, labels=labels))
        record = _as_record(text)
        if image is not None:
            record = replace(record, image=image, image_folder=None)
        if regions is not None:
            record = replace(
                record,
                regions=tuple(box if isinstance(box, Region) else Region(box) for box in regions),
                events=tuple(replace(event, arguments=()) for event in record.events),  # they name other regions
            )
        return next(self.extract_many([record], tasks=tasks, labels=labels))

    def extract_many(
        self,
        items: Iterable[str | Record],
        *,
        tasks: Sequence[str] | None = None,
        labels: Labels | None = None,
        place: Place | None = None,
    ) -> Iterator[Extraction]:
        """Yield what the model finds in each text or record of a stream, in its order and in bounded memory.

        Args:
            items: texts and records.
            tasks: as for ``extract``.
            labels: as for ``extract``.
            place: what a message calls the item of this index, e.g. ``lambda index: f"in.jsonl:{index + 1}"``.

        Raises:
            UmieError: as for ``extract``.
        """
        names = stages.check_tasks(tasks, self.processor)
        built, notices = stages.build_tasks(names, labels, self.processor)
        return self._stream(items, names, built, notices, place)

    def _stream(
        self,
        items: Iterable[str | Record],
        names: tuple[str, ...],
        built: Mapping[str, Task[Any]],
        notices: Sequence[Notice],
        place: Place | None,
    ) -> Iterator[Extraction]:
        records = (_as_record(item) for item in items)
        done = 0
        while window := list(islice(records, BATCHES * self.batch_size)):
            first: dict[Any, int] = {}  # what is the same is asked about once
            for index, record in enumerate(window):
                first.setdefault(_identity(record), index)
            places = list(first.values())
            naming = None if place is None else _naming(place, done, places)
            found = self._extract([window[index] for index in places], names, built, notices, naming)
            known = dict(zip(first, found, strict=True))
            for record in window:
                yield _named_as(known[_identity(record)], record)
            done += len(window)

    def _extract(
        self,
        records: Sequence[Record],
        names: tuple[str, ...],
        built: Mapping[str, Task[Any]],
        notices: Sequence[Notice],
        place: Place | None,
    ) -> list[Extraction]:
        drafts = []
        for start in range(0, len(records), self.batch_size):
            part = records[start : start + self.batch_size]
            naming = None if place is None else _naming(place, 0, range(start, start + len(part)))
            looked = look(self.model, self.processor, part, self.policy, naming)
            drafts += [Draft(record, item, names) for record, item in zip(part, looked, strict=True)]
        for name in built:
            is_source = name not in names
            dependents = [built[task] for task in names if built[task].source == name]
            asked = [
                draft
                for draft in drafts
                if draft.looked.visual is not None
                and (not is_source or any(task.needs_source(draft.given, names) for task in dependents))
            ]
            for draft in asked:
                draft.prepare(built[name], names, self.max_pairs)
            self._ask(built[name], asked)
        return [draft.extraction(names, notices) for draft in drafts]

    def _ask(self, task: Task[Any], drafts: Sequence[Draft]) -> None:
        """Ask all queries of a task about the drafts, and put what was found into them."""
        queries = [task.queries(draft.found) for draft in drafts]
        asked = [
            Asked(draft.found, query, draft.looked.visual or {})
            for draft, own in zip(drafts, queries, strict=True)
            for query in own
        ]
        generated = iter(
            generate(
                self.model,
                self.processor,
                task,
                asked,
                constrained=self.constrained,
                batch_size=self.batch_size,
                **self.generation_options,
            )
        )
        for draft, own in zip(drafts, queries, strict=True):
            items: Items[Any] = Items()
            for query in own:
                answer = next(generated)
                parsed = task.parse(answer.output, draft.found.text, query.target, len(draft.found.regions))
                items.extend(item for item in parsed if item not in items)
                items.dropped += parsed.dropped
                draft.answers.append(
                    Answer(task.name, query.target, answer.output, answer.gate, answer.is_truncated, parsed.dropped)
                )
            draft.found = task.with_items(draft.found, items)


def _as_record(item: object) -> Record:
    if not isinstance(item, str | Record):
        raise UmieError(f"{shown(item)} is no text: give a string, a umie.Record, or a list of them")
    return Record(item) if isinstance(item, str) else item


def _identity(record: Record) -> Any:
    """Return what tells records apart that may be answered differently."""
    image = record.image if isinstance(record.image, str | None) else id(record.image)
    return record.text, image, record.image_folder, record.regions, record.entities, record.relations, record.events


def _named_as(found: Extraction, record: Record) -> Extraction:
    """Return an extraction under the name of another record with the same text and image."""
    same = replace(found.record, id=record.id, source=record.source, license=record.license)
    return replace(found, record=same)


def _naming(place: Place, offset: int, indices: Sequence[int]) -> Place:
    """Return what names the items at some places of a window."""
    return lambda index: place(offset + indices[index])
