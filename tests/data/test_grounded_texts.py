"""The formats flickr_entities and sroie: texts whose entities are shown by regions of the image."""

import json
from pathlib import Path

import pytest
from samples import CAPTION, RECEIPT, SAMPLES, dumped

from umie import data
from umie.errors import UmieError
from umie.records import Entity, Record

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the annotated images are not there")


def read(name: str, main: str, folder: Path, **changed: bytes) -> list[Record]:
    sample = next(sample for sample in SAMPLES if (sample.format, sample.main) == (name, main))
    path, options = sample.write(folder, changed)
    return list(data.read(name, path, **options))


def boxes(record: Record, entity: Entity) -> list[tuple[float, ...]]:
    return [record.regions[index].box for index in entity.regions]


def message(name: str, main: str, folder: Path, **changed: bytes) -> str:
    with pytest.raises(UmieError) as caught:
        read(name, main, folder, **changed)
    return str(caught.value).removeprefix(f"{folder}/")


def test_captions_and_their_chains(tmp_path):
    first, second = read("flickr_entities", "train.txt", tmp_path)
    assert (first.text, first.id, first.image) == ("Two tall men wave at it , a red tower .", "17#1", "17.jpg")
    assert [(entity.text, entity.type) for entity in first.entities] == [
        ("Two tall men", "people"),
        ("a red tower", "other"),
    ]
    left, right = (0.1, 0.1, 0.3, 1.0), (0.35, 0.1, 0.6, 1.0)
    assert [boxes(first, entity) for entity in first.entities] == [[left, right], [right]]
    assert [region.box for region in first.regions] == [left, right]  # scenes and phrases without boxes have none
    assert [(entity.text, entity.regions) for entity in second.entities] == [("Nobody", ())]


def test_joined_captions(tmp_path):
    record, _ = read("flickr_entities", "a.jsonl", tmp_path)
    (entity,) = record.entities  # the other phrase has no span
    assert (record.text, entity.text, entity.type) == ("two men wave .", "two men", "mention")
    assert boxes(record, entity) == [(0.1, 0.1, 0.3, 1.0), (0.35, 0.1, 0.6, 1.0)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[/EN#5/person A man] waves", "Sentences/17.txt:1: a phrase has the type 'person': expected one of people,"),
        ("[/EN#5 A man] waves", "Sentences/17.txt:1: '[/EN#5 A man] waves' is not a phrase: expected [/EN#<number>"),
        ("A [/EN#5/people man", "Sentences/17.txt:1: '[/EN#5/people man' is not a phrase"),
    ],
)
def test_malformed_captions(tmp_path, line, problem):
    assert message("flickr_entities", "train.txt", tmp_path, **{"Sentences/17.txt": line.encode()}).startswith(problem)


def test_missing_files_are_named(tmp_path):
    assert message("flickr_entities", "train.txt", tmp_path, **{"train.txt": b"17\n18\n"}) == (
        "Annotations/18.xml: no such file: add it, or remove the image from the list"
    )
    (tmp_path / "list.txt").write_text("17\n")
    with pytest.raises(UmieError, match=r"elsewhere: no such directory: set sentences to it"):
        list(data.read("flickr_entities", tmp_path / "list.txt", sentences=tmp_path / "elsewhere"))
    assert len(list(data.read("flickr_entities", tmp_path / "list.txt", sentences=tmp_path / "Sentences"))) == 2


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"phrases": [5]}, "phrase 0 (counted from 0) is 5: expected an object"),
        ({"phrases": [{"span": [0]}]}, "has no field 'boxes_xyxy'"),
        ({"phrases": [{"span": [0], "boxes_xyxy": []}]}, "span is [0]: expected two token offsets"),
        ({"phrases": [{"span": [0, 9], "boxes_xyxy": []}]}, "is at tokens [0, 9] of 4"),
        ({"phrases": [{"span": [0, 1], "boxes_xyxy": [[1, 2, 3]]}]}, "box is [1, 2, 3]: expected [x1, y1, x2, y2]"),
        ({"phrases": [{"span": [0, 1], "boxes_xyxy": [[1, 2, 300, 9]]}]}, "is outside the image of 200 x 100"),
        ({"width_height": [200]}, "field 'width_height' of the line is [200]: expected two numbers"),
        ({"image": "../1.jpg"}, "image is '../1.jpg': expected a file name without directories"),
    ],
)
def test_malformed_lines_of_a_joined_file(tmp_path, change, problem):
    text = message("flickr_entities", "a.jsonl", tmp_path, **{"a.jsonl": dumped({**CAPTION, **change})})
    assert text.startswith("a.jsonl:1: ")
    assert problem in text


@pytest.mark.parametrize("main", ["a.jsonl", "train.txt"])
def test_fields_of_receipts(tmp_path, main):
    record = read("sroie", main, tmp_path)[0]
    assert record.text == "Tea & Co.\n1,Old Road\nRome 160.30\nSUM 60.30 60.30"
    assert [(entity.type, entity.text, entity.regions) for entity in record.entities] == [
        ("company", "Tea & Co", (0,)),
        ("address", "1,Old Road\nRome", (1, 2)),
        ("total", "60.30", (3,)),  # not the end of 160.30
    ]
    assert record.entities[2].span == (37, 42)
    assert record.regions[2].box == (0.05, 0.3, 0.3, 0.4)


def test_lists_may_name_images_with_their_endings(tmp_path):
    captions, _ = read("flickr_entities", "train.txt", tmp_path / "a", **{"train.txt": b"17.HEIC\n"})
    assert (captions.id, captions.image, len(captions.regions)) == ("17#1", "17.HEIC", 2)
    jpeg = next(sample for sample in SAMPLES if sample.format == "sroie").files["17.jpg"]
    (receipt,) = read("sroie", "train.txt", tmp_path / "b", **{"train.txt": b"17.JPEG\n", "17.JPEG": jpeg})
    assert (receipt.id, receipt.image, len(receipt.regions)) == ("17", "17.JPEG", 4)


def test_a_field_is_found_in_its_line_first(tmp_path):
    receipt = json.loads(dumped(RECEIPT))
    receipt["lines"].append({"box_xyxy": [1, 60, 2, 70], "text": "TOTAL 60.30"})
    receipt["entities"]["total"]["lines"] = [4]
    record = read("sroie", "a.jsonl", tmp_path, **{"a.jsonl": dumped(receipt)})[0]
    assert record.entities[2].regions == (4,)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"box/17.csv": b"1,2,3,4,5,6,7,8,\n"}, "box/17.csv:1: '1,2,3,4,5,6,7,8,' is not a line of a receipt"),
        ({"box/17.csv": b"1,1,900,1,900,9,1,9,x\n"}, "box/17.csv:1: box [1.0, 1.0, 900.0, 9.0] is outside the image"),
        ({"key/17.json": b"[]"}, "key/17.json: is []: expected an object with a string for each field"),
        ({"train.txt": b"../17\n"}, "train.txt:1: the id of the receipt is '../17': expected a file name"),
        ({"train.txt": b"18\n"}, "18.jpg: no such image; it is needed for the size of the boxes"),
    ],
)
def test_malformed_receipts(tmp_path, changed, problem):
    assert problem in message("sroie", "train.txt", tmp_path, **changed)


def test_a_list_of_receipts_needs_images(tmp_path):
    (tmp_path / "train.txt").write_text("17\n")
    with pytest.raises(UmieError, match="need the sizes of the images: set images"):
        list(data.read("sroie", tmp_path / "train.txt"))


@needs_data
def test_real_captions_and_receipts():
    captions = list(data.read("flickr_entities", SHARED / "flickr8k_entities" / "records.jsonl"))
    assert len(captions) == 2512
    assert all(entity.regions for record in captions for entity in record.entities)
    errors = []
    receipts = list(data.read("sroie", SHARED / "sroie" / "records.jsonl", on_error=errors.append))
    assert (len(receipts), errors) == (500, [])
    found = [entity.type for record in receipts for entity in record.entities]
    assert found.count("total") >= 495
    assert found.count("address") >= 460  # the others differ from the receipt in letters
