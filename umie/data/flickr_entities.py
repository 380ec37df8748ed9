"""Flickr30k Entities: captions whose phrases are grounded in boxes of the image."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from umie.data import registry
from umie.data.reading import (
    OnError,
    OptionalPath,
    Tokens,
    are_numbers,
    field,
    file_name,
    image_file,
    numbered_lines,
    parsed_lines,
    pixel_size,
    read_boxes,
    report,
)
from umie.errors import UmieError, at, shown
from umie.files import inside, parse_json
from umie.records import Entity, Record, Region
from umie.records.voc import pixel_region

LICENSE = "research use only; the images belong to their authors on Flickr"
TYPES = ("people", "clothing", "bodyparts", "animals", "vehicles", "instruments", "scene", "other")
MENTION = "mention"  # the type of a phrase in joined files, which have no types
_NOT_VISUAL = "notvisual"
_SPLIT_FILES = "the list of a split (train.txt) or a joined file (.jsonl)"
# [/EN#<chain>/<type>/<type> phrase], and the rest of the caption
_PIECES = re.compile(r"\[/EN#(?P<chain>\d+)(?P<types>(?:/\w+)+) (?P<phrase>[^\[\]]*)\]|(?P<plain>[^\[\]]+)")


@registry.register("flickr_entities")
def read(
    path: str | Path,
    *,
    images: OptionalPath = None,
    regions: OptionalPath = None,
    on_error: OnError | None = None,
    sentences: str | Path | None = None,
) -> Iterator[Record]:
    """Yield one MNER record per caption; its entities are the phrases, with the regions that show them.

    Source: Plummer et al., Flickr30k Entities. There are two kinds of files:

    - the list of a split, with the id of an image per line. Captions are in ``Sentences/<id>.txt`` next to it, or in
      the directory ``sentences``; boxes are in ``Annotations/<id>.xml``, or in the directory ``regions``. The type of
      a phrase is the first one of its chain; phrases of the type ``notvisual`` are not entities.
    - a joined .jsonl file with one annotated caption per line: ``image``, ``caption_tokens``, ``width_height`` and
      ``phrases`` with ``span`` (in tokens) and ``boxes_xyxy`` (in pixels). All entities have the type ``mention``;
      phrases without a span are skipped.

    ``images`` is the directory of the images.

    Raises:
        UmieError: the file cannot be read; without ``on_error``, a caption or an annotation cannot be read.
    """
    path = Path(path)
    folder = None if images is None else str(images)
    source: dict[str, Any] = {"tasks": ("mner",), "source": f"Flickr30k Entities: {path.name}", "license": LICENSE}
    if path.suffix == ".jsonl":
        if regions is not None or sentences is not None:
            raise UmieError(f"{path}: a joined file contains captions and boxes: leave regions and sentences out")
        yield from parsed_lines(path, partial(_joined, path, folder, source), on_error)
        return
    captions = path.parent / "Sentences" if sentences is None else Path(sentences)
    annotation = path.parent / "Annotations" if regions is None else Path(regions)
    for owner, place in (("sentences", captions), ("regions", annotation)):
        if not place.is_dir():
            raise UmieError(f"{place}: no such directory: set {owner} to it; {path} must be {_SPLIT_FILES}")
    for name, image in parsed_lines(path, lambda _, line: image_file(line.strip(), "the id of the image"), on_error):
        sentence_file = captions / f"{name}.txt"
        try:
            inside(captions, sentence_file.name)
            boxes, chains = _boxes(annotation / f"{name}.xml", images, image)
            lines = list(numbered_lines(sentence_file))
        except UmieError as error:  # its message begins with the file
            report(error, on_error)
            continue
        for number, line in lines:
            try:
                if isinstance(line, UmieError):
                    raise line
                if not line.strip():
                    continue
                text, entities = _caption(line.strip(), chains)
                record = Record(
                    text=text,
                    image=None if images is None else image,
                    image_folder=folder,
                    regions=boxes,
                    entities=tuple(entities),
                    id=f"{name}#{number}",
                    labels={"mner": TYPES},
                    **source,
                )
            except UmieError as error:
                report(error, on_error, f"{sentence_file}:{number}")
                continue
            yield record


def _boxes(path: Path, images: OptionalPath, image: str) -> tuple[tuple[Region, ...], dict[str, tuple[int, ...]]]:
    """Return the regions of an image, and the indices of those of each chain; the names of a box are chains."""
    found = read_boxes(path.parent, path.name, images, image)
    if found is None:
        raise UmieError(f"{path}: no such file: add it, or remove the image from the list")
    chains: dict[str, tuple[int, ...]] = {}
    for index, region in enumerate(found):
        for chain in (region.label or "").split():
            chains[chain] = (*chains.get(chain, ()), index)
    return tuple(Region(region.box) for region in found), chains


def _caption(line: str, chains: Mapping[str, Sequence[int]]) -> tuple[str, list[Entity]]:
    """Return the text and the entities of a caption with marked phrases."""
    text = ""
    entities = []
    end = 0
    for piece in _PIECES.finditer(line):
        if piece.start() != end:
            break
        end = piece.end()
        start = len(text)
        text += piece["plain"] if piece["chain"] is None else piece["phrase"]
        kind = (piece["types"] or f"/{_NOT_VISUAL}").split("/")[1]
        if kind == _NOT_VISUAL or not text[start:].strip():
            continue
        if kind not in TYPES:
            raise UmieError(f"a phrase has the type {shown(kind)}: expected one of {', '.join(TYPES)}, {_NOT_VISUAL}")
        entities.append(Entity(kind, (start, len(text)), regions=tuple(chains.get(piece["chain"], ()))))
    if end != len(line):
        raise UmieError(f"{shown(line[end:])} is not a phrase: expected [/EN#<number>/<type> <words>]")
    return text, entities


def _joined(path: Path, folder: str | None, source: Mapping[str, Any], number: int, line: str) -> Record:
    data = parse_json(line)
    image = file_name(field(data, "image", str, "the line"), "image")
    size = pixel_size(data, "width_height", "the line")
    tokens = Tokens(field(data, "caption_tokens", list, "the line"))
    regions: list[Region] = []
    entities = []
    for index, phrase in enumerate(field(data, "phrases", list, "the line")):
        owner = f"phrase {index} (counted from 0)"
        with at(owner):
            if isinstance(phrase, dict) and phrase.get("span") is None:
                continue
            span = field(phrase, "span", list, owner)
            boxes = [_region(box, size) for box in field(phrase, "boxes_xyxy", list, owner)]
            places = tuple(range(len(regions), len(regions) + len(boxes)))
            regions += boxes
            entities.append(Entity(MENTION, tokens.span(*_two(span), owner), regions=places))
    return Record(
        text=tokens.text,
        image=None if folder is None else image,
        image_folder=folder,
        regions=tuple(regions),
        entities=tuple(entities),
        id=f"{path.stem}:{number}",
        labels={"mner": (MENTION,)},
        **source,
    )


def _region(box: Any, size: tuple[float, float]) -> Region:
    if not are_numbers(box, 4):
        raise UmieError(f"box is {shown(box)}: expected [x1, y1, x2, y2] in pixels")
    return pixel_region(box, size)


def _two(span: list[Any]) -> tuple[Any, Any]:
    if len(span) != 2:
        raise UmieError(f"span is {shown(span)}: expected two token offsets")
    return span[0], span[1]
