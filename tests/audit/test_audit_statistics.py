"""Statistics against numbers counted by hand and by numpy."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from umie.audit import statistics
from umie.audit.statistics import PERCENTILES, Statistics, gather
from umie.records import Argument, Entity, Event, Record, Region, Relation, Segment
from umie.reports.data_figure import write_figure

RECORDS = [
    Record(
        "Ann Lee met Bob",
        entities=(Entity("person", (0, 7)), Entity("person", (12, 15))),
        relations=(Relation("peer", (0, 7), (12, 15)),),
        tasks=("mner", "mre"),
    ),
    Record("Rome", image="absent.jpg", entities=(Entity("location", (0, 4)),), tasks=("mner",)),
    Record(
        "a b c",
        image="there.jpg",
        regions=(Region((0, 0, 1, 1)),),
        events=(Event("meet", (0, 3), (Argument("Place", (4, 5)), Argument("Entity", regions=(0,)))),),
        tasks=("med", "meae"),
    ),
]


@pytest.fixture
def summary(tmp_path):
    (tmp_path / "there.jpg").write_bytes(b"x")
    records = [Record(**{**vars(record), "image_folder": str(tmp_path)}) for record in RECORDS]
    return gather(records).summary()


def test_counts(summary):
    assert summary["records"] == 3
    assert summary["annotated_for"] == {"meae": 1, "med": 1, "mner": 2, "mre": 1}
    assert summary["items"] == {
        "entities": 3,
        "relations": 1,
        "events": 1,
        "regions": 1,
        "arguments in the text": 1,
        "arguments in the image": 1,
    }
    assert summary["labels"] == {
        "meae": {"Place": 1, "Entity": 1},
        "med": {"meet": 1},
        "mner": {"person": 2, "location": 1},
        "mre": {"peer": 1},
    }


def test_spans(summary):
    # entities 2 + 1, head and tail 2, trigger and argument 2; 'Ann Lee' twice and 'a b' have several words
    assert summary["spans"] == {"total": 7, "multi_word": 3, "multi_word_share": pytest.approx(3 / 7)}
    assert summary["lengths"]["words of a span"]["max"] == 2


def test_images(summary):
    assert summary["images"] == {
        "named": 2,
        "named_share": pytest.approx(2 / 3),
        "checked": True,
        "found": 1,
        "missing": 1,
        "missing_share": 0.5,
    }
    unchecked = gather(RECORDS, images=False).summary()["images"]
    assert (unchecked["named"], unchecked["found"], unchecked["missing"]) == (2, None, None)


def test_lengths(summary):
    assert summary["lengths"]["words"] == {
        "min": 1, "mean": pytest.approx(8 / 3), "max": 4, "p5": 1, "p25": 1, "p50": 3, "p75": 4, "p95": 4, "p99": 4,
    }  # fmt: skip
    assert summary["lengths"]["entities"]["mean"] == 1


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60))
def test_percentiles_are_those_of_numpy(values):
    described = statistics._describe(Counter(values))
    for percentile in PERCENTILES:
        assert described[f"p{percentile}"] == np.percentile(values, percentile, method="inverted_cdf")
    assert described["mean"] == pytest.approx(np.mean(values))


def test_nothing():
    summary = Statistics().summary()
    assert (summary["records"], summary["lengths"], summary["spans"]["multi_word_share"]) == (0, {}, None)


def test_labels_without_end_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(statistics, "MAX_LABELS", 3)
    found = gather(Record("Ann", entities=(Entity(f"type {number % 5}", (0, 3)),)) for number in range(50))
    assert found.labels["mner"] == {"type 0": 10, "type 1": 10, "type 2": 10, statistics.OTHER: 20}


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
@pytest.mark.slow
def test_the_figure(tmp_path, suffix):
    many = [Record("Ann", entities=(Entity(f"a very long name of a type, number {n}", (0, 3)),)) for n in range(40)]
    splits = {"train": gather(RECORDS), "dev": gather(many, images=False), "empty": Statistics()}
    path = tmp_path / f"figure{suffix}"
    write_figure(path, splits)
    assert path.stat().st_size > 10_000
    if suffix == ".png":
        with Image.open(path) as image:
            assert image.width == 13 * 150
            assert len(image.convert("RGB").getcolors(1 << 24)) > 10


def test_the_figure_of_nothing(tmp_path):
    write_figure(tmp_path / "figure.png", {"empty": Statistics()})
    assert (tmp_path / "figure.png").exists()


def test_arguments_are_counted_by_medium():
    fillers = (Argument("a", (0, 1), segments=(0,)), Argument("a", segments=(0,)), Argument("a", None, (0,), (), (0,)))
    media = {"image": "i", "regions": (Region((0, 0, 1, 1)),), "audio": "a", "segments": (Segment((0, 1)),)}
    record = Record("x", **media, events=(Event("meet", None, fillers),))
    items = gather([record], images=False).summary()["items"]
    assert {name: count for name, count in items.items() if name.startswith("arguments")} == {
        "arguments in the text": 1, "arguments in the sound": 1, "arguments in the image and sound": 1,
    }  # fmt: skip
