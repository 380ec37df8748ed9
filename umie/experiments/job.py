"""The process of one job, run as ``python -m umie.experiments.job JOB``: it ends when the grid that started it is gone.

Nothing heavy is imported before the watch over standard input begins: loading torch and transformers takes seconds in
which a killed grid's process would not notice.
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
    """End the process when standard input closes; it is read without Python's buffers, which a thread would lock."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
