"""Atomic writes and reading line by line."""

import os
from pathlib import Path

import pytest

from umie.errors import UmieError
from umie.files import atomic_write, read_lines


def test_a_file_appears_whole_and_alone(tmp_path: Path):
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as file:
        file.write("grün\n")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "grün\n"
    assert os.listdir(path.parent) == ["a.txt"]


def test_an_error_leaves_the_old_file_and_no_trace(tmp_path: Path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="half way"), atomic_write(path, "wb") as file:
        file.write(b"new")
        raise RuntimeError("half way")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_the_mode_follows_the_umask(tmp_path: Path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a") as file:
            file.write("x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_lines_come_with_numbers_without_ends_or_mark(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\ntwo\n\nfour".encode())
    assert list(read_lines(path)) == [(1, "one"), (2, "two"), (3, ""), (4, "four")]


@pytest.mark.parametrize("name", ["missing.txt", "a\0b"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str):
    with pytest.raises(UmieError, match="cannot read"):
        list(read_lines(tmp_path / name))
