"""Forms of tagged files, MNRE files and ids that differ from the published ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from samples import BOXES, PAIR, SENTENCE

from umie import data
from umie.data.consistency import consistent
from umie.errors import UmieError
from umie.records import Record, Relation, no_relation_names
from umie.records.notes import CLIPPED, collected_notes, note_lines

ANN = "Ann\tB-PER\nLee\tI-PER\n"


def read(path: Path, content: str, format_name: str = "twitter", **options: Any) -> list[Record]:
    path.write_text(content, encoding="utf-8")
    return list(data.read(format_name, path, images=path.parent, **options))


@pytest.mark.parametrize("format_name", ["twitter", "conll"])
@pytest.mark.parametrize(
    ("header", "identifier", "image"),
    [
        ("IMGID:17", "17", "17.jpg"),
        ("IMGID:17.jpg", "17", "17.jpg"),
        ("IMGID:17.PNG", "17", "17.PNG"),
        ("IMGID: 17.webp ", "17", "17.webp"),
        *((f"IMGID:17.{ending}", "17", f"17.{ending}") for ending in ("heic", "HEIF", "avif", "jfif", "JP2", "ppm")),
        ("IMGID:17\tO", "17", "17.jpg"),
        ("IMGID:17 O", "17", "17.jpg"),
        ("IMGID:17\t-X-\tO", "17", "17.jpg"),
        ("imgid:17", "17", "17.jpg"),
        ("IMG_ID：17", "17", "17.jpg"),
        ("IMGID:3.14", "3.14", "3.14.jpg"),
        ("IMGID:my photo.jpg", "my photo", "my photo.jpg"),
    ],
)
def test_headers_name_the_image(tmp_path: Path, format_name: str, header: str, identifier: str, image: str) -> None:
    """Also without a blank line before the header."""
    first, second = read(tmp_path / "a.txt", f"IMGID:1\n{ANN}{header}\n{ANN}", format_name)
    assert [(first.id, first.image, first.text), (second.id, second.image, second.text)] == [
        ("1", "1.jpg", "Ann Lee"),
        (identifier, image, "Ann Lee"),
    ]


@pytest.mark.parametrize("header", ["IMGID:5 6", "IMGID:5.jpg 6.jpg", "IMGID:5,6", "IMGID:5;6", "IMGID:5|6"])
def test_a_header_with_several_images_is_an_error(tmp_path: Path, header: str) -> None:
    with pytest.raises(UmieError, match=r"a\.txt:1: the id of the image is .*: a record has one image"):
        read(tmp_path / "a.txt", f"{header}\n{ANN}")


def test_tabs_at_the_end_of_lines_are_ignored(tmp_path: Path) -> None:
    for format_name in ("twitter", "conll"):
        (record,) = read(tmp_path / "a.txt", "IMGID:5\nAnn\tB-PER  \nin\tO\t\nRome\tB-LOC\t\t\n", format_name)
        assert [entity.text for entity in record.entities] == ["Ann", "Rome"]


def test_other_forms_are_referred_to_conll(tmp_path: Path) -> None:
    for content in (ANN, "IMGID:1\nAnn B-PER\n", "IMGID:1\nAnn\tNNP\tB-PER\n", "IMGID:1\nAnn\tE-PER\n"):
        with pytest.raises(UmieError, match=r"(?i)the format conll reads other tags and columns"):
            read(tmp_path / "a.txt", content)


def test_tags_of_an_unclear_scheme_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for content, message in (
        (f"{ANN}Rome\tX\n", r":3: tag 'X' has no prefix, but tag 'B-PER' has one: set ignore_tags"),
        (f"Rome\tLOC\n{ANN}", r":2: tag 'B-PER' has a prefix, but tag 'LOC' has none"),
        ("Ann\tPER-B\n", r":1: tag 'PER-B': set tags to suffix"),
        ("{'text': ['Ann', 'Lee'], 'label': ['B-PER', 'I-PER']}", r":1: tag .* is neither O nor a type"),
        ('{"id": "1", "text": "Ann Lee"}', r":1: tag .* is neither O nor a type"),
    ):
        with pytest.raises(UmieError, match=message):
            read(path, content, "conll")
    (record,) = read(path, f"{ANN}<EOS>\tX\n", "conll", ignore_tags=["X"])
    assert record.text == "Ann Lee <EOS>"
    (record,) = read(path, "Ann\tPER-B\nLee\tPER-I\nin\tO\nRome\tLOC-B\n", "conll", tags="suffix")
    assert [(entity.type, entity.text) for entity in record.entities] == [("PER", "Ann Lee"), ("LOC", "Rome")]
    with pytest.raises(UmieError, match="tag 'B-PER' is not of the scheme suffix"):
        read(path, ANN, "conll", tags="suffix")


def test_sentences_of_one_image_have_different_ids(tmp_path: Path) -> None:
    content = "".join(f"IMGID:{name}\n{ANN}\n" for name in ("5", "5", "5:2", "6", "5"))
    for format_name in ("twitter", "conll"):
        with collected_notes() as notes:
            records = read(tmp_path / "a.txt", content, format_name)
        assert [record.id for record in records] == ["5", "5:2", "5:2:2", "6", "5:3"]
        assert [record.image for record in records] == ["5.jpg", "5.jpg", "5:2.jpg", "6.jpg", "5.jpg"]
        assert list(note_lines(notes)) == ["ids that occur again, read with a number: 3"]


def test_consistent_records_have_unique_ids_and_complete_schemas() -> None:
    records = [
        Record("Ann", id="1"),
        *data_of_ace(),
    ]
    with collected_notes() as notes:
        found = list(consistent([*records, *records]))
    assert [record.id for record in found] == ["1", "S", "1:2", "S:2"]
    assert found[1].labels == {"mre": ("peer", "rival")}
    assert notes == {
        "ids that occur again, read with a number": 2,
        "mre label 'rival', which is added to the schema": 2,
    }


def data_of_ace() -> list[Record]:
    related = (Relation("rival", (0, 3), (4, 7)), Relation("none", (4, 7), (0, 3)))
    return [Record("Ann Bob", id="S", relations=related, labels={"mre": ("peer",)})]


@pytest.mark.parametrize(
    "written",
    [
        lambda pairs: json.dumps(pairs),
        lambda pairs: json.dumps(pairs, indent=2),
        lambda pairs: json.dumps({str(number): pair for number, pair in enumerate(pairs)}, indent=1),
        lambda pairs: "\n".join(map(json.dumps, pairs)),
        lambda pairs: "\ufeff\n" + "\n\n".join(map(repr, pairs)),
    ],
    ids=["list", "indented list", "object", "lines", "dicts"],
)
def test_pairs_of_mnre_in_json(tmp_path: Path, written: Any) -> None:
    pairs = [{**PAIR, "extra": True}, {**PAIR, "relation": None}, {**PAIR, "relation": ["/a/b/peer", "/a/b/parent"]}]
    with collected_notes() as notes:
        records = read(tmp_path / "a.json", written(pairs), "mnre")
    assert [[item.type for item in record.relations] for record in records] == [
        ["member of"],
        ["none"],
        ["peer", "parent"],
    ]
    assert {record.image for record in records} == {"17.jpg"}
    assert notes == {"relations of the type 'null', read as 'none'": 1}


def test_errors_in_a_list_of_pairs_are_located(tmp_path: Path) -> None:
    errors: list[UmieError] = []
    (tmp_path / "a.json").write_text(json.dumps([PAIR, 5, {**PAIR, "relation": []}]))
    assert len(list(data.read("mnre", tmp_path / "a.json", on_error=errors.append))) == 1
    places = [str(error).removeprefix(f"{tmp_path / 'a.json'}: ") for error in errors]
    assert places[0].startswith("entry 2: the line is 5: expected an object")
    assert places[1].startswith("entry 3: field 'relation' of the line is []")


def test_readers_map_the_usual_names_of_no_relation(tmp_path: Path) -> None:
    names = ["NA", "n/a", "/no_relation", "no relation", "None", "/none", "negative"]
    content = "\n".join(repr({**PAIR, "relation": name}) for name in names)
    with collected_notes() as notes:
        records = read(tmp_path / "a.txt", content, "mnre")
    assert [record.relations[0].type for record in records] == [*["none"] * 6, "negative"]
    mapped = ("NA", "n/a", "/no_relation", "no relation")
    assert notes == {f"relations of the type {name!r}, read as 'none'": 1 for name in mapped}
    assert "none" in (records[0].labels or {})["mre"]
    with no_relation_names(["Negative"]):
        records = read(tmp_path / "a.txt", content, "mnre")
    assert {record.relations[0].type for record in records} == {"none"}
    relation = {**SENTENCE["relation_mentions"][0], "relation_type": "NO-RELATION"}
    (record,) = read_ace(tmp_path / "a.json", {**SENTENCE, "relation_mentions": [relation]})
    assert [item.type for item in record.relations] == ["none"]


def read_ace(path: Path, sentence: Any) -> list[Record]:
    path.write_text(json.dumps(sentence))
    return list(data.read("ace", path))


def test_voc_files_of_other_tweets_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "xml").mkdir()
    (tmp_path / "xml" / "17.xml").write_text(BOXES)
    path = tmp_path / "a.txt"
    records = read(path, f"IMGID:17\n{ANN}IMGID:18\n{ANN}", "gmner", regions=tmp_path / "xml")
    assert [len(record.regions) for record in records] == [1, 0]
    others = f"IMGID:18\n{ANN}"
    with collected_notes() as notes:
        read(path, others * 2, "gmner", regions=tmp_path / "xml")
    assert [note for note in notes if f"has no file <id>.xml for any of the 2 tweets of {path}" in note]
    with pytest.raises(UmieError, match=r"a\.txt: .*xml has no file <id>\.xml for any of the 20 tweets"):
        read(path, others * 20, "gmner", regions=tmp_path / "xml")


def test_moved_boxes_are_noted(tmp_path: Path) -> None:
    (tmp_path / "17.xml").write_text(BOXES.replace(">120<", ">201<"))
    with collected_notes() as notes:
        read(tmp_path / "a.txt", f"IMGID:17\n{ANN}", "gmner", regions=tmp_path)
    assert list(note_lines(notes)) == [f"{CLIPPED}: 1 of 1 (100.0%)"]


def test_nothing_is_read_outside_the_directories(tmp_path: Path) -> None:
    (tmp_path / "xml").mkdir()
    (tmp_path / "outside.xml").write_text(BOXES)
    (tmp_path / "xml" / "17.xml").symlink_to(tmp_path / "outside.xml")
    with pytest.raises(UmieError, match=r"17\.xml: is outside the directory"):
        read(tmp_path / "a.txt", f"IMGID:17\n{ANN}", "gmner", regions=tmp_path / "xml")
