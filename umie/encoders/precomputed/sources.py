"""Find an image's features by its name, in files with one or many images, without unpickling anything."""

from __future__ import annotations

import errno
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from umie.encoders.precomputed.files import LAYOUTS, Array, Entry, Layout, check_bytes, readable
from umie.encoders.precomputed.tsv import TsvFile
from umie.errors import UmieError, at, import_extra, shown

SUFFIXES = {".npz": "npz", ".h5": "h5", ".hdf5": "h5", ".tsv": "tsv", ".safetensors": "safetensors"}
FORMATS = tuple(LAYOUTS)
_LONGEST_SUFFIX = 5  # letters and digits after the dot of an image's name


def image_names(path: str | Path) -> list[str]:
    """Return the names under which files may store an image, the most specific first.

    These are the last two parts of its path, since images of several splits often have the same name
    (``train/1.jpg``, ``test/1.jpg``), and then the last part; each with and without the suffix.

    Source: the VinVL features released for Twitter use ``111254.jpg.npz``, those of UMIE ``111254.h5``.
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


@dataclass
class FeatureFiles(ABC):
    """The feature files at a path. They are opened on first use, again in each process, and pickled closed."""

    path: Path
    format: str

    @abstractmethod
    def entry(self, names: Sequence[str]) -> AbstractContextManager[Entry | None]:
        """Open the entry of the first name that exists; None if there is none."""

    @abstractmethod
    def first_name(self) -> str | None:
        """Return the name of the first stored image, or None if there is none."""

    def files(self) -> list[Path]:
        """Return the feature files, sorted."""
        return [self.path]


def feature_files(path: Path, file_format: str | None, columns: Sequence[str] | None, keys: Layout) -> FeatureFiles:
    """Return the feature files at a path; see ``PrecomputedEncoderConfig`` for the options."""
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
        if not is_folder and not is_file:
            raise UmieError(f"{path}: no such file or directory of features: correct `path`, or create them")
        found = {path.suffix} if is_file else {Path(entry.name).suffix for entry in os.scandir(path)}
    except OSError as error:
        raise UmieError(f"{path}: cannot read: {error.strerror}") from error
    if file_format is None:
        formats = sorted({SUFFIXES[suffix] for suffix in found if suffix in SUFFIXES})
        if not formats and is_folder:  # files of single images may be in subdirectories, .tsv files may not
            formats = sorted({SUFFIXES.get(below.suffix, "tsv") for below in _paths(path)} - {"tsv"})
        if len(formats) != 1:
            if not formats:
                others = ", ".join(sorted(suffix for suffix in found if suffix)[:5]) or "none"
                raise UmieError(
                    f"{path}: has no file of a known format ({', '.join(SUFFIXES)}), but of these types: {others}: "
                    f"write features in a known one, or set format={' or '.join(map(repr, FORMATS))}"
                )
            held = f"has files of {' and '.join(formats)}"
            raise UmieError(f"{path}: {held}: set format={' or '.join(map(repr, formats))}")
        file_format = formats[0]
    if file_format == "tsv":
        return _Tsv(path, file_format, columns, keys)
    if is_folder:
        return _Folder(path, file_format)
    if file_format == "npz":
        raise UmieError(f"{path}: an .npz file contains one image: set `path` to its directory")
    return _Container(path, file_format)


def _paths(folder: Path) -> Iterator[Path]:
    """Yield the content of a directory and of its subdirectories, except those that cannot be listed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            yield folder / entry.name
            if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and Path(entry).is_dir()):
                with suppress(PermissionError), os.scandir(entry) as below:
                    yield from (folder / entry.name / file.name for file in below)


class _Folder(FeatureFiles):
    """A directory with one file per image, named after the image and the format's suffix.

    The file may be in a subdirectory named like the image's directory. Links in the directory are followed, but names,
    which come from data, cannot leave it.
    """

    @cached_property
    def suffixes(self) -> list[str]:
        return [suffix for suffix, name in SUFFIXES.items() if name == self.format]

    @contextmanager
    def entry(self, names: Sequence[str]) -> Iterator[Entry | None]:
        path = self._file(names)
        if path is None:
            yield None
        else:
            with closing(_OPEN[self.format](path)) as file:
                yield file.only_entry(names)

    def first_name(self) -> str | None:
        paths = self.files()
        return paths[0].relative_to(self.path).as_posix()[: -len(paths[0].suffix)] if paths else None

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


class _Container(FeatureFiles):
    """A file with many images: .h5 with one group per image, or .safetensors with ``<id>/features``."""

    _handle: Any = None
    _process = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_handle": None}

    @property
    def handle(self) -> Any:
        """The open file of this process: a handle inherited by a fork would share its position in the file."""
        if self._handle is None or self._process != os.getpid():
            self._handle, self._process = _OPEN[self.format](self.path), os.getpid()
        return self._handle

    def entry(self, names: Sequence[str]) -> AbstractContextManager[Entry | None]:
        return nullcontext(self.handle.entry(names))

    def first_name(self) -> str | None:
        name: str | None = self.handle.first_name()
        return name


@dataclass
class _Tsv(FeatureFiles):
    """A .tsv file, or a directory of them."""

    columns: Sequence[str] | None
    keys: Layout

    @cached_property
    def indexed(self) -> list[TsvFile]:
        return [TsvFile(path, self.columns, self.keys) for path in self.files()]

    def entry(self, names: Sequence[str]) -> AbstractContextManager[Entry | None]:
        for name in names:
            holding = [file for file in self.indexed if name in file.rows]
            if len(holding) > 1:
                first, second = (file.path for file in holding[:2])
                raise UmieError(f"{first} and {second} both contain {shown(name)}: remove one, or set `path` to a file")
            if holding:
                return nullcontext(holding[0].entry(name))
        return nullcontext(None)

    def first_name(self) -> str | None:
        return next((name for file in self.indexed for name in file.rows), None)

    def files(self) -> list[Path]:
        return sorted(self.path.glob("*.tsv")) if self.path.is_dir() else [self.path]


class _Npz:
    """An open .npz file, which contains one image."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with at(str(path)), readable("an .npz file", path):
            self._archive = zipfile.ZipFile(path)
        self.close = self._archive.close

    def only_entry(self, names: Sequence[str]) -> Entry:
        return Entry(str(self.path), {name.removesuffix(".npy") for name in self._archive.namelist()}, self._array)

    def _array(self, name: str) -> Array:
        with readable(f"an array {name} of an .npz file"):
            member = self._archive.getinfo(f"{name}.npy")
            check_bytes(name, (member.file_size,), 1)
            with self._archive.open(member) as file:
                read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
                shape, _, dtype = read_header[npy.read_magic(file)](file)
            if dtype.hasobject:
                raise UmieError(f"{name} contains pickled Python objects, which are not read: save plain arrays")
            check_bytes(name, shape, dtype.itemsize)
            with self._archive.open(member) as file:
                array: Array = npy.read_array(file, allow_pickle=False)
            return array


class _H5:
    """An open .h5 file: one image, a group per image, or a group of groups per directory of images."""

    def __init__(self, path: Path) -> None:
        h5py = import_extra("h5py", "h5", "reading features in .h5 files")
        self.path, self._h5py = path, h5py
        with at(str(path)), readable("an .h5 file", path):
            # feature files are often on file systems without locks
            self._file = h5py.File(path, "r", locking="best-effort")
        self.close = self._file.close

    def only_entry(self, names: Sequence[str]) -> Entry:
        return self.entry(names) or self._group_entry(self._file, str(self.path))

    def entry(self, names: Sequence[str]) -> Entry | None:
        for name in names:
            with at(str(self.path)), readable("an .h5 file"):
                if name not in self._file:
                    continue
                group = self._file[name]
                if not isinstance(group, self._h5py.Group) or group.file.filename != self._file.filename:
                    raise UmieError(
                        f"{shown(name)} is not a group of this file: expected a group with the image's datasets"
                    )
            return self._group_entry(group, f"{self.path}: {name}")
        return None

    def first_name(self) -> str | None:
        """Return the first group's name, or that of the first group in it if it has only groups."""
        with at(str(self.path)), readable("an .h5 file"):
            name = next(iter(_names(self._file)), None)
            if name is None:
                return name
            first = self._file.get(name, getclass=True)
            if first is None:  # a name that is not UTF-8
                return name
            if first is not self._h5py.Group:
                raise UmieError(
                    f"has datasets without groups ({shown(', '.join(_names(self._file)))}): expected a group for each "
                    "image, with its features and boxes"
                )
            classes = {below: self._file[name].get(below, getclass=True) for below in _names(self._file[name])}
            return f"{name}/{next(iter(classes))}" if set(classes.values()) == {self._h5py.Group} else name

    def _group_entry(self, group: Any, place: str) -> Entry:
        with at(place), readable("an .h5 file"):
            return Entry(place, set(_names(group)), partial(self._array, group))

    def _array(self, group: Any, name: str) -> Array:
        with readable(f"a dataset {name} of an .h5 file"):
            dataset = group[name]
            if not isinstance(dataset, self._h5py.Dataset):
                raise UmieError(f"{name} is not a dataset")
            if dataset.file.filename != group.file.filename or dataset.external or dataset.is_virtual:
                raise UmieError(f"{name} is in another file: copy it into this one")
            if dataset.dtype.kind not in "fiu" or dataset.shape is None:
                raise UmieError(f"{name} is of {dataset.dtype}: expected numbers")
            check_bytes(name, dataset.shape, dataset.dtype.itemsize)
            return np.asarray(dataset[()])


def _names(group: Any) -> list[str]:
    """Return the names in an .h5 group, escaped where they are not UTF-8: h5py returns such names as bytes."""
    return [name if isinstance(name, str) else name.decode(errors="backslashreplace") for name in group]


class _Tensors:
    """An open .safetensors file: one image, or many whose tensors are called ``<id>/features`` and so on."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self.path = path
        with at(str(path)), readable("a .safetensors file", path):
            self._handle: Any = safe_open(path, framework="pt")
            self._groups: dict[str, set[str]] = {}
            # the handle is no mapping, and has no annotations
            for key in self._handle.keys():  # type: ignore[no-untyped-call] # noqa: SIM118
                prefix, slash, name = key.rpartition("/")
                self._groups.setdefault(prefix + slash, set()).add(name)

    def close(self) -> None:
        self._handle = None  # it is closed with its last reference

    def only_entry(self, names: Sequence[str]) -> Entry:
        prefix = next((f"{name}/" for name in names if f"{name}/" in self._groups), "")
        return Entry(str(self.path), self._groups.get(prefix, ()), partial(self._array, prefix))

    def entry(self, names: Sequence[str]) -> Entry | None:
        for name in names:
            if f"{name}/" in self._groups:
                return Entry(f"{self.path}: {name}", self._groups[f"{name}/"], partial(self._array, f"{name}/"))
        return None

    def first_name(self) -> str | None:
        return next((prefix[:-1] for prefix in sorted(self._groups) if prefix), None)

    def _array(self, prefix: str, name: str) -> Array:
        """Return a tensor as an array; floats become float32, since numpy has no bfloat16."""
        with readable(f"a tensor {name} of a .safetensors file"):
            tensor = self._handle.get_tensor(prefix + name)
            check_bytes(name, tensor.shape, tensor.element_size())
            array: Array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
            return array


_OPEN: dict[str, Any] = {"npz": _Npz, "h5": _H5, "safetensors": _Tensors}
