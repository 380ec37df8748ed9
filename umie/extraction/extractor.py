"""Extractor: finds entities, relations, events and arguments in texts and media with a trained variant."""

from __future__ import annotations

import copy
import ctypes
import inspect
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias, overload

from umie import tasks as all_tasks
from umie.decoders.options import check_generation_options
from umie.errors import (
    UmieError,
    UnknownNameError,
    check_choice,
    check_flag,
    check_kind,
    check_local,
    check_share,
    check_whole,
    shown,
)
from umie.evaluation.answers import answer_queries
from umie.extraction.attention import Attention, attention_of
from umie.extraction.downloads import URLS, downloaded, is_url
from umie.extraction.explain import Explanation, explain_many
from umie.extraction.media import EncodedMedia, encode_media, image_sizes, video_size
from umie.extraction.result import Extraction, ExtractionAnswer, Notice
from umie.extraction.windows import InputRoom, Window, in_window, is_whole, merged, windows_of
from umie.grounders import Grounder
from umie.grounders.calls import build_grounders
from umie.loading import load
from umie.media import ClipSource, SoundSource
from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.records import MEDIA, Box, Medium, Record, Region, Relation, Segment, Track
from umie.records.model import NO_RELATION, place_references
from umie.records.no_relation import doubt, doubtful_labels, is_chosen, is_no_relation, renamed
from umie.records.places import A_MEDIUM, PLACES, Interval
from umie.tasks import Items, Task
from umie.types import IMAGE_POLICIES, check_image_policy

if TYPE_CHECKING:
    from PIL.Image import Image


Labels = Mapping[str, Sequence[str]]  # by task
Grounders = Mapping[str, Any]  # by medium, a name, name and options, or a Grounder
ImageArgument: TypeAlias = "str | Path | Image | Sequence[str | Path | Image] | None"
_OPTIONS = "options of Extractor"
# iterables whose items are no texts: a set has no order, and a mapping is a record as JSON
_NO_LISTS = (str, bytes, bytearray, Mapping, set, frozenset, Record)
LONG_TEXTS = ("windows", "truncate")
TEXTS_PER_TRIM = 256  # texts after which memory that is free goes back to the system
WINDOW_BATCHES = 8  # a stream is read in windows of this many batches, whose queries are sorted by length


class Extractor:
    """A trained variant that extracts items from texts, images, sounds and videos.

    The result for a text does not depend on the other texts or on the batch size: in float32, answers are identical.
    In half precision, two tokens of nearly equal probability may swap. An extractor is for one thread at a time.

    Args:
        model: the variant; it is put into evaluation mode.
        processor: its processor; the extractor uses a copy.
        batch_size: queries per batch. A stream is read in windows of eight batches of records, whose queries are sorted
            by length, so the first result comes after that many; of one batch, if images are downloaded.
        constrained: allow only well-formed answers, with labels of the schema, spans of the text and places in the
            media; see ``umie.constrained``.
        max_pairs: the maximum number of entity pairs that MRE asks about in a text without given pairs.
        missing_images: how to treat an image, sound or video that cannot be read: ``error`` raises; ``text_only``
            answers from the text and the other media; ``skip`` returns an empty extraction. None uses the processor's
            setting.
        probabilities: report the probability of each item, for generated answers by another pass of the decoder.
        threshold: the lowest probability of an item, or that of each task: items below it are left out, and nothing is
            asked about them. For a decoder that scores candidates, it may also be lower than the decoder's own. None
            keeps what the decoder answers.
        long_texts: how to read a text that is too long for the model: in overlapping ``windows``, whose items are
            merged; or ``truncate`` it, as in evaluation. Relations are found within a window.
        urls: whether images may be URLs, which are downloaded: ``refuse``; ``public`` addresses, at most 20 MB and 30
            seconds each; or ``any``, also those of private networks.
        grounders: the grounder of each medium, as in ``extract``. Those of the processor also carry out calls.
        generation_options: options for transformers' ``generate``, e.g. ``num_beams=4``.
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
        probabilities: bool = True,
        threshold: float | Mapping[str, float] | None = None,
        long_texts: str = LONG_TEXTS[0],
        urls: str = URLS[0],
        grounders: Grounders | None = None,
        **generation_options: Any,
    ) -> None:
        use = "pass a UmieModel (model.compile() compiles it in place), or use Extractor.from_pretrained"
        check_kind("model", model, UmieModel, use)
        check_kind("processor", processor, UmieProcessor, "pass a UmieProcessor")
        check_whole("batch_size", batch_size, 1)
        check_whole("max_pairs", max_pairs, 1)
        check_flag("constrained", constrained)
        check_flag("probabilities", probabilities)
        check_choice("long_texts", long_texts, LONG_TEXTS)
        check_choice("urls", urls, URLS)
        check_generation_options(generation_options, _OPTIONS)
        if processor.candidates is not None and any(value != 1 for value in generation_options.values()):
            names = ", ".join(generation_options)
            raise UmieError(f"{names}: the decoder scores candidates and generates nothing; leave it out")
        self.threshold = _thresholds(threshold)
        if self.threshold and not probabilities:
            raise UmieError("threshold needs the probabilities of the items: leave probabilities on")
        self._since_trim = 0
        self._built: dict[str, dict[Medium, Grounder]] = {}  # by the options of grounders
        self.grounders = self._grounders(grounders)
        self.missing_images = processor.missing_images if missing_images is None else missing_images
        check_image_policy(self.missing_images)
        self.model = model.eval()
        self.processor = copy.copy(processor)
        self.processor.counts, self.processor.unreadable = Counter(), {}
        # long texts are read in windows, or reported: the warning of transformers would say that there is an error
        known = getattr(processor.tokenizer, "deprecation_warnings", {})
        known["sequence-length-is-longer-than-the-specified-maximum"] = True
        self.processor.missing_images = IMAGE_POLICIES[0]  # the processor raises; encode_media applies the policy
        self.batch_size = batch_size
        self.constrained = constrained
        self.max_pairs = max_pairs
        self.probabilities = probabilities
        self.long_texts, self.urls = long_texts, urls
        self.generation_options = generation_options

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str | None = None,
        dtype: str = "float32",
        revision: str | None = None,
        **options: Any,
    ) -> Self:
        """Load a variant and its processor from a directory or from the Hugging Face Hub.

        Args:
            name: the directory that ``model.save_pretrained`` and ``processor.save_pretrained`` wrote, or the name of
                a repository, ``owner/model``.
            device: e.g. ``cpu`` or ``cuda:1``; by default a GPU if there is one.
            dtype: ``float32``, ``bfloat16`` or ``float16``.
            revision: branch, tag or commit of the repository.
            options: options of the constructor.

        Raises:
            UmieError: there is no such directory or repository, a file is missing, or the device cannot be used.
        """
        check_kind("name", name, str | os.PathLike, "pass a directory or a hub name, owner/model")
        own = inspect.signature(cls).parameters
        check_generation_options({key: value for key, value in options.items() if key not in own}, _OPTIONS)
        model, processor = load(name, device, dtype, revision=revision)
        return cls(model, processor, **options)

    @overload
    def extract(  # type: ignore[overload-overlap] # a string is an iterable of strings, too
        self,
        text: str | Record,
        image: ImageArgument = None,
        *,
        audio: SoundSource | None = None,
        video: ClipSource | None = None,
        tasks: Sequence[str] | None = None,
        labels: Labels | None = None,
        regions: Sequence[Region | Box] | None = None,
        segments: Sequence[Segment | Interval] | None = None,
        tracks: Sequence[Track] | None = None,
        grounders: Grounders | None = None,
    ) -> Extraction: ...

    @overload
    def extract(
        self,
        text: Iterable[str | Record],
        image: None = None,
        *,
        audio: None = None,
        video: None = None,
        tasks: Sequence[str] | None = None,
        labels: Labels | None = None,
        regions: None = None,
        segments: None = None,
        tracks: None = None,
        grounders: Grounders | None = None,
    ) -> list[Extraction]: ...

    def extract(
        self,
        text: str | Record | Iterable[str | Record],
        image: ImageArgument = None,
        *,
        audio: SoundSource | None = None,
        video: ClipSource | None = None,
        tasks: Sequence[str] | None = None,
        labels: Labels | None = None,
        regions: Sequence[Region | Box] | None = None,
        segments: Sequence[Segment | Interval] | None = None,
        tracks: Sequence[Track] | None = None,
        grounders: Grounders | None = None,
    ) -> Extraction | list[Extraction]:
        """Extract the items of a text and its media, or of several.

        MRE asks about the pairs in a record's ``relations``; if there are none, about every ordered pair of the
        entities that MNER finds (or of the record's own entities, if MNER is not among the tasks). MEAE asks about
        the events that MED finds (or the record's own events, if MED is not among the tasks).

        Args:
            text: a text or a record, or several of them, for a list of results. A record's annotation is not used,
                except for the pairs, entities and events described above.
            image: path or PIL image for a single text, or a list of them; a record has its own.
            audio: path of a sound or ``umie.media.Sound`` for a single text, which may be empty.
            video: path of a video or of a folder of frames, or ``umie.media.Clip``, as ``audio``.
            tasks: names of the tasks; by default the tasks of the checkpoint.
            labels: for a task, labels to use in place of the checkpoint's, including labels not used in training.
            regions: regions of the image that answers can refer to: boxes x1, y1, x2, y2 relative to its size (0..1),
                or ``umie.Region`` objects, of which each has the number of its image. What only the record's own
                regions show is then not asked about. None uses the record's regions; without any, answers refer to
                none, and the model sees the image as a whole.
            segments: the same of segments of the sound: start and end in seconds, or ``umie.Segment`` objects.
            tracks: the same of tracks through the video: ``umie.Track`` objects.
            grounders: for a medium, a grounder that finds the places of items after the answers are written, such as
                ``{"image": {"name": "grounding", "checkpoint": "owlvit"}}``: of calls by their phrases; if no task has
                calls, by the words of the items. Places are then sharpened, if the grounder can.

        Raises:
            UmieError: invalid input, or a medium cannot be read and ``missing_images`` is ``error``.
        """
        given: dict[Medium, Any] = {"image": image, "video": video, "audio": audio}
        places: dict[Medium, Any] = {"image": regions, "video": tracks, "audio": segments}
        if isinstance(text, Iterable) and not isinstance(text, _NO_LISTS):
            if any(one is not None for one in (*given.values(), *places.values())):
                raise UmieError(
                    "media and their places need a single text: for several, put them into records, "
                    "umie.Record(text, image)"
                )
            return list(self.extract_many(text, tasks=tasks, labels=labels, grounders=grounders))
        if isinstance(text, str) and is_file_name(text):
            raise UmieError(
                f"{text!r} is a file: pass an image as extract('', {text!r}) and a file of records to "
                f"umie.extraction.extract_file; if it is the text, pass umie.Record({text!r})"
            )
        media = {medium: one for medium, one in given.items() if one is not None}
        record = _with_places(_as_record(text, media, urls=self.urls), places)
        (found,) = self.extract_many([record], tasks=tasks, labels=labels, grounders=grounders)
        return found

    def explain(
        self,
        text: str | Record,
        image: ImageArgument = None,
        *,
        other: ImageArgument = None,
        regions: Sequence[Region | Box] | None = None,
        tasks: Sequence[str] | None = None,
        labels: Labels | None = None,
        grounders: Grounders | None = None,
    ) -> Explanation:
        """Extract from a text with its image, without it, with a blank one and with another, and compare the items.

            print(extractor.explain("Kids at the Salvation Army", "kids.jpg", other="beach.jpg"))

        Args:
            text: a text or a record.
            image: as in ``extract``.
            other: another image, or as many as the record has; None leaves this view out.
            regions: as in ``extract``; those of the image, also for a blank or another one.
            tasks: as in ``extract``.
            labels: as in ``extract``.
            grounders: as in ``extract``.

        Raises:
            UmieError: as in ``extract``, or there is no image.
        """
        given: dict[Medium, Any] = {} if image is None else {"image": image}
        record = _with_places(_as_record(text, given, urls=self.urls), {"image": regions})
        if record.image is None:
            raise UmieError("there is no image to explain: pass image=, or a record with one")
        others = None if other is None else [_as_record("", {"image": other}, urls=self.urls)]
        if self.urls != URLS[0]:
            (record,) = downloaded([record], self.urls)
            others = None if others is None else downloaded(others, self.urls)
        options: dict[str, Any] = {"tasks": tasks, "labels": labels, "grounders": grounders}
        return next(explain_many(self, [record], others, **options))

    def attention(self, found: Extraction) -> list[Attention]:
        """Return where the fusion looks from the words of each entity and trigger of an extraction.

        Raises:
            UmieError: as ``umie.extraction.attention.attention_of``.
        """
        return attention_of(self, found)

    def extract_many(
        self,
        items: Iterable[str | Record],
        *,
        tasks: Sequence[str] | None = None,
        labels: Labels | None = None,
        place: Callable[[int], str] | None = None,
        grounders: Grounders | None = None,
    ) -> Iterator[Extraction]:
        """Yield an extraction for each text or record of a stream, in order and in bounded memory.

        Args:
            items: texts and records.
            tasks: as in ``extract``.
            labels: as in ``extract``.
            place: returns the prefix of error messages about the item at an index, such as ``in.jsonl:7``.
            grounders: as in ``extract``.

        Raises:
            UmieError: as in ``extract``.
        """
        if isinstance(tasks, str):
            raise UmieError(f"tasks is {tasks!r}: pass a list of task names, [{tasks!r}]")
        if tasks is not None and (not isinstance(tasks, Collection) or isinstance(tasks, bytes | Mapping)):
            raise UmieError(f"tasks is {shown(tasks)}: pass a list of task names, such as ['mner']")
        for name in tasks or ():
            check_kind("a task", name, str, "pass the names of tasks")
        if labels is not None:
            check_kind("labels", labels, Mapping, "pass the labels of each task, such as {'mner': ['person']}")
        if isinstance(items, _NO_LISTS) or not isinstance(items, Iterable):
            raise UmieError(f"{shown(items)} is not a list: pass an iterable of strings or umie.Record objects")
        if tasks is not None and not tasks:
            raise UmieError("tasks is empty: name at least one task, or omit it")
        trained = self.processor.task_options
        names = all_tasks.ordered(tasks if tasks is not None else trained or None)
        for name in names:
            if all_tasks.task_class(name).is_auxiliary:
                raise UmieError(f"the task {name} is only for training: it has nothing to extract")
        needed = all_tasks.with_sources(names)
        built = {name: self.processor.task(name) for name in needed}
        notices = [
            Notice("labels", f"{name}: the checkpoint was not trained on this task")
            for name in names
            if trained and name not in trained
        ]
        for name, given in (labels or {}).items():
            if name not in built:
                raise UnknownNameError("task in labels:", name, needed)
            check_kind(f"labels of {name}", given, list | tuple, "expected a list of strings")
            known = built[name].labels
            built[name] = all_tasks.registry.build(name, **{**trained.get(name, {}), "labels": given})
            new = ", ".join(repr(label) for label in built[name].labels if label not in known)
            if new:
                notices.append(Notice("labels", f"{name}: the checkpoint was not trained on the labels {new}"))
            if built[name].kind == "relations" and not any(map(is_no_relation, built[name].labels)):
                message = f"{name}: without the label {NO_RELATION!r}, every pair gets a relation"
                notices.append(Notice("no relation", message))
        labels_of_pairs = [label for task in built.values() if task.kind == "relations" for label in task.labels]
        notices += [Notice("no relation", doubt(label)) for label in doubtful_labels(labels_of_pairs)]
        found = self.grounders if grounders is None else self._grounders(grounders)
        stream = partial(self._stream, names=names, built=built, notices=notices, grounders=found)

        def whole(record: Record) -> _Asked:
            return _Asked(record, frozenset(one for one, task in built.items() if task.needs_source(record, names)))

        records = (whole(_as_record(item, urls=self.urls)) for item in items)
        if self.long_texts == LONG_TEXTS[1]:
            return stream(records, place)
        return self._in_windows(records, place, InputRoom(self.processor, list(built.values())).fits, stream)

    def _grounders(self, given: Grounders | None) -> dict[Medium, Grounder]:
        """Return grounders; those that are given by names and options are built once."""
        if not given or any(isinstance(part, Grounder) for part in given.values()):
            return build_grounders(given or {})
        key = json.dumps(dict(given), sort_keys=True, default=repr)
        if key not in self._built:
            self._built[key] = build_grounders(given)
            for grounder in self._built[key].values():  # a checkpoint that is missing is an error now
                grounder.load_weights()
        return self._built[key]

    def _in_windows(
        self,
        records: Iterator[_Asked],
        place: Callable[[int], str] | None,
        fits: Callable[[Record, str], bool],
        stream: Callable[[Iterator[_Asked], Callable[[int], str] | None], Iterator[Extraction]],
    ) -> Iterator[Extraction]:
        """Extract, by ``stream``, from records whose long texts are split into windows."""
        waiting: deque[tuple[Record, list[Window]]] = deque()  # records whose windows are being extracted from
        indices: dict[int, int] = {}  # of records, by those of their windows

        def parts() -> Iterator[_Asked]:
            number = 0
            for index, one in enumerate(records):
                windows = windows_of(one.record.text, partial(fits, one.record))
                waiting.append((one.record, windows))
                for position, window in enumerate(windows):
                    indices[number] = index
                    number += 1
                    if is_whole(one.record.text, windows):
                        yield one
                    else:
                        yield one.in_part(in_window(one.record, window, windows[:position]))

        where = None if place is None else lambda number: place(indices[number])
        found = stream(parts(), where)
        nested = (self.processor.candidates or {}).get("nested", False)
        number = 0
        for first in found:
            record, windows = waiting.popleft()
            own = [first, *islice(found, len(windows) - 1)]
            for _ in own:
                indices.pop(number)
                number += 1
            yield first if is_whole(record.text, windows) else merged(record, windows, own, nested=nested)

    def _stream(
        self,
        records: Iterator[_Asked],
        place: Callable[[int], str] | None,
        *,
        names: tuple[str, ...],
        built: Mapping[str, Task[Any]],
        notices: Sequence[Notice],
        grounders: Mapping[Medium, Grounder],
    ) -> Iterator[Extraction]:
        done = 0
        batches = WINDOW_BATCHES if self.urls == URLS[0] else 1  # images that were downloaded are held in memory
        error: Exception | None = None
        while error is None:
            window, error = _attempted(islice(records, batches * self.batch_size))
            if not window:
                break
            first: dict[Any, int] = {}  # identical records are asked about once
            keys = [(_identity(one.record), one.from_source) for one in window]
            for index, key in enumerate(keys):
                first.setdefault(key, index)
            places = [None if place is None else place(done + index) for index in first.values()]
            asked = [window[index] for index in first.values()]
            if self.urls != URLS[0]:
                own = downloaded([one.record for one in asked], self.urls)
                asked = [one.in_part(record) for one, record in zip(asked, own, strict=True)]
            drafts = self._fill(asked, names, built, places, grounders)
            known = dict(zip(first, (draft.finish(notices) for draft in drafts), strict=True))
            for (record, _), key in zip(window, keys, strict=True):
                found = known[key]
                own = replace(found.record, id=record.id, source=record.source, license=record.license)
                if self.urls != URLS[0]:
                    own = replace(own, image=record.image, more_images=record.more_images)
                yield replace(found, record=own)
            done += len(window)
            self._since_trim += len(window)
            if self._since_trim >= TEXTS_PER_TRIM:
                self._since_trim = 0
                _trim_memory()
        if error is not None:
            raise error

    def _fill(
        self,
        given: Sequence[_Asked],
        names: tuple[str, ...],
        built: Mapping[str, Task[Any]],
        places: Sequence[str | None],
        grounders: Mapping[Medium, Grounder],
    ) -> list[_Draft]:
        """Return a draft of each record, filled in by all tasks."""
        drafts: list[_Draft] = []
        for start in range(0, len(given), self.batch_size):
            part = slice(start, start + self.batch_size)
            records = [one.record for one in given[part]]
            media = encode_media(self.model, self.processor, records, self.missing_images, places[part])
            own = zip(given[part], media, places[part], strict=True)
            drafts += [_Draft(*one, encoded, names, place) for one, encoded, place in own]
        for name, task in built.items():
            dependents = {other for other in names if built[other].source == name}
            asked = [
                draft
                for draft in drafts
                if draft.media.tensors is not None and (name in names or dependents & draft.from_source)
            ]
            for draft in asked:
                draft.prepare(task, self.max_pairs)
            self._ask(task, asked, grounders)
        calls = any(task.style.calls for task in built.values())
        for draft in drafts:
            draft.ground([one for one in grounders.values() if not (calls and one.finds())], self.missing_images)
        return drafts

    def _ask(self, task: Task[Any], drafts: Sequence[_Draft], grounders: Mapping[Medium, Grounder]) -> None:
        """Ask all queries of a task about the drafts, and add the items found to them."""
        threshold = self.threshold.get(task.name)
        asked = [(index, query) for index, draft in enumerate(drafts) for query in task.queries(draft.found)]
        encoded, truncated = [], []
        for index, query in asked:
            before = self.processor.counts.copy()
            text = self.processor.encode_query(drafts[index].found, query, task)
            encoded.append({**text, **(drafts[index].media.tensors or {})})
            new = self.processor.counts - before
            truncated.append(new["truncated_inputs"] > 0)
            if new["unwritable_inputs"]:
                drafts[index].unwritable.add(task.name)
        answers = answer_queries(
            self.model,
            self.processor,
            task,
            [(drafts[index].found, query) for index, query in asked],
            encoded,
            [tensors["input_ids"].shape[-1] for tensors in encoded],
            constrained=self.constrained,
            batch_size=self.batch_size,
            probabilities=self.probabilities,
            threshold=threshold,
            **self.generation_options,
        )
        found: list[Items[Any]] = [Items() for _ in drafts]
        items_of, outputs = [one.items for one in answers], [one.output for one in answers]
        by_record = {id(draft.found): draft for draft in drafts}

        def on_unreadable(record: Record, medium: Medium, number: int, error: UmieError) -> None:
            by_record[id(record)].not_looked(medium, error, self.missing_images)

        records = [draft.found for draft in drafts]
        all_grounders = {**self.processor.grounders, **grounders}
        grounded, read = self.processor.carry_out(items_of, outputs, records, task, all_grounders, on_unreadable)
        for draft, record in zip(drafts, grounded, strict=True):
            draft.found = record
        for (index, query), answer, items, is_truncated in zip(asked, answers, read, truncated, strict=True):
            items = items if threshold is None else items.at_least(threshold)
            found[index].extend_with(task.with_probabilities(items))
            drafts[index].answers.append(
                ExtractionAnswer(
                    task.name,
                    query.target,
                    answer.output,
                    answer.gate,
                    is_truncated,
                    items.dropped,
                )
            )
        for draft, items in zip(drafts, found, strict=True):
            draft.found = task.with_items(draft.found, items)


class _Asked(NamedTuple):
    """A record to extract from, or its part in a window.

    ``from_source`` has the tasks that ask about what another task predicts, not about what was given with the record;
    it is that of the whole record, so that a window in which nothing was given is not asked about anything else.
    """

    record: Record
    from_source: frozenset[str]

    def in_part(self, record: Record) -> _Asked:
        """Return another record with the same questions."""
        return self._replace(record=record)


@dataclass
class _Draft:
    """An unfinished extraction from a given record by some tasks (``names``)."""

    given: Record
    from_source: frozenset[str]
    media: EncodedMedia
    names: tuple[str, ...]
    place: str | None = None  # of the record, for messages
    found: Record = field(init=False)  # the record without its annotation; each task adds its items
    notices: list[Notice] = field(default_factory=list)
    answers: list[ExtractionAnswer] = field(default_factory=list)
    unwritable: set[str] = field(default_factory=set)  # tasks in which the tokenizer cannot write all characters

    def __post_init__(self) -> None:
        bare = replace(self.given, entities=(), relations=(), events=(), gold=None)
        self.found = replace(bare, tasks=self.names, labels=None)

    def prepare(self, task: Task[Any], max_pairs: int) -> None:
        """Add what a task asks about, such as pairs of entities, to the record."""
        self.found, number = task.with_subjects(
            self.found,
            self.given,
            from_source=task.name in self.from_source,
            max_subjects=max_pairs,
        )
        # what a grounder found is not in the input
        self.found = replace(self.found, relations=tuple(filter(self._is_seen, self.found.relations)))
        if number > max_pairs and not self.given.relations:
            message = f"{task.name}: only the {max_pairs} nearest of {number} entity pairs were asked about"
            self.notices.append(Notice("pairs", message))

    def _is_seen(self, relation: Relation) -> bool:
        """Return whether the ends of a pair without a span are places that were given."""
        ends = [(relation.head, relation.head_places), (relation.tail, relation.tail_places)]
        return all(span is not None or self.given.has(places) for span, places in ends)

    def ground(self, grounders: Iterable[Grounder], missing_images: str) -> None:
        """Find the places of the items in the text by their words; see ``Grounder.ground``.

        Raises:
            UmieError: a medium cannot be read, and ``missing_images`` is ``error``.
        """
        for grounder in grounders:
            medium = grounder.medium
            if self.media.tensors is None or medium not in self.found.media:
                continue
            self.found, errors = grounder.attempt(self.found)
            for error in errors.values():
                self.not_looked(medium, error, missing_images)

    def not_looked(self, medium: Medium, error: UmieError, missing_images: str) -> None:
        """Raise the error of a medium in which a grounder was to look for something, or note it."""
        if missing_images == IMAGE_POLICIES[0]:
            raise UmieError(f"{self.place}: {error}" if self.place else str(error)) from error
        notice = Notice(medium, f"nothing was looked for in the {medium}: {error}")
        if notice not in self.notices:
            self.notices.append(notice)

    def finish(self, notices: Sequence[Notice]) -> Extraction:
        """Return the extraction; ``notices`` are the warnings that hold for all records of the call."""
        record = renamed(self.found, is_chosen)
        requested = [all_tasks.task_class(name) for name in self.names]
        for source in {answer.task for answer in self.answers} - set(self.names):
            if not any(task.source == source and task.is_staged for task in requested):
                record = all_tasks.registry.build(source).with_items(record, ())
        warnings = [*notices, *self.media.notices, *self.notices]
        for task in dict.fromkeys(answer.task for answer in self.answers):
            own = [answer for answer in self.answers if answer.task == task]
            if any(answer.is_truncated for answer in own):
                warnings.append(Notice("truncated", f"{task}: the text is too long for the model and was truncated"))
            if task in self.unwritable:
                message = f"{task}: the tokenizer cannot write all characters of the text or labels"
                warnings.append(Notice("unwritable", f"{message}; spans that it cannot tell apart are not found"))
            dropped = sum(answer.dropped for answer in own)
            if dropped:
                warnings.append(Notice("dropped", f"{task}: dropped {dropped} invalid items of the output"))
        named = [places for _, places in place_references(record.entities, record.relations, record.events)]
        sizes = image_sizes(record) if any(places.regions for places in named) else ()
        frame = video_size(record) if any(places.tracks for places in named) else None
        return Extraction(record, tuple(warnings), sizes[0] if sizes else None, tuple(self.answers), sizes[1:], frame)


def _thresholds(given: float | Mapping[str, float] | None) -> dict[str, float]:
    """Return the threshold of each task that has one."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        check_share("threshold", given)
        return dict.fromkeys(all_tasks.registry.names(), given)
    for name, value in given.items():
        all_tasks.task_class(name)  # raises for an unknown task
        check_share(f"threshold of {name}", value)
    return dict(given)


def _as_record(item: object, media: Mapping[Medium, Any] | None = None, *, urls: str = URLS[0]) -> Record:
    """Return a text or a record as a record, with these media in place of its own."""

    def check(medium: Medium, source: object) -> None:
        if medium != "image" or not is_url(source):
            check_local(medium, source)
        elif urls == URLS[0]:
            raise UmieError(
                f"image is {shown(source)}, a URL: allow downloads (urls='public', --urls public), or pass the path of "
                "a file"
            )

    if not isinstance(item, str | Record):
        use = "umie.Record(text, image)" if isinstance(item, Mapping) else "a string, a umie.Record, or a list of them"
        raise UmieError(f"{shown(item)} is not a text: pass {use}")
    if isinstance(item, Record):
        for medium, number in item.numbered_media:
            check(medium, item.of(medium)[number])
    if not media:
        return Record(item) if isinstance(item, str) else item
    fields: dict[str, Any] = {}
    for medium, given in media.items():
        several: Sequence[Any] = given if medium == "image" and isinstance(given, list | tuple) else [given]
        for own in several:
            check(medium, own)
            if own is None or (isinstance(own, str) and not own):
                raise UmieError(f"{medium} is {own!r}: pass the path of {A_MEDIUM[medium]}, or None")
        fields[medium] = several[0] if several else None
        if medium == "image":
            fields["more_images"] = tuple(several[1:])
    if isinstance(item, str):
        return Record(item, **fields)
    for medium in item.media:
        if medium not in media:  # its paths are relative to the folder of the record
            first, *others = (item.resolved(medium, number) for number in range(len(item.of(medium))))
            fields |= {medium: first} | ({"more_images": tuple(others)} if medium == "image" else {})
    return replace(item, **fields, image_folder=None)


_PLACES: dict[Medium, tuple[Any, type[Any], str]] = {  # the class, what else is converted to it, and both in messages
    "image": (Region, Sequence, "boxes x1, y1, x2, y2, or umie.Region objects"),
    "video": (Track, Track, "umie.Track objects"),
    "audio": (Segment, Sequence, "start and end in seconds, or umie.Segment objects"),
}


def is_file_name(text: str) -> bool:
    """Return whether a text is the name of a file, with an ending."""
    return bool(Path(text).suffix) and os.path.isfile(text)  # noqa: PTH113 # Path.is_file raises for long names


def _with_places(record: Record, places: Mapping[Medium, Sequence[Any] | None]) -> Record:
    """Return a record with other places in some media, to which its annotation does not refer."""
    for medium, own in places.items():
        if own is not None:
            record = record.regrounded(medium, _as_places(medium, own), {})
    return record


def _as_places(medium: Medium, given: Any) -> list[Any]:
    kind, other, example = _PLACES[medium]
    is_list = isinstance(given, Sequence) and not isinstance(given, str | bytes)
    if not is_list or not all(isinstance(place, kind | other) for place in given):
        raise UmieError(f"{PLACES[medium]} is {shown(given)}: pass a list of {example}")
    return [place if isinstance(place, kind) else kind(place) for place in given]


def _identity(record: Record) -> Any:
    """Return a key that is equal for records with the same answers."""
    media = tuple(tuple(one if isinstance(one, str) else id(one) for one in record.of(medium)) for medium in MEDIA)
    places = tuple(record.places(medium) for medium in MEDIA)
    return record.text, media, record.image_folder, places, record.entities, record.relations, record.events


def _attempted(records: Iterator[_Asked]) -> tuple[list[_Asked], Exception | None]:
    """Return the records before an error of their source, and the error: it must not cost those before it."""
    read: list[_Asked] = []
    try:
        read.extend(records)  # keeps what comes before an error
    except Exception as error:
        return read, error
    return read, None


def _trim_memory() -> None:
    """Return free memory to the system, where the C library can: texts of many lengths fragment it.

    Without it, the memory of a long run grows by about a third.
    """
    with suppress(OSError, AttributeError, TypeError):  # other C libraries, and Windows
        ctypes.CDLL(None).malloc_trim(0)
