"""The progress of a job in its own process, as JSON lines on standard output."""

from __future__ import annotations

import sys
from typing import Any

from umie.files import json_text


class JobProgress:
    """Write progress and notes as JSON lines, at most a hundred lines of progress per phase."""

    def __init__(self) -> None:
        self._phase, self._total, self._shown = "", 1.0, 0

    def phase(self, name: str, total: float | None = None) -> None:
        """Start a phase."""
        self._phase, self._total, self._shown = name, total or 1.0, 0

    def advance(self, done: float, loss: float | None = None) -> None:
        """Report the progress of the phase."""
        percent = int(100 * done / self._total)
        if percent > self._shown:
            self._shown = percent
            self._emit(event="progress", phase=self._phase, done=done, total=self._total)

    def note(self, what: str) -> None:
        """Write a line to the log."""
        self._emit(event="note", text=what)

    def _emit(self, **event: Any) -> None:
        sys.stdout.write(json_text(event, ensure_ascii=True) + "\n")
        sys.stdout.flush()
