"""ResumableLines: files are resumed after their last complete item, and damage is noticed."""

import os
import random

import pytest

from umie.errors import UmieError
from umie.resumable import ResumableLines, digest_file, is_changed

ITEMS = [(f"one {number}", f"two {number}", None) for number in range(6)]
ITEMS[2] = (None, None, "rejected 2")


def open_lines(folder, run="x"):
    return ResumableLines([folder / "a", folder / "b"], run, optional=[folder / "c"])


def write(folder, stop=None, run="x"):
    """Write all items, or stop after some; return how many were resumed, and the damage."""
    lines = open_lines(folder, run)
    try:
        with lines.open():
            done = lines.done
            for item in ITEMS[done:stop]:
                lines.write(*item)
            if stop is not None:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    return done, lines.damage


def content(folder):
    return {name: (folder / name).read_text() for name in "abc" if (folder / name).exists()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write(folder)
    return content(folder)


@pytest.mark.parametrize("stop", range(len(ITEMS)))
def test_an_interrupted_run_writes_the_same_files(tmp_path, whole, stop):
    write(tmp_path, stop)
    assert write(tmp_path) == (stop, None)
    assert content(tmp_path) == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.sha256", "b", "b.sha256", "c"]


def test_items_that_not_all_files_have_are_written_again(tmp_path, whole):
    """A kill came after the line of the first file."""
    write(tmp_path, 3)
    with (tmp_path / "a.part").open("a") as file:
        file.write("one 3\none")
    assert write(tmp_path) == (3, None)
    assert content(tmp_path) == whole


def test_another_run_cannot_resume(tmp_path):
    write(tmp_path, 2)
    for run in ("y", "x2"):
        with pytest.raises(UmieError, match=r"a\.part: belongs to an unfinished run"):
            write(tmp_path, run=run)
    (tmp_path / "a.part.run").unlink()
    with pytest.raises(UmieError, match="is missing or damaged"):
        write(tmp_path)


def test_a_file_without_lines_is_removed_if_it_is_optional(tmp_path):
    (tmp_path / "c").write_text("of an earlier run")
    with open_lines(tmp_path).open() as lines:
        lines.write("one", "two", None)
    assert content(tmp_path) == {"a": "one\n", "b": "two\n"}


def test_the_digest_of_a_complete_file(tmp_path):
    write(tmp_path)
    path = tmp_path / "a"
    assert digest_file(path).read_text().endswith("  a\n")
    assert not is_changed(path)
    path.write_text(path.read_text().replace("3", "4"))
    assert is_changed(path)
    digest_file(path).unlink()
    assert not is_changed(path)


def test_a_device_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(UmieError, match="is a (device or a pipe|directory)"), ResumableLines([path], "x").open():
            pass
    assert pipe.is_fifo()


@pytest.mark.parametrize("number", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_damage_is_reported_and_never_continued_in_silence(tmp_path, whole, number):
    rng = random.Random(number)
    for turn in range(number):
        folder = tmp_path / str(turn)
        folder.mkdir()
        write(folder, 5)
        path = folder / rng.choice(("a.part", "b.part", "c.part", "a.part.run"))
        data = bytearray(path.read_bytes())
        place = rng.randrange(len(data))
        kind = rng.randrange(3)
        if kind == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[place : place + rng.choice((1, 3, 30))]
        else:
            data[place:place] = rng.choice((b"\n", b"0", b"\xff", b" - -\n"))
        is_state, is_end = path.suffix == ".run", place >= len(data)
        path.write_bytes(data)
        try:
            done, damage = write(folder)
        except UmieError as error:
            assert is_state
            assert "\n" not in str(error)
            continue
        assert content(folder) == whole
        assert damage or done == 5 or is_end or is_state


def test_a_call_with_other_files_does_not_touch_what_is_done(tmp_path):
    write(tmp_path, 4)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with (
        pytest.raises(UmieError, match=r"a\.part: belongs to an unfinished run"),
        ResumableLines([tmp_path / "a", tmp_path / "other"], "x", optional=[tmp_path / "c"]).open(),
    ):
        pass
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert write(tmp_path) == (4, None)
