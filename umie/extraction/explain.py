"""Did the image matter? The same record with its image, without it, with a blank one, and with that of another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from html import escape
from itertools import islice, zip_longest
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from umie.errors import UmieError, at
from umie.extraction.result import Extraction, Extracts
from umie.images import open_image
from umie.records import Record
from umie.records.places import Places
from umie.scoring.resampling import bootstrap_sums, interval
from umie.types import IMAGE_POLICIES

GIVEN = "given"
VIEWS = {
    GIVEN: "with its image",
    "without": "without the image and its regions",
    "blank": "with a gray image of the same size, and the same regions",
    "other": "with the image of another record, and the same regions",
}
TASKS = ("mner", "mre", "med", "meae")  # in the order of the table
GRAY = (128, 128, 128)
RESAMPLES = 1000
Key: TypeAlias = tuple[Any, ...]


class Decision(NamedTuple):
    """An item that was found with at least one view, and its probability with each."""

    task: str
    text: str
    found: dict[str, bool]
    probabilities: dict[str, float | None]  # None where it was not found, or if the model does not report it

    def changed(self, view: str) -> bool:
        """Return whether it was found with only one of the image and this view."""
        return self.found[GIVEN] != self.found[view]


@dataclass(frozen=True)
class Explanation:
    """The items that a model finds in a record with its image and with other views; ``str`` is a table.

    Args:
        extractions: the extraction of each view; see ``VIEWS``.
        decisions: every item that was found with any of them, in the order of the text.
    """

    extractions: Mapping[str, Any]  # Extraction, or None if it is bare
    decisions: tuple[Decision, ...]

    @property
    def views(self) -> tuple[str, ...]:
        """The names of the views beside the image that was given."""
        return tuple(view for view in self.extractions if view != GIVEN)

    def bare(self) -> Explanation:
        """Return the decisions without the extractions and their images, to keep many in memory."""
        return replace(self, extractions=dict.fromkeys(self.extractions))

    def about(self, is_asked: Callable[[str], bool]) -> Explanation:
        """Return only the decisions about some tasks."""
        return replace(self, decisions=tuple(one for one in self.decisions if is_asked(one.task)))

    def counts(self, view: str) -> tuple[int, int]:
        """Return the number of decisions that a view changes, and that of all with the image or this view."""
        own = [one for one in self.decisions if one.found[GIVEN] or one.found[view]]
        return sum(one.changed(view) for one in own), len(own)

    def __str__(self) -> str:
        rows = [("", *self.extractions), *self.rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join(lines if self.decisions else ["Nothing was found with any image."])

    def _repr_html_(self) -> str:
        """Return the table for notebooks; what a view changes is bold."""
        head = "".join(f"<th title='{VIEWS[view]}'>{view}</th>" for view in self.extractions)
        body = ""
        for one, (text, *cells) in zip(self.decisions, self.rows(), strict=True):
            marked = (
                f"<td><b>{escape(cell)}</b></td>" if one.changed(view) else f"<td>{escape(cell)}</td>"
                for cell, view in zip(cells, self.extractions, strict=True)
            )
            body += f"<tr><th style='text-align: left'>{escape(text)}</th>{''.join(marked)}</tr>"
        return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"

    def rows(self) -> list[tuple[str, ...]]:
        """Return the rows of the table: each decision, and its probability with each view."""
        return [
            (one.text, *(_cell(one.found[view], one.probabilities[view]) for view in self.extractions))
            for one in self.decisions
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain values: the record's id and text, and each decision."""
        record = self.extractions[GIVEN].record
        return {
            **({} if record.id is None else {"id": record.id}),
            "text": record.text,
            "decisions": [one._asdict() for one in self.decisions],
        }


class Effect(NamedTuple):
    """How many decisions about a data set a view changes."""

    changed: int
    decisions: int
    low: float  # of the 95% interval of the share, over records
    high: float

    @property
    def share(self) -> float:
        """The share of the decisions that change."""
        return self.changed / self.decisions if self.decisions else 0.0


def explain_many(
    extractor: Extracts,
    records: Iterable[Record],
    others: Iterable[Record] | None = None,
    *,
    batch_size: int = 16,
    **options: Any,
) -> Iterator[Explanation]:
    """Yield an explanation of each record with an image, in bounded memory.

    Args:
        extractor: the model.
        records: the records; those without an image are left out.
        others: for each record, one with the image to use instead, e.g. of
            ``umie.experiments.data_sets.with_shuffled_images``; None leaves this view out.
        batch_size: records per batch.
        options: ``tasks``, ``labels`` and ``grounders`` as in ``Extractor.extract``.

    A view that is impossible is left out: without the image, if there is nothing else; a blank image, if the model
    finds features by the name of the image, or if the image cannot be read and ``missing_images`` allows it.

    Raises:
        UmieError: as in ``Extractor.extract``, or ``others`` are fewer.
    """
    pairs = ((one, None) for one in records) if others is None else zip_longest(records, others)
    is_blank_possible = not _reads_features(extractor)
    while batch := list(islice(pairs, batch_size)):
        views = []
        for one, other in batch:
            if one is None or (other is None and others is not None):
                raise UmieError("others are not as many as the records: pass one for each")
            if one.image is not None:
                with at(f"record {one.id}") if one.id else nullcontext():
                    views.append(_views(one, other, is_blank_possible, extractor))
        given = [view for own in views for view in own.values()]
        names = [f"record {view.id}" if view.id else "a record without id" for view in given]
        found = extractor.extract_many(given, place=names.__getitem__, **options)
        for own in views:
            yield _explanation({name: next(found) for name in own})


def effects(explanations: Iterable[Explanation], seed: int = 0) -> dict[str, dict[str, Effect]]:
    """Return by task and view how many decisions change, with bootstrap intervals over the records."""
    counts: dict[tuple[str, str], list[tuple[int, int]]] = {}
    number = 0
    for number, one in enumerate(explanations, 1):
        for view in one.views:
            for task in {decision.task for decision in one.decisions}:
                own = replace(one, decisions=tuple(item for item in one.decisions if item.task == task))
                column = counts.setdefault((task, view), [])
                column += [(0, 0)] * (number - 1 - len(column)) + [own.counts(view)]
    found: dict[str, dict[str, Effect]] = {}
    for (task, view), column in counts.items():
        column += [(0, 0)] * (number - len(column))
        array = np.array(column, dtype=np.float64)
        sums = bootstrap_sums(array, RESAMPLES, seed)
        with np.errstate(invalid="ignore"):
            low, high = interval(sums[:, 0] / sums[:, 1])
        changed, all_of = (int(total) for total in array.sum(0))
        found.setdefault(task, {})[view] = Effect(changed, all_of, low, high)
    return found


def _reads_features(extractor: Extracts) -> bool:
    return any(getattr(part, "reads_features", False) for part in extractor.model.modules())


def _views(record: Record, other: Record | None, is_blank_possible: bool, extractor: Extracts) -> dict[str, Record]:
    """Return the record as it is and with each other view that is possible."""
    found = {GIVEN: record}
    if record.text.strip() or record.media != ("image",):
        found["without"] = replace(record.ungrounded("image"), image=None, more_images=(), regions=())
    if is_blank_possible:
        try:
            sizes = [open_image(record.resolved("image", number)).size for number in range(len(record.images))]
        except UmieError:
            if extractor.missing_images == IMAGE_POLICIES[0]:
                raise
        else:
            blank, *more = map(_gray, sizes)
            found["blank"] = replace(record, image=blank, more_images=tuple(more))
    if other is not None:
        if len(other.images) < len(record.images):
            raise UmieError(f"it has {len(record.images)} images, and the other record has fewer")
        image, *more_images = (other.resolved("image", number) for number in range(len(record.images)))
        own = {medium: record.resolved(medium) for medium in record.media if medium != "image"}
        found["other"] = replace(record, image=image, more_images=tuple(more_images), image_folder=None, **own)
    return found


@lru_cache(maxsize=8)
def _gray(size: tuple[int, int]) -> Image.Image:
    return Image.new("RGB", size, GRAY)


def _explanation(extractions: dict[str, Extraction]) -> Explanation:
    known = {view: _decisions(found) for view, found in extractions.items()}
    keys = sorted({key for own in known.values() for key in own}, key=lambda key: (TASKS.index(key[0]), *key[1:]))
    decisions = []
    for key in keys:
        task, text = next(own[key][:2] for own in known.values() if key in own)
        found = {view: key in own for view, own in known.items()}
        probabilities = {view: own[key][2] if key in own else None for view, own in known.items()}
        decisions.append(Decision(task, text, found, probabilities))
    return Explanation(extractions, tuple(decisions))


def _decisions(found: Extraction) -> dict[Key, tuple[str, str, float | None]]:
    """Return the task, a text and the probability of each item by what it says about the text.

    The regions of an item do not count if it has a span, because without the image there are none.
    """
    items: dict[Key, tuple[str, str, float | None]] = {}

    def end(span: Any, places: Places) -> tuple[Key, str]:
        if span is not None:
            return (0, *span), found.record.surface(span)
        return (1, *places), " ".join(places.names) or "(no trigger)"

    for entity in found.entities:
        key, text = end(entity.span, entity.places)
        items["mner", key, entity.type] = "mner", f"{text}: {entity.type}", entity.probability
    for relation in found.relations:
        head, head_text = end(relation.head, relation.head_places)
        tail, tail_text = end(relation.tail, relation.tail_places)
        text = f"{head_text} - {relation.type} - {tail_text}"
        items["mre", head, tail, relation.type] = "mre", text, relation.probability
    for event in found.events:
        trigger, trigger_text = end(event.trigger, event.places)
        text = f"{trigger_text}: {event.type}"
        items["med", trigger, event.type] = "med", text, event.probability
        for argument in event.arguments:
            filler, filler_text = end(argument.span, argument.places)
            items["meae", trigger, filler, event.type, argument.role] = (
                "meae",
                f"{event.type} ({trigger_text}), {argument.role}: {filler_text}",
                argument.probability,
            )
    return items


def _cell(is_found: bool, probability: float | None) -> str:
    return "-" if not is_found else "found" if probability is None else f"{probability:.2f}"
