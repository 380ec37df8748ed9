"""The proposer `file`: Pascal-VOC, JSON, and the regions of the records themselves."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from umie import data
from umie.encoders.annotate import AnnotateStats, annotate
from umie.encoders.regions import AnnotationError, Proposal, registry
from umie.errors import UmieError
from umie.images import UPRIGHT
from umie.records import Record, Region

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
VOC = """<annotation><size><width>200</width><height>100</height></size>{}</annotation>"""
OBJECT = (
    """<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"""
)


def write(tmp_path, content, name="boxes.json"):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


# --- Pascal-VOC --------------------------------------------------------------------------------------------------


def test_voc_by_the_name_of_the_image(tmp_path, image, record, error):
    write(tmp_path, VOC.format(OBJECT.format("Ann", 100, 0, 200, 100) + OBJECT.format("", 0, 0, 100, 100)), "xml/1.xml")
    proposer = registry.build("file", path=str(tmp_path / "xml"))
    expected = [Proposal(LEFT, 1.0), Proposal(RIGHT, 1.0, "Ann")]
    with Image.open(image) as opened:
        assert proposer.propose([image, "elsewhere/1.png", opened]) == [expected] * 3
    assert proposer.counts == {}
    assert proposer.propose(["2.jpg"]) == [[]]
    assert proposer.counts == {"images without annotation": 1}
    assert "an image in memory has no name" in error(proposer.propose, [Image.new("RGB", (2, 2))])
    (filled,) = proposer.fill([record(Region(LEFT, "own"))])
    assert filled.regions == (Region(LEFT, "own"), Region(RIGHT, "Ann"))


def test_a_bad_voc_file_is_named(tmp_path, image, error):
    proposer = registry.build("file", path=str(tmp_path))
    for content, message in (
        ("<annotation>", "not valid XML"),
        (VOC.format(OBJECT.format("Ann", 0, 0, 9, "")), "object 1: <bndbox/ymax> is '': expected a number"),
    ):
        path = write(tmp_path, content, "1.xml")
        assert error(proposer.propose, [image]).startswith(f"{path}: {message}")
    with pytest.raises(AnnotationError, match=r"^record 1: .*1\.xml: object 1: "):
        list(proposer.fill([Record("a", image=image.name)]))


def test_a_voc_file_without_the_size_of_the_image_gets_it_from_the_image(tmp_path, image, error):
    path = write(tmp_path, VOC.format(OBJECT.format("Ann", 0, 0, 100, 100)).replace("200", "0"), "1.xml")
    proposer = registry.build("file", path=str(tmp_path))
    assert proposer.propose([image]) == [[Proposal(LEFT, 1.0, "Ann")]]
    message = "the image size is 0.0 x 100.0: expected two positive numbers, or a readable image"
    assert error(proposer.propose, ["1.jpg"]).startswith(f"{path}: {message}")


COCO = {
    "images": [{"id": 7, "file_name": "train/1.jpg", "width": 200, "height": 100}, {"id": 8, "file_name": "2.jpg"}],
    "annotations": [{"image_id": 7, "bbox": [100, 0, 100, 100], "category_id": 3, "area": 1, "iscrowd": 0}],
    "categories": [{"id": 3, "name": "cat"}],
}


def test_files_of_coco_are_read_as_they_are(tmp_path, image, error):
    path = write(tmp_path, COCO)
    proposer = registry.build("file", path=path)
    assert proposer.propose(["1.jpg", "2.jpg", "3.jpg"]) == [[Proposal(RIGHT, 1.0, "cat")], [], []]
    assert proposer.counts == {"images without annotation": 1}
    assert "omit the option" in error(registry.build, "file", path=path, boxes="absolute")
    found = [{"image_id": 42, "bbox": [0, 0, 100, 100], "category_id": 3, "score": 0.5}]
    proposer = registry.build("file", path=write(tmp_path, found))
    for name in ("42.jpg", "000000000042.jpg", "COCO_val2014_000000000042.jpg"):
        Image.new("RGB", (200, 100)).save(tmp_path / name)
        assert proposer.propose([tmp_path / name]) == [[Proposal(LEFT, 0.5)]]
    assert proposer.propose([tmp_path / "a_42.jpg"]) == [[]]
    for broken, message in (
        ({**COCO, "annotations": [{"image_id": 9, "bbox": [0, 0, 1, 1]}]}, "an annotation is of image 9"),
        ({**COCO, "annotations": [{"image_id": 7, "box": [0, 0, 1, 1]}]}, "has no valid 'bbox'"),
        ({**COCO, "images": [5]}, "image 5 has no valid 'id'"),
        ([{"image_id": 1}], "has no valid 'bbox'"),
    ):
        assert message in error(registry.build, "file", path=write(tmp_path, broken))


@pytest.mark.parametrize(("form", "scale"), [("xywh", (200, 100)), ("relative_xywh", (1, 1))])
def test_boxes_with_width_and_height(tmp_path, image, form, scale):
    box = [0.5 * scale[0], 0, 0.5 * scale[0], 1 * scale[1]]
    proposer = registry.build("file", path=write(tmp_path, {"1.jpg": [{"box": box}]}), boxes=form)
    assert proposer.propose([image]) == [[Proposal(RIGHT, 1.0)]]


def test_annotation_of_no_image_at_all_is_an_error(tmp_path, record, error):
    proposer = registry.build("file", path=write(tmp_path, {"9.jpg": []}), boxes="relative")
    records = [record(), record(name="2.jpg")]
    assert "has no annotation of any of the 2 images" in error(
        lambda: list(annotate(records, proposer, AnnotateStats()))
    )
    proposer = registry.build("file", path=write(tmp_path, {"1.jpg": []}), boxes="relative")
    assert len(list(annotate(records, proposer, AnnotateStats()))) == 2


def test_bad_boxes_of_voc_are_dropped_and_counted(tmp_path, record):
    bad = [(100, 0, 50, 100), (0, 0, 203, 9), (300, 0, 400, 9), (5, 5, 5, 9), (0, 0, "nan", 9)]
    write(tmp_path, VOC.format("".join(OBJECT.format("Ann", *box) for box in [*bad, (100, 0, 201, 100)])), "1.xml")
    proposer = registry.build("file", path=str(tmp_path))
    (filled,) = proposer.fill([record()])
    assert filled.regions == (Region(RIGHT, "Ann"),)
    assert proposer.counts == {"boxes without area": 2, "boxes outside the image": 2, "boxes not finite": 1}


def test_images_and_annotation_that_cannot_be_read_are_told_apart(tmp_path, record):
    """A size that the annotation does not tell is the image's: then that may be what fails."""
    proposer = registry.build("file", path=write(tmp_path, {"1.jpg": 5, "2": BOXES}), boxes="absolute")
    errors = []
    list(proposer.fill([record(), record(name="2.jpg")], errors.append))
    assert [type(found) for found in errors] == [AnnotationError, UmieError]
    assert "2.jpg: no such image" in str(errors[1])


@pytest.mark.parametrize("ending", ["xml", "json"])
def test_annotation_that_a_link_leads_out_of_the_folder(tmp_path, image, ending, error):
    write(tmp_path, VOC.format("") if ending == "xml" else "[]", f"outside.{ending}")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / f"1.{ending}").symlink_to(tmp_path / f"outside.{ending}")
    form = {"format": "json", "boxes": "relative"} if ending == "json" else {}
    proposer = registry.build("file", path=str(tmp_path / "inside"), **form)
    assert "is outside the directory" in error(proposer.propose, [image])
    assert proposer.propose([f"{os.sep}tmp/../x/..{os.sep}.."]) == [[]]  # only the name counts, which is none here


# --- JSON -------------------------------------------------------------------------------------------------

BOXES = [{"box": [100, 0, 200, 100], "label": "dog", "score": 0.25}, {"box": [0, 0, 100, 100], "score": 0.75}]
FOUND = [Proposal(LEFT, 0.75), Proposal(RIGHT, 0.25, "dog")]


@pytest.mark.parametrize(
    "content",
    [
        {"1.jpg": BOXES},
        {"1": BOXES},
        {"1.jpg": {"regions": BOXES}},
        {"1.jpg": {"regions": BOXES, "width": 200, "height": 100.0}, "2": 5},
    ],
)
def test_one_json_file_for_all(tmp_path, image, content):
    path = write(tmp_path, content)
    assert registry.build("file", path=path, boxes="absolute").propose([image, "3.jpg"]) == [FOUND, []]


def test_a_json_file_for_each_image(tmp_path, image):
    write(tmp_path, BOXES, "folder/1.json")
    proposer = registry.build("file", path=str(tmp_path / "folder"), format="json", boxes="absolute")
    assert proposer.propose([image, "3.jpg"]) == [FOUND, []]


def test_relative_boxes_need_no_image(tmp_path):
    path = write(tmp_path, {"1.jpg": [{"box": [0, 0, 0.5, 1]}]})
    proposer = registry.build("file", path=path, boxes="relative")
    assert proposer.propose(["absent/1.jpg"]) == [[Proposal(LEFT, 1.0)]]


def test_boxes_in_pixels_are_of_the_image_as_displayed(tmp_path, noise):
    path = tmp_path / "1.jpg"
    exif = Image.Exif()
    exif[0x0112] = next(number for number, turn in UPRIGHT.items() if turn is Image.Transpose.ROTATE_270)
    noise(200, 100).save(path, exif=exif)
    boxes = write(tmp_path, {"1.jpg": [{"box": [0, 0, 50, 200]}]})
    assert registry.build("file", path=boxes, boxes="absolute").propose([path])[0][0].box == LEFT


def test_boxes_that_make_no_sense_are_dropped_and_counted(tmp_path):
    bad = [[float("nan"), 0, 1, 1], [0.5, 0, 0.4, 1], [0, 0, 0, 1], [1.0, 0, 1.005, 1]]
    path = write(tmp_path, {"1": [{"box": box} for box in [*bad, [-0.005, 0, 0.5, 1]]]})
    proposer = registry.build("file", path=path, boxes="relative")
    assert [item.box for item in proposer.propose(["1.jpg"])[0]] == [LEFT]
    assert proposer.counts == {"boxes not finite": 1, "boxes without area": 2, "boxes outside the image": 1}


@pytest.mark.parametrize(
    ("unit", "content", "message"),
    [
        (
            "relative",
            {"1": [{"box": [0, 0, 100, 50]}]},
            "region 1: box [0, 0, 100, 50] is outside the image (0..1): fix",
        ),
        (
            "absolute",
            {"1": [{"box": [0, 0, 203, 50]}]},
            "region 1: box [0, 0, 203, 50] is outside the image (200 x 100",
        ),
        ("absolute", {"1": [{"box": [0, 0, 0.5, 1]}]}, "no edge is beyond 1 pixel: if the boxes are relative"),
        ("absolute", {"1": [{"box": [0, 0, 9]}]}, "box is [0, 0, 9]: expected [x1, y1, x2, y2]"),
        ("absolute", {"1": [{"box": [0, 0, 9, "9"]}]}, "box is '9': expected a number"),
        ("absolute", {"1": [{"box": [0, 0, 9, 10**400]}]}, "too large a number"),
        ("absolute", {"1": [{"bbox": [0, 0, 9, 9]}]}, "Unknown region key 'bbox'. Did you mean 'box'?"),
        ("absolute", {"1": [{"box": [0, 0, 9, 9], "label": 3}]}, "label is 3: use a string"),
        ("absolute", {"1": [{"box": [0, 0, 9, 9], "score": "x"}]}, "score is 'x': expected a number"),
        ("absolute", {"1": [5]}, "region is 5: expected a JSON object"),
        ("absolute", {"1": 5}, "regions is 5: expected a list of regions"),
        ("absolute", {"1": {"boxes": []}}, "Unknown image key 'boxes'"),
        ("absolute", {"1": {"regions": [], "width": 3}}, "height is None: expected a number"),
        ("absolute", {"1": {"regions": [], "width": 0, "height": 3}}, "width is 0.0: use the image's size"),
        ("absolute", [], "is []: expected a JSON object, regions by the image's file name"),
        ("absolute", "{", "not valid JSON"),
        ("absolute", '{"1": [], "1": []}', "duplicate key '1'"),
        ("absolute", "[" * 100_000, "not valid JSON"),
    ],
)
def test_json_of_another_layout_is_named(tmp_path, image, unit, content, message, error):
    path = write(tmp_path, content)
    found = error(lambda: registry.build("file", path=path, boxes=unit).propose([image]))
    assert found.startswith(f"{path}: ")
    assert message in found


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["box", "regions", "width"]), inner),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values | st.lists(st.fixed_dictionaries({"box": st.lists(st.floats(-1, 2), min_size=4, max_size=4)})))
def test_any_json_gives_regions_or_one_error(tmp_path, value):
    proposer = registry.build("file", path=write(tmp_path, {"1": value}), boxes="relative")
    try:
        (found,) = proposer.propose(["1.jpg"])
    except UmieError as caught:
        assert "\n" not in str(caught)
    else:
        assert all(Region(item.box) for item in found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "absent"}, "path is 'absent': use an existing directory"),
        ({"path": ".", "format": "xml"}, "format is 'xml': use one of voc, json"),
        ({"path": ".", "format": "json"}, "boxes is None: JSON files need 'absolute' (pixels), "),
        ({"path": ".", "boxes": "pixels"}, "boxes is 'pixels': use one of absolute, relative, xywh"),
        ({"path": 3}, "path is 3: use a string"),
    ],
)
def test_options_of_file(options, message, error):
    assert message in error(registry.build, "file", **options)


def test_regions_of_the_records_themselves(image, record, error):
    proposer = registry.build("file", top=2)
    own = [Region((0.0, 0.0, (index + 1) / 10, 1.0)) for index in range(6)]
    given = [record(*own, name="absent.jpg"), record(), Record("no image")]
    assert [item.regions for item in proposer.fill(given)] == [tuple(own[:2]), (), ()]
    assert proposer.counts == {}
    assert "set path to propose regions" in error(proposer.propose, [image])


DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


@pytest.mark.skipif(not DATA.is_dir(), reason="the published files are not here")
def test_the_boxes_of_gmner_are_those_that_its_reader_gives():
    """Over 1500 tweets, whose images need not be there; a box that appears twice in a file is one region."""
    gmner = DATA / "gmner"
    options = {"images": gmner, "regions": gmner / "xml"}
    read = list(data.read("gmner", gmner / "txt" / "dev.txt", **options))
    bare = [dataclasses.replace(item, regions=(), entities=()) for item in read]
    proposer = registry.build("file", path=str(gmner / "xml"))
    filled = list(proposer.fill(bare))
    assert [{region.box for region in item.regions} for item in filled] == [
        {region.box for region in item.regions} for item in read
    ]
    assert sum(len(item.regions) for item in filled) > 1000
