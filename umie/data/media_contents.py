"""The contents of the embedded media set: what a text says, what each medium shows, and what of it is annotated."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

from PIL.Image import Image

from umie.data import synthetic
from umie.data.clips import draw_clip
from umie.data.drawing import FILLERS, LEFT, RIGHT, draw_apart
from umie.data.sounds import EARLY, LATE, NUM_SOUNDS, SOUND_FILLERS, VOICES, draw_sound
from umie.data.synthetic import (
    EVENT_TRIGGERS,
    NAME_CUES,
    NAME_ICONS,
    OPEN_TRIGGERS,
    PAIR_CUES,
    PAIR_ICONS,
    fill,
)
from umie.media import Clip, Sound
from umie.records import NO_RELATION, Argument, Entity, Event, Places, Region, Relation, Segment, Track
from umie.records.places import NOWHERE, PLACES, Medium

LABELS: Mapping[str, tuple[str, ...]] = {**synthetic.LABELS, "meae": ("Agent", "Target")}

# The icon, the sound and the motion of each label.
NAME_SIGNS: Mapping[Medium, Mapping[str, str]] = {
    "image": NAME_ICONS,
    "audio": {"person": "voice", "location": "bell", "organization": "horn", "miscellaneous": "sweep"},
}
PAIR_SIGNS: Mapping[Medium, Mapping[str, str | None]] = {
    "image": PAIR_ICONS,
    "audio": {"couple": "bell", "peer": "horn", "parent": "sweep", NO_RELATION: None},
}
EVENT_SOUNDS = {"attack": "sweep", "meet": "voice", "transport": "horn", "demonstrate": "bell"}
EVENT_MOTIONS = {"attack": "approach", "meet": "circle", "transport": "leave", "demonstrate": "jump"}

# Frames of texts. A verb names the medium that decides; a cue decides without one.
VERBS: Mapping[Medium, str] = {"image": "Look", "audio": "Listen", "video": "Watch"}
NAME_FRAMES = ("{0} at last", "{0} again , what a day !", "so much of {0} this morning .")
# with the name of the first person (on the left, or the first to speak), then that of the second
PAIR_FRAMES: Mapping[Medium, tuple[str, ...]] = {
    "image": ("{0} left of {1}", "{1} , on the right of {0} , again"),
    "audio": ("{0} speaks before {1}", "{1} , after {0} !"),
}
EVENT_FRAMES = ("{0} and the {1}", "the {1} with {0} !")  # with the name of the agent and the trigger
EVENT_WORDS = {label: words[0] for label, words in EVENT_TRIGGERS.items()}  # one for each type: the set is about media
# With the names of agent and target and the trigger. The word before a name tells the role, in either order.
AGENT_FIRST_FRAMES = ("The {2} by {0} against {1} .", "By {0} , against {1} : the {2} !")
AGENT_LAST_FRAMES = ("The {2} against {1} by {0} .", "Against {1} , by {0} : the {2} !")

_FIRST, _SECOND = "first", "second"  # the two people of an image or a sound, from the left or by time

Place: TypeAlias = Region | Segment | Track


class Shown(NamedTuple):
    """A drawn medium, its places in random order, and what each of them shows."""

    drawn: Image | Sound | Clip
    places: tuple[Place, ...]
    shows: tuple[str, ...]


Media: TypeAlias = dict[Medium, Shown]


class Content(NamedTuple):
    """The content of a record: what determines it, the media, and fields of the record."""

    decides: tuple[str, ...]
    media: Media
    fields: dict[str, Any]


def name_content(
    rng: random.Random, names: Sequence[str], media: Sequence[Medium], has_text: bool, is_open: bool
) -> Content:
    """Return the content of a record with an entity; ``is_open`` is whether media decide, not the text."""
    label = rng.choice(LABELS["mner"])
    decides = rng.choice(media) if is_open else None
    found: Media = {}
    for medium in media:
        signs = NAME_SIGNS[medium]
        other = signs[rng.choice(LABELS["mner"])] if has_text else None
        found[medium] = _show(rng, medium, signs[label] if medium == decides else other)
    places = NOWHERE if decides is None else _place(found, decides, NAME_SIGNS[decides][label])
    fields: dict[str, Any] = {"tasks": ("mner",)}
    span = None
    if has_text:
        cue = "{0}" if is_open else rng.choice(NAME_CUES[label])
        fields["text"], (span,) = fill(_said(rng.choice(NAME_FRAMES), decides).replace("{0}", cue), rng.choice(names))
    fields["entities"] = (Entity(label, span, "", *places),)
    return Content((decides or "text",), found, fields)


def pair_content(
    rng: random.Random, names: Sequence[str], media: Sequence[Medium], has_text: bool, is_open: bool, is_first: bool
) -> Content:
    """Return the content of a record with a relation; ``is_open`` is whether media decide, not the text.

    If a text describes people that are seen or heard, ``is_first`` is whether the first of them is the head.
    """
    label = rng.choice(LABELS["mre"])
    decides = rng.choice(media) if is_open else None
    with_people = media if has_text or len(media) == 1 else [medium for medium in media if medium != decides]
    found: Media = {}
    for medium in media:
        signs = PAIR_SIGNS[medium]
        other = signs[rng.choice(LABELS["mre"])] if has_text else None
        sign = signs[label] if medium == decides else other
        found[medium] = _show(rng, medium, sign, people=medium in with_people)
    fields: dict[str, Any] = {"tasks": ("mre",)}
    head = tail = None
    ends = [_FIRST, _SECOND]
    if has_text:
        frames = PAIR_CUES[label] if decides is None else PAIR_FRAMES[decides]
        fields["text"], spans = fill(_said(rng.choice(frames), decides), *rng.sample(names, 2))
        if decides is not None and not is_first:
            spans, ends = spans[::-1], ends[::-1]
        head, tail = spans
    where = decides if has_text else with_people[0]
    head_places, tail_places = (NOWHERE if where is None else _place(found, where, end) for end in ends)
    fields["relations"] = (Relation(label, head, tail, head_places, tail_places),)
    return Content((decides or "text",), found, fields)


def event_content(
    rng: random.Random, names: Sequence[str], media: Sequence[Medium], has_text: bool, is_open: bool, is_first: bool
) -> Content:
    """Return the content of a record with an event in a video; ``is_open`` is whether media decide, not the text.

    If the text decides, ``is_first`` is whether it names the agent before the target.
    """
    label, other = rng.choice(LABELS["med"]), rng.choice(LABELS["med"])
    left_acts = rng.random() < 0.5
    decides = media if is_open else ("text",)
    found: Media = {}
    motion = EVENT_MOTIONS[label if decides == ("video",) else other]
    clip, tracks = draw_clip(rng, motion, left_acts=left_acts)
    movers = (motion, "drift") if left_acts else ("drift", motion)
    found["video"] = _shuffled(rng, clip, tracks, [*movers, "object"])
    agent, target = _place(found, "video", motion), _place(found, "video", "object")
    heard = NOWHERE
    if "audio" in media:
        found["audio"] = _show(rng, "audio", EVENT_SOUNDS[label])
        heard = _place(found, "audio", EVENT_SOUNDS[label])
    fields: dict[str, Any] = {"tasks": ("med", "meae")}
    trigger = None
    arguments = [Argument("Agent", None, *agent), Argument("Target", None, *target)]
    if has_text:
        if is_open:
            frame, word = _said(rng.choice(EVENT_FRAMES), "video"), rng.choice(OPEN_TRIGGERS)
            fields["text"], (acting, trigger) = fill(frame, rng.choice(names), word)
            arguments[0] = replace(arguments[0], span=acting)
        else:
            frame = rng.choice(AGENT_FIRST_FRAMES if is_first else AGENT_LAST_FRAMES)
            word = EVENT_WORDS[label]
            fields["text"], (acting, suffering, trigger) = fill(frame, *rng.sample(names, 2), word)
            arguments = [Argument("Agent", acting), Argument("Target", suffering)]
    fields["events"] = (Event(label, trigger, tuple(arguments), *heard),)
    return Content(tuple(decides), found, fields)


def _said(frame: str, decides: Medium | None) -> str:
    """Return a frame of a text, with the verb of the medium that decides."""
    return frame if decides is None else f"{VERBS[decides]} : {frame}"


def _show(rng: random.Random, medium: Medium, sign: str | None, *, people: bool = False) -> Shown:
    """Draw an image or a sound with a sign, if there is one, people, if there are any, and fillers."""
    fillers = FILLERS if medium == "image" else SOUND_FILLERS
    others = [sign or rng.choice(fillers), *rng.choices(fillers, k=NUM_SOUNDS - 1 - 2 * people)]
    rng.shuffle(others)
    cells = [""] * NUM_SOUNDS
    looks = dict.fromkeys((_FIRST, _SECOND), "person")
    if people:
        if medium == "image":
            first, second = rng.choice(LEFT), rng.choice(RIGHT)
        else:
            first, second = rng.choice(EARLY), rng.choice(LATE)
            looks = dict(zip(looks, rng.sample(VOICES, 2), strict=True))
        cells[first], cells[second] = _FIRST, _SECOND
    cells = [cell or others.pop() for cell in cells]
    drawn = [looks.get(cell, cell) for cell in cells]
    if medium == "image":
        image, boxes = draw_apart(rng, drawn)
        return _shuffled(rng, image, list(map(Region, boxes)), cells)
    sound, intervals = draw_sound(rng, drawn)
    return _shuffled(rng, sound, list(map(Segment, intervals)), cells)


def _shuffled(rng: random.Random, drawn: Image | Sound | Clip, places: Sequence[Place], shows: Sequence[str]) -> Shown:
    order = rng.sample(range(len(places)), len(places))
    return Shown(drawn, tuple(places[index] for index in order), tuple(shows[index] for index in order))


def _place(found: Media, medium: Medium, what: str) -> Places:
    """Return the place in a medium that shows something."""
    return Places(**{PLACES[medium]: (found[medium].shows.index(what),)})
