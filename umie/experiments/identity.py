"""The identity of a run: everything that its result depends on, as plain data; and the lock of its directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import umie
from umie import registries
from umie.checkpoints import known_digest
from umie.errors import UmieError
from umie.experiments.combine import ENCODERS, uses_image
from umie.experiments.config import PARTS, RunConfig
from umie.experiments.data_sets import hash_of
from umie.files import json_text
from umie.training.config import DEFAULT_STEPS

_WITHOUT_EFFECT = {"dataloader_num_workers"}  # training options that change the time, but not the result


def identity(
    config: RunConfig, fingerprint: str, *, read_files: bool = True, known: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return everything that the result of a run depends on, as plain data; it is the same on every machine.

    Options that are spelled out as they are by default, those of encoders that the fusion does not use, and the place
    of local files, whose content counts, make no difference.

    Args:
        config: the run.
        fingerprint: that of its data, a ``Corpus``.
        read_files: include the content of weights and plugins, and names, sizes and dates of feature files.
        known: parts that were described before, so that their files are read once; it is changed.
    """
    checkpoints = None
    if config.checkpoints is not None:  # the options that determine which checkpoint is scored
        checkpoints = config.checkpoints.model_dump(mode="json", exclude={"report_to", "save_total_limit"})
        checkpoints["mean_over"] = list(config.mean_over)
    described = {} if known is None else known
    key = json_text([config.parts, config.grounders, config.plugins, config.start_from, read_files], default=list)
    if key not in described:
        described[key] = _described(config, config.parts, read_files)
    parts, files = described[key]
    training = config.training.model_dump(mode="json", exclude_defaults=True, exclude=_WITHOUT_EFFECT)
    if training.get("max_steps") == DEFAULT_STEPS:
        del training["max_steps"]
    if not training.get("initialize_fusion", True):
        del training["initialize_fusion"]  # as where a fusion has none
    warm_start = None if config.warm_start is None else config.warm_start.model_dump(mode="json")
    if warm_start is not None:
        warm_start["training"]["initialize_fusion"] = bool(warm_start["training"]["initialize_fusion"])
    return {
        "parts": parts,
        "seed": config.seed,
        "data": fingerprint,
        "tasks": list(config.tasks.items()),  # the order of tasks determines that of queries
        "train_on": list(config.trained_on),
        "instruction": dict(config.wording),
        "training": training,
        "checkpoints": checkpoints,
        "warm_start": warm_start,
        "evaluation": config.evaluation.model_dump(mode="json"),
        "missing_images": config.missing_images,
        **({} if config.images == "own" else {"images": config.images}),
        **({"blind": sorted(config.blind)} if config.blind else {}),
        "lengths": [config.max_input_tokens, config.max_target_tokens, config.allow_truncated_targets],
        "start_from": config.start_from is not None,
        "files": files,
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
    parts, files = _described(config, {"decoder": config.parts["decoder"]}, True)
    return hash_of({**shared, **parts, "files": files})


def _described(
    config: RunConfig, parts: Mapping[str, Mapping[str, Any]], read_files: bool
) -> tuple[dict[str, Any], list[Any]]:
    """Return the options of parts that matter, and values that change whenever a file that they name changes."""
    from umie.composition import checkpoint_of
    from umie.encoders import build_preprocessor
    from umie.fusion import VisualEmbeddingConfig
    from umie.language_models.sources import located

    files: list[Any] = [known_digest(Path(plugin)) for plugin in config.plugins] if read_files else []
    if config.start_from is not None and read_files:
        files.append(_content(Path(config.start_from)))
    sees = "fusion" not in parts or uses_image(parts["fusion"])
    found: dict[str, Any] = {}
    for slot, options in parts.items():
        part: Any = PARTS[slot].get(options["name"]) if slot in PARTS else None
        config_class: Any = VisualEmbeddingConfig if part is None else getattr(part, "Config", None)
        inner = {key: value for key, value in options.items() if key != "name"}
        if slot in ENCODERS and not sees:  # it only says how many regions have a name
            found[slot] = {"max_regions": getattr(config_class(**inner), "max_regions", None)}
            continue
        if slot == "visual_embedding" and not sees:
            continue
        source = checkpoint_of(options) if slot == "decoder" and read_files else None
        if slot in ENCODERS:
            source = config_class(**inner).weights_source
            if read_files and getattr(part, "reads_features", False):
                files.append(build_preprocessor(options).fingerprint())
        essential = _without_defaults(inner, config_class)
        if source and read_files and (path := Path(located(str(source)))).exists():
            files.append(_content(path))
            essential = _replaced(essential, source)
        found[slot] = {**essential, **({"name": options["name"]} if "name" in options else {})}
    if config.grounders is not None and "fusion" in parts:  # the whole variant
        found["grounders"] = {}
        for medium, options in config.grounders.items():
            inner = {key: value for key, value in options.items() if key not in ("name", "device")}
            grounder: Any = registries.grounders.get(options["name"])
            essential = _without_defaults(inner, grounder.Config)
            source = essential.get("checkpoint")
            if source and read_files and (path := Path(located(str(source)))).exists():
                files.append(_content(path))
                essential = _replaced(essential, source)
            found["grounders"][medium] = {**essential, "name": options["name"]}
    return found, files


def _without_defaults(options: Mapping[str, Any], config_class: Any) -> dict[str, Any]:
    """Return the options whose values differ from those that the config has by default."""
    defaults = {}
    for item in dataclasses.fields(config_class) if dataclasses.is_dataclass(config_class) else ():
        if item.default is not dataclasses.MISSING:
            defaults[item.name] = item.default
        elif item.default_factory is not dataclasses.MISSING:
            defaults[item.name] = item.default_factory()
    return {
        key: value for key, value in options.items() if key not in defaults or _plain(value) != _plain(defaults[key])
    }


def _plain(value: Any) -> str:
    return json_text(value, default=str, sort_keys=True)


def _replaced(value: Any, path: str) -> Any:
    """Return options in which a word stands in place of a path."""
    if isinstance(value, Mapping):
        return {key: _replaced(item, path) for key, item in value.items()}
    return "local" if value == path else value


def _content(path: Path) -> list[Any]:
    """Return the names and digests of a file, or of the files in a directory."""
    if not path.is_dir():
        return [known_digest(path)]
    below = ((one.relative_to(path), one) for one in sorted(path.rglob("*")) if one.is_file())
    return [
        [name.as_posix(), known_digest(one)]
        for name, one in below
        if not any(part.startswith(".") for part in name.parts)  # e.g. the dates of downloads
    ]
