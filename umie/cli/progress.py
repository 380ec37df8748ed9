"""The progress display of all commands: bars on a terminal, at most one line per minute elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from umie.cli.console import err
from umie.errors import printable

QUIET_S = 60.0  # between two lines of progress if standard error is not a terminal
REFRESH_S = 0.1  # between two updates of a counter


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
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=err,
            transient=True,
            disable=quiet or not err.is_terminal,
        )
        self._bar: TaskID | None = None
        self._name = ""
        self._total: float | None = None
        self._shown = time.monotonic()

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


class GridDisplay(Display):
    """One bar per running job of a grid."""

    def __init__(self) -> None:
        super().__init__()
        self._jobs: dict[str, TaskID] = {}
        self.num_started = 0

    def preparing(self, what: str) -> None:
        """Show a step before the first job, without a line of output where there is no terminal."""
        self.phase(what, announce=False)

    def start(self, job: str) -> None:
        """Start the bar of a job."""
        if self._bar is not None:
            self.bars.remove_task(self._bar)
            self._bar = None
        self.num_started += 1
        self._jobs[job] = self.bars.add_task(escape(job), total=1.0, detail="loading")
        if not err.is_terminal:
            self.note(f"{job}: started")

    def advance_job(self, job: str, phase: str, share: float) -> None:
        """Update the bar of a job."""
        self.bars.update(self._jobs[job], completed=share, detail=phase)
        if self._is_due():
            self.note(f"{job}: {phase} {share:.0%}")

    def finish(self, job: str, line: Mapping[str, Any]) -> None:
        """Remove the bar of a job and print its result."""
        self.bars.remove_task(self._jobs.pop(job))
        if line["status"] != "ok":
            self.note(f"{job}: crashed: {line['error']}")
            return
        seconds = line.get("seconds", {}).get("total", 0)
        scores = " ".join(f"{task} {result['f1']:.3f}" for task, result in line.get("metrics", {}).items())
        self.note(f"{job}: done in {seconds:.0f} s {scores}".rstrip())


def disable_progress_bars() -> None:
    """Turn off the bars of transformers for loading weights; commands show their own."""
    from transformers.utils import logging

    logging.disable_progress_bar()
