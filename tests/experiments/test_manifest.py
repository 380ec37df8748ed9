"""Folders that later runs reuse are made again if a file is damaged, incomplete or missing."""

import pytest

from umie.checkpoints import MANIFEST, is_intact, write_manifest
from umie.experiments.data_config import read_data_config, read_tasks
from umie.experiments.prepare_data import prepare_corpus


def change(path, how):
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "half":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("how", ["missing", "half", "empty", "bit"])
@pytest.mark.parametrize("name", ["a.txt", "b/c.txt", MANIFEST])
def test_a_change_of_any_file_is_noticed(tmp_path, name, how):
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b" / "c.txt").write_text("two")
    assert not is_intact(tmp_path)
    write_manifest(tmp_path)
    assert is_intact(tmp_path)
    change(tmp_path / name, how)
    assert not is_intact(tmp_path)


@pytest.mark.parametrize("content", ["null", "[]", "{}", '{"a.txt": 3}', '{"none.txt": "x"}', "\xff"])
def test_what_is_no_manifest(tmp_path, content):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / MANIFEST).write_text(content, encoding="latin-1")
    assert not is_intact(tmp_path)


def test_damaged_embedded_data_are_drawn_again(tmp_path):
    config = read_data_config({"format": "synthetic", "train": 6, "dev": 3, "test": 3}, read_tasks(["mner"]))
    (one,) = prepare_corpus(config, root=tmp_path, output=tmp_path).sets.values()
    records = one.read("test")
    for how in ("missing", "half", "bit"):
        change((tmp_path / one.files["test"]), how)
        (again,) = prepare_corpus(config, root=tmp_path, output=tmp_path).sets.values()
        assert again.read("test") == records
