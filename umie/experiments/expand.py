"""Expand a config file into runs: presets, overrides, and all combinations of the options that a grid varies."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umie.configs import ConfigError, as_list, as_mapping, errors_in, errors_of
from umie.errors import UmieError, check_keys, check_whole, shown
from umie.experiments.choices import instruction_label, train_on_choices, train_on_label
from umie.experiments.config import PARTS, RunConfig
from umie.experiments.identity import run_hash
from umie.experiments.presets import with_preset
from umie.experiments.reference import Reference, read_reference
from umie.registry import load_plugins
from umie.yaml_files import parse_yaml, read_yaml

SLOTS = ("train_on", "instruction", "encoder", "visual_embedding", "fusion", "decoder", "training")
"""The keys that a grid can vary, in the order of the table."""

GRID_KEYS = ("seeds", "workers", "reference")
OWN_KEYS = ("label", "training")  # keys in the mapping of a part that are for the grid


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Args:
        labels: labels of the options that vary, by slot.
        config: the config of the run.
        hash: hash of everything that the result depends on, set by ``plan``.
    """

    labels: Mapping[str, str]
    config: RunConfig
    hash: str = ""

    @property
    def variant(self) -> str:
        """The name of the variant in tables: the labels of the options that vary."""
        return " + ".join(self.labels.values())

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        """Name and options of each part."""
        return self.config.parts

    @property
    def training(self) -> dict[str, Any]:
        """The training options that were set."""
        return self.config.training.model_dump(mode="json", exclude_unset=True)

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.config.seed


@dataclass(frozen=True)
class Grid:
    """The runs of a grid file.

    Args:
        path: the grid file.
        cells: all combinations of options and seeds.
        workers: number of concurrent runs; None uses one per GPU, or one for every two processors.
        reference: published F1 scores to show next to the measured ones; see ``umie.experiments.reference``.
    """

    path: Path
    cells: Sequence[Cell]
    workers: int | None = None
    reference: Sequence[Reference] = ()

    @property
    def first(self) -> RunConfig:
        """The first run, for the values that all runs share: name, data, tasks, evaluation, notes."""
        return self.cells[0].config

    @property
    def name(self) -> str:
        """The name of the grid."""
        return self.first.name

    @property
    def seeds(self) -> list[int]:
        """The distinct seeds."""
        return list(dict.fromkeys(cell.seed for cell in self.cells))

    def with_changes(
        self, *, workers: int | None = None, split: str | None = None, plugins: Iterable[str | Path] = ()
    ) -> Grid:
        """Return a copy of the grid with other settings and additional plugins."""
        grid = self if workers is None else dataclasses.replace(self, workers=workers)
        added = tuple(str(plugin) for plugin in plugins)
        cells = []
        for cell in grid.cells:
            config = cell.config
            changes: dict[str, Any] = {"plugins": (*config.plugins, *added)} if added else {}
            if split is not None:
                changes["evaluation"] = type(config.evaluation)(**{**dict(config.evaluation), "split": split})
            cells.append(Cell(cell.labels, config.model_copy(update=changes)))
        return dataclasses.replace(grid, cells=cells)


def read_grid(path: str | Path, settings: Sequence[str] = ()) -> Grid:
    """Read a grid file; see ``docs/grids.md`` for its keys. Parts are checked by ``umie.experiments.parts``.

    Args:
        path: the file.
        settings: overrides, each as ``key.key=value`` with the value in YAML.

    Raises:
        UmieError: the file cannot be read, or its values are invalid; all errors are reported at once.
    """
    path = Path(path)
    values = read_yaml(path, "the grid file")
    try:
        if not isinstance(values, dict):
            raise UmieError("a grid file is a mapping of keys such as name, data, tasks, fusion, seeds, training")
        return _grid(with_settings(values, settings), path)
    except UmieError as error:
        raise ConfigError(errors_of(error), str(path)) from error


def read_run(path: str | Path, settings: Sequence[str] = ()) -> RunConfig:
    """Read the config file of one run; see ``docs/training.md`` for its keys.

    Args:
        path: the file.
        settings: as for ``read_grid``.

    Raises:
        UmieError: as for ``read_grid``; or the file describes several runs.
    """
    path = Path(path)
    values = read_yaml(path, "the config file")
    try:
        if not isinstance(values, dict):
            raise UmieError("a config file is a mapping of keys such as data, tasks, fusion, training, checkpoints")
        values = with_settings(values, settings)
        check_keys("key", values, RunConfig.model_fields)
        varied = [slot for slot in SLOTS if len(_choices(slot, values.get(slot))) > 1]
        if varied:
            raise UmieError(f"a run trains one variant: choose one {' and one '.join(varied)}, or use umie ablate")
        if type(values.get("seed", 0)) is not int:
            raise UmieError(f"seed is {shown(values['seed'])}: use one whole number; umie ablate runs several seeds")
        checkpoints = {} if values.get("checkpoints") is None else values["checkpoints"]
        (cell,) = _cells({**values, "checkpoints": checkpoints, "seeds": values.get("seed", 0)}, path)
        return cell.config
    except UmieError as error:
        raise ConfigError(errors_of(error), str(path)) from error


def plan(grid: Grid, fingerprint: str, *, read_files: bool = True) -> list[Cell]:
    """Return the cells with their hashes.

    Args:
        grid: the grid.
        fingerprint: the fingerprint of its data, see ``Corpus.fingerprint``.
        read_files: include weights, features and plugins in the hashes.

    Raises:
        UmieError: two cells are identical.
    """
    cells = [
        dataclasses.replace(cell, hash=run_hash(cell.config, fingerprint, read_files=read_files)) for cell in grid.cells
    ]
    hashes = [cell.hash for cell in cells]
    for cell in cells:
        if hashes.count(cell.hash) > 1:
            raise UmieError(f"{grid.path}: the variant {cell.variant!r} with seed {cell.seed} is in the grid twice")
    return cells


def _grid(values: dict[str, Any], path: Path) -> Grid:
    errors: list[str] = []
    if "seed" in values:
        errors.append("seed: a grid has a list of seeds: rename the key to seeds")
    for key in values:
        errors += errors_in(check_keys, "key", [key], [*RunConfig.model_fields, *GRID_KEYS])
    if values.get("workers") is not None:
        errors += errors_in(check_whole, "workers", values["workers"], 1)
    errors += errors_in(read_reference, values.get("reference"))
    cells: list[Cell] = []
    try:
        own = {key: value for key, value in values.items() if key in RunConfig.model_fields or key == "seeds"}
        cells = _cells(own, path)
    except UmieError as error:
        errors += errors_of(error)
    if errors:
        raise ConfigError(errors)
    names = [(cell.variant, cell.seed) for cell in cells]
    for variant, seed in names:
        if names.count((variant, seed)) > 1:
            raise UmieError(f"two variants are called {variant!r} (seed {seed}): remove one, or give them labels")
    return Grid(path, cells, values.get("workers"), read_reference(values.get("reference")))


def _cells(values: dict[str, Any], path: Path) -> list[Cell]:
    """Return all combinations of the options of the slots and the seeds as runs."""
    values = dict(values)
    values.setdefault("name", path.stem)
    values["name"] = str(values["name"])
    values["plugins"] = [str(path.parent / str(plugin)) for plugin in as_list(values.get("plugins"))]
    load_plugins(values["plugins"])
    if isinstance(values.get("data"), str):
        values["data"] = read_yaml(path.parent / values["data"], "the file named in `data`")
    if isinstance(values.get("features"), dict) and values["features"].get("folder") is not None:
        values["features"] = {**values["features"], "folder": str(path.parent / str(values["features"]["folder"]))}
    values = _started_from(values, path)
    values = with_preset(values)
    seeds = as_list(values.pop("seeds", 0))
    values.pop("seed", None)
    if not seeds or not all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds):
        raise UmieError(f"seeds is {shown(seeds)}: use whole numbers, 0 or more, below 2**32")
    choices = {slot: _choices(slot, values.get(slot)) for slot in SLOTS}
    for slot, options in choices.items():
        if not options:
            raise UmieError(f"{slot} is empty: choose one, or a list to vary")
    varied = [slot for slot in SLOTS if len(choices[slot]) > 1] or ["fusion"]
    cells: list[Cell] = []
    errors: list[str] = []
    for combination in itertools.product(*choices.values()):
        chosen = dict(zip(SLOTS, combination, strict=True))
        try:
            labels = {slot: label(slot, chosen[slot], values.get("data")) for slot in varied}
            run = {**values, **_plain(chosen)}
            cells += [Cell(labels, RunConfig(**{**run, "seed": seed})) for seed in seeds]
        except UmieError as error:
            errors += errors_of(error)
    if errors:
        raise ConfigError(errors)
    return cells


def _choices(slot: str, value: Any) -> list[Any]:
    """Return the options of a slot, which is a list or a single option; None is the default."""
    if slot == "train_on":
        return train_on_choices(value)
    return list(value) if isinstance(value, list | tuple) else [value]


def _plain(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of one combination for a run: without labels, and with the training options of parts merged."""
    plain: dict[str, Any] = {}
    training: dict[str, Any] = {}
    for slot, value in chosen.items():
        if slot in ("train_on", "instruction") or not isinstance(value, dict):
            plain[slot] = value
            continue
        plain[slot] = {key: item for key, item in value.items() if key not in OWN_KEYS}
        if slot != "training":
            training |= as_mapping(f"training of a {slot}", value.get("training") or {})
    if training or isinstance(plain["training"], dict):
        plain["training"] = {**as_mapping("training", plain["training"] or {}), **training}
    return {slot: value for slot, value in plain.items() if value is not None}


def label(slot: str, value: Any, data: Any = None) -> str:
    """Return the name of an option in tables: its ``label``, or name and options, e.g. ``gated(gate=0.05)``."""
    if slot == "train_on":
        names = list(data["sets"]) if isinstance(data, dict) and isinstance(data.get("sets"), dict) else ["data"]
        return train_on_label(value, names)
    if slot == "instruction":
        return instruction_label(value)
    if value is None:
        value = {"encoder": "tiny", "fusion": "gated", "decoder": "tiny"}.get(slot, {})
    options = {"name": value} if isinstance(value, str) else dict(as_mapping(slot, value))
    if slot != "training":
        options.pop("training", None)
    if "label" in options:
        return str(options["label"])
    name = str(options.pop("name", "t5" if slot == "decoder" else slot))
    if slot == "decoder" and "source" in options and name == "t5":
        name = str(options.pop("source"))
    inner = ", ".join(f"{key}={_short(item)}" for key, item in options.items())
    return f"{name}({inner})" if inner else name


def _short(value: Any) -> Any:
    """Return a value for a label: only the last component of a path."""
    return Path(value).name or value if isinstance(value, str) else value


def _started_from(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the values with the parts of the variant in ``start_from``."""
    start = values.get("start_from")
    if start is None:
        return values
    for key in (*PARTS, "visual_embedding", "preset", "warm_start"):
        if key in values:
            raise UmieError(f"start_from uses the parts of {start}: remove {key!r}")
    folder = path.parent / str(start)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        parts = {slot: config[slot] for slot in ("encoder", "visual_embedding", "fusion")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UmieError(f"start_from is {folder}: not a trained variant (config.json: {error})") from error
    return {**values, "start_from": str(folder.resolve()), **parts}


def with_settings(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Return a config's values with overrides such as ``training.max_steps=100`` applied.

    Args:
        values: the values of the file.
        settings: overrides, each as ``key.key=value`` with the value in YAML.

    Raises:
        UmieError: a setting has another form, or a key is inside a value that is not a mapping.
    """
    changed: dict[str, Any] = dict(values)
    for setting in settings:
        place, equals, text = setting.partition("=")
        keys = place.split(".")
        if not equals or not all(keys):
            raise UmieError(f"--set {setting}: use key=value, for example training.max_steps=100")
        try:
            value = parse_yaml(text)
        except UmieError as error:
            raise UmieError(f"--set {setting}: the value is {error}") from error
        inner = changed
        for key in keys[:-1]:
            inside = inner.get(key) or {}
            if inner is changed and key in PARTS and isinstance(inside, str):
                inside = {"name": inside} if key != "decoder" else {"source": inside}
            if not isinstance(inside, dict):
                raise UmieError(f"--set {setting}: {key} is {shown(inside)}, which has no keys")
            inner[key] = dict(inside)
            inner = inner[key]
        inner[keys[-1]] = value
    return changed
