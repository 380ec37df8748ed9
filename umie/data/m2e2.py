"""M2E2: news sentences with events, paired with the pictures that show the same event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from umie.data import registry
from umie.data._text import Tokens, check_folder, field, file_name, load_json, refuse_regions
from umie.data.voc import pixel_region
from umie.errors import UmieError, at, check_characters, shown
from umie.files import read_lines
from umie.records import Argument, Event, Record, Region, Span

_PAIRS = "crossmedia_coref.txt"
_PICTURES = "image_multimedia_event.json"
_EXIF_ORIENTATION = 0x0112


class _Pair(NamedTuple):
    place: str
    sentence_id: str
    image: str
    event_type: str


@registry.register("m2e2")
def read(path: str | Path, *, images: str | Path | None = None, regions: str | Path | None = None) -> Iterator[Record]:
    """Yield one MED and MEAE record for each sentence and picture that show the same event.

    Source: the annotation files of limanling/m2e2. ``path`` is a list of sentences (``sentence_id``,
    ``words``, ``golden-event-mentions`` with token offsets). Beside it, ``crossmedia_coref.txt`` pairs them
    with pictures, and ``image_multimedia_event.json`` holds the pictures' arguments: boxes
    ``[flag, x1, y1, x2, y2]`` in pixels, where both flags, ``1`` for one participant and ``0`` for a group,
    are read alike. A sentence that no pair names gives one record without a picture.

    The events of the pair's type get the boxes as arguments, unless the picture is annotated for another type
    (2 of the 309 pairs). Types are called as in the paper: 'Justice:Arrest-Jail' is 'arrest jail',
    'Transaction:Transfer-Money' is 'transfer'.

    Args:
        path: text_multimedia_event.json, or another list of such sentences.
        images: the folder of the pictures; without it the records have none. Boxes are relative to the
            picture's size, so a picture that is not there leaves its record without regions.
        regions: not accepted.

    Raises:
        UmieError: a file that cannot be read or holds no sentences, a missing or ill-typed field, offsets
            outside the text, a pair without its sentence, a box outside its picture, or ``regions`` given.
    """
    path = Path(path)
    refuse_regions(path, regions, "m2e2")
    if images is not None:
        check_folder(images, "images")
    sentences = load_json(path)
    if not isinstance(sentences, list):
        raise UmieError(
            f"{path}: holds no list of sentences, and a record needs a text: image_only_event.json and "
            f"{_PICTURES} annotate pictures alone; give text_multimedia_event.json"
        )
    identifiers = []
    for number, sentence in enumerate(sentences):
        with at(f"{path}: sentence {number} (from 0)"):
            identifiers.append(field(sentence, "sentence_id", str, "the sentence"))
    pairs = _pairs(path.with_name(_PAIRS), set(identifiers))
    annotation = _annotation(path.with_name(_PICTURES)) if images is not None else None
    for identifier, sentence in zip(identifiers, sentences, strict=True):
        with at(f"{path}: {identifier}"):
            tokens = Tokens(field(sentence, "words", list, "the sentence"))
            mentions = field(sentence, "golden-event-mentions", list, "the sentence")
            events = tuple(_event(mention, tokens) for mention in mentions)
            text_only = Record(tokens.text, events=events, id=identifier, tasks=("med", "meae"))
        if identifier not in pairs:
            yield text_only
        for pair in pairs.get(identifier, ()):
            yield _paired(text_only, pair, images, annotation)


def _paired(record: Record, pair: _Pair, images: str | Path | None, annotation: Mapping[str, Any] | None) -> Record:
    stem = Path(pair.image).stem
    with at(pair.place):
        if pair.event_type not in {event.type for event in record.events}:
            raise UmieError(f"the sentence {pair.sentence_id} has no event of the type {pair.event_type!r}")
        if annotation is not None and stem not in annotation:
            raise UmieError(f"the picture {stem} is not in {_PICTURES}: add it there, or take the pair out")
    record = replace(record, id=f"{pair.sentence_id}:{stem}")
    if images is None:
        return record
    regions: list[Region] = []
    arguments: list[Argument] = []
    if annotation is not None and (size := _displayed_size(Path(images) / pair.image)):
        with at(f"{Path(pair.place).parent / _PICTURES}: {stem}"):
            for role, region in _boxes(annotation[stem], pair.event_type, size):
                arguments.append(Argument(role, region=len(regions)))
                regions.append(region)
    events = tuple(
        replace(event, arguments=(*event.arguments, *arguments)) if event.type == pair.event_type else event
        for event in record.events
    )
    return replace(record, image=pair.image, image_folder=str(images), regions=tuple(regions), events=events)


def _boxes(data: object, event_type: str, size: tuple[int, int]) -> Iterator[tuple[str, Region]]:
    """Yield the roles and regions of a picture, if it is annotated for the type."""
    if _type_name(field(data, "event_type", str, "the picture")) != event_type:
        return
    roles = field(data, "role", dict, "the picture")
    for role in roles:
        check_characters(role, "a role")
        for box in field(roles, role, list, "the picture's roles"):
            with at(f"role {role!r}"):
                if not isinstance(box, list) or [type(edge) in (int, float) for edge in box[1:]] != [True] * 4:
                    raise UmieError(f"box is {shown(box)}: expected [flag, x1, y1, x2, y2]")
                yield role, pixel_region(box[1:], size)


def _event(mention: object, tokens: Tokens) -> Event:
    name = _type_name(field(mention, "event_type", str, "the event"))
    trigger = field(mention, "trigger", dict, f"the event {name!r}")
    arguments = []
    for item in field(mention, "arguments", list, f"the event {name!r}"):
        role = field(item, "role", str, "the argument")
        arguments.append(Argument(role, _mention(item, tokens, f"the argument {role!r}")))
    return Event(name, _mention(trigger, tokens, f"the trigger of {name!r}"), tuple(arguments))


def _mention(data: Mapping[str, Any], tokens: Tokens, owner: str) -> Span:
    return tokens.span(data.get("start"), data.get("end"), owner, data.get("text"))


def _type_name(name: str) -> str:
    label = name.rpartition(":")[2].replace("-", " ").lower().strip()
    if not label:
        raise UmieError(f"event type is {shown(name)}: expected one such as 'Justice:Arrest-Jail'")
    return "transfer" if label == "transfer money" else label


def _pairs(path: Path, known: AbstractSet[str]) -> dict[str, list[_Pair]]:
    """Return the pairs by sentence; none where the file is absent or is about other sentences altogether."""
    if not path.exists():
        return {}
    pairs: dict[str, list[_Pair]] = {}
    for number, line in read_lines(path):
        if line.strip():
            with at(f"{path}:{number}"):
                parts = line.split("\t")
                if len(parts) != 3:
                    raise UmieError(f"{shown(line)} is no pair: expected sentence<TAB>picture<TAB>event type")
                image = file_name(parts[1].strip(), "the picture")
                pair = _Pair(f"{path}:{number}", parts[0].strip(), image, _type_name(parts[2]))
            pairs.setdefault(pair.sentence_id, []).append(pair)
    if known.isdisjoint(pairs):
        return {}
    for identifier, (pair, *_) in pairs.items():
        if identifier not in known:
            raise UmieError(f"{pair.place}: there is no sentence {identifier}: add it, or take the pair out")
    return pairs


def _annotation(path: Path) -> dict[str, Any] | None:
    data = load_json(path) if path.exists() else None
    if data is not None and not isinstance(data, dict):
        raise UmieError(f"{path}: is {shown(data)}: expected an object with an entry for each picture")
    return data


def _displayed_size(path: Path) -> tuple[int, int] | None:
    """Return width and height of a picture, turned as its EXIF orientation says; None if there is none."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            turned = picture.getexif().get(_EXIF_ORIENTATION) in (5, 6, 7, 8)
    except FileNotFoundError:
        return None
    except Exception as error:  # Pillow's plugins raise whatever their parsing meets
        raise UmieError(f"{path}: not a readable picture ({error or type(error).__name__})") from error
    return (height, width) if turned else (width, height)
