"""`umie data audit`, `clean` and `fingerprint`."""

import json

import pytest

from umie.audit.audit import short_names
from umie.records import Argument, Entity, Event, Record, read_jsonl, write_jsonl

SYLLABLES = ("ka", "lo", "mi", "ne", "ru", "sa", "to", "vu", "wy")
WORDS = [f"{a}{b}{a}{b}" for a in SYLLABLES for b in SYLLABLES]


@pytest.fixture
def splits(tmp_path):
    """Write records 0 to 59 as train, and 57 to 79 and a near duplicate of record 0 as test."""
    records = [Record(f"{word} {word} and {word}", id=word, entities=(Entity("person", (0, 4)),)) for word in WORDS]
    paths = {"train": tmp_path / "train.jsonl", "test": tmp_path / "test.jsonl"}
    write_jsonl(paths["train"], records[:60])
    near = Record("RT : " + records[0].text, id="near")
    write_jsonl(paths["test"], [*records[57:80], near])
    return paths


def test_audit(umie, tmp_path, splits):
    before = {path: path.read_bytes() for path in splits.values()}
    report = tmp_path / "audit.json"
    code, out, err = umie(
        "data", "audit", "--train", splits["train"], "--test", splits["test"], "--threshold", 0.7, "--json", report
    )
    assert (code, err) == (0, "")
    assert "4 of 24 records of test (16.7%) have a text that is also in train, 1 of them a near duplicate" in out
    found = json.loads(report.read_text())
    shared = found["overlaps"][0]
    assert (shared["left"], shared["right"]) == ("test", "train")
    assert shared["records"] == {"text": 3, "near_text": 1, "image_name": 0, "image_bytes": 0, "image_looks": 0}
    assert shared["ids"]["text"] == [{"id": word, "matches": [word]} for word in WORDS[57:60]]
    assert shared["ids"]["near_text"] == [{"id": "near", "matches": [WORDS[0]]}]
    assert {path: path.read_bytes() for path in splits.values()} == before


def test_audit_against_another_set(umie, tmp_path, splits):
    report = tmp_path / "audit.json"
    umie("data", "audit", "--test", splits["test"], "--against", splits["train"], "--json", report)
    found = json.loads(report.read_text())
    other = "/".join(splits["train"].parts[-2:])
    counts = {(item["left"], item["right"]): item["records"]["text"] for item in found["overlaps"]}
    assert counts == {("test", "test"): 0, ("test", other): 3, (other, "test"): 3}


def test_audit_of_oracles(umie, tmp_path):
    path = tmp_path / "a.jsonl"
    events = (Event("meet", (0, 3), (Argument("Person", (4, 7)),)),)
    write_jsonl(path, [Record("Ann met", id="1", events=events)])
    _, out, _ = umie("data", "audit", "--test", path)
    assert "meae: 1 of 1 instructions contain a gold label" in out
    assert "med: " not in out


def test_audit_reports_edited_labels(umie, tmp_path, splits):
    table = tmp_path / "versions.json"
    code, out, _ = umie("data", "fingerprint", splits["train"], "--name", "the original", "--add-to", table)
    assert (code, out) == (0, f"1 added, 1 versions in {table}\n")
    records = list(read_jsonl(splits["train"]))
    edited = Record(records[0].text, entities=(Entity("place", (0, 4)),), id="0")
    write_jsonl(splits["train"], [edited, *records[1:]])
    _, out, _ = umie("data", "audit", "--train", splits["train"], "--versions", table)
    assert (
        "train has the texts of the original, but other labels: about 1 records differ; "
        "mner person 60 -> 59; mner place 0 -> 1"
    ) in out


def test_fingerprints(umie, tmp_path, splits):
    table = tmp_path / "versions.json"
    umie("data", "fingerprint", *splits.values(), "--name", "a", "--name", "b", "--add-to", table)
    _, out, _ = umie("data", "fingerprint", splits["test"], "--name", "a", "--add-to", table)
    assert out == f"1 added, 2 versions in {table}\n"  # an entry of the same name is replaced
    entries = {entry["name"]: entry for entry in json.loads(table.read_text())}
    assert entries["a"]["records"] == 24
    _, out, _ = umie("data", "fingerprint", splits["test"], "--name", "a")
    assert json.loads(out) == [entries["a"]]
    assert "kaka" not in table.read_text()


def test_clean(umie, tmp_path, splits):
    output = tmp_path / "clean.jsonl"
    code, out, err = umie(
        "data", "clean", splits["train"], "--against", splits["test"], "-o", output, "--threshold", 0.7
    )
    other = "/".join(splits["test"].parts[-2:])
    assert code == 0
    assert out == f"records: 60; removed: 4; written: 56 to {output}\n"
    assert err.splitlines() == [
        f"removed: {WORDS[0]} (near text of near in {other})",
        *(f"removed: {word} (text of {word} in {other})" for word in WORDS[57:60]),
    ]
    assert [record.id for record in read_jsonl(output)] == WORDS[1:57]
    assert len(list(read_jsonl(splits["train"]))) == 60


def test_clean_by_text_only(umie, tmp_path, splits):
    output = tmp_path / "clean.jsonl"
    umie(
        "data",
        "clean",
        splits["train"],
        "--against",
        splits["test"],
        "-o",
        output,
        "--match",
        "text",
        "--threshold",
        0.7,
    )
    assert [record.id for record in read_jsonl(output)] == WORDS[:57]


def test_clean_by_image(umie, tmp_path, noise):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    noise(32, 32, seed=1).save(tmp_path / "one" / "a.png")
    noise(32, 32, seed=1).save(tmp_path / "two" / "b.png")
    write_jsonl(
        tmp_path / "one" / "a.jsonl", [Record("Ann", image="a.png", id="1"), Record("Bob", image="c.png", id="2")]
    )
    write_jsonl(
        tmp_path / "two" / "b.jsonl", [Record("Cid", image="b.png", id="3"), Record("Dan", image="d.png", id="4")]
    )
    arguments = ("data", "clean", tmp_path / "one" / "a.jsonl", "--against", tmp_path / "two" / "b.jsonl", "-o")
    umie(*arguments, tmp_path / "near.jsonl")
    assert [record.id for record in read_jsonl(tmp_path / "near.jsonl")] == ["1", "2"]
    umie(*arguments, tmp_path / "image.jsonl", "--match", "image")
    assert [record.id for record in read_jsonl(tmp_path / "image.jsonl")] == ["2"]


def test_names_are_as_short_as_possible(tmp_path):
    paths = [tmp_path / "a" / "x" / "train.txt", tmp_path / "b" / "x" / "train.txt", tmp_path / "x" / "dev.txt"]
    assert short_names(paths) == ["a/x/train.txt", "b/x/train.txt", "x/dev.txt"]
