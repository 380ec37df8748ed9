"""Offsets that count UTF-16 units or bytes, and boxes of other forms, in JSONL."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from umie import data
from umie.audit.checks import validate
from umie.data.source import Source
from umie.errors import UmieError
from umie.records import record_from_json
from umie.records.offsets import character_span, seem_utf16

TEXT = "\U0001f600\U0001f600 Ann in Rome"


@given(st.text(min_size=1), st.data())
def test_spans_of_all_units_are_the_same_characters(text: str, drawn: st.DataObject) -> None:
    start, end = sorted((drawn.draw(st.integers(0, len(text))), drawn.draw(st.integers(0, len(text)))))
    for unit, encoding, width in (("utf16", "utf-16-le", 2), ("bytes", "utf-8", 1)):
        try:
            before, covered = (len(part.encode(encoding)) // width for part in (text[:start], text[start:end]))
        except UnicodeEncodeError:
            return
        assert character_span(text, (before, before + covered), unit) == (start, end)
    assert character_span(text, (start, end), "characters") == (start, end)


def test_a_span_that_cuts_a_character_or_leaves_the_text_is_an_error() -> None:
    for span, unit, message in (
        ((1, 2), "utf16", "cuts a character"),
        ((0, 99), "utf16", "is not inside the text of 16 utf16"),
        ((1, 4), "bytes", "cuts a character"),
    ):
        with pytest.raises(UmieError, match=message):
            character_span(TEXT, span, unit)


def line(**more: Any) -> str:
    return json.dumps({"text": TEXT, "entities": [{"type": "person", "span": [5, 8], **more}]})


def test_errors_advise_on_utf16() -> None:
    for text, span, has_advice in (("Ann", [5, 8], True), ("Rome", [12, 16], True), ("Bob", [5, 8], False)):
        with pytest.raises(UmieError) as caught:
            record_from_json(line(text=text, span=span))
        assert ("offsets=utf16" in str(caught.value)) == has_advice
    with pytest.raises(UmieError) as caught:
        record_from_json(json.dumps({"text": "Ann", "entities": [{"type": "person", "span": [1, 9]}]}))
    assert "utf16" not in str(caught.value)


def test_offsets_that_only_make_sense_as_utf16_are_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(line() + "\n")
    found: list[str] = []
    validate(Source(path), lambda _, finding: found.append(finding.message))
    assert any("UTF-16" in message for message in found)
    assert not seem_utf16(TEXT, [(3, 6)])
    assert not seem_utf16("Ann in Rome", [(1, 3)])
    assert not seem_utf16(TEXT, [(4, 6)])  # cuts a word in both
    assert not seem_utf16("\U0001f600\U0001f600小明去北京", [(2, 4), (5, 7)])
    (record,) = data.read("jsonl", path, offsets="utf16")
    assert record.entities[0].text == "Ann"


def test_every_span_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    mention = {"span": [5, 8], "text": "Ann"}
    event = {
        "type": "be",
        "trigger": mention,
        "arguments": [{"role": "who", "span": [5, 8]}, {"role": "x", "span": [12, 16]}],
    }
    relations = [{"type": "in", "head": [5, 8], "tail": {"span": [12, 16], "text": "Rome"}}]
    path.write_text(
        json.dumps({"text": TEXT, "relations": relations, "events": [event], "entities": [{"type": "p", **mention}]})
    )
    (record,) = data.read("jsonl", path, offsets="utf16")
    assert (record.relations[0].head, record.relations[0].tail) == ((3, 6), (10, 14))
    assert (record.events[0].trigger, record.entities[0].span) == ((3, 6), (3, 6))
    assert [item.span for item in record.events[0].arguments] == [(3, 6), (10, 14)]


@pytest.mark.parametrize(
    ("form", "box"),
    [
        ("relative", [0.5, 0, 1, 1]),
        ("absolute", [20, 0, 40, 30]),
        ("xywh", [20, 0, 20, 30]),
        ("relative_xywh", [0.5, 0, 0.5000001, 1]),
    ],
)
def test_boxes_of_all_forms(tmp_path: Path, form: str, box: list[float]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 40)).save(tmp_path / "1.jpg", exif=exif)  # displayed as 40 x 30
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "Ann", "image": "1.jpg", "regions": [{"box": box}]}))
    (record,) = data.read("jsonl", path, boxes=form)
    assert record.regions[0].box == (0.5, 0.0, 1.0, 1.0)


def test_boxes_in_pixels_need_an_image_in_its_directory(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (30, 40)).save(tmp_path / "1.jpg")
    path = tmp_path / "in" / "a.jsonl"
    for image, message in (("2.jpg", "needs its image"), (None, "needs its image"), ("../1.jpg", "is outside the dir")):
        path.write_text(json.dumps({"text": "Ann", "image": image, "regions": [{"box": [1, 1, 2, 2]}]}))
        with pytest.raises(UmieError, match=message):
            list(data.read("jsonl", path, boxes="absolute"))
    for wrong in ({"boxes": "pixels"}, {"offsets": "utf8"}):
        with pytest.raises(UmieError, match="use one of"):
            list(data.read("jsonl", path, **wrong))
