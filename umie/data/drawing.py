"""Icons of the embedded data set: simple shapes of distinct colors, drawn with PIL."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

from PIL import Image, ImageChops, ImageDraw

from umie.records import Box

SIZE = (96, 72)  # width and height of an image, in pixels
CELLS: tuple[Box, ...] = ((0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), (0, 0.5, 0.5, 1), (0.5, 0.5, 1, 1))
_APART: tuple[Box, ...] = tuple((x1 + 0.02, y1 + 0.03, x2 - 0.02, y2 - 0.03) for x1, y1, x2, y2 in CELLS)
LEFT, RIGHT = (0, 2), (1, 3)  # indices of the cells on each side

Color: TypeAlias = tuple[int, int, int]
Edges: TypeAlias = tuple[float, float, float, float]
Icon: TypeAlias = Callable[[ImageDraw.ImageDraw, Edges], None]


def draw_image(
    rng: random.Random, icons: Sequence[str], cells: Sequence[Box] = CELLS, ground: Color | None = None
) -> tuple[Image.Image, list[Box]]:
    """Draw an icon into each of the ``cells``, with random size and position, on a background, by default a random one.

    Return the image and the relative box of each icon.
    """
    width, height = SIZE
    ground = draw_ground(rng) if ground is None else ground
    image = Image.new("RGB", SIZE, ground)
    draw = ImageDraw.Draw(image)
    boxes: list[Box] = []
    for name, (left, top, right, bottom) in zip(icons, cells, strict=True):
        share = rng.uniform(0.65, 0.9)
        box_width, box_height = (right - left) * share, (bottom - top) * share
        x1 = left + rng.random() * (right - left - box_width)
        y1 = top + rng.random() * (bottom - top - box_height)
        box = (x1, y1, x1 + box_width, y1 + box_height)
        ICONS[name](draw, (box[0] * width, box[1] * height, box[2] * width - 1, box[3] * height - 1))
        boxes.append(box)
    return image, boxes


def draw_apart(rng: random.Random, icons: Sequence[str]) -> tuple[Image.Image, list[Box]]:
    """Draw icons as ``draw_image`` does, with background between them; the boxes hold exactly what is visible."""
    ground = draw_ground(rng)
    image, _ = draw_image(rng, icons, _APART, ground)
    boxes = []
    for cell in CELLS:
        left, top, right, bottom = (round(edge * SIZE[index % 2]) for index, edge in enumerate(cell))
        x1, y1, x2, y2 = visible_box(image.crop((left, top, right, bottom)), ground)
        boxes.append(relative((left + x1, top + y1, left + x2, top + y2)))
    return image, boxes


def draw_ground(rng: random.Random) -> Color:
    """Draw the pale color of a background."""
    return rng.randint(190, 240), rng.randint(190, 240), rng.randint(190, 240)


def visible_box(image: Image.Image, ground: Color) -> tuple[int, int, int, int]:
    """Return the edges of what is not background, in pixels."""
    box = ImageChops.difference(image, Image.new("RGB", image.size, ground)).getbbox()
    if box is None:
        raise ValueError("there is nothing on the background")
    return box


def relative(edges: Edges) -> Box:
    """Return a box of an image of SIZE, relative to it, from its edges in pixels."""
    x1, y1, x2, y2 = edges
    return round(x1 / SIZE[0], 4), round(y1 / SIZE[1], 4), round(x2 / SIZE[0], 4), round(y2 / SIZE[1], 4)


def _polygon(fill: str, *points: tuple[float, float]) -> Icon:
    """Return a polygon as an icon; points are relative to its box."""

    def paint(draw: ImageDraw.ImageDraw, edges: Edges) -> None:
        x1, y1, x2, y2 = edges
        draw.polygon([(x1 + x * (x2 - x1), y1 + y * (y2 - y1)) for x, y in points], fill=fill)

    return paint


def _ellipse(fill: str, left: float = 0, top: float = 0, right: float = 1, bottom: float = 1) -> Icon:
    """Return an ellipse as an icon; edges are relative to its box."""

    def paint(draw: ImageDraw.ImageDraw, edges: Edges) -> None:
        x1, y1, x2, y2 = edges
        width, height = x2 - x1, y2 - y1
        draw.ellipse((x1 + left * width, y1 + top * height, x1 + right * width, y1 + bottom * height), fill=fill)

    return paint


def _rectangle(fill: str, left: float = 0, top: float = 0, right: float = 1, bottom: float = 1) -> Icon:
    """Return a rectangle as an icon; edges are relative to its box."""
    return _polygon(fill, (left, top), (right, top), (right, bottom), (left, bottom))


def _together(*parts: Icon) -> Icon:
    """Return an icon that draws several icons on top of each other."""

    def paint(draw: ImageDraw.ImageDraw, edges: Edges) -> None:
        for part in parts:
            part(draw, edges)

    return paint


_PERSON = _together(_rectangle("navy", 0.25, 0.45, 0.75, 1), _ellipse("peachpuff", 0.3, 0, 0.7, 0.5))

ICONS: dict[str, Icon] = {
    # entity types
    "person": _PERSON,
    "house": _together(
        _rectangle("sienna", 0.1, 0.45, 0.9, 1), _polygon("firebrick", (0, 0.5), (0.5, 0), (1, 0.5))
    ),
    "tower": _together(_rectangle("dimgray", 0.2, 0, 0.8, 1), _rectangle("yellow", 0.35, 0.15, 0.65, 0.85)),
    "star": _polygon(
        "darkorange", (0.5, 0), (0.65, 0.35), (1, 0.4), (0.72, 0.65), (0.8, 1), (0.5, 0.8), (0.2, 1), (0.28, 0.65),
        (0, 0.4), (0.35, 0.35),
    ),
    # relations
    "heart": _together(
        _ellipse("deeppink", 0, 0, 0.55, 0.6), _ellipse("deeppink", 0.45, 0, 1, 0.6),
        _polygon("deeppink", (0.03, 0.42), (0.97, 0.42), (0.5, 1)),
    ),
    "ball": _together(_ellipse("white"), _ellipse("black", 0.3, 0.3, 0.7, 0.7)),
    "pram": _together(
        _ellipse("mediumpurple", 0, 0, 1, 0.8), _ellipse("black", 0.1, 0.7, 0.4, 1), _ellipse("black", 0.6, 0.7, 0.9, 1)
    ),
    # events
    "flame": _together(
        _polygon("red", (0.5, 0), (1, 0.7), (0.8, 1), (0.2, 1), (0, 0.7)), _ellipse("gold", 0.3, 0.5, 0.7, 1)
    ),
    "table": _together(
        _rectangle("saddlebrown", 0, 0.3, 1, 0.55), _rectangle("saddlebrown", 0.1, 0.5, 0.25, 1),
        _rectangle("saddlebrown", 0.75, 0.5, 0.9, 1),
    ),
    "truck": _together(
        _rectangle("royalblue", 0, 0.2, 0.65, 0.8), _rectangle("skyblue", 0.65, 0.4, 1, 0.8),
        _ellipse("black", 0.1, 0.7, 0.35, 1), _ellipse("black", 0.65, 0.7, 0.9, 1),
    ),
    "placard": _together(_rectangle("black", 0.45, 0.5, 0.55, 1), _rectangle("limegreen", 0.05, 0, 0.95, 0.6)),
    # the agent of an event
    "agent": _together(_PERSON, _rectangle("red", 0.2, 0, 0.8, 0.2), _rectangle("red", 0.8, 0.1, 1, 0.9)),
    # without meaning
    "cloud": _ellipse("whitesmoke", 0, 0.2, 1, 0.8),
    "stone": _polygon("lightslategray", (0, 1), (0.2, 0.5), (0.7, 0.4), (1, 1)),
    "bush": _ellipse("darkseagreen", 0, 0.3, 1, 1),
}  # fmt: skip

FILLERS = ("cloud", "stone", "bush")
