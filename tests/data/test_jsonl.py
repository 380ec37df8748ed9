"""The jsonl format: a thin reader over ``umie.records``, whose errors are tested in tests/records."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie.data import registry
from umie.errors import UmieError
from umie.records import Entity, Record, Region, write_jsonl

RECORD = Record(
    text="Ann is in Rome .",
    image="1.jpg",
    regions=(Region((0, 0.25, 0.5, 1), "Ann"),),
    entities=(Entity("person", (0, 3)),),
    id="1",
    tasks=("mner",),
)
FRAGMENTS = [
    b'{"text": "a b"}',
    b'{"text": "a", "entities": [{"type": "x", "span": [0, 1]}]}',
    b'{"text": ',
    b'"',
    b"{}",
    b"[]",
    b"\n",
    b"\r\n",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\x00",
    b"1e999",
    b"NaN",
    b'{"text": "a", "regions": [1]}',
]


def test_written_records_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [RECORD, Record("no image")])
    named = Record("no image", id="a.jsonl:2")  # by its line
    assert list(registry.build("jsonl", path=path)) == [RECORD, named]


def test_images_are_next_to_the_file_by_default(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [RECORD])
    (record,) = registry.build("jsonl", path=path)
    (elsewhere,) = registry.build("jsonl", path=str(path), images=tmp_path / "images")
    assert record.image_path() == (tmp_path / "1.jpg").resolve()
    assert elsewhere.image_path() == (tmp_path / "images" / "1.jpg").resolve()


def test_reads_one_record_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n{"text": ""}\n')
    records = registry.build("jsonl", path=path)
    assert next(records).text == "good"
    with pytest.raises(UmieError) as caught:
        next(records)
    assert str(caught.value).startswith(f"{path}:2: text is ''")


def test_regions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UmieError, match="'jsonl' has no separate region files; leave regions out"):
        list(registry.build("jsonl", path=tmp_path / "a.jsonl", regions=tmp_path))


def test_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent.jsonl"
    with pytest.raises(UmieError) as caught:
        list(registry.build("jsonl", path=path))
    assert str(caught.value) == f"{path}: cannot read: No such file or directory"


@given(st.binary(max_size=60) | st.lists(st.sampled_from(FRAGMENTS), max_size=8).map(b"".join))
def test_no_bytes_raise_anything_but_umie_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.jsonl")
        path.write_bytes(data)
        try:
            records = list(registry.build("jsonl", path=path))
        except UmieError as error:
            assert str(error).startswith(f"{path}:")
        else:
            assert all(record.text.strip() for record in records)
