"""Manifests: the digests of the files of a folder that later runs reuse, so that a damaged one is made again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from umie.errors import UmieError
from umie.files import atomic_write, read_json
from umie.versions import file_digest

MANIFEST = "manifest.json"


def write_manifest(folder: Path, names: Iterable[str] | None = None) -> None:
    """Write the digests of some files of a folder, by default of all of them."""
    if names is None:
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    digests = {name: file_digest(folder / name) for name in names}
    with atomic_write(folder / MANIFEST) as file:
        json.dump(digests, file, indent=1)


def is_intact(folder: Path) -> bool:
    """Return whether a folder is complete, and its files are what they were when the manifest was written."""
    if not (folder / MANIFEST).is_file():
        return False
    try:
        digests = read_json(folder / MANIFEST)
        is_listed = isinstance(digests, dict) and bool(digests)
        return is_listed and all(file_digest(folder / name) == digest for name, digest in digests.items())
    except UmieError:
        return False
