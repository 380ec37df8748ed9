"""What shows the progress of a run; the command line has one that draws, tests have one that remembers."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Shows the phases of a run."""

    def phase(self, name: str, total: float | None = None) -> None:
        """A phase begins, with its number of steps if that is known."""

    def advance(self, done: float, loss: float | None = None) -> None:
        """So many steps of the phase are done."""

    def note(self, what: str) -> None:
        """Print a sentence that stays."""
