"""The engine ``inline``: jobs run one after the other in this process, e.g. under a debugger."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import redirect_stdout
from functools import partial

from umie.experiments.engines.base import LOG, NO_RESULT, Job, Watcher, begin
from umie.files import check_writable


class InlineEngine:
    """Run jobs in this process, with its number of threads and without limits; see ``Engine``."""

    workers = 1

    def run(self, jobs: Sequence[Job], watcher: Watcher) -> Generator[tuple[Job, str]]:
        """Run jobs one after the other."""
        from umie.experiments.run_job import run_job

        for job in jobs:
            text = begin(job, None)
            watcher.started(job)
            with check_writable(job.folder / LOG).open("w", encoding="utf-8") as log, redirect_stdout(log):
                run_job(json.loads(text), partial(watcher.advanced, job))
            yield job, NO_RESULT
