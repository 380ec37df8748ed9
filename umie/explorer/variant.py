"""A variant that several users ask in turn: its tasks, labels and media, and its answers with a chosen gate."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

from umie import tasks as all_tasks
from umie.extraction import Explanation, Extraction, Extractor, Notice
from umie.extraction.explain import GIVEN
from umie.fusion.gated import fixed_gate, largest_gate
from umie.records import MEDIA, Medium, Record


@dataclass(frozen=True)
class Answer:
    """The answer of a variant to a record.

    Args:
        variant: the name of the variant.
        extraction: the items found.
        media: the media that the variant uses.
        seconds: how long it took.
        gate: the gate that was fixed; None if it was computed, or without a gate.
        explanation: the items found with other images, if this was asked and the variant sees an image.
    """

    variant: str
    extraction: Extraction
    media: tuple[Medium, ...]
    seconds: float
    gate: float | None = None
    explanation: Explanation | None = None


class LoadedVariant:
    """A variant for the page. One thread at a time uses its model, because the gate that is fixed is part of it.

    Args:
        name: what the page calls it.
        extractor: the variant.
    """

    def __init__(self, name: str, extractor: Extractor) -> None:
        self.name = name
        self._extractor = extractor
        self._lock = Lock()
        model, processor = extractor.model, extractor.processor
        self.media = tuple(medium for medium in MEDIA if medium in model.media_encoders)
        self.labels = {
            task: processor.task(task).labels
            for task in all_tasks.ordered(processor.task_options or None)
            if not all_tasks.task_class(task).is_auxiliary
        }
        self.largest_gate = largest_gate(model)
        slots = ("encoder", "video_encoder", "audio_encoder", "fusion", "decoder")
        hidden = () if self.media else slots[:3]
        parts = [getattr(model.config, slot) for slot in slots if slot not in hidden]
        self.about = " + ".join(str(part["name"]) for part in parts if part)

    @classmethod
    def load(cls, path: str | Path, device: str | None = None) -> LoadedVariant:
        """Load a saved variant; it is called by the last two parts of its path, e.g. ``embedded-seed0/best``.

        Raises:
            UmieError: as ``Extractor.from_pretrained``.
        """
        folder = Path(path)
        parts = folder.resolve().parts if folder.is_dir() else folder.parts
        return cls("/".join(parts[-2:]), Extractor.from_pretrained(path, device=device))

    def answer(
        self,
        record: Record,
        tasks: Sequence[str],
        labels: Mapping[str, Sequence[str]],
        *,
        gate: float | None = None,
        explained: bool = False,
    ) -> Answer:
        """Return the answer to a record.

        Args:
            record: the record.
            tasks: the tasks; those that the variant does not have are left out, with a warning.
            labels: the labels of each task.
            gate: a gate to use instead of the one that is computed; ignored without a gate.
            explained: also answer without the image and with a gray one, if the variant sees images.

        Raises:
            UmieError: as ``Extractor.extract``.
        """
        own = [task for task in tasks if task in self.labels]
        others = [Notice("tasks", f"{task}: this variant was not trained for it") for task in tasks if task not in own]
        if not own:
            bare = replace(record, entities=(), relations=(), events=(), gold=None)
            return Answer(self.name, Extraction(bare, tuple(others)), self.media, 0.0)
        changed = {task: list(labels[task]) for task in own if tuple(labels[task]) != self.labels[task]}
        options: dict[str, Any] = {"tasks": own, "labels": changed or None}
        gate = None if self.largest_gate is None else gate
        explanation = None
        with self._lock, nullcontext() if gate is None else fixed_gate(self._extractor.model, gate):
            started = time.perf_counter()
            if explained and record.image is not None and "image" in self.media:
                explanation = self._extractor.explain(record, **options)
                extraction: Extraction = explanation.extractions[GIVEN]
            else:
                extraction = self._extractor.extract(record, **options)
            seconds = time.perf_counter() - started
        extraction = replace(extraction, warnings=(*others, *extraction.warnings))
        explanation = None if explanation is None else explanation.bare()
        return Answer(self.name, extraction, self.media, seconds, gate, explanation)
