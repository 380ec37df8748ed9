"""UmieProcessor: turns records into batches of tensors, and generated token ids back into records."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol, Self

from torch import Tensor
from transformers import AutoProcessor, PreTrainedTokenizerBase
from transformers.utils import PushToHubMixin

from umie import encoders, tasks
from umie.candidates import CandidateEncoder
from umie.checkpoints import check_file, is_model_file, write_manifest
from umie.constrained import Constraint
from umie.decoders.base import CandidateOptions
from umie.encoders.several_images import joined
from umie.errors import UmieError, at, check_choice, check_keys, check_positive, check_whole, shown
from umie.files import atomic_write, json_text, read_json
from umie.framing import Framing
from umie.grounders import Grounder
from umie.grounders.calls import OnUnreadable, build_grounders, carry_out
from umie.hub import HUB_OPTIONS, find_file
from umie.language_models.sources import load_tokenizer
from umie.model import UmieConfig
from umie.model_parts import ENCODER_SLOTS, without_folders
from umie.records import MEDIA, Medium, Record
from umie.sequences import SequenceEncoder
from umie.tasks import Items, Query, Task, merged
from umie.tasks.base import tempered
from umie.types import IMAGE_POLICIES, FusedStates, check_image_policy, key_of

_ADVICE = {
    "error": "fix the file, or set missing_images to 'text_only' or 'skip'",
    "skip": "pass processor.usable(records), which leaves out such records",
}
MAX_CACHED_BYTES = 1 << 30  # of preprocessed images; others are preprocessed again on each access
FILE = "umie_processor.json"


class FeatureSource(Protocol):
    """A source of the tensors of one image, video or sound."""

    def one(self, source: Any, places: Sequence[Any] = ()) -> dict[str, Tensor]:
        """Return ``boxes [V, 4]``, ``visual_mask [V]`` and either the encoder's inputs or the features."""


class UmieProcessor(PushToHubMixin):
    """The processor of a variant: tokenizer, preprocessing of media, tasks and their label schemas.

    ``transformers.AutoProcessor.from_pretrained`` loads it once ``umie.processor`` is imported.

    Args:
        tokenizer: the decoder's tokenizer.
        encoder: name and options of the visual encoder, as in UmieConfig; its weights are not needed here. Or the
            preprocessor of an encoder whose class is not registered: the processor then cannot be saved.
        task_options: the options of each task (``labels``, ``variant``, ``style``); a task that is not listed has the
            paper's options.
        max_input_tokens: longer inputs are truncated at the end of the text, and counted in ``counts`` (paper: 256).
        max_target_tokens: the same for targets (paper: 128).
        missing_images: how to treat an image, video or sound that is missing or cannot be read: ``error`` raises;
            ``text_only`` encodes the record without it; ``skip`` leaves the record out of data sets and evaluations.
        candidates: the decoder's CandidateOptions, if it scores candidates; None if it generates answers.
        prompt: the text that a causal decoder continues, see ``umie.framing``; None for other decoders.
        video_encoder: as ``encoder``, for videos; None if the variant does not use them.
        audio_encoder: as ``encoder``, for sounds; None if the variant does not use them.
        grounders: by medium, the grounder that carries out calls in answers (style ``reamo``): a name, a mapping with
            name and options, or a Grounder; without any, calls find the places of records with that label.
        temperatures: by task, what the log-odds of the probabilities of items are divided by; see ``umie calibrate``.
        trained_places: the media whose places, such as regions of images, the model was trained with: a warning says
            where an extractor gets none.

    Attributes:
        counts: the number of truncated inputs, truncated targets, missing images and dropped items.
        unreadable: for each image that could not be read, the reason, by its name.
        features: by medium, a source of features to use in place of the medium itself; see ``CachedEncoder``.
        blind: media that are not read, as if records did not have them; their places keep their names.
        unused: media for which the model has no encoder, so that they are not read; grounders can look into them.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        encoder: Mapping[str, Any] | encoders.MediaPreprocessor,
        task_options: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        max_input_tokens: int = 256,
        max_target_tokens: int = 128,
        missing_images: str = "error",
        candidates: Mapping[str, Any] | None = None,
        prompt: str | None = None,
        video_encoder: Mapping[str, Any] | encoders.MediaPreprocessor | None = None,
        audio_encoder: Mapping[str, Any] | encoders.MediaPreprocessor | None = None,
        grounders: Mapping[str, Any] | None = None,
        temperatures: Mapping[str, float] | None = None,
        trained_places: Collection[str] = (),
    ) -> None:
        check_image_policy(missing_images)
        check_whole("max_input_tokens", max_input_tokens, 1)
        check_whole("max_target_tokens", max_target_tokens, 1)
        for name, value in (("task_options", task_options), ("candidates", candidates)):
            if not isinstance(value, Mapping | None):
                raise UmieError(f"{name} is {shown(value)}: expected a mapping of options")
        for name, value in (task_options or {}).items():
            if not isinstance(value, Mapping):
                raise UmieError(f"task_options.{name} is {shown(value)}: expected a mapping of options")
        if candidates is not None:
            check_keys("option of candidates:", candidates, [item.name for item in fields(CandidateOptions)])
        self.tokenizer = tokenizer
        parts = {"image": encoder, "video": video_encoder, "audio": audio_encoder}
        given: dict[Medium, Any] = {medium: parts[medium] for medium in MEDIA if parts[medium] is not None}
        self.encoders = {
            ENCODER_SLOTS[medium]: dict(part) if isinstance(part, Mapping) else {} for medium, part in given.items()
        }
        self.task_options = {name: dict(options) for name, options in (task_options or {}).items()}
        self.max_input_tokens = max_input_tokens
        self.max_target_tokens = max_target_tokens
        self.missing_images = missing_images
        self.candidates = None if candidates is None else dict(candidates)
        self.prompt = prompt
        self.preprocessors: dict[Medium, encoders.MediaPreprocessor] = {
            medium: encoders.build_preprocessor(part) if isinstance(part, Mapping) else part
            for medium, part in given.items()
        }
        self._sequences = SequenceEncoder(tokenizer, max_input_tokens, max_target_tokens, prompt)
        self._queries: SequenceEncoder | CandidateEncoder = self._sequences
        if candidates is not None:
            options = CandidateOptions(**candidates)
            absent = {medium: 0 for medium in MEDIA if medium not in self.preprocessors}
            limits = {medium: limit for medium in self.preprocessors if (limit := self.max_places(medium)) is not None}
            self._queries = CandidateEncoder(tokenizer, options, max_input_tokens, limits | absent)
        self.counts: Counter[str] = Counter()
        self.unreadable: dict[str, str] = {}
        self.grounders = build_grounders(grounders or {})
        self._grounders = dict(grounders or {})  # as given, to be saved
        if not isinstance(temperatures, Mapping | None):
            raise UmieError(f"temperatures is {shown(temperatures)}: expected a number for each task")
        for task, temperature in (temperatures or {}).items():
            check_positive(f"temperatures.{task}", temperature)
        self.temperatures = dict(temperatures or {})
        for name in trained_places:
            check_choice("trained_places", name, MEDIA)
        self.trained_places = tuple(trained_places)
        self.features: dict[Medium, FeatureSource] = {}
        self.blind: frozenset[Medium] = frozenset()
        self.unused: frozenset[Medium] = frozenset()
        self._checked: dict[tuple[Any, ...], str] = {}
        self._in_memory: dict[int, tuple[Any, str]] = {}  # keeps each image so that its id is not reused
        self._cached: dict[tuple[Any, ...], tuple[dict[str, Tensor], Any]] = {}
        self._cached_from: dict[Medium, object] = {}
        self._cached_bytes = 0
        self._tasks: dict[str, Task[Any]] = {}
        for name in self.task_options:
            self.task(name)

    @property
    def encoder(self) -> dict[str, Any]:
        """Name and options of the encoder of images; empty if its class is not registered."""
        return self.encoders["encoder"]

    @property
    def preprocessor(self) -> Any:
        """The preprocessor of images."""
        return self.preprocessors["image"]

    @property
    def framing(self) -> Framing:
        """The tokens around queries and around answers that are generated."""
        return self._sequences.framing

    @property
    def unwritable(self) -> Mapping[str, Counter[str]]:
        """The characters that the tokenizer cannot write: the number of ``inputs`` and ``targets`` with each."""
        return self._sequences.unwritable

    def cannot_write(self, text: str) -> list[str]:
        """Return the characters of a text that the tokenizer cannot write."""
        return sorted(self._sequences.unwritable_in(text))

    def task(self, task: str | Task[Any]) -> Task[Any]:
        """Return the task with this name and this processor's options; a task object is returned unchanged."""
        if isinstance(task, Task):
            return task
        if task not in self._tasks:
            self._tasks[task] = tasks.registry.build(task, **self.task_options.get(task, {}))
        return self._tasks[task]

    def __call__(self, records: Record | Iterable[Record], task: str | Task[Any]) -> dict[str, Tensor]:
        """Return the batch of all queries about the records, in order.

        Args:
            records: one record or several; a record can have several queries (MRE: one per pair; MEAE: one per
                event).
            task: the name of a task, or a task object.

        Returns:
            ``input_ids`` and ``attention_mask [Q, T]``, ``labels [Q, L]`` (-100 in padding), ``boxes
            [Q, V, 4]``, ``visual_mask [Q, V]`` and the encoder's own tensors; those of videos and sounds with a prefix
            (``audio.visual_mask``), and those of several images as in ``umie.encoders.several_images``. Q counts
            queries. For a decoder that scores candidates, ``labels [Q, S + R + 1, C]`` and the other inputs of
            ``ScoringDecoder.forward``, where Q counts inputs: a query with more labels than fit into one has several.

        Raises:
            UmieError: no record has a query, or an image cannot be read and ``missing_images`` is not
                ``text_only``.
        """
        task = self.task(task)
        items = []
        for record in _as_list(records):
            queries = task.queries(record)
            with_media = self.encode_media(record) if queries else {}
            items += [{**self.encode_query(record, query, task), **with_media} for query in queries]
        if not items:
            raise UmieError(
                f"no queries for {task.name}: its queries are about the pairs in a record's `relations` (use type "
                "'none' for an unknown relation) or about its `events`, and these records have none"
            )
        return self.collate(items)

    def constraint(
        self, records: Record | Iterable[Record], task: str | Task[Any], max_new_tokens: int | None = None
    ) -> Constraint:
        """Return the constraint on the answers to all queries about the records, in the order of ``__call__``.

        ``max_new_tokens`` is as in ``generate``, by default ``max_target_tokens``.
        """
        task = self.task(task)
        asked = [(record, query) for record in _as_list(records) for query in task.queries(record)]
        limit = self.max_target_tokens if max_new_tokens is None else max_new_tokens
        return Constraint(self.tokenizer, task, asked, limit, self.framing)

    def encode_query(self, record: Record, query: Query, task: Task[Any]) -> dict[str, Tensor]:
        """Return the tensors of one query and its answer, such as ``input_ids [T]``: the instruction, then the text."""
        return self._queries.encode(task, record, query, self.counts)

    def encode_media(self, record: Record, *, cached: bool = False) -> dict[str, Tensor]:
        """Return the tensors of the media of one record; those of media that it does not have are without slots.

        If ``cached``, as in data sets, the tensors are kept in memory, up to MAX_CACHED_BYTES for all media together.

        Raises:
            UmieError: a medium cannot be read and ``missing_images`` is not ``text_only``.
        """
        return {
            key_of(medium, name): tensor
            for medium in self.preprocessors
            for name, tensor in self.encode_medium(medium, record, cached=cached).items()
        }

    def max_places(self, medium: Medium) -> int | None:
        """Return the most places of a record that have slots; None without a limit."""
        limit: int | None = getattr(getattr(self.preprocessors[medium], "config", None), "max_regions", None)
        return limit

    def encode_medium(
        self,
        medium: Medium,
        record: Record,
        *,
        cached: bool = False,
        on_unreadable: Callable[[UmieError], None] | None = None,
    ) -> dict[str, Tensor]:
        """Return the tensors of one medium of a record, without its prefix; see ``encode_media``.

        Args:
            medium: the medium.
            record: the record; of several images, each is read by itself, see ``umie.encoders.several_images``.
            cached: as in ``encode_media``.
            on_unreadable: called with the error of each image that cannot be read, which then has no slots; without
                it, ``missing_images`` applies.
        """
        if medium in self.blind or medium in self.unused:
            return self.preprocessors[medium].nothing()
        source = self.features.get(medium, self.preprocessors[medium])
        parts = []
        for number in range(len(record.of(medium))):
            try:
                parts.append(self._encode_one(medium, record, number, source, cached))
            except UmieError as error:
                if on_unreadable is not None:
                    on_unreadable(error)
                elif self.missing_images == "text_only":
                    self._count_unreadable(record, medium, number, str(error))
                else:
                    raise UmieError(
                        f"record {record.id or record.text[:40]!r}: {error}; {_ADVICE[self.missing_images]}"
                    ) from error
                parts.append(source.one(None))
        if len(parts) > 1:
            return joined(parts, [region.image for region in record.regions[: self.max_places(medium)]])
        return parts[0] if parts else source.one(None)

    def _encode_one(
        self, medium: Medium, record: Record, number: int, source: FeatureSource, cached: bool
    ) -> dict[str, Tensor]:
        """Return the tensors of one image, by its number, with its regions, of the video or of the sound."""
        if self._cached_from.setdefault(medium, source) is not source:  # what is kept was made by another source
            self._cached, self._cached_from, self._cached_bytes = {}, {medium: source}, 0
        given = record.of(medium)[number]
        places = record.places_in(medium, number, self.max_places(medium))
        key = (medium, given if isinstance(given, str) else id(given), record.image_folder, places)
        if cached and key in self._cached:
            return self._cached[key][0]
        tensors = source.one(record.resolved(medium, number), places)
        if cached:
            self._keep(key, tensors, given)
        return tensors

    def _keep(self, key: tuple[Any, ...], tensors: dict[str, Tensor], given: Any) -> None:
        if self.features:  # memory-mapped: a process can open only so many files
            tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        num_bytes = sum(tensor.nbytes for tensor in tensors.values())
        if self._cached_bytes + num_bytes <= MAX_CACHED_BYTES:
            self._cached_bytes += num_bytes
            self._cached[key] = tensors, given  # which is held, so that the id of one in memory stays its own

    def usable(self, records: Iterable[Record]) -> list[Record]:
        """Return the records to use: if ``missing_images`` is ``skip``, those whose images can be read, else all.

        Each image is checked once. ``unreadable`` has the reason for each image that could not be read.
        """
        if self.missing_images != "skip":
            return list(records)
        return [record for record in records if self._is_readable(record)]

    def reset_counts(self) -> None:
        """Reset ``counts`` and ``unreadable``, e.g. before another split."""
        self.counts.clear()
        self.unreadable.clear()
        for characters in self.unwritable.values():
            characters.clear()

    def _is_readable(self, record: Record) -> bool:
        found = [
            self._can_read(record, medium, number)
            for medium, number in record.numbered_media
            if medium in self.preprocessors
        ]
        return all(found)  # each one is counted

    def _can_read(self, record: Record, medium: Medium, number: int) -> bool:
        places = record.places_in(medium, number, self.max_places(medium))
        place = (medium, self._name(record, medium, number), places)
        if place not in self._checked:
            try:
                self.preprocessors[medium].check(record.resolved(medium, number), places)
                self._checked[place] = ""
            except UmieError as error:
                self._checked[place] = str(error)
        if self._checked[place]:
            self._count_unreadable(record, medium, number, self._checked[place])
        return not self._checked[place]

    def _count_unreadable(self, record: Record, medium: Medium, number: int, reason: str) -> None:
        """Count an image, video or sound once, however many records and epochs use it."""
        name = self._name(record, medium, number)
        if name not in self.unreadable:
            self.unreadable[name] = reason
            self.counts["missing_images"] += 1

    def collate(self, items: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Pad and stack encoded queries into one batch."""
        return self._queries.collate(items)

    def rows_of(self, batch: Mapping[str, Tensor], asked: Sequence[tuple[Record, Query]]) -> list[list[int]]:
        """Return the rows of each query in a batch: one, or several if its labels are too many for one input."""
        return self._queries.rows_of(batch, asked)

    def answers(
        self,
        decoder: Any,
        fused: FusedStates,
        batch: Mapping[str, Tensor],
        task: Task[Any],
        asked: Sequence[tuple[Record, Query]],
        *,
        constrained: bool = True,
        probabilities: bool = False,
        threshold: float | None = None,
        **options: Any,
    ) -> list[tuple[Items[Any], str]]:
        """Return a decoder's answers to the queries of a batch, and their written form.

        Answers are generated, or chosen from scored candidates. Probabilities are calibrated by the temperature of the
        task, if there is one.

        Args:
            decoder: the decoder of the variant.
            fused: the fused states of the batch.
            batch: the batch, from ``collate``.
            task: the task of all queries.
            asked: the record and the query of each row.
            constrained: generate under the task's grammar; scored candidates are always well-formed.
            probabilities: whether generated items get probabilities, which takes another pass of the decoder; scored
                ones always have them.
            threshold: the lowest probability of a scored candidate that is an answer, in place of the decoder's; what
                is generated does not depend on it, see ``Items.at_least``.
            options: options of ``generate``; a decoder that scores candidates ignores them.
        """
        if (decoder.candidates is None) != (self.candidates is None):
            raise UmieError(
                "the processor is for another decoder: pass candidates=dataclasses.asdict(decoder.candidates) to "
                "UmieProcessor for a decoder that scores candidates, and None for one that generates"
            )
        if decoder.prompt != self.prompt:
            raise UmieError(
                f"the processor is for another decoder: its prompt is {self.prompt!r}, that of the decoder is "
                f"{decoder.prompt!r}: pass prompt=decoder.prompt to UmieProcessor"
            )
        temperature = self.temperatures.get(task.name, 1.0)
        if threshold is not None:  # that of calibrated probabilities, as the decoder knows it
            threshold = tempered(threshold, 1 / temperature)
        options |= {"constrained": constrained, "probabilities": probabilities, "threshold": threshold}
        found = self._queries.answers(decoder, fused, batch, task, asked, **options)
        return found if temperature == 1 else [(items.tempered(temperature), output) for items, output in found]

    def decode(
        self,
        token_ids: Tensor | Sequence[Sequence[int]],
        records: Record | Iterable[Record],
        task: str | Task[Any],
        constraint: Constraint | None = None,
    ) -> list[Record]:
        """Return the records with the decoded answers as their only annotation for this task.

        Args:
            token_ids: ``[Q, L]``, one row per query, in the order of ``__call__``.
            records: the records passed to ``__call__``.
            task: the task passed to ``__call__``.
            constraint: the constraint used in generation, if any; it decodes exactly, including characters that the
                tokenizer does not preserve.

        Raises:
            UmieError: the number of rows is not the number of queries.
        """
        task = self.task(task)
        records = _as_list(records)
        asked = [(record, query) for record in records for query in task.queries(record)]
        texts = self.decode_text(token_ids, task, asked) if constraint is None else constraint.read(token_ids)
        found = self.parse(texts, records, task)
        return [task.with_items(record, items) for record, items in zip(records, found, strict=True)]

    def decode_text(
        self,
        token_ids: Tensor | Sequence[Sequence[int]],
        task: str | Task[Any],
        asked: Sequence[tuple[Record, Query]] | None = None,
    ) -> list[str]:
        """Return the generated strings, without special tokens except the markers of the task's output style.

        Args:
            token_ids: ``[Q, L]``.
            task: the task.
            asked: the record and the query of each row, if known. A tokenizer that does not preserve text needs them
                to restore the characters of the record; see ``umie.constrained.lossy_tokenizers``.
        """
        return self._sequences.decode(token_ids, self.task(task), asked)

    def parse(self, outputs: Sequence[str], records: Sequence[Record], task: str | Task[Any]) -> list[Items[Any]]:
        """Return the items of each record, from one generated string per query.

        Raises:
            UmieError: the number of strings is not the number of queries.
        """
        task = self.task(task)
        asked = [(record, query) for record in records for query in task.queries(record)]
        if len(outputs) != len(asked):
            raise UmieError(f"{len(outputs)} outputs for {len(asked)} queries: pass the records that were encoded")
        answers = [
            task.parse(output, record, query.target) for output, (record, query) in zip(outputs, asked, strict=True)
        ]
        return self.merge(answers, records, task)

    def merge(self, answers: Sequence[Items[Any]], records: Sequence[Record], task: Task[Any]) -> list[Items[Any]]:
        """Return the items of each record from the answers to its queries; count the dropped ones."""
        found = merged(answers, records, task)
        self.counts["dropped_items"] += sum(items.dropped for items in found)
        return found

    def carry_out(
        self,
        answers: Sequence[Items[Any]],
        outputs: Sequence[str],
        records: Sequence[Record],
        task: Task[Any],
        grounders: Mapping[Medium, Grounder] | None = None,
        on_unreadable: OnUnreadable | None = None,
    ) -> tuple[list[Record], list[Items[Any]]]:
        """Return records with what the calls of their answers found, and the items of each answer read with it.

        Answers in a style without calls are returned as they are; see ``umie.grounders.calls.carry_out``. By default,
        ``grounders`` are those of the processor, and media that cannot be read are treated as ``missing_images`` says.
        """
        if task.style.calls is None:
            return list(records), list(answers)
        given = self.grounders if grounders is None else grounders
        return carry_out(
            given, task, records, answers, outputs, hidden=self.blind, on_unreadable=on_unreadable or self._not_looked
        )

    def _not_looked(self, record: Record, medium: Medium, number: int, error: UmieError) -> None:
        """Raise the error of a medium in which something was to be looked for, or count it."""
        if self.missing_images == IMAGE_POLICIES[0]:
            named = record.id or record.text[:40]
            raise UmieError(f"record {named!r}: {error}; {_ADVICE['error']}") from error
        self._count_unreadable(record, medium, number, str(error))

    def save_pretrained(self, folder: str | Path, *, max_shard_size: Any = None) -> None:
        """Write the tokenizer and the options to a directory, next to the model (``max_shard_size`` is not used)."""
        for medium, part in self._grounders.items():
            if not isinstance(part, str | Mapping):
                raise UmieError(f"the grounder of {medium} is an object: pass its name and options to save it")
        for slot, part in self.encoders.items():
            if not part:
                raise UmieError(f"the class of the {slot} is not registered: register it to save model and processor")
        written = self.tokenizer.save_pretrained(str(folder))
        options = {
            **{slot: without_folders(part) for slot, part in self.encoders.items()},
            "task_options": self.task_options,
            "max_input_tokens": self.max_input_tokens,
            "max_target_tokens": self.max_target_tokens,
            "missing_images": self.missing_images,
            **({} if self.candidates is None else {"candidates": self.candidates}),
            **({} if self.prompt is None else {"prompt": self.prompt}),
            **({"grounders": self._grounders} if self._grounders else {}),
            **({"temperatures": self.temperatures} if self.temperatures else {}),
            **({"trained_places": list(self.trained_places)} if self.trained_places else {}),
        }
        with atomic_write(Path(folder) / FILE) as file:
            file.write(json_text(options, indent=2))
        names = {FILE, *(Path(name).name for name in written)}
        present = [name for name in sorted(names) if (Path(folder) / name).is_file()]
        write_manifest(Path(folder), present, replaces=lambda name: not is_model_file(name))

    @classmethod
    def from_pretrained(cls, name: str | Path, **hub_options: Any) -> Self:
        """Load a processor from a directory or from the Hugging Face Hub.

        Args:
            name: the directory that ``save_pretrained`` wrote, or the name of a repository, ``owner/model``.
            hub_options: ``revision``, ``token``, ``cache_dir`` and other options of
                ``transformers.AutoTokenizer.from_pretrained`` for a repository.

        Raises:
            UmieError: there is no such directory or repository, or it does not contain a valid processor.
        """
        hub_options.pop("_from_auto", None)  # set by AutoProcessor
        check_keys("option of UmieProcessor.from_pretrained:", hub_options, HUB_OPTIONS)
        path = find_file(name, FILE, **hub_options)
        check_file(path, path.parent)
        options = read_json(path, "the options of a saved processor")
        if not isinstance(options, dict) or not isinstance(options.get("encoder"), dict):
            raise UmieError(f"{path}: contains {shown(options)}: expected options with an encoder: save it again")
        names = [name for name in inspect.signature(cls).parameters if name != "tokenizer"]
        check_keys(f"option in {path}:", options, names)
        for slot in ENCODER_SLOTS.values():
            if not isinstance(options.get(slot), dict | None):
                raise UmieError(f"{path}: {slot} is {shown(options[slot])}: expected options: save it again")
        tokenizer = load_tokenizer("the processor", str(name), **hub_options)
        with at(str(path)):
            return cls(tokenizer, **options)

    def _name(self, record: Record, medium: Medium, number: int) -> str:
        """Return a name for an image, video or sound of a record: its file, or a number and the record without one."""
        given = record.of(medium)[number]
        if isinstance(given, str):
            return str(Path(record.image_folder or "") / given)
        count = len(self._in_memory) + 1
        named = given, f"{medium} {count} in memory, of record {record.id or record.text[:40]!r}"
        return self._in_memory.setdefault(id(given), named)[1]


def _as_list(records: Record | Iterable[Record]) -> list[Record]:
    return [records] if isinstance(records, Record) else list(records)


AutoProcessor.register(UmieConfig, UmieProcessor)
