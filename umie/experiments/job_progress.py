"""The progress of a job: reported where the grid runs, and notes in the log of the job."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str, float], None]  # called with the phase of a job, and the finished share (0..1) of the phase


class JobProgress:
    """Report progress, at most a hundred times per phase; notes are printed, which the log of a job keeps."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._phase, self._total, self._shown = "", 1.0, 0

    def phase(self, name: str, total: float | None = None) -> None:
        """Start a phase."""
        self._phase, self._total, self._shown = name, total or 1.0, 0
        self._report(name, 0.0)

    def advance(self, done: float, loss: float | None = None) -> None:
        """Report the progress of the phase."""
        percent = int(100 * done / self._total)
        if percent > self._shown:
            self._shown = percent
            self._report(self._phase, done / self._total)

    def note(self, what: str) -> None:
        """Write a line to the log."""
        print(what, flush=True)  # noqa: T201 # the output of a job is its log
