"""Find an image's features by its name: in a directory with one file per image, or in files with many images."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from umie.encoders.precomputed.files import LAYOUTS, Entry, Layout
from umie.encoders.precomputed.readers import H5Entry, TensorFile, h5_group, h5_names, open_h5, open_npz
from umie.encoders.precomputed.tsv import TsvFile
from umie.errors import UmieError, shown

SUFFIXES = {".npz": "npz", ".h5": "h5", ".hdf5": "h5", ".tsv": "tsv", ".safetensors": "safetensors"}
FORMATS = tuple(LAYOUTS)
_LONGEST_SUFFIX = 5  # letters and digits after the dot of an image's name


def image_names(path: str | Path) -> list[str]:
    """Return the names under which files may store an image, the most specific first.

    These are the last two parts of its path, since images of several splits often have the same name
    (``train/1.jpg``, ``test/1.jpg``), and then the last part; each with and without the suffix.

    Source: the VinVL features released for Twitter use ``111254.jpg.npz``, those of UMIE ``111254.h5``.

    Raises:
        UmieError: the path does not end in a file name.
    """
    path = Path(path)
    file_name, folder = path.name, path.parent.name
    if not _is_one_part(file_name):
        raise UmieError(f"{shown(file_name)} is not a file name of an image")
    stem, _, suffix = file_name.rpartition(".")
    # an M2E2 name such as "2014.12.17.2562583_0" has no suffix
    is_suffix = _is_one_part(stem) and suffix.isalnum() and not suffix.isdigit() and len(suffix) <= _LONGEST_SUFFIX
    names = [file_name, stem] if is_suffix else [file_name]
    return [f"{folder}/{name}" for name in names] + names if _is_one_part(folder) else names


def _is_one_part(name: str) -> bool:
    """Return whether a name is a single path component, so that it cannot leave a directory."""
    return name not in ("", ".", "..") and not any(character in name for character in "/\\\0")


class FeatureSource(ABC):
    """The feature files. They are opened on first use, again in each process, and pickled closed."""

    def __init__(self, path: Path, file_format: str) -> None:
        self.path = path
        self.format = file_format

    @abstractmethod
    def entry(self, names: Sequence[str]) -> AbstractContextManager[Entry | None]:
        """Open the entry of the first name that exists; None if there is none."""

    @abstractmethod
    def some_names(self) -> Iterator[str]:
        """Yield names of stored images, in a fixed order."""

    @abstractmethod
    def files(self) -> list[Path]:
        """Return the feature files, sorted."""


class Folder(FeatureSource):
    """A directory with one file per image, named after the image and the format's suffix.

    The file may be in a subdirectory named like the image's directory. Links in the directory are followed, but names,
    which come from data, cannot leave it.
    """

    def __init__(self, path: Path, file_format: str) -> None:
        super().__init__(path, file_format)
        self.suffixes = [suffix for suffix, name in SUFFIXES.items() if name == file_format]

    @contextmanager
    def entry(self, names: Sequence[str]) -> Iterator[Entry | None]:
        """Open the file of the first name that exists."""
        path = self._file(names)
        if path is None:
            yield None
        elif self.format == "npz":
            with open_npz(path) as entry:
                yield entry
        elif self.format == "h5":
            with open_h5(path) as file:
                yield h5_group(file, [*names, path.stem], path) or H5Entry(file, str(path))
        else:
            file = TensorFile(path)
            prefix = next((f"{name}/" for name in names if f"{name}/" in file.groups), "")
            yield file.entry(prefix, str(path))

    def some_names(self) -> Iterator[str]:
        """Yield the names of the files, with their subdirectory and without the format's suffix."""
        return (path.relative_to(self.path).as_posix()[: -len(path.suffix)] for path in self.files())

    def files(self) -> list[Path]:
        """Return the files of the format, followed by those in subdirectories."""
        found = (path for path in _paths(self.path) if path.suffix in self.suffixes)
        return sorted(found, key=lambda path: (path.parent != self.path, path))

    def _file(self, names: Sequence[str]) -> Path | None:
        for name in names:
            for suffix in self.suffixes:
                path = self.path / f"{name}{suffix}"
                try:
                    if path.is_file():
                        return path
                except OSError as error:
                    if error.errno == errno.ENAMETOOLONG and "/" in name:
                        continue  # if the file name itself is too long, the names without a directory fail below
                    raise UmieError(f"{self.path}: cannot search for {shown(name)}: {error.strerror}") from error
        return None


class Container(FeatureSource):
    """A file with many images: .h5 with one group per image, or .safetensors with ``<id>/features``."""

    def __init__(self, path: Path, file_format: str) -> None:
        super().__init__(path, file_format)
        self._handle: Any = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_handle": None}

    @property
    def handle(self) -> Any:
        """The open file of this process: a handle inherited by a fork would share its position in the file."""
        if self._handle is None or self._process != os.getpid():
            self._handle = self._open()
            self._process = os.getpid()
        return self._handle

    @abstractmethod
    def _open(self) -> Any:
        """Open the file."""

    def files(self) -> list[Path]:
        """Return the file."""
        return [self.path]


class H5Container(Container):
    """An .h5 file with one group per image, or one group of groups per directory of images."""

    def _open(self) -> Any:
        return open_h5(self.path)

    def entry(self, names: Sequence[str]) -> AbstractContextManager[Entry | None]:
        """Open the image's group."""
        return nullcontext(h5_group(self.handle, names, self.path))

    def some_names(self) -> Iterator[str]:
        """Yield the names of the groups, and of groups inside groups without datasets."""
        return h5_names(self.handle, self.path)


class TensorContainer(Container):
    """A .safetensors file with the tensors ``<id>/features``, ``<id>/boxes`` and so on."""

    def _open(self) -> Any:
        return TensorFile(self.path)

    def entry(self, names: Sequence[str]) -> AbstractContextManager[Entry | None]:
        """Open the image's tensors."""
        known = next((name for name in names if f"{name}/" in self.handle.groups), None)
        return nullcontext(None if known is None else self.handle.entry(f"{known}/", f"{self.path}: {known}"))

    def some_names(self) -> Iterator[str]:
        """Yield the prefixes of the tensors' names."""
        return (prefix[:-1] for prefix in sorted(self.handle.groups) if prefix)


class Tsv(FeatureSource):
    """A .tsv file, or a directory of them."""

    def __init__(self, path: Path, columns: Sequence[str] | None, keys: Layout) -> None:
        super().__init__(path, "tsv")
        self._options = (columns, keys)
        self._opened: list[TsvFile] | None = None

    @property
    def opened(self) -> list[TsvFile]:
        """The files with their indexes."""
        if self._opened is None:
            self._opened = [TsvFile(path, *self._options) for path in self.files()]
        return self._opened

    def entry(self, names: Sequence[str]) -> AbstractContextManager[Entry | None]:
        """Read the image's line."""
        for name in names:
            holding = [file for file in self.opened if name in file.rows]
            if len(holding) > 1:
                first, second = (file.path for file in holding[:2])
                raise UmieError(f"{first} and {second} both contain {shown(name)}: remove one, or set `path` to a file")
            if holding:
                return nullcontext(holding[0].entry(name))
        return nullcontext(None)

    def some_names(self) -> Iterator[str]:
        """Yield the names in the order of the lines."""
        return (name for file in self.opened for name in file.rows)

    def files(self) -> list[Path]:
        """Return the .tsv files."""
        return sorted(self.path.glob("*.tsv")) if self.path.is_dir() else [self.path]


def open_source(path: Path, file_format: str | None, columns: Sequence[str] | None, keys: Layout) -> FeatureSource:
    """Return the source of features at a path.

    Args:
        path: a file or a directory.
        file_format: one of ``FORMATS``; None uses the suffix of the file, or of the files in the directory.
        columns: names of the columns of a .tsv file without a header.
        keys: names of roles, see ``LAYOUTS``.

    Raises:
        UmieError: the path does not exist, or its format cannot be determined.
    """
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
        if not is_folder and not is_file:
            raise UmieError(f"{path}: no such file or directory of features: correct `path`, or create them")
        found = {path.suffix} if is_file else {Path(entry.name).suffix for entry in os.scandir(path)}
    except OSError as error:
        raise UmieError(f"{path}: cannot read: {error.strerror}") from error
    formats = sorted({SUFFIXES[suffix] for suffix in found if suffix in SUFFIXES})
    if (
        file_format is None and not formats and is_folder
    ):  # files of single images may be in subdirectories, .tsv files may not
        formats = sorted({SUFFIXES.get(below.suffix, "tsv") for below in _paths(path)} - {"tsv"})
    if file_format is None:
        if len(formats) != 1:
            held = f"has files of {' and '.join(formats)}" if formats else "has no file of a known format"
            raise UmieError(f"{path}: {held}: set format={' or '.join(map(repr, formats or FORMATS))}")
        file_format = formats[0]
    if file_format == "tsv":
        return Tsv(path, columns, keys)
    if is_folder:
        return Folder(path, file_format)
    if file_format == "npz":
        raise UmieError(f"{path}: an .npz file contains one image: set `path` to its directory")
    return (H5Container if file_format == "h5" else TensorContainer)(path, file_format)


def _paths(folder: Path) -> Iterator[Path]:
    """Yield the content of a directory and of its subdirectories, except those that cannot be listed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            yield folder / entry.name
            if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and Path(entry).is_dir()):
                with suppress(PermissionError), os.scandir(entry) as below:
                    yield from (folder / entry.name / file.name for file in below)
