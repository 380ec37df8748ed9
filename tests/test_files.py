"""Atomic writes and reading line by line."""

import math
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from umie.data.reading import numbered_lines
from umie.errors import UmieError, printable
from umie.files import MAX_LINE, atomic_write, bounded_lines, json_text, parse_json, read_json, read_lines
from umie.records import read_numbered_jsonl


def test_a_file_appears_whole_and_leaves_no_temporary_file(tmp_path: Path):
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


def test_a_link_stays_and_what_it_names_is_written(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.txt").write_text("old")
    for name, target in (("link", "real/a.txt"), ("dangling", "real/b.txt")):
        (tmp_path / name).symlink_to(target)
        with atomic_write(tmp_path / name) as file:
            file.write("new")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / target).read_text() == "new"
    assert sorted(os.listdir(tmp_path / "real")) == ["a.txt", "b.txt"]


def test_a_pipe_stays(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        assert refused(tmp_path / name) == f"{tmp_path / name}: is a device or a pipe; use the name of a regular file"
        assert (tmp_path / name).is_fifo()


def test_where_no_file_can_be(tmp_path: Path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "loop").symlink_to("loop")
    assert refused(tmp_path) == f"{tmp_path}: is a directory; use the name of a file"
    for name in ("file/a", "file/a/b"):
        file = tmp_path / "file"
        assert refused(tmp_path / name) == f"{tmp_path / name}: {file} is not a directory; choose another path"
    for name in ("loop", "a\0b", "a" * 300):
        message = refused(tmp_path / name)
        assert message.startswith(printable(f"{tmp_path / name}: cannot write: "))
        assert "Errno" not in message
        assert ".part" not in message
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_name_of_the_greatest_length(tmp_path: Path):
    with atomic_write(tmp_path / ("a" * 255)) as file:
        file.write("x")
    assert os.listdir(tmp_path) == ["a" * 255]


def refused(path: Path) -> str:
    with pytest.raises(UmieError) as caught, atomic_write(path) as file:
        file.write("new")
    return str(caught.value)


def test_lines_come_with_numbers_without_ends_or_mark(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\ntwo\n\nfour".encode())
    assert list(read_lines(path)) == [(1, "one"), (2, "two"), (3, ""), (4, "four")]


@pytest.mark.parametrize("name", ["missing.txt", "a\0b"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str):
    with pytest.raises(UmieError, match="cannot read"):
        list(read_lines(tmp_path / name))


def through_read_lines(path: Path) -> list[str]:
    with pytest.raises(UmieError) as caught:
        list(read_lines(path))
    return [str(caught.value)]


def through_jsonl(path: Path) -> list[str]:
    errors: list[UmieError] = []
    assert [number for number, _ in read_numbered_jsonl(path, on_error=errors.append)] == [2]
    return [str(error) for error in errors]


def through_a_reader(path: Path) -> list[str]:
    (_, error), (number, line) = numbered_lines(path)
    assert (number, line) == (2, '{"text": "a"}')
    return [f"{path}:1: {error}"]


@pytest.mark.parametrize("read", [through_read_lines, through_jsonl, through_a_reader])
def test_a_line_is_never_held_whole(tmp_path: Path, read: Callable[[Path], list[str]]):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 26)
        file.seek(0, os.SEEK_END)
        file.write(b'\n{"text": "a"}\n')
    tracemalloc.start()
    try:
        (error,) = read(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 25
    finally:
        tracemalloc.stop()
    assert error.startswith(f"{path}:1: the line has more than 1,048,576 ")


def test_a_line_is_measured_in_characters(tmp_path: Path):
    path = tmp_path / "a.txt"
    for length in (MAX_LINE, MAX_LINE + 1):
        path.write_text("\U0001f600" * length + "\r\nb\n", encoding="utf-8")
        lines = list(bounded_lines(path))
        assert lines[1] == (2, "b")
        assert (len(lines[0][1]) if isinstance(lines[0][1], str) else 0) == (MAX_LINE if length == MAX_LINE else 0)


def test_a_json_file_may_begin_with_a_byte_order_mark(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_bytes('\ufeff{"a": [1, {"b": "é"}]}'.encode())
    assert read_json(path) == {"a": [1, {"b": "é"}]}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "not valid JSON: "),
        (b"[" * 100_000, "not valid JSON: "),
        (b"1" * 5000, "not valid JSON: "),
        (b'"\xff"', "not UTF-8 text"),
        (b'[{"a": 1, "a": 2}]', "duplicate key 'a'"),
        (b'{"a": [1, {"b": 1e999}]}', "a[1].b is inf, which is not a number in JSON: use a finite one, or null"),
        (b'{"a": -1e999}', "a is -inf, which is not"),
        (b"[NaN]", "[0] is nan, which is not"),
        (b"Infinity", "the value is inf, which is not"),
    ],
)
def test_an_invalid_json_file_is_named(tmp_path: Path, content: bytes, problem: str):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UmieError) as caught:
        read_json(path, "a table")
    assert str(caught.value).startswith(f"{path}: {problem}")
    assert str(caught.value).endswith("; expected a table")


def test_numbers_that_json_does_not_have_are_written_as_null():
    value = {"a": [1.5, math.nan, (math.inf, {"b": -math.inf})], "c": "é"}
    assert json_text(value) == '{"a": [1.5, null, [null, {"b": null}]], "c": "é"}'
    assert json_text({"a": [1.5], "c": "é"}, ensure_ascii=True) == '{"a": [1.5], "c": "\\u00e9"}'
    assert read_numbers('{"a": 1e999, "b": NaN}') == {"a": math.inf, "b": None}


def read_numbers(text: str) -> dict[str, float | None]:
    """Return what a file of another program holds, NaN as None, which can be compared."""
    return {key: None if math.isnan(value) else value for key, value in parse_json(text, allow_nan=True).items()}


@pytest.mark.parametrize("name", ["missing.json", "a\0b", "."])
def test_a_json_file_that_cannot_be_read_is_named(tmp_path: Path, name: str):
    with pytest.raises(UmieError, match="cannot read: "):
        read_json(tmp_path / name)
