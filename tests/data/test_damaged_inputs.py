"""Damaged records, box files and images: regions, an image or a UmieError, never another exception and never a hang."""

import io
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import mutated
from PIL import ExifTags, Image
from samples import BOXES, IDS, LINE, SAMPLES, Sample

from umie import data
from umie.audit.checks import validate
from umie.audit.images import hashes
from umie.data.source import Source
from umie.encoders.regions import registry
from umie.errors import UmieError
from umie.images import displayed_size, open_image
from umie.records import Record, Region, record_to_json

LIMIT_MS = 10_000  # of one input; more is a hang
quick = settings(deadline=LIMIT_MS, max_examples=60, suppress_health_check=list(HealthCheck))
long = settings(quick, max_examples=2000)

TABLE = {"1.jpg": [{"box": [0, 0, 20, 10], "label": "a", "score": 0.5}], "2": {"width": 9, "height": 9, "regions": []}}
COCO = {
    "images": [{"id": 1, "file_name": "1.jpg", "width": 200, "height": 100}],
    "annotations": [{"image_id": 1, "bbox": [0, 0, 20, 10], "category_id": 1}],
    "categories": [{"id": 1, "name": "cat"}],
}
FOUND = [{"image_id": 1, "bbox": [0, 0, 20, 10], "category_id": 1, "score": 0.5}]
BOX_FILES = {
    "table": (json.dumps(TABLE).encode(), {"boxes": "xywh"}),
    "coco": (json.dumps(COCO).encode(), {}),
    "detections": (json.dumps(FOUND).encode(), {}),
    "voc": (BOXES.encode(), None),
}
TEXT = "\U0001f600 Ann is in Rome ."
WIDE_LINE = {**LINE, "text": TEXT, "entities": [{"type": "person", "span": [3, 6]}], "events": [], "relations": []}


def images() -> dict[str, bytes]:
    """Return a small image of each common format."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    pixels = Image.radial_gradient("L").resize((12, 8))
    found = {}
    for name, mode, options in (
        ("JPEG", "RGB", {"exif": exif}),
        ("PNG", "RGBA", {"exif": exif}),
        ("GIF", "P", {}),
        ("WEBP", "RGB", {}),
        ("BMP", "RGB", {}),
        ("TIFF", "F", {}),
    ):
        content = io.BytesIO()
        pixels.convert(mode).save(content, name, **options)
        found[name] = content.getvalue()
    return found


IMAGES = images()


def check_record(content: bytes, options: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.jsonl")
        path.write_bytes(content)
        errors: list[UmieError] = []
        try:
            for record in data.read("jsonl", path, on_error=errors.append, **options):
                assert isinstance(record, Record)
                record_to_json(record)
            validate(Source(path), lambda *_: None)
        except UmieError as error:
            errors.append(error)
        assert all(len(str(error)) < 2000 for error in errors)


def check_boxes(name: str, content: bytes) -> None:
    options = BOX_FILES[name][1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "1.xml" if options is None else "boxes.json")
        path.write_bytes(content)
        place = folder if options is None else str(path)
        try:
            proposer = registry.build("file", path=place, **(options or {}))
            for found in proposer.propose([Path(folder, "1.jpg"), Path(folder, "2.jpg")]):
                assert all(Region(item.box) for item in found)
        except UmieError as error:
            assert str(error).startswith(folder)
            assert len(str(error).splitlines()) == 1
            assert len(str(error)) < 2000


def check_image(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a")
        path.write_bytes(content)
        for read in (open_image, displayed_size, hashes):
            try:
                found = read(path)
            except UmieError as error:
                assert str(error).startswith(f"{path}: ")
                assert len(str(error)) < 1000
            else:
                assert found is not None


record_options = st.sampled_from(
    [{}, {"boxes": "xywh"}, {"boxes": "relative_xywh"}, {"offsets": "utf16"}, {"offsets": "bytes"}]
)


@quick
@given(st.sampled_from([LINE, WIDE_LINE]).flatmap(lambda line: mutated(json.dumps(line).encode())), record_options)
def test_damaged_records(content: bytes, options: dict[str, str]) -> None:
    check_record(content, options)


@pytest.mark.slow
@long
@given(st.sampled_from([LINE, WIDE_LINE]).flatmap(lambda line: mutated(json.dumps(line).encode())), record_options)
def test_many_damaged_records(content: bytes, options: dict[str, str]) -> None:
    check_record(content, options)


@pytest.mark.parametrize("name", BOX_FILES)
@quick
@given(drawn=st.data())
def test_damaged_box_files(name: str, drawn: st.DataObject) -> None:
    check_boxes(name, drawn.draw(mutated(BOX_FILES[name][0])))


@pytest.mark.slow
@pytest.mark.parametrize("name", BOX_FILES)
@long
@given(drawn=st.data())
def test_many_damaged_box_files(name: str, drawn: st.DataObject) -> None:
    check_boxes(name, drawn.draw(mutated(BOX_FILES[name][0])))


@pytest.mark.parametrize("name", IMAGES)
@settings(quick, max_examples=170)  # a thousand in all
@given(drawn=st.data())
def test_damaged_images(name: str, drawn: st.DataObject) -> None:
    check_image(drawn.draw(mutated(IMAGES[name])))


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
@long
@given(drawn=st.data())
def test_many_damaged_images(name: str, drawn: st.DataObject) -> None:
    check_image(drawn.draw(mutated(IMAGES[name])))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_pipes_devices_and_directories_are_refused_as_data(sample: Sample, tmp_path: Path) -> None:
    """Opening a pipe without a writer would wait forever."""
    for name, content in sample.files.items():
        path, options = sample.write(tmp_path)
        file = tmp_path / name
        for replace in (os.mkfifo, Path.mkdir, lambda place: place.symlink_to("/dev/zero")):
            file.unlink()
            replace(file)
            with pytest.raises(UmieError, match=r"not a regular file|is outside the directory"):
                list(data.read(sample.format, path, **options))
            (Path.rmdir if file.is_dir() else Path.unlink)(file)
            file.write_bytes(content)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_pipes_are_refused_as_images_and_box_files(tmp_path: Path) -> None:
    for name in ("1.jpg", "1.xml", "1.json"):
        os.mkfifo(tmp_path / name)
    for read in (open_image, displayed_size, hashes):
        with pytest.raises(UmieError, match="not a regular file"):
            read(tmp_path / "1.jpg")
    for options in ({"format": "voc"}, {"format": "json", "boxes": "relative"}):
        proposer = registry.build("file", path=str(tmp_path), **options)
        with pytest.raises(UmieError, match="not a regular file"):
            proposer.propose(["1.jpg"])


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


NAMED = pytest.mark.parametrize(
    ("content", "message"),
    [(POINTER, "a Git LFS pointer, not the file itself: run `git lfs pull`"), (b"\x1f\x8b\x08", "compressed by gzip")],
)


@NAMED
@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_pointers_and_archives_are_named_as_data(sample: Sample, tmp_path: Path, content: bytes, message: str) -> None:
    for name in sample.files:
        path, options = sample.write(tmp_path, {name: content})
        with pytest.raises(UmieError, match=message):
            list(data.read(sample.format, path, **options))


@NAMED
def test_pointers_and_archives_are_named_as_images(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(content)
    for read in (open_image, displayed_size, hashes):
        with pytest.raises(UmieError, match=message):
            read(path)
    with pytest.raises(UmieError, match=message):
        registry.build("file", path=str(tmp_path)).propose(["a.jpg"])


def test_a_pointer_in_place_of_an_image_is_an_error_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(POINTER)
    (tmp_path / "a.jsonl").write_text('{"text": "Ann", "image": "1.jpg"}\n')
    found: list[str] = []
    validate(Source(tmp_path / "a.jsonl"), lambda _, finding: found.append(finding.message))
    assert len(found) == 1
    assert "is a Git LFS pointer" in found[0]


def test_regions_that_are_no_list_are_reported_in_any_form_of_boxes(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "Ann", "regions": 1}\n')
    for boxes in ("relative", "xywh", "absolute"):
        with pytest.raises(UmieError, match="regions"):
            list(data.read("jsonl", path, boxes=boxes))
