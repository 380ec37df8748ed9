"""Drawn images: icons are in their boxes and have distinct colors."""

import random

import pytest
from PIL import Image, ImageDraw

from umie.data.drawing import CELLS, FILLERS, ICONS, LEFT, RIGHT, SIZE, draw_image
from umie.data.synthetic import EVENT_ICONS, NAME_ICONS, PAIR_ICONS

GROUND = (200, 210, 220)
BOX = (20, 10, 59, 39)  # edges of an icon in pixels, inclusive
every_icon = pytest.mark.parametrize("name", ICONS)


def colors(image):
    """Return the number of pixels of each color of an image."""
    return {color: count for count, color in image.getcolors(1 << 16)}


def paint(name):
    image = Image.new("RGB", (80, 60), GROUND)
    ICONS[name](ImageDraw.Draw(image), BOX)
    return image


@every_icon
def test_an_icon_stays_in_its_box_and_fills_it(name):
    image = paint(name)
    changed = [(x, y) for x in range(80) for y in range(60) if image.getpixel((x, y)) != GROUND]
    xs, ys = zip(*changed, strict=True)
    assert min(xs) >= BOX[0]
    assert max(xs) <= BOX[2]
    assert min(ys) >= BOX[1]
    assert max(ys) <= BOX[3]
    width, height = max(xs) - min(xs), max(ys) - min(ys)
    assert width >= 0.35 * (BOX[2] - BOX[0])
    assert height >= 0.55 * (BOX[3] - BOX[1])
    assert len(changed) > 0.2 * 40 * 30


def test_icons_have_distinct_colors():
    sets_of_colors = {frozenset(colors(paint(name))) - {GROUND} for name in ICONS}
    assert len(sets_of_colors) == len(ICONS)


@every_icon
def test_icons_are_visible_on_every_background(name):
    """No icon has a color like the background, which is 190 to 240 in each channel."""
    for color in set(colors(paint(name))) - {GROUND}:
        assert not all(190 <= channel <= 240 for channel in color), color


def test_cells_and_sides():
    assert len(CELLS) == 4
    assert all(CELLS[cell][2] <= 0.5 for cell in LEFT)
    assert all(CELLS[cell][0] >= 0.5 for cell in RIGHT)
    assert sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in CELLS) == 1


def test_the_icons_in_use_exist():
    used = [
        *NAME_ICONS.values(),
        *filter(None, PAIR_ICONS.values()),
        *EVENT_ICONS.values(),
        *FILLERS,
        "agent",
        "person",
    ]
    assert set(used) == set(ICONS)


@pytest.mark.parametrize("seed", range(20))
def test_an_image_has_each_icon_in_its_box(seed):
    names = random.Random(seed).sample(sorted(ICONS), 4)
    image, boxes = draw_image(random.Random(seed), names)
    assert image.size == SIZE
    assert image.mode == "RGB"
    ground = max(colors(image), key=colors(image).get)
    assert all(190 <= channel <= 240 for channel in ground)
    outside = image.copy()
    for name, box, cell in zip(names, boxes, CELLS, strict=True):
        assert cell[0] <= box[0] < box[2] <= cell[2]
        assert cell[1] <= box[1] < box[3] <= cell[3]
        for low, high, size in ((0, 2, 0.5), (1, 3, 0.5)):
            assert 0.65 * size <= box[high] - box[low] <= 0.9 * size
        edges = [round(box[index] * SIZE[index % 2]) for index in range(4)]
        assert set(colors(image.crop(edges))) - {ground} == set(colors(paint(name))) - {GROUND}, name
        outside.paste(ground, (edges[0] - 1, edges[1] - 1, edges[2] + 1, edges[3] + 1))
    assert set(colors(outside)) == {ground}


def test_places_sizes_and_grounds_vary_and_follow_the_seed():
    names = ["person", "star", "cloud", "truck"]
    drawn = [draw_image(random.Random(seed), names) for seed in range(30)]
    assert len({boxes[0] for _, boxes in drawn}) == 30
    assert len({max(colors(image), key=colors(image).get) for image, _ in drawn}) > 25
    again = [draw_image(random.Random(seed), names) for seed in range(30)]
    assert [(image.tobytes(), boxes) for image, boxes in again] == [(image.tobytes(), boxes) for image, boxes in drawn]


def test_four_icons_are_needed():
    with pytest.raises(ValueError, match="zip"):
        draw_image(random.Random(0), ["person", "star", "cloud"])
