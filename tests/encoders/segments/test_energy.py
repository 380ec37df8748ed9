"""`energy`: drawn sounds whose intervals are known, invariances, and recorded sounds where they are."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie.encoders.segments import registry
from umie.errors import UmieError
from umie.media import Sound
from umie.records import Segment
from umie.records.overlap import nearest_places, place_iou

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
SOUNDSCAPES = ("soundscape_20200501_22050", "reverb_soundscape_20200501_22050")


def bell(times, noise):
    return np.sin(2 * np.pi * 700 * times) * 0.3 ** (times / times[-1])


def long_bell(times, noise):
    return np.sin(2 * np.pi * 700 * times) * 0.01 ** (times / times[-1])


def clicks(times, noise):
    return np.sin(2 * np.pi * 1200 * times) * 0.02 ** (times * 35 % 1)


def hum(times, noise):
    return np.sin(2 * np.pi * 55 * times)


def hiss(times, noise):
    return noise.uniform(-1, 1, len(times))


def horn(times, noise):
    return sum(np.sin(2 * np.pi * 550 * times * number) / number for number in (1, 2, 3))


TIMBRES = (bell, long_bell, clicks, hum, hiss, horn)


def drawn(seed, *, rate=4_000, seconds=3.0, level=0.7, background=0.0, timbres=TIMBRES):
    """Draw sounds one after another, with at least 0.1 s between them; return the sound and the segments."""
    noise = np.random.default_rng(seed)
    samples = background * noise.normal(size=round(seconds * rate))
    part, found = seconds / len(timbres), []
    for number, timbre in enumerate(noise.permutation(np.array(timbres, dtype=object))):
        length = noise.uniform(0.5, 1) * (part - 0.1)
        first = round((number * part + noise.uniform(0.05, part - 0.05 - length)) * rate)
        times = np.arange(round(length * rate)) / rate
        wave = timbre(times, noise)
        samples[first : first + len(times)] += level * wave / np.abs(wave).max()
        found.append(Segment((first / rate, (first + len(times)) / rate)))
    return Sound(np.clip(samples, -1, 1).astype(np.float32), rate), found


def recall_of(segments, annotated):
    return len(nearest_places(annotated, segments)) / len(annotated)


def proposed(sound, **options):
    return registry.build("energy", **options).propose(sound)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rate": 16_000, "seconds": 6.0},
        {"level": 0.05},
        {"background": 0.003, "timbres": (bell, hiss, horn, clicks)},
        {"rate": 22_050, "background": 0.01, "timbres": (bell, hiss, horn)},
    ],
    ids=["4 kHz", "16 kHz", "quiet", "noise", "noise at 22 kHz"],
)
def test_drawn_sounds_are_found(options):
    recalls, numbers = [], []
    for seed in range(10):
        sound, annotated = drawn(seed, **options)
        segments = proposed(sound)
        recalls.append(recall_of(segments, annotated))
        numbers.append(len(segments) / len(annotated))
    assert np.mean(recalls) >= 0.97
    assert np.mean(numbers) < 1.3


def test_edges_are_those_of_the_sound():
    for seed in range(5):
        sound, annotated = drawn(seed, timbres=(horn, hiss, bell))
        for segment in annotated:
            assert max(place_iou(segment, one) for one in proposed(sound)) > 0.9


def test_silence_and_sound_without_pauses():
    rate = 8_000
    silent = Sound(np.zeros(rate, np.float32), rate)
    assert proposed(silent) == []
    assert proposed(Sound(np.full(rate, 0.5, np.float32), rate)) == []  # a constant is not heard
    noise = np.random.default_rng(0).normal(size=2 * rate).astype(np.float32)
    assert proposed(Sound(1e-5 * noise, rate)) == []
    (whole,) = proposed(Sound(0.2 * noise / np.abs(noise).max(), rate))
    assert whole.interval == (0, 2)
    assert proposed(Sound(np.full(1, 0.5, np.float32), rate)) == []


def test_a_sound_during_another_is_nested():
    rate = 8_000
    times = np.arange(6 * rate) / rate
    samples = 0.001 * np.random.default_rng(0).normal(size=len(times))
    samples += 0.03 * np.sin(2 * np.pi * 900 * times) * ((times > 1) & (times < 5))
    samples += 0.6 * np.sin(2 * np.pi * 400 * times) * ((times > 2) & (times < 2.5))
    sound = Sound(samples.astype(np.float32), rate)
    assert [[round(edge, 1) for edge in one.interval] for one in proposed(sound)] == [[1, 5]]
    found = [[round(edge, 1) for edge in one.interval] for one in proposed(sound, nested=True)]
    assert found == [[1, 5], [2, 2.5]]


def test_the_loudest_are_kept():
    rate = 8_000
    times = np.arange(4 * rate) / rate
    levels = {0: 0.1, 1: 0.8, 2: 0.02, 3: 0.4}
    samples = sum(
        level * np.sin(2 * np.pi * 500 * times) * ((times > second + 0.2) & (times < second + 0.7))
        for second, level in levels.items()
    )
    sound = Sound(samples.astype(np.float32), rate)
    assert [round(one.interval[0]) for one in proposed(sound)] == [0, 1, 2, 3]
    assert [round(one.interval[0]) for one in proposed(sound, top=2)] == [1, 3]
    assert [round(one.interval[0]) for one in proposed(sound, min_score=0.7)] == [0, 1, 3]


@given(
    st.integers(1, 20_000),
    st.sampled_from([1_000, 4_000, 44_100]),
    st.sampled_from(["noise", "steps", "sparse", "ramp"]),
    st.integers(0, 99),
    st.booleans(),
)
def test_segments_are_inside_ascending_and_apart(length, rate, kind, seed, nested):
    noise = np.random.default_rng(seed)
    samples = noise.uniform(-1, 1, length)
    if kind == "steps":
        samples *= np.repeat(10.0 ** -noise.integers(0, 5, length // 500 + 1), 500)[:length]
    elif kind == "sparse":
        samples *= noise.random(length) < 0.001
    elif kind == "ramp":
        samples *= np.linspace(0, 1, length)
    sound = Sound(samples.astype(np.float32), rate)
    segments = proposed(sound, nested=nested)
    assert segments == sorted(segments, key=lambda one: one.interval)
    assert len(segments) <= 36
    for number, segment in enumerate(segments):
        assert 0 <= segment.interval[0] < segment.interval[1] <= sound.seconds
        for other in segments[:number]:
            assert place_iou(segment, other) <= (0.5 if nested else 0)
    assert proposed(sound, nested=nested) == segments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 0}, "step is 0: use a number greater than 0"),
        ({"onset": math.nan}, "onset is nan"),
        ({"release": 20}, "release is 20 and onset 12: use a lower release"),
        ({"noise_share": 2}, "noise_share is 2"),
        ({"silence": 3}, "silence is 3: use dB relative to full scale, -100 to 0"),
        ({"nested": 1}, "nested is 1: use true or false"),
        ({"top": 0}, "top is 0: use a whole number"),
        ({"tops": 0}, "Unknown option of segment proposer 'energy': 'tops'. Did you mean 'top'?"),
    ],
    ids=str,
)
def test_options(options, message):
    with pytest.raises(UmieError) as caught:
        registry.build("energy", **options)
    assert message in str(caught.value)


@pytest.mark.skipif(not (DATA / "scaper_sed").is_dir(), reason="the recordings are not here")
@pytest.mark.parametrize("name", SOUNDSCAPES)
def test_events_of_soundscapes(name):
    """A siren, a horn during it, and a voice right after it: flat segments find the siren, nested ones all three."""
    folder = DATA / "scaper_sed"
    lines = (folder / f"{name}.txt").read_text().splitlines()
    annotated = [Segment((float(start), float(end)), label) for start, end, label in map(str.split, lines)]
    path = folder / f"{name}.wav"
    assert recall_of(proposed(path), annotated) == pytest.approx(1 / 3)
    assert recall_of(proposed(path, nested=True), annotated) == pytest.approx(2 / 3)
    assert recall_of(proposed(path, nested=True, min_gap=0.2), annotated) == 1


@pytest.mark.skipif(not (DATA / "fsdd").is_dir(), reason="the recordings are not here")
def test_spoken_digits_are_one_segment():
    paths = sorted((DATA / "fsdd").glob("*_0.wav"))
    numbers = [len(proposed(path)) for path in paths]
    assert min(numbers) == 1
    assert numbers.count(1) / len(numbers) > 0.95
