"""Auditing and cleaning from Python."""

import json

import pytest

from umie.audit import audit_splits, clean_file
from umie.data.source import Source
from umie.errors import UmieError
from umie.records import Entity, Record, read_jsonl, write_jsonl

TEXTS = ("Ann met Bob in Rome", "Cid left Oslo on Monday", "Nobody saw Dan there")


@pytest.fixture
def train(tmp_path):
    path = tmp_path / "train.jsonl"
    write_jsonl(path, [Record(text, id=str(number)) for number, text in enumerate(TEXTS)])
    return Source(path)


@pytest.fixture
def test(tmp_path):
    path = tmp_path / "test.jsonl"
    write_jsonl(path, [Record(TEXTS[1], id="a", entities=(Entity("person", (0, 3)),))])
    return Source(path)


def test_an_audit(train, test):
    seen = []
    result = audit_splits({"train": train, "test": test}, progress=lambda: seen.append(1))
    assert len(seen) == 4
    counts = {(item.left, item.right): len(item.matches["text"]) for item in result.overlaps}
    assert counts == {("test", "train"): 1, ("train", "train"): 0, ("test", "test"): 0}
    summary = result.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["versions"] == {"train": [], "test": []}


def test_an_audit_against_another_set(train, test):
    result = audit_splits({"test": test}, [train])
    other = "/".join(train.path.parts[-2:])
    assert {(item.left, item.right) for item in result.overlaps} == {("test", "test"), ("test", other), (other, "test")}
    assert [split.name for split in result.splits] == ["test", other]


def test_a_cleaned_file(train, test, tmp_path):
    result = clean_file(train, [test], tmp_path / "clean.jsonl")
    assert (result.num_records, [identifier for identifier, _ in result.removed]) == (3, ["1"])
    assert [record.id for record in read_jsonl(tmp_path / "clean.jsonl")] == ["0", "2"]


def test_bad_arguments(train, test, tmp_path):
    with pytest.raises(UmieError, match="nothing to audit"):
        audit_splits({})
    with pytest.raises(UmieError, match="same file"):
        audit_splits({"train": train}, [train])
    with pytest.raises(UmieError, match="match is 'x'"):
        clean_file(train, [test], tmp_path / "clean.jsonl", match=["x"])
    with pytest.raises(UmieError, match="is an input"):
        clean_file(train, [test], test.path)
