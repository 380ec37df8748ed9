"""Bad sounds and videos all the way: refused with a reason in one line, or treated as the policy says, and counted."""

import os
import re
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from media_checkpoints import save
from PIL import Image
from safetensors.torch import save_file

from umie import encoders, registries
from umie.composition import compose
from umie.data.clips import save_clip
from umie.data.sounds import save_sound
from umie.encoders import CachedEncoder, FeatureCache
from umie.encoders.annotate import AnnotateStats, annotate
from umie.encoders.cache.cached_encoder import fill_from_records
from umie.encoders.proposing import AnnotationError
from umie.encoders.segments.silero import SileroNetwork
from umie.errors import UmieError
from umie.evaluation import evaluate
from umie.experiments.data_config import read_data_config
from umie.experiments.prepare_data import prepare_corpus
from umie.media import Clip, Sound
from umie.records import Entity, Record, Region, Segment, Track, write_jsonl

SOUNDS = {
    "truncated.wav": "it is truncated",
    "no samples.wav": "it has no samples",
    "four hours.wav": "14,400 seconds, and the limit is 3,600",
    "1e9 Hz.wav": "rate is 1000000000: use at most 400,000 Hz",
    "NaN.wav": "",  # read by PyAV, if it is there
    "image.wav": "",
    "pipe.wav": "is a pipe or a device",
    "folder.wav": "(Is a directory|it has no frames)",
    "absent.wav": "no such sound",
    "../outside.wav": "is outside the directory",
    "link.wav": "is outside the directory",
}
VIDEOS = {
    "truncated.png": "not a readable .*clip",
    "no frames": "it has no frames",
    "text.png": "not a readable .*clip",
    "sound.mp4": "not a readable .*clip",
    "pipe.mp4": "is a pipe or a device",
    "absent.mp4": "no such .*clip",
    "../outside.png": "is outside the directory",
    "link.png": "is outside the directory",
}
BAD = [("audio", name, reason) for name, reason in SOUNDS.items()]
BAD += [("video", name, reason) for name, reason in VIDEOS.items()]
PLACES = {
    "audio": {"segments": (Segment((0.1, 0.5)),)},
    "video": {"tracks": (Track((0, 0.5), ((0, 0, 0.5, 0.5), (0, 0, 1, 1))),)},
}


def header(rate=8_000, bits=16, data=100, form=1):
    """The first 44 bytes of a WAV file of one channel."""
    size = bits // 8
    head = struct.pack("<4sI8sIHHI", b"RIFF", 36 + data, b"WAVEfmt ", 16, form, 1, rate)
    return head + struct.pack("<IHH4sI", min(rate * size, 2**32 - 1), size, bits, b"data", data)


@pytest.fixture(scope="module")
def sound():
    times = np.arange(4_000) / 4_000
    return Sound((0.5 * np.sin(2 * np.pi * 500 * times) * (times > 0.5)).astype(np.float32), 4_000)


@pytest.fixture(scope="module")
def clip():
    frames = [Image.new("RGB", (60, 40), "white") for _ in range(8)]
    for number, frame in enumerate(frames):
        frame.paste((0, 0, 0), (5 * number, 10, 5 * number + 15, 25))
    return Clip(tuple(frames), tuple(number / 8 for number in range(8)), 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sound, clip):
    """The folder of all bad media, and a good one of each kind."""
    place = tmp_path_factory.mktemp("bad") / "media"
    (place / "no frames").mkdir(parents=True)
    (place / "folder.wav").mkdir()
    for path in (place / "good.wav", place / "truncated.wav", place / "sound.mp4", place.parent / "outside.wav"):
        save_sound(sound, path)
    for path in (place / "good.png", place / "truncated.png", place.parent / "outside.png"):
        save_clip(clip, path)
    for name in ("truncated.wav", "truncated.png"):
        content = (place / name).read_bytes()
        (place / name).write_bytes(content[: len(content) * 2 // 3])
    (place / "no samples.wav").write_bytes(header(data=0))
    (place / "four hours.wav").write_bytes(header(data=4 * 3_600 * 16_000))
    (place / "1e9 Hz.wav").write_bytes(header(rate=10**9))
    (place / "NaN.wav").write_bytes(header(bits=32, form=3, data=400) + np.full(100, np.nan, np.float32).tobytes())
    Image.new("RGB", (4, 4)).save(place / "image.wav", format="PNG")
    (place / "text.png").write_text("<html>404</html>")
    for name in ("pipe.wav", "pipe.mp4"):
        os.mkfifo(place / name)
    (place / "link.wav").symlink_to(place.parent / "outside.wav")
    (place / "link.png").symlink_to(place.parent / "outside.png")
    Image.new("RGB", (20, 20), "red").save(place / "image.png")
    return place


def of(folder, medium, name, **changes):
    """A record with an image and one other medium."""
    fields = {medium: name, **PLACES[medium]}
    image = {"image": "image.png", "regions": (Region((0, 0, 0.5, 0.5)),)}
    entities = (Entity("person", (0, 3)),)
    record = Record("Ann is in Rome", id=name, entities=entities, image_folder=str(folder), **image, **fields)
    return replace(record, **changes)


@pytest.fixture(scope="module")
def variant():
    torch.manual_seed(0)
    tasks = {"mner": {"labels": ("person", "place"), "grounded": True}}
    media = {"audio_encoder": {"name": "tiny_audio", "rate": 4_000}, "video_encoder": "tiny_video"}
    return compose("tiny", "concat", "span", tasks=tasks, **media)


@pytest.fixture
def policy(variant):
    """Return the processor with a policy, without what it counted and kept: ``policy("skip")``."""
    _, processor = variant

    def set_policy(name):
        processor.missing_images = name
        processor.reset_counts()
        return processor

    yield set_policy
    set_policy("error")


@pytest.mark.parametrize(("medium", "name", "reason"), BAD)
def test_the_policy_error_names_record_and_reason(policy, folder, medium, name, reason):
    with pytest.raises(UmieError, match=f"record '{name}': .*{reason}.*; fix the file, or set") as caught:
        policy("error")([of(folder, medium, name)], "mner")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("medium", "name", "reason"), BAD)
def test_text_only_leaves_out_the_medium_and_counts_it_once(policy, folder, medium, name, reason):
    processor = policy("text_only")
    batch = processor([of(folder, medium, name), of(folder, medium, name, id="again")], "mner")
    assert not batch[f"{medium}.visual_mask"].any()
    assert batch["visual_mask"].sum(dim=1).tolist() == [2, 2]  # the image and its region
    assert processor.counts["missing_images"] == 1
    assert len(processor.unreadable) == 1


def test_skip_leaves_out_the_record_and_counts_it(policy, folder):
    processor = policy("skip")
    bad = [of(folder, medium, name) for medium, name, _ in BAD]
    good = [of(folder, "audio", "good.wav"), of(folder, "video", "good.png")]
    assert processor.usable([*bad, *good]) == good
    assert processor.counts["missing_images"] == len(BAD)


def test_a_variant_answers_without_what_it_cannot_read(variant, policy, folder):
    model, processor = variant
    policy("text_only")
    bad = [of(folder, medium, name) for medium, name, _ in BAD]
    found = evaluate(model, processor, bad, "mner").predictions
    alone = evaluate(model, processor, [replace(one, audio=None, video=None) for one in bad], "mner").predictions
    assert [one.entities for one in found] == [one.entities for one in alone]


def test_nothing_is_kept_of_what_could_not_be_read(policy, tmp_path, sound, clip):
    processor = policy("text_only")
    for medium, name, write, good in [("audio", "a.wav", save_sound, sound), ("video", "a.png", save_clip, clip)]:
        (tmp_path / name).write_bytes(b"RIFF")
        record = of(tmp_path, medium, name, image=None, regions=())
        assert not processor.encode_media(record, cached=True)[f"{medium}.visual_mask"].any()
        write(good, tmp_path / name)
        assert processor.encode_media(record, cached=True)[f"{medium}.visual_mask"].tolist() == [True, True]


FROZEN = {
    "audio": lambda folder: {"name": "transformers_audio", "source": save("wav2vec2", folder)},
    "video": lambda folder: {"name": "frames", "encoder": {"name": "timm", "model": "test_resnet"}},
}


@pytest.mark.parametrize(("medium", "good"), [("audio", "good.wav"), ("video", "good.png")])
def test_no_features_are_kept_of_what_cannot_be_read(folder, tmp_path, medium, good):
    torch.manual_seed(0)
    encoder = encoders.registry.build(**FROZEN[medium](tmp_path)).eval()
    cached = CachedEncoder(encoder, FeatureCache(tmp_path / "cache", on_event=pytest.fail))
    bad = {name: reason for kind, name, reason in BAD if kind == medium}
    found = fill_from_records(cached, [of(folder, medium, name) for name in (good, *bad, good)])
    assert sorted(item.id for item in found) == sorted(bad)
    for item in found:
        assert re.search(bad[item.id], item.reason)
        assert "\n" not in item.reason
    assert (cached.calls, cached.cache.size()[0]) == (1, 1)
    for name in bad:
        with pytest.raises(UmieError, match=f"record '{name}': .*{bad[name]}.*; fix it, or set missing_images"):
            fill_from_records(cached, [of(folder, medium, name)], missing_images="error")
    assert cached.cache.size()[0] == 1


def corpus_of(folder, records, output, policy):
    """Prepare the records for training, and one of another text to test."""
    write_jsonl(output / "train.jsonl", records)
    write_jsonl(output / "test.jsonl", [of(folder, "audio", "good.wav", text="Ann was there")])
    data = {"format": "jsonl", "train": "train.jsonl", "test": "test.jsonl", "images": str(folder)}
    tasks = read_data_config(data, {"mner": {}})
    return prepare_corpus(tasks, root=output, output=output / "prepared", missing_images=policy)


def test_data_are_prepared_by_the_policy(tmp_path, folder):
    names = [(medium, name) for medium, name, _ in BAD]
    good = [("audio", "good.wav"), ("video", "good.png")]
    records = [of(folder, *item) for item in (*names, *good)]
    for policy, kept in {"text_only": len(names) + 2, "skip": 2}.items():
        (one,) = corpus_of(folder, records, tmp_path, policy).sets.values()
        assert one.num_records == {"train": kept, "test": 1}
        assert set(one.unreadable["train"]) == {name for _, name in names}
        assert not any("\n" in reason for reason in one.unreadable["train"].values())
        assert [record.id for record in one.read("train")][-2:] == ["good.wav", "good.png"]


@pytest.mark.parametrize(("medium", "name", "reason"), BAD)
def test_data_are_not_prepared_with_the_policy_error(tmp_path, folder, medium, name, reason):
    records = [of(folder, medium, name)]
    with pytest.raises(UmieError, match=f"record '{name}': .*{reason}.*; fix it, or set `missing_images`"):
        corpus_of(folder, records, tmp_path, "error")
    with pytest.raises(UmieError, match="no record of 'train' has media that can be read: .*" + reason):
        corpus_of(folder, records, tmp_path, "skip")


AFTER = {
    "audio": ("good.wav", {"segments": (Segment((0.5, 0.6)), Segment((9, 10)))}, r"segment \[9.0, 10.0\] is .* 1.00"),
    "video": ("good.png", {"tracks": (Track((9,), ((0, 0, 1, 1),)),)}, "a track from second 9.00 is after .* 1.00"),
}


@pytest.mark.parametrize("medium", AFTER)
def test_places_after_the_end_of_their_file_are_found_when_data_are_prepared(tmp_path, folder, medium):
    name, places, reason = AFTER[medium]
    records = [of(folder, medium, name, id="out", **places), of(folder, medium, name)]
    with pytest.raises(UmieError, match=f"{tmp_path}/train.jsonl: record 'out': {name}: {reason} seconds; fix it, or"):
        corpus_of(folder, records, tmp_path, "error")
    for policy, kept in {"text_only": ["out", name], "skip": [name]}.items():
        (one,) = corpus_of(folder, records, tmp_path, policy).sets.values()
        assert [record.id for record in one.read("train")] == kept
        assert (one.num_with("train"), one.num_with("train", [medium])) == (len(kept), 1)
        assert re.search(reason, one.unreadable["train"][name])


@pytest.fixture(scope="module")
def proposers(tmp_path_factory):
    """Every proposer of segments and tracks by medium and name; files annotate every medium."""
    folder = tmp_path_factory.mktemp("annotation")
    save_file(SileroNetwork().state_dict(), folder / "weights.safetensors")
    names = [name.rpartition("/")[2] for _, name, _ in BAD] + ["good.wav", "good.png", "a.wav", "a.png"]
    rows = {
        "segments": '[{"interval": [0.1, 0.5], "word": "a", "start": 0.1, "end": 0.5}]',
        "tracks": '[{"times": [0], "boxes": [[0, 0, 0.5, 0.5]]}]',
    }
    for kind, row in rows.items():
        (folder / f"{kind}.json").write_text("{" + ", ".join(f'"{name}": {row}' for name in set(names)) + "}")
    segments = {"path": str(folder / "segments.json")}
    options = {
        "audio": {
            "energy": {},
            "file": segments,
            "silero": {"weights": str(folder / "weights.safetensors"), "onset": 0, "release": 0},
            "words": segments,
        },
        "video": {"blobs": {}, "boxes_iou": {}, "file": {"path": str(folder / "tracks.json")}},
    }
    found = {}
    for medium, registry in (("audio", registries.segment_proposers), ("video", registries.track_proposers)):
        assert {name for name in registry.known() if registry.get(name).__module__.startswith("umie.")} == {
            *options[medium]
        }
        found[medium] = {name: registry.build(name, **given) for name, given in options[medium].items()}
    return found


@pytest.mark.parametrize(("medium", "name", "reason"), BAD)
def test_every_proposer_refuses_it(proposers, folder, medium, name, reason):
    record = of(folder, medium, name)
    for proposer in proposers[medium].values():
        with pytest.raises(UmieError, match=f"^record {name}: .*{reason}") as caught:
            list(proposer.fill([record]))
        assert "\n" not in str(caught.value)
        assert not isinstance(caught.value, AnnotationError)
        stats = AnnotateStats()
        kept = list(annotate([record, record], proposer, stats, missing_images="text_only"))
        assert kept == [record, record]
        assert (stats.unreadable, stats.media, stats.proposals) == ({medium: 1}, 2, 0)
        assert not list(annotate([record], proposer, stats, missing_images="skip"))


@pytest.mark.parametrize(("medium", "good"), [("audio", "good.wav"), ("video", "good.png")])
def test_no_proposer_remembers_what_could_not_be_read(proposers, folder, tmp_path, medium, good):
    path = tmp_path / f"a{good[4:]}"
    record = of(tmp_path, medium, path.name)
    for name, proposer in proposers[medium].items():
        path.write_bytes(b"RIFF")
        bad = proposer.fill([record, record], lambda error: None, replaces=True)
        assert next(bad).places(medium) == ()
        path.write_bytes((folder / good).read_bytes())
        assert next(bad).places(medium) != (), name
