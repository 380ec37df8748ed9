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


# what loaders open; no pickles and no code
_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
_WEIGHTS = ("model*.safetensors",)
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


def hub_folder(name: str, *, weights: bool = False, subfolder: str | None = None, **options: Any) -> Path:
    """Return the folder of a hub repository in the local cache; missing files are downloaded.

    Args:
        name: the repository, ``owner/model``.
        weights: whether to download weights, too; only safetensors.
        subfolder: the folder within the repository.
        options: ``revision``, ``token``, ``cache_dir``, ``force_download`` and ``local_files_only``, as in
            ``huggingface_hub.snapshot_download``; others are ignored.

    Raises:
        UmieError: there is no such repository, or it can be neither reached nor found in the cache.
    """
    from huggingface_hub import snapshot_download

    prefix = f"{subfolder}/" if subfolder else ""
    given = {key: value for key, value in options.items() if key in HUB_OPTIONS and value is not None}
    given.pop("proxies", None)  # the client reads them from the environment
    try:
        folder = snapshot_download(
            name,
            allow_patterns=[prefix + pattern for pattern in (*_FILES, *(_WEIGHTS if weights else ()))],
            ignore_patterns=[f"{prefix}*/*"],  # in a pattern, a star also stands for slashes
            **given,
        )
    except (OSError, ValueError) as error:
        raise UmieError(f"{name} is not a directory and cannot be loaded from the hub: {one_line(error)}") from error
    return Path(folder) / (subfolder or "")


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
