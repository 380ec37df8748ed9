"""Versions of libraries and digests of files, for reports that can be checked later."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from pathlib import Path

import umie
from umie.errors import UmieError
from umie.files import open_regular


def versions(*libraries: str) -> dict[str, str | None]:
    """Return the versions of umie, Python, and installed libraries. Nothing is imported.

    Args:
        libraries: distribution names, e.g. ``"torch"``. The version of a library that is not installed is None.
    """
    found: dict[str, str | None] = {"umie": umie.__version__, "python": platform.python_version()}
    for library in libraries:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = None
    return found


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 digest of a file's content, in hexadecimal.

    Raises:
        UmieError: the file cannot be read.
    """
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UmieError(f"{path}: cannot read: {error.strerror}") from error
