"""Wrong arguments in Python are reported in one line, and are never used as something else."""

from pathlib import Path

import numpy as np
import pytest

import umie
from umie.errors import UmieError
from umie.evaluation import evaluate
from umie.extraction import Extractor, extract_file
from umie.records import Entity, Record

TEXT = "Anna met Bo"


@pytest.fixture(scope="module")
def variant():
    return umie.compose(tasks={"mner": {}, "mre": {}})


@pytest.fixture(scope="module")
def extractor(variant):
    return Extractor(*variant, max_new_tokens=2)


TEXTS = {
    "a record as JSON": {"text": TEXT, "image": "a.jpg"},
    "records as JSON": [{"text": TEXT}],
    "bytes": b"abc",
    "bytearray": bytearray(b"abc"),
    "nothing": None,
    "a path": Path("a.txt"),
    "a number": 3,
    "a set": {TEXT},
    "lists": [[TEXT]],
    "pairs": {"a": 1}.items(),
    "an image URL": Record(TEXT, "https://example.org/a.jpg"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_no_text(extractor, name):
    for call in (extractor.extract, lambda items: list(extractor.extract_many([items]))):
        with pytest.raises(UmieError, match="not a text|a URL"):
            call(TEXTS[name])
    if name not in ("records as JSON", "lists", "pairs"):
        with pytest.raises(UmieError, match="not a list|a URL"):
            list(extractor.extract_many(TEXTS[name]))


def test_the_name_of_a_file_is_no_text(extractor, tmp_path):
    path = tmp_path / "kids.jpg"
    assert extractor.extract(str(path)).record.text == str(path)
    path.touch()
    with pytest.raises(UmieError, match="is a file: pass an image as extract"):
        extractor.extract(str(path))
    assert extractor.extract(Record(str(path))).record.text == str(path)
    for text in ("中" * 250 + ".jpg", "a\0.jpg", "a" * 5000 + ".jpg"):
        assert extractor.extract(text).text == text


IMAGES = ("https://example.org/a.jpg", "s3://bucket/a.jpg", "file:///a.jpg", "data:image/png;base64,AAAA", "", 3,
          ["a.jpg"], b"abc", {"path": "a.jpg"}, np.zeros((3, 3, 3)))  # fmt: skip


@pytest.mark.parametrize("image", IMAGES, ids=lambda value: str(value)[:12])
def test_what_is_no_image(extractor, image):
    with pytest.raises(UmieError) as caught:
        extractor.extract(TEXT, image)
    assert "\n" not in str(caught.value)
    if isinstance(image, str) and ":" in image:
        use = "allow downloads" if image.startswith("http") else "download it"
        assert f"a URL: {use}" in str(caught.value)


OPTIONS = (
    {"labels": ["person"]}, {"labels": "person"}, {"labels": {"mner": "person"}}, {"labels": {"mner": None}},
    {"labels": {1: ["person"]}}, {"labels": {"mner": {"person": 1}}}, {"tasks": "mner"}, {"tasks": 3},
    {"tasks": [["mner"]]}, {"tasks": {"mner": {}}}, {"tasks": [None]}, {"regions": (0, 0, 1, 1)}, {"regions": "0,0"},
    {"regions": 3}, {"regions": [(0, 0, 1)]}, {"regions": [{"box": [0, 0, 1, 1]}]}, {"segments": (0, 1)},
    {"segments": [(1, 0)]}, {"segments": [{"interval": [0, 1]}]}, {"tracks": [(0, 1)]}, {"tracks": 3}, {"audio": ""},
    {"audio": "https://example.org/a.wav"}, {"video": ""},
)  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_of_extract(extractor, options):
    with pytest.raises(UmieError) as caught:
        extractor.extract(TEXT, **options)
    assert "\n" not in str(caught.value)


ITEMS = (
    {"entities": [("person", (0, 4))]}, {"entities": [{"type": "person", "span": [0, 4]}]}, {"entities": "person"},
    {"relations": [((0, 4), (9, 11))]}, {"events": ["attack"]}, {"regions": [(0, 0, 1, 1)]}, {"entities": {"a": 1}},
    {"entities": 3}, {"events": Entity("person", (0, 4))},
)  # fmt: skip


@pytest.mark.parametrize("items", ITEMS, ids=str)
def test_what_is_no_annotation(items):
    with pytest.raises(UmieError, match=r"umie\.(Entity|Relation|Event|Region)"):
        Record(TEXT, "a.jpg", **items)


COMPOSED = (
    {"tasks": ["mne"]}, {"tasks": [3]}, {"tasks": "mner"}, {"tasks": {"mner": None}}, {"tasks": {"mner": ["person"]}},
    {"tokenizer": "google/flan-t5-small"}, {"visual_embedding": "x"}, {"visual_embedding": [1]},
    {"max_input_tokens": "many"}, {"max_target_tokens": 0}, {"encoder": None}, {"encoder": ["tiny"]}, {"fusion": 3},
)  # fmt: skip


@pytest.mark.parametrize("options", COMPOSED, ids=str)
def test_arguments_of_compose(options):
    with pytest.raises(UmieError) as caught:
        umie.compose(**options)
    assert "\n" not in str(caught.value)


def test_arguments_of_the_extractor(variant):
    model, processor = variant
    for arguments in ((processor, model), (model, None), ("best", processor)):
        with pytest.raises(UmieError, match="pass a "):
            Extractor(*arguments)
    for name in (None, 3, ["best"], b"best"):
        with pytest.raises(UmieError, match="pass a directory or a hub name"):
            Extractor.from_pretrained(name)
    for name in ("https://example.org/best", "s3://bucket/best"):
        with pytest.raises(UmieError, match="neither an existing directory nor a hub name"):
            Extractor.from_pretrained(name)


@pytest.mark.parametrize("name", ["source", "output", "details", "images"])
@pytest.mark.parametrize("path", ["https://example.org/a.jsonl", "s3://bucket/a.jsonl", Path("gs://bucket/a"), 3, []])
def test_paths_of_extract_file(name, path, tmp_path):
    given = {"source": tmp_path / "a.jsonl", "output": tmp_path / "b.jsonl", name: path}
    with pytest.raises(UmieError, match="a URL|pass a path"):
        extract_file("best", **given)


def test_arguments_of_evaluate(variant):
    for records, task in (
        ({"text": TEXT}, "mner"),
        ([TEXT], "mner"),
        (Record(TEXT), "mner"),
        ([Record(TEXT)], ["mner"]),
    ):
        with pytest.raises(UmieError, match="pass "):
            evaluate(*variant, records, task)


def test_generation_options_of_a_decoder_that_generates_nothing():
    model, processor = umie.compose(fusion="text_only", decoder="span")
    assert Extractor(model, processor, num_beams=1).generation_options == {"num_beams": 1}  # the default
    with pytest.raises(UmieError, match="num_beams: the decoder scores candidates and generates nothing"):
        Extractor(model, processor, num_beams=4)
