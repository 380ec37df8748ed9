"""Output files that are written line by line, survive a kill, and stand under their name only when complete."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from umie.errors import UmieError
from umie.files import atomic_write


class ResumableLines:
    """Files whose lines belong together, one of each file to an item.

    Beside a file ``out.jsonl`` stand ``out.jsonl.part``, what is done, and ``out.jsonl.part.run``, which says what
    run it is of; both are gone when the file stands.

    Args:
        paths: the files.
        run: what the lines depend on, e.g. a hash; only a run with the same one goes on.
    """

    def __init__(self, paths: Sequence[Path], run: str) -> None:
        self.paths = paths
        self.run = run
        self.done = 0
        self._files: list[IO[bytes]] = []

    @contextmanager
    def open(self) -> Iterator[ResumableLines]:
        """Open the files behind their last whole line; ``done`` then tells how many items they hold.

        The files are put in their places where the block ends without an exception.

        Raises:
            UmieError: what is there is of another run, or another process writes it.
        """
        first = self.paths[0]
        marker = _beside(first, ".part.run")
        for path in self.paths:
            if path.is_dir():
                raise UmieError(f"{path}: is a folder: give the name of a file")
            path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(_beside(first, ".part.lock"), blocking=False)
        with ExitStack() as stack:
            try:
                stack.enter_context(lock)
            except Timeout as error:
                raise UmieError(f"{first}: another process is writing it: let it finish, or end it") from error
            stack.callback(Path(lock.lock_file).unlink, missing_ok=True)  # while it is held
            parts = [_beside(path, ".part") for path in self.paths]
            if any(part.exists() for part in parts) and _read(marker) != self.run:
                raise UmieError(
                    f"{parts[0]}: is what a run with other input, options or weights left: run that one again to "
                    "finish it, take the file away, or give another --output"
                )
            with atomic_write(marker) as file:
                file.write(self.run)
            ends = [_line_ends(part) for part in parts]
            self.done = min(len(found) for found in ends)
            for part, found in zip(parts, ends, strict=True):
                opened: IO[bytes] = stack.enter_context(part.open("r+b" if part.exists() else "w+b"))
                opened.truncate(found[self.done - 1] if self.done else 0)
                opened.seek(0, os.SEEK_END)
                self._files.append(opened)
            try:
                yield self
            except BaseException:
                if not any(file.tell() for file in self._files):  # nothing is done: no run to go on with
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
        """Write one item: a line for each file; from then on a kill does not lose it."""
        for file, line in zip(self._files, lines, strict=True):
            file.write(line.encode() + b"\n")
            file.flush()


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _line_ends(path: Path) -> list[int]:
    """Return the offset behind each whole line of a file; nothing where there is none."""
    if not path.exists():
        return []
    ends, place = [], 0
    with path.open("rb") as file:
        for line in file:
            place += len(line)
            if line.endswith(b"\n"):
                ends.append(place)
    return ends
