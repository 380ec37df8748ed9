"""Clips of the embedded media set: two identical people and an object, where only motion tells who acts, and how."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from PIL import Image, ImageDraw

from umie.data.drawing import ICONS, SIZE, Color, draw_ground, relative, visible_box
from umie.files import atomic_write
from umie.media import Clip
from umie.records import Track

NUM_FRAMES = 8
FRAME_RATE = 8  # frames per second
NUM_TRACKS = 3
OBJECTS = ("house", "star", "truck", "table")
_COLUMN = SIZE[0] // NUM_TRACKS  # pixels; a body stays in its own column, so that bodies never touch
_MARGIN = 1  # pixels

Steps: TypeAlias = list[tuple[float, float]]  # pixels to the right and down from the start, by frame


def draw_clip(rng: random.Random, motion: str, *, left_acts: bool) -> tuple[Clip, list[Track]]:
    """Draw a clip in which one of two people moves as ``motion`` says; the other one and the object between them drift.

    Return the clip, and the tracks of the left person, the right person and the object.

    Args:
        rng: the source of objects, sizes, places and ground.
        motion: a key of MOTIONS.
        left_acts: whether the person on the left acts, not the one on the right.
    """
    ground = draw_ground(rng)
    person = _sprite("person", rng.randint(18, 22), rng.randint(16, 22), ground)
    thing = _sprite(rng.choice(OBJECTS), rng.randint(13, 18), rng.randint(13, 18), ground)
    left, middle, right = range(NUM_TRACKS)
    actor, towards = (left, 1) if left_acts else (right, -1)
    bodies = []  # an image, and its left and top edge in each frame
    for column, sprite in ((left, person), (right, person), (middle, thing)):
        steps = MOTIONS[motion](rng, towards) if column == actor else _drift(rng)
        x0 = _start([x for x, _ in steps], _COLUMN, sprite.width, rng) + column * _COLUMN
        y0 = _start([y for _, y in steps], SIZE[1], sprite.height, rng)
        bodies.append((sprite, [(x0 + round(x), y0 + round(y)) for x, y in steps]))
    frames = []
    for number in range(NUM_FRAMES):
        frame = Image.new("RGB", SIZE, ground)
        for sprite, corners in bodies:
            frame.paste(sprite, corners[number])
        frames.append(frame)
    times = tuple(number / FRAME_RATE for number in range(NUM_FRAMES))
    tracks = [
        Track(times, tuple(relative((x, y, x + sprite.width, y + sprite.height)) for x, y in corners))
        for sprite, corners in bodies
    ]
    return Clip(tuple(frames), times, NUM_FRAMES / FRAME_RATE), tracks


def save_clip(clip: Clip, path: Path) -> None:
    """Write a clip as an animated PNG."""
    first, *others = clip.frames
    with atomic_write(path, "wb") as file:
        first.save(file, "PNG", save_all=True, append_images=others, duration=1000 // FRAME_RATE, loop=0)


def _sprite(name: str, width: int, height: int, ground: Color) -> Image.Image:
    """Return an icon without the ground around it."""
    image = Image.new("RGB", (width, height), ground)
    ICONS[name](ImageDraw.Draw(image), (0, 0, width - 1, height - 1))
    return image.crop(visible_box(image, ground))


def _start(offsets: list[float], room: int, size: int, rng: random.Random) -> int:
    """Return where a body of a size starts, so that it stays in its room."""
    lowest, highest = _MARGIN - math.floor(min(offsets)), room - _MARGIN - size - math.ceil(max(offsets))
    return rng.randint(lowest, highest)


def _drift(rng: random.Random) -> Steps:
    x, y = rng.uniform(-3, 3), rng.uniform(-3, 3)
    last = NUM_FRAMES - 1
    return [(x * number / last, y * number / last) for number in range(NUM_FRAMES)]


# A body that acts moves in every frame: equal frames of a PNG are one.


def _approach(rng: random.Random, towards: int) -> Steps:
    distance = towards * rng.uniform(12, 16)
    return [(distance * number / (NUM_FRAMES - 1), 0) for number in range(NUM_FRAMES)]


def _leave(rng: random.Random, towards: int) -> Steps:
    # Down, not away from the object: then a motion is known by its path alone, on both sides of the object.
    distance = rng.uniform(14, 20)
    return [(0, distance * number / (NUM_FRAMES - 1)) for number in range(NUM_FRAMES)]


def _jump(rng: random.Random, towards: int) -> Steps:
    height = rng.uniform(10, 14)
    shares = (0, 0.7, 1, 0.55)  # over and over
    first = rng.randrange(len(shares))
    return [(0, -height * shares[(first + number) % len(shares)]) for number in range(NUM_FRAMES)]


def _circle(rng: random.Random, towards: int) -> Steps:
    # From about the top, in one direction: over all phases and directions, the mean path would be no motion at all.
    radius, first = rng.uniform(5.5, 7.5), -math.pi / 2 + rng.uniform(-math.pi / 6, math.pi / 6)
    angles = [first + 2 * math.pi * number / (NUM_FRAMES - 1) for number in range(NUM_FRAMES)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


MOTIONS: dict[str, Callable[[random.Random, int], Steps]] = {
    "approach": _approach,
    "leave": _leave,
    "jump": _jump,
    "circle": _circle,
}
