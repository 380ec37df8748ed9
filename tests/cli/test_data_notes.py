"""What the commands say about data that they change, assume or doubt."""

import json
from pathlib import Path

import pytest

from umie.records import read_jsonl

PAIR = {"token": ["Ann", "of", "NASA"], "h": {"name": "Ann", "pos": [0, 1]}, "t": {"name": "NASA", "pos": [2, 3]}}


def relations(path: Path, *types: str) -> Path:
    line = {"text": "Ann of NASA", "tasks": ["mre"]}
    lines = [{**line, "id": str(number), "relations": [{"type": name, "head": [0, 3], "tail": [7, 11]}]}
             for number, name in enumerate(types)]  # fmt: skip
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def test_convert_says_which_labels_it_reads_as_none(umie, tmp_path):
    pairs = [{**PAIR, "img_id": "1.jpg", "relation": name} for name in ("NA", "negative", "/a/b/peer")]
    (tmp_path / "a.txt").write_text("\n".join(map(repr, pairs)))
    arguments = ("data", "convert", "-f", "mnre", "-i", tmp_path / "a.txt", "-o", tmp_path / "o.jsonl")
    code, out, err = umie(*arguments)
    assert (code, "Written: " in out) == (0, True)
    assert "note: relations of the type 'NA', read as 'none': 1\n" in err
    assert "warning: relation label 'negative' may mean 'none', but is scored as a relation" in err
    assert [record.relations[0].type for record in read_jsonl(tmp_path / "o.jsonl")] == ["none", "negative", "peer"]
    _, _, err = umie(*arguments, "--no-relation", "negative", "--no-relation", "NA")
    assert "note: relations of the type 'negative', read as 'none': 1\n" in err
    assert [record.relations[0].type for record in read_jsonl(tmp_path / "o.jsonl")] == ["none", "none", "peer"]


@pytest.mark.parametrize("name", ["NA", "n/a", "no_relation", "Other", "negative"])
def test_jsonl_is_not_changed_but_validate_and_evaluate_warn(umie, tmp_path, name):
    gold = relations(tmp_path / "g.jsonl", *[name] * 9, "peer")
    predicted = relations(tmp_path / "p.jsonl", *[name] * 10)
    code, out, _ = umie("data", "validate", gold)
    assert (code, f"9 times, relation label {name!r}" in out) == (0, True)
    code, out, _ = umie("data", "validate", gold, "--no-relation", name)
    assert (code, "0 warnings" in out) == (0, True)
    umie("data", "convert", "-i", gold, "-o", tmp_path / "o.jsonl")
    assert next(read_jsonl(tmp_path / "o.jsonl")).relations[0].type == name
    scores = tmp_path / "s.json"
    files = ("evaluate", "--gold", gold, "--predictions", predicted, "--resamples", "100", "--json", scores)
    for options, is_doubtful in (((), True), (("--no-relation", name), False)):
        code, _, err = umie(*files, *options)
        assert (code, f"warning: relation label {name!r}" in err) == (0, is_doubtful)
        f1 = next(line["f1"] for line in json.loads(scores.read_text())["measures"] if line["measure"] == "strict")
        assert f1 == (0.9 if name == "negative" and is_doubtful else 0)


def test_every_command_that_reads_says_what_it_changed(umie, tmp_path):
    (tmp_path / "a.txt").write_text(repr({**PAIR, "img_id": "1.jpg", "relation": "NA"}))
    for command in ("stats", "sample", "fingerprint"):
        code, _, err = umie("data", command, tmp_path / "a.txt", "--format", "mnre")
        assert (code, err) == (0, "note: relations of the type 'NA', read as 'none'\n")


def test_repeated_ids_get_a_number(umie, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "Ann", "id": 5}\n{"text": "Bob", "id": "5"}\n')
    code, _, err = umie("data", "convert", "-i", tmp_path / "a.jsonl", "-o", tmp_path / "o.jsonl")
    assert (code, err) == (0, "note: ids that occur again, read with a number: 1\n")
    assert umie("data", "validate", tmp_path / "a.jsonl")[0] == 2
    assert umie("data", "validate", tmp_path / "o.jsonl")[0] == 0


def test_labels_that_look_alike_are_reported(umie, tmp_path):
    names = ("Place of birth", "place_of_birth", "place of birth in", "a, b", "a", "<spot>")
    path = relations(tmp_path / "a.jsonl", *names)
    _, out, _ = umie("data", "validate", path)
    _, _, err = umie("data", "convert", "-i", path, "-o", tmp_path / "o.jsonl")
    for text in (out, err):
        assert "mre labels 'Place of birth', 'place_of_birth' differ only in case, spaces" in text
        assert "mre labels 'a', 'a, b': only the style structured tells them apart" in text
        assert "mre label '<spot>' has a marker" in text
        assert text.count("warning: ") == 3


def test_offsets_that_seem_to_be_of_another_unit_are_reported(umie, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "\\ud83d\\ude00 Ann Lee", "entities": [{"type": "person", "span": [3, 10]}]}\n')
    assert "offsets count UTF-16 units" in umie("data", "validate", path)[1]
    path.write_text('{"text": "\\ud83d\\ude00 Ann Lee in", "entities": [{"type": "person", "span": [3, 6]}]}\n')
    assert "the offsets seem to count UTF-16 units" in umie("data", "validate", path)[1]
    arguments = ("data", "convert", "-i", path, "-o", tmp_path / "o.jsonl")
    assert "records whose offsets seem to count UTF-16 units" in umie(*arguments)[2]
    assert umie(*arguments, "--format-option", "offsets=utf16")[2] == ""
    assert next(read_jsonl(tmp_path / "o.jsonl")).entities[0].text == "Ann"


@pytest.mark.parametrize("command", [("validate",), ("stats", "--no-images"), ("sample",), ("sample", "--json")])
def test_control_characters_of_data_are_never_printed_raw(umie, tmp_path, command):
    bad = "\x1b]0;owned\x07\x9b31m\u202e"
    line = {
        "id": bad,
        "text": f"Ann {bad}",
        "entities": [{"type": bad, "span": [0, 3]}],
        "tasks": ["mner", bad],
        "image": bad,
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(line) + "\n")
    _, out, err = umie("data", command[0], tmp_path / "a.jsonl", *command[1:])
    assert not set("\x1b\x07\x9b\u202e") & set(out + err)
    assert "u001b" in out or "x1b" in out
