"""The embedded data set: generated from a seed, with a known share of records that require the image.

In a share of the records (``image_share``), the text is ambiguous and the image determines the annotation: the type of
a name (MNER), the relation of two people (MRE), the type of an event (MED), and its agent and instrument (MEAE; the
instrument is a region). In the other records, the text determines the annotation and the image is drawn independently
of it, so that it is mostly misleading. Names are invented, and no two splits have a name in common.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from PIL.Image import Image

from umie.data.drawing import FILLERS, LEFT, RIGHT, draw_image
from umie.errors import check_share, check_whole
from umie.files import atomic_write
from umie.records import NO_RELATION, Argument, Entity, Event, Record, Region, Relation, Span, write_jsonl
from umie.types import SPLITS

T = TypeVar("T")

NUM_REGIONS = 4

# The icon of each label, and the phrases by which a text determines it.
NAME_ICONS = {"person": "person", "location": "house", "organization": "tower", "miscellaneous": "star"}
NAME_CUES = {
    "person": ("singer {0}", "my cousin {0}"),
    "location": ("the streets of {0}", "downtown {0}"),
    "organization": ("shares of {0}", "the board of {0}"),
    "miscellaneous": ("the movie {0}", "the novel {0}"),
}
NAME_FRAMES = (
    "Saw {0} this morning .", "{0} again , what a day !", "Nothing beats {0} .", "Look : {0} at last",
    "So much of {0} today",
)  # fmt: skip

PAIR_ICONS = {"couple": "heart", "peer": "ball", "parent": "pram", NO_RELATION: None}
PAIR_CUES = {
    "couple": ("{0} married {1} .", "{0} is engaged to {1} ."),
    "peer": ("{0} plays in one team with {1} .", "{0} is a teammate of {1} ."),
    "parent": ("{0} has a baby named {1} .", "{0} brought up little {1} ."),
    NO_RELATION: ("{0} does not know {1} .", "{0} never met {1} ."),
}
PAIR_FRAMES = ("{0} and {1} yesterday .", "Here come {0} and {1} !", "{0} with {1} again", "Good to see {0} and {1} .")

EVENT_ICONS = {"attack": "flame", "meet": "table", "transport": "truck", "demonstrate": "placard"}
EVENT_TRIGGERS = {
    "attack": ("airstrike", "bombing"),
    "meet": ("summit", "talks"),
    "transport": ("convoy", "shipment"),
    "demonstrate": ("rally", "protest"),
}
OPEN_TRIGGERS = ("incident", "scene", "moment", "affair")
EVENT_FRAMES = ("{0} ( left ) and {1} ( right ) at the {2} .", "The {2} : {0} on the left , {1} on the right")
AGENT_FIRST_FRAMES = ("{0} led the {2} against {1} .", "The {2} by {0} surprised {1} .")
AGENT_LAST_FRAMES = ("{0} was drawn into the {2} of {1} .", "{0} faced the {2} that {1} led .")

LABELS: Mapping[str, tuple[str, ...]] = {
    "mner": tuple(NAME_ICONS),
    "mre": tuple(PAIR_ICONS),
    "med": tuple(EVENT_ICONS),
    "meae": ("Agent", "Target", "Instrument"),
}


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Size and shares of the embedded data set.

    Args:
        seed: the random seed; a split does not depend on the sizes of the others.
        train: number of training records; a third each is annotated with entities, relations and events.
        dev: number of dev records, as ``train``.
        test: number of test records, as ``train``.
        image_share: share of records (0..1) whose annotation only the image determines.
    """

    seed: int = 0
    train: int = 3000
    dev: int = 300
    test: int = 900
    image_share: float = 0.62

    def __post_init__(self) -> None:
        for split in SPLITS:
            check_whole(split, getattr(self, split), 0)
        check_share("image_share", self.image_share)


@dataclass(frozen=True)
class Scene:
    """A record with its image; ``image_decides`` is whether the image, not the text, determines the annotation."""

    record: Record
    image: Image
    image_decides: bool


def scenes(config: SyntheticConfig, split: str) -> Iterator[Scene]:
    """Yield the scenes of a split: entities, relations and events in turn."""
    names = name_pool(split)
    makers: Sequence[Callable[[random.Random, Sequence[str], bool], Scene]] = (_name_scene, _pair_scene, _event_scene)
    for index in range(getattr(config, split)):
        rng = random.Random(f"{config.seed}/{split}/{index}")
        image_decides = rng.random() < config.image_share
        scene = makers[index % len(makers)](rng, names, image_decides)
        identifier = f"{split}-{index:05d}"
        record = replace(scene.record, id=identifier, image=f"{split}/{identifier}.png")
        yield replace(scene, record=record)


class Candidate(NamedTuple):
    """Items that a rule may predict for texts of one kind."""

    frequency: float  # per record: the share of records with such a text, times the number of items predicted there
    probability: float  # that such an item is annotated, given the text


def text_only_ceiling(candidates: Iterable[Candidate]) -> float:
    """Return the maximum of ``2 E[TP] / (E[P] + E[G])`` over all rules that use only the text.

    A rule is a set S of candidates to predict. E[TP] and E[P] are sums over S, and E[G] is the sum of
    frequency x probability over all candidates, which must therefore include every item that can be annotated.
    The ratio is largest if S contains exactly the candidates with 2 x probability > ratio, so adding candidates in
    order of decreasing probability reaches the best rule.
    """
    ranked = sorted(candidates, key=lambda candidate: -candidate.probability)
    gold = sum(candidate.frequency * candidate.probability for candidate in ranked)
    best = true_positives = predicted = 0.0
    for candidate in ranked:
        true_positives += candidate.frequency * candidate.probability
        predicted += candidate.frequency
        if predicted + gold:
            best = max(best, 2 * true_positives / (predicted + gold))
    return best


def ceilings(config: SyntheticConfig) -> dict[str, float]:
    """Return the best F1 of a text-only model for each task; see ``text_only_ceiling``."""
    ambiguous_share, stated_share = config.image_share, 1 - config.image_share

    def one_of(labels: Sequence[str]) -> float:
        positives = [label for label in labels if label != NO_RELATION]
        stated = Candidate(stated_share * len(positives) / len(labels), 1.0)
        guessed = Candidate(ambiguous_share * len(positives), 1 / len(labels))
        return text_only_ceiling([stated, guessed])

    arguments = [
        Candidate(stated_share * 2, 1.0),  # the text states agent and target
        Candidate(ambiguous_share * 4, 0.5),  # either name in either role
        Candidate(ambiguous_share * NUM_REGIONS * 2, 1 / NUM_REGIONS),  # any region as agent or instrument
    ]
    return {**{task: one_of(LABELS[task]) for task in ("mner", "mre", "med")}, "meae": text_only_ceiling(arguments)}


def write_synthetic(folder: str | Path, config: SyntheticConfig) -> dict[str, Path]:
    """Write the splits as JSONL files, with their PNG images in a directory each; return the file of each split.

    A JSONL file is written after its images, so that an existing file is complete.
    """
    files = {}
    for split in SPLITS:
        records = []
        (Path(folder) / split).mkdir(parents=True, exist_ok=True)
        for scene in scenes(config, split):
            with atomic_write(Path(folder) / str(scene.record.image), "wb") as file:
                scene.image.save(file, "PNG")
            records.append(scene.record)
        files[split] = Path(folder) / f"{split}.jsonl"
        write_jsonl(files[split], records)
    return files


def _name_scene(rng: random.Random, names: Sequence[str], image_decides: bool) -> Scene:
    label, shown = _truth_and_shown(rng, tuple(NAME_ICONS), image_decides)
    cue = "{0}" if image_decides else rng.choice(NAME_CUES[label])
    text, (name,) = fill(rng.choice(NAME_FRAMES).replace("{0}", cue), rng.choice(names))
    cells = [NAME_ICONS[shown], *rng.choices(FILLERS, k=3)]
    rng.shuffle(cells)
    image, regions, order = _image(rng, cells)
    where = (order.index(NAME_ICONS[shown]),) if image_decides else ()  # another icon says nothing about the name
    record = Record(text, regions=regions, entities=(Entity(label, name, regions=where),), tasks=("mner",))
    return Scene(record, image, image_decides)


def _pair_scene(rng: random.Random, names: Sequence[str], image_decides: bool) -> Scene:
    label, shown = _truth_and_shown(rng, tuple(PAIR_ICONS), image_decides)
    frame = rng.choice(PAIR_FRAMES if image_decides else PAIR_CUES[label])
    text, (head, tail) = fill(frame, *rng.sample(names, 2))
    cells = _two_people(rng, ("person", "person"), (PAIR_ICONS[shown] or rng.choice(FILLERS), rng.choice(FILLERS)))
    image, regions, _ = _image(rng, cells)
    record = Record(text, regions=regions, relations=(Relation(label, head, tail),), tasks=("mre",))
    return Scene(record, image, image_decides)


def _event_scene(rng: random.Random, names: Sequence[str], image_decides: bool) -> Scene:
    label, shown = _truth_and_shown(rng, tuple(EVENT_ICONS), image_decides)
    agent_first, left_marked = _truth_and_shown(rng, (True, False), image_decides)
    trigger_word = rng.choice(OPEN_TRIGGERS if image_decides else EVENT_TRIGGERS[label])
    stated_frames = AGENT_FIRST_FRAMES if agent_first else AGENT_LAST_FRAMES
    frames = EVENT_FRAMES if image_decides else stated_frames
    text, (first, second, trigger) = fill(rng.choice(frames), *rng.sample(names, 2), trigger_word)
    people = ("agent", "person") if left_marked else ("person", "agent")
    icon = EVENT_ICONS[shown]
    image, regions, order = _image(rng, _two_people(rng, people, (icon, rng.choice(FILLERS))))
    agent, target = (first, second) if agent_first else (second, first)
    arguments = [Argument("Agent", agent), Argument("Target", target)]
    if image_decides:
        arguments.append(Argument("Agent", regions=(order.index("agent"),)))
        arguments.append(Argument("Instrument", regions=(order.index(icon),)))
    event = Event(label, trigger, tuple(arguments))
    return Scene(Record(text, regions=regions, events=(event,), tasks=("med", "meae")), image, image_decides)


def _truth_and_shown(rng: random.Random, choices: Sequence[T], image_decides: bool) -> tuple[T, T]:
    """Draw the true value and the value shown by the image: the same, or an independent one."""
    truth, other = rng.choice(choices), rng.choice(choices)
    return truth, truth if image_decides else other


def _two_people(rng: random.Random, people: tuple[str, str], others: tuple[str, str]) -> list[str]:
    """Place people[0] on the left, people[1] on the right, and the other two icons in the remaining cells."""
    cells = [""] * 4
    cells[rng.choice(LEFT)], cells[rng.choice(RIGHT)] = people
    remaining = list(others)
    rng.shuffle(remaining)
    return [cell or remaining.pop() for cell in cells]


def _image(rng: random.Random, cells: Sequence[str]) -> tuple[Image, tuple[Region, ...], list[str]]:
    """Draw the cells; return the image, its regions in random order, and the icon of each region."""
    image, boxes = draw_image(rng, cells)
    order = list(range(len(cells)))
    rng.shuffle(order)
    regions = tuple(Region(tuple(round(edge, 4) for edge in boxes[cell])) for cell in order)  # type: ignore[arg-type] # four edges
    return image, regions, [cells[cell] for cell in order]


def fill(frame: str, *words: str) -> tuple[str, list[Span]]:
    """Fill the numbered fields of a frame with words; return the text and the span of each word."""
    text = ""
    spans: dict[int, Span] = {}
    for literal, field, _, _ in string.Formatter().parse(frame):
        text += literal
        if field is not None:
            spans[int(field)] = (len(text), len(text) + len(words[int(field)]))
            text += words[int(field)]
    return text, [spans[index] for index in range(len(words))]


_ONSETS = ("b", "d", "f", "g", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z")
_VOWELS = ("a", "e", "i", "o", "u")
_NUM_WORDS = 100  # number of first and of second words of the names


def name_pool(split: str) -> list[str]:
    """Return the invented names of a split, two words each; splits share words but no names."""
    syllables = [onset + vowel for onset in _ONSETS for vowel in _VOWELS]
    words = [first + second for first in syllables for second in syllables]
    random.Random("words").shuffle(words)
    firsts, seconds = words[:_NUM_WORDS], words[_NUM_WORDS : 2 * _NUM_WORDS]
    names = [f"{first} {second}".title() for first in firsts for second in seconds]
    random.Random("names").shuffle(names)
    share = len(names) // 5
    return {"train": names[2 * share :], "dev": names[:share], "test": names[share : 2 * share]}[split]
