"""The feature cache's index: size and last use of every entry, in sqlite; the files are the truth."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from umie.encoders.cache.files import entries, entry_path, folder_lock, remove
from umie.errors import UmieError

FILE = "index.sqlite"
VERSION = 1
FLUSH_AFTER = 1000  # hits whose last use is not yet written; a killed process loses them, which only blurs the order
WAIT = 60.0  # seconds for another process's transaction
# what the statements below, which do not change, can only meet in a damaged file
_BROKEN = (
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_NOTADB,
)
_NOT_TEXT = "its text is not UTF-8"  # sqlite's messages quote a damaged schema
_INHERITED: list[sqlite3.Connection] = []  # of a fork's parent: neither to be used nor to be closed in the child

# `used` counts uses, not seconds, so that a clock that is set back does not matter
_SCHEMA = (
    "DROP TABLE IF EXISTS entries",
    "DROP TABLE IF EXISTS totals",
    "CREATE TABLE entries (key TEXT PRIMARY KEY, bytes INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX by_use ON entries (used)",
    "CREATE TABLE totals (entries INTEGER NOT NULL, bytes INTEGER NOT NULL)",
    "INSERT INTO totals VALUES (0, 0)",
    "CREATE TRIGGER added AFTER INSERT ON entries BEGIN"
    " UPDATE totals SET entries = entries + 1, bytes = bytes + new.bytes; END",
    "CREATE TRIGGER removed AFTER DELETE ON entries BEGIN"
    " UPDATE totals SET entries = entries - 1, bytes = bytes - old.bytes; END",
    f"PRAGMA user_version = {VERSION}",
)


class Index:
    """Opens itself where needed, also anew after a fork; made anew from the files where it is lost or damaged.

    Every method raises sqlite3.Error where sqlite cannot work in the folder.

    Args:
        folder: the cache's folder.
        tell: takes one sentence about what was mended.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self.folder = folder
        self._tell = tell
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._used: dict[str, None] = {}
        self._opened = (0, 0)  # device and inode of the open file

    def use(self, key: str) -> None:
        """Note that an entry was used; written with later notes together."""
        with self._lock:
            self._own()
            self._used.pop(key, None)
            self._used[key] = None
            if len(self._used) >= FLUSH_AFTER:
                self.flush()

    def flush(self) -> None:
        """Write the noted uses; they are forgotten where they cannot be written."""
        with self._lock:
            if keys := self._taken():
                with self.changes() as connection:
                    _write_uses(connection, self.folder, keys)

    def open(self) -> None:
        """Open the index now."""
        with self.changes():
            return

    def add(self, key: str, num_bytes: int, place: Callable[[], object], max_bytes: int | None) -> int:
        """Put an entry into its place and make room for it; return how many entries were evicted.

        Rename, eviction and index are one step for every living process: sqlite's lock is held meanwhile.

        Args:
            key: the entry.
            num_bytes: its size.
            place: renames its file to where it shall stand.
            max_bytes: the most that all entries together may have.
        """
        with self.changes() as connection:
            _write_uses(connection, self.folder, self._taken())
            place()
            connection.execute("DELETE FROM entries WHERE key = ?", (key,))
            connection.execute("INSERT INTO entries VALUES (?, ?, ?)", (key, num_bytes, _next_use(connection)))
            return _evict(connection, self.folder, max_bytes, spare=key)

    def evict(self, max_bytes: int | None) -> int:
        """Remove the entries that were not used for longest until the rest fits; return how many."""
        with self.changes() as connection:
            _write_uses(connection, self.folder, self._taken())
            return _evict(connection, self.folder, max_bytes)

    def drop(self, key: str) -> None:
        """Remove an entry's row."""
        with self._lock:
            self._used.pop(key, None)
            with self.changes() as connection:
                connection.execute("DELETE FROM entries WHERE key = ?", (key,))

    def totals(self) -> tuple[int, int]:
        """Return the number of entries and of their bytes."""
        with self.changes() as connection:
            _write_uses(connection, self.folder, self._taken())
            return _totals(connection)

    def reconcile(self) -> int:
        """Make the index agree with the files; return how many rows had to change."""
        with self.changes() as connection:
            return _reconcile(connection, self.folder)

    @contextmanager
    def changes(self) -> Iterator[sqlite3.Connection]:
        """Hold sqlite's lock for a transaction; the index is made anew first where it proves damaged."""
        with self._lock:
            connection = self._begin()
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                with suppress(sqlite3.Error, UnicodeDecodeError):
                    connection.execute("ROLLBACK")
                if isinstance(error, UnicodeDecodeError):
                    raise _WrongIndexError(_NOT_TEXT) from error
                raise

    def mended(self, error: sqlite3.Error) -> bool:
        """Remove an index that the error says is damaged, to be made anew; return whether to try again."""
        if not _is_broken(error, self.folder):
            return False
        with self._lock:
            self._drop_connection()
            with folder_lock(self.folder):
                if not self._was_replaced:  # else another process has mended it
                    self._remove(error)
        return True

    def close(self) -> None:
        """Write the noted uses and close; the next use opens it again."""
        with self._lock:
            if self._pid == os.getpid():
                try:
                    if self._connection is not None:
                        self.flush()
                finally:
                    self._drop_connection()

    def _taken(self) -> list[str]:
        used, self._used = list(self._used), {}
        return used

    def _own(self) -> None:
        """Leave to a fork's parent what is the parent's."""
        if self._pid != os.getpid():
            if self._connection is not None:
                _INHERITED.append(self._connection)
            self._connection, self._used, self._pid = None, {}, os.getpid()

    def _begin(self) -> sqlite3.Connection:
        self._own()
        if self._connection is not None and self._was_replaced:
            self._drop_connection()
        if self._connection is None:
            self._connection = self._open()
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    @property
    def _was_replaced(self) -> bool:
        """Whether the open file is no longer the one that stands in the folder: another process made it anew."""
        try:
            state = (self.folder / FILE).stat()
        except OSError:
            return True
        return (state.st_dev, state.st_ino) != self._opened

    def _open(self) -> sqlite3.Connection:
        with folder_lock(self.folder):  # sqlite does not wait where several processes change a new file to WAL
            try:
                return self._connect()
            except sqlite3.Error as error:
                if not _is_broken(error, self.folder):
                    raise
                self._remove(error)
                return self._connect()

    def _connect(self) -> sqlite3.Connection:
        path = self.folder / FILE
        connection = sqlite3.connect(path, timeout=WAIT, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                self._create(connection)
            _check_totals(connection)
            state = path.stat()
        except UnicodeDecodeError as error:
            connection.close()
            raise _WrongIndexError(_NOT_TEXT) from error
        except BaseException:
            connection.close()
            raise
        self._opened = (state.st_dev, state.st_ino)
        return connection

    def _remove(self, error: sqlite3.Error) -> None:
        self._tell(f"{self.folder / FILE}: damaged ({error}), removed")
        for suffix in ("", "-wal", "-shm"):
            (self.folder / f"{FILE}{suffix}").unlink(missing_ok=True)

    def _create(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            connection.execute(statement)
        if found := _reconcile(connection, self.folder):
            self._tell(f"{self.folder / FILE}: made anew from the {found} entries in the folder")
        connection.execute("COMMIT")

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


class _WrongIndexError(sqlite3.DatabaseError):
    """What sqlite reads without complaint is not what was written."""


def _is_broken(error: sqlite3.Error, folder: Path) -> bool:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    if code == sqlite3.SQLITE_READONLY:  # a damaged header says so, too
        return os.access(folder / FILE, os.W_OK) and os.access(folder, os.W_OK)
    return code in _BROKEN or isinstance(error, _WrongIndexError) or str(error).startswith("Could not decode")


def _totals(connection: sqlite3.Connection) -> tuple[int, int]:
    row = connection.execute("SELECT entries, bytes FROM totals").fetchone()
    if row is None or not all(isinstance(value, int) for value in row):
        raise _WrongIndexError(f"totals are {row}")
    return row[0], row[1]


def _check_totals(connection: sqlite3.Connection) -> None:
    counted = (
        "SELECT t.entries, t.bytes, (SELECT COUNT(*) FROM entries), (SELECT TOTAL(bytes) FROM entries) FROM totals t"
    )
    row = connection.execute(counted).fetchone()
    if row is None or row[:2] != row[2:]:
        raise _WrongIndexError(f"totals are {row}")


def _next_use(connection: sqlite3.Connection) -> int:
    last = connection.execute("SELECT COALESCE(MAX(used), 0) FROM entries").fetchone()[0]
    if not isinstance(last, int) or not 0 <= last < 1 << 62:
        raise _WrongIndexError(f"last use is {last!r}")
    return last + 1


def _write_uses(connection: sqlite3.Connection, folder: Path, keys: list[str]) -> None:
    for use, key in enumerate(keys, start=_next_use(connection)) if keys else ():
        changed = connection.execute("UPDATE entries SET used = ? WHERE key = ?", (use, key)).rowcount
        if not changed:  # stored while the index could not be written
            with suppress(OSError):
                size = entry_path(folder, key).stat().st_size
                connection.execute("INSERT INTO entries VALUES (?, ?, ?)", (key, size, use))


def _evict(connection: sqlite3.Connection, folder: Path, max_bytes: int | None, spare: str = "") -> int:
    num_evicted = 0
    while max_bytes is not None and _totals(connection)[1] > max_bytes:
        row = connection.execute("SELECT key FROM entries WHERE key != ? ORDER BY used LIMIT 1", (spare,)).fetchone()
        if row is None:
            raise _WrongIndexError("totals without entries")
        try:
            path = entry_path(folder, row[0])
        except UmieError as error:
            raise _WrongIndexError(str(error)) from error
        # who has mapped the file keeps it: on POSIX the file lives on, without a name, as long as it is mapped
        remove(path)
        if connection.execute("DELETE FROM entries WHERE key = ?", row).rowcount != 1:
            raise _WrongIndexError("rows and their order disagree")
        num_evicted += 1
    return num_evicted


def _reconcile(connection: sqlite3.Connection, folder: Path) -> int:
    rows = dict(connection.execute("SELECT key, bytes FROM entries"))
    files = dict(entries(folder))
    wrong = [key for key, size in rows.items() if key not in files or files[key].st_size != size]
    connection.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in wrong])
    absent = sorted(files.keys() - (rows.keys() - set(wrong)), key=lambda key: (files[key].st_mtime_ns, key))
    first = _next_use(connection)
    connection.executemany(
        "INSERT INTO entries VALUES (?, ?, ?)",
        [(key, files[key].st_size, use) for use, key in enumerate(absent, start=first)],
    )
    return len({*wrong, *absent})
