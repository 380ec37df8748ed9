"""The parts that a grid names: checked before a cell runs, told apart when their files change, listed where absent."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from umie.data.synthetic import SPLITS
from umie.errors import UmieError, check_keys
from umie.experiments.data_config import as_mapping, read_corpus_config
from umie.experiments.grid_config import GridConfig
from umie.registry import Registry
from umie.tasks import task_class
from umie.versions import file_digest

T = TypeVar("T")

OWN_KEYS = ("label", "training")


def check_parts(grid: GridConfig, *, read_files: bool = True) -> None:
    """Build every encoder with its weights, and every variant in shape only, so that no cell fails for its options.

    Args:
        grid: the grid.
        read_files: if false, encoders and decoders are not built: only their options are checked, and every fusion
            is built beside a tiny decoder.

    Raises:
        UmieError: a value that a part refuses, weights that cannot be read, a rate for parameters that no variant has.
    """
    import torch

    from umie import decoders, encoders
    from umie.composition import checkpoint_of, default_tokenizer, resolve_parts
    from umie.fusion import VisualEmbeddingConfig
    from umie.model import UmieConfig, UmieModel

    for options in grid.visual_embedding:
        widths = {"feature_dim": 8, "d_model": 8, "num_heads": 1, "head_dim": 8}
        check_options("visual_embedding", VisualEmbeddingConfig, {**widths, **without_label(options)})
    for encoder in grid.encoder:
        options = resolve_parts(without_label(encoder), "gated", "tiny")["encoder"]
        if read_files:
            encoders.registry.build(**options)
        else:
            _check_config(encoders.registry, options)
    for decoder in grid.decoder:
        options = resolve_parts("tiny", "gated", without_label(decoder))["decoder"]
        if not read_files:
            _check_config(decoders.registry, options)
        elif checkpoint_of(options) is not None:
            default_tokenizer(options)
    parameters: set[str] = set()
    choices = (grid.encoder, grid.fusion, grid.decoder) if read_files else (["tiny"], grid.fusion, ["tiny"])
    for variant in itertools.product(*choices, grid.visual_embedding):
        *slots, visual_embedding = (without_label(option) for option in variant)
        with torch.device("meta"):
            model = UmieModel(UmieConfig(**resolve_parts(*slots), visual_embedding=visual_embedding))
        parameters.update(name for name, _ in model.named_parameters())
    for training in grid.training:
        for prefix in training.get("learning_rate_multipliers", {}):
            is_known = read_files or prefix.startswith("fusion.")
            if is_known and not any(name.startswith(prefix) for name in parameters):
                parts = sorted({".".join(name.split(".")[:2]) for name in parameters})
                raise UmieError(
                    f"training: no parameter of any variant begins with {prefix!r}; they begin with {', '.join(parts)}"
                )


def absent(grid: GridConfig, root: Path) -> list[str]:
    """Return what the grid needs and cannot be read here, a line each: data, weights, feature files, checkpoints.

    Args:
        grid: read without its files.
        root: folder that relative paths of ``data`` start from.
    """
    from umie import encoders
    from umie.composition import checkpoint_of, default_tokenizer, resolve_parts

    found = [f"data: {line}" for line in _absent_data(grid, root)]
    for encoder in grid.encoder:
        options = resolve_parts(without_label(encoder), "gated", "tiny")["encoder"]
        try:
            encoders.registry.build(**options)
        except UmieError as error:
            found.append(f"encoder {options['name']}: {error}")
    for decoder in grid.decoder:
        options = resolve_parts("tiny", "gated", without_label(decoder))["decoder"]
        try:
            if checkpoint_of(options) is not None:
                default_tokenizer(options)
        except UmieError as error:
            found.append(str(error))
    return list(dict.fromkeys(found))


def unnamed_regions(grid: GridConfig, tasks: Iterable[str]) -> str | None:
    """Return a warning where MEAE is asked of a variant whose input does not tell regions apart by number, or None.

    Attention over visual slots does not know a slot's number, and neither does T5's cross-attention.
    """
    from umie import fusion

    names = [part if isinstance(part, str) else part.get("name", "gated") for part in grid.fusion]
    looks = any(getattr(fusion.registry.get(name), "uses_image", True) for name in names)
    asks_regions = any(task_class(name).names_regions for name in tasks)
    if not asks_regions or not looks or all(options.get("num_slot_embeddings") for options in grid.visual_embedding):
        return None
    return (
        "meae names regions by number, and visual_embedding.num_slot_embeddings is 0: their numbers are not in the "
        "input; set it to 1 + the most regions of an image"
    )


def _absent_data(grid: GridConfig, root: Path) -> Iterator[str]:
    for name, one in read_corpus_config(grid.data, grid.tasks).sets.items():
        if one.format != "synthetic":
            for key in (*SPLITS, "images", "regions"):
                path = root / str(one.options.get(key, "."))
                if not path.exists():
                    yield f"{name}, {key}: {path}: no such {'file' if key in SPLITS else 'folder'}"


def files_of(grid: GridConfig, parts: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """Return what tells a changed plugin, checkpoint folder, weight or feature file from the one before."""
    from umie import encoders
    from umie.composition import checkpoint_of

    files: list[Any] = [file_digest(plugin) for plugin in grid.plugins]
    for slot, options in parts.items():
        for key in ("source", "weights", "pretrained"):
            named = options.get(key)
            if named and slot == "decoder" and key == "source":
                named = checkpoint_of(options)
            path = Path(str(named))
            if named and path.exists():
                below = sorted(path.rglob("*")) if path.is_dir() else [path]
                files += [(item.name, item.stat().st_size, item.stat().st_mtime_ns) for item in below]
    encoder = dict(parts.get("encoder", {"name": "tiny"}))
    name = encoder.pop("name")
    if getattr(encoders.registry.get(name), "is_lookup", False):
        files.append(encoders.registry.construct(name, encoder).fingerprint())
    return files


def check_options(kind: str, target: type[T], values: Mapping[str, Any]) -> T:
    """Return a dataclass made of options; raise UmieError, naming ``kind``, for an unknown key or a wrong value."""
    check_keys(f"{kind} key", values, [item.name for item in dataclasses.fields(target)])  # type: ignore[arg-type] # always a dataclass
    try:
        return target(**values)
    except UmieError as error:
        raise UmieError(f"{kind}: {error}") from error
    except (TypeError, ValueError) as error:
        raise UmieError(f"{kind}: a value does not fit: {error}") from error


def without_label(part: Any) -> Any:
    """Return a part without what the grid file says about it to the grid: its label, and training options."""
    return {key: value for key, value in part.items() if key not in OWN_KEYS} if isinstance(part, dict) else part


def training_of(part: Any) -> dict[str, Any]:
    """Return the options of TrainingConfig that go before the grid's in the cells with this part."""
    given = part.get("training") if isinstance(part, dict) else None
    return {} if given is None else as_mapping("training of a part", given)


def _check_config(registry: Registry[Any], options: Mapping[str, Any]) -> None:
    values = {key: value for key, value in options.items() if key != "name"}
    part: Any = registry.get(options["name"])
    check_options(f"{registry.kind} {options['name']!r}", part.Config, values)
