"""The contract of grounders: phrases of a text in, the places of a medium that show them out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from umie.encoders.base import WeightsOption
from umie.encoders.regions.base import check_device
from umie.errors import UmieError, check_share, check_whole, shown
from umie.records import Medium, Places, Record, Region, Segment, Span, Track
from umie.records.model import annotated_spans, moved_places, referred
from umie.records.overlap import extent
from umie.records.places import PLACES

Place: TypeAlias = Region | Segment | Track

MAX_KNOWN = 100_000  # phrases that are remembered
TRIGGER = "event trigger"  # names no thing, so there is no phrase to look for


@dataclass(frozen=True, kw_only=True)
class GrounderConfig(WeightsOption):
    """Options that every grounder has.

    Args:
        top: the most places of a phrase.
        min_score: places with lower scores are left out, so that a phrase may have no place.
    """

    top: int = 1
    min_score: float = 0.0

    def __post_init__(self) -> None:
        check_whole("top", self.top, 1)
        check_share("min_score", self.min_score)


@dataclass(frozen=True, kw_only=True)
class CheckpointGrounderConfig(GrounderConfig):
    """Options of a grounder that is a model of transformers.

    Args:
        checkpoint: the directory of the model with its processor, written by ``save_pretrained``, or a hub name.
        device: where the model runs, e.g. "cuda".
    """

    kind: ClassVar[str] = "a model with its processor"  # in messages
    example: ClassVar[str] = ""  # a name on the hub

    checkpoint: str | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.checkpoint, str) or not self.checkpoint:
            raise UmieError(
                f"checkpoint is {shown(self.checkpoint)}: use the directory of {self.kind}, or its name on the hub, "
                f"e.g. {self.example}"
            )
        check_device(self.device)


class Grounder:
    """Finds the places in one medium that show what phrases name (``find``), or sharpens places (``refine``).

    Subclasses implement at least one of them. A grounder takes the extracted words only, not the states of a model, so
    that any system can be grounded: it is the pipeline of REAMO, where pointing is the answer of one model.

    Attributes:
        counts: the number of phrases so far, and of those without a place.
        num_found: the number of places so far.
        num_clipped: the number of places so far that extend beyond the medium.
    """

    Config: ClassVar[type[GrounderConfig]] = GrounderConfig
    medium: ClassVar[Medium]

    def __init__(self, config: Any) -> None:
        self.config = config
        self.counts: Counter[str] = Counter()
        self.num_found = self.num_clipped = 0
        self._known: dict[Any, list[Any]] = {}  # by file, phrase and known places

    @classmethod
    def finds(cls) -> bool:
        """Return whether it looks for phrases."""
        return cls.find is not Grounder.find

    @classmethod
    def refines(cls) -> bool:
        """Return whether it sharpens places."""
        return cls.refine is not Grounder.refine

    def find(self, source: Any, phrases: Sequence[str], known: Sequence[Any] = ()) -> list[list[Any]]:
        """Return the places that show each phrase, best first, at most ``top``; none if the medium does not show it.

        Args:
            source: a path, or an image, sound or clip in memory.
            phrases: words of the text.
            known: the places of the medium that the record already has.

        Raises:
            UmieError: the medium cannot be read.
        """
        return [[] for _ in phrases]

    def refine(self, source: Any, places: Sequence[Any]) -> list[Any]:
        """Return places that are sharper, one for each: a region with a mask, a track through all frames.

        Args:
            source: as in ``find``.
            places: places in the medium.

        Raises:
            UmieError: the medium cannot be read.
        """
        return list(places)

    def load_weights(self) -> None:
        """Load the weights of a model now, not when something is looked for first; others do nothing.

        Raises:
            UmieError: they cannot be used.
        """
        return

    def check(self) -> None:
        """Do nothing: places are checked when they are found."""
        return

    def ground(self, record: Record) -> Record:
        """Return a record whose items are shown by the places that were found, in place of those in this medium.

        Entities, heads and tails of relations, and arguments are looked for by their words. What has no words, and
        the triggers of events, keep their places. The record's own places stay, and new ones are added after them.

        Raises:
            UmieError: a medium cannot be read.
        """
        grounded, errors = self.attempt(record)
        for error in errors.values():
            raise error if record.id is None else UmieError(f"record {record.id}: {error}") from error
        return grounded

    def attempt(self, record: Record) -> tuple[Record, dict[int, UmieError]]:
        """Return the record as ``ground`` does, and the errors by the number of the image.

        A record with an error is unchanged. Places that items refer to are refined.
        """
        grounded, errors = self._grounded(record) if self.finds() else (record, {})
        if not errors and self.refines():
            grounded, errors = self.refined(grounded)
        return (record if errors else grounded), errors

    def filled(
        self, record: Record, recent: dict[object, Any], place: int, *, replaces: bool = False
    ) -> tuple[Record, dict[int, UmieError]]:
        """Return the record as ``attempt`` does, with errors that name it; see ``MediumProposer``."""
        grounded, errors = self.attempt(record)
        found = {}
        for number, error in errors.items():
            found[number] = UmieError(f"record {record.id or place}: {error}")
            found[number].__cause__ = error
        return grounded, found

    def look(self, record: Record, phrases: Sequence[str]) -> tuple[dict[str, list[Any]], dict[int, UmieError]]:
        """Return the places that show each phrase in all images, or in the medium; and errors by number of the image.

        What was found in a file is remembered, so that a phrase is looked for once in it.
        """
        found: dict[str, list[Any]] = {phrase: [] for phrase in phrases}
        errors: dict[int, UmieError] = {}
        for number in range(len(record.of(self.medium)) if phrases else 0):
            known = record.places_in(self.medium, number)
            try:
                source = record.resolved(self.medium, number)
                own = self._recalled(source, list(found), known)
            except UmieError as error:
                errors[number] = error
                continue
            for phrase, places in own.items():
                found[phrase] += [replace(one, image=number) if number else one for one in places]
        self.counts["phrases"] += len(found)
        self.counts["phrases without a place"] += sum(not places for places in found.values())
        self.num_found += sum(map(len, found.values()))
        return found, errors

    def _recalled(self, source: Any, phrases: Sequence[str], known: Sequence[Any]) -> dict[str, list[Any]]:
        if not isinstance(source, str | Path):
            return dict(zip(phrases, self.find(source, phrases, known), strict=True))
        keys = {phrase: (str(source), phrase, tuple(known)) for phrase in phrases}
        new = [phrase for phrase, key in keys.items() if key not in self._known]
        found = dict(zip(new, self.find(source, new, known), strict=True)) if new else {}
        if len(self._known) > MAX_KNOWN:
            self._known.clear()
        return {phrase: self._known.setdefault(key, found.get(phrase, [])) for phrase, key in keys.items()}

    def refined(self, record: Record) -> tuple[Record, dict[int, UmieError]]:
        """Return the record with sharper places where its annotation refers to some, and errors as ``look`` does."""
        medium = self.medium
        named = referred(record, medium)
        places: list[Any] = list(record.places(medium))
        errors: dict[int, UmieError] = {}
        for number in range(len(record.of(medium))):
            own = [index for index in named if getattr(places[index], "image", 0) == number]
            given = [places[index] for index in own]
            try:
                sharper = self.refine(record.resolved(medium, number), given) if own else []
            except UmieError as error:
                errors[number] = error
                continue
            for index, before, after in zip(own, given, sharper, strict=True):
                kept = {"label": before.label, **({"image": number} if number else {})}
                places[index] = replace(after, **kept)
        changes: dict[str, Any] = {PLACES[medium]: tuple(places)}
        return replace(record, **changes), errors

    def _grounded(self, record: Record) -> tuple[Record, dict[int, UmieError]]:
        medium, kind = self.medium, PLACES[self.medium]
        named = annotated_spans(record.entities, record.relations, record.events)
        phrase_of = {span: record.surface(span) for owner, span in named if owner != TRIGGER}
        found, errors = self.look(record, list(dict.fromkeys(phrase_of.values())))
        places: list[Any] = list(record.places(medium))
        indices = {extent(one): index for index, one in reversed(list(enumerate(places)))}
        shown: dict[str, set[int]] = {phrase: set() for phrase in found}
        for phrase, own in found.items():
            for one in own:
                if (index := indices.setdefault(extent(one), len(places))) == len(places):
                    places.append(one)
                shown[phrase].add(index)

        def move(span: Span | None, before: Places) -> Places:
            if span is None or span not in phrase_of or not record.of(medium):
                return before
            return before._replace(**{kind: tuple(sorted(shown[phrase_of[span]]))})

        changes: dict[str, Any] = {kind: tuple(places), **moved_places(record, move)}
        return replace(record, **changes), errors


class ModelGrounder(Grounder):
    """A grounder that is a model of transformers; subclasses name its class, and use ``_model``."""

    Config = CheckpointGrounderConfig
    config: CheckpointGrounderConfig
    model_class: ClassVar[str]  # of transformers
    processor_class: ClassVar[str] = "AutoProcessor"

    def load_weights(self) -> None:
        """Load the checkpoint now; raise UmieError if it is not one of this model with all its weights."""
        _ = self._model

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        """The model in evaluation mode on its device, and its processor."""
        import transformers

        from umie.language_models.sources import check_loaded, load_with_processor, located

        name = located(str(self.config.checkpoint))
        advice = f"a directory with {self.config.kind} and its processor, written by save_pretrained"
        kinds = getattr(transformers, self.model_class), getattr(transformers, self.processor_class)
        model, processor, missing = load_with_processor(kinds[0], name, advice, kinds[1], use_safetensors=True)
        check_loaded(model, name, missing)
        return model.float().to(self.config.device).eval(), processor
