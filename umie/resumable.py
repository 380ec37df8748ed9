"""Output files that are written line by line, can be resumed after an interruption, and carry checksums."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from umie.errors import UmieError
from umie.files import atomic_write, check_writable
from umie.versions import file_digest

_NO_LINE = "-"  # in the state: the item has no line in this file


class ResumableLines:
    """Several files with at most one line each per item; a file gets its name only when it is complete.

    Until then the lines of ``out.jsonl`` are in ``out.jsonl.part``. The state, ``out.jsonl.part.run``, has ``run``, a
    hash of everything that the lines depend on (only the same run can resume), and for each item a checksum of the
    lines of each file so far, and of the state itself. A complete ``out.jsonl`` has its SHA-256 digest in
    ``out.jsonl.sha256``.

    Args:
        paths: the files.
        run: the hash.
        optional: further files, which are removed if they have no lines.

    Attributes:
        done: the number of items that are already written.
        damage: a sentence about the first damaged line, after which the items are written again; None if there is none.
    """

    def __init__(self, paths: Sequence[Path], run: str, optional: Sequence[Path] = ()) -> None:
        self.paths, self.run = [*paths, *optional], run
        self.optional = list(optional)
        self.done = 0
        self.damage: str | None = None
        self._files: list[IO[bytes]] = []
        self._checksums: list[int] = []  # of each file, and of the state
        self._ends: list[int] = []
        self._state: IO[bytes] | None = None

    @contextmanager
    def open(self) -> Iterator[ResumableLines]:
        """Open the files after their last complete item, and set ``done``.

        The files are moved to their names when the block ends without an exception.

        Raises:
            UmieError: the files belong to another run, or another process is writing them.
        """
        first = self.paths[0]
        state = check_writable(_with_suffix(first, ".part.run"))
        for path in self.paths:
            check_writable(path)
            check_writable(_with_suffix(path, ".part"))
            path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(_with_suffix(first, ".part.lock"), blocking=False)
        with ExitStack() as stack:
            try:
                stack.enter_context(lock)
            except Timeout as error:
                raise UmieError(f"{first}: another process is writing this file: wait for it or stop it") from error
            stack.callback(Path(lock.lock_file).unlink, missing_ok=True)  # before the lock is released
            parts = [_with_suffix(path, ".part") for path in self.paths]
            names = json.dumps([path.name for path in self.paths])
            header = f"{self.run} {names}\n".encode()
            is_new = not any(part.exists() for part in parts)
            if not is_new:
                if _first_line(state) != header:
                    raise UmieError(
                        f"{parts[0]}: belongs to an unfinished run with other input, options or weights, or "
                        f"{state.name} is missing or damaged: finish that run, delete the file, or use another output"
                    )
                end = self._find_end(parts, state)
            else:
                state.write_bytes(header)
                end = len(header)
                self._checksums, self._ends = [0] * (len(parts) + 1), [0] * len(parts)
            for path, length in (*zip(parts, self._ends, strict=True), (state, end)):
                opened: IO[bytes] = stack.enter_context(path.open("r+b" if path.exists() else "w+b"))
                opened.truncate(length)
                opened.seek(0, os.SEEK_END)
                self._files.append(opened)
            self._state = self._files.pop()
            try:
                yield self
            except BaseException:
                if is_new and not any(file.tell() for file in self._files):  # nothing to resume
                    for path in (*parts, state):
                        path.unlink()
                raise
            is_empty = [not file.tell() for file in self._files]
            for opened in self._files:
                opened.flush()
                os.fsync(opened.fileno())
            for part, path, empty in zip(parts, self.paths, is_empty, strict=True):
                if empty and path in self.optional:
                    part.unlink()
                    path.unlink(missing_ok=True)  # of an earlier run
                    continue
                part.replace(path.resolve())
                if path not in self.optional:
                    with atomic_write(digest_file(path)) as digest:
                        digest.write(f"{file_digest(path)}  {path.name}\n")
            state.unlink()

    def write(self, *lines: str | None) -> None:
        """Write one item, a line for each file or None; it survives if the process is killed."""
        sums = []
        for place, (file, line) in enumerate(zip(self._files, lines, strict=True)):
            if line is None:
                sums.append(_NO_LINE)
                continue
            data = line.encode() + b"\n"
            self._checksums[place] = zlib.crc32(data, self._checksums[place])
            sums.append(f"{self._checksums[place]:08x}")
            file.write(data)
            file.flush()
        assert self._state is not None  # it is open
        self._checksums[-1] = zlib.crc32(" ".join(sums).encode(), self._checksums[-1])
        self._state.write(" ".join([*sums, f"{self._checksums[-1]:08x}"]).encode() + b"\n")
        self._state.flush()

    def _find_end(self, parts: Sequence[Path], state: Path) -> int:
        """Set ``done``, ``damage``, the checksums and the ends of the files; return the end of the state."""
        checksums, ends = [0] * (len(parts) + 1), [0] * len(parts)
        with ExitStack() as stack:
            for part in parts:
                part.touch()
            files = [stack.enter_context(part.open("rb")) for part in parts]
            entries = stack.enter_context(state.open("rb"))
            end = len(entries.readline())
            for entry in entries:
                if not entry.endswith(b"\n"):
                    break  # a kill came before its end
                found, lengths = list(checksums), list(ends)
                *sums, own = entry.decode("ascii", "replace").split() or [""]
                found[-1] = zlib.crc32(" ".join(sums).encode(), found[-1])
                if len(sums) != len(files) or own != f"{found[-1]:08x}":
                    self.damage = (
                        f"{state}: item {self.done + 1} is damaged: it and all items after it are written again"
                    )
                    break
                for place, (file, expected) in enumerate(zip(files, sums, strict=True)):
                    if expected == _NO_LINE:
                        continue
                    line = file.readline()
                    found[place] = zlib.crc32(line, found[place])
                    lengths[place] += len(line)
                    if f"{found[place]:08x}" != expected or not line.endswith(b"\n"):
                        where = f"{parts[place]}: item {self.done + 1}"
                        self.damage = f"{where} is damaged or incomplete: it and all items after it are written again"
                        break
                if self.damage is not None:
                    break
                checksums, ends, end = found, lengths, end + len(entry)
                self.done += 1
        self._checksums, self._ends = checksums, ends
        return end


def _first_line(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.readline()


def digest_file(path: Path) -> Path:
    """Return the file with the SHA-256 digest of an output file, in the format of ``sha256sum``."""
    return _with_suffix(path, ".sha256")


def is_changed(path: Path) -> bool:
    """Return whether an output file has a digest and differs from what was written."""
    digest = digest_file(path)
    try:
        return digest.is_file() and digest.read_bytes().split()[:1] != [file_digest(path).encode()]
    except OSError:
        return False


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
