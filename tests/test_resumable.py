"""ResumableLines: files are resumed after their last complete item."""

import pytest

from umie.errors import UmieError
from umie.resumable import ResumableLines


def test_files_are_truncated_to_the_items_that_all_have(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    (tmp_path / "a.part").write_text("1\n2\n3\n")
    (tmp_path / "b.part").write_text("1\n2")
    (tmp_path / "a.part.run").write_text("x")
    with ResumableLines(paths, "x").open() as lines:
        assert lines.done == 1
        lines.write("two", "zwei")
    assert (tmp_path / "a").read_text() == "1\ntwo\n"
    assert (tmp_path / "b").read_text() == "1\nzwei\n"


def test_another_run_cannot_resume(tmp_path):
    lines = ResumableLines([tmp_path / "a"], "x")
    with pytest.raises(KeyboardInterrupt), lines.open():
        lines.write("one")
        raise KeyboardInterrupt
    with (
        pytest.raises(UmieError, match="a.part: belongs to an unfinished run"),
        ResumableLines(lines.paths, "y").open(),
    ):
        pass
    with ResumableLines(lines.paths, "x").open() as resumed:
        assert resumed.done == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
