"""Entries of the feature cache as safetensors files with a checksum; the unfinished files of its writers."""

from __future__ import annotations

import os
import re
import shutil
import stat
import uuid
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from umie.errors import UmieError, shown

SUFFIX = ".safetensors"
_KEY = re.compile(r"[0-9a-f]{8,128}")
_ATTEMPTS = 5  # at reading an entry that other processes replace meanwhile


class DamagedEntryError(Exception):
    """A file of the cache does not hold what was written."""


def entry_path(folder: Path, key: str) -> Path:
    """Return where the entry ``key`` stands; raise UmieError for a key that is not hexadecimal."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise UmieError(f"cache key {shown(key)}: give 8 to 128 hexadecimal digits, in lower case")
    return folder / key[:2] / f"{key}{SUFFIX}"


def entries(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield key and state of every entry in the folder; what goes away meanwhile is left out."""
    for part in sorted(folder.glob("[0-9a-f][0-9a-f]")):
        try:
            files = list(os.scandir(part))
        except OSError:
            continue
        for file in files:
            key = file.name.removesuffix(SUFFIX)
            if key != file.name and _KEY.fullmatch(key) and key[:2] == part.name:
                try:
                    state = file.stat()
                except OSError:
                    continue
                if stat.S_ISREG(state.st_mode):
                    yield key, state


def pack(key: str, tensors: Mapping[str, Tensor]) -> bytes:
    """Return the bytes of an entry's file."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(plain, metadata={"key": key, "checksum": _checksum(key, plain)})


def read_entry(path: Path, key: str) -> tuple[dict[str, Tensor], int]:
    """Return the tensors of an entry, mapped from its file, and the file's size in bytes.

    The mapping is private: whoever writes into a tensor changes neither the file nor what others read.

    Raises:
        FileNotFoundError: there is no such entry.
        DamagedEntryError: the file is not what was written.
        OSError: the file cannot be read.
    """
    for attempt in range(_ATTEMPTS):
        state = path.stat()
        try:
            if not stat.S_ISREG(state.st_mode):  # opening a pipe would wait for ever
                raise DamagedEntryError("it is no file")
            return _mapped(path, key), state.st_size
        except (DamagedEntryError, FileNotFoundError):
            # the file is opened by name twice, for its header and for its tensors: another process may have
            # put the entry anew, or evicted it, in between
            if _identity(path.stat()) == _identity(state) or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def remove(path: Path) -> None:
    """Remove an entry, or whatever stands in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _identity(state: os.stat_result) -> tuple[int, int, int]:
    return state.st_ino, state.st_mtime_ns, state.st_size


def _mapped(path: Path, key: str) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 # no mapping
    except FileNotFoundError:
        raise
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedEntryError(str(error).partition("\n")[0] or type(error).__name__) from error
    if metadata.get("checksum") != _checksum(key, tensors):
        raise DamagedEntryError("its checksum does not match")
    return tensors


def _checksum(key: str, tensors: Mapping[str, Tensor]) -> str:
    """Return a CRC-32 of key, names, types, shapes and values: a damaged header may still read as another tensor.

    It is to find accidents, for which it is enough, at a quarter of the time of SHA-256.
    """
    value = zlib.crc32(key.encode())
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), value)
        value = zlib.crc32(tensor.flatten().view(torch.uint8).numpy().data, value)
    return f"crc32:{value:08x}"


_INHERITED: list[object] = []  # writers of a fork's parent: deleting one would release the parent's lock


class Writer:
    """The unfinished files of one writer, which a lock marks as alive: killing it releases the lock.

    Every writer has a name in ``folder/writers``: ``NAME.lock`` is locked while it lives, ``NAME.N.part`` is what
    it is writing. (``umie.files.atomic_write`` would do for the writing, but nobody could tell a killed writer's
    file from a slow one's; and it waits for the disk, which entries with a checksum need not.)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "writers"
        self._pid = os.getpid()
        self._name = uuid.uuid4().hex
        self._count = 0
        self._lock = FileLock(self.folder / f"{self._name}.lock", thread_local=False)
        self.folder.mkdir(exist_ok=True)
        with folder_lock(folder):
            self._lock.acquire()

    @property
    def is_own(self) -> bool:
        """Whether this process made the writer, not a parent that it was forked from."""
        return self._pid == os.getpid()

    def write(self, data: bytes) -> Path:
        """Write a file, to be renamed to where it shall stand; raise OSError where it cannot be written."""
        self._count += 1
        path = self.folder / f"{self._name}.{self._count}.part"
        try:
            path.write_bytes(data)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def close(self, *, clean: bool) -> None:
        """Release the lock; its file stays where not all is clean, so that the next opening looks after it."""
        if not self.is_own:
            _INHERITED.append(self)
            return
        if clean:
            (self.folder / f"{self._name}.lock").unlink(missing_ok=True)
        self._lock.release()


def folder_lock(folder: Path) -> FileLock:
    """Return the lock under which writers come and go and the index is made anew."""
    return FileLock(folder / "lock")


def clean_after_the_dead(folder: Path) -> tuple[int, int]:
    """Remove what killed writers left; return the numbers of such writers and of half-written files.

    Raises:
        OSError: the folder cannot be written.
    """
    writers = folder / "writers"
    if not writers.is_dir():
        return 0, 0
    num_dead = num_parts = 0
    with folder_lock(folder):
        for file in sorted(writers.glob("*.lock")):
            lock = FileLock(file)
            try:
                with lock.acquire(timeout=0):
                    num_dead += 1
                    file.unlink(missing_ok=True)
            except Timeout:
                continue
        for part in sorted(writers.glob("*.part")):  # a writer is registered before it writes
            if not (writers / f"{part.name.partition('.')[0]}.lock").exists():
                part.unlink(missing_ok=True)
                num_parts += 1
    return num_dead, num_parts
