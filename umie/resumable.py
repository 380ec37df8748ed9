"""Output files that are written line by line, can be resumed after an interruption, and carry checksums."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from umie.errors import UmieError
from umie.files import atomic_write, check_writable
from umie.versions import file_digest

_NO_LINE = "-"  # in the state: the item has no line in this file
_SHOWN = 5  # numbers of items in a message

_Item = tuple[
    list[str], list[tuple[int, int] | None]
]  # the digest, and the offset and length, of its line in each file


class ResumableLines:
    """Several files with at most one line each per item; a file gets its name only when it is complete.

    Until then the lines of ``out.jsonl`` are in ``out.jsonl.part``. The state, ``out.jsonl.part.run``, has ``run``, a
    hash of everything that the lines depend on (only the same run can resume), and a line for each item: its number, a
    digest of its line in each file, and one of the state's own line. A damaged line therefore costs only its item, and
    a copy of the damaged file is kept. A complete ``out.jsonl`` has its SHA-256 digest in ``out.jsonl.sha256``.

    Args:
        paths: the files.
        run: the hash.
        optional: further files, which are removed if they have no lines.

    Attributes:
        damage: a sentence about damaged files, and the items that are written again; None if there is no damage.
    """

    def __init__(self, paths: Sequence[Path], run: str, optional: Sequence[Path] = ()) -> None:
        self.paths, self.run = [*paths, *optional], run
        self.optional = list(optional)
        self.damage: str | None = None
        names = json.dumps([path.name for path in self.paths])
        self._header = f"{run} {names}\n".encode()
        self._parts = [_with_suffix(path, ".part") for path in self.paths]
        self._state = _with_suffix(self.paths[0], ".part.run")
        self._next = 0  # the first item that is not written
        self._later: set[int] = set()  # the written ones after it
        self._in_order = True
        self._files: list[IO[bytes]] = []  # that of the state is the last

    @property
    def done(self) -> int:
        """The number of items that are already written."""
        return self._next + len(self._later)

    def is_done(self, item: int) -> bool:
        """Return whether an item, by its number from 0, is already written."""
        return item < self._next or item in self._later

    def is_complete(self) -> bool:
        """Return whether this run wrote all files earlier, and they are as it wrote them.

        Raises:
            UmieError: a file is there that this run did not write, or that was changed since.
        """
        if self._state.is_file() and self._is_own_state():
            return False
        needed = [path for path in self.paths if path not in self.optional]
        found = [path for path in needed if path.is_file()]
        if not found:
            return False
        advice = "use another output, or --overwrite (overwrite=True) to replace it"
        if found != needed or self._mark() not in _content(digest_file(self.paths[0])):
            without = "".join(f", and without {path.name}" for path in needed if path not in found)
            raise UmieError(f"{found[0]}: already exists, from other input, options or weights{without}: {advice}")
        for path in found:
            if is_changed(path):
                raise UmieError(f"{path}: is complete, but was changed since it was written: {advice}")
        return True

    def _mark(self) -> bytes:
        """Return the comment in the first digest file that says which run wrote the files; sha256sum skips it."""
        return f"# run {_digest(self._header)}\n".encode()

    @contextmanager
    def open(self) -> Iterator[ResumableLines]:
        """Open the files and find the items that are already written; the others are written by ``write``, in order.

        The files are moved to their names when the block ends without an exception.

        Raises:
            UmieError: the files belong to another run, or another process is writing them.
        """
        first = self.paths[0]
        check_writable(self._state)
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
            self._take_back()
            is_new = not any(part.exists() for part in self._parts)
            if is_new:
                self._state.write_bytes(self._header)
            else:
                self._resume()
            for path in (*self._parts, self._state):
                self._files.append(stack.enter_context(path.open("ab")))
            try:
                yield self
            except BaseException:
                if is_new and not any(file.tell() for file in self._files[:-1]):  # nothing to resume
                    for path in (*self._parts, self._state):
                        path.unlink()
                raise
            for opened in self._files:
                opened.flush()
                os.fsync(opened.fileno())
            self._finish()

    def write(self, *lines: str | None) -> None:
        """Write the next item, a line for each file or None; it survives if the process is killed."""
        digests = []
        for file, line in zip(self._files[:-1], lines, strict=True):
            if line is None:
                digests.append(_NO_LINE)
                continue
            data = line.encode() + b"\n"
            digests.append(_digest(data))
            file.write(data)
            file.flush()
        self._files[-1].write(self._entry(self._next, digests))
        self._files[-1].flush()
        self._in_order &= not self._later
        self._next += 1
        self._skip()

    def _skip(self) -> None:
        while self._next in self._later:
            self._later.remove(self._next)
            self._next += 1

    def _entry(self, item: int, digests: Sequence[str]) -> bytes:
        """Return the state's line about an item."""
        content = " ".join([str(item), *digests])
        return f"{content} {_digest(self._header + content.encode())}\n".encode()

    def _read_entry(self, line: bytes) -> tuple[int, list[str]] | None:
        """Return the number of an item and the digests of its lines; None for a damaged line or another run's."""
        number, *digests = line.decode("ascii", "replace").split()[:-1] or [""]
        is_whole = number.isdecimal() and len(number) < 20 and len(digests) == len(self._parts)
        return (int(number), digests) if is_whole and self._entry(int(number), digests) == line else None

    def _take_back(self) -> None:
        """Give files the name of an unfinished one again, if a kill came while they were moved to their names."""
        if not self._state.is_file() or _first_line(self._state) != self._header:
            return
        for part, path in zip(self._parts, self.paths, strict=True):
            if path.is_file() and not part.exists():
                path.replace(part)

    def _resume(self) -> None:
        """Find the items that are written, and remove from the files whatever else they have."""
        if not self._state.is_file() or not self._is_own_state():
            raise UmieError(
                f"{self._parts[0]}: belongs to an unfinished run with other input, options or weights, or "
                f"{self._state.name} is missing or damaged: finish that run, delete the file, or use another output"
            )
        for part in self._parts:
            part.touch()
        ends = self._ends_in_order()
        if ends is not None:
            for path, end in zip((*self._parts, self._state), ends, strict=True):
                os.truncate(path, end)
            return
        items, damaged = self._find_items()
        if damaged:
            copies = [Path(shutil.copy2(path, _unused(_with_suffix(path, ".damaged")))) for path in damaged]
            self.damage = (
                f"{_listed(damaged)} {'is' if len(damaged) == 1 else 'are'} damaged: {len(items):,} finished items are "
                f"kept, {_missing(items)} written again; what was damaged is kept in {_listed(copies)}"
            )
        self._rewrite(items)
        self._next, self._later = 0, set(items)
        self._skip()

    def _is_own_state(self) -> bool:
        with self._state.open("rb") as file:
            return file.readline() == self._header or any(self._read_entry(line) for line in file)

    def _ends_in_order(self) -> list[int] | None:
        """Return where the written items end in each file and the state, in bounded memory; None if any is damaged.

        After these ends there may be what was being written at a kill: a line of the next item.
        """
        with ExitStack() as stack:
            *files, state = [stack.enter_context(path.open("rb")) for path in (*self._parts, self._state)]
            ends = [0] * len(files)
            if state.readline() != self._header:
                return None
            end, found = len(self._header), 0
            for entry in state:
                if not entry.endswith(b"\n"):
                    break
                item, digests = self._read_entry(entry) or (-1, [])
                if item != found:
                    return None
                for place, (file, digest) in enumerate(zip(files, digests, strict=True)):
                    line = b"" if digest == _NO_LINE else file.readline()
                    if digest not in (_NO_LINE, _digest(line)):
                        return None
                    ends[place] += len(line)
                end += len(entry)
                found += 1
            for file in files:
                file.readline()
                if file.readline().endswith(b"\n"):  # more lines than one item has: the state lost their entries
                    return None
        self._next = found
        return [*ends, end]

    def _find_items(self) -> tuple[dict[int, _Item], list[Path]]:
        """Return the whole items by number, wherever their lines are, and the damaged files."""
        places: list[dict[str, tuple[int, int]]] = []
        num_lines = []
        for part in self._parts:
            places.append({})
            num_lines.append(0)
            offset = 0
            with part.open("rb") as file:
                for line in file:
                    places[-1][_digest(line)] = offset, len(line)
                    offset += len(line)
                    num_lines[-1] += line.endswith(b"\n")  # a kill may have come in the last one
        items: dict[int, _Item] = {}
        damaged: dict[int, list[Path]] = {}  # the damaged file of each item that is not whole; -1: of no known item
        with self._state.open("rb") as file:
            if file.readline() != self._header:
                damaged[-1] = [self._state]
            for entry in file:
                read = self._read_entry(entry)
                if read is None:
                    damaged |= {-1: [self._state]} if entry.endswith(b"\n") else {}
                    continue
                item, digests = read
                lost = [digest not in (_NO_LINE, *own) for digest, own in zip(digests, places, strict=True)]
                if any(lost):
                    damaged[item] = [part for part, is_lost in zip(self._parts, lost, strict=True) if is_lost]
                else:
                    items[item] = digests, [own.get(digest) for digest, own in zip(digests, places, strict=True)]
        files = {path for item, paths in damaged.items() if item not in items for path in paths}
        for place, number in enumerate(num_lines):
            if number - sum(found[place] is not None for _, found in items.values()) > 1 and not files:
                files.add(self._state)  # its last lines are gone
        return items, [path for path in (*self._parts, self._state) if path in files]

    def _rewrite(self, items: Mapping[int, _Item]) -> None:
        """Replace the files by ones with only these items, in their order; a kill loses none of them."""
        ordered = sorted(items)
        for place, part in enumerate(self._parts):
            with part.open("rb") as old, atomic_write(part, "wb") as new:
                for item in ordered:
                    found = items[item][1][place]
                    if found is not None:
                        old.seek(found[0])
                        new.write(old.read(found[1]))
        with atomic_write(self._state, "wb") as new:
            new.write(self._header)
            new.writelines(self._entry(item, items[item][0]) for item in ordered)

    def _finish(self) -> None:
        """Move the complete files to their names."""
        if not self._in_order:
            items, damaged = self._find_items()
            if damaged or items.keys() != set(range(self._next)):
                raise UmieError(f"{self._parts[0]}: was changed while it was written: run the same command again")
            self._rewrite(items)
        for part, path in zip(self._parts, self.paths, strict=True):
            if path in self.optional and not part.stat().st_size:
                part.unlink()
                path.unlink(missing_ok=True)  # of an earlier run
                continue
            digest = None if path in self.optional else file_digest(part)
            part.replace(path.resolve())
            if digest is not None:
                with atomic_write(digest_file(path)) as file:
                    mark = self._mark().decode() if path == self.paths[0] else ""
                    file.write(f"{digest}  {path.name}\n{mark}")
        self._state.unlink()


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=8).hexdigest()


def _listed(paths: Sequence[Path]) -> str:
    return " and ".join(map(str, paths))


def _missing(items: Mapping[int, _Item]) -> str:
    """Return the items that are to be written again, as the subject of a passive sentence."""
    numbers = [item + 1 for item in range(max(items, default=-1)) if item not in items]
    if not numbers:
        return "those after them are" if items else "all are"
    listed = ", ".join(map(str, numbers[:_SHOWN])) + (f", ... ({len(numbers):,} in all)" if numbers[_SHOWN:] else "")
    return f"item {listed} is" if len(numbers) == 1 else f"items {listed} are"


def _unused(path: Path) -> Path:
    """Return a name that no file has: the path, or the path with a number."""
    number = 1
    found = path
    while found.exists():
        number += 1
        found = _with_suffix(path, f"-{number}")
    return found


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
