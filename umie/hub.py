"""Saved variants by name: a local directory, or a repository on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from umie.errors import UmieError, one_line


def is_hub_name(name: str) -> bool:
    """Return whether ``name`` has the form ``owner/model`` of a hub repository."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None


def check_saved(name: str | Path) -> None:
    """Raise UmieError unless ``name`` is a directory or may be a hub repository; makes no request.

    ``owner/model`` may be a repository unless a directory ``owner`` exists, so that a mistyped path fails at once.
    """
    if str(name) and Path(name).is_dir():
        return
    if not is_hub_name(str(name)) or Path(name).parent.is_dir():
        raise UmieError(f"{str(name)!r} is neither an existing directory nor a hub name such as 'owner/model'")


def find_file(name: str | Path, filename: str, **options: Any) -> Path:
    """Return the path of a file of a saved variant; download it to the hub cache if necessary.

    ``options`` are those of ``transformers.utils.cached_file``, such as ``revision`` or ``token``.

    Raises:
        UmieError: there is no such directory or repository, or it does not contain the file.
    """
    check_saved(name)
    if Path(name).is_dir():
        path = Path(name) / (options.get("subfolder") or "") / filename
        if not path.is_file():
            raise UmieError(f"{name} does not contain {filename}: save the model and its processor to one directory")
        return path
    from transformers.utils import cached_file

    try:
        return Path(cached_file(str(name), filename, **options))
    except OSError as error:
        reason = one_line(error)
        raise UmieError(f"{name} is not a directory and {filename} cannot be loaded from the hub: {reason}") from error
