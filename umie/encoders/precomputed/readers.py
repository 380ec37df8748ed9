"""The arrays of one image in .npz, .h5 and .safetensors files; nothing is unpickled, and sizes are checked first."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from umie.encoders.precomputed.files import Array, Entry, check_bytes, readable
from umie.errors import UmieError, at, shown


class NpzEntry(Entry):
    """An .npz file, which contains one image."""

    def __init__(self, archive: zipfile.ZipFile, place: str) -> None:
        super().__init__(place)
        self._archive = archive
        self._names = {name.removesuffix(".npy") for name in archive.namelist()}

    @property
    def names(self) -> Collection[str]:
        """Names of the arrays."""
        return self._names

    def array(self, name: str) -> Array:
        """Return an array; arrays of objects, which are pickled, are refused."""
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


class H5Entry(Entry):
    """A group of an .h5 file, or the whole file if it contains one image."""

    def __init__(self, group: Any, place: str) -> None:
        super().__init__(place)
        self._group = group
        with at(place), readable("an .h5 file"):
            self._names = set(group)

    @property
    def names(self) -> Collection[str]:
        """Names in the group."""
        return self._names

    def array(self, name: str) -> Array:
        """Return an array of this file; links to other files are refused."""
        with readable(f"a dataset {name} of an .h5 file"):
            dataset = self._group[name]
            if not isinstance(dataset, _h5py().Dataset):
                raise UmieError(f"{name} is not a dataset")
            if dataset.file.filename != self._group.file.filename or dataset.external or dataset.is_virtual:
                raise UmieError(f"{name} is in another file: copy it into this one")
            if dataset.dtype.kind not in "fiu" or dataset.shape is None:
                raise UmieError(f"{name} is of {dataset.dtype}: expected numbers")
            check_bytes(name, dataset.shape, dataset.dtype.itemsize)
            return np.asarray(dataset[()])


class TensorEntry(Entry):
    """The tensors of a .safetensors file that share a prefix."""

    def __init__(self, handle: Any, names: Collection[str], prefix: str, place: str) -> None:
        super().__init__(place)
        self._handle = handle
        self._prefix = prefix
        self._names = names

    @property
    def names(self) -> Collection[str]:
        """Names of the tensors, without the prefix."""
        return self._names

    def array(self, name: str) -> Array:
        """Return a tensor as an array; floats become float32, since numpy has no bfloat16."""
        with readable(f"a tensor {name} of a .safetensors file"):
            tensor = self._handle.get_tensor(self._prefix + name)
            check_bytes(name, tensor.shape, tensor.element_size())
            array: Array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
            return array


class TensorFile:
    """An open .safetensors file, with names grouped by prefix."""

    def __init__(self, path: Path) -> None:
        with at(str(path)), readable("a .safetensors file"):
            self._handle: Any = _open_tensors(path)
            self.groups: dict[str, set[str]] = {}
            for key in self._handle.keys():  # noqa: SIM118 # the handle is no mapping
                prefix, slash, name = key.rpartition("/")
                self.groups.setdefault(prefix + slash, set()).add(name)

    def entry(self, prefix: str, place: str) -> TensorEntry:
        """Return the tensors whose names start with ``prefix``."""
        return TensorEntry(self._handle, self.groups.get(prefix, ()), prefix, place)


def _open_tensors(path: Path) -> Any:
    from safetensors import safe_open

    return safe_open(path, framework="pt")


@contextmanager
def open_npz(path: Path) -> Iterator[NpzEntry]:
    """Open the file of one image."""
    with at(str(path)), readable("an .npz file"):
        archive = zipfile.ZipFile(path)
    with archive:
        yield NpzEntry(archive, str(path))


def open_h5(path: Path) -> Any:
    """Return an open .h5 file."""
    with at(str(path)), readable("an .h5 file"):
        # feature files are often on file systems without locks
        return _h5py().File(path, "r", locking="best-effort")


def h5_group(file: Any, names: Sequence[str], path: Path) -> H5Entry | None:
    """Return the group of the first name that is in the file, or None."""
    for name in names:
        with at(str(path)), readable("an .h5 file"):
            if name not in file:
                continue
            group = file[name]
            if not isinstance(group, _h5py().Group) or group.file.filename != file.filename:
                raise UmieError(
                    f"{shown(name)} is not a group of this file: expected a group with the image's datasets"
                )
        return H5Entry(group, f"{path}: {name}")
    return None


def h5_names(file: Any, path: Path) -> Iterator[str]:
    """Yield the names of groups that can be an image's: those with datasets, also inside groups of groups."""
    with at(str(path)), readable("an .h5 file"):
        for name in file:
            if _is_group(file, name) and len(file[name]) and all(_is_group(file[name], below) for below in file[name]):
                yield from (f"{name}/{below}" for below in file[name])
            else:
                yield name


def _is_group(parent: Any, name: str) -> bool:
    return parent.get(name, getclass=True) is _h5py().Group


def _h5py() -> Any:
    try:
        import h5py  # type: ignore[import-untyped] # it ships no type information
    except ImportError as error:
        raise ImportError("features in .h5 files need h5py: pip install 'umie[h5]'") from error
    return h5py
