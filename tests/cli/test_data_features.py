"""`umie data features`: what it encodes, keeps, reports and lists as unreadable, and that it can be resumed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from umie.encoders import CachedEncoder, FeatureCache, registry
from umie.records import Record, Region, write_jsonl

HEARS = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # also where the tests run in the background
TINY = ("--encoder", "tiny", "--option", "trainable=false", "--option", "crop_size=6")


@pytest.fixture
def data(tmp_path, noise):
    """Four records of three images, one of them twice with other regions, and a record without an image."""
    for number in range(3):
        noise(30, 20, number).save(tmp_path / f"{number}.png")
    left = Region((0.0, 0.0, 0.5, 1.0))
    records = [Record(f"text {number}", image=f"{number}.png", regions=(left,), id=f"r{number}") for number in range(3)]
    records += [Record("again", image="0.png", id="r3"), Record("no image", id="r4")]
    write_jsonl(tmp_path / "records.jsonl", records)
    return tmp_path


def numbers(out):
    """The figures of the report by name."""
    return {
        name.strip(): int(value.replace(",", "")) for name, value in re.findall(r"([a-z ]+): ([\d,]+)(?=[;,\n])", out)
    }


def test_images_are_encoded_once_and_the_features_are_the_encoder_s(umie, data):
    arguments = ("data", "features", "-i", data / "records.jsonl", "-o", data / "cache", *TINY)
    code, out, err = umie(*arguments)
    assert (code, err) == (0, "")
    found = numbers(out)
    assert (found["images of records"], found["hits"], found["misses"], found["images encoded"]) == (
        4,
        0,
        4,
        4,
    )
    assert "the cache holds 4 entries" in out
    found = numbers(umie(*arguments)[1])
    assert (found["hits"], found["misses"], found["images encoded"]) == (4, 0, 0)
    torch.manual_seed(0)
    encoder = registry.build("tiny", trainable=False, crop_size=6)
    cache = FeatureCache(data / "cache")
    cached = CachedEncoder(encoder, cache)
    given = cached.one(data / "1.png", [(0.0, 0.0, 0.5, 1.0)])
    assert cached.calls == 0
    expected = encoder.encode([data / "1.png"], [[(0.0, 0.0, 0.5, 1.0)]])
    torch.testing.assert_close(given["visual_features"], expected.features[0])
    found = numbers(umie(*arguments[:-1], "crop_size=5")[1])  # another encoder
    assert (found["hits"], found["misses"]) == (0, 4)


def test_unreadable_images_are_listed_and_the_others_encoded(umie, data):
    (data / "1.png").write_bytes(b"no image")
    (data / "2.png").unlink()
    with (data / "records.jsonl").open("a") as file:
        file.write(json.dumps({"text": "outside", "image": "../secret.png", "id": "r5"}) + "\n")
    code, out, err = umie("data", "features", "-i", data / "records.jsonl", "-o", data / "cache", *TINY)
    assert code == 0
    assert "the cache holds 2 entries" in out
    assert f"images that cannot be read: 3; see {data / 'cache' / 'unreadable-records.jsonl'}" in err
    listing = data / "cache" / "unreadable-records.jsonl"
    lines = [json.loads(line) for line in listing.read_text().splitlines()]
    listed = {line["id"]: line["reason"] for line in lines}
    assert set(listed) == {"r1", "r2", "r5"}
    assert "not a readable image" in listed["r1"]
    assert "no such image" in listed["r2"]
    assert "is outside the directory" in listed["r5"]
    (data / "own.jsonl").touch()
    umie(
        "data",
        "features",
        "-i",
        data / "records.jsonl",
        "-o",
        data / "cache",
        *TINY,
        "--quarantine",
        data / "own.jsonl",
    )
    assert len((data / "own.jsonl").read_text().splitlines()) == 3
    write_jsonl(data / "records.jsonl", [Record("repaired", image="0.png")])
    assert umie("data", "features", "-i", data / "records.jsonl", "-o", data / "cache", *TINY)[0] == 0
    assert listing.read_text() == ""


def test_a_bad_image_before_many_hits_is_listed_when_the_run_is_started_again(umie, data):
    """It waits for a batch to fill, which hits do not."""
    (data / "bad.png").write_bytes(b"no image")
    records = [Record("bad", image="bad.png", id="bad"), *(Record("good", image="0.png") for _ in range(300))]
    write_jsonl(data / "long.jsonl", records)
    for _ in range(2):
        code, _, err = umie("data", "features", "-i", data / "long.jsonl", "-o", data / "cache", *TINY)
        assert code == 0
        assert "images that cannot be read: 1; see" in err


def test_on_request_an_unreadable_image_ends_it_and_what_was_done_is_kept(umie, data):
    (data / "2.png").write_bytes(b"no image")
    arguments = ("data", "features", "-i", data / "records.jsonl", "-o", data / "cache", *TINY, "--batch-size", "1")
    code, _, err = umie(*arguments, "--missing-images", "error")
    assert code == 2
    assert re.fullmatch(
        r"umie: record 'r2': \S+2\.png: not a readable image \(.*\); fix it, or set missing_images to 'skip'\n", err
    )
    assert numbers(umie(*arguments)[1])["hits"] == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--encoder", "tinny"), "Unknown encoder 'tinny'. Did you mean 'tiny'?"),
        (("--encoder", "tiny", "--option", "size=3"), "Unknown option of encoder 'tiny': 'size'"),
        (("--encoder", "tiny", "--option", "crop_size"), "--option 'crop_size': expected NAME=VALUE"),
        (("--encoder", "tiny"), "trainable"),
        (
            (*TINY, "--missing-images", "black"),
            "Unknown policy for missing images 'black'. Choices: error, skip, text_only.",
        ),
        ((*TINY, "--option", "crop_size=3"), "--option crop_size is repeated"),
        ((*TINY, "--device", "abacus"), "--device abacus: "),
    ],
)
def test_bad_options_are_one_line(umie, data, arguments, expected):
    code, out, err = umie("data", "features", "-i", data / "records.jsonl", "-o", data / "cache", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert expected in err
    assert not list(data.glob("cache/??"))


def test_records_without_images_are_told(umie, tmp_path):
    write_jsonl(tmp_path / "plain.jsonl", [Record("text")])
    code, _, err = umie("data", "features", "-i", tmp_path / "plain.jsonl", "-o", tmp_path / "cache", *TINY)
    assert code == 2
    assert "no record has an image" in err


def test_random_weights_are_reported(umie, data):
    options = ("--encoder", "resnet101_roi", "--option", "mode=align", "--option", "short_side=32")
    code, _, err = umie("data", "features", "-i", data / "records.jsonl", "-o", data / "cache", *options)
    assert code == 0
    assert "resnet101_roi has random weights" in err


@pytest.mark.slow
def test_an_interrupted_run_resumes(umie, data, noise):
    num_images = 30  # enough work for the signal to arrive in the middle of it
    records = []
    for number in range(num_images):
        noise(32, 32, number).save(data / f"many{number}.png")
        records.append(Record("t", image=f"many{number}.png", regions=(Region((0.0, 0.0, 0.5, 1.0)),) * 3))
    write_jsonl(data / "many.jsonl", records)
    arguments = ["data", "features", "-i", str(data / "many.jsonl"), "-o", str(data / "cache"), "--batch-size", "1"]
    arguments += ["--encoder", "resnet101_roi", "--option", "mode=align", "--option", "short_side=32"]
    command = [str(Path(sys.executable).with_name("umie")), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=HEARS)
    while process.poll() is None and not list((data / "cache").glob("??/*.safetensors")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "interrupted; the " in err
    done = len(list((data / "cache").glob("??/*.safetensors")))
    assert 1 <= done < num_images
    code, out, _ = umie(*arguments)
    found = numbers(out)
    left = num_images - done
    assert (code, found["hits"], found["misses"], found["images encoded"]) == (0, done, left, left)


def test_each_image_of_a_record_is_encoded(umie, data):
    regions = (Region((0.0, 0.0, 0.5, 1.0), image=1), Region((0.5, 0.0, 1.0, 1.0)))
    write_jsonl(data / "records.jsonl", [Record("text", "0.png", regions, id="r", more_images=("1.png", "no.png"))])
    code, out, _ = umie("data", "features", "-i", data / "records.jsonl", "-o", data / "cache", *TINY)
    found = numbers(out)
    assert code == 0
    assert [found[name] for name in ("images of records", "misses", "images encoded")] == [3, 3, 2]
    listed = json.loads((data / "cache" / "unreadable-records.jsonl").read_text())
    assert (listed["id"], listed["name"]) == ("r", "no.png")
    torch.manual_seed(0)
    cached = CachedEncoder(registry.build("tiny", trainable=False, crop_size=6), FeatureCache(data / "cache"))
    for number, region in ((0, regions[1]), (1, regions[0])):
        assert len(cached.one(data / f"{number}.png", [region.box])["boxes"]) == 2
    assert cached.calls == 0
