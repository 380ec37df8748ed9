"""A record as a figure: its text with colored spans, boxes and masks on images and frames, segments in a waveform."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from umie.errors import UmieError
from umie.records import Record
from umie.records.places import Medium, place_name
from umie.reports.record_page import COLORS, Item, items_of, owners_of, pieces_of, titled
from umie.reports.style import GRAY, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 8.0  # inches
_MARGIN, _GAP = 0.2, 0.15
_FONT = 10  # points
_LINE = 0.26  # inches of a line of text
_HEIGHTS: Mapping[Medium, float] = {"image": 3.6, "video": 1.5, "audio": 1.2}
MAX_FRAMES = 6
MAX_LINES = 40  # of the text
_COVERED = 0x530  # the font has the characters below: Latin, Greek, Cyrillic


class _Run(NamedTuple):
    """Characters of a line, where they begin in inches, and the items that have a span over them."""

    text: str
    x: float
    width: float
    items: Sequence[Item]


def draw_record(record: Record, path: str | Path) -> None:
    """Draw a record with its items, one color for each, as PNG, PDF or SVG.

    Args:
        record: the record; a medium that cannot be read is replaced by the reason.
        path: the file; its ending is the format.

    Raises:
        UmieError: the ending is unknown, or the file cannot be written.
    """
    items = list(items_of(record))
    lines = list(_wrapped(pieces_of(record.text, items), WIDTH - 2 * _MARGIN))[:MAX_LINES]
    legend = [(item, f"{item.title}: {_told(item)}"[:150]) for item in items[:MAX_LINES]]
    media = [(medium, number, _HEIGHTS[medium]) for medium, number in record.numbered_media]
    height = 2 * _MARGIN + _LINE * (len(lines) + len(legend)) + sum(each + _GAP for _, _, each in media) + _GAP
    figure = new_figure(WIDTH, max(height, 0.6))
    figure.set_layout_engine("none")
    top = height - _MARGIN
    for runs in lines:
        for run in runs:
            _write_run(figure, run, top - _LINE, height)
        top -= _LINE
    for item, text in legend:
        figure.text(_MARGIN / WIDTH, (top - 0.8 * _LINE) / height, "■ ", color=item.color, fontsize=_FONT)
        figure.text((_MARGIN + 0.2) / WIDTH, (top - 0.8 * _LINE) / height, text, fontsize=_FONT - 2)
        top -= _LINE
    owners = owners_of(items)
    for medium, number, tall in media:
        top -= _GAP + tall
        area = (_MARGIN / WIDTH, top / height, 1 - 2 * _MARGIN / WIDTH, tall / height)
        try:
            _draw_medium(figure, area, record, medium, number, owners)
        except UmieError as error:
            axes = figure.add_axes(area)
            axes.set_axis_off()
            axes.text(0, 0.5, str(error)[:150], fontsize=_FONT - 2, color="#a61e4d", wrap=True)
    save_figure(figure, path)


def _told(item: Item) -> str:
    """Return the parts of an item in one line."""
    parts = []
    for part in item.parts:
        words = " ".join(filter(None, (part.words, f"({part.names})" if part.names else "", part.note)))
        parts.append(f"{part.role} {words}".strip())
    return "; ".join(parts)


def _wrapped(pieces: Iterable[Mapping[str, Any]], width: float) -> Iterator[list[_Run]]:
    """Yield lines of runs of text, broken between words, or within one that is wider than a line."""
    runs: list[_Run] = []
    x = 0.0
    for piece in pieces:
        for word in _words(str(piece["text"])):
            size = 0.0 if word == "\n" else _width_of(word)
            if runs and (word == "\n" or x + size > width):
                yield runs
                runs, x = [], 0.0
            if word == "\n" or (not runs and not word.strip()):
                continue
            runs.append(_Run(word, x, size, piece["items"]))
            x += size
    if runs:
        yield runs


def _words(text: str) -> Iterator[str]:
    """Yield the words and the spaces of a text; a word of many characters, as in Chinese, is divided."""
    word = ""
    for character in text:
        if character.isspace() or len(word) == 40 or (word and not character.isascii()):
            if word:
                yield word
            word = ""
        if character == "\n" or character.isspace():
            yield "\n" if character == "\n" else " "
        else:
            word += character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
    if word:
        yield word


def _width_of(text: str) -> float:
    """Return the width of a text in inches; a character that the font lacks counts as a wide one."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    known = "".join(character for character in text if ord(character) < _COVERED)
    width, _, _ = TextToPath().get_text_width_height_descent(known, FontProperties(size=_FONT), ismath=False)
    return (float(width) + _FONT * (len(text) - len(known))) / 72


def _write_run(figure: Figure, run: _Run, bottom: float, height: float) -> None:
    """Write a run of text, on the color of the innermost of its items, with a line below for each further one."""
    from matplotlib.patches import Rectangle

    left = _MARGIN + run.x
    if run.items:
        box = (left / WIDTH, (bottom + 0.02) / height)
        size = (run.width / WIDTH, (_LINE - 0.05) / height)
        figure.add_artist(Rectangle(box, *size, color=run.items[0].color, linewidth=0, transform=figure.transFigure))
    for number, item in enumerate(run.items[1:3]):
        edge = (bottom + 0.005 - 0.03 * number) / height
        figure.add_artist(
            Rectangle(
                (left / WIDTH, edge), run.width / WIDTH, 0.02 / height, color=item.color, linewidth=0,
                transform=figure.transFigure,
            )
        )  # fmt: skip
    color = "white" if run.items else "black"
    figure.text(left / WIDTH, (bottom + 0.07) / height, run.text, fontsize=_FONT, color=color)


def _draw_medium(
    figure: Figure,
    area: tuple[float, float, float, float],
    record: Record,
    medium: Medium,
    number: int,
    owners: Mapping[str, Sequence[Item]],
) -> None:
    source = record.resolved(medium, number)
    every: tuple[Any, ...] = record.places(medium)
    named = [(place_name(medium, index), place) for index, place in enumerate(every)]
    places = [
        (titled(name, own := owners.get(name, ())), place, _color(own))
        for name, place in named
        if _image_of(place) == number
    ]
    if medium == "image":
        from umie.images import open_image

        image = open_image(source).convert("RGB")
        boxes = [(name, place.box, color, place.mask) for name, place, color in places]
        _draw_image(figure, area, image, boxes, "")
    elif medium == "video":
        from umie.media.clip import open_clip

        clip = open_clip(source, 4 * MAX_FRAMES)
        total = len(clip.times)
        chosen = sorted(
            {(2 * one + 1) * total // (2 * min(total, MAX_FRAMES)) for one in range(min(total, MAX_FRAMES))}
        )
        for column, index in enumerate(chosen):
            left = area[0] + area[2] * column / len(chosen)
            part = (left, area[1], 0.97 * area[2] / len(chosen), area[3])
            time = clip.times[index]
            boxes = [
                (name, box, color, None) for name, place, color in places if (box := place.box_at(time)) is not None
            ]
            _draw_image(figure, part, clip.frames[index].convert("RGB"), boxes, f"{time:.2f} s")
    else:
        _draw_sound(figure, area, source, places)


def _image_of(place: Any) -> int:
    return int(getattr(place, "image", 0))


def _color(owners: Sequence[Item]) -> str:
    return owners[0].color if owners else GRAY


def _draw_image(figure: Figure, area: Any, image: Any, boxes: Sequence[Any], title: str) -> None:
    import numpy as np
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Rectangle

    axes = figure.add_axes(area)
    axes.set_axis_off()
    width, height = image.size
    image.thumbnail((900, 900))
    axes.imshow(np.asarray(image), extent=(0, width, height, 0), interpolation="antialiased")
    for name, (x1, y1, x2, y2), color, mask in boxes:
        if mask is not None:
            step = -(-max(mask.size) // 900)
            inside = mask.pixels()[::step, ::step]
            layer = np.zeros((*inside.shape, 4))
            layer[inside] = to_rgba(color, 0.45)
            axes.imshow(layer, extent=(0, width, height, 0))
        edges = {"fill": False, "edgecolor": color, "linewidth": 1.6 if color in COLORS else 0.8}
        axes.add_patch(Rectangle((x1 * width, y1 * height), (x2 - x1) * width, (y2 - y1) * height, **edges))
        box = {"facecolor": color, "edgecolor": "none", "pad": 1}
        axes.text(x1 * width, y1 * height, name, color="white", fontsize=7, va="bottom", bbox=box)
    if title:
        axes.set_title(title, fontsize=7, pad=2)


def _draw_sound(figure: Figure, area: Any, source: Any, places: Sequence[Any]) -> None:
    import numpy as np

    from umie.media.sound import open_sound

    sound = open_sound(source)
    axes = figure.add_axes((area[0], area[1] + 0.25 * area[3], area[2], 0.7 * area[3]))
    bins = np.array_split(sound.samples, min(600, len(sound.samples)))
    times = np.linspace(0, sound.seconds, len(bins))
    axes.fill_between(times, [part.min() for part in bins], [part.max() for part in bins], color="#444444", linewidth=0)
    low, high = axes.get_ylim()
    for name, place, color in places:
        start, end = place.interval
        axes.axvspan(start, min(end, sound.seconds), color=color, alpha=0.3, linewidth=0)
        axes.text(start, high, f" {name}", fontsize=7, color=color, va="top")
    axes.set(xlim=(0, sound.seconds), ylim=(low, high), yticks=[])
    axes.tick_params(labelsize=7)
    axes.set_xlabel("seconds", fontsize=7, labelpad=1)
    axes.spines[["top", "right", "left"]].set_visible(False)
