"""Checkpoint folders as untrusted input: files inside the folder, configurations of a possible size, checksums.

A manifest lists the files of a saved checkpoint with their sizes and SHA-256 digests; it is checked at every load.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from umie.errors import UmieError, at, shown
from umie.files import MAX_HEAD, atomic_write, check_pointer, json_text, open_regular, read_json
from umie.versions import file_digest

MANIFEST = "umie_manifest.json"
MODEL_FILES = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json")
_SUFFIXES = (".json", ".safetensors", ".model", ".txt", ".jinja", ".bin", ".pt", ".pth")  # of files that loaders open
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_CONFIGS = ("config.json", "generation_config.json")
_OBJECTS = (*_CONFIGS, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
NUM_LAYERS = (
    "num_layers", "num_hidden_layers", "num_decoder_layers", "encoder_layers", "decoder_layers", "n_layer", "n_layers",
)  # fmt: skip
_MAX_LAYERS = 1000
_MAX_LABELS = 1_000_000  # transformers makes a name for each
_MAX_EXTRA_IDS = 10_000  # T5's tokenizers have 100
_MAX_NUMBER = 1 << 31  # of any other option
PARAMETERS_PER_BYTE = 4  # quantized weights have 2; twice that, as a pair of halves may start from one encoder
_EXTRA_PARAMETERS = 1 << 20

_digests: dict[tuple[str, int, int, int], str] = {}  # of files of this process, so that each is read once


def check_file(path: Path, folder: Path | None = None) -> None:
    """Raise UmieError unless a path is a regular file and no Git LFS pointer; with ``folder``, also inside of it."""
    try:
        with open_regular(path) as file:
            head = file.read(MAX_HEAD)
        if folder is not None and not _is_inside(path.resolve(), folder.resolve()):
            raise UmieError(f"{path}: is a link that leads outside of its folder: copy the file into it")
    except OSError as error:
        raise UmieError(f"{path}: cannot read: {error.strerror}") from error
    with at(str(path)):
        check_pointer(head)


def check_checkpoint(folder: Path, *, follow_links: bool = False) -> None:
    """Check the files of a checkpoint before a library opens them.

    Args:
        folder: the folder; files in its subfolders are not read.
        follow_links: allow links that lead outside, for the files of an installed package.

    Raises:
        UmieError: a file is not a regular one, a Git LFS pointer, or outside of the folder; a configuration is not a
            JSON object or has an impossible size; the index of the weights leads outside; or it is an adapter.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    except OSError as error:
        raise UmieError(f"{folder}: cannot read: {error.strerror}") from error
    for path in paths:
        check_file(path, None if follow_links else folder)
        if path.name == "adapter_config.json":
            raise UmieError(
                f"{path}: the folder has an adapter, whose base model has another name: merge them into one checkpoint"
            )
        if path.name in _OBJECTS or path.name.endswith(".index.json"):
            values = read_json(path, "a JSON object", allow_nan=True)
            if not isinstance(values, dict):
                raise UmieError(f"{path}: contains {shown(values)}: expected a JSON object: save the checkpoint again")
            with at(str(path)):
                if path.name in _OBJECTS:
                    check_config(values)
                elif path.name.endswith(".index.json"):
                    _check_index(values, folder)


def check_config(values: Any, key: str = "", *, fewest_layers: int = 1) -> None:
    """Raise UmieError for options of a model that cannot be meant, before anything is built from them."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            if name == "model_max_length":  # of tokenizers without a limit, a huge number
                continue
            if name in ("attn_implementation", "_attn_implementation") and "/" in str(value):
                raise UmieError(f"{name} is {shown(value)}: code from the hub is not run: remove it")
            if name == "checkpoint_path" or (name == "architecture" and ":" in str(value)):  # of timm, in transformers
                raise UmieError(f"{name} is {shown(value)}: weights are read from the checkpoint itself: remove it")
            check_config(value, name, fewest_layers=0 if name == "visual_embedding" else fewest_layers)
    elif isinstance(values, list):
        for value in values:
            check_config(value, key, fewest_layers=fewest_layers)
    elif isinstance(values, float) and math.isnan(values):
        raise UmieError(f"{key} is NaN: correct it")
    elif isinstance(values, int):
        most = _MAX_LAYERS if key in NUM_LAYERS else _MAX_LABELS if key == "num_labels" else _MAX_NUMBER
        most = _MAX_EXTRA_IDS if key == "extra_ids" else most
        if key in NUM_LAYERS and values < fewest_layers:
            raise UmieError(f"{key} is {values}: use at least {fewest_layers}")
        if abs(values) > most:
            raise UmieError(f"{key} is {shown(values)}: use a number of at most {most:,}")


def weight_bytes(folder: Path) -> int:
    """Return the size of all weight files of a folder, in bytes."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in _WEIGHTS)


def check_num_parameters(number: int, folder: Path) -> None:
    """Raise UmieError if a configuration describes far more parameters than the weight files of a folder can have."""
    size = weight_bytes(folder)
    if number > PARAMETERS_PER_BYTE * size + _EXTRA_PARAMETERS:
        raise UmieError(
            f"{folder}: its configuration describes {number:,} parameters, but its weight files have only {size:,} "
            "bytes: correct the configuration"
        )


def write_manifest(
    folder: Path, names: Iterable[str] | None = None, *, replaces: Callable[[str], bool] = lambda name: True
) -> None:
    """Write the sizes and digests of files to the manifest of a folder.

    Args:
        folder: the checkpoint.
        names: the files, relative to it; by default all.
        replaces: whether an earlier entry, by name, is dropped if it is not among the names.
    """
    path = folder / MANIFEST
    if names is None:
        files = (file for file in folder.rglob("*") if file.is_file() and file != path)
        names = sorted(file.relative_to(folder).as_posix() for file in files)
    kept: dict[str, Any] = {}
    if path.is_file():
        try:
            kept = {name: entry for name, entry in _entries(folder).items() if not replaces(name)}
        except UmieError:  # damaged: what it covered is unknown
            kept = {}
    for name in names:
        kept[name] = {"bytes": (folder / name).stat().st_size, "sha256": known_digest(folder / name)}
    with atomic_write(path) as file:
        file.write(json_text({"files": dict(sorted(kept.items()))}, indent=1))


def check_manifest(folder: Path, covers: Callable[[str], bool] = lambda name: True) -> frozenset[str]:
    """Check the files of a folder against its manifest, if it has one.

    Args:
        folder: the checkpoint.
        covers: which files to check, by name.

    Returns:
        The names that were checked; none without a manifest.

    Raises:
        UmieError: a file is missing, or differs from what was saved.
    """
    if not (folder / MANIFEST).exists():
        return frozenset()
    check_file(folder / MANIFEST)
    entries = _entries(folder)
    # a training checkpoint without a manifest is incomplete
    advice = "" if "trainer_state.json" in entries else f"; if you changed it on purpose, remove {MANIFEST}"
    chosen = {name: entry for name, entry in entries.items() if covers(name)}
    for name, entry in chosen.items():
        path = folder / name
        if not path.is_file():
            raise UmieError(f"{path}: is missing, but {MANIFEST} lists it: copy or download the checkpoint again")
        if path.stat().st_size != entry["bytes"] or known_digest(path) != entry["sha256"]:
            raise UmieError(
                f"{path}: is not the file that was saved ({MANIFEST} has another checksum): copy or download the "
                f"checkpoint again{advice}"
            )
    return frozenset(chosen)


def is_intact(folder: Path) -> bool:
    """Return whether a folder has a manifest, and its files are what they were when it was written."""
    try:
        return bool(check_manifest(folder))
    except UmieError:
        return False


def is_model_file(name: str) -> bool:
    """Return whether a file of a checkpoint belongs to the model, and not to its processor."""
    return "/" not in name and any(fnmatch(name, pattern) for pattern in MODEL_FILES)  # a star also stands for slashes


@contextmanager
def local_only(name: str | Path) -> Iterator[None]:
    """Keep the block from using the hub if ``name`` is a folder: names inside its files must not lead there."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or Path(name).is_dir()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _check_index(values: Mapping[str, Any], folder: Path) -> None:
    weights = values.get("weight_map")
    if not isinstance(weights, dict):
        raise UmieError(f"weight_map is {shown(weights)}: expected a file for each weight: save the model again")
    for name in {str(file): file for file in weights.values()}.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(_WEIGHTS):
            raise UmieError(f"{shown(name)} is not a weight file of this folder: save the model again")
        check_file(folder / name)


def _is_inside(path: Path, folder: Path) -> bool:
    # the snapshots of the hub's cache, and folders in them, link to the blobs next to them
    repositories = [above.parents[1] for above in (folder, *folder.parents) if above.parent.name == "snapshots"]
    return any(path.is_relative_to(place) for place in (folder, *(place / "blobs" for place in repositories)))


def _entries(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / MANIFEST
    content = read_json(path, "a manifest")
    entries = content.get("files") if isinstance(content, dict) else None
    if not isinstance(entries, dict) or not all(_is_entry(name, entry) for name, entry in entries.items()):
        raise UmieError(f"{path}: is not a manifest of files: copy or download the checkpoint again")
    return entries


def _is_entry(name: str, entry: Any) -> bool:
    is_local = not Path(name).is_absolute() and ".." not in Path(name).parts and "\0" not in name
    return is_local and isinstance(entry, dict) and {"bytes", "sha256"} <= entry.keys()


def known_digest(path: Path) -> str:
    """Return the SHA-256 digest of a file, which is read once as long as its size and date stay the same."""
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino)
    if key not in _digests:
        _digests[key] = file_digest(path)
    return _digests[key]
