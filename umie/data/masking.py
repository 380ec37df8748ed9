"""The masked-mention study: in a caption, one mention is replaced by a neutral word; its type must be seen."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from umie.data.splitting import SHARES, split_by_image
from umie.errors import UmieError
from umie.records import Entity, Record

WORD = "something"
_IRREGULAR = {"men": "man", "women": "woman", "children": "child", "feet": "foot", "teeth": "tooth", "mice": "mouse"}
_WORD = re.compile(r"\w+")
_POSSESSIVE = re.compile(r"\s?['\u2019]s?(?=\W|$)")
_ALWAYS_PLURAL = {
    "clothes", "glasses", "goggles", "jeans", "pants", "shorts", "stairs", "sunglasses", "tights", "trousers",
}  # fmt: skip


@dataclass(frozen=True)
class Masked:
    """The records of the study by split, the types with their numbers of mentions, and what was left out."""

    splits: Mapping[str, Sequence[Record]]
    types: Mapping[str, int]
    num_left_out: int  # records without a grounded mention of these types


def head_of(mention: str) -> str:
    """Return the type of a mention: its last word, in lowercase and in the singular.

    This is the head of most English noun phrases ("a young child" -> "child"), with known noise: "a man in red" ->
    "red", "the other one" -> "one"; plurals are found by their ending.
    """
    words = _WORD.findall(_POSSESSIVE.sub("", mention.lower()))
    word = words[-1] if words else ""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word in _ALWAYS_PLURAL or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    return word[:-2] if word.endswith(("sses", "xes", "ches", "shes")) else word[:-1]


def mask_mentions(
    records: Iterable[Record],
    *,
    num_types: int = 12,
    word: str = WORD,
    shares: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Masked:
    """Return MNER records with one masked mention each: its entity is ``word``, its type the head of the mention.

    Images are divided between the splits, so that no split has an image of another. The types are the most frequent
    heads of mentions with a region, counted in the training split. A mention is not masked if its head is also
    elsewhere in the caption. Regions are kept, and so are those of the masked mention; other entities are left out.

    Args:
        records: captions with entities that have regions, e.g. from the format ``flickr_entities``.
        num_types: the number of types.
        word: what replaces the mention.
        shares: the share of the images in each split; by default 0.7 train, 0.1 dev, 0.2 test.
        seed: seed of the division, and of the choice of a mention.

    Raises:
        UmieError: there are no mentions with a region, or a split is empty.
    """
    rng = random.Random(seed)
    shares = SHARES if shares is None else shares
    divided = split_by_image(records, shares, rng=rng)
    heads = Counter(head_of(entity.text) for record in divided["train"] for entity in record.entities if entity.regions)
    heads.pop("", None)  # a mention without a word
    types = dict(sorted(heads.items(), key=lambda item: (-item[1], item[0]))[:num_types])
    if not types:
        raise UmieError("no entity of the training records has a region: use a format such as flickr_entities")
    splits: dict[str, list[Record]] = {name: [] for name in shares}
    left_out = 0
    for name, own in divided.items():
        for record in own:
            found = [
                entity
                for entity in record.entities
                if entity.span is not None and entity.regions and _is_hidden(record, entity, types)
            ]
            if found:
                splits[name].append(_masked(record, rng.choice(found), word, tuple(types)))
            else:
                left_out += 1
        if not splits[name]:
            raise UmieError(f"the {name} split has no mention of these types: use more records or other shares")
    return Masked(splits, types, left_out)


def _is_hidden(record: Record, entity: Entity, types: Mapping[str, int]) -> bool:
    """Return whether the head of a mention is a type, and nowhere else in the caption."""
    head = head_of(entity.text)
    start, end = entity.span or (0, 0)
    rest = f"{record.text[:start]} {record.text[end:]}"
    return head in types and head not in map(head_of, _WORD.findall(rest))


def _masked(record: Record, entity: Entity, word: str, types: tuple[str, ...]) -> Record:
    start, end = entity.span or (0, 0)
    return replace(
        record,
        text=f"{record.text[:start]}{word}{record.text[end:]}",
        entities=(Entity(head_of(entity.text), (start, start + len(word)), regions=entity.regions),),
        relations=(),
        events=(),
        tasks=("mner",),
        labels={"mner": types},
        gold=None,
    )
