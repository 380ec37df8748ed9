"""A self-contained HTML page of records: spans in the text, boxes on images and frames, segments that play."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umie.errors import UmieError
from umie.files import atomic_write
from umie.records import Places, Record, Span, is_no_relation
from umie.records.places import Medium, Region, described, place_name
from umie.reports.pages import render

if TYPE_CHECKING:
    from PIL import Image

    from umie.media import Sound

# white text on them has a contrast of at least 4.5
COLORS = ("#c2255c", "#1971c2", "#237032", "#b93c0c", "#7048e8", "#0b7285", "#846358", "#4a7509", "#a61e4d", "#364fc7")
IMAGE_SIDES, FRAME_SIDES = (320, 720), (250, 250)  # pixels of the longer side of an image and of a frame: from, to
NUM_FRAMES = 8
MAX_READ = 32  # frames of a video from which those are chosen, so that each track is on one of them
MAX_RATE = 16_000  # samples per second of the sound in the page
MAX_SECONDS = 120.0  # of a longer sound, the page has only the waveform
MAX_SOUND = 24_000_000  # bytes of all sounds of a page; of further ones, it has only the waveform
NUM_BINS = 400  # of a waveform


@dataclass
class Item:
    """An item of a record as the page lists it: a title, and one line for each of its parts."""

    number: int
    kind: str  # entity, relation or event
    title: str
    parts: list[Part] = field(default_factory=list)

    @property
    def color(self) -> str:
        """The color of the item, in the text and in all media; they repeat after ten."""
        return COLORS[self.number % len(COLORS)]


@dataclass(frozen=True)
class Part:
    """The trigger, an argument, the head or the tail of an item, or the whole entity."""

    role: str
    span: Span | None
    words: str
    places: Places
    probability: float | None = None

    @property
    def note(self) -> str:
        """The probability as the page writes it, or ""."""
        return "" if self.probability is None else f"p = {self.probability:.2f}"

    @property
    def names(self) -> str:
        """The names of the places."""
        return " ".join(self.places.names)


def write_page(records: Iterable[tuple[str, Record]], path: Path, title: str) -> int:
    """Write a page of records; return the number of media that cannot be read, which the page names.

    Args:
        records: what each is called, e.g. the line of a file, and the record.
        path: the HTML file. It contains all media, scaled down, and needs no other file.
        title: the title of the page.

    Raises:
        UmieError: the file cannot be written.
    """
    budget = [MAX_SOUND]
    cards = [_card(name, record, budget) for name, record in records]
    page = render("records", title=title, cards=cards)
    with atomic_write(path) as file:
        file.write(page)
    return sum(one["problem"] is not None for card in cards for one in card["media"])


def _card(name: str, record: Record, budget: list[int]) -> dict[str, Any]:
    items = list(items_of(record))
    shown = owners_of(items)
    return {
        "name": name,
        "id": record.id,
        "combination": record.combination,
        "text": list(pieces_of(record.text, items)),
        "items": items,
        "media": [medium_view(record, medium, number, shown, budget) for medium, number in record.numbered_media],
    }


def owners_of(items: Iterable[Item]) -> dict[str, list[Item]]:
    """Return the items that each place shows, by its name."""
    shown: dict[str, list[Item]] = {}
    for item in items:
        for part in item.parts:
            for place in part.places.names:
                if item not in shown.setdefault(place, []):
                    shown[place].append(item)
    return shown


def titled(place: str, owners: Iterable[Item]) -> str:
    """Return the name of a place with what it shows: the types of entities and events, and the roles of arguments."""
    said = [
        part.role if item.kind == "event" and part.role != "trigger" else item.title
        for item in owners
        for part in item.parts
        if place in part.places.names
    ]
    return " ".join([place, ", ".join(dict.fromkeys(said))]).strip()


def items_of(record: Record) -> Iterator[Item]:
    """Yield the items of a record."""

    def part(role: str, span: Span | None, places: Places, probability: float | None = None) -> Part:
        return Part(role, span, record.surface(span) if span is not None else "", places, probability)

    number = 0
    for entity in record.entities:
        yield Item(number, "entity", entity.type, [part("", entity.span, entity.places, entity.probability)])
        number += 1
    for relation in record.relations:
        if not is_no_relation(relation.type):
            head = part("head", relation.head, relation.head_places, relation.probability)
            yield Item(number, "relation", relation.type, [head, part("tail", relation.tail, relation.tail_places)])
            number += 1
    for event in record.events:
        has_trigger = event.trigger or event.places
        trigger = [part("trigger", event.trigger, event.places, event.probability)] if has_trigger else []
        parts = [part(one.role, one.span, one.places, one.probability) for one in event.arguments]
        yield Item(number, "event", event.type, [*trigger, *parts])
        number += 1


def pieces_of(text: str, items: Sequence[Item]) -> Iterator[dict[str, Any]]:
    """Yield the text in pieces, each with the items that have a span over it, the shortest span first.

    ``parts`` has the items and their parts over the piece, and ``ends`` those whose span ends with it.
    """
    spans = [(part.span, item, part) for item in items for part in item.parts if part.span]
    spans.sort(key=lambda one: one[0])
    edges = sorted({0, len(text), *(edge for span, _, _ in spans for edge in span)})
    over: list[tuple[Span, Item, Part]] = []
    num_begun = 0
    for start, end in pairwise(edges):
        while num_begun < len(spans) and spans[num_begun][0][0] <= start:
            over.append(spans[num_begun])
            num_begun += 1
        over = sorted((one for one in over if one[0][1] > start), key=lambda one: one[0][1] - one[0][0])
        owners = list({item.number: item for _, item, _ in over}.values())
        parts = [(item, part) for _, item, part in over]
        ends = [(item, part) for span, item, part in over if span[1] == end]
        yield {"text": text[start:end], "items": owners, "parts": parts, "ends": ends}


def medium_view(
    record: Record, medium: Medium, number: int, shown: Mapping[str, list[Item]], budget: list[int]
) -> dict[str, Any]:
    """Return what a page shows of an image, a video or a sound: pixels or samples, and its places.

    Args:
        record: the record.
        medium: the medium.
        number: the number of the image, from 0; 0 of a video or a sound.
        shown: the items that each place shows, see ``owners_of``.
        budget: in a list, how many bytes of sound may follow; it is updated.
    """
    own = record.of(medium)[number]
    found: dict[str, Any] = {"medium": medium, "name": own if isinstance(own, str) else "in memory"}
    found |= {"problem": None, "note": None, "frames": [], "wave": None}
    try:
        source = record.resolved(medium, number)
        every = [(place_name(medium, index), place) for index, place in enumerate(record.places(medium))]
        places = [(name, place) for name, place in every if getattr(place, "image", 0) == number]
        if medium == "audio":
            found |= _sound(source, places, shown, budget)
        else:
            found |= {"image": _image, "video": _video}[medium](source, places, shown)
    except UmieError as error:
        found["problem"] = str(error)
    return found


_Named = Sequence[tuple[str, Any]]  # places with their names


def _place(name: str, place: Any, shown: Mapping[str, list[Item]]) -> dict[str, Any]:
    owners = shown.get(name, [])
    title = titled(name, owners) if owners or not place.label else f"{name} {place.label}"
    about = "; ".join([described(place), *(item.title for item in owners)])
    return {"place": name, "name": title, "about": about, "items": owners, "color": _color(owners)}


def _color(owners: Sequence[Item]) -> str:
    """Return the color of a place: that of its first item, or gray."""
    return owners[0].color if owners else "#868e96"


def _image(source: Any, places: _Named, shown: Mapping[str, list[Item]]) -> dict[str, Any]:
    from umie.images import open_image

    boxes = [(name, place, place.box) for name, place in places]
    return {"frames": [_frame(open_image(source), IMAGE_SIDES, boxes, shown)]}


def _video(source: Any, places: _Named, shown: Mapping[str, list[Item]]) -> dict[str, Any]:
    from umie.media.clip import open_clip

    clip = open_clip(source, MAX_READ)
    total = len(clip.times)
    num_even = min(total, NUM_FRAMES)
    chosen = {(2 * number + 1) * total // (2 * num_even) for number in range(num_even)}
    hidden = []
    for name, track in places:
        visible = [number for number, time in enumerate(clip.times) if track.box_at(time) is not None]
        if not chosen.intersection(visible):
            chosen.update(visible[:1])
            hidden += [] if visible else [name]
    frames = []
    for number in sorted(chosen):
        frame, time = clip.frames[number], clip.times[number]
        boxes = [(name, track, box) for name, track in places if (box := track.box_at(time)) is not None]
        frames.append({**_frame(frame, FRAME_SIDES, boxes, shown), "time": f"{time:.2f} s"})
    return {"frames": frames, "note": f"in none of these frames: {', '.join(hidden)}" if hidden else None}


def _frame(
    image: Image.Image,
    sides: tuple[int, int],
    boxes: Sequence[tuple[str, Any, Sequence[float]]],
    shown: Mapping[str, list[Item]],
) -> dict[str, Any]:
    """Return an image, its size on the page, and places with their boxes in it."""
    least, most = sides
    scale = min(max(1, least / max(image.size)), most / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    smaller = image.resize(size) if scale < 1 else image
    drawn = [_box(name, place, box, size, shown) for name, place, box in boxes]
    # the artifacts of JPEG would be enlarged, too
    pixels = _encoded(image, "PNG") if scale > 2 else _encoded(smaller, "JPEG", quality=85)
    return {"pixels": pixels, "size": size, "scale": scale, "boxes": drawn, "time": None}


def _box(name: str, place: Any, box: Sequence[float], size: tuple[int, int], shown: Mapping[str, list[Item]]) -> Any:
    x1, y1, x2, y2 = (edge * side for edge, side in zip(box, size * 2, strict=True))
    mask = _mask(place, shown.get(name, [])) if isinstance(place, Region) and place.mask is not None else None
    drawn = {"x": round(x1, 1), "y": round(y1, 1), "width": round(x2 - x1, 1), "height": round(y2 - y1, 1)}
    is_right = x1 > 0.7 * size[0]  # then the name ends at the right edge of the box
    drawn |= {"name_x": round(min(x2, size[0] - 3) if is_right else x1, 1), "name_y": round(max(y1 - 4, 12), 1)}
    return {**_place(name, place, shown), **drawn, "anchor": "end" if is_right else "start", "mask": mask}


def _mask(region: Region, owners: Sequence[Item]) -> str | None:
    """Return the mask of a region as a PNG in its color, half transparent."""
    from PIL import Image

    assert region.mask is not None
    step = -(-max(region.mask.size) // IMAGE_SIDES[1])  # it can have 100 megapixels
    inside = Image.fromarray(region.mask.pixels()[::step, ::step])
    layer = Image.new("RGBA", inside.size, _color(owners))
    layer.putalpha(inside.convert("L").point(lambda value: 110 if value else 0))
    return _encoded(layer, "PNG")


def _sound(source: Any, places: _Named, shown: Mapping[str, list[Item]], budget: list[int]) -> dict[str, Any]:
    import numpy as np

    from umie.media.sound import open_sound

    sound = open_sound(source)
    if sound.rate > MAX_RATE:
        sound = open_sound(sound, MAX_RATE)
    bins = np.array_split(sound.samples, min(NUM_BINS, len(sound.samples)))
    loudest = max(float(np.abs(sound.samples).max()), 1e-9)
    after = [name for name, place in places if place.interval[0] >= sound.seconds]
    wav = _wav(sound) if sound.seconds <= MAX_SECONDS and 2 * len(sound.samples) <= budget[0] else None
    budget[0] -= 0 if wav is None else 2 * len(sound.samples)
    heights = [(float(part.min()) / loudest, float(part.max()) / loudest) for part in bins]
    return {
        "seconds": round(sound.seconds, 3),
        "wave": " ".join(
            f"M{number} {50 - 46 * high:.1f}V{50 - 46 * low:.1f}" for number, (low, high) in enumerate(heights)
        ),
        "num_bins": len(bins),
        "wav": wav,
        "note": f"after the end of the sound ({sound.seconds:.2f} s): {', '.join(after)}" if after else None,
        "segments": [
            {
                **_place(name, place, shown),
                "start": place.interval[0],
                "end": place.interval[1],
                "x": round(len(bins) * place.interval[0] / sound.seconds, 2),
                "width": round(
                    len(bins) * (min(place.interval[1], sound.seconds) - place.interval[0]) / sound.seconds, 2
                ),
            }
            for name, place in sorted(places, key=lambda one: one[1].interval)
            if place.interval[0] < sound.seconds
        ],
    }


def _wav(sound: Sound) -> str:
    from umie.data.sounds import write_wav

    buffer = io.BytesIO()
    write_wav(sound, buffer)
    return f"data:audio/wav;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _encoded(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
