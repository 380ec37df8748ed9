"""What the cells of a grid cost: time, memory and disk, from cells that finished or were measured for a few steps."""

from __future__ import annotations

import heapq
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from umie import registries
from umie.errors import UmieError
from umie.experiments.combine import ENCODERS, uses_image
from umie.experiments.config import RunConfig
from umie.experiments.data_sets import Corpus, hash_of
from umie.experiments.expand import Cell
from umie.experiments.results import RESULTS, parse_result, read_sealed, write_sealed
from umie.files import bounded_lines, json_text
from umie.records.places import MEDIA

CALIBRATION = "calibration.json"  # in the directory of a grid: costs by shape, from a few steps each
SAVES = 10  # of a run that does not say how often it saves; see Checkpoints.interval
_FREE = (
    "max_steps", "num_train_epochs", "learning_rate", "learning_rate_multipliers", "warmup_ratio", "weight_decay",
    "max_grad_norm", "label_smoothing_factor", "initialize_fusion",
)  # fmt: skip
"""The training options that the time of a step and the memory do not depend on."""


@dataclass(frozen=True)
class Cost:
    """The cost of the cells of one shape, as measured."""

    fixed_s: float  # seconds of a cell without its steps and without encoding for the feature store
    step_s: float  # seconds of an optimizer step
    encode_s: float = 0.0  # seconds to encode everything for the feature store, once for all cells with this encoder
    encoded_bytes: float = 0.0  # size of these features
    memory_bytes: float = 0.0  # peak of the process
    device_bytes: float = 0.0  # peak on the GPU
    kept_bytes: float = 0.0  # size of the cell's directory
    scratch_bytes: float = 0.0  # size of its checkpoints, which are removed at its end
    num_cells: int = 0  # finished cells that it is the mean of; 0 if it was measured for a few steps

    def seconds(self, num_steps: int) -> float:
        """Return the seconds of a cell with a number of steps."""
        return self.fixed_s + self.step_s * num_steps


def shape_of(config: RunConfig, fingerprint: str) -> str:
    """Return a hash of what the time of a step, the memory and the disk of a run depend on.

    Seeds, learning rates and the number of steps make no difference.
    """
    training = config.training.model_dump(mode="json", exclude_defaults=True, exclude=set(_FREE))
    evaluation = config.evaluation.model_dump(mode="json")
    saving = (
        None if config.checkpoints is None else [config.checkpoints.save_steps, config.checkpoints.save_total_limit]
    )
    lengths = [config.max_input_tokens, config.max_target_tokens]
    wording = dict(config.wording)
    return hash_of([config.parts, training, evaluation, saving, lengths, wording, config.trained_on, list(config.blind),
                    config.start_from, config.features.enabled, fingerprint])  # fmt: skip


def num_queries(config: RunConfig, corpus: Corpus) -> int:
    """Return the number of training queries of a run."""
    return sum(sum(one.num_queries["train"].values()) for one in corpus.training_sets(config.trained_on))


def num_steps(config: RunConfig, corpus: Corpus) -> int:
    """Return the number of optimizer steps of a run, which is the largest one if it may stop early."""
    return config.training.num_steps(num_queries(config, corpus))


def stored_encoders(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Return the frozen encoders of a run whose features are stored, by slot."""
    if not config.features.enabled or not uses_image(config.fusion):
        return {}
    found = {}
    for medium, slot in zip(MEDIA, ENCODERS, strict=True):
        if slot not in config.parts or medium in config.blind:
            continue
        options = dict(config.parts[slot])
        part: Any = registries.encoders.get(options.pop("name"))
        if not getattr(part, "reads_features", False) and not part.Config(**options).trainable:
            found[slot] = config.parts[slot]
    return found


def stores_texts(config: RunConfig) -> bool:
    """Return whether the text encoder of a run is frozen, so that its states of texts are stored.

    Those of an encoder that is spread over several processes (FSDP) are not.
    """
    from umie.decoders import Decoder  # here, because it imports torch

    decoder: Any = registries.decoders.get(config.parts["decoder"]["name"])
    is_stored = config.features.enabled and not config.training.fsdp
    return is_stored and _freezes_text(config) and decoder.text_model is not Decoder.text_model


def has_random_frozen_text_encoder(config: RunConfig) -> bool:
    """Return whether the text encoder of a run has random weights that nothing trains, so that it tells nothing."""
    from umie.composition import checkpoint_of  # here, because it imports torch

    return _freezes_text(config) and config.warm_start is None and checkpoint_of(config.parts["decoder"]) is None


def _freezes_text(config: RunConfig) -> bool:
    return "text" in config.training.freeze and config.training.adapter is None


RANDOM_TEXT = "its text encoder has random weights and is frozen (training.freeze), so it tells nothing about a text"


def known_costs(output: Path) -> dict[str, Cost]:
    """Return the costs by shape in the directory of a grid: of finished cells, or else of a calibration."""
    return read_calibration(output) | costs_of(_lines(output))


def costs_of(lines: Iterable[Mapping[str, Any]]) -> dict[str, Cost]:
    """Return the mean cost of finished cells by shape; results of earlier versions, without a shape, are left out."""
    by_shape: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        if line.get("status") == "ok" and isinstance(line.get("shape"), str):
            by_shape.setdefault(line["shape"], []).append(line)
    return {shape: cost for shape, own in by_shape.items() if (cost := _mean_cost(own)) is not None}


def _mean_cost(lines: Sequence[Mapping[str, Any]]) -> Cost | None:
    try:
        seconds = [line["seconds"] for line in lines]
        encode = [one.get("encode", 0.0) for one in seconds]
        rest = [
            one.get("start", 0.0) + one["total"] - one["train"] - shared
            for one, shared in zip(seconds, encode, strict=True)
        ]
        steps = [one["train"] / line["steps"] for one, line in zip(seconds, lines, strict=True)]
        return Cost(
            fixed_s=statistics.mean(rest) + min(encode),  # the others read what the first one encoded
            step_s=statistics.mean(steps),
            encode_s=max(encode) - min(encode),
            memory_bytes=max(line.get("memory", {}).get("host", 0) for line in lines),
            device_bytes=max(line.get("memory", {}).get("device", 0) for line in lines),
            kept_bytes=statistics.mean(line.get("disk", {}).get("kept", 0) for line in lines),
            scratch_bytes=max(line.get("disk", {}).get("scratch", 0) for line in lines),
            num_cells=len(lines),
        )
    except (KeyError, TypeError, ZeroDivisionError, AttributeError):
        return None


def _lines(output: Path) -> list[dict[str, Any]]:
    """Return the intact lines of a results file."""
    path = output / RESULTS
    found = []
    for _, text in bounded_lines(path) if path.is_file() else ():
        if isinstance(text, str):
            try:
                found.append(parse_result(text))
            except UmieError:
                continue  # reported where results are read
    return found


def read_calibration(output: Path) -> dict[str, Cost]:
    """Return the costs by shape that were measured for a few steps; a damaged file is as none."""
    path = output / CALIBRATION
    try:
        found = read_sealed(path) if path.is_file() else {}
        return TypeAdapter(dict[str, Cost]).validate_python(found.get("costs", {}))
    except (UmieError, OSError, ValidationError):
        return {}


def write_calibration(output: Path, costs: Mapping[str, Cost]) -> None:
    """Add costs by shape to those in the directory of a grid."""
    merged = {**read_calibration(output), **costs}
    line = {"costs": {shape: asdict(cost) for shape, cost in merged.items()}}
    write_sealed(output / CALIBRATION, line, indent=1)


@dataclass(frozen=True)
class Estimate:
    """What it takes to run some cells."""

    num_cells: int
    unknown: Sequence[Cell]  # one cell of each shape that nothing is known about
    num_unknown: int  # the cells of these shapes
    work_s: float = 0.0  # of all other cells
    wall_s: float = 0.0  # with the workers
    memory_bytes: float = 0.0  # of the largest cells that may run at the same time
    device_bytes: float = 0.0  # of the largest cell
    kept_bytes: float = 0.0
    scratch_bytes: float = 0.0  # checkpoints at the same time
    encode_s: float = 0.0  # of shared features that are not stored yet, in work_s
    num_finished: int = 0  # cells that the estimate is from
    num_calibrated: int = 0  # shapes that were measured for a few steps


def estimate(
    cells: Sequence[Cell],
    corpus: Corpus,
    costs: Mapping[str, Cost],
    workers: int,
    is_stored: Callable[[Mapping[str, Any]], bool] = lambda encoder: False,
    extra_s: float = 0.0,
) -> Estimate:
    """Estimate what cells take that start in their order, as soon as a worker is free.

    Args:
        cells: the cells to run.
        corpus: their data.
        costs: costs by shape.
        workers: number of cells at the same time.
        is_stored: whether the features of an encoder, by its options, are in the store.
        extra_s: seconds before the first cell, e.g. of warm starts.
    """
    unknown: dict[str, Cell] = {}
    num_unknown = 0
    used: list[tuple[Cost, float]] = []  # with the seconds of the cell
    encoded: set[str] = set()
    total = Estimate(len(cells), (), 0)
    for cell in cells:
        shape = shape_of(cell.config, corpus.fingerprint)
        cost = costs.get(shape)
        if cost is None:
            unknown.setdefault(shape, cell)
            num_unknown += 1
            continue
        seconds = cost.seconds(num_steps(cell.config, corpus))
        new = [json_text(one) for one in stored_encoders(cell.config).values() if not is_stored(one)]
        if new and not encoded.issuperset(new):
            encoded.update(new)
            seconds += cost.encode_s
            total = replace(
                total, encode_s=total.encode_s + cost.encode_s, kept_bytes=total.kept_bytes + cost.encoded_bytes
            )
        used.append((cost, seconds))
    free = [extra_s] * workers
    for _, seconds in used:
        heapq.heapreplace(free, free[0] + seconds)

    def largest(name: str, number: int) -> float:
        values: list[float] = sorted((getattr(cost, name) for cost, _ in used), reverse=True)
        return sum(values[:number])

    shapes = {id(cost): cost for cost, _ in used}.values()
    return replace(
        total,
        unknown=list(unknown.values()),
        num_unknown=num_unknown,
        work_s=extra_s + sum(seconds for _, seconds in used),
        wall_s=max(free),
        memory_bytes=largest("memory_bytes", workers),
        device_bytes=largest("device_bytes", 1),
        kept_bytes=total.kept_bytes + sum(cost.kept_bytes for cost, _ in used),
        scratch_bytes=largest("scratch_bytes", workers),
        num_finished=sum(cost.num_cells for cost in shapes),
        num_calibrated=sum(not cost.num_cells for cost in shapes),
    )


def size_of(folder: Path) -> int:
    """Return the total size of the files in a directory in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def peak_memory() -> dict[str, int]:
    """Return the peak memory of this process in bytes, on the ``host``, and on the ``device`` if there is a GPU.

    On Windows, the memory of the host is unknown and left out.
    """
    found: dict[str, int] = {}
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        found["host"] = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            found["device"] = torch.cuda.max_memory_allocated()
    return found
