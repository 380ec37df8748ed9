"""The bounds of F1 in the embedded media set for a model that does not see all media, from its distribution."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from umie.data.clips import NUM_TRACKS
from umie.data.media_contents import LABELS
from umie.data.sounds import NUM_SOUNDS
from umie.data.synthetic import NUM_REGIONS, Candidate, text_only_ceiling
from umie.records import NO_RELATION

NUM_PLACES = {"I": NUM_REGIONS, "A": NUM_SOUNDS, "V": NUM_TRACKS}


class Ceiling(NamedTuple):
    """The F1 of the best rule: of items with their types and spans, and of items with their places, too.

    The place of an item without a span is what it is, so ``typed`` includes it in ``meae``; but ``typed`` only counts
    the types of entities and events.
    """

    typed: float
    grounded: float


def ceiling(combinations: Iterable[str], task: str, seen: Collection[str], media_share: float) -> Ceiling:
    """Return the F1 of the best rule over the records of some combinations, equally many of each.

    Args:
        combinations: names of combinations that have records of the task.
        task: ``mner``, ``mre``, ``med`` or ``meae`` (with gold events).
        seen: the letters of the media that the rule sees; it always sees the text.
        media_share: the share of records with a text whose annotation only a medium determines.
    """
    chosen = list(combinations)
    typed, grounded = (
        text_only_ceiling(
            candidate for one in chosen for candidate in _candidates(one, task, seen, media_share, grounded)
        )
        for grounded in (False, True)
    )
    return Ceiling(typed, grounded)


def _candidates(
    combination: str, task: str, seen: Collection[str], media_share: float, grounded: bool
) -> list[Candidate]:
    """Return what a rule may predict for a record of a combination; see ``ceiling``."""
    letters = combination.split("+")
    has_text = "T" in letters
    unstated = media_share if has_text else 1.0
    media = [letter for letter in letters if letter != "T"]
    if task == "meae":
        return _arguments(has_text, unstated, "V" in seen, grounded)
    if task == "med":
        media = ["A"] if "A" in media else ["V"]  # what shows the type
    hidden = [letter for letter in media if letter not in seen]
    guessed = unstated * len(hidden) / len(media)
    # the places that a guess has to choose from: a query about a pair without a text names them, and an event that is
    # not heard has none
    places = 1
    if grounded and hidden:
        if task == "mner":  # the verb of a text tells which medium it is in
            places = NUM_PLACES[hidden[0]] if has_text else sum(NUM_PLACES[letter] for letter in hidden)
        elif task == "mre" and has_text:
            places = NUM_PLACES[hidden[0]] * (NUM_PLACES[hidden[0]] - 1)
        elif task == "med" and media == ["A"]:
            places = NUM_PLACES["A"]
    labels = LABELS[task]
    positives = [label for label in labels if label != NO_RELATION]
    return [
        Candidate((1 - guessed) * len(positives) / len(labels), 1.0),
        Candidate(guessed * len(positives) * places, 1 / (len(labels) * places)),
    ]


def _arguments(has_text: bool, unstated: float, sees_video: bool, grounded: bool) -> list[Candidate]:
    """Return the arguments that a rule may predict: an agent and a target of each event."""
    if sees_video:
        return [Candidate(2.0, 1.0)]
    tracks = NUM_TRACKS if grounded or not has_text else 1  # of which one is the agent, whom a text names
    return [
        Candidate((1 - unstated) * 2, 1.0),
        Candidate(unstated * tracks, 1 / tracks),
        Candidate(unstated * NUM_TRACKS, 1 / NUM_TRACKS),  # the target is the object, which has no name
    ]
