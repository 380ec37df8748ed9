"""Progress of a grid on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from umie.cli.console import err


class GridDisplay:
    """A bar for the grid and one for each running job; plain lines where there is no terminal."""

    def __init__(self) -> None:
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[phase]}"),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self.bars: dict[str, TaskID] = {}
        self.num_started = 0
        self.preparation: TaskID | None = None

    def __enter__(self) -> GridDisplay:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def preparing(self, what: str) -> None:
        """Show what is done before the first job."""
        if self.preparation is None:
            self.preparation = self.progress.add_task(what, total=None, phase="")
        self.progress.update(self.preparation, description=what)

    def start(self, job: str) -> None:
        """Begin a job's bar."""
        if self.preparation is not None:
            self.progress.remove_task(self.preparation)
            self.preparation = None
        self.num_started += 1
        self.bars[job] = self.progress.add_task(escape(job), total=1.0, phase="loading")
        if not err.is_terminal:
            self._note(f"{job}: started")

    def advance(self, job: str, phase: str, share: float) -> None:
        """Move a job's bar."""
        self.progress.update(self.bars[job], completed=share, phase=phase)

    def finish(self, job: str, line: Mapping[str, Any]) -> None:
        """Remove a job's bar and print how it ended."""
        self.progress.remove_task(self.bars.pop(job))
        seconds = line.get("seconds", {}).get("total", 0)
        if line["status"] != "ok":
            self._note(f"{job}: crashed: {line['error']}")
            return
        scores = " ".join(f"{task} {result['f1']:.3f}" for task, result in line.get("metrics", {}).items())
        self._note(f"{job}: done in {seconds:.0f} s {scores}".rstrip())

    def _note(self, what: str) -> None:
        err.print(what, highlight=False, markup=False, soft_wrap=True)
