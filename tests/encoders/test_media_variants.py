"""Encoders of sound and video in a whole variant: text only, batches, saving, stored features."""

import dataclasses
import shutil
import wave

import numpy as np
import pytest
import torch
from media_checkpoints import save

import umie
from umie import Record, compose
from umie.encoders import CachedEncoder, FeatureCache, registry
from umie.encoders.cache.cached_encoder import fill_from_records
from umie.errors import UmieError
from umie.media import Clip, Sound
from umie.records import Entity, Segment, Track, write_jsonl
from umie.types import FEATURES

BOX = (0.1, 0.2, 0.5, 0.6)
TASKS = {"mner": {"labels": ("person", "place"), "grounded": True}}
PAIRS = [
    ("whisper", "videomae"),
    ("clap", "vjepa2"),
    ("audio-spectrogram-transformer", "frames"),
    ("pe_audio_video", "pe_audio_video"),
]


def samples_of(length, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, length).astype(np.float32)


@pytest.fixture(scope="module")
def records(noise):
    audio = {"audio": Sound(samples_of(16_000), 16_000), "segments": (Segment((0.2, 0.7)), Segment((0.8, 1)))}
    video = {
        "video": Clip(tuple(noise(40, 30, seed) for seed in range(5)), (0, 0.2, 0.4, 0.6, 0.8), 1),
        "tracks": (Track((0, 0.5), (BOX, (0, 0, 1, 1))), Track((0.4, 0.8), (BOX, BOX))),
    }
    longer = {"audio": Sound(samples_of(24_000, 1), 16_000), "segments": (Segment((1.2, 1.4)),)}
    person = (Entity("person", (0, 3)),)
    texts = [
        {"text": "Ann left", **audio},
        {"text": "Ann went", **video},
        {"text": "Ann came home", **longer, **video},
        {"text": "Ann"},
    ]
    return [Record(**one, entities=person) for one in texts]


def built(folder, audio, video, tokenizer):
    sources = {}
    for kind in {audio, video} - {"frames"}:
        if not (folder / kind).exists():
            (folder / kind).mkdir()
            save(kind, folder / kind)
        sources[kind] = str(folder / kind)
    seen = {"name": "frames", "encoder": {"name": "timm", "model": "test_resnet", "mode": "align", "short_side": 64}}
    if video in sources:
        seen = {"name": "transformers_video", "source": sources[video]}
    heard = {"name": "transformers_audio", "source": sources[audio]}
    torch.manual_seed(0)
    parts = {"audio_encoder": heard, "video_encoder": seen, "visual_embedding": {"num_slot_embeddings": 3}}
    return compose("tiny", "gated", "t5", tasks=TASKS, tokenizer=tokenizer, **parts)


@pytest.mark.parametrize(("audio", "video"), PAIRS)
def test_a_variant_is_the_same_in_batches_without_media_and_after_saving(records, tokenizer, tmp_path, audio, video):
    model, processor = built(tmp_path, audio, video, tokenizer)
    batch = processor(records, "mner")
    with torch.no_grad():
        together = model(**batch)
        for row, record in enumerate(records):
            alone = model(**processor([record], "mner"))
            length = alone.logits.shape[1]
            torch.testing.assert_close(together.logits[row, :length], alone.logits[0], atol=1e-5, rtol=0)
        plain = processor(records[3:], "mner")
        text = {name: value for name, value in plain.items() if name not in model.visual_input_names}
        assert len(text) < len(plain)
        assert torch.equal(model(**plain).logits, model(**text).logits)
        model.save_pretrained(tmp_path / "saved")
        processor.save_pretrained(tmp_path / "saved")
        for kind in {audio, video} - {"frames"}:
            shutil.rmtree(tmp_path / kind)
        again, processor_again = umie.load(tmp_path / "saved", device="cpu")
        loaded = processor_again(records, "mner")
        assert all(torch.equal(loaded[name], tensor) for name, tensor in batch.items())
        assert torch.equal(again(**loaded).logits, together.logits)


# --- the feature cache


@pytest.fixture(scope="module")
def variant(tmp_path_factory, tokenizer):
    return built(tmp_path_factory.mktemp("checkpoints"), "wav2vec2", "frames", tokenizer)


def test_stored_features_are_the_encoders(variant, records, tmp_path):
    model, processor = variant
    expected = processor(records, "mner")
    with torch.no_grad():
        logits = model(**expected).logits
    cached = {
        medium: CachedEncoder(encoder, FeatureCache(tmp_path, on_event=pytest.fail))
        for medium, encoder in model.media_encoders.items()
        if medium != "image"
    }
    processor.features.update(cached)
    try:
        for _ in range(2):
            batch = processor(records, "mner")
            assert {f"audio.{FEATURES}", f"video.{FEATURES}"} <= batch.keys()
            assert not {"audio.sound", "video.frame_pixels"} & batch.keys()
            for name in ("audio.spans", "video.spans", "video.paths", "video.boxes", "video.visual_mask"):
                assert torch.equal(batch[name], expected[name])
            with torch.no_grad():
                torch.testing.assert_close(model(**batch).logits, logits, atol=1e-5, rtol=0)
    finally:
        processor.features.clear()
    assert {medium: (one.calls, one.cache.stats.hits) for medium, one in cached.items()} == {
        "audio": (2, 2),
        "video": (1, 3),
    }


def test_keys_depend_on_content_places_and_encoder(variant, records, tmp_path):
    model, _ = variant
    cached = CachedEncoder(model.audio_encoder, FeatureCache(tmp_path))
    sound = records[0].audio
    changed = Sound(np.where(np.arange(16_000) == 9, 0, sound.samples).astype(np.float32), 16_000)
    items = [
        (sound, (0.2, 0.7)),
        (sound, (0.2, 0.75)),
        (changed, (0.2, 0.7)),
        (Sound(sound.samples, 8_000), (0.2, 0.7)),
    ]
    for calls, (source, segment) in enumerate(items, 1):
        cached.one(source, [segment])
        cached.one(source, [Segment(segment, "a label")])
        assert cached.calls == calls
    short = registry.build("transformers_audio", **{**dataclasses.asdict(model.audio_encoder.config), "max_seconds": 1})
    short.load_state_dict(model.audio_encoder.state_dict())
    other = CachedEncoder(short, cached.cache)
    other.one(*items[0][:1], [items[0][1]])
    assert other.calls == 1
    with pytest.raises(UmieError, match="after the end of the sound"):
        cached.one(sound, [(7.0, 8.0)])
    clip, track = records[1].video, Track((0, 0.5), (BOX, BOX))
    video = CachedEncoder(model.video_encoder, cached.cache)
    tracks = [track, dataclasses.replace(track, label="x"), Track((0, 0.6), (BOX, BOX)), Track((0, 0.5), (BOX, None))]
    for one in tracks:
        video.one(clip, [one])
    video.one(Clip(clip.frames, clip.times, 2), [track])
    assert video.calls == len(tracks)


def write_wave(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((samples * 32_767).round().astype("<i2").tobytes())


def test_files_are_known_by_their_content(variant, records, tmp_path, noise):
    model, _ = variant
    cached = CachedEncoder(model.audio_encoder, FeatureCache(tmp_path / "cache"))
    for name in ("a.wav", "b.wav"):
        write_wave(tmp_path / name, samples_of(8_000))
        found = cached.one(tmp_path / name, [(0.1, 0.2)])
    assert cached.calls == 1
    write_wave(tmp_path / "b.wav", samples_of(8_400, 1))
    assert not torch.equal(cached.one(tmp_path / "b.wav", [(0.1, 0.2)])[FEATURES], found[FEATURES])
    assert cached.calls == 2
    with pytest.raises(UmieError, match=r"c\.wav: no such sound or clip"):
        cached.one(tmp_path / "c.wav")
    video = CachedEncoder(model.video_encoder, cached.cache)
    (tmp_path / "clip").mkdir()
    for calls in (1, 2):  # a frame in a folder changes, and the folder itself does not
        noise(40, 30, calls).save(tmp_path / "clip" / "1.png")
        video.one(tmp_path / "clip")
        video.one(tmp_path / "clip")
        assert video.calls == calls


def test_unreadable_sounds_of_records_are_listed(variant, records, tmp_path):
    write_wave(tmp_path / "a.wav", samples_of(8_000))
    (tmp_path / "b.wav").write_bytes(b"no sound")
    own = [Record("x", audio=name, id=name, image_folder=str(tmp_path)) for name in ("a.wav", "b.wav", "../c.wav")]
    cached = CachedEncoder(variant[0].audio_encoder, FeatureCache(tmp_path / "cache"))
    unreadable = fill_from_records(cached, [*own, records[3]])
    assert sorted((item.id, item.name) for item in unreadable) == [("../c.wav", "../c.wav"), ("b.wav", "b.wav")]
    assert cached.calls == 1


def test_the_command_encodes_the_sounds_of_records(umie, tmp_path):
    write_wave(tmp_path / "a.wav", samples_of(8_000))
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    some = [Record("x", audio="a.wav", segments=(Segment((0.1, 0.2)),), id="1"), Record("y", audio="bad.wav", id="2")]
    write_jsonl(tmp_path / "records.jsonl", [*some, Record("z", id="3")])
    (tmp_path / "model").mkdir()
    options = ("--encoder", "transformers_audio", "--option", f"source={save('wav2vec2', tmp_path / 'model')}")
    arguments = ("data", "features", "-i", tmp_path / "records.jsonl", "-o", tmp_path / "cache", *options)
    code, out, err = umie(*arguments)
    assert code == 0
    assert "sounds of records: 2; hits: 0, misses: 2; sounds encoded: 1" in out
    assert "sounds that cannot be read: 1; see" in err
    assert "hits: 1, misses: 1; sounds encoded: 0" in umie(*arguments)[1]
    video = ("--encoder", "frames", "--option", "encoder=timm", "--option", "num_frames=2")
    code, _, err = umie(*arguments[:6], *video)
    assert code == 2
    assert "no record has a video" in err
