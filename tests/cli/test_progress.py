"""The progress display: a bar on a terminal, a line per minute elsewhere."""

import io

import pytest
from rich.console import Console

from umie.cli import progress
from umie.experiments.tally import Tally


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


def tally(finished, ran, left_s=None):
    return Tally(total=5, finished=finished, ran=ran, planned=4, left_s=left_s)


OK = {"status": "ok", "seconds": {"total": 3.0}, "metrics": {"mner": {"f1": 0.5}}}


def test_a_grid_prints_a_line_per_minute_without_a_terminal(console, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    stream = console(False)
    with progress.GridDisplay() as display:
        display.preparing("checking train")
        display.cells(tally(1, 0))
        display.start("gated, seed 0")
        display.start("concat, seed 0")
        for step in range(1, 90):
            now += 1
            display.advance_job("gated, seed 0", "train", step / 100)
        display.finish("gated, seed 0", OK)
        display.finish("concat, seed 0", {"status": "crashed", "error": "no luck"})
        display.cells(tally(2, 2, 125.0))
        now += 60
        display.cells(tally(2, 2, 65.0))
    assert stream.getvalue().splitlines() == [
        "running 4 of 5 cells",
        "1 of 5 cells have results, running gated, seed 0 (train 60%); concat, seed 0 (loading)",
        "concat, seed 0: failed: no luck",
        "2 of 5 cells have results, 1 failed, about 0:01:05 left",
    ]


def test_many_running_jobs_fit_in_a_line(console, monkeypatch):
    monkeypatch.setattr(progress, "QUIET_S", 0)
    stream = console(False)
    with progress.GridDisplay() as display:
        for number in range(6):
            display.start(f"job {number}")
        display.advance_job("job 5", "train", 0.5)
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("job 3 (loading) and 2 more")


def test_a_grid_has_a_bar_and_the_time_left_on_a_terminal(console, monkeypatch):
    stream = console(True)
    with progress.GridDisplay() as display:
        display.cells(tally(1, 0))
        display.start("gated, seed 0")
        display.advance_job("gated, seed 0", "train", 0.5)
        display.finish("gated, seed 0", OK)
        display.cells(tally(2, 1, 3725.0))
        display.bars.refresh()
    shown = stream.getvalue()
    assert "gated, seed 0: done in 3 s mner 0.500" in shown
    assert "2 of 5 cells have results" in shown
    assert "25%" in shown and "1:02:0" in shown


def test_a_grid_without_cells_to_run_prints_nothing(console):
    stream = console(False)
    with progress.GridDisplay() as display:
        display.cells(Tally(total=5, finished=5, planned=0))
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.2, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05"), (360_000, "100:00:00")]
)
def test_a_duration_has_hours_minutes_and_seconds(seconds, expected):
    assert progress.clock(seconds) == expected
