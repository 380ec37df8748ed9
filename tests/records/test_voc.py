"""Boxes in pixels and Pascal VOC files."""

import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from umie.errors import UmieError
from umie.images import SIDEWAYS, open_image
from umie.records import Region
from umie.records.notes import collected_notes
from umie.records.voc import BoxError, pixel_region, read_voc

OBJECT = (
    "<object><name>{name}</name><pose>Unspecified</pose><bndbox><xmin>{0}</xmin><ymin>{1}</ymin>"
    "<xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"
)
FRAGMENTS = [
    b"<a>",
    b"</a>",
    b"<size><width>10</width><height>10</height></size>",
    b"<width>0</width>",
    b"<size/>",
    b"\xff",
    b"<object>",
    b"</object>",
    b"<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>",
    b'<?xml version="1.0" encoding="utf-16"?>',
    b'<?xml version="1.0" encoding="none"?>',
    b"&x;",
    b"<xmin>nan</xmin>",
    b'<!DOCTYPE a [<!ENTITY x "y">]>',
]


def voc(*objects: str, width: object = 200, height: object = 100) -> str:
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>other.jpg</filename>{size}{''.join(objects)}</annotation>"


def box(*edges: object, name: str = "Ann") -> str:
    return OBJECT.format(*edges, name=name)


def message(path: Path) -> str:
    with pytest.raises(UmieError) as caught:
        read_voc(path)
    return str(caught.value)


def test_boxes_are_relative_to_the_size_and_labeled_by_the_name(tmp_path: Path) -> None:
    path = tmp_path / "1.xml"
    path.write_text(voc(box(50, 10, 100, 100, name="Ann Lee"), box("0.0", "0", "200.0", "50", name=" Café ")))
    assert read_voc(path) == (Region((0.25, 0.1, 0.5, 1.0), "Ann Lee"), Region((0.0, 0.0, 1.0, 0.5), "Café"))


def test_a_file_without_boxes_and_a_box_without_a_name(tmp_path: Path) -> None:
    path = tmp_path / "1.xml"
    path.write_text(voc())
    assert read_voc(path) == ()
    path.write_text(voc(box(0, 0, 200, 100, name=""), box(0, 0, 200, 100).replace("<name>Ann</name>", "")))
    assert [region.label for region in read_voc(path) or ()] == [None, None]


def test_a_missing_file_is_no_error(tmp_path: Path) -> None:
    assert read_voc(tmp_path / "absent.xml") is None


def test_edges_outside_by_rounding_are_moved_to_the_border() -> None:
    assert pixel_region((-1, -2, 201, 102), (200, 100)) == Region((0.0, 0.0, 1.0, 1.0))
    assert pixel_region((-0.5, 10, 100, 50), (200, 100), "a") == Region((0.0, 0.1, 0.5, 0.5), "a")


@pytest.mark.parametrize(
    ("edges", "size", "problem"),
    [
        ((0, 0, 203, 100), (200, 100), "box [0, 0, 203, 100] is outside the image of 200 x 100 pixels"),
        ((-3, 0, 10, 100), (200, 100), "box [-3, 0, 10, 100] is outside the image"),
        ((0, 0, 10, 10**400), (200, 100), "box [0, 0, 10, 1000"),
        ((0, 0, math.inf, 10), (200, 100), "box [0, 0, inf, 10] is outside the image"),
        ((0, 0, math.nan, 10), (200, 100), "box [0, 0, nan, 10] is outside the image"),
        ((50, 0, 50, 10), (200, 100), "box [50, 0, 50, 10] has no area: expected x1 < x2 and y1 < y2"),
        ((0, 20, 50, 10), (200, 100), "box [0, 20, 50, 10] has no area"),
        ((200, 0, 202, 10), (200, 100), "box [200, 0, 202, 10] has no area"),
        ((0, 0, 1, 1), (0, 100), "the image size is 0 x 100: expected two positive numbers"),
        ((0, 0, 1, 1), (200, -1), "the image size is 200 x -1"),
        ((0, 0, 1, 1), (math.nan, 1), "the image size is nan x 1"),
        ((0, 0, 1, 1), (math.inf, 1), "the image size is inf x 1"),
    ],
)
def test_invalid_boxes_are_refused(edges: tuple[float, ...], size: tuple[float, float], problem: str) -> None:
    with pytest.raises(UmieError) as caught:
        pixel_region(edges, size)
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "not valid XML: no element found"),
        ("<annotation>", "not valid XML: no element found"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "not valid XML: EntitiesForbidden(name='x'"),
        ('<?xml version="1.0" encoding="nonsense"?><a/>', "not valid XML: unknown encoding"),
        ("<annotation/>", "<size/width> is missing: expected a number"),
        (voc(height="tall"), "<size/height> is 'tall': expected a number"),
        (voc(box(0, 0, 1, 1), width=0), "the image size is 0.0 x 100.0"),
        (voc(box(0, 0, 1, 1), box(0, 0, 300, 1)), "object 2: box [0.0, 0.0, 300.0, 1.0] is outside the image"),
        (voc(box(0, 0, 1, "")), "object 1: <bndbox/ymax> is '': expected a number"),
        (voc("<object><name>Ann</name></object>"), "object 1: <bndbox/xmin> is missing: expected a number"),
    ],
)
def test_errors_name_the_file_and_the_object(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "1.xml"
    path.write_text(content)
    assert message(path).startswith(f"{path}: {problem}")


def test_bad_boxes_can_be_skipped(tmp_path: Path) -> None:
    path = tmp_path / "1.xml"
    path.write_text(voc(box(9, 0, 3, 5), box(0, 0, 200, 50), box(0, 0, 300, 5), box(4, 0, 4, 5), box("nan", 0, 4, 5)))
    bad: list[BoxError] = []
    assert read_voc(path, bad.append) == (Region((0.0, 0.0, 1.0, 0.5), "Ann"),)
    assert [error.leaves for error in bad] == [False, True, False, True]
    assert [error.box for error in bad[:3]] == [(9, 0, 3, 5), (0, 0, 300, 5), (4, 0, 4, 5)]
    for content in (
        voc(box(0, 0, 1, "")),
        voc(box(0, 0, 1, 1), width=0),
        "<annotation>",
    ):  # not about a box
        path.write_text(content)
        with pytest.raises(UmieError, match=r"1\.xml: "):
            read_voc(path, bad.append)
    assert len(bad) == 4


def test_a_directory_instead_of_a_file(tmp_path: Path) -> None:
    assert message(tmp_path) == f"{tmp_path}: cannot read: Is a directory, not a regular file"


@given(st.binary(max_size=60) | st.lists(st.sampled_from(FRAGMENTS), max_size=10).map(b"".join))
def test_no_bytes_raise_anything_but_umie_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "1.xml")
        path.write_bytes(data)
        try:
            regions = read_voc(path)
        except UmieError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            assert regions is not None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_of_the_stored_image_is_turned_with_it(tmp_path: Path, orientation: int) -> None:
    """The declared size tells whether boxes are of the image as stored or as displayed; PIL turns the pixels."""
    stored = Image.new("RGB", (80, 60), "black")
    stored.paste("white", (10, 5, 40, 20))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored.save(tmp_path / "1.png", exif=exif)
    displayed = open_image(tmp_path / "1.png").convert("L")
    place = displayed.getbbox()
    assert place is not None
    expected = tuple(edge / side for edge, side in zip(place, displayed.size * 2, strict=True))
    frames = [(box(*place), displayed.size)]
    if orientation in SIDEWAYS:
        frames += [(box(10, 5, 40, 20), (80, 60)), (box(20, 10, 80, 40), (160, 120))]
    for written, (width, height) in frames:
        path = tmp_path / "1.xml"
        path.write_text(voc(written, width=width, height=height))
        with collected_notes() as notes:
            (region,) = read_voc(path, image=tmp_path / "1.png") or ()
        assert region.box == pytest.approx(expected)
        is_unclear = orientation in (2, 3, 4)  # the size is the same either way
        assert [note for note in notes if "EXIF" in note] == [
            "files of boxes for an image turned by EXIF data, read as boxes of the image as displayed"
        ] * is_unclear


def test_a_size_of_zero_is_that_of_the_image_unless_it_is_turned(tmp_path: Path) -> None:
    path = tmp_path / "1.xml"
    path.write_text(voc(box(0, 0, 40, 60), width=0, height=0))
    Image.new("RGB", (80, 60)).save(tmp_path / "1.png")
    assert read_voc(path, image=tmp_path / "1.png") == (Region((0, 0, 0.5, 1), "Ann"),)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (80, 60)).save(tmp_path / "2.png", exif=exif)
    for image, problem in (
        ("2.png", "EXIF data turn it"),
        ("3.png", "a readable image"),
        ("1.xml", "a readable image"),
    ):
        with pytest.raises(UmieError, match=problem):
            read_voc(path, image=tmp_path / image)


def test_a_size_of_other_proportions_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "1.xml"
    path.write_text(voc(box(0, 0, 100, 100)))
    Image.new("RGB", (80, 60)).save(tmp_path / "1.png")
    with collected_notes() as notes:
        assert read_voc(path, image=tmp_path / "1.png") == (Region((0, 0, 0.5, 1), "Ann"),)
    assert "files of boxes that declare a size of other proportions than their image" in notes
