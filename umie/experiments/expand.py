"""Expand a config file into runs: presets, overrides, and all combinations of the options that a grid varies."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from umie.configs import ConfigError, as_list, as_mapping, errors_in, errors_of
from umie.errors import UmieError, UnknownNameError, at, check_keys, check_whole, shown
from umie.experiments.combine import EXCLUDE, SEEING, SLOTS, WHEN, ZIP, Options, options_of_slot, uses_image
from umie.experiments.config import PARTS, Evaluation, RunConfig
from umie.experiments.data_sets import hash_of
from umie.experiments.engines import EngineOptions, Processes, read_engine
from umie.experiments.identity import identity
from umie.experiments.limits import Limits, read_limits
from umie.experiments.reference import Reference, read_reference
from umie.files import read_json
from umie.registry import load_plugins
from umie.yaml_files import parse_yaml, read_yaml

_NO_OPTIONS = ("label", "training", "images", "blind")  # keys of a choice that are not options of the part


def _paper(size: str, batch_size: int, learning_rate: float) -> dict[str, Any]:
    return {
        "encoder": {"name": "resnet101_roi", "mode": "crop", "weights": "IMAGENET1K_V2"},
        "visual_embedding": {"num_slot_embeddings": 37},  # the image and 36 regions, which MEAE names by number
        "fusion": {"name": "gated", "residual": "paper"},
        "decoder": {"name": "t5", "source": f"google/flan-t5-{size}"},
        "max_input_tokens": 256,
        "max_target_tokens": 128,
        "training": {
            "num_train_epochs": 40,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "label_smoothing_factor": 0.1,
            "group_by_length": True,
        },
    }


# Source: UMIE, "Training Configuration": AdamW, 40 epochs, learning rates and batch sizes of base and large, at most
# 256 input and 128 target tokens, label smoothing. The paper gives neither the amount of smoothing (0.1 is usual) nor
# the values of XLarge, for which those of large are used.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper-base": _paper("base", 16, 1e-4),
    "paper-large": _paper("large", 8, 5e-5),
    "paper-xl": _paper("xl", 8, 5e-5),
}


GRID_KEYS = (  # which no cell depends on
    "engine", "workers", "time_limit", "memory_limit", "reference", "report_to", "compare_with", "question",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    labels: Mapping[str, str]  # labels of the options that vary, by slot
    config: RunConfig
    hash: str = ""  # of everything that the result depends on, set by plan
    options: Mapping[str, str] = field(default_factory=dict)  # labels of all options, by slot

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

    @property
    def uses_image(self) -> bool:
        """Whether the fusion of the variant uses the image."""
        return uses_image(self.config.fusion)

    @property
    def trained_on(self) -> tuple[str, ...]:
        """The names of the data sets that the variant is trained on."""
        return self.config.trained_on

    @cached_property
    def setup(self) -> dict[str, Any]:
        """All values of the run but its seed, as plain data."""
        return self.config.model_dump(mode="json", exclude={"seed"})


@dataclass(frozen=True)
class Grid:
    """The runs of a grid file: all combinations of options and seeds."""

    path: Path
    cells: Sequence[Cell]
    workers: int | None = None  # None uses one per GPU, or one for every two processors
    reference: Sequence[Reference] = ()  # published F1 scores to show next to the measured ones
    report_to: Sequence[str] = ()  # integrations that log the training of each cell
    options: Options = field(default_factory=lambda: Options({}))
    engine: EngineOptions = field(default_factory=Processes)
    limits: Limits = field(default_factory=Limits)
    compare_with: str | None = None  # the variant that the others are compared with; None chooses one
    question: str = ""  # what the grid is to answer, for the report
    command: str = ""  # that runs it, for the report

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
        self,
        *,
        workers: int | None = None,
        split: str | None = None,
        plugins: Iterable[str | Path] = (),
        engine: str | None = None,
        command: str = "",
    ) -> Grid:
        """Return a copy of the grid with other settings and additional plugins; the same engine keeps its options."""
        added = [str(plugin) for plugin in plugins]
        cells = []
        for cell in self.cells:
            config = cell.config
            changes: dict[str, Any] = {"plugins": (*config.plugins, *added)}
            if split is not None:
                changes["evaluation"] = Evaluation(**{**dict(config.evaluation), "split": split})
            cells.append(dataclasses.replace(cell, config=config.model_copy(update=changes)))
        chosen = self.engine if engine in (None, self.engine.name) else read_engine(engine)
        workers = self.workers if workers is None else workers
        return dataclasses.replace(self, cells=cells, workers=workers, command=command or self.command, engine=chosen)


def read_grid(path: str | Path, settings: Sequence[str] = ()) -> Grid:
    """Read a grid file; see ``docs/grids.md`` for its keys. Parts are checked by ``umie.experiments.parts``.

    ``settings`` are overrides, each as ``key.key=value`` with the value in YAML.

    Raises:
        UmieError: the file cannot be read, or its values are invalid; all errors are reported at once.
    """
    path = Path(path)
    values = _read(path, settings, "grid", "name, data, tasks, fusion, seeds, training")
    errors: list[str] = []
    if "seed" in values:
        errors.append("seed: a grid has a list of seeds: rename the key to seeds")
    of_cells = (*RunConfig.model_fields, "seeds", ZIP, EXCLUDE)
    for key in values:
        errors += errors_in(check_keys, "key", [key], [*of_cells, *GRID_KEYS])
    if values.get("workers") is not None:
        errors += errors_in(check_whole, "workers", values["workers"], 1)
    engine: EngineOptions = Processes()
    limits = Limits()
    try:
        engine = read_engine(values.get("engine"))
        limits = read_limits(values)
    except UmieError as error:
        errors += errors_of(error)
    if not all(isinstance(name, str) for name in as_list(values.get("report_to"))):
        errors.append(f"report_to is {shown(values['report_to'])}: use names, such as [tensorboard]")
    cells: list[Cell] = []
    options = Options({})
    reference: list[Reference] = []
    try:
        reference = read_reference(values.get("reference"))
    except UmieError as error:
        errors += errors_of(error)
    if isinstance(values.get("checkpoints"), dict):  # trackers of a grid are off by default
        values = {**values, "checkpoints": {"report_to": [], **values["checkpoints"]}}
    try:
        options, cells = _expanded({key: value for key, value in values.items() if key in of_cells}, path)
    except UmieError as error:
        errors += errors_of(error)
    for key in ("compare_with", "question"):
        if not isinstance(values.get(key), str | None):
            errors.append(f"{key} is {shown(values[key])}: use a text")
    if cells and isinstance(values.get("compare_with"), str):
        variants = dict.fromkeys(cell.variant for cell in cells)
        errors += errors_in(check_keys, "variant in compare_with", [values["compare_with"]], variants)
    twice = [name for name, count in Counter((cell.variant, cell.seed) for cell in cells).items() if count > 1]
    if twice:
        variant, seed = twice[0]
        errors.append(f"two variants are called {variant!r} (seed {seed}): remove one, or give them labels")
    if errors:
        raise ConfigError(errors, str(path))
    return Grid(
        path,
        cells,
        values.get("workers"),
        reference,
        as_list(values.get("report_to")),
        options,
        engine,
        limits,
        values.get("compare_with"),
        values.get("question") or "",
    )


def read_run(path: str | Path, settings: Sequence[str] = ()) -> RunConfig:
    """Read the config file of one run; see ``docs/training.md`` for its keys, and ``read_grid`` for ``settings``.

    Raises:
        UmieError: as for ``read_grid``; or the file describes several runs.
    """
    path = Path(path)
    values = _read(path, settings, "config", "data, tasks, fusion, training, checkpoints")
    try:
        of_grids = {"seeds", ZIP, EXCLUDE, *GRID_KEYS} - set(RunConfig.model_fields)
        if found := [key for key in values if key in of_grids]:
            raise UmieError(f"{found[0]}: a key of grids, and a run trains one variant: remove it, or use umie ablate")
        check_keys("key", values, RunConfig.model_fields)
        given = {slot: options_of_slot(slot, values.get(slot)) for slot in SLOTS}
        varied = [slot for slot, options in given.items() if len(options) > 1]
        if varied:
            raise UmieError(f"a run trains one variant: choose one {' and one '.join(varied)}, or use umie ablate")
        for slot, options in given.items():
            if any(isinstance(option, dict) and WHEN in option for option in options):
                raise UmieError(f"{slot}.{WHEN}: a run trains one variant: remove {WHEN!r}, or use umie ablate")
        if type(values.get("seed", 0)) is not int:
            raise UmieError(f"seed is {shown(values['seed'])}: use one whole number; umie ablate runs several seeds")
        checkpoints = {} if values.get("checkpoints") is None else values["checkpoints"]
        _, (cell,) = _expanded({**values, "checkpoints": checkpoints, "seeds": values.get("seed", 0)}, path)
    except UmieError as error:
        raise ConfigError(errors_of(error), str(path)) from error
    return cell.config


def plan(grid: Grid, fingerprint: str, *, read_files: bool = True) -> list[Cell]:
    """Return the cells with their hashes, for which see ``identity``; raise UmieError if two cells are identical."""
    known: dict[str, Any] = {}  # so that files are read once
    cells = [
        dataclasses.replace(cell, hash=hash_of(identity(cell.config, fingerprint, read_files=read_files, known=known)))
        for cell in grid.cells
    ]
    counts = Counter(cell.hash for cell in cells)
    for cell in cells:
        if counts[cell.hash] > 1:
            raise UmieError(f"{grid.path}: the variant {cell.variant!r} with seed {cell.seed} is in the grid twice")
    return cells


def _read(path: Path, settings: Sequence[str], kind: str, keys: str) -> dict[str, Any]:
    values = read_yaml(path, f"the {kind} file")
    with at(str(path)):
        if not isinstance(values, dict):
            raise UmieError(f"a {kind} file is a mapping of keys such as {keys}")
        return _with_settings(values, settings)


def _expanded(values: dict[str, Any], path: Path) -> tuple[Options, list[Cell]]:
    """Return the options of the slots, and all their combinations with the seeds as runs."""
    values = dict(values)
    values["name"] = str(values.get("name", path.stem))
    values["plugins"] = [str(path.parent / str(plugin)) for plugin in as_list(values.get("plugins"))]
    load_plugins(values["plugins"])
    if isinstance(values.get("data"), str):
        values["data"] = read_yaml(path.parent / values["data"], "the file named in `data`")
    if isinstance(values.get("features"), dict) and values["features"].get("folder") is not None:
        values["features"] = {**values["features"], "folder": str(path.parent / str(values["features"]["folder"]))}
    values = _started_from(values, path)
    values = _with_preset(values)
    seeds = as_list(values.pop("seeds", 0))
    if not seeds or not all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds):
        raise UmieError(f"seeds is {shown(seeds)}: use whole numbers, 0 or more, below 2**32")
    options = Options.read(values)
    defaults = PRESETS.get(str(values.get("preset")), {})
    shared = {key: value for key, value in values.items() if key not in (ZIP, EXCLUDE, *SLOTS)}
    cells: list[Cell] = []
    errors: list[str] = []
    blind: dict[str, set[int]] = {}  # seeds of a combination without image: one variant, not one for each encoder
    for combination in options.combinations():
        chosen = {slot: defaults.get(slot) if one is None else one.value for slot, one in combination.items()}
        labels = {slot: one.label for slot, one in combination.items() if one is not None}
        used = [seed for seed in seeds if not options.is_excluded(labels, seed)]
        if not used:
            continue
        if not uses_image(chosen["fusion"]):
            labels = {slot: label for slot, label in labels.items() if slot not in SEEING}
            key = repr([value for slot, value in chosen.items() if slot not in SEEING])
            done = blind.setdefault(key, set())
            used = [seed for seed in used if seed not in done]
            if not used:
                continue
            done.update(used)
            for slot in SEEING:  # training and images of such a choice belong to variants that use it
                if isinstance(value := chosen[slot], dict):
                    chosen[slot] = {k: v for k, v in value.items() if k not in ("training", "images", "blind")}
        try:
            config = RunConfig(**{**shared, **_plain(chosen), "seed": used[0]})
        except UmieError as error:
            errors += errors_of(error)
            continue
        named = options.naming(labels)
        cells += [Cell(named, config.model_copy(update={"seed": seed}), options=labels) for seed in used]
    if not cells and not errors:
        errors.append(f"no combination of options is left: see {EXCLUDE!r} and {WHEN!r}")
    if errors:
        raise ConfigError(errors)
    return options, cells


def _with_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a config, with those of its preset, if any, where the config has none.

    ``training`` and parts without a name are merged by key. An unknown preset raises UnknownNameError.
    """
    name = values.get("preset")
    if name is None:
        return dict(values)
    if not isinstance(name, str) or name not in PRESETS:
        raise UnknownNameError("preset", str(name), PRESETS)
    merged = copy.deepcopy(dict(PRESETS[name]))
    for key, value in values.items():
        if key == "training" and isinstance(value, dict):
            inherited = dict(merged["training"])
            if "max_steps" in value:
                inherited.pop("num_train_epochs", None)
            merged[key] = {**inherited, **value}
        elif key in PARTS and isinstance(value, dict) and "name" not in value:
            merged[key] = {**merged[key], **value}  # options of the preset's part
        else:
            merged[key] = value
    return merged


def _plain(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of one combination for a run: without labels, and with images and training from the parts."""
    plain: dict[str, Any] = {}
    training: dict[str, Any] = {}
    for slot, value in chosen.items():
        if slot in ("train_on", "instruction") or not isinstance(value, dict):
            plain[slot] = value
            continue
        plain[slot] = {key: item for key, item in value.items() if key not in _NO_OPTIONS}
        for key in ("images", "blind"):
            if key in value:
                plain[key] = value[key]
        if slot != "training":
            training |= as_mapping(f"training of a {slot}", value.get("training") or {})
    if training or isinstance(plain["training"], dict):
        plain["training"] = {**as_mapping("training", plain["training"] or {}), **training}
    return {slot: value for slot, value in plain.items() if value is not None}


def _started_from(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the values with the parts of the variant in ``start_from``."""
    start = values.get("start_from")
    if start is None:
        return values
    for key in (*PARTS, "visual_embedding", "preset", "warm_start"):
        if key in values:
            raise UmieError(f"start_from uses the parts of {start}: remove {key!r}")
    folder = path.parent / str(start)
    if not folder.exists() and Path(str(start)).exists():  # as the outputs of runs are
        folder = Path(str(start))
    try:
        config = read_json(folder / "config.json", "the configuration of a variant")
        parts = {slot: config[slot] for slot in ("encoder", "visual_embedding", "fusion")}
        parts |= {slot: config.get(slot) for slot in ("video_encoder", "audio_encoder")}
    except (UmieError, KeyError, TypeError) as error:
        raise UmieError(f"start_from is {folder}: not a trained variant (config.json: {error})") from error
    return {**values, "start_from": str(folder.resolve()), **parts}


def _with_settings(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Return the values with the overrides of ``--set`` applied."""
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
            if inner is changed and key in (*PARTS, "engine") and isinstance(inside, str):
                inside = {"name": inside} if key != "decoder" else {"source": inside}
            if not isinstance(inside, dict):
                raise UmieError(f"--set {setting}: {key} is {shown(inside)}, which has no keys")
            inner[key] = dict(inside)
            inner = inner[key]
        inner[keys[-1]] = value
    return changed
