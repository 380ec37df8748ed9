"""Speech of texts with the times of its words, by espeak-ng, which is installed apart from umie (GPL-3)."""

from __future__ import annotations

import ctypes.util
import importlib
import json
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from threading import Timer
from types import TracebackType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from umie.errors import UmieError, UnknownNameError, check_positive
from umie.media import espeak
from umie.media.sound import Sound

Event: TypeAlias = tuple[int, int, float]  # a character, a number of characters, a second

VOICE = "en-us"
RATE, MIN_RATE, MAX_RATE = 175, 80, 450  # words per minute, those of espeak-ng
TIMEOUT = 60.0  # seconds; espeak-ng needs about 10 ms for a tweet
_NO_ESPEAK = (
    "speech requires espeak-ng (GPL-3), which is not part of umie: pip install espeakng-loader, or install your "
    "system's package espeak-ng"
)
_NOT_SPACE = re.compile(r"\S")


class SpokenWord(NamedTuple):
    """What is said of some characters of a text: their offsets, end exclusive, and the seconds without silence."""

    span: tuple[int, int]
    interval: tuple[float, float]


@dataclass(frozen=True)
class Speech:
    """The sound of a text, and its words in order; what is not said, such as most punctuation, has none."""

    sound: Sound
    words: tuple[SpokenWord, ...]


class Speaker:
    """Speaks texts, in a process of its own that a crash or a hang ends; use it in a ``with`` statement.

    Args:
        voice: a language or voice of espeak-ng, e.g. ``en-us``, ``de``, ``cmn``, ``en-us+f3``.
        rate: words per minute, 80 to 450.
        timeout: seconds that a text may take.

    Raises:
        UmieError: the rate is not of these.
    """

    def __init__(self, voice: str = VOICE, rate: int = RATE, timeout: float = TIMEOUT) -> None:
        if not MIN_RATE <= rate <= MAX_RATE:
            raise UmieError(f"rate is {rate}: use {MIN_RATE} to {MAX_RATE} words per minute")
        check_positive("timeout", timeout)
        self.voice, self.rate, self.timeout = voice, rate, timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._samples_per_second = 0

    def __enter__(self) -> Speaker:
        """Start the process; raise UmieError if espeak-ng is not installed, or does not know the voice."""
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def speak(self, text: str) -> Speech:
        """Return the speech of a text; one of which nothing is said has no words.

        Raises:
            UmieError: espeak-ng crashes or hangs on the text, or the speech is longer than a Sound may be.
        """
        if self._process is None:
            self._start()
        said = "".join(" " if unicodedata.category(one) == "Cc" else one for one in text)  # \x01 would be a command
        content, data = self._answer(json.dumps(said).encode() + b"\n")
        sound = Sound((np.frombuffer(data, "<i2") / 2**15).astype(np.float32), self._samples_per_second)
        events = ((position, length, milliseconds / 1000) for position, length, milliseconds in content["events"])
        return Speech(sound, tuple(spoken_words(said, events, sound)))

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", espeak.__file__, *_library(), self.voice, str(self.rate)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        content, _ = self._answer(b"")
        if "rate" not in content:
            self._stop()
            if "voices" in content:
                raise UnknownNameError("voice", self.voice, content["voices"])
            raise UmieError(f"espeak-ng finds no data: {_NO_ESPEAK}")
        self._samples_per_second = content["rate"]

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()  # closes its pipes
            self._process = None

    def _answer(self, line: bytes) -> tuple[dict[str, Any], bytes]:
        """Return what the process answers to a line; raise UmieError if it ends, or takes too long, which ends it."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        timer = Timer(self.timeout, process.kill)
        timer.start()
        try:
            process.stdin.write(line)
            process.stdin.flush()
            content = json.loads(process.stdout.readline())
            samples = process.stdout.read(content.get("bytes", 0))
        except (OSError, ValueError):  # it ended before, or within a line
            content = None
        finally:
            timer.cancel()
        if content is None or len(samples) < content.get("bytes", 0):
            self._stop()
            raise UmieError(f"espeak-ng crashed, or took more than {self.timeout:g} s")
        return content, samples


def spoken_words(text: str, events: Iterable[Event], sound: Sound) -> Iterator[SpokenWord]:
    """Yield the words that espeak-ng says, with their characters and their seconds without silence.

    Each event begins a word, which ends where the next one begins, with two exceptions. A further event inside the
    characters of a word is one of its pieces: ``10000`` is said in several. An event at a space is another piece of the
    word before, as the emoji that are said in several words have, unless the word after the space has no event: it is
    then its own. Words that are said as one (``for the``) are one.

    Args:
        text: what was said.
        events: first character, number of characters and second of each, in the order of time.
        sound: the speech.
    """
    events = list(events)
    positions = {position for position, _, _ in events}
    words: list[tuple[int, float]] = []
    reach = 0
    for position, length, second in events:
        found = _NOT_SPACE.search(text, position)
        start = len(text) if found is None else found.start()
        if start < reach or start == len(text) or (start > position and start in positions):
            continue
        words.append((start, second))
        reach = max(start + 1, position + length)
    loud = np.flatnonzero(sound.samples)
    for (start, second), (stop, end) in pairwise([*words, (len(text), sound.seconds)]):
        first, last = np.searchsorted(loud, (round(second * sound.rate), round(end * sound.rate)))
        while stop > start + 1 and not text[stop - 1].isalnum():
            stop -= 1
        if last - first > 1:  # two samples: the seconds differ
            interval = (round(float(loud[first]) / sound.rate, 5), round(float(loud[last - 1] + 1) / sound.rate, 5))
            yield SpokenWord((start, stop), interval)


def _library() -> tuple[str, str]:
    """Return the paths of the library espeak-ng and of its data, "" for those where it looks by itself."""
    try:
        loader = importlib.import_module("espeakng_loader")
    except ImportError:
        found = ctypes.util.find_library("espeak-ng")
        if found is None:
            raise UmieError(_NO_ESPEAK) from None
        return found, ""
    return loader.get_library_path(), loader.get_data_path()
