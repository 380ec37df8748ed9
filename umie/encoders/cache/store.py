"""FeatureCache: tensors by key on disk, for several processes, bounded in size if so wished."""

from __future__ import annotations

import logging
import sqlite3
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

from torch import Tensor

from umie.encoders.cache.files import (
    DamagedEntryError,
    Writer,
    clean_after_the_dead,
    entries,
    entry_path,
    pack,
    read_entry,
    remove,
)
from umie.encoders.cache.index import Index
from umie.errors import UmieError, check_whole

T = TypeVar("T")


@dataclass
class CacheStats:
    """What one FeatureCache did; may be added and subtracted.

    Args:
        hits: entries that were asked for and found.
        misses: entries that were asked for and not found.
        read_bytes: of the files of the hits.
        written_bytes: of the files of the entries stored.
        evicted: entries removed to keep within the size.
        corrupted: damaged entries found (each is a miss as well).
        write_failures: entries that could not be stored.
        cleaned: half-written files of killed writers removed.
    """

    hits: int = 0
    misses: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    evicted: int = 0
    corrupted: int = 0
    write_failures: int = 0
    cleaned: int = 0

    def __add__(self, other: CacheStats) -> CacheStats:
        return CacheStats(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __sub__(self, other: CacheStats) -> CacheStats:
        return CacheStats(*(getattr(self, field.name) - getattr(other, field.name) for field in fields(self)))


class FeatureCache:
    """Tensors by key in a folder: one safetensors file for each entry, and an index of their sizes and last uses.

    Safe with several processes and threads, and after SIGKILL at any moment: entries appear by renaming, every
    reading is verified by a checksum. What goes wrong with the folder never ends the run; it is told and counted.
    A copy in a forked or spawned process works on the same folder and counts for itself.

    Args:
        folder: made where it is not there; a folder that cannot be written serves what it has.
        max_bytes: the most that the entries may have together; those not used for longest are removed first. An
            entry larger than this is not kept. None: no bound.
        on_event: takes one sentence about everything unusual; by default it goes to the log "umie.cache".

    Attributes:
        stats: what this object did.

    Raises:
        UmieError: ``folder`` is a file or cannot be made, or ``max_bytes`` is not a whole number from 1.
    """

    def __init__(
        self, folder: str | Path, max_bytes: int | None = None, on_event: Callable[[str], None] | None = None
    ) -> None:
        if max_bytes is not None:
            check_whole("max_bytes", max_bytes, 1)
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.stats = CacheStats()
        self._events = _Events(on_event)
        self._lock = threading.RLock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise UmieError(f"{folder}: cannot hold a feature cache ({_reason(error)}): give another folder") from error
        self._state = _State(Index(self.folder, self._events.tell))
        self._finalizer = weakref.finalize(self, self._state.close)
        self._look_after()

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Return the tensors of an entry, memory-mapped and verified; None where there is no sound one.

        A damaged entry is removed. The tensors may be changed: neither the file nor other readers see it. They
        stay whole also when the entry is evicted (on POSIX a mapped file outlives its name). Every entry held
        takes a mapping, of which Linux grants a process 65530: copy what shall stay in memory in such numbers.

        Raises:
            UmieError: the key is not 8 to 128 hexadecimal digits.
        """
        found = self._read(key)
        if found is None:
            self._count(misses=1)
        return found

    def get_after_miss(self, key: str) -> dict[str, Tensor] | None:
        """Return what ``get`` would; if another process has stored the entry since, the miss becomes a hit."""
        found = self._read(key)
        if found is not None:
            self._count(misses=-1)
        return found

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> bool:
        """Store tensors under a key, whole or not at all; return whether they are stored.

        Raises:
            UmieError: the key is not 8 to 128 hexadecimal digits.
        """
        path = entry_path(self.folder, key)
        data = pack(key, tensors)
        if self.max_bytes is not None and len(data) > self.max_bytes:
            self._failed(f"an entry of {len(data):,} bytes is not kept, max_bytes is {self.max_bytes:,}: raise it")
            return False
        part: Path | None = None
        try:
            with self._lock:
                writer = self._state.writer_of(self.folder)
                part = writer.write(data)
            _make_room_for(path)
            if not self._place(part, path, key, len(data)):
                return False
        except (OSError, _NotPlacedError) as failure:
            self._failed(f"entries cannot be stored ({_reason(failure)}): the features are used uncached")
            return False
        finally:
            if part is not None:
                _unlink(part)
        self._count(written_bytes=len(data))
        return True

    def __contains__(self, key: str) -> bool:
        """Whether there is an entry, sound or not; not counted as use."""
        return entry_path(self.folder, key).is_file()

    @property
    def num_entries(self) -> int:
        """Number of entries in the folder, whoever stored them."""
        return self._totals()[0]

    @property
    def num_bytes(self) -> int:
        """Bytes of all entries' files together."""
        return self._totals()[1]

    def close(self) -> None:
        """Write what is noted about uses, let go of the folder; using the cache again opens it again."""
        self._state.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureCache, (self.folder, self.max_bytes, self._events.on_event)

    def _read(self, key: str) -> dict[str, Tensor] | None:
        path = entry_path(self.folder, key)
        try:
            tensors, num_bytes = read_entry(path, key)
        except FileNotFoundError:
            return None
        except DamagedEntryError as error:
            self._discard(path, key, str(error))
            return None
        except OSError as error:
            self._events.tell_once("read", f"{path}: cannot be read ({_reason(error)}): it is encoded anew")
            return None
        self._count(hits=1, read_bytes=num_bytes)
        self._indexed(lambda index: index.use(key), None)
        return tensors

    def _discard(self, path: Path, key: str, reason: str) -> None:
        self._count(corrupted=1)
        try:
            remove(path)
        except OSError as error:
            self._events.tell(f"{path}: damaged ({reason}), cannot be removed ({_reason(error)}): not used")
            return
        self._events.tell(f"{path}: damaged ({reason}), removed: it is encoded anew")
        self._indexed(lambda index: index.drop(key), None)

    def _place(self, part: Path, path: Path, key: str, num_bytes: int) -> bool:
        placed = False

        def place() -> None:
            nonlocal placed
            if not placed:
                try:
                    part.replace(path)
                except OSError as error:
                    raise _NotPlacedError from error
                placed = True

        evicted = self._indexed(lambda index: index.add(key, num_bytes, place, self.max_bytes), None)
        if evicted is not None:
            self._count(evicted=evicted)
            return True
        if self.max_bytes is None:
            place()  # the entry counts again when it is used, or when the index is next looked after
            return True
        if placed:
            _unlink(path)
        self._failed("entries are not stored: without its index the cache cannot keep within max_bytes")
        return False

    def _count(self, **amounts: int) -> None:
        with self._lock:
            for name, amount in amounts.items():
                setattr(self.stats, name, getattr(self.stats, name) + amount)

    def _indexed(self, action: Callable[[Index], T], otherwise: T) -> T:
        """Do something with the index, again where it had to be mended; ``otherwise`` where sqlite cannot work."""
        index = self._state.index
        try:
            try:
                return action(index)
            except sqlite3.Error as error:
                if not index.mended(error):
                    raise
                return action(index)
        except (sqlite3.Error, OSError) as error:
            self._state.clean = False
            self._events.tell_once(
                "index", f"{self.folder}: the index cannot be used ({error}); entries are served without"
            )
            return otherwise

    def _totals(self) -> tuple[int, int]:
        found = self._indexed(lambda index: index.totals(), None)
        if found is None:
            sizes = [state.st_size for _, state in entries(self.folder)]
            return len(sizes), sum(sizes)
        return found

    def _look_after(self) -> None:
        """Clean up after killed writers and keep within the size."""
        try:
            num_dead, num_parts = clean_after_the_dead(self.folder)
        except OSError:  # a folder that cannot be written
            num_dead = num_parts = 0
        self._count(cleaned=num_parts)
        if num_parts:
            self._events.tell(f"{self.folder}: {num_parts} half-written file(s) of killed writers removed")
        # where no writer was killed the index is only opened, to learn early that it has to be mended
        changed = self._indexed(Index.reconcile, 0) if num_dead else self._indexed(Index.open, None)
        if changed:
            about = "of a writer that was killed or had no index"
            self._events.tell(f"{self.folder}: the index did not agree with {changed} file(s) {about}; mended")
        if self.max_bytes is not None:
            self._count(evicted=self._indexed(lambda index: index.evict(self.max_bytes), 0))

    def _failed(self, sentence: str) -> None:
        self._count(write_failures=1)
        self._events.tell_once("write", f"{self.folder}: {sentence}")


class _NotPlacedError(Exception):
    """An entry's file could not be renamed to its place; carries the OSError as its cause."""


class _Events:
    """Tells what is unusual, some kinds of it once; knows no cache, so that a cache can be let go."""

    def __init__(self, on_event: Callable[[str], None] | None) -> None:
        self.on_event = on_event
        self._told: set[str] = set()

    def tell(self, sentence: str) -> None:
        # the messages of sqlite and safetensors quote what is damaged
        sentence = "".join(letter if letter.isprintable() else "?" for letter in sentence)
        if self.on_event is None:
            logging.getLogger("umie.cache").warning("%s", sentence)
        else:
            self.on_event(sentence)

    def tell_once(self, kind: str, sentence: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self.tell(sentence)


class _State:
    """What has to be closed when the cache goes, also at the interpreter's end."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.writer: Writer | None = None
        self.clean = True

    def writer_of(self, folder: Path) -> Writer:
        """Return this process's writer."""
        if self.writer is None or not self.writer.is_own:
            if self.writer is not None:
                self.writer.close(clean=True)
            self.writer = Writer(folder)
        return self.writer

    def close(self) -> None:
        """Close the index, then the writer, whose lock file stays where the index is not up to date."""
        try:
            self.index.close()
        except (sqlite3.Error, OSError):
            self.clean = False
        if self.writer is not None:
            self.writer.close(clean=self.clean)
            self.writer = None


def _reason(error: BaseException) -> object:
    if isinstance(error, _NotPlacedError) and error.__cause__ is not None:
        error = error.__cause__
    return getattr(error, "strerror", None) or error


def _make_room_for(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():  # a file cannot be renamed onto a folder
        remove(path)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the next opening removes it
