"""What the page does with a form: checks it, builds a record, and asks one variant or two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from umie import registries
from umie.errors import UmieError, check_kind, printable, shown
from umie.explorer.examples import Example, digest_of
from umie.explorer.variant import Answer, LoadedVariant
from umie.images import open_image
from umie.media import open_clip, open_sound
from umie.records import MEDIA, Medium, Record
from umie.records.places import PLACES
from umie.tasks import ordered, task_class

WHOLE, OWN = "none", "example"  # choices of places: the medium as a whole, or the places of the example
MAX_CHARACTERS = 10_000
MAX_PLACES = 16  # of a proposer; more would hide the image

_PROPOSERS: dict[Medium, Any] = {
    "image": registries.region_proposers,
    "video": registries.track_proposers,
    "audio": registries.segment_proposers,
}
_OPENERS: dict[Medium, Any] = {
    "image": open_image,
    "video": lambda path: open_clip(path, 1),
    "audio": open_sound,
}


@dataclass(frozen=True)
class Upload:
    """A file on this machine, and the name that its user knows."""

    path: Path
    name: str


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a user filled in.

    Args:
        text: the text, which may be empty if there are media.
        uploads: the file of each medium.
        places: by medium, ``none``, ``example``, or the name of a proposer.
        tasks: the names of the tasks.
        labels: the labels of each task.
        example: the number of the example that was chosen last.
        gate: a gate to use instead of the one that is computed.
        explained: whether to answer without the image, too.
    """

    text: str = ""
    uploads: Mapping[Medium, Upload] = field(default_factory=dict)
    places: Mapping[Medium, str] = field(default_factory=dict)
    tasks: Sequence[str] = ()
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    example: int | None = None
    gate: float | None = None
    explained: bool = False


@dataclass(frozen=True)
class Shown:
    """The answers to a form, and the record as annotated if the form is an unchanged example."""

    answers: tuple[Answer, ...]
    annotated: Record | None = None
    place: str = ""  # of the annotated record


class Explorer:
    """The variants, examples and choices of a page.

    Args:
        variants: one, or two to compare.
        examples: examples from a data set.
        max_mb: the most megabytes (2^20 bytes) of an upload.

    Attributes:
        labels: the labels of each task of any variant; where they differ, those of the first.
        media: the media that any variant uses.
        proposers: by medium, the region, track or segment proposers that need neither weights nor files, by name.
    """

    def __init__(
        self, variants: Sequence[LoadedVariant], examples: Sequence[Example] = (), *, max_mb: float = 20
    ) -> None:
        self.variants = tuple(variants)
        self.max_mb = max_mb
        names = [variant.name for variant in variants]
        if len(set(names)) < len(names):
            raise UmieError(f"both variants are called {names[0]}: move one of them to a directory with another name")
        every = {task: labels for variant in reversed(variants) for task, labels in variant.labels.items()}
        self.labels = {task: every[task] for task in ordered(every)}
        self.media = tuple(medium for medium in MEDIA if any(medium in variant.media for variant in variants))
        self.examples = tuple(replace(one, record=_with_only(one.record, self.media)) for one in examples)
        self.proposers = {medium: _proposers(_PROPOSERS[medium]) for medium in self.media}
        gates = [variant.largest_gate for variant in variants if variant.largest_gate is not None]
        self.largest_gate = max(gates, default=None)

    def ask(self, form: Form) -> Shown:
        """Return the answers of all variants to a form.

        Raises:
            UmieError: a value of the form is not allowed, or a medium cannot be read.
        """
        tasks = [task for task in self.labels if task in form.tasks]
        if not tasks:
            raise UmieError("Choose at least one task.")
        labels = {task: _checked_labels(task, form.labels.get(task, self.labels[task])) for task in tasks}
        options: dict[str, Any] = {"gate": form.gate, "explained": form.explained}
        try:
            record, example = self._record(form)
            answers = tuple(variant.answer(record, tasks, labels, **options) for variant in self.variants)
        except UmieError as error:
            raise _renamed(error, form.uploads.values()) from error
        if example is None:
            return Shown(answers)
        return Shown(answers, _annotation(example.record.annotated, tasks), example.place)

    def check_upload(self, medium: Medium, upload: Upload) -> None:
        """Raise UmieError, in which an upload has the name that its user knows, unless it can be read."""
        try:
            if upload.path.stat().st_size > self.max_mb * 2**20:
                raise UmieError(f"{upload.path}: larger than {self.max_mb:g} MB; use a smaller file")
            _OPENERS[medium](upload.path)
        except OSError as error:
            raise UmieError(f"{upload.name}: no longer on the server; upload it again") from error
        except UmieError as error:
            raise _renamed(error, [upload]) from error

    def _record(self, form: Form) -> tuple[Record, Example | None]:
        """Return the record to ask about, and the example if the record is an unchanged one."""
        check_kind("the text", form.text, str, "type some text")
        if len(form.text) > MAX_CHARACTERS:
            raise UmieError(f"The text has {len(form.text):,} characters: use at most {MAX_CHARACTERS:,}.")
        if not form.text.strip() and not form.uploads:
            raise UmieError("Type a text" + (", or upload what belongs to it." if self.media else "."))
        example = None
        if form.example is not None:
            if not isinstance(form.example, int) or not 0 <= form.example < len(self.examples):
                raise UmieError(f"there is no example {shown(form.example)}: choose another one")
            example = self.examples[form.example]
        own = {medium for medium in self.media if example is not None and self._has_own(form, medium, example)}
        if example is not None and form.text == example.record.text and own == set(self.media):
            record = example.record
        else:
            fields: dict[str, Any] = {}
            for medium in self.media:
                if medium in own and example is not None:
                    fields |= _media_of(example.record, medium)
                elif medium in form.uploads:
                    self.check_upload(medium, form.uploads[medium])
                    fields[medium] = form.uploads[medium].path
            record, example = Record(form.text, **fields), None
        for medium in self.media:
            choice = form.places.get(medium, OWN)
            if medium not in record.media or choice == OWN or (choice == WHOLE and not record.places(medium)):
                continue
            example = None
            record = record.regrounded(medium, (), {})
            if choice != WHOLE:
                if choice not in self.proposers[medium]:
                    raise UmieError(f"{PLACES[medium]} is {shown(choice)}: choose one of the list")
                (record,) = self.proposers[medium][choice].fill([record])
        return record, example

    def _has_own(self, form: Form, medium: Medium, example: Example) -> bool:
        """Return whether the form has the medium of an example, or neither has one."""
        upload = form.uploads.get(medium)
        try:
            return (None if upload is None else digest_of(upload.path)) == example.digests.get(medium)
        except OSError as error:
            raise UmieError(f"{example.place}: no longer on the server; choose it again") from error


def _renamed(error: UmieError, uploads: Iterable[Upload]) -> UmieError:
    """Return an error in which uploads have the names that their user knows."""
    message = str(error)
    for upload in uploads:
        message = message.replace(str(upload.path), upload.name)
    return UmieError(message)


def _proposers(registry: Any) -> dict[str, Any]:
    """Return the proposers of a registry that need neither weights nor files."""
    found = {}
    for name in registry:
        config = getattr(registry.get(name), "Config", None)
        if getattr(config, "weights_option", None) is not None or hasattr(config, "path"):
            continue
        try:
            found[name] = registry.build(name, top=MAX_PLACES)
        except UmieError:  # e.g. it needs an option
            continue
    return found


def _checked_labels(task: str, given: Any) -> list[str]:
    if not isinstance(given, list | tuple) or not all(isinstance(label, str) for label in given):
        raise UmieError(f"labels of {task}: {shown(given)} is not a list of labels")
    labels = list(dict.fromkeys(printable(label).strip() for label in given if label.strip()))
    if not labels:
        raise UmieError(f"labels of {task}: there are none; add a label, or leave out the task")
    return labels


def _with_only(record: Record, media: Sequence[Medium]) -> Record:
    """Return a record without the media that no variant uses, and without what is said about places in them."""
    unused = [medium for medium in record.media if medium not in media]
    if not record.text.strip() and len(unused) == len(record.media):
        return record
    for medium in unused:
        changed: dict[str, Any] = {medium: None, PLACES[medium]: ()}
        record = replace(
            record.ungrounded(medium), **changed, more_images=() if medium == "image" else record.more_images
        )
    return record


def _media_of(record: Record, medium: Medium) -> dict[str, Any]:
    """Return the fields of a record that are about a medium, with paths that do not depend on its folder."""
    found: dict[str, Any] = {medium: record.resolved(medium), PLACES[medium]: record.places(medium)}
    if medium == "image":
        found["more_images"] = tuple(record.resolved("image", number) for number in range(1, len(record.images)))
    return found


def _annotation(record: Record, tasks: Sequence[str]) -> Record | None:
    """Return what a record is annotated with for the tasks; None if it is not annotated for any of them."""
    kinds = {task_class(task).kind for task in tasks if record.annotated_for(task)}
    if not kinds:
        return None
    if "events" in kinds and "arguments" not in kinds:
        record = replace(record, events=tuple(replace(event, arguments=()) for event in record.events))
    kept = kinds | ({"events"} if "arguments" in kinds else set())
    empty: dict[str, Any] = {kind: () for kind in ("entities", "relations", "events") if kind not in kept}
    return replace(record, **empty, gold=None)
