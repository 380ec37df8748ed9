"""Reading a grid file and planning its cells; everything that can be wrong is found here, before one runs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

import umie
from umie.errors import UmieError, check_keys, check_whole
from umie.experiments.data_config import CorpusConfig, as_mapping, check_tasks, read_corpus_config
from umie.experiments.data_sets import hash_of
from umie.experiments.grid_config import Evaluation, FeatureStore, GridConfig, WarmStart
from umie.experiments.parts import check_options, check_parts, files_of, training_of, without_label
from umie.experiments.reference import read_reference
from umie.experiments.slots import Instruction, TrainOn, read_instructions, read_train_on
from umie.registry import load_plugins
from umie.types import check_image_policy

T = TypeVar("T")

SLOTS = ("train_on", "instruction", "encoder", "visual_embedding", "fusion", "decoder", "training")


@dataclass(frozen=True)
class Cell:
    """One variant with one seed.

    Args:
        variant: what the table calls the variant: the parts that vary.
        seed: of weights and batches.
        parts: name and options of encoder, fusion and decoder, and options of the visual embedding.
        training: options of TrainingConfig.
        train_on: the data sets that it is trained on.
        instruction: what goes before the tasks' options, by task.
        hash: of everything that its result depends on.
    """

    variant: str
    seed: int
    parts: Mapping[str, Mapping[str, Any]]
    training: Mapping[str, Any]
    train_on: Sequence[str]
    instruction: Mapping[str, Mapping[str, Any]]
    hash: str


def read_grid(path: str | Path, *, read_files: bool = True) -> GridConfig:
    """Read and check a grid file.

    Args:
        path: the file.
        read_files: also read the weights, feature files and tokenizers that it names; without them everything else
            is checked.

    Raises:
        UmieError: not readable, not YAML, an unknown key, name or option, or a value that is not allowed.
    """
    path = Path(path)
    data = read_yaml(path, "the grid file")
    try:
        return grid_of(data, path, read_files)
    except UmieError as error:
        raise UmieError(f"{path}: {error}") from error


def read_yaml(path: Path, what: str) -> Any:
    """Return what a YAML file holds; raise UmieError, naming ``what`` it should be, if it cannot be read."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UmieError(f"{path}: cannot read {what}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UmieError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error


def plan_cells(grid: GridConfig, fingerprint: str, *, read_files: bool = True) -> list[Cell]:
    """Return the cells: every combination of the slots' options, with every seed.

    Args:
        grid: a checked grid.
        fingerprint: of the data, see ``umie.experiments.data_config``; part of every cell's hash.
        read_files: let the hash tell changed weights, features and plugins apart.

    Raises:
        UmieError: two cells are the same.
    """
    from umie.composition import resolve_parts

    varied = [slot for slot in SLOTS if len(getattr(grid, slot)) > 1] or ["fusion"]
    cells: list[Cell] = []
    for options in itertools.product(*(getattr(grid, slot) for slot in SLOTS)):
        chosen = dict(zip(SLOTS, options, strict=True))
        train_on: TrainOn = chosen["train_on"]
        instruction: Instruction = chosen["instruction"]
        encoder, visual_embedding, fusion, decoder, training = (without_label(option) for option in options[2:])
        for option in options[2:-1]:
            training = {**training, **training_of(option)}
        parts = {**resolve_parts(encoder, fusion, decoder), "visual_embedding": visual_embedding}
        variant = " + ".join(label(slot, chosen[slot]) for slot in varied)
        for seed in grid.seeds:
            depends_on = {
                "parts": parts,
                "seed": seed,
                "data": fingerprint,
                "tasks": list(grid.tasks.items()),  # their order is that of the queries
                "train_on": train_on.sets,
                "instruction": instruction.options,
                "training": training,
                "warm_start": None if grid.warm_start is None else dataclasses.asdict(grid.warm_start),
                "evaluation": dataclasses.asdict(grid.evaluation),
                "missing_images": grid.missing_images,
                "files": files_of(grid, parts) if read_files else [],
                "umie": umie.__version__,
            }
            cells.append(
                Cell(variant, seed, parts, training, list(train_on.sets), instruction.options, hash_of(depends_on))
            )
    names = [(cell.variant, cell.seed) for cell in cells]
    hashes = [cell.hash for cell in cells]
    for cell in cells:
        if hashes.count(cell.hash) > 1:
            raise UmieError(f"the variant {cell.variant!r} with seed {cell.seed} stands in the grid twice")
        if names.count((cell.variant, cell.seed)) > 1:
            raise UmieError(f"two variants are called {cell.variant!r}: give them labels of their own")
    return cells


def grid_of(data: Any, path: Path, read_files: bool) -> GridConfig:
    """Return the grid that a file's values describe, checked; relative names start from the file's folder."""
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
    values["data"] = as_mapping("data", _data(data["data"], path))
    values["tasks"] = check_tasks(data["tasks"])
    corpus = read_corpus_config(values["data"], values["tasks"])
    tasks = list(dict.fromkeys(task for one in corpus.sets.values() for task in one.tasks))
    values["train_on"] = read_train_on(data.get("train_on"), list(corpus.sets))
    values["instruction"] = read_instructions("instruction", data.get("instruction"), tasks)
    for slot, default in (("encoder", "tiny"), ("fusion", "gated"), ("decoder", "tiny")):
        values[slot] = _parts(slot, data.get(slot, default))
    for slot in ("visual_embedding", "training"):
        values[slot] = [as_mapping(slot, options) for options in _as_list(data.get(slot) or {})] or [{}]
    values["seeds"] = _as_list(data.get("seeds", 0))
    if not values["seeds"] or not all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in values["seeds"]):
        raise UmieError(f"seeds is {values['seeds']!r}: give whole numbers, 0 or more")
    for options in values["training"]:
        _dataclass("training", TrainingConfig, without_label(options))
        for slot in SLOTS[2:-1]:
            for part in values[slot]:
                _dataclass(f"training of a {slot}", TrainingConfig, {**without_label(options), **training_of(part)})
    values["evaluation"] = _evaluation(data.get("evaluation") or {}, tasks)
    store = _dataclass("features", FeatureStore, data.get("features") or {})
    values["features"] = store if store.folder is None else replace(store, folder=str(path.parent / store.folder))
    if data.get("warm_start") is not None:
        values["warm_start"] = _dataclass("warm_start", WarmStart, data["warm_start"])
        if values["warm_start"].records is not None and not _is_drawn(corpus):
            raise UmieError("warm_start: records are drawn for the embedded data only; leave `records` out")
        _dataclass("warm_start training", TrainingConfig, values["warm_start"].training)
    check_image_policy(data.get("missing_images", "error"))
    if data.get("workers") is not None:
        check_whole("workers", data["workers"], 1)
    values["mean_over"] = _as_list(data.get("mean_over")) or (tasks if corpus.is_single else [])
    asked = [] if corpus.is_single else [f"{name} {task}" for name, one in corpus.sets.items() for task in one.tasks]
    check_keys("task in mean_over:", values["mean_over"], [*tasks, *asked])
    values["reference"] = read_reference(data.get("reference"))
    values["notes"] = _as_list(data.get("notes"))
    grid = GridConfig(**values)
    plan_cells(grid, fingerprint="", read_files=read_files)
    check_parts(grid, read_files=read_files)
    return grid


def _data(value: Any, path: Path) -> Any:
    """Return the key ``data``; a string names a YAML file beside the grid file, so that grids can share one."""
    return read_yaml(path.parent / value, "what `data` names") if isinstance(value, str) else value


def _evaluation(value: Any, tasks: Sequence[str]) -> Evaluation:
    options = as_mapping("evaluation", value)
    given = options.get("instructions")
    words = [] if given is None else read_instructions("evaluation: instructions", given, tasks)
    labels = [word.label for word in words]
    for label in labels:
        if labels.count(label) > 1:
            raise UmieError(f"evaluation: two instructions are called {label!r}: give them labels of their own")
    return _dataclass("evaluation", Evaluation, {**options, "instructions": words})


def _is_drawn(corpus: CorpusConfig) -> bool:
    return all(one.format == "synthetic" for one in corpus.sets.values())


def _parts(slot: str, value: Any) -> list[Any]:
    parts = _as_list(value)
    for part in parts:
        if not isinstance(part, str | dict) or (isinstance(part, dict) and not isinstance(part.get("name", ""), str)):
            raise UmieError(f"{slot} is {part!r}: give a name, or a mapping with name and options")
    if not parts:
        raise UmieError(f"{slot} is empty: give one part, or a list of parts to vary")
    return parts


def _dataclass(kind: str, target: type[T], values: Any) -> T:
    return check_options(kind, target, as_mapping(kind, values))


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def label(slot: str, part: Any) -> str:
    """Return a part as the table names it: its ``label``, or name and options, e.g. ``gated(gate=0.05)``."""
    if isinstance(part, TrainOn | Instruction):
        return part.label
    options = {"name": part} if isinstance(part, str) else {**part}
    if slot != "training":
        options.pop("training", None)
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
