"""Calls to grounders in answers, as in REAMO: a module that looks into one medium, and the phrase it looks for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from umie.records import MEDIA, Medium, Places, Record
from umie.records.places import NOWHERE, PLACES

MODULES: Mapping[Medium, str] = {
    "image": "ImageSegmentation",
    "video": "VideoTracking",
    "audio": "AudioSegmentation",
}
"""The name of the module that looks into each medium, as in REAMO's code."""
RESERVED = "<>[]|:="  # which no phrase contains
MAX_PHRASE = 64  # bytes of UTF-8
_RESERVED = re.compile(f"[{re.escape(RESERVED)}\\s]+")


class Call(NamedTuple):
    """A call to the grounder of a medium."""

    medium: Medium
    phrase: str

    @property
    def name(self) -> str:
        """The call as an item of an answer has it in place of the names of places: ``ImageSegmentation: left man``."""
        return f"{MODULES[self.medium]}: {self.phrase}"

    @classmethod
    def named(cls, name: str) -> Call | None:
        """Return the call with a name, or None if it is none."""
        module, colon, phrase = name.partition(":")
        medium = next((medium for medium in MEDIA if MODULES[medium] == module.strip()), None)
        phrase = phrase_of(phrase)
        return cls(medium, phrase) if medium is not None and colon and phrase else None


def phrase_of(text: str) -> str:
    """Return a text as a phrase: without RESERVED characters, with single spaces, and cut to MAX_PHRASE bytes."""
    plain = _RESERVED.sub(" ", text).strip()
    return plain.encode(errors="ignore")[:MAX_PHRASE].decode(errors="ignore").strip()


def calls_for(record: Record, places: Places, mention: str) -> tuple[str, ...]:
    """Return the names of the calls that ask for some places of a record: one for each medium that has any of them.

    The phrase is the label of the first place that has one, such as "left man", or else the mention.
    """
    found = []
    for medium in MEDIA:
        own: list[Any] = [record.places(medium)[index] for index in places.of(medium)]
        labels = [phrase for place in own if (phrase := phrase_of(place.label or ""))]
        if own and (phrase := next(iter(labels), phrase_of(mention))):
            found.append(Call(medium, phrase).name)
    return tuple(found)


def called_places(names: Iterable[str], record: Record) -> Places | None:
    """Return the places that calls found: those of the record whose label is the phrase.

    None if a name is no call, or the record does not have its medium.
    """
    found = NOWHERE
    for call in map(Call.named, names):
        if call is None or call.medium not in record.media:
            return None
        own: tuple[Any, ...] = record.places(call.medium)
        indices = tuple(index for index, place in enumerate(own) if phrase_of(place.label or "") == call.phrase)
        found = found.with_those_of(NOWHERE._replace(**{PLACES[call.medium]: indices}))
    return found


def calls_in(names: Iterable[str]) -> Iterator[Call]:
    """Yield the calls among the names of places of an item."""
    return (call for call in map(Call.named, names) if call is not None)
