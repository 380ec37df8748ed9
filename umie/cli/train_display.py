"""Progress of a training run on the terminal: one bar with the loss, and sentences that stay."""

from __future__ import annotations

from typing import Any

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from umie.cli.console import err


class TrainDisplay:
    """A bar for the phase; without a terminal a line for each phase.

    Args:
        quiet: show nothing, as the processes of a distributed run beside the first do.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
            console=err,
            transient=True,
            disable=quiet or not err.is_terminal,
        )
        self.bar: TaskID | None = None
        self.name = ""

    def __enter__(self) -> TrainDisplay:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def phase(self, name: str, total: float | None = None) -> None:
        """Begin a phase's bar."""
        if name == self.name:
            return
        self.name = name
        if self.bar is not None:
            self.progress.remove_task(self.bar)
        self.bar = self.progress.add_task(name, total=total, loss="")
        if not err.is_terminal:
            self.note(f"{name} ...")

    def advance(self, done: float, loss: float | None = None) -> None:
        """Move the bar."""
        if self.bar is not None:
            changed: dict[str, Any] = {} if loss is None or loss != loss else {"loss": f"loss {loss:.4f}"}
            self.progress.update(self.bar, completed=done, **changed)

    def note(self, what: str) -> None:
        """Print a sentence."""
        if not self.quiet:
            err.print(what, highlight=False, markup=False, soft_wrap=True)
