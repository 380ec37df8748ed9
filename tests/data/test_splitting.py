"""umie data split: splits share no image, and the order of regions says nothing about the mentions."""

import random
from dataclasses import replace

import pytest

from umie.data.splitting import split_by_image, with_shuffled_regions
from umie.errors import UmieError
from umie.records import Argument, Entity, Event, Record, Region, read_jsonl, write_jsonl

BOXES = [(0.0, 0.0, (index + 1) / 10, 1.0) for index in range(6)]


def record(number, image=None):
    """Mention ``i`` is shown by region ``i``; the last region is a copy of the first."""
    words = [f"w{index}" for index in range(6)]
    text = " ".join(words)
    return Record(
        text,
        image=image or f"{number}.png",
        regions=(*map(Region, BOXES), Region(BOXES[0])),
        entities=tuple(
            Entity("thing", (3 * index, 3 * index + 2), regions=(index,) if index else (0, 6)) for index in range(6)
        ),
        events=(Event("meet", arguments=(Argument("Agent", regions=(6,)), Argument("Place", regions=(4,)))),),
    )


def shown(record):
    return [{record.regions[region].box for region in entity.regions} for entity in record.entities]


def test_shuffled_regions_show_the_same_entities_and_arguments():
    before = record(0)
    orders = set()
    for seed in range(20):
        after = with_shuffled_regions(before, random.Random(seed))
        assert shown(after) == shown(before) == [{box} for box in BOXES]
        boxes = [after.regions[argument.regions[0]].box for argument in after.events[0].arguments]
        assert boxes == [BOXES[0], BOXES[4]]
        assert len(after.regions) == 6
        orders.add(after.regions)
    assert len(orders) > 15


def test_no_image_is_in_two_splits():
    records = [record(number, f"{number // 5}.png") for number in range(100)]
    splits = split_by_image(records, rng=random.Random(0))
    images = [{one.image for one in own} for own in splits.values()]
    assert [len(own) for own in images] == [14, 2, 4]
    assert len(set.union(*images)) == 20
    assert sum(map(len, splits.values())) == 100


def test_the_command_writes_three_files(umie, tmp_path):
    write_jsonl(tmp_path / "all.jsonl", [record(number) for number in range(20)])
    code, output, _ = umie("data", "split", tmp_path / "all.jsonl", "--shuffle-regions", "-o", tmp_path)
    assert code == 0
    assert "train: 14 records" in output
    found = {name: list(read_jsonl(tmp_path / f"{name}.jsonl")) for name in ("train", "dev", "test")}
    assert {name: len(own) for name, own in found.items()} == {"train": 14, "dev": 2, "test": 4}
    assert len({one.regions for one in found["train"]}) > 10
    code, _, error = umie("data", "split", tmp_path / "train.jsonl", "-o", tmp_path)
    assert code == 2
    assert "is the input; choose another --output" in error


def test_shares_leave_images_for_training():
    from umie.data.splitting import check_shares

    with pytest.raises(UmieError, match="leave no images for training"):
        check_shares(0.5, 0.5)


def test_images_of_one_record_are_in_one_split():
    records = [
        replace(record(number), more_images=(f"{number + 1}.png",) if number % 3 else ()) for number in range(60)
    ]
    splits = split_by_image(records, rng=random.Random(0))
    names = [{name for one in own for name in one.images} for own in splits.values()]
    assert sum(map(len, splits.values())) == 60
    assert sum(map(len, names)) == len(set.union(*names)) == 61


def test_equal_boxes_of_different_images_stay_apart():
    first, second = Region(BOXES[0]), Region(BOXES[0], image=1)
    found = with_shuffled_regions(
        Record("a", "a.png", (first, second, first), more_images=("b.png",)), random.Random(0)
    )
    assert sorted(region.image for region in found.regions) == [0, 1]
