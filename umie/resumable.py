"""Output files that are written line by line and can be resumed after an interruption."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from umie.errors import UmieError
from umie.files import atomic_write, check_writable


class ResumableLines:
    """Several files with one line each per item; a file gets its name only when it is complete.

    Until then the lines of ``out.jsonl`` are in ``out.jsonl.part``, and ``out.jsonl.part.run`` has ``run``, a hash of
    everything that the lines depend on; only the same run can resume.
    """

    def __init__(self, paths: Sequence[Path], run: str) -> None:
        self.paths, self.run = paths, run
        self.done = 0  # the number of items that are already written
        self._files: list[IO[bytes]] = []

    @contextmanager
    def open(self) -> Iterator[ResumableLines]:
        """Open the files after their last complete item, and set ``done``.

        The files are moved to their names when the block ends without an exception.

        Raises:
            UmieError: the files belong to another run, or another process is writing them.
        """
        first = self.paths[0]
        marker = _with_suffix(first, ".part.run")
        for path in self.paths:
            check_writable(path)
            path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(_with_suffix(first, ".part.lock"), blocking=False)
        with ExitStack() as stack:
            try:
                stack.enter_context(lock)
            except Timeout as error:
                raise UmieError(f"{first}: another process is writing this file: wait for it or stop it") from error
            stack.callback(Path(lock.lock_file).unlink, missing_ok=True)  # before the lock is released
            parts = [_with_suffix(path, ".part") for path in self.paths]
            earlier = marker.read_text(encoding="utf-8") if marker.is_file() else None
            if any(part.exists() for part in parts) and earlier != self.run:
                raise UmieError(
                    f"{parts[0]}: belongs to an unfinished run with other input, options or weights: finish that run, "
                    "delete the file, or choose another output"
                )
            with atomic_write(marker) as file:
                file.write(self.run)
            ends = [_line_ends(part) for part in parts]
            self.done = min(len(offsets) for offsets in ends)
            for part, offsets in zip(parts, ends, strict=True):
                opened: IO[bytes] = stack.enter_context(part.open("r+b" if part.exists() else "w+b"))
                opened.truncate(offsets[self.done - 1] if self.done else 0)
                opened.seek(0, os.SEEK_END)
                self._files.append(opened)
            try:
                yield self
            except BaseException:
                if not any(file.tell() for file in self._files):  # nothing to resume
                    for path in (*parts, marker):
                        path.unlink()
                raise
            for opened in self._files:
                opened.flush()
                os.fsync(opened.fileno())
            for part, path in zip(parts, self.paths, strict=True):
                part.replace(path.resolve())
            marker.unlink()

    def write(self, *lines: str) -> None:
        """Write one item, a line for each file; it survives if the process is killed."""
        for file, line in zip(self._files, lines, strict=True):
            file.write(line.encode() + b"\n")
            file.flush()


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _line_ends(path: Path) -> list[int]:
    """Return the offset after each complete line of a file; an empty list if the file does not exist."""
    if not path.exists():
        return []
    ends, offset = [], 0
    with path.open("rb") as file:
        for line in file:
            offset += len(line)
            if line.endswith(b"\n"):
                ends.append(offset)
    return ends
