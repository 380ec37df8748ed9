"""Convert a state dict with UMIE's published names to a folder that `UmieModel.from_pretrained` loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from umie.checkpoints import check_config, check_file
from umie.composition import default_tokenizer
from umie.constrained import encode
from umie.conversion import released
from umie.errors import UmieError, at, shown
from umie.files import atomic_folder, json_text, read_json
from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.tasks import registry as tasks
from umie.versions import versions
from umie.weights import read_state_dict

MARK = "conversion.json"  # marks the folder of a conversion
FEATURES = {"name": "precomputed", "path": "features", "boxes": "relative"}
SHARD_SIZE = "4GB"
_SHOWN = 12  # names listed in an error


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """The result of a conversion."""

    folder: Path  # that was written
    used: int  # the number of input weights that the model uses
    unused: list[str]  # published names of the weights that the published model never uses
    left_out: list[str]  # names of the weights that no published model has
    ignored_options: list[str]  # options of the configuration that have no meaning here
    dtype: str  # of the weights
    notes: list[str]  # remarks for the user


def convert_released(
    state_dict: str | Path,
    config: str | Path,
    output: str | Path,
    *,
    tokenizer: str | Path | None = None,
    encoder: Mapping[str, Any] | None = None,
    style: str = "released",
    allow_unmatched: bool = False,
    overwrite: bool = False,
) -> Conversion:
    """Convert a checkpoint of UMIE's published code. Source: UMIE's released code, for the names of the weights.

    The weights stay memory-mapped until they are written, so that few of them are in memory at a time.

    Args:
        state_dict: a ``.pth`` or ``.safetensors`` file.
        config: the ``config.json`` of its T5.
        output: the folder to write.
        tokenizer: a folder with the checkpoint's tokenizer; if given, a processor is saved with the model.
        encoder: name and options of the encoder of the model's features; by default precomputed features in the
            folder ``features``, with relative boxes.
        style: the answer style of the model, set in the processor's tasks.
        allow_unmatched: leave out weights that no published model has instead of raising an error.
        overwrite: replace an earlier conversion.

    Raises:
        UmieError: a file cannot be read, a weight is missing, unknown or of another shape, or the folder exists.
    """
    state_path, config_path = Path(state_dict), Path(config)
    check_place(Path(output), overwrite)
    with atomic_folder(Path(output)) as folder:
        check_file(config_path)
        values = read_json(config_path, "the checkpoint's config.json", allow_nan=True)
        if not isinstance(values, dict):
            raise UmieError(f"{config_path}: is {shown(values)}, not a JSON object: use the checkpoint's config.json")
        with at(str(config_path)):
            check_config(values)
        state = read_state_dict(state_path)
        parts = dict(encoder or FEATURES)
        with at(str(config_path)):
            umie_config, ignored = released.variant(values, state, parts, state_path.name)
        with at(str(config_path)), torch.device("meta"):  # without allocating weights
            model = UmieModel(umie_config)
        model.eval()
        with at(str(state_path)):
            weights, unused, left_out, notes = _matched(state, model, allow_unmatched)
        dtype = _common_dtype(weights)
        weights = {name: value.to(dtype) for name, value in weights.items()}
        model.load_state_dict(weights, assign=True)
        model.tie_weights()
        if tokenizer is not None:
            notes += _save_processor(str(tokenizer), parts, model, style, folder)
        result = Conversion(
            folder=Path(output),
            used=len(state) - len(unused) - len(left_out),
            unused=unused,
            left_out=left_out,
            ignored_options=ignored,
            dtype=str(dtype).removeprefix("torch."),
            notes=notes,
        )
        try:
            model.save_pretrained(folder, max_shard_size=SHARD_SIZE)
            mark = {
                "source": state_path.name,
                "source_bytes": state_path.stat().st_size,
                **versions("torch"),
                **{name: value for name, value in vars(result).items() if name != "folder"},
            }
            (folder / MARK).write_text(json_text(mark, indent=1) + "\n", encoding="utf-8")
        except (OSError, SafetensorError) as error:
            raise UmieError(f"{output}: cannot write: {error}; choose a path with enough disk space") from error
        check_place(Path(output), overwrite)  # it may have been created in the meantime
    return result


def check_place(path: Path, overwrite: bool) -> None:
    """Raise UmieError unless ``path`` is new, empty, or an earlier conversion that may be replaced."""
    try:
        if path.exists() and not path.is_dir():
            raise UmieError(f"{path}: not a directory: use another name")
        if not path.exists() or not any(path.iterdir()):
            return
        if not (path / MARK).is_file():
            raise UmieError(f"{path}: exists and is not an earlier conversion: use another name, or an empty folder")
    except OSError as error:
        raise UmieError(f"{path}: cannot write: {error.strerror}; use another name") from error
    if not overwrite:
        raise UmieError(f"{path}: contains an earlier conversion: use another name, or --overwrite")


def _matched(
    state: Mapping[str, Tensor], model: UmieModel, allow_unmatched: bool
) -> tuple[dict[str, Tensor], list[str], list[str], list[str]]:
    """Return the weights by our names, the names of unused weights and of those left out, and notes."""
    _check_embeddings(state)
    state = dict(state)
    if released.EMBEDDING not in state:  # .safetensors stores only one name of tensors that share memory
        copies = [name for name in (*released.EMBEDDING_COPIES, released.SLOT_ORDER) if name in state]
        state |= {released.EMBEDDING: state[copies[0]]} if copies else {}
    expected = {name: value.shape for name, value in model.state_dict().items()}
    unused = [name for name in state if released.is_unused(name)]
    folded = [name for name in (released.IMAGE_ORDER, released.SLOT_ORDER) if name in state]
    weights, left_out = {}, []
    for name, value in state.items():
        if name in unused or name in folded:
            continue
        ours = released.our_name(name)
        if ours is None or ours not in expected:
            left_out.append(name)
        else:
            weights[ours] = value
    for copy in released.EMBEDDING_COPIES:
        if released.EMBEDDING in state:
            weights[released.our_name(copy) or copy] = state[released.EMBEDDING]
    missing = [released.their_name(name) for name in expected if name not in weights and name != released.SLOTS]
    if released.IMAGE_ORDER not in state:
        missing.append(released.IMAGE_ORDER)
    if missing or (left_out and not allow_unmatched):
        raise UmieError(_unmatched(missing, left_out if not allow_unmatched else []))
    for name, value in weights.items():
        if value.shape != expected[name]:
            raise UmieError(
                f"{released.their_name(name)} has shape {list(value.shape)}, but should have {list(expected[name])}: "
                "use the config.json of the checkpoint"
            )
    width = expected[released.SLOTS][1]
    for name in folded:
        if state[name].ndim != 2 or state[name].shape[1] != width:
            raise UmieError(f"{name} is {list(state[name].shape)}: its rows must have width {width}")
    weights[released.SLOTS] = released.slot_embeddings(state)
    notes = []
    if torch.equal(state[released.HEAD], state[released.EMBEDDING]):
        notes.append(f"{released.HEAD} equals {released.EMBEDDING}; published models have separate matrices")
        weights[released.our_name(released.HEAD) or ""] = state[released.HEAD].clone()  # sharing memory would tie them
    return weights, unused, left_out, notes


def _check_embeddings(state: Mapping[str, Tensor]) -> None:
    """Raise UmieError unless all names of the embedding have the same values."""
    names = [name for name in (released.EMBEDDING, *released.EMBEDDING_COPIES) if name in state]
    for name in names[1:]:
        if not torch.equal(state[names[0]], state[name]):
            raise UmieError(
                f"{name} differs from {names[0]}, but encoder and decoder of a T5 share one embedding: "
                "save the state dict again from the trained model"
            )


def _unmatched(missing: list[str], extra: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f"{len(missing)} weights of the published model are missing: {_listed(missing)}")
    if extra:
        parts.append(
            f"{len(extra)} weights are not in a published model of this configuration: {_listed(extra)} "
            "(use allow_unmatched or --allow-unmatched to leave them out)"
        )
    if missing:
        parts.append("use the complete state dict and its config.json")
    return "; ".join(parts)


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _common_dtype(weights: Mapping[str, Tensor]) -> torch.dtype:
    dtype = reduce(torch.promote_types, {value.dtype for value in weights.values()})
    if not dtype.is_floating_point:
        raise UmieError(
            f"the weights are {str(dtype).removeprefix('torch.')}, not a floating-point dtype: use another state dict"
        )
    return dtype


def _save_processor(
    tokenizer: str, encoder: Mapping[str, Any], model: UmieModel, style: str, folder: Path
) -> list[str]:
    """Save a processor with the model; return notes."""
    if not Path(tokenizer).is_dir():
        raise UmieError(f"{tokenizer}: no such directory: use the one with the checkpoint's tokenizer")
    found = default_tokenizer({"source": tokenizer})
    size = model.decoder.vocab_size
    if size is not None and len(found) > size:
        raise UmieError(
            f"{tokenizer}: has {len(found)} tokens, but the model has {size} embeddings: use the checkpoint's tokenizer"
        )
    options = {name: {"style": style} for name in tasks.names()}
    processor = UmieProcessor(found, {**encoder, "feature_dim": model.encoder and model.encoder.feature_dim}, options)
    processor.save_pretrained(folder)
    markers = {marker: None for name in options for marker in processor.task(name).style.markers}
    missing = [marker for marker in markers if found.unk_token_id in encode(found, marker)]
    if missing:
        return [f"the tokenizer has no token for {', '.join(missing)} of the style {style!r}: is it the checkpoint's?"]
    return []
