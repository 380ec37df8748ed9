"""The config file of a training run: a grid file with one variant, and what only a run has."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from umie.errors import UmieError, check_flag, check_keys, check_text, check_whole
from umie.experiments.grid_config import GridConfig
from umie.experiments.parts import check_options
from umie.experiments.plan import SLOTS, Cell, grid_of, plan_cells, read_yaml
from umie.experiments.presets import with_preset
from umie.training.config import Checkpoints, TrainingConfig

NOT_OF_A_RUN = ("seeds", "workers", "reference")  # of a grid file


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A training run.

    Args:
        grid: everything that a run shares with a cell of a grid: data, tasks, parts, training, evaluation.
        seed: of weights, batches and dropout.
        checkpoints: when it is scored on the dev split and saved.
        start_from: folder of a trained variant that the run goes on from, in place of new parts.
        preset: the preset that its values stand on, if any.
        max_input_tokens: longer inputs lose the end of their text, which is counted; None takes 256, the paper's, or
            what the decoder has positions for.
        max_target_tokens: as above for targets; None takes 128, or what the decoder has positions for.
        allow_truncated_targets: whether a target may be cut: what stands behind the cut cannot be learned.
    """

    grid: GridConfig
    seed: int = 0
    checkpoints: Checkpoints = dataclasses.field(default_factory=Checkpoints)
    start_from: str | None = None
    preset: str | None = None
    max_input_tokens: int | None = None
    max_target_tokens: int | None = None
    allow_truncated_targets: bool = False

    def __post_init__(self) -> None:
        check_whole("seed", self.seed, 0)
        check_text("start_from", self.start_from)
        for name in ("max_input_tokens", "max_target_tokens"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 2)
        check_flag("allow_truncated_targets", self.allow_truncated_targets)

    def cell(self, fingerprint: str, *, read_files: bool = True) -> Cell:
        """Return the variant as a cell of its grid; the hash of the cell tells it from any other on other data."""
        return plan_cells(self.grid, fingerprint, read_files=read_files)[0]

    @property
    def training(self) -> TrainingConfig:
        """How it is trained."""
        return TrainingConfig(**self.cell("", read_files=False).training)


def read_run(path: str | Path, settings: Sequence[str] = (), *, read_files: bool = True) -> RunConfig:
    """Read and check the config file of a run.

    Args:
        path: the file.
        settings: what goes before the file's values, each as ``key.key=value`` with the value in YAML.
        read_files: also read the weights, feature files and tokenizers that it names.

    Raises:
        UmieError: not readable, not YAML, an unknown key, name or option, or a value that is not allowed.
    """
    path = Path(path)
    given = read_yaml(path, "the config file")
    try:
        if not isinstance(given, dict):
            raise UmieError("a config file is a mapping of keys such as data, tasks, fusion, training, checkpoints")
        return _run(_set(given, settings), path, read_files)
    except UmieError as error:
        raise UmieError(f"{path}: {error}") from error


def _run(given: Mapping[str, Any], path: Path, read_files: bool) -> RunConfig:
    own = [item.name for item in dataclasses.fields(RunConfig) if item.name != "grid"]
    shared = [item.name for item in dataclasses.fields(GridConfig) if item.name not in NOT_OF_A_RUN]
    check_keys("config key", given, [*own, *shared])
    start = given.get("start_from")
    if start is not None:
        for slot in ("encoder", "fusion", "decoder", "visual_embedding", "preset", "warm_start"):
            if slot in given:
                raise UmieError(f"start_from brings the parts of {start}: leave {slot!r} out")
        folder = path.parent / str(start)
        given = {**given, "start_from": str(folder.resolve()), **_parts_of(folder)}
        read_files = False  # what its parts were once made from is not needed
    values = with_preset(given)
    options = {name: values[name] for name in own if name in values}
    if not isinstance(options.get("seed", 0), int) or isinstance(options.get("seed", 0), bool):
        raise UmieError(f"seed is {options['seed']!r}: give one whole number (a grid takes several: umie ablate)")
    checkpoints = check_options("checkpoints", Checkpoints, values.get("checkpoints") or {})
    grid = grid_of(
        {**{name: values[name] for name in shared if name in values}, "seeds": [options.get("seed", 0)]},
        path,
        read_files,
    )
    cells = plan_cells(grid, "", read_files=read_files)
    if len(cells) > 1:
        several = [slot for slot in SLOTS if len(getattr(grid, slot)) > 1]
        raise UmieError(f"a run trains one variant: give one option for {' and '.join(several)}, or use umie ablate")
    training = TrainingConfig(**cells[0].training)
    if training.fsdp and checkpoints.patience is not None:
        raise UmieError("checkpoints: patience needs dev scores, which a run sharded by fsdp has none of: leave it out")
    return RunConfig(**{**options, "grid": grid, "checkpoints": checkpoints})


def _parts_of(folder: Path) -> dict[str, Any]:
    """Return the encoder, the visual embedding and the fusion of a trained variant."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return {slot: config[slot] for slot in ("encoder", "visual_embedding", "fusion")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UmieError(f"start_from is {folder}: no trained variant there (config.json: {error})") from error


def _set(given: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Return the values with settings such as ``training.steps=100`` put in."""
    values: dict[str, Any] = dict(given)
    for setting in settings:
        place, found, text = setting.partition("=")
        keys = place.split(".")
        if not found or not all(keys):
            raise UmieError(f"--set {setting}: give key=value, for example training.steps=100")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UmieError(f"--set {setting}: the value is not YAML: {' '.join(str(error).split())}") from error
        inner = values
        for key in keys[:-1]:
            inside = inner.get(key) or {}
            if inner is values and key in ("encoder", "fusion") and isinstance(inside, str):
                inside = {"name": inside}
            if not isinstance(inside, dict):
                raise UmieError(f"--set {setting}: {key} is {inside!r}, it has no keys of its own")
            inner[key] = dict(inside)
            inner = inner[key]
        inner[keys[-1]] = value
    return values
