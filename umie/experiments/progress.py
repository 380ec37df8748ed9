"""The interface for showing the progress of a run."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Display of the phases of a run."""

    def phase(self, name: str, total: float | None = None) -> None:
        """Start a phase; ``total`` is the number of its steps, if known."""

    def advance(self, done: float, loss: float | None = None) -> None:
        """Report the number of finished steps of the phase."""

    def note(self, what: str) -> None:
        """Print a line."""
