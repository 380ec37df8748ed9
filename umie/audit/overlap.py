"""Overlaps of splits: the same or similar texts, and images with the same name, bytes or appearance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import PurePath
from typing import Any, TypeVar

from umie.audit.images import ImageHashes, hashes, near_images
from umie.audit.texts import THRESHOLD, near_duplicates, normalize
from umie.data.source import Source
from umie.errors import UmieError

T = TypeVar("T")
MAX_MATCHES = 5  # ids of matching records that are kept per record
KINDS = ("text", "near_text", "image_name", "image_bytes", "image_looks")


@dataclass
class Split:
    """The texts and images of a split, reduced to the keys by which they are compared."""

    name: str  # in reports, such as ``test``
    source: Source
    ids: list[str] = field(default_factory=list)  # of each record
    texts: list[int] = field(default_factory=list)  # of each record, the index of its text in ``keys``; -1 without text
    keys: list[str] = field(default_factory=list)  # the distinct normalized texts
    exact: int = 0  # records with exactly the same text as an earlier one
    images: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))  # file name: positions of records
    hashes: dict[str, ImageHashes] = field(default_factory=dict)  # of the images whose files exist, by name

    def summary(self) -> dict[str, Any]:
        """Return the counts of the split in JSON form."""
        with_text = sum(number >= 0 for number in self.texts)
        return {
            "name": self.name,
            "path": str(self.source.path),
            "records": len(self.ids),
            "distinct_texts": len(self.keys),
            "records_repeating_a_text": with_text - len(self.keys),
            "records_repeating_a_text_to_the_letter": self.exact,
            "distinct_image_names": len(self.images),
            "images_at_hand": len(self.hashes),
        }


@dataclass
class Overlap:
    """The records of a split that occur in another split, or repeatedly in the same split."""

    left: str  # the split whose records are counted
    right: str
    matches: dict[str, dict[int, list[str]]]  # by kind, positions in ``left`` with the ids of matches in ``right``
    ids: Sequence[str]  # of each record of ``left``

    def summary(self) -> dict[str, Any]:
        """Return the number and the ids of the matching records in JSON form."""
        return {
            "left": self.left,
            "right": self.right,
            "records": {kind: len(found) for kind, found in self.matches.items()},
            "ids": {
                kind: [{"id": self.ids[position], "matches": others} for position, others in found.items()]
                for kind, found in self.matches.items()
            },
        }


def read_split(name: str, source: Source, progress: Callable[[], None] = lambda: None) -> Split:
    """Read the texts and images of a file for ``overlaps``.

    Image files that exist are hashed; files that are not images are ignored here, ``umie data validate`` reports them.
    ``progress`` is called once per record.
    """
    split = Split(name, source)
    numbers: dict[str, int] = {}
    exact_texts: set[bytes] = set()
    for position, record in enumerate(source.named()):
        progress()
        split.ids.append(str(record.id))
        key = normalize(record.text)
        if key:
            split.texts.append(numbers.setdefault(key, len(numbers)))
            exact_text = blake2b(record.text.encode(), digest_size=16).digest()
            split.exact += exact_text in exact_texts
            exact_texts.add(exact_text)
        else:
            split.texts.append(-1)
        names = {PurePath(image).name: number for number, image in enumerate(record.images) if isinstance(image, str)}
        for image, number in names.items():
            if image not in split.images:
                with suppress(UmieError, OSError):
                    path = record.path("image", number)
                    if path is not None and path.is_file():
                        split.hashes[image] = hashes(path)
            split.images[image].append(position)
    split.keys = list(numbers)
    return split


def overlaps(
    splits: Sequence[Split],
    *,
    threshold: float = THRESHOLD,
    pairs: Iterable[tuple[int, int]] | None = None,
) -> list[Overlap]:
    """Compare splits with each other and with themselves; return one overlap per pair.

    ``pairs`` are the splits to compare, by position; by default, every split with all earlier ones and with itself.
    ``threshold`` is the minimum Jaccard similarity of near-duplicate texts. ``near_text`` excludes the records of
    ``text``, and ``image_looks`` those of ``image_bytes``. Within a split, a record does not match itself.
    """
    if pairs is None:
        pairs = [(right, left) for right in range(len(splits)) for left in range(right + 1)]
    numbers: dict[str, int] = {}
    texts: list[dict[int, list[int]]] = []  # of each split: the positions of the records with each text
    for split in splits:
        own = [numbers.setdefault(key, len(numbers)) for key in split.keys]
        records: dict[int, list[int]] = defaultdict(list)
        for position, text in enumerate(split.texts):
            if text >= 0:
                records[own[text]].append(position)
        texts.append(records)
    near = _neighbors((left, right) for left, right, _ in near_duplicates(list(numbers), threshold))
    contents = {found.content: found.difference for split in splits for found in split.hashes.values()}
    looks = {content: bits for content, bits in contents.items() if bits is not None}
    alike = _neighbors((left, right) for left, right, _ in near_images(looks))
    result = []
    for left, right in pairs:
        match = _Matcher(splits[left], splits[right])
        for text, positions in texts[left].items():
            match.note("text", positions, texts[right].get(text, ()))
            for other in near.get(text, ()):
                match.note("near_text", positions, texts[right].get(other, ()), unless="text")
        by_content: dict[str, list[int]] = defaultdict(list)
        for name, found in splits[right].hashes.items():
            by_content[found.content].extend(splits[right].images[name])
        for name, positions in splits[left].images.items():
            match.note("image_name", positions, splits[right].images.get(name, ()))
            if name not in splits[left].hashes:
                continue
            content = splits[left].hashes[name].content
            match.note("image_bytes", positions, by_content.get(content, ()))
            for other_content in alike.get(content, ()):
                match.note("image_looks", positions, by_content.get(other_content, ()), unless="image_bytes")
        result.append(match.overlap)
    return result


class _Matcher:
    """Collect the matches of a pair of splits."""

    def __init__(self, left: Split, right: Split) -> None:
        self._same = left is right
        self._other_ids = right.ids
        self.overlap = Overlap(left.name, right.name, {kind: {} for kind in KINDS}, left.ids)

    def note(self, kind: str, positions: Sequence[int], others: Sequence[int], unless: str = "") -> None:
        """Match all positions with all others, except records with a match of the kind ``unless``."""
        if not others:
            return
        closer = self.overlap.matches.get(unless, {})
        for position in positions:
            if position in closer:
                continue
            found = [
                self._other_ids[other] for other in others[: MAX_MATCHES + 1] if not (self._same and other == position)
            ]
            if found:
                known = self.overlap.matches[kind].setdefault(position, [])
                known.extend(found[: MAX_MATCHES - len(known)])


def _neighbors(pairs: Iterable[tuple[T, T]]) -> dict[T, list[T]]:
    result: dict[T, list[T]] = defaultdict(list)
    for left, right in pairs:
        result[left].append(right)
        result[right].append(left)
    return dict(result)
