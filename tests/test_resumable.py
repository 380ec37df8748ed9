"""ResumableLines: files are resumed after their last complete item, and damage is noticed."""

import os
import random
import shutil

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
            for number, item in enumerate(ITEMS[:stop]):
                if not lines.is_done(number):
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
    assert digest_file(path).read_text().splitlines()[0].endswith("  a")
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


def copies(folder):
    return sorted(path.name for path in folder.iterdir() if ".damaged" in path.name)


def flip(path, place, bit=1):
    data = bytearray(path.read_bytes())
    data[place] ^= bit
    path.write_bytes(data)


def lines_before(path, number):
    return sum(len(line) + 1 for line in path.read_bytes().split(b"\n")[:number])


@pytest.mark.parametrize("damaged", [0, 1, 3, 4])
def test_a_damaged_line_costs_only_its_item(tmp_path, whole, damaged):
    write(tmp_path, 5)
    part = tmp_path / "a.part"
    flip(part, lines_before(part, damaged - (damaged > 2)) + 4)
    before = part.read_bytes()
    done, damage = write(tmp_path)
    assert done == 4
    assert "a.part is damaged: 4 finished items are kept" in damage
    assert f"item {damaged + 1} is written again" in damage or damaged == 4
    assert damage.endswith("what was damaged is kept in " + str(tmp_path / "a.part.damaged"))
    assert (tmp_path / "a.part.damaged").read_bytes() == before
    assert content(tmp_path) == whole


def test_damage_of_the_state_costs_only_its_line(tmp_path, whole):
    for number in range(6):  # 0: the line about the run
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder, 5)
        state = folder / "a.part.run"
        flip(state, lines_before(state, number) + 3)
        done, damage = write(folder)
        assert done == (4 if number else 5)
        assert "a.part.run is damaged" in damage
        assert copies(folder) == ["a.part.run.damaged"]
        assert content(folder) == whole


def test_a_state_that_lost_its_last_lines_is_reported(tmp_path, whole):
    write(tmp_path, 5)
    state = tmp_path / "a.part.run"
    state.write_bytes(state.read_bytes()[: lines_before(state, 3)])
    done, damage = write(tmp_path)
    assert (done, content(tmp_path)) == (2, whole)
    assert "a.part.run is damaged: 2 finished items are kept, those after them are written again" in damage


def test_a_run_with_gaps_resumes_after_further_kills_and_damage(tmp_path, whole):
    write(tmp_path, 5)
    flip(tmp_path / "b.part", 2)
    flip(tmp_path / "a.part", lines_before(tmp_path / "a.part", 2) + 2)
    lines = open_lines(tmp_path)
    with pytest.raises(KeyboardInterrupt), lines.open():
        assert [item for item in range(6) if not lines.is_done(item)] == [0, 3, 5]
        lines.write(*ITEMS[0])
        raise KeyboardInterrupt
    flip(tmp_path / "b.part", lines_before(tmp_path / "b.part", 1) + 2)
    lines = open_lines(tmp_path)
    with lines.open():
        left = [item for item in range(6) if not lines.is_done(item)]
        assert 3 in left and len(left) == 3
        for item in left:
            lines.write(*ITEMS[item])
    assert content(tmp_path) == whole
    assert copies(tmp_path) == ["a.part.damaged", "b.part.damaged", "b.part.damaged-2"]


def test_a_kill_while_files_are_moved_to_their_names_loses_nothing(tmp_path, whole):
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder, 6)
        for name in "abc"[: number + 1]:
            (folder / f"{name}.part").replace(folder / name)
        assert write(folder) == (6, None)
        assert content(folder) == whole


@pytest.mark.parametrize("number", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_damage_is_reported_and_never_continued_in_silence(tmp_path, whole, number):
    rng = random.Random(number)
    for turn in range(number):
        folder = tmp_path / str(turn)
        folder.mkdir()
        write(folder, 5)
        path = folder / rng.choice(("a.part", "b.part", "c.part", "a.part.run"))
        before = path.read_bytes()
        data = bytearray(before)
        place = rng.randrange(len(data))
        kind = rng.randrange(3)
        if kind == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[place : place + rng.choice((1, 3, 30))]
        else:
            data[place:place] = rng.choice((b"\n", b"0", b"\xff", b" - -\n"))
        path.write_bytes(data)
        done, damage = write(folder)
        assert content(folder) == whole
        assert kind == 1 or done >= 3  # a line break that is gone costs two items
        # what a kill leaves: an end of the state within a line
        is_cut = path.suffix == ".run" and before[: data.rfind(b"\n") + 1] == data[: data.rfind(b"\n") + 1]
        assert (damage is None) == (not copies(folder))
        assert damage or done == 5 or is_cut
        if damage:
            assert (folder / copies(folder)[0]).read_bytes() == data
        shutil.rmtree(folder)


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
