"""The process of one job: ``python -m umie.experiments.job_process JOB``.

The grid keeps its end of standard input open; when the grid is gone, the process exits, so that no cell outlives it.
Nothing heavy is imported before standard input is watched: importing torch and transformers takes seconds, in which
the process would not notice that the grid was killed.
"""

from __future__ import annotations

import os
import sys
import threading


def _end_with_parent() -> None:
    """Exit when standard input is closed; read without Python's buffers, which would be locked by the thread."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from umie.errors import UmieError
    from umie.experiments.run_job import run_job

    try:
        run_job(sys.argv[1])
    except UmieError as error:  # the job file cannot be read
        sys.exit(f"umie: {error}")
