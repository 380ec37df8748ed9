"""MNRE, versions 1 and 2: tweets with the relation between two entities."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from umie.data import registry
from umie.data.reading import (
    OnError,
    OptionalPath,
    Tokens,
    field,
    file_name,
    numbered_lines,
    parsed_entries,
    parsed_lines,
    refuse_regions,
)
from umie.data.tweets import TWITTER_LICENSE
from umie.errors import UmieError, shown
from umie.files import open_regular, parse_json, read_json
from umie.records import NO_RELATION, Record, Relation, Span, is_no_relation
from umie.records.no_relation import note_no_relation

MAX_LINE_BYTES = 1 << 16  # Python joins adjacent string literals in quadratic time; real lines have up to 425 bytes
_ONLY_VERSION_1 = (
    "administration divisions", "capital", "place of death", "creat", "founder of", "leader", "classmate", "colleague",
)  # fmt: skip
_BOTH_VERSIONS = (
    NO_RELATION, "parent", "siblings", "couple", "neighbor", "peer", "charges", "alumi", "alternate names", "member of",
    "place of residence", "place of birth", "organization alternate names", "subsidiary", "locate at", "contain",
    "present in", "awarded", "race", "religion", "nationality", "part of", "held on",
)  # fmt: skip
_SCHEMAS = ({"mre": (*_BOTH_VERSIONS, *_ONLY_VERSION_1)}, {"mre": _BOTH_VERSIONS})


@registry.register("mnre")
def read(
    path: str | Path, *, images: OptionalPath = None, regions: OptionalPath = None, on_error: OnError | None = None
) -> Iterator[Record]:
    """Yield one MRE record per pair; the text is the tokens joined by single spaces.

    Source: the files of thecharm/MNRE: each line is a Python dict with ``token``, ``h`` and ``t`` (``name`` and
    ``pos``, token offsets, end exclusive), ``relation`` and ``img_id`` (the name of the image; 323 lines of version 1
    have a number, which is read as '<number>.jpg'); other fields are ignored. The label of a relation is the last part
    of its path: '/per/org/member_of' becomes 'member of'. None, none and null become ``umie.records.NO_RELATION``. A
    list of relations becomes several relations of the pair. Only
    '/org/org/alternate_names' becomes 'organization alternate names', to distinguish it from
    '/per/per/alternate_names'; the paper calls both 'alternate names'. In version 1, ``relation`` comes before
    ``img_id`` and the schema has 31 labels; in version 2, it comes after ``img_id`` and the schema has 23 labels.

    The lines may also be JSON, and a file may be a single JSON list of such objects, or an object of them by id.

    Raises:
        UmieError: the file cannot be read, or ``regions`` is given; without ``on_error``, a line is not such a dict,
            or a span is outside the text or differs from its name in more than whitespace.
    """
    path = Path(path)
    refuse_regions(path, regions, "mnre")
    if _is_one_value(path):
        entries = read_json(path, "a list of objects, or one object per line", allow_nan=True)
        if isinstance(entries, list):
            entries = {f"entry {number}": entry for number, entry in enumerate(entries, start=1)}
        numbers = {key: number for number, key in enumerate(entries, start=1)}
        yield from parsed_entries(path, entries, lambda key, data: _record(data, path, numbers[key], images), on_error)
        return
    yield from parsed_lines(
        path, lambda number, line: _record(_literal(line), path, number, images), on_error, MAX_LINE_BYTES
    )


def _is_one_value(path: Path) -> bool:
    """Return whether a file is a single JSON value: a list, or an object that is not in the first line."""
    for _, line in numbered_lines(path):
        if isinstance(line, UmieError):  # a list may be one long line
            with open_regular(path) as file:
                return re.match(rb"\s*\[\s*\{", file.read(64)) is not None
        if line.strip():
            return re.match(r"\s*(\[\s*(\{|$)|\{\s*$)", line) is not None
    return False


def _record(data: dict[str, Any], path: Path, number: int, images: OptionalPath) -> Record:
    tokens = Tokens(field(data, "token", list, "the line"))
    labels = _labels(data)
    head = _mention(field(data, "h", dict, "the line"), tokens, "the head 'h'")
    tail = _mention(field(data, "t", dict, "the line"), tokens, "the tail 't'")
    keys = list(data)
    image = None
    if images is not None:
        is_number = type(data.get("img_id")) is int
        image = f"{shown(data['img_id'])}.jpg" if is_number else field(data, "img_id", str, "the line")
        file_name(image, "img_id")
    schema = _SCHEMAS["img_id" not in keys or keys.index("img_id") < keys.index("relation")]
    return Record(
        text=tokens.text,
        image=image,
        image_folder=None if images is None else str(images),
        relations=tuple(Relation(label, head, tail) for label in labels),
        id=f"{path.stem}:{number}",
        tasks=("mre",),
        source=f"MNRE: {path.name}",
        license=TWITTER_LICENSE,
        labels=schema if set(labels) <= set(schema["mre"]) else None,  # a custom relation
    )


def _literal(line: str) -> dict[str, Any]:
    try:
        data = ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        try:
            data = parse_json(line)  # with null, true or false
        except UmieError:
            raise UmieError(f"{shown(line)} is not a Python dict of literal values: expected one per line") from error
    if not isinstance(data, dict):
        raise UmieError(f"{shown(line)} is not a Python dict: expected one per line")
    return data


def _mention(data: dict[str, Any], tokens: Tokens, owner: str) -> Span:
    position = field(data, "pos", list, owner)
    if len(position) != 2:
        raise UmieError(f"field 'pos' of {owner} is {shown(position)}: expected two token offsets")
    start, end = position
    return tokens.span(start, end, owner, field(data, "name", str, owner))


def _labels(data: Mapping[str, Any]) -> list[str]:
    """Return the labels of the pair: one, or several if ``relation`` is a list."""
    given = data.get("relation", "")
    if given is None:
        note_no_relation("null")
        return [NO_RELATION]
    if isinstance(given, list) and given:
        names = [field({"relation": name}, "relation", str, "the line") for name in given]
        return list(dict.fromkeys(map(_label, names)))
    return [_label(field(data, "relation", str, "the line"))]


def _label(relation: str) -> str:
    if is_no_relation(relation):
        if relation.strip("/ ").lower() != NO_RELATION:  # the name in MNRE
            note_no_relation(relation)
        return NO_RELATION
    label = relation.rpartition("/")[2].replace("_", " ").strip()
    if not label:
        raise UmieError(f"relation is {shown(relation)}: expected a path such as '/per/org/member_of', or 'None'")
    if is_no_relation(label):
        note_no_relation(relation)
        return NO_RELATION
    return f"organization {label}" if relation.strip() == "/org/org/alternate_names" else label
