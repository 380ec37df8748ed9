"""A file that is used as two splits is an error of the plan and of the run, under every name and in every order."""

import json
import os
import shutil

import pytest

from umie.errors import UmieError
from umie.experiments.data_config import read_data_config
from umie.experiments.data_splits import check_content
from umie.records import Record

TEXTS = {"train": "Anna met {}", "dev": "Bo saw {}", "test": "{} called Cy"}


def record(text, number, **more):
    return {"id": str(number), "text": text, "entities": [{"type": "person", "span": [0, 2]}], **more}


def write(path, records):
    path.write_text("".join(json.dumps(one) + "\n" for one in records))


@pytest.fixture
def folder(tmp_path):
    for split, text in TEXTS.items():
        write(tmp_path / f"{split}.jsonl", [record(text.format("xyz"[number] * 3), number) for number in range(3)])
    return tmp_path


def config(folder, **splits):
    data = {"format": "jsonl", **{split: f"{split}.jsonl" for split in TEXTS}, **splits}
    values = {"data": data, "tasks": ["mner"], "fusion": "text_only", "training": {"max_steps": 1, "batch_size": 2}}
    path = folder / "config.yaml"
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize("command", [("train", "--plan"), ("train",), ("ablate", "--plan"), ("ablate",)], ids=" ".join)
def test_one_file_as_two_splits(folder, umie, command):
    name, *options = command
    path = config(folder, dev="test.jsonl")
    code, _, err = umie(name, path, *options, "--output", folder / "out")
    assert (code, "dev and test are the same file" in err, "leave out dev" in err) == (2, True, True)
    assert "Traceback" not in err
    assert not list(folder.glob("out/**/*.safetensors"))


@pytest.mark.parametrize("command", ["train", "ablate"])
def test_different_files_are_no_error(folder, umie, command):
    code, out, err = umie(command, config(folder), "--plan", "--output", folder / "out")
    assert (code, "records: train 3, dev 3, test 3" in out) == (0, True), err


def link(folder, make):
    make(folder / "train.jsonl", folder / "other.jsonl")
    return "other.jsonl"


def rewritten(folder, change):
    records = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    write(folder / "other.jsonl", change(records))
    return "other.jsonl"


SAME = {
    "other spelling": lambda folder: f"../{folder.name}/./train.jsonl",
    "symbolic link": lambda folder: link(folder, lambda old, new: new.symlink_to(old)),
    "hard link": lambda folder: link(folder, os.link),
    "copy": lambda folder: link(folder, shutil.copy),
    "other order": lambda folder: rewritten(folder, lambda records: records[::-1]),
    "other ids": lambda folder: rewritten(folder, lambda records: [{**one, "id": "x"} for one in records]),
    "other spaces": lambda folder: rewritten(
        folder, lambda records: [{**one, "text": one["text"] + "  "} for one in records]
    ),
    "other annotation": lambda folder: rewritten(folder, lambda records: [{**one, "entities": []} for one in records]),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_records_under_another_name(folder, umie, name):
    path = config(folder, test=SAME[name](folder))
    code, _, err = umie("train", path, "--plan")
    assert (code, "data: train and test" in err) == (2, True)


def test_two_data_sets_share_a_file_only_if_they_share_no_task(folder, umie):
    pair = {"type": "peer", "head": {"span": [0, 2]}, "tail": {"span": [3, 5]}}
    for split in TEXTS:
        path = folder / f"{split}.jsonl"
        write(path, [{**json.loads(line), "relations": [pair]} for line in path.read_text().splitlines()])
    names = {"format": "jsonl", "train": "train.jsonl", "test": "test.jsonl", "tasks": ["mner"]}
    for task, expected in (("mner", 2), ("mre", 0)):
        pairs = {"format": "jsonl", "train": "dev.jsonl", "test": "train.jsonl", "tasks": [task]}
        path = config(folder)
        values = json.loads(path.read_text())
        values |= {"data": {"sets": {"a": names, "b": pairs}}, "tasks": sorted({"mner", task})}
        path.write_text(json.dumps(values))
        code, _, err = umie("train", path, "--plan")
        assert (code, "data: train of a and test of b are the same file" in err) == (expected, bool(expected)), err


def test_a_plan_warns_about_texts_that_also_occur_in_training(folder, umie):
    with (folder / "test.jsonl").open("a") as file:
        file.write((folder / "train.jsonl").read_text().splitlines()[0] + "\n")
    for command in ("train", "ablate"):
        code, _, err = umie(command, config(folder), "--plan", "--output", folder / "out")
        assert (code, "1 of 4 texts of test also occur in training" in err) == (0, True)


def test_a_split_that_contains_another(folder, umie):
    records = [record(f"Anna met {number}", number, image=None) for number in range(30)]
    write(folder / "dev.jsonl", records)
    write(folder / "test.jsonl", [*records, record("Bo", 99)])
    code, _, err = umie("train", config(folder), "--plan")
    assert (code, "dev and test overlap: one contains all 30 records" in " ".join(err.split())) == (
        2,
        True,
    )


@pytest.mark.parametrize("medium", ["audio", "video"])
def test_records_without_texts_are_told_apart_by_their_media(medium):
    config = read_data_config({"format": "jsonl", "train": "a.jsonl", "test": "b.jsonl"}, {"mner": {}})
    train, test = ([Record("", **{medium: f"{split}/{number}"}) for number in range(30)] for split in ("train", "test"))
    (name,) = config.sets
    check_content(config, {name: {"train": train, "test": test}})
    with pytest.raises(UmieError, match="train and test have the same records"):
        check_content(config, {name: {"train": train, "test": train[::-1]}})
