"""transformers_audio: frames are the model's own, at their times; pooling, windows, padding, checkpoints, errors."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from media_checkpoints import MODELS, save
from safetensors.torch import load_file, save_file

from umie.encoders import registry
from umie.errors import UmieError
from umie.media import Sound
from umie.records import Segment

RATE = 16_000
CENTERS = {  # of the first frame and of the second one, in milliseconds, for the small checkpoints
    "wav2vec2": (2.46875, 7.46875),  # 80 samples from the first on
    "wavlm": (2.46875, 7.46875),
    "hubert": (2.46875, 7.46875),
    "whisper": (0, 20),
    "audio-spectrogram-transformer": (47.5, 127.5),  # a patch is 8 steps of 10 ms, of windows of 25 ms
    "clap": (15.625, 46.875),  # 32 frames a second
    "pe_audio": (20, 60),
    "pe_audio_video": (20, 60),
}
WINDOWS = {"whisper": 16_000, "audio-spectrogram-transformer": 10_240, "clap": 16_000}  # in samples


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: save(kind, tmp_path_factory.mktemp(kind)) for kind in CENTERS}


@pytest.fixture(scope="module", params=CENTERS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def encoder(folders, kind):
    return registry.build("transformers_audio", source=folders[kind]).eval()


def noise(num_samples, seed=0, level=0.2):
    return np.random.default_rng(seed).uniform(-level, level, num_samples).astype(np.float32)


def encode(encoder, sounds, segments=None):
    with torch.no_grad():
        return encoder.encode([Sound(samples, RATE) for samples in sounds], segments).features


def own_frames(kind, folder, samples):
    """Return the frames of a sound of one window, and its pooled output or None, as transformers returns them."""
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(samples, sampling_rate=RATE, return_tensors="pt")
    inputs.pop("padding_mask", None)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        if kind == "whisper":
            return model.encoder(**inputs).last_hidden_state[0], None
        if kind == "clap":
            found = model.audio_model(**inputs)
            by_frequency = found.last_hidden_state[0]  # [D, frequencies, times]
            return by_frequency.mean(1).T, found.pooler_output[0]
        if kind == "audio-spectrogram-transformer":
            found = model(**inputs)
            return found.last_hidden_state[0, 2:].view(2, 8, -1).mean(0), found.pooler_output[0]
        if kind in ("pe_audio", "pe_audio_video"):
            model = getattr(model, "audio_model", model)
            found = model.audio_encoder(**inputs)
            return model.audio_head(found.last_hidden_state[0]), model.audio_head(found.pooler_output[0])
        return model(**inputs).last_hidden_state[0], None


def test_slots_are_means_of_the_models_own_frames(kind, encoder, folders):
    samples = noise(9_600)
    spans = [(0.0, 0.301), (0.105, 0.205), (0.255, 0.595), (0.31, 0.311), (0.445, 2.0), (0.599, 2.0)]
    found = encode(encoder, [samples], [list(map(Segment, spans))])[0]
    frames, pooled = own_frames(kind, folders[kind], samples)
    first, second = (center / 1000 for center in CENTERS[kind])
    centers = [first + number * (second - first) for number in range(len(frames))]
    centers = [center for center in centers if center < 0.6]  # the rest of the window is padding
    expected = [sum(frames[: len(centers)]) / len(centers) if pooled is None else pooled]
    for start, end in spans:
        own = [frames[number] for number, center in enumerate(centers) if start <= center < end]
        nearest = min(range(len(centers)), key=lambda number: abs(centers[number] - (start + end) / 2))
        expected.append(sum(own) / len(own) if own else frames[nearest])
    torch.testing.assert_close(found, torch.stack(expected), atol=2e-5, rtol=1e-4)
    assert encoder.feature_dim == frames.shape[1]


@pytest.mark.parametrize("content", ["tone", "silence"])
def test_what_is_heard_at_a_time_is_in_the_frames_of_that_time(encoder, kind, content):
    """Six segments of noise, one of them with silence, or with a tone of the same power, for most of the time."""
    length = 3_200 if kind.startswith("pe_") else 1_600  # a frame of PE-AV depends on 0.3 s, of the others on less
    spans = [[Segment((step * length / RATE, (step + 1) * length / RATE)) for step in range(6)]]
    samples = noise(6 * length)
    plain = encode(encoder, [samples], spans)[0, 1:]
    tone = samples.std() * 2**0.5 * np.sin(np.arange(length * 3 // 5, dtype=np.float32))
    for step in range(6):
        changed = samples.copy()
        start = step * length + length // 5
        changed[start : start + len(tone)] = tone if content == "tone" else 0
        changes = (encode(encoder, [changed], spans)[0, 1:] - plain).norm(dim=1)
        assert changes.argmax() == step, changes


def test_a_longer_sound_is_heard_in_windows(kind, encoder):
    samples = noise(36_000)
    window = WINDOWS.get(kind)
    if window is None:
        assert encoder.preprocess([Sound(samples, RATE)])["sound"].shape[1] == 1
        return
    start = window / RATE
    spans = [(0.2, 0.4), (start + 0.2, start + 0.4), (start - 0.16, start + 0.16)]
    whole, first, second, both = encode(encoder, [samples], [list(map(Segment, spans))])[0]
    pieces = [samples[begin : begin + window] for begin in range(0, len(samples), window)]
    alone = encode(encoder, pieces, [[Segment((0.2, 0.4))] for _ in pieces])
    torch.testing.assert_close(first, alone[0, 1], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(second, alone[1, 1], atol=2e-5, rtol=1e-4)
    offset, hop = CENTERS[kind][0] / 1000, (CENTERS[kind][1] - CENTERS[kind][0]) / 1000
    heard = [len(np.arange(offset, len(piece) / RATE, hop)) for piece in pieces]
    heard = [min(number, int(encoder.config.family.num_frames(encoder.config.shape))) for number in heard]
    shares = torch.tensor(heard) / sum(heard)
    torch.testing.assert_close(whole, (shares[:, None] * alone[:, 0]).sum(0), atol=2e-5, rtol=1e-4)
    ends = encode(encoder, pieces[:2], [[Segment((start - 0.16, start))], [Segment((0.0, 0.16))]])[:, 1]
    counts = [
        sum(low <= offset + number * hop < high for number in range(heard[0]))
        for low, high in ((start - 0.16, start), (0, 0.16))
    ]
    expected = (ends[0] * counts[0] + ends[1] * counts[1]) / sum(counts)
    torch.testing.assert_close(both, expected, atol=2e-5, rtol=1e-4)


def test_sound_after_max_seconds_is_not_heard(folders, kind):
    short = registry.build("transformers_audio", source=folders[kind], max_seconds=0.5).eval()
    samples = noise(9_600)
    changed = samples.copy()
    changed[8_000:] = 0
    segments = [[Segment((0.0, 0.2))]] * 2
    found = encode(short, [samples, changed], segments)
    assert torch.equal(found[0], found[1])
    encode(short, [samples], [[Segment((0.55, 0.6))]])  # a segment that is not heard has the nearest frame


@pytest.mark.parametrize("num_samples", [1, 40, 500, 10_241])
def test_sounds_of_any_length(encoder, num_samples):
    segments = [[Segment((0.0, num_samples / RATE / 2))]]
    assert encode(encoder, [noise(num_samples)], segments).isfinite().all()
    assert encode(encoder, [np.zeros(num_samples, np.float32)], segments).isfinite().all()


def test_what_pads_a_batch_never_matters(encoder):
    sounds = [noise(9_000), noise(23_000, seed=1)]
    segments = [[Segment((0.1, 0.4))], [Segment((0.1, 0.4)), Segment((0.5, 1.2))]]
    inputs = encoder.preprocess([*(Sound(samples, RATE) for samples in sounds), None], [*segments, []])
    for row, (windows, size) in enumerate(inputs["sound_size"].tolist()):
        inputs["sound"][row, windows:] = 1e4
        inputs["sound"][row, :, :, size:] = 1e4
    inputs["frames"][~inputs["visual_mask"]] = 10**6
    with torch.no_grad():
        found = encoder(**inputs).features
    for row in range(2):
        alone = encode(encoder, [sounds[row]], [segments[row]])[0]
        torch.testing.assert_close(found[row, : len(alone)], alone, atol=1e-5, rtol=1e-5)
    assert not found[2].any()


def test_only_what_is_used_is_built_and_trained(kind, folders):
    encoder = registry.build("transformers_audio", source=folders[kind], trainable=True)
    encoder.train()
    names = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert not [name for name in names if "dac_encoder" in name or "decoder" in name or "text" in name]
    before = encoder.encode([Sound(noise(6_000), RATE)])
    before.features.sum().backward()
    trained = {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert trained <= names
    assert len(trained) > len(names) / 2  # in training, some layers are skipped at random


# --- checkpoints


def test_random_weights_need_a_configuration(encoder):
    options = json.loads(json.dumps(encoder.saved_options()))
    torch.manual_seed(1)
    other = registry.build("transformers_audio", **options).eval()
    assert other.config.has_random_weights and not encoder.config.has_random_weights
    assert other.state_dict().keys() == encoder.state_dict().keys()
    other.load_state_dict(encoder.state_dict())
    samples = noise(7_000)
    assert torch.equal(encode(other, [samples]), encode(encoder, [samples]))
    assert other.fingerprint() == encoder.fingerprint()
    with pytest.raises(UmieError, match="source is not set: set it to a checkpoint directory"):
        registry.build("transformers_audio")


def test_a_preparation_replaces_that_of_the_checkpoint(folders):
    changed = {"num_mel_bins": 16, "max_length": 64, "mean": 0.0, "std": 2.0}
    options = {"source": folders["audio-spectrogram-transformer"]}
    plain, other = (
        registry.build("transformers_audio", **options, **more).eval() for more in ({}, {"preparation": changed})
    )
    assert not torch.allclose(encode(plain, [noise(5_000)]), encode(other, [noise(5_000)]))
    assert plain.fingerprint() != other.fingerprint()
    with pytest.raises(UmieError, match="max_length is 32 in the preparation of sounds, but the model takes 64"):
        registry.build("transformers_audio", **options, preparation={**changed, "max_length": 32})


def test_an_extractor_inside_a_processor_file_is_found(folders, tmp_path):
    shutil.copytree(folders["whisper"], tmp_path / "own")
    path = tmp_path / "own" / "preprocessor_config.json"
    values = json.loads(path.read_text())
    path.unlink()
    with pytest.raises(UmieError, match="does not say how inputs are prepared: save its preprocessor_config.json"):
        registry.build("transformers_audio", source=str(tmp_path / "own"))
    (tmp_path / "own" / "processor_config.json").write_text(json.dumps({"feature_extractor": values}))
    found = registry.build("transformers_audio", source=str(tmp_path / "own")).eval()
    expected = registry.build("transformers_audio", source=folders["whisper"]).eval()
    assert torch.equal(encode(found, [noise(5_000)]), encode(expected, [noise(5_000)]))


@pytest.mark.parametrize(
    ("kind", "weight"),
    [
        ("whisper", "encoder.conv1.weight"),
        ("pe_audio", "audio_encoder.norm.weight"),
        ("clap", "audio_encoder.norm.weight"),
    ],
)
def test_a_checkpoint_without_a_weight_is_an_error(folders, tmp_path, kind, weight):
    shutil.copytree(folders[kind], tmp_path / "own")
    path = tmp_path / "own" / "model.safetensors"
    state = load_file(path)
    gone = [name for name in state if name.endswith(weight)]
    save_file({name: value for name, value in state.items() if name not in gone}, path, {"format": "pt"})
    assert len(gone) == 1
    with pytest.raises(UmieError, match=rf"the checkpoint is missing 1 weights, e\.g\. .*{gone[0].split('.')[-1]}"):
        registry.build("transformers_audio", source=str(tmp_path / "own"))


def test_weights_of_what_is_not_used_may_be_missing(folders, tmp_path):
    shutil.copytree(folders["pe_audio_video"], tmp_path / "own")
    path = tmp_path / "own" / "model.safetensors"
    state = {name: value for name, value in load_file(path).items() if not name.startswith("text_model.")}
    save_file(state, path, {"format": "pt"})
    own = registry.build("transformers_audio", source=str(tmp_path / "own")).eval()
    expected = registry.build("transformers_audio", source=folders["pe_audio_video"]).eval()
    assert torch.equal(encode(own, [noise(5_000)]), encode(expected, [noise(5_000)]))


def test_clap_that_fuses_windows_hears_one(tmp_path, monkeypatch):
    model, values, extractor, options = MODELS["clap"]
    values = {**values, "audio_config": {**values["audio_config"], "enable_fusion": True}}
    monkeypatch.setitem(MODELS, "clap", (model, values, extractor, {**options, "truncation": "fusion"}))
    encoder = registry.build("transformers_audio", source=save("clap", tmp_path)).eval()
    samples = noise(9_600)
    inputs = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)(
        samples, sampling_rate=RATE, return_tensors="pt"
    )
    with torch.no_grad():
        tower = transformers.AutoModel.from_pretrained(tmp_path).eval().audio_model
        expected = tower(inputs["input_features"], is_longer=torch.tensor([[False]])).pooler_output
    torch.testing.assert_close(encode(encoder, [samples])[0], expected, atol=1e-5, rtol=1e-5)


SHAPE = {"model_type": "wav2vec2", **MODELS["wav2vec2"][1]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "nowhere/at/all"}, "Unknown encoder 'nowhere/at/all'"),
        ({"config": {"model_type": "bert"}}, "config is of the kind 'bert': use one of audio-spectrogram-transformer,"),
        ({"config": {}}, "config is of the kind None"),
        ({"config": 5}, "config is 5: use a mapping"),
        ({"config": {**SHAPE, "hidden_size": float("nan")}}, "config: hidden_size is NaN: correct it"),
        ({"config": {**SHAPE, "num_hidden_layers": 10**6}}, "num_hidden_layers is 1000000: use a number of at most"),
        ({"config": {**SHAPE, "conv_dim": [8]}}, "its configuration cannot be used"),
        (
            {"config": SHAPE, "preparation": {"sampling_rate": 5}},
            "sampling_rate is 5: use a whole number of at least 1000",
        ),
        ({"config": SHAPE, "preparation": {"sampling_rate": "fast"}}, "sampling_rate is 'fast'"),
        ({"config": SHAPE, "max_seconds": 0}, "max_seconds is 0"),
        (
            {"config": {"model_type": "whisper"}, "preparation": {"chunk_length": 3000}},
            "its windows have 48,000,000 samples: use at most 600 seconds",
        ),
    ],
)
def test_bad_options_are_one_line(options, message):
    with pytest.raises(UmieError, match=message) as caught:
        registry.build("transformers_audio", **options).encode([Sound(noise(100), RATE)])
    assert "\n" not in str(caught.value)
