"""Overlaps of invented and of published splits."""

from pathlib import Path

import pytest

from umie.audit.overlap import overlaps, read_split
from umie.data.source import Source
from umie.records import Record, write_jsonl

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
LONG = "Ann Lee visited the museum of modern art in Rome this morning with her sister"


def make(folder, name, *records):
    folder.mkdir(exist_ok=True)
    write_jsonl(folder / f"{name}.jsonl", records)
    return read_split(name, Source(folder / f"{name}.jsonl"))


def matches(found, left, right):
    (overlap,) = [item for item in found if (item.left, item.right) == (left, right)]
    return {
        kind: {overlap.ids[position]: ids for position, ids in found.items()} for kind, found in overlap.matches.items()
    }


@pytest.fixture
def found(tmp_path, noise):
    image = noise(64, 48, seed=1)
    for folder in ("train", "test"):
        (tmp_path / folder).mkdir()
    image.save(tmp_path / "train" / "1.png")
    image.save(tmp_path / "test" / "renamed.png")
    image.resize((32, 24)).save(tmp_path / "test" / "small.png")
    noise(64, 48, seed=3).save(tmp_path / "test" / "4.png")
    train = make(
        tmp_path / "train",
        "train",
        Record(LONG, id="a1", image="1.png"),
        Record(LONG, id="a2", image="2.png"),
        Record("RT " + LONG.upper(), id="a3"),
        Record("Something else entirely", id="a4", image="4.png"),
        Record("", id="a5", image="5.png"),
    )
    test = make(
        tmp_path / "test",
        "test",
        Record(LONG.replace(" ", "  "), id="b1", image="renamed.png"),
        Record(LONG + " http://t.co/abc", id="b2", image="2.png"),
        Record(LONG.replace("sister", "mother"), id="b3", image="small.png"),
        Record("Nothing of the kind", id="b4", image="4.png"),
        Record("", id="b5", image="6.png"),
    )
    return train, test, overlaps([train, test])


def test_texts_between_splits(found):
    shared = matches(found[2], "test", "train")
    assert shared["text"] == {"b1": ["a1", "a2"], "b2": ["a1", "a2"]}
    assert shared["near_text"] == {"b3": ["a1", "a2"]}  # b1 and b2 resemble a3 too, and match in a closer way


def test_images_between_splits(found):
    shared = matches(found[2], "test", "train")
    assert shared["image_name"] == {"b2": ["a2"], "b4": ["a4"]}
    assert shared["image_bytes"] == {"b1": ["a1"]}
    assert shared["image_looks"] == {"b3": ["a1"]}


def test_every_image_of_a_record_counts(tmp_path, noise):
    for folder, name in (("train", "1.png"), ("test", "renamed.png")):
        (tmp_path / folder).mkdir()
        noise(64, 48, seed=1).save(tmp_path / folder / name)
    train = make(tmp_path / "train", "train", Record("Ann", id="a", image="0.png", more_images=("2.png", "1.png")))
    more = ("renamed.png", "2.png", "2.png")
    test = make(tmp_path / "test", "test", Record("Bob", id="b", image="3.png", more_images=more))
    shared = matches(overlaps([train, test]), "test", "train")
    assert shared["image_name"] == shared["image_bytes"] == {"b": ["a"]}
    assert test.summary()["distinct_image_names"] == 3


def test_within_a_split(found):
    within = matches(found[2], "train", "train")
    assert within["text"] == {"a1": ["a2"], "a2": ["a1"]}
    assert within["near_text"] == {"a3": ["a1", "a2"]}
    assert within["image_name"] == {}


def test_the_counts_of_a_split(found):
    train, test, compared = found
    assert train.summary() | {"path": ""} == {
        "name": "train",
        "path": "",
        "records": 5,
        "distinct_texts": 3,
        "records_repeating_a_text": 1,
        "records_repeating_a_text_to_the_letter": 1,
        "distinct_image_names": 4,
        "images_at_hand": 1,
    }
    assert test.summary()["records_repeating_a_text_to_the_letter"] == 0
    assert test.summary()["records_repeating_a_text"] == 1
    assert [(item.left, item.right) for item in compared] == [("train", "train"), ("test", "train"), ("test", "test")]


def test_a_threshold_of_one_leaves_nothing_near(found):
    train, test, _ = found
    shared = matches(overlaps([train, test], threshold=1.0), "test", "train")
    assert shared["near_text"] == {}


def test_a_frequent_text_keeps_few_ids(tmp_path):
    many = make(tmp_path, "many", *[Record("always this", id=str(number)) for number in range(50)])
    (within,) = overlaps([many])
    assert len(within.matches["text"]) == 50
    assert all(len(ids) == 5 and str(position) not in ids for position, ids in within.matches["text"].items())


def test_the_real_twitter_17():
    if not DATA.exists():
        pytest.skip(f"the real data are not at {DATA}")
    folder = DATA / "twitter2017"
    splits = [read_split(name, Source(folder / f"{name}.txt", "twitter")) for name in ("train", "test")]
    (shared,) = overlaps(splits, pairs=[(1, 0)])
    assert {kind: len(found) for kind, found in shared.matches.items() if found} == {"text": 3, "near_text": 2}
