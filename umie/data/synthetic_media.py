"""The embedded media set: text, image, sound and video in nine combinations, generated from a seed, with places.

Each record has a deciding medium. If it has a text, the text either determines the annotation by a cue, or its verb
names the medium that does (look, listen, watch); the other media are drawn independently, so that they are mostly
misleading, and the annotation refers to no place in them. Without a text:

- an image or a sound shows one thing with a meaning among fillers; of an image and a sound, only one of them does;
- of a pair of people in places (``mre``), something else in the image or the sound tells the relation; with both, the
  people are in one of them, and it is in the other;
- in a video, the motion of one of two identical people tells the type of the event, and that this one is the agent;
  with a sound, the type is heard, and the motion only tells the agent.

``ceilings`` has the best F1 of rules that do not see all of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from PIL.Image import Image

from umie.data.clips import save_clip
from umie.data.media_ceilings import Ceiling, ceiling
from umie.data.media_contents import LABELS, Content, event_content, name_content, pair_content
from umie.data.sounds import save_sound
from umie.data.synthetic import name_pool
from umie.errors import UmieError, check_choice, check_flag, check_kind, check_share, check_whole, shown
from umie.files import atomic_write
from umie.media import Clip, Sound
from umie.records import Record, Segment, Track, write_jsonl
from umie.records.places import LETTERS, PLACES, Medium
from umie.types import SPLITS

CAPTIONED = ("caption", "match")
COMBINATIONS = ("T+I", "T+A", "T+I+A", "I", "A", "I+A", "V", "T+V", "A+V")
MEDIUM_OF: Mapping[str, Medium] = {letter: medium for medium, letter in LETTERS.items()}


def combination_name(name: object) -> str:
    """Return a combination as records name it, ``A+V`` for ``V+A``; raise UmieError if there is no such one."""
    ordered = "+".join(sorted(name.split("+"), key="TIAV".find)) if isinstance(name, str) else name
    check_choice("a combination", ordered if ordered in COMBINATIONS else name, COMBINATIONS)
    return str(ordered)


@dataclass(frozen=True, kw_only=True)
class SyntheticMediaConfig:
    """Size and shares of the embedded media set.

    Args:
        seed: the random seed; a record does not depend on the sizes or on the other combinations.
        train: number of training records of each combination; with names and pairs, half each.
        dev: number of dev records of each combination.
        test: number of test records of each combination.
        media_share: share of the records with a text (0..1) whose annotation only a medium determines.
        combinations: names of combinations, by default all nine.
        train_by_combination: number of training records of single combinations, instead of ``train``.
        first_share: share of the records with a text (0..1) in which the first of two people is the head or the agent:
            the one on the left, the first to speak or, if the text decides, the first in the text. If it is less than
            1, the text tells which one is; this takes several times as many training steps.
        labels: whether places have labels that describe them, such as "left person", as phrases for grounders; see
            ``umie.grounders.drawn``. No encoder reads them.
        captions: whether the text of each record says what its media show, as these labels, in place of any annotation;
            records are then for the tasks ``caption`` and ``match``.
    """

    seed: int = 0
    train: int = 400
    dev: int = 40
    test: int = 100
    media_share: float = 0.62
    combinations: tuple[str, ...] = COMBINATIONS
    train_by_combination: Mapping[str, int] = field(default_factory=dict)
    first_share: float = 0.75
    labels: bool = False
    captions: bool = False

    def __post_init__(self) -> None:
        for split in SPLITS:
            check_whole(split, getattr(self, split), 0)
        check_share("media_share", self.media_share)
        check_share("first_share", self.first_share)
        check_flag("labels", self.labels)
        check_flag("captions", self.captions)
        given: Any = self.combinations
        if not isinstance(given, list | tuple) or not given:
            raise UmieError(f"combinations is {shown(given)}: use a list of {', '.join(COMBINATIONS)}")
        object.__setattr__(self, "combinations", tuple(dict.fromkeys(map(combination_name, given))))
        numbers: Any = self.train_by_combination
        check_kind("train_by_combination", numbers, Mapping, "use {'T+I': 800}")
        for name, number in numbers.items():
            check_whole(f"train_by_combination: {name}", number, 0)
        named = {combination_name(name): number for name, number in numbers.items()}
        if unused := [name for name in named if name not in self.combinations]:
            raise UmieError(
                f"train_by_combination has {unused[0]}, but combinations does not: add it there, or omit it"
            )
        object.__setattr__(self, "train_by_combination", named)

    def sizes(self, split: str) -> dict[str, int]:
        """Return the number of records of each combination in a split."""
        sizes = dict.fromkeys(self.combinations, int(getattr(self, split)))
        return sizes | dict(self.train_by_combination) if split == "train" else sizes


@dataclass(frozen=True)
class MediaScene:
    """A record, whose media are names of files, with these media.

    Args:
        record: the record.
        image: the image, or None.
        sound: the sound, or None.
        clip: the video, or None.
        decides: what determines the annotation: ``text``, media, or several of them together.
        shows: what each place of a medium shows: an icon, a timbre; ``first`` and ``second`` are the people of a pair.
            Of a video, the motion of the agent, ``drift`` or ``object``.
    """

    record: Record
    image: Image | None = None
    sound: Sound | None = None
    clip: Clip | None = None
    decides: tuple[str, ...] = ()
    shows: Mapping[Medium, tuple[str, ...]] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the media to the files that the record names, relative to a folder."""
        if self.image is not None:
            with atomic_write(folder / str(self.record.image), "wb") as file:
                self.image.save(file, "PNG")
        if self.sound is not None:
            save_sound(self.sound, folder / str(self.record.audio))
        if self.clip is not None:
            save_clip(self.clip, folder / str(self.record.video))


def scenes(config: SyntheticMediaConfig, split: str) -> Iterator[MediaScene]:
    """Yield the scenes of a split: the combinations in turn, and names and pairs of a combination in turn."""
    names = name_pool(split)
    sizes = config.sizes(split)
    for number in range(max(sizes.values())):
        for combination in (name for name, size in sizes.items() if number < size):
            rng = random.Random(f"{config.seed}/{split}/{combination}/{number}")
            letters = combination.split("+")
            media = tuple(MEDIUM_OF[letter] for letter in letters if letter != "T")
            is_open = "T" not in letters or rng.random() < config.media_share
            given = rng, names, media, "T" in letters, is_open
            if "V" not in letters and number % 2 == 0:
                content = name_content(*given)
            else:
                make = event_content if "V" in letters else pair_content
                content = make(*given, rng.random() < config.first_share)
            identifier = f"{split}-{''.join(letters)}-{number:04d}"
            yield _scene(content, media, f"{split}/{identifier}", identifier, config)


def tasks_of(combination: str) -> tuple[str, ...]:
    """Return the tasks that some records of a combination are annotated for."""
    return ("med", "meae") if "V" in combination else ("mner", "mre")


def ceilings(config: SyntheticMediaConfig) -> dict[str, dict[str, dict[str, Ceiling]]]:
    """Return the best F1 of any rule by combination, task, and what the rule sees: the text, and some of the media.

    What is seen is written as a combination; it is empty where a rule sees neither text nor media. The events of
    ``meae`` are the annotated ones.
    """
    found: dict[str, dict[str, dict[str, Ceiling]]] = {}
    for name in config.combinations:
        letters = name.split("+")
        text, media = [one for one in letters if one == "T"], [one for one in letters if one != "T"]
        subsets = [seen for number in range(len(media) + 1) for seen in combinations(media, number)]
        found[name] = {
            task: {"+".join([*text, *seen]): ceiling([name], task, seen, config.media_share) for seen in subsets}
            for task in tasks_of(name)
        }
    return found


def text_only_ceilings(config: SyntheticMediaConfig) -> dict[str, Ceiling]:
    """Return the best F1 by task, over the records of all combinations, of any rule that sees only the text."""
    having = {task: [name for name in config.combinations if task in tasks_of(name)] for task in LABELS}
    return {task: ceiling(names, task, (), config.media_share) for task, names in having.items() if names}


def write_synthetic_media(folder: str | Path, config: SyntheticMediaConfig) -> dict[str, Path]:
    """Write the splits as JSONL files, with their images, sounds and clips in a directory each; return the files.

    A JSONL file is written after its media, so that an existing file is complete.
    """
    files = {}
    for split in SPLITS:
        records = []
        (Path(folder) / split).mkdir(parents=True, exist_ok=True)
        for scene in scenes(config, split):
            scene.save(Path(folder))
            records.append(scene.record)
        files[split] = Path(folder) / f"{split}.jsonl"
        write_jsonl(files[split], records)
    return files


def _caption(content: Content, media: Sequence[Medium]) -> str:
    """Return what media show, from the left or by time: ``cloud, left person, heart, right person``."""
    said = []
    for medium in media:
        shown = content.media[medium]
        where = {
            index: place.interval[0]
            if isinstance(place, Segment)
            else next(box for box in (place.boxes if isinstance(place, Track) else (place.box,)) if box is not None)[0]
            for index, place in enumerate(shown.places)
        }
        said += [label_of(medium, shown.shows[index]) for index in sorted(where, key=lambda index: where[index])]
    return ", ".join(said)


def label_of(medium: Medium, shown: str) -> str:
    """Return the label of a place by what it shows; see ``MediaScene.shows``."""
    if medium == "video":
        return {"object": "object", "drift": "idle person"}.get(shown, "acting person")
    people = {"image": ("left person", "right person"), "audio": ("first speaker", "second speaker")}[medium]
    return dict(zip(("first", "second"), people, strict=True)).get(shown, shown)


def _scene(
    content: Content, media: Sequence[Medium], path: str, identifier: str, config: SyntheticMediaConfig
) -> MediaScene:
    endings = {"image": "png", "audio": "wav", "video": "apng"}
    fields: dict[str, Any] = {"text": "", "id": identifier}
    fields |= {"text": _caption(content, media), "tasks": CAPTIONED} if config.captions else content.fields
    for medium in media:
        fields[medium] = f"{path}.{endings[medium]}"
        places, shows = content.media[medium].places, content.media[medium].shows
        if config.labels or config.captions:
            places = tuple(
                replace(place, label=label_of(medium, what)) for place, what in zip(places, shows, strict=True)
            )
        fields[PLACES[medium]] = places
    drawn = {medium: one.drawn for medium, one in content.media.items()}
    shown = {medium: one.shows for medium, one in content.media.items()}
    return MediaScene(
        Record(**fields),
        drawn.get("image"),  # type: ignore[arg-type] # each medium has its own kind
        drawn.get("audio"),  # type: ignore[arg-type]
        drawn.get("video"),  # type: ignore[arg-type]
        content.decides,
        shown,
    )
