"""FeatureCache: tensors by key in a folder, one safetensors file per key."""

from __future__ import annotations

import json
import logging
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load, save
from torch import Tensor

from umie.errors import UmieError, shown
from umie.files import atomic_write, open_regular

SUFFIX = ".safetensors"
STALE_AFTER_S = 24 * 3600  # no writer takes this long for one file: a temporary file this old was left by a killed one
POLL_S = 0.02  # between two attempts to take a lock
_KEY = re.compile(r"[0-9a-f]{8,128}")


@dataclass
class CacheStats:
    """Counts of what one FeatureCache did."""

    hits: int = 0  # lookups that found an entry
    misses: int = 0
    read_bytes: int = 0  # total file size of the hits
    written_bytes: int = 0
    corrupted: int = 0  # damaged entries found; each also counts as a miss
    write_failures: int = 0  # entries that could not be stored


class FeatureCache:
    """Tensors by key in a folder, one safetensors file per key.

    Several processes can share a folder, and a process can be killed at any moment: entries are written atomically
    and verified by a checksum when read. Problems with the folder never end a run: they are counted in ``stats``, and
    ``on_event`` is called with one sentence about each; by default they go to the log "umie.cache". The folder is
    created if it does not exist; a read-only one serves the entries it has.

    Raises:
        UmieError: ``folder`` is a file or cannot be created; later, if a key is not 8 to 128 hexadecimal digits.
    """

    def __init__(self, folder: str | Path, on_event: Callable[[str], None] | None = None) -> None:
        self.folder = Path(folder)
        self.stats = CacheStats()
        self._on_event = on_event
        self._reported: set[str] = set()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.folder.glob("??/.*.part"):
                with suppress(OSError):  # its writer has just finished, or the folder is read-only
                    if time.time() - path.stat().st_mtime > STALE_AFTER_S:
                        path.unlink()
        except (OSError, ValueError) as error:
            raise UmieError(f"{folder}: cannot hold a feature cache ({_reason(error)}): use another folder") from error

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Return the tensors of an entry, or None if there is no intact one; a damaged entry is removed."""
        found = self._read(key)
        if found is None:
            self.stats.misses += 1
        return found

    def get_after_miss(self, key: str) -> dict[str, Tensor] | None:
        """Look a missed entry up again; if another process has stored it since, the miss becomes a hit."""
        found = self._read(key)
        if found is not None:
            self.stats.misses -= 1
        return found

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> bool:
        """Store tensors under a key; return whether that succeeded."""
        path = self.path(key)
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        data = save(plain, metadata={"checksum": _checksum(key, plain)})
        try:
            with atomic_write(path, "wb") as file:
                file.write(data)
        except (OSError, UmieError) as error:
            self.stats.write_failures += 1
            sentence = f"{self.folder}: entries cannot be stored ({_reason(error)}); features are recomputed instead"
            self._report(sentence, once=True)
            return False
        self.stats.written_bytes += len(data)
        return True

    @contextmanager
    def lock(self, fingerprint: str) -> Iterator[None]:
        """Hold the lock of an encoder, so that several processes do not encode the same."""
        folder = self.folder / "locks"
        lock = FileLock(folder / f"{fingerprint}.lock")
        with suppress(OSError):  # in a read-only folder nothing will be stored, so there is nothing to wait for
            folder.mkdir(exist_ok=True)
            lock.acquire(poll_interval=POLL_S)
        try:
            yield
        finally:
            lock.release()

    def path(self, key: str) -> Path:
        """Return the file of an entry, whether or not it exists."""
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise UmieError(f"cache key is {shown(key)}: use 8 to 128 lower-case hexadecimal digits")
        return self.folder / key[:2] / f"{key}{SUFFIX}"

    def size(self) -> tuple[int, int]:
        """Return the number of entries in the folder and their total size in bytes."""
        sizes = []
        for path in self.folder.glob(f"??/*{SUFFIX}"):
            with suppress(FileNotFoundError):  # another process has just removed it as damaged
                sizes.append(path.stat().st_size)
        return len(sizes), sum(sizes)

    def __contains__(self, key: str) -> bool:
        """Return whether there is an entry, intact or not."""
        return self.path(key).is_file()

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureCache, (self.folder, self._on_event)  # a copy in another process counts for itself

    def _read(self, key: str) -> dict[str, Tensor] | None:
        path = self.path(key)
        try:
            with open_regular(path) as file:
                data = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._report(f"{path}: cannot be read ({_reason(error)}); its features are recomputed", once=True)
            return None
        try:
            tensors = load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            if header["__metadata__"]["checksum"] != _checksum(key, tensors):
                raise ValueError("its checksum does not match")
        except Exception as error:  # a damaged header makes safetensors raise nearly anything
            self.stats.corrupted += 1
            reason = str(error).partition("\n")[0] or type(error).__name__
            try:
                path.unlink(missing_ok=True)
            except OSError as refusal:
                self._report(f"{path}: damaged ({reason}) and cannot be removed ({_reason(refusal)}); not used")
            else:
                self._report(f"{path}: damaged ({reason}); removed, its features are recomputed")
            return None
        self.stats.hits += 1
        self.stats.read_bytes += len(data)
        return tensors

    def _report(self, sentence: str, *, once: bool = False) -> None:
        # the messages of safetensors quote damaged bytes
        sentence = "".join(character if character.isprintable() else "?" for character in sentence)
        if once:
            if sentence in self._reported:
                return
            self._reported.add(sentence)
        if self._on_event is None:
            logging.getLogger("umie.cache").warning("%s", sentence)
        else:
            self._on_event(sentence)


def _checksum(key: str, tensors: Mapping[str, Tensor]) -> str:
    # a damaged header may still parse, as other tensors; CRC-32 finds accidents in a quarter of the time of SHA-256
    value = zlib.crc32(key.encode())
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), value)
        value = zlib.crc32(tensor.flatten().view(torch.uint8).numpy().data, value)
    return f"crc32:{value:08x}"


def _reason(error: BaseException) -> object:
    cause = error.__cause__ if isinstance(error, UmieError) and error.__cause__ is not None else error
    return getattr(cause, "strerror", None) or cause
