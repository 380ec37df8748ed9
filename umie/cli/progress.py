"""One progress display for all commands: bars on a terminal, one line a minute elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Self

from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from umie.cli.console import err

QUIET_S = 60.0  # between two lines of progress where there is no terminal for a bar


class Display:
    """A progress bar on standard error; without a terminal, a line per phase and at most one a minute.

    Args:
        quiet: show nothing, as the processes of a distributed run after the first do.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
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

    def phase(self, name: str, total: float | None = None) -> None:
        """Begin the bar of a phase."""
        if name == self._name:
            return
        self._name, self._total, self._shown = name, total, time.monotonic()
        if self._bar is not None:
            self.bars.remove_task(self._bar)
        self._bar = self.bars.add_task(escape(name), total=total, detail="")
        if not err.is_terminal:
            self.note(f"{name} ...")

    def advance(self, done: float, loss: float | None = None) -> None:
        """Move the bar."""
        detail = "" if loss is None or loss != loss else f"loss {loss:.4f}"
        if self._bar is not None:
            fields: dict[str, Any] = {"detail": detail} if detail else {}
            self.bars.update(self._bar, completed=done, **fields)
        if self._total and self._is_due():
            self.note(f"{self._name}: {done / self._total:.0%} {detail}".rstrip())

    def note(self, what: str) -> None:
        """Print a sentence that stays."""
        if not self.quiet:
            err.print(what, highlight=False, markup=False, soft_wrap=True)

    def _is_due(self) -> bool:
        """Say whether a line of progress is due where there is no terminal."""
        if err.is_terminal or time.monotonic() - self._shown < QUIET_S:
            return False
        self._shown = time.monotonic()
        return True


class GridDisplay(Display):
    """A bar for each running job of a grid."""

    def __init__(self) -> None:
        super().__init__()
        self._jobs: dict[str, TaskID] = {}
        self.num_started = 0

    def preparing(self, what: str) -> None:
        """Show what happens before the first job, on a terminal only."""
        if err.is_terminal:
            self.phase(what)

    def start(self, job: str) -> None:
        """Begin the bar of a job."""
        if self._bar is not None:
            self.bars.remove_task(self._bar)
            self._bar = None
        self.num_started += 1
        self._jobs[job] = self.bars.add_task(escape(job), total=1.0, detail="loading")
        if not err.is_terminal:
            self.note(f"{job}: started")

    def advance_job(self, job: str, phase: str, share: float) -> None:
        """Move the bar of a job."""
        self.bars.update(self._jobs[job], completed=share, detail=phase)
        if self._is_due():
            self.note(f"{job}: {phase} {share:.0%}")

    def finish(self, job: str, line: Mapping[str, Any]) -> None:
        """Remove the bar of a job and print its result."""
        self.bars.remove_task(self._jobs.pop(job))
        seconds = line.get("seconds", {}).get("total", 0)
        if line["status"] != "ok":
            self.note(f"{job}: crashed: {line['error']}")
            return
        scores = " ".join(f"{task} {result['f1']:.3f}" for task, result in line.get("metrics", {}).items())
        self.note(f"{job}: done in {seconds:.0f} s {scores}".rstrip())
