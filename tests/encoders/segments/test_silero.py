"""`silero`: the network by the names of its weights, and real speech where the weights and the recordings are."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from umie.encoders.segments import registry
from umie.encoders.segments.silero import CHUNK, RATE, SileroNetwork
from umie.errors import UmieError
from umie.media import Sound, open_sound

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
SPEECH = DATA / "speech_lhotse"
PACKAGE = importlib.util.find_spec("silero_vad")
SHAPES = {
    "stft_conv.weight": (258, 1, 256),
    "conv1.weight": (128, 129, 3), "conv1.bias": (128,),
    "conv2.weight": (64, 128, 3), "conv2.bias": (64,),
    "conv3.weight": (64, 64, 3), "conv3.bias": (64,),
    "conv4.weight": (128, 64, 3), "conv4.bias": (128,),
    "lstm_cell.weight_ih": (512, 128), "lstm_cell.weight_hh": (512, 128),
    "lstm_cell.bias_ih": (512,), "lstm_cell.bias_hh": (512,),
    "final_conv.weight": (1, 128, 1), "final_conv.bias": (1,),
}  # fmt: skip
real = pytest.mark.skipif(
    PACKAGE is None or not SPEECH.is_dir(), reason="the package silero-vad or the recordings are not here"
)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SileroNetwork().eval()


@pytest.fixture
def weights(tmp_path, network):
    path = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), path)
    return path


def noise(num_samples, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, num_samples).astype(np.float32)


def test_the_names_and_shapes_are_those_of_the_published_file(network):
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == SHAPES


@torch.inference_mode()
def test_a_probability_depends_on_nothing_later_and_not_on_blocks(network, monkeypatch):
    samples = torch.from_numpy(noise(20 * CHUNK + 100))
    whole = network(samples)
    assert whole.shape == (21,)
    assert ((whole > 0) & (whole < 1)).all()
    torch.testing.assert_close(network(samples[: 7 * CHUNK]), whole[:7])
    monkeypatch.setattr("umie.encoders.segments.silero._BLOCK", 3)
    torch.testing.assert_close(network(samples), whole)
    assert network(samples[:1]).shape == (1,)


def test_segments_are_where_the_probability_is_high(weights, monkeypatch):
    levels = torch.tensor([0.1, 0.4, 0.9, 0.9, 0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.6, 0.1])
    monkeypatch.setattr(SileroNetwork, "forward", lambda self, samples: levels)
    step = CHUNK / RATE
    sound = Sound(noise(12 * CHUNK), RATE)

    def found(**options):
        proposer = registry.build("silero", weights=str(weights), **options)
        return [pytest.approx(segment.interval) for segment in proposer.propose(sound)]

    assert found(min_length=0.1, padding=0) == [(step, 5 * step)]
    assert found(min_length=0.01, padding=0, release=0.5) == [(2 * step, 4 * step), (10 * step, 11 * step)]
    assert found(min_length=0.01, padding=0, min_gap=0.2) == [(step, 11 * step)]
    assert found(min_length=0.01, padding=0.1, top=1) == [(0, 5 * step + 0.1)]
    assert found() == []


def test_other_weights_are_refused(tmp_path, weights, network, monkeypatch):
    state = network.state_dict()
    bad = tmp_path / "bad.safetensors"
    for change, message in [
        ({"conv1.bias": torch.zeros(3)}, r"of another shape \(conv1.bias \[3\] for \[128\]\)"),
        ({"more": torch.zeros(1)}, r"1 unknown to the model \(more\)"),
        ({"conv1.bias": torch.full((128,), torch.nan)}, "are NaN or infinite"),
    ]:
        save_file({**state, **change}, bad)
        with pytest.raises(UmieError, match=message):
            registry.build("silero", weights=str(bad)).load_weights()
    registry.build("silero", weights=str(weights)).load_weights()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UmieError, match="weights is None, and the package silero-vad is not installed: pip install"):
        registry.build("silero").propose(Sound(noise(99), RATE))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": 3}, "weights is 3: use a string"),
        ({"onset": 2}, "onset is 2: use a number >= 0 and <= 1"),
        ({"release": 0.6}, "release is 0.6 and onset 0.5: use a lower release"),
        ({"min_gap": 0}, "min_gap is 0: use a number greater than 0"),
    ],
)
def test_options(options, message):
    with pytest.raises(UmieError, match=message):
        registry.build("silero", **options)


@real
@pytest.mark.parametrize(
    ("name", "number"), [("libri-1088-134315-0000.wav", 2), ("2412-153948-0000.flac", 4), ("2412-153948-0001.flac", 3)]
)
def test_pauses_of_a_reader_are_found(name, number):
    """What is between the segments is much quieter, although the room is heard there."""
    sound = open_sound(SPEECH / name, RATE)
    segments = registry.build("silero").propose(sound)
    assert len(segments) == number
    spoken = np.zeros(len(sound.samples), bool)
    for start, end in (segment.interval for segment in segments):
        spoken[round(start * RATE) : round(end * RATE)] = True
    inside, outside = (np.sqrt((sound.samples[part] ** 2).mean()) for part in (spoken, ~spoken))
    assert 0.8 < spoken.mean() < 0.97
    assert inside > 10 * outside > 0


@real
def test_digits_are_speech_and_noises_are_not():
    proposer = registry.build("silero", min_length=0.1)
    digits = sorted((DATA / "fsdd").glob("*_0.wav"))
    assert sum(bool(proposer.propose(path)) for path in digits) / len(digits) > 0.8
    noises = [*(DATA / "scaper_sed").glob("*Horn*.wav"), DATA / "scaper_sed" / "dogbark.wav"]
    assert len(noises) == 3
    assert not any(proposer.propose(path) for path in noises)
    assert proposer.propose(Sound(0.1 * noise(5 * RATE), RATE)) == []
