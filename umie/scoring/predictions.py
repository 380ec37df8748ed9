"""Files of predictions: read leniently and joined to the annotated records."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from umie.data.source import Source
from umie.errors import UmieError, at, check_characters, shown
from umie.files import read_lines
from umie.records import MEDIA, Record, is_no_relation, record_from_json, record_to_json
from umie.records.jsonl import parse_line, read_string
from umie.records.places import PLACES
from umie.scoring.counts import Key
from umie.scoring.mentions import strings_of

_IMAGES = {"image", "images"}  # a line has one of these keys


class GoldLine(NamedTuple):
    """An annotated record, its number in the file, and its place for messages, e.g. ``g.jsonl:3``."""

    number: int
    record: Record
    place: str


@dataclass(frozen=True)
class Prediction:
    """The prediction of a system for one record.

    ``record`` has the predicted items with offsets; ``strings`` has all items as strings, label first, for each kind of
    task in which the file has mentions without offsets.
    """

    record: Record
    strings: Mapping[str, tuple[Key, ...]] = field(default_factory=dict)


def read_gold(path: str | Path | Source) -> list[GoldLine]:
    """Read the annotated records of a JSONL file, or of a file in another format.

    Raises:
        UmieError: a record is not valid, or the file has no records.
    """
    source = path if isinstance(path, Source) else Source(Path(path))
    lines = [GoldLine(number, record, source.place(number)) for number, record in source.numbered()]
    if not lines:
        raise UmieError(f"{source.path}: has no records: use a file of annotated records")
    return lines


def read_predictions(
    path: str | Path, gold: Sequence[GoldLine], gold_path: str | Path, tasks: Sequence[str] | None = None
) -> list[Prediction]:
    """Read predictions, in the order of ``gold``.

    The lines are records that hold predictions instead of annotation, with three exceptions: a line with an ``id`` may
    omit ``text``; without ``image``, ``regions`` or other media and places, those of gold are used; and an entity,
    head, tail, trigger or argument may have a ``text`` instead of a ``span``. A task with such mentions is scored only
    by strings, throughout the file.

    Lines are joined to gold by ``id`` if every record of both files has a unique one, otherwise by order.

    Args:
        path: the predictions.
        gold: the annotated records.
        gold_path: their file, for messages.
        tasks: the tasks to score; a record that is annotated for none of them needs no prediction.

    Raises:
        UmieError: a line is invalid, matches no record of gold, or has another text; or a record of gold has no
            prediction.
    """
    lines = list(_objects(path))
    needed = [line for line in gold if tasks is None or any(map(line.record.annotated_for, tasks))]
    pairs, by_id = _join(path, lines, gold, gold_path, needed)
    parsed: list[tuple[Record, dict[str, list[Key]]]] = []
    for found, (_, record, place) in pairs:
        if found is None:
            parsed.append((replace(record, entities=(), relations=(), events=()), {}))
            continue
        number, data = found
        with at(f"{path}:{number}"):
            text = data.setdefault("text", record.text if by_id else "")
            if text != record.text:
                raise UmieError(
                    f"text is {shown(text)}, but {place} says {shown(record.text)}: "
                    "offsets would not match; use the same texts, either in the same order or with ids"
                )
            for key, value in _media(record).items():
                if key not in _IMAGES or not _IMAGES & data.keys():
                    data.setdefault(key, value)
            strings = _pop_strings(data, text)
            check_characters(json.dumps(strings, ensure_ascii=False), "a mention without a span")
            parsed.append((_record(data), strings))
    kinds = {kind for _, strings in parsed for kind in strings}
    return [
        Prediction(record, {kind: (*strings_of(kind, record), *strings.get(kind, ())) for kind in kinds})
        for record, strings in parsed
    ]


def _record(data: Mapping[str, Any]) -> Record:
    try:
        line = json.dumps(data)
    except RecursionError as error:
        raise UmieError("the line is nested too deeply: expected a record") from error
    return record_from_json(line)


def _media(record: Record) -> dict[str, Any]:
    """Return the media of a record and their places, as in its line."""
    bare = replace(record, entities=(), relations=(), events=(), source=None, license=None, labels=None)
    data = json.loads(record_to_json(bare))
    return {key: data[key] for key in (*MEDIA, "images", *PLACES.values()) if key in data}


def _objects(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in read_lines(Path(path)):
        if not line.strip():
            continue
        with at(f"{path}:{number}"):
            data = parse_line(line)
            if not isinstance(data, dict):
                raise UmieError(f"the line is {shown(data)}: expected a JSON object with one record")
        yield number, data


def _join(
    path: str | Path,
    lines: Sequence[tuple[int, dict[str, Any]]],
    gold: Sequence[GoldLine],
    gold_path: str | Path,
    needed: Sequence[GoldLine],
) -> tuple[list[tuple[tuple[int, dict[str, Any]] | None, GoldLine]], bool]:
    """Return each gold line with its prediction, if it needs one, and whether they were joined by id."""
    names = [line.record.id for line in gold]
    given = [None if data.get("id") is None else str(data["id"]) for _, data in lines]
    if None in names or None in given or len(set(names)) < len(names) or len(set(given)) < len(given):
        if len(lines) == len(needed) < len(gold):
            places = {line.number: answer for line, answer in zip(needed, lines, strict=True)}
            return [(places.get(line.number), line) for line in gold], False
        if len(lines) > len(gold):
            raise UmieError(
                f"{path}:{lines[len(gold)][0]}: more records than the {len(gold)} of {gold_path}; records are joined "
                "by order if an id is missing or repeated: remove the line, or use a unique id for each record"
            )
        if len(lines) < len(gold):
            raise UmieError(
                f"{path}: has {len(lines)} records, but {gold_path} has {len(gold)}; the first without a prediction "
                f"is {gold[len(lines)].place}: add a line for it, without items if nothing was found"
            )
        return list(zip(lines, gold, strict=True)), False
    answers = dict(zip(given, lines, strict=True))
    known = set(names)
    for name, (number, _) in answers.items():
        if name not in known:
            raise UmieError(f"{path}:{number}: id {shown(name)} is not in {gold_path}: remove the line")
    for line in needed:
        if line.record.id not in answers:
            raise UmieError(
                f"{path}: has no record with the id {shown(line.record.id)} of {line.place}: add a line "
                "for it, without items if nothing was found; for predictions of only some tasks, use --task"
            )
    return [(answers.get(line.record.id), line) for line in gold], True


def _pop_strings(data: dict[str, Any], text: str) -> dict[str, list[Key]]:
    """Remove the items without offsets, which a record cannot hold, from a line; return them as strings by kind."""
    strings: dict[str, list[Key]] = defaultdict(list)
    for item in _pop(data, "entities"):
        strings["entities"].append((read_string(item, "type", "entity"), item["text"]))
    for item in _pop(data, "relations", "head", "tail"):
        name = read_string(item, "type", "relation")
        ends = [item.get(end) for end in ("head", "tail")]
        relations = strings["relations"]  # even if it stays empty: the kind is then scored only as strings
        if not any(map(_is_unwritten, ends)) and not is_no_relation(name):
            relations.append((name, *(_string(end, text) for end in ends)))
    for item in _pop(data, "events", "trigger"):
        name, trigger = read_string(item, "type", "event"), item["trigger"]["text"]
        strings["events"].append((name, trigger))
        arguments = [argument for argument in _dicts(item, "arguments") if not _is_unwritten(argument)]
        strings["arguments"] += [_argument(argument, name, trigger, text) for argument in arguments]
    for item in _dicts(data, "events"):
        for argument in _dicts(item, "arguments"):
            if argument.get("region") is not None and argument.get("span") is None:
                argument.pop("text", None)  # a description of the region
        for argument in _pop(item, "arguments"):
            found = item.get("trigger")
            trigger = None if found is None or _is_unwritten(found) else _string(found, text)
            strings["arguments"].append(_argument(argument, read_string(item, "type", "event"), trigger, text))
    return dict(strings)


def _pop(data: dict[str, Any], key: str, *mentions: str) -> list[dict[str, Any]]:
    """Remove from a list the items that have a mention without offsets, or without ``mentions`` are one themselves."""
    popped = []
    for item in _dicts(data, key):
        if any(map(_is_bare_text, [item.get(name) for name in mentions] if mentions else [item])):
            popped.append(item)
    if popped:
        data[key] = [item for item in data[key] if not any(item is other for other in popped)]
    return popped


def _dicts(data: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = data.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _is_bare_text(mention: Any) -> bool:
    """Return whether a mention has a text but neither a span nor a region."""
    if not isinstance(mention, dict) or mention.get("span") is not None or mention.get("region") is not None:
        return False
    return isinstance(mention.get("text"), str) and bool(mention["text"])


def _is_unwritten(mention: Any) -> bool:
    """Return whether a mention has only places, so that no string can express it."""
    if not isinstance(mention, dict) or mention.get("span") is not None or _is_bare_text(mention):
        return False
    return mention.get("region") is not None or any(map(mention.get, PLACES.values()))


def _argument(argument: Mapping[str, Any], name: str, trigger: str | None, text: str) -> Key:
    return (read_string(argument, "role", "argument"), _string(argument, text), name, trigger)


def _string(mention: Any, text: str) -> str:
    """Return the text of a mention: a span, an object with a span, or an object with only a text."""
    if _is_bare_text(mention):
        return str(mention["text"])
    span = mention.get("span") if isinstance(mention, dict) else mention
    if not (isinstance(span, list) and len(span) == 2 and all(type(edge) is int for edge in span)):
        raise UmieError(f"mention is {shown(mention)}: use its span [start, end] or its text")
    start, end = span
    if not 0 <= start < end <= len(text):
        raise UmieError(f"span {span} is not inside the text of {len(text)} characters")
    return text[start:end]
