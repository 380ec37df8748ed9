"""The process of one job: ``python -m umie.experiments.job JOB``. It exits when the grid that started it is gone.

Nothing heavy is imported before standard input is watched: importing torch and transformers takes seconds, in which
the process would not notice that the grid was killed.
"""

from __future__ import annotations

import os
import sys
import threading


def main(job_file: str) -> int:
    """Run the job of a file; return the exit code."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from umie.experiments.cell import main as run

    return run(job_file)


def _end_with_parent() -> None:
    """Exit when standard input is closed; read without Python's buffers, which would be locked by the thread."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
