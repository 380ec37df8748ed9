"""The progress display: a bar on a terminal, a line per minute elsewhere."""

import io

import pytest
from rich.console import Console

from umie.cli import progress


@pytest.fixture
def console(monkeypatch):
    """Replace standard error: ``console(is_terminal)`` returns the stream."""

    def replace(is_terminal):
        stream = io.StringIO()
        monkeypatch.setattr(progress, "err", Console(file=stream, force_terminal=is_terminal, width=120))
        return stream

    return replace


@pytest.mark.parametrize(("total", "expected"), [(2, "reading: 100% 2 files"), (None, "reading: 2 files")])
def test_counting_prints_lines_without_a_terminal(console, monkeypatch, total, expected):
    monkeypatch.setattr(progress, "REFRESH_S", 0)
    monkeypatch.setattr(progress, "QUIET_S", 0)
    stream = console(False)
    with progress.counting("reading", total, unit="files") as count:
        count()
        count()
    assert stream.getvalue().splitlines()[1].startswith(expected)


def test_short_work_prints_nothing_without_a_terminal(console):
    stream = console(False)
    with progress.counting("reading") as count:
        count()
    assert stream.getvalue() == ""


def test_a_terminal_shows_a_bar(console, monkeypatch):
    monkeypatch.setattr(progress, "REFRESH_S", 0)
    stream = console(True)
    with progress.counting("reading [x]", 2) as count:
        count()
        count()
    assert "reading [x]" in stream.getvalue()
    assert "100%" in stream.getvalue() and "2 records" in stream.getvalue()


def test_a_phase_reports_its_loss_unless_it_is_nan(console, monkeypatch):
    monkeypatch.setattr(progress, "QUIET_S", 0)
    stream = console(False)
    with progress.Display() as display:
        display.phase("train", 4)
        display.advance(1, float("nan"))
        display.advance(2, 0.5)
    assert stream.getvalue().splitlines() == ["train ...", "train: 25%", "train: 50% loss 0.5000"]


def test_a_quiet_display_prints_nothing(console):
    stream = console(False)
    with progress.Display(quiet=True) as display:
        display.phase("train", 4)
        display.note("a note")
    assert stream.getvalue() == ""
