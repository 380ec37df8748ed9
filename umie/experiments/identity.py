"""The identity of a run: everything that its result depends on, as plain data; and the lock of its directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import umie
from umie import registries
from umie.errors import UmieError
from umie.experiments.config import RunConfig
from umie.experiments.data_sets import hash_of
from umie.versions import file_digest


def identity(config: RunConfig, fingerprint: str, *, read_files: bool = True) -> dict[str, Any]:
    """Return everything that the result of a run depends on; ``fingerprint`` is that of its data, a ``Corpus``.

    With ``read_files`` this includes weights, features and plugins.
    """
    checkpoints = None
    if config.checkpoints is not None:  # the options that determine which checkpoint is scored
        checkpoints = config.checkpoints.model_dump(mode="json", exclude={"report_to", "save_total_limit"})
        checkpoints["mean_over"] = list(config.mean_over)
    return {
        "parts": config.parts,
        "seed": config.seed,
        "data": fingerprint,
        "tasks": list(config.tasks.items()),  # the order of tasks determines that of queries
        "train_on": list(config.trained_on),
        "instruction": dict(config.wording),
        "training": config.training.model_dump(mode="json", exclude_defaults=True),
        "checkpoints": checkpoints,
        "warm_start": None if config.warm_start is None else config.warm_start.model_dump(mode="json"),
        "evaluation": config.evaluation.model_dump(mode="json"),
        "missing_images": config.missing_images,
        **({} if config.images == "own" else {"images": config.images}),
        **({"blind": sorted(config.blind)} if config.blind else {}),
        "lengths": [config.max_input_tokens, config.max_target_tokens, config.allow_truncated_targets],
        "start_from": config.start_from,
        "files": _files(config, config.parts) if read_files else [],
        "umie": umie.__version__,
    }


def check_output(output: Path) -> None:
    """Raise UmieError if an output directory is a file, or would be in one."""
    for path in (output, *output.parents):
        if path.exists():
            if not path.is_dir():
                raise UmieError(f"{path}: is a file: use a directory for --output")
            return


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Hold the lock of an output directory, which is created; raise UmieError if another run holds it."""
    check_output(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UmieError(f"{output}: cannot write: {error.strerror}; use another --output") from error
    try:
        with FileLock(output / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise UmieError(f"{output} is in use by another run: wait for it, or use another --output") from error


def warm_start_hash(config: RunConfig, fingerprint: str) -> str:
    """Return the hash of everything that the warm start of a run depends on; runs with the same hash share it."""
    whole = identity(config, fingerprint, read_files=False)
    shared = {name: whole[name] for name in ("data", "tasks", "train_on", "instruction", "warm_start", "umie")}
    decoder = {"decoder": config.parts["decoder"]}
    return hash_of({**shared, **decoder, "files": _files(config, decoder)})


def _files(config: RunConfig, parts: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """Return values that change whenever a plugin, checkpoint directory, weight file or feature file changes."""
    from umie.composition import checkpoint_of
    from umie.encoders import build_preprocessor

    files: list[Any] = [file_digest(Path(plugin)) for plugin in config.plugins]
    named = [checkpoint_of(parts["decoder"])]
    for slot in ("encoder", "video_encoder", "audio_encoder"):
        if slot not in parts:
            continue
        options = dict(parts[slot])
        name = options.pop("name")
        part: Any = registries.encoders.get(name)
        named.append(part.Config(**options).weights_source)
        if getattr(part, "reads_features", False):
            files.append(build_preprocessor(parts[slot]).fingerprint())
    for path in (Path(str(name)) for name in named if name):
        if path.exists():
            below = sorted(path.rglob("*")) if path.is_dir() else [path]
            files += [(item.name, item.stat().st_size, item.stat().st_mtime_ns) for item in below]
    return files
