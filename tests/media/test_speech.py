"""Speech by espeak-ng, if it is installed: the times of words, odd texts, and failures of the library."""

import ctypes.util
import importlib.util
import os
import signal
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie.errors import UmieError
from umie.media import Sound
from umie.media.speech import Speaker, spoken_words

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None and ctypes.util.find_library("espeak-ng") is None,
    reason="espeak-ng is not installed: pip install espeakng-loader",
)
TEXTS = (
    "RT @ Kevin : Ann Lee paid $ 10000 in N.Y. on 3 / 4 ! # GreatDay http://t. co/p47YO61bam",
    'Ann Lee. went! (to) 12,345.67 rivers - isn\'t it? \u2026 "yes"',
    "caf\u00e9 \U0001d49cnn \U0001f602 Bob \u2764\ufe0f \U0001f468\u200d\U0001f469\u200d\U0001f467 ok",
    "Finland - Krista sings for the world _ and more",
    "two\tlines\r\nand\x00 a \x01 command",
)


def islands(sound: Sound, silence: float = 0.04) -> list[tuple[float, float]]:
    """Return the seconds of the parts of a sound between pauses."""
    loud = np.flatnonzero(sound.samples)
    cuts = np.flatnonzero(np.diff(loud) > silence * sound.rate)
    starts, ends = loud[np.r_[0, cuts + 1]], loud[np.r_[cuts, len(loud) - 1]] + 1
    return [(float(start) / sound.rate, float(end) / sound.rate) for start, end in zip(starts, ends, strict=True)]


@needs_espeak
@pytest.mark.parametrize("text", TEXTS)
def test_all_of_the_sound_is_inside_words_whose_times_and_offsets_ascend(text):
    with Speaker() as speaker:
        speech = speaker.speak(text)
    sound, words = speech.sound, speech.words
    flat = [second for word in words for second in word.interval]
    assert flat == sorted(flat)
    assert all(before.span[1] <= after.span[0] for before, after in pairwise(words))
    outside = sound.samples.copy()
    for word in words:
        first, last = (round(second * sound.rate) for second in word.interval)
        assert sound.samples[first:last].any(), text[slice(*word.span)]
        outside[first:last] = 0
    assert np.count_nonzero(outside) <= 2 * len(words)  # seconds are rounded to 0.01 ms
    said = set().union(*(range(*word.span) for word in words))
    assert {index for index, one in enumerate(text) if one.isalnum()} <= said


@needs_espeak
def test_words_are_where_their_sound_is():
    """A comma is a pause, so each name is an island of sound."""
    names = ("Washington", "Ann", "California", "Bob Lee", "Mississippi")
    text = ", ".join(names) + "."
    with Speaker() as speaker:
        speech = speaker.speak(text)
        alone = [speaker.speak(name).sound for name in names]
    found = islands(speech.sound)
    assert len(found) == len(names)
    for name, (start, end), own in zip(names, found, alone, strict=True):
        first = text.index(name)
        words = [word for word in speech.words if first <= word.span[0] < first + len(name)]
        assert words[0].interval[0] == pytest.approx(start, abs=1e-4)
        assert words[-1].interval[1] == pytest.approx(end, abs=1e-4)
        assert end - start == pytest.approx(islands(own)[-1][1], rel=0.4)  # as long as the name by itself


@needs_espeak
def test_the_pieces_of_a_number_and_of_an_emoji_are_one_word():
    text = "I saw 1234567 cats \U0001f602 at 9 today"
    with Speaker() as speaker:
        words = speaker.speak(text).words
    said = {text[slice(*word.span)]: word.interval[1] - word.interval[0] for word in words}
    assert list(said) == ["I", "saw", "1234567", "cats", "\U0001f602", "at", "9", "today"]
    assert said["1234567"] > 3
    assert said["\U0001f602"] > 0.8  # face with tears of joy


@needs_espeak
def test_a_language_without_spaces():
    text = "\u5317\u4eac\u662f\u9996\u90fd"  # Beijing is the capital
    with Speaker("cmn") as speaker:
        words = speaker.speak(text).words
    assert "".join(text[slice(*word.span)] for word in words) == text
    assert len(words) >= 4


@needs_espeak
@pytest.mark.parametrize("text", ["", "  \n", "...", "\x00"])
def test_nothing_is_said_of_a_text_without_words(text):
    with Speaker() as speaker:
        assert speaker.speak(text).words == ()


@needs_espeak
def test_the_same_texts_have_the_same_speech_at_the_chosen_rate():
    def speak(**options):
        with Speaker(**options) as speaker:
            return [speaker.speak(text).sound.samples for text in TEXTS[:2]]

    first, again, slow = speak(), speak(), speak(rate=120)
    assert all(map(np.array_equal, first, again))
    assert len(slow[0]) > 1.2 * len(first[0])


@needs_espeak
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP], ids=["crash", "hang"])
def test_a_crash_or_a_hang_costs_one_text(sent):
    with Speaker(timeout=1) as speaker:
        before = speaker.speak("Ann").words
        os.kill(speaker._process.pid, sent)
        with pytest.raises(UmieError, match="espeak-ng crashed, or took more than 1 s"):
            speaker.speak("Bob")
        assert speaker.speak("Ann").words == before
        process = speaker._process
    assert process.poll() is not None


@needs_espeak
@pytest.mark.slow
def test_speech_of_more_than_an_hour_is_refused_and_costs_one_text():
    with Speaker() as speaker:
        process = speaker._process
        with pytest.raises(UmieError, match="the limit is 3,600"):
            speaker.speak("\U0001f602 " * 20_000)  # hours
        assert [word.span for word in speaker.speak("Ann").words] == [(0, 3)]
        assert speaker._process is process  # it was stopped, not killed


@needs_espeak
def test_an_unknown_voice_is_named_with_the_nearest():
    with pytest.raises(UmieError, match="Unknown voice 'eng-us'. Did you mean 'en-us'\\? Choices: af, .*, cmn, "):
        Speaker("eng-us").__enter__()
    with Speaker("en-gb") as speaker:  # a language, not the name of a voice
        assert speaker.speak("Ann").words


@needs_espeak
def test_missing_data_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("umie.media.speech._library", lambda: (library()[0], str(tmp_path)))
    monkeypatch.setenv("ESPEAK_DATA_PATH", str(tmp_path))
    with pytest.raises(UmieError, match="espeak-ng finds no data"):
        Speaker().__enter__()


def library():
    import espeakng_loader

    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()


def test_a_missing_library_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(UmieError, match="pip install espeakng-loader"):
        Speaker().__enter__()


@pytest.mark.parametrize(("options", "message"), [({"rate": 500}, "80 to 450"), ({"timeout": 0}, "timeout is 0")])
def test_bad_options(options, message):
    with pytest.raises(UmieError, match=message):
        Speaker(**options)


@given(
    st.text("ab1 .\n", max_size=30),
    st.lists(st.tuples(st.integers(0, 35), st.integers(-1, 9), st.floats(0, 1)), max_size=12),
    st.lists(st.booleans(), min_size=1, max_size=50),
)
def test_any_events_give_words_in_order(text, events, loud):
    """Positions may be wrong: events ascend only in time."""
    sound = Sound(np.repeat(np.array(loud, np.float32), 20), 1000)
    words = list(spoken_words(text, sorted(events, key=lambda event: event[2]), sound))
    for before, after in pairwise(words):
        assert before.span[1] <= after.span[0]
        assert before.interval[1] <= after.interval[0]
    for word in words:
        assert 0 <= word.span[0] < word.span[1] <= len(text)
        assert 0 <= word.interval[0] < word.interval[1] <= sound.seconds
        assert not text[word.span[0]].isspace()
