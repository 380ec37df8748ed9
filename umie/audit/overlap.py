"""What splits have in common: texts, the same or nearly, and images, by name, by bytes and by looks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import PurePath
from typing import Any, TypeVar

from umie.audit.images import DISTANCE, ImageHashes, hashes, near_images
from umie.audit.texts import THRESHOLD, near_duplicates, normalize
from umie.data.source import Source
from umie.errors import UmieError
from umie.records import Record

T = TypeVar("T")
MAX_MATCHES = 5  # ids of the other side that are kept for a record
KINDS = ("text", "near_text", "image_name", "image_bytes", "image_looks")


@dataclass
class Split:
    """What an audit keeps of a split: no text and no image, only what tells them apart.

    Args:
        name: what it is called in the report, such as ``test``.
        source: the file.
        ids: the id of each record.
        texts: the number of each record's normalized text among ``keys``, or -1 where it has none.
        keys: the normalized texts, each of them once.
        exact: how many records repeat the text of an earlier one, letter for letter.
        images: the records of each image, by its name.
        hashes: the hashes of the images that are at hand.
    """

    name: str
    source: Source
    ids: list[str] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    exact: int = 0
    images: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    hashes: dict[str, ImageHashes] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Return the counts of the split itself, as JSON holds them."""
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
    """What one split shares with another, or with itself.

    Args:
        left: name of the split whose records are counted.
        right: name of the other.
        matches: for each kind, the records of ``left`` (by position) with the ids of records of ``right``.
    """

    left: str
    right: str
    matches: dict[str, dict[int, list[str]]]
    ids: Sequence[str]

    def summary(self) -> dict[str, Any]:
        """Return counts and the ids of the records that match, as JSON holds them."""
        return {
            "left": self.left,
            "right": self.right,
            "records": {kind: len(found) for kind, found in self.matches.items()},
            "ids": {
                kind: [{"id": self.ids[position], "matches": others} for position, others in found.items()]
                for kind, found in self.matches.items()
            },
        }

    def positions(self, kinds: Iterable[str]) -> set[int]:
        """Return the positions of the records of ``left`` that match in any of the kinds."""
        return {position for kind in kinds for position in self.matches.get(kind, ())}


def read_split(name: str, source: Source, progress: Callable[[], None] = lambda: None) -> Split:
    """Read what an audit needs of a file.

    Images are hashed where their files are at hand; a file that is no image is passed over, as
    ``umie data validate`` is what names it.
    """
    split = Split(name, source)
    numbers: dict[str, int] = {}
    letters: set[bytes] = set()
    for position, record in enumerate(source.named()):
        progress()
        split.ids.append(str(record.id))
        key = normalize(record.text)
        if key:
            split.texts.append(numbers.setdefault(key, len(numbers)))
            letter = blake2b(record.text.encode(), digest_size=16).digest()
            split.exact += letter in letters
            letters.add(letter)
        else:
            split.texts.append(-1)
        if isinstance(record.image, str):
            _note_image(split, record, record.image, position)
    split.keys = list(numbers)
    return split


def _note_image(split: Split, record: Record, image: str, position: int) -> None:
    name = PurePath(image).name
    if name not in split.images:
        try:
            path = record.image_path()
            if path is not None and path.is_file():
                split.hashes[name] = hashes(path)
        except (UmieError, OSError):
            pass
    split.images[name].append(position)


def overlaps(
    splits: Sequence[Split],
    *,
    threshold: float = THRESHOLD,
    distance: int = DISTANCE,
    pairs: Iterable[tuple[int, int]] | None = None,
) -> list[Overlap]:
    """Compare splits with each other and with themselves.

    Args:
        splits: the splits.
        threshold: least Jaccard similarity of near-duplicate texts.
        distance: most bits in which the difference hashes of two images that look alike may differ.
        pairs: which splits to compare, by position; by default every later one with every earlier one, and each
            with itself.

    Returns:
        One overlap for each pair. ``near_text`` does not hold what ``text`` holds already, and ``image_looks``
        nothing that ``image_bytes`` holds. Within a split, a record matches any record but itself.
    """
    if pairs is None:
        pairs = [(right, left) for right in range(len(splits)) for left in range(right + 1)]
    numbers: dict[str, int] = {}
    texts = [_records_by_text(split, numbers) for split in splits]
    near = _neighbors((left, right) for left, right, _ in near_duplicates(list(numbers), threshold))
    contents = {found.content: found.difference for split in splits for found in split.hashes.values()}
    looks = {content: bits for content, bits in contents.items() if bits is not None}
    alike = _neighbors((left, right) for left, right, _ in near_images(looks, distance))
    result = []
    for left, right in pairs:
        match = _Matcher(splits[left], splits[right])
        for text, positions in texts[left].items():
            match.note("text", positions, texts[right].get(text, ()))
            for other in near.get(text, ()):
                match.note("near_text", positions, texts[right].get(other, ()), unless="text")
        by_content = _records_by_content(splits[right])
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
    """Collects the matches of one pair of splits."""

    def __init__(self, left: Split, right: Split) -> None:
        self._same = left is right
        self._other_ids = right.ids
        self.overlap = Overlap(left.name, right.name, {kind: {} for kind in KINDS}, left.ids)

    def note(self, kind: str, positions: Sequence[int], others: Sequence[int], unless: str = "") -> None:
        """Match every one of the positions with the others, itself apart, unless it matches in a closer way."""
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


def _records_by_text(split: Split, numbers: dict[str, int]) -> dict[int, list[int]]:
    """Return the records of every text of a split; ``numbers`` counts the texts of all splits on."""
    own = [numbers.setdefault(key, len(numbers)) for key in split.keys]
    records: dict[int, list[int]] = defaultdict(list)
    for position, text in enumerate(split.texts):
        if text >= 0:
            records[own[text]].append(position)
    return dict(records)


def _records_by_content(split: Split) -> dict[str, list[int]]:
    records: dict[str, list[int]] = defaultdict(list)
    for name, found in split.hashes.items():
        records[found.content].extend(split.images[name])
    return dict(records)


def _neighbors(pairs: Iterable[tuple[T, T]]) -> dict[T, list[T]]:
    result: dict[T, list[T]] = defaultdict(list)
    for left, right in pairs:
        result[left].append(right)
        result[right].append(left)
    return dict(result)
