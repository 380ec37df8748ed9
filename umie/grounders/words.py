"""`words`: the segments whose words are those of a phrase, for sounds with the times of their words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from umie.grounders import registry
from umie.grounders.base import Grounder
from umie.records import Segment

_WORD = re.compile(r"\w+(?:['’-]\w+)*")


@registry.register("words")
class WordsGrounder(Grounder):
    """The interval from the first to the last word of a phrase, where the labels of the segments are words.

    ``umie data segments --proposer words`` adds such segments, from a forced aligner or a speech recognizer. Upper and
    lower case are the same, and punctuation does not count.
    """

    medium = "audio"

    def find(self, source: Any, phrases: Sequence[str], known: Sequence[Segment] = ()) -> list[list[Segment]]:
        """Return the segments that say each phrase, those that say nothing else first, in the order of their times."""
        spoken = [
            (word, segment)
            for segment in sorted(known, key=lambda one: one.interval)
            for word in _words(segment.label or "")
        ]
        heard = [word for word, _ in spoken]
        found = []
        for phrase in phrases:
            words = _words(phrase)
            starts = [start for start in range(len(heard)) if words and heard[start : start + len(words)] == words]
            starts.sort(key=lambda start: _words(spoken[start][1].label or "") != words)  # a segment of its own first
            ends = [(spoken[start][1], spoken[start + len(words) - 1][1]) for start in starts[: self.config.top]]
            found.append([Segment((first.interval[0], last.interval[1]), phrase) for first, last in ends])
        return found


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]
