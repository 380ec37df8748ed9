"""The progress display of all commands: bars on a terminal, at most one line per minute elsewhere."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from umie.cli.console import err
from umie.errors import printable

if TYPE_CHECKING:
    from umie.experiments.tally import Tally

QUIET_S = 60.0  # between two lines of progress if standard error is not a terminal
REFRESH_S = 0.1  # between two updates of a counter
SHOWN_JOBS = 4  # in a line about a grid


class Display:
    """A progress bar on standard error; without a terminal, one line per phase and at most one per minute.

    Args:
        quiet: show nothing, e.g. in all but the first process of a distributed run.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            _TimeLeft(),
            TextColumn("{task.fields[detail]}"),
            console=err,
            transient=True,
            disable=quiet or not err.is_terminal,
        )
        self._bar: TaskID | None = None
        self._name = ""
        self._total: float | None = None
        self._shown = time.monotonic()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def phase(self, name: str, total: float | None = None, *, announce: bool = True) -> None:
        """Start the bar of a phase with ``total`` steps, if known; ``announce`` its name if there is no terminal."""
        if name == self._name:
            return
        self._name, self._total, self._shown = name, total, time.monotonic()
        if self._bar is not None:
            self.bars.remove_task(self._bar)
        self._bar = self.bars.add_task(escape(name), total=total, detail="")
        if announce and not err.is_terminal:
            self.note(f"{name} ...")

    def advance(self, done: float, loss: float | None = None, *, detail: str = "") -> None:
        """Update the bar to the number of finished steps, with a loss (unless it is NaN) or a text after it."""
        if loss is not None and not math.isnan(loss):
            detail = f"loss {loss:.4f}"
        if self._bar is not None:
            fields: dict[str, Any] = {"detail": detail} if detail else {}
            self.bars.update(self._bar, completed=done, **fields)
        if (self._total or detail) and self._is_due():
            share = f"{done / self._total:.0%} " if self._total else ""
            self.note(f"{self._name}: {share}{detail}".rstrip())

    def note(self, what: str) -> None:
        """Print a line above the bars."""
        if not self.quiet:
            err.print(printable(what), highlight=False, markup=False, soft_wrap=True)

    def _is_due(self) -> bool:
        """Return whether to print a line of progress because there is no terminal for a bar."""
        with self._lock:  # the jobs of a grid have their own threads
            is_due = not err.is_terminal and time.monotonic() - self._shown >= QUIET_S
            if is_due:
                self._shown = time.monotonic()
            return is_due


@contextmanager
def counting(what: str, total: int | None = None, *, unit: str = "records") -> Iterator[Callable[[], None]]:
    """Show the number of finished items and their rate; yield the function that counts one item."""
    with Display() as display:
        display.phase(what, total, announce=False)
        started = updated = time.monotonic()
        done = 0

        def count() -> None:
            nonlocal done, updated
            done += 1
            now = time.monotonic()
            if now - updated >= REFRESH_S:
                updated = now
                display.advance(done, detail=f"{done:,} {unit}, {done / (now - started):,.1f} per second")

        yield count


class _TimeLeft(TimeRemainingColumn):
    """The time until the end of a task: until the moment in its field ``ends``, or else as its speed says."""

    def render(self, task: Task) -> Text:
        """Return the time as hours, minutes and seconds."""
        ends = task.fields.get("ends")
        if ends is None:
            return super().render(task)
        return Text(clock(max(0.0, ends - time.monotonic())), style="progress.remaining")


class GridDisplay(Display):
    """A bar of the grid and one of each running job; without a terminal, a line when it starts and one per minute."""

    def __init__(self) -> None:
        super().__init__()
        self.tally: Tally | None = None
        self.num_started = 0
        self._jobs: dict[str, TaskID] = {}
        self._states: dict[str, str] = {}  # of each running job
        self._grid: TaskID | None = None
        self._ends: float | None = None
        self._num_failed = 0

    def preparing(self, what: str) -> None:
        """Show a step before the first job, without a line of output where there is no terminal."""
        self.phase(what, announce=False)

    def cells(self, tally: Tally) -> None:
        """Show how far the grid is."""
        before, self.tally = self.tally, tally
        if not tally.planned:
            return
        self._ends = None if tally.left_s is None else time.monotonic() + tally.left_s
        if self._grid is None:
            self._end_phase()
            self._grid = self.bars.add_task("cells", total=tally.planned, detail="", ends=None)
        detail = f"{tally.finished} of {tally.total} cells have results"
        self.bars.update(self._grid, completed=tally.ran, detail=detail, ends=self._ends)
        if before is None and not err.is_terminal:
            self.note(f"running {tally.planned} of {tally.total} cells")
        self._show_progress()

    def start(self, job: str) -> None:
        """Start the bar of a job."""
        self._end_phase()
        self.num_started += 1
        self._jobs[job] = self.bars.add_task(escape(job), total=1.0, detail="loading")
        self._states[job] = "loading"

    def advance_job(self, job: str, phase: str, share: float) -> None:
        """Update the bar of a job."""
        self.bars.update(self._jobs[job], completed=share, detail=phase)
        self._states[job] = f"{phase} {share:.0%}"
        self._show_progress()

    def finish(self, job: str, line: Mapping[str, Any]) -> None:
        """Remove the bar of a job and print its result; without a terminal, only that it failed."""
        self.bars.remove_task(self._jobs.pop(job))
        del self._states[job]
        if line["status"] != "ok":
            self._num_failed += 1
            self.note(f"{job}: failed: {line['error']}")
            return
        if not err.is_terminal:
            return
        seconds = line.get("seconds", {}).get("total", 0)
        scores = " ".join(f"{task} {result['f1']:.3f}" for task, result in line.get("metrics", {}).items())
        self.note(f"{job}: done in {seconds:.0f} s {scores}".rstrip())

    def _end_phase(self) -> None:
        if self._bar is not None:
            self.bars.remove_task(self._bar)
            self._bar = None

    def _show_progress(self) -> None:
        """Print a line about the grid if there is no terminal and none was printed for a minute."""
        if not self._is_due():
            return
        parts = []
        if self.tally is not None:
            parts.append(f"{self.tally.finished} of {self.tally.total} cells have results")
        if self._num_failed:
            parts.append(f"{self._num_failed} failed")
        running = [f"{job} ({state})" for job, state in list(self._states.items())]
        if running:
            more = f" and {len(running) - SHOWN_JOBS} more" if len(running) > SHOWN_JOBS else ""
            parts.append(f"running {'; '.join(running[:SHOWN_JOBS])}{more}")
        if self._ends is not None:
            parts.append(f"about {clock(max(0.0, self._ends - time.monotonic()))} left")
        self.note(", ".join(parts))


def clock(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds, e.g. ``0:02:05``."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def disable_progress_bars() -> None:
    """Turn off the bars of transformers for loading weights; commands show their own."""
    from transformers.utils import logging

    logging.disable_progress_bar()
