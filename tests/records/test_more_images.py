"""Records with several images: the images and their paths, the regions in each, and the lines of JSONL."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie.data.jsonl import read
from umie.errors import UmieError
from umie.records import Entity, Record, Region, record_from_json, record_to_json
from umie.records.jsonl import errors_of_line

BOX = (0.1, 0.2, 0.5, 0.6)


def test_images_have_numbers_regions_and_paths(tmp_path, noise):
    shown = noise(4, 4)
    regions = [Region(BOX), Region(BOX, image=2), Region((0, 0, 1, 1), image=2), Region(BOX, image=1)]
    record = Record("Ann", "a.jpg", regions, more_images=[Path("b.jpg"), shown], image_folder=str(tmp_path))
    assert record.images == ("a.jpg", "b.jpg", shown)
    assert record.numbered_media == (("image", 0), ("image", 1), ("image", 2))
    assert record.place_names() == ("O1", "O2", "O3", "O4")
    assert record.places_in("image", 2) == tuple(regions[1:3])
    assert record.places_in("image", 2, limit=2) == (regions[1],)
    assert [record.path("image", number) for number in range(3)] == [tmp_path / "a.jpg", tmp_path / "b.jpg", None]
    assert [record.resolved("image", number) for number in (1, 2, 3)] == [tmp_path / "b.jpg", shown, None]
    assert (record.media, record.combination) == (("image",), "T+I")
    outside = Record("Ann", "a.jpg", more_images=("../b.jpg",), image_folder=str(tmp_path))
    with pytest.raises(UmieError, match="is outside"):
        outside.path("image", 1)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Record("a", more_images=("b.jpg",)), "more_images needs a first image"),
        (lambda: Record("a", "a.jpg", more_images="b.jpg"), "more_images is 'b.jpg': use a list"),
        (lambda: Record("a", "a.jpg", more_images=["b.jpg"] * 100), "the record has 101 images; the limit is 100"),
        (lambda: Record("a", "a.jpg", more_images=(None,)), "more_images holds None"),
        (lambda: Record("a", "a.jpg", [Region(BOX, image=1)]), "region 0 is in image 1, but the last image"),
        (lambda: Region(BOX, image=-1), "region image is -1"),
        (lambda: Region(BOX, image=True), "region image is True"),
    ],
)
def test_what_cannot_be(make, problem):
    with pytest.raises(UmieError) as caught:
        make()
    assert problem in str(caught.value)


NAMES = st.lists(st.text("ab.é", min_size=1, max_size=4), max_size=4)


@given(NAMES, st.lists(st.integers(0, 3), max_size=5))
def test_lines_keep_all_images(names, numbers):
    regions = tuple(Region(BOX, image=number) for number in numbers if number < max(1, len(names)))
    record = Record("Ann", names[0] if names else None, regions, more_images=tuple(names[1:]))
    line = record_to_json(record)
    assert record_from_json(line) == record
    data = json.loads(line)
    assert [data.get("image"), data.get("images")] == ([None, names] if len(names) > 1 else [*(names or [None]), None])
    assert [one.get("image", 0) for one in data.get("regions", ())] == [region.image for region in regions]
    if names:
        given_as_list = {**data, "images": names, "image": None}
        assert record_from_json(json.dumps(given_as_list)) == record


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"image": "a.jpg", "images": ["b.jpg"]}, "both keys 'image' and 'images'"),
        ({"images": "a.jpg"}, "images is 'a.jpg': expected a list"),
        ({"images": ["a.jpg", 3]}, "images holds 3: expected a string"),
        ({"images": ["a.jpg"] * 101}, "the record has 101 images; the limit is 100"),
        ({"images": ["a.jpg"], "regions": [{"box": BOX, "image": 1}]}, "region 0 is in image 1"),
        ({"images": ["a.jpg"], "regions": [{"box": BOX, "image": "a.jpg"}]}, "region image is 'a.jpg'"),
    ],
)
def test_lines_that_are_wrong(keys, problem):
    line = json.dumps({"text": "Ann", **keys})
    with pytest.raises(UmieError) as caught:
        record_from_json(line)
    assert problem in str(caught.value)
    assert [problem in str(error) for error in errors_of_line(line)] == [True]


def test_a_record_of_images_alone_and_one_in_memory(noise):
    assert record_from_json('{"text": "", "images": ["a.jpg", "b.jpg"]}').images == ("a.jpg", "b.jpg")
    with pytest.raises(UmieError, match="holds its image in memory"):
        record_to_json(Record("Ann", "a.jpg", more_images=(noise(4, 4),)))


def test_what_is_said_about_regions_of_any_image_is_left_out():
    regions = (Region(BOX), Region(BOX, image=1))
    record = Record("Ann", "a.jpg", regions, entities=(Entity("person", (0, 3), regions=(1,)),), more_images=("b.jpg",))
    assert record.ungrounded("image").entities == (Entity("person", (0, 3), "Ann"),)


def test_boxes_in_pixels_are_those_of_their_image(tmp_path, noise):
    noise(100, 50).save(tmp_path / "a.png")
    noise(40, 80).save(tmp_path / "b.png")
    boxes = [{"box": [20, 10, 40, 40]}, {"box": [20, 10, 40, 40], "image": 1}]
    lines = [{"text": "Ann", "images": ["a.png", "b.png"], "regions": boxes}]
    (tmp_path / "a.jsonl").write_text(json.dumps(lines[0]) + "\n")
    (record,) = read(tmp_path / "a.jsonl", boxes="absolute")
    assert [region.box for region in record.regions] == [(0.2, 0.2, 0.4, 0.8), (0.5, 0.125, 1, 0.5)]
    for number in (2, -1, "x"):
        boxes[1]["image"] = number
        (tmp_path / "a.jsonl").write_text(json.dumps(lines[0]) + "\n")
        with pytest.raises(UmieError, match=r"a.jsonl:1: .*needs its image"):
            list(read(tmp_path / "a.jsonl", boxes="absolute"))
