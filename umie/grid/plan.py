"""Reading a grid file and planning its cells; everything that can be wrong is found here, before one runs."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

import umie
from umie import tasks as all_tasks
from umie.data.synthetic import SPLITS, SyntheticConfig
from umie.errors import UmieError, UnknownNameError, check_keys, check_whole
from umie.grid.config import Evaluation, FeatureStore, GridConfig, WarmStart, as_mapping
from umie.types import check_picture_policy

T = TypeVar("T")

SLOTS = ("encoder", "visual_embedding", "fusion", "decoder", "training")


@dataclass(frozen=True)
class Cell:
    """One variant with one seed.

    Args:
        variant: what the table calls the variant: the parts that vary.
        seed: of weights and batches.
        parts: name and options of encoder, fusion and decoder, and options of the visual embedding.
        training: options of TrainingConfig.
        hash: of everything that its result depends on.
    """

    variant: str
    seed: int
    parts: Mapping[str, Mapping[str, Any]]
    training: Mapping[str, Any]
    hash: str


def read_grid(path: str | Path) -> GridConfig:
    """Read and check a grid file.

    Raises:
        UmieError: not readable, not YAML, an unknown key, name or option, or a value that is not allowed.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UmieError(f"{path}: cannot read the grid file: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UmieError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    try:
        return _grid(data, path)
    except UmieError as error:
        raise UmieError(f"{path}: {error}") from error


def plan_cells(grid: GridConfig, fingerprint: str) -> list[Cell]:
    """Return the cells: every combination of the slots' options, with every seed.

    Args:
        grid: a checked grid.
        fingerprint: of the data, see ``umie.grid.data``; part of every cell's hash.

    Raises:
        UmieError: two cells are the same.
    """
    from umie.composition import resolve_parts

    varied = [slot for slot in SLOTS if len(getattr(grid, slot)) > 1] or ["fusion"]
    cells: list[Cell] = []
    for options in itertools.product(*(getattr(grid, slot) for slot in SLOTS)):
        chosen = dict(zip(SLOTS, options, strict=True))
        encoder, visual_embedding, fusion, decoder, training = (without_label(option) for option in options)
        parts = {**resolve_parts(encoder, fusion, decoder), "visual_embedding": visual_embedding}
        variant = " + ".join(_label(slot, chosen[slot]) for slot in varied)
        for seed in grid.seeds:
            depends_on = {
                "parts": parts,
                "seed": seed,
                "data": fingerprint,
                "tasks": list(grid.tasks.items()),  # their order is that of the queries
                "training": training,
                "warm_start": None if grid.warm_start is None else dataclasses.asdict(grid.warm_start),
                "evaluation": dataclasses.asdict(grid.evaluation),
                "missing_pictures": grid.missing_pictures,
                "files": files_of(grid, parts),
                "umie": umie.__version__,
            }
            cells.append(Cell(variant, seed, parts, training, hash_of(depends_on)))
    names = [(cell.variant, cell.seed) for cell in cells]
    hashes = [cell.hash for cell in cells]
    for cell in cells:
        if hashes.count(cell.hash) > 1:
            raise UmieError(f"the variant {cell.variant!r} with seed {cell.seed} stands in the grid twice")
        if names.count((cell.variant, cell.seed)) > 1:
            raise UmieError(f"two variants are called {cell.variant!r}: give them labels of their own")
    return cells


def hash_of(value: Any) -> str:
    """Return a short hash of a value made of plain data, the same in every process."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, default=list)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def load_plugins(paths: Sequence[str]) -> None:
    """Run Python files that register parts.

    Raises:
        UmieError: a file is not there, or fails.
    """
    for name in paths:
        path = Path(name)
        spec = importlib.util.spec_from_file_location(f"umie_plugin_{path.stem}", path)
        if spec is None or spec.loader is None or not path.is_file():
            raise UmieError(f"plugin {path}: no such Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            message = " ".join(str(error).split())
            raise UmieError(f"plugin {path}: {type(error).__name__}: {message}") from error


def _grid(data: Any, path: Path) -> GridConfig:
    from umie.training import TrainingConfig

    if not isinstance(data, dict):
        raise UmieError("a grid file is a mapping of keys such as name, data, tasks, fusion, seeds, training")
    check_keys("grid key", data, [item.name for item in dataclasses.fields(GridConfig)])
    for key in ("data", "tasks"):
        if not data.get(key):
            raise UmieError(f"the grid file lacks {key!r}")
    values = dict(data)
    values["name"] = str(data.get("name", path.stem))
    if values["name"] in ("", ".", "..") or set(values["name"]) & set("/\\\0"):
        raise UmieError(f"name is {values['name']!r}: give a plain name, it becomes a folder")
    values["plugins"] = [str(path.parent / str(plugin)) for plugin in _as_list(data.get("plugins"))]
    load_plugins(values["plugins"])
    values["data"] = as_mapping("data", data["data"])
    _check_data_keys(values["data"])
    values["tasks"] = _tasks(data["tasks"])
    for slot, default in (("encoder", "tiny"), ("fusion", "gated"), ("decoder", "tiny")):
        values[slot] = _parts(slot, data.get(slot, default))
    for slot in ("visual_embedding", "training"):
        values[slot] = [as_mapping(slot, options) for options in _as_list(data.get(slot) or {})] or [{}]
    values["seeds"] = _as_list(data.get("seeds", 0))
    if not values["seeds"] or not all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in values["seeds"]):
        raise UmieError(f"seeds is {values['seeds']!r}: give whole numbers, 0 or more")
    for options in values["training"]:
        _dataclass("training", TrainingConfig, without_label(options))
    values["evaluation"] = _dataclass("evaluation", Evaluation, data.get("evaluation") or {})
    store = _dataclass("features", FeatureStore, data.get("features") or {})
    values["features"] = store if store.folder is None else replace(store, folder=str(path.parent / store.folder))
    if data.get("warm_start") is not None:
        values["warm_start"] = _dataclass("warm_start", WarmStart, data["warm_start"])
        if values["warm_start"].records is not None and values["data"]["format"] != "synthetic":
            raise UmieError("warm_start: records are drawn for the embedded data only; leave `records` out")
        _dataclass("warm_start training", TrainingConfig, values["warm_start"].training)
    check_picture_policy(data.get("missing_pictures", "error"))
    if data.get("workers") is not None:
        check_whole("workers", data["workers"], 1)
    values["mean_over"] = _as_list(data.get("mean_over")) or list(values["tasks"])
    check_keys("task in mean_over:", values["mean_over"], values["tasks"])
    values["notes"] = _as_list(data.get("notes"))
    grid = GridConfig(**values)
    plan_cells(grid, fingerprint="")
    _check_parts(grid)
    return grid


def _check_parts(grid: GridConfig) -> None:
    """Build every encoder with its weights, and every variant in shape only, so that no cell fails for its options."""
    import torch

    from umie import encoders
    from umie.composition import default_tokenizer, resolve_parts
    from umie.decoders.t5 import PRESETS
    from umie.fusion import VisualEmbeddingConfig
    from umie.model import UmieConfig, UmieModel

    for options in grid.visual_embedding:
        widths = {"feature_dim": 8, "d_model": 8, "num_heads": 1, "head_dim": 8}
        _dataclass("visual_embedding", VisualEmbeddingConfig, {**widths, **without_label(options)})
    for encoder in grid.encoder:
        options = resolve_parts(without_label(encoder), "gated", "tiny")["encoder"]
        encoders.registry.build(**options)
    for decoder in grid.decoder:
        part = resolve_parts("tiny", "gated", without_label(decoder))["decoder"]
        if part.get("source") not in PRESETS:
            default_tokenizer(part)
    parameters: set[str] = set()
    for variant in itertools.product(grid.encoder, grid.fusion, grid.decoder, grid.visual_embedding):
        *slots, visual_embedding = (without_label(option) for option in variant)
        with torch.device("meta"):
            model = UmieModel(UmieConfig(**resolve_parts(*slots), visual_embedding=visual_embedding))
        parameters.update(name for name, _ in model.named_parameters())
    for training in grid.training:
        for prefix in training.get("learning_rate_multipliers", {}):
            if not any(name.startswith(prefix) for name in parameters):
                parts = sorted({".".join(name.split(".")[:2]) for name in parameters})
                raise UmieError(
                    f"training: no parameter of any variant begins with {prefix!r}; they begin with {', '.join(parts)}"
                )


def _check_data_keys(data: Mapping[str, Any]) -> None:
    from umie import data as formats

    kind = data.get("format")
    choices = ["synthetic", *formats.registry.names()]
    if kind not in choices:
        raise UnknownNameError("data format", kind, choices)
    known = (
        [item.name for item in dataclasses.fields(SyntheticConfig)]
        if kind == "synthetic"
        else [*SPLITS, "images", "regions", "max_records"]
    )
    check_keys("data key", data, ["format", *known])


def files_of(grid: GridConfig, parts: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """Return what tells a changed plugin, checkpoint folder, weight or feature file from the one before."""
    from umie import encoders
    from umie.decoders.t5 import PRESETS

    files: list[Any] = [hashlib.sha256(Path(plugin).read_bytes()).hexdigest() for plugin in grid.plugins]
    for options in parts.values():
        for key in ("source", "weights", "pretrained"):
            path = Path(str(options.get(key, "")))
            if options.get(key) and options[key] not in PRESETS and path.exists():
                below = sorted(path.rglob("*")) if path.is_dir() else [path]
                files += [(item.name, item.stat().st_size, item.stat().st_mtime_ns) for item in below]
    encoder = dict(parts.get("encoder", {"name": "tiny"}))
    name = encoder.pop("name")
    if getattr(encoders.registry.get(name), "is_lookup", False):
        files.append(encoders.registry.construct(name, encoder).fingerprint())
    return files


def _parts(slot: str, value: Any) -> list[Any]:
    parts = _as_list(value)
    for part in parts:
        if not isinstance(part, str | dict) or (isinstance(part, dict) and not isinstance(part.get("name", ""), str)):
            raise UmieError(f"{slot} is {part!r}: give a name, or a mapping with name and options")
    if not parts:
        raise UmieError(f"{slot} is empty: give one part, or a list of parts to vary")
    return parts


def _tasks(value: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict) and not all(isinstance(name, str) for name in _as_list(value)):
        raise UmieError(f"tasks is {value!r}: give a list of names, or a mapping from names to options")
    named = value if isinstance(value, dict) else {name: {} for name in _as_list(value)}
    checked = {}
    for name, options in named.items():
        checked[str(name)] = as_mapping(f"task {name!r}", options or {})
        all_tasks.registry.build(str(name), **checked[str(name)])
    return checked


def _dataclass(kind: str, target: type[T], values: Any) -> T:
    mapping = as_mapping(kind, values)
    check_keys(f"{kind} key", mapping, [item.name for item in dataclasses.fields(target)])  # type: ignore[arg-type] # always a dataclass
    try:
        return target(**mapping)
    except UmieError as error:
        raise UmieError(f"{kind}: {error}") from error
    except (TypeError, ValueError) as error:
        raise UmieError(f"{kind}: a value does not fit: {error}") from error


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def without_label(part: Any) -> Any:
    """Return a part without the name that the grid file gives it for the table."""
    return {key: value for key, value in part.items() if key != "label"} if isinstance(part, dict) else part


def _label(slot: str, part: Any) -> str:
    """Return a part as the table names it: its ``label``, or name and options, e.g. ``gated(gate=0.05)``."""
    options = {"name": part} if isinstance(part, str) else dict(part)
    if "label" in options:
        return str(options["label"])
    name = str(options.pop("name", "t5" if slot == "decoder" else slot))
    if slot == "decoder" and "source" in options and name == "t5":
        name = str(options.pop("source"))
    inner = ", ".join(f"{key}={_short(value)}" for key, value in options.items())
    return f"{name}({inner})" if inner else name


def _short(value: Any) -> Any:
    """Return a value as a label shows it: of a path the last part."""
    return Path(value).name or value if isinstance(value, str) else value
