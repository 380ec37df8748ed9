"""Checks of the parts that runs use, and a list of the files that are missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from umie import registries
from umie.configs import ConfigError, errors_in
from umie.data.synthetic import SPLITS
from umie.errors import UmieError, check_keys
from umie.experiments.config import RunConfig
from umie.registry import Registry, loaded_plugins
from umie.tasks import task_class


def check_parts(runs: Sequence[RunConfig], *, read_files: bool = True) -> None:
    """Build every encoder with its weights and every variant without weights, so that no run fails because of options.

    Fusions registered by plugins are also checked against their contract on small inputs.

    Args:
        runs: the configs of the runs.
        read_files: if false, only the options of encoders and decoders are checked, and every fusion is built with a
            tiny decoder.

    Raises:
        UmieError: a part rejects a value, weights cannot be read, no variant has the parameters of a learning rate
            multiplier, or a plugin violates its contract. All errors are reported at once.
    """
    errors: list[str] = []
    for run in _distinct(runs, "visual_embedding"):
        errors += errors_in(_check_embedding, run.visual_embedding)
    for run in _distinct(runs, "evaluation"):
        errors += errors_in(_check_generation, run)
    for run in _distinct(runs, "encoder"):
        errors += errors_in(_check_encoder, run, read_files)
    for run in _distinct(runs, "decoder"):
        errors += errors_in(_check_decoder, run, read_files)
    if not errors:
        parameters: set[str] = set()
        for run in _distinct(runs, "encoder", "fusion", "decoder", "visual_embedding"):
            errors += errors_in(_check_variant, run, read_files, parameters)
        for run in runs if not errors else ():
            errors += errors_in(_check_multipliers, run, read_files, parameters)
    if errors:
        raise ConfigError(errors)


def _distinct(runs: Iterable[RunConfig], *slots: str) -> list[RunConfig]:
    """Return one run for each distinct value of some slots."""
    found = {repr([getattr(run, slot) for slot in slots]): run for run in runs}
    return list(found.values())


def _check_embedding(options: Mapping[str, Any]) -> None:
    from umie.fusion import VisualEmbeddingConfig

    widths = {"feature_dim": 8, "d_model": 8, "num_heads": 1, "head_dim": 8}
    _build_config("visual_embedding", VisualEmbeddingConfig, {**widths, **options})


def _check_generation(run: RunConfig) -> None:
    from transformers import GenerationConfig

    check_keys("option in evaluation.generation:", run.evaluation.generation, GenerationConfig().to_dict())


def _check_encoder(run: RunConfig, read_files: bool) -> None:
    options = run.parts["encoder"]
    if read_files:
        registries.encoders.build(**options)
    else:
        _check_config(registries.encoders, options)


def _check_decoder(run: RunConfig, read_files: bool) -> None:
    from umie.composition import checkpoint_of, default_tokenizer

    options = run.parts["decoder"]
    if not read_files:
        _check_config(registries.decoders, options)
    elif checkpoint_of(options) is not None:
        default_tokenizer(options)


def _check_variant(run: RunConfig, read_files: bool, parameters: set[str]) -> None:
    import torch

    from umie.fusion import Fusion
    from umie.fusion.contract import check_fusion
    from umie.model import UmieConfig, UmieModel

    parts = dict(run.parts)
    if not read_files:
        parts |= {"encoder": {"name": "tiny"}, "decoder": {"name": "t5", "source": "tiny"}}
    with torch.device("meta"):
        model = UmieModel(UmieConfig(**parts))
    parameters.update(name for name, _ in model.named_parameters())
    part = registries.fusions.get(run.fusion["name"])
    if loaded_plugins() and not getattr(part, "__module__", "").startswith("umie.") and issubclass(part, Fusion):  # type: ignore[arg-type] # a class
        options = {key: value for key, value in run.fusion.items() if key != "name"}
        check_fusion(registries.fusions.construct(run.fusion["name"], {"d_model": 16, "num_heads": 2, **options}))


def _check_multipliers(run: RunConfig, read_files: bool, parameters: set[str]) -> None:
    for prefix in run.training.learning_rate_multipliers:
        is_known = read_files or prefix.startswith("fusion.")
        if is_known and not any(name.startswith(prefix) for name in parameters):
            parts = sorted({".".join(name.split(".")[:2]) for name in parameters})
            raise UmieError(
                f"training.learning_rate_multipliers: no parameter of any variant starts with {prefix!r}; prefixes are "
                f"{', '.join(parts)}"
            )


def missing_files(runs: Sequence[RunConfig], root: Path) -> list[str]:
    """Return one line for each missing or unreadable file of the runs: data, weights, features, checkpoints.

    Args:
        runs: the configs of the runs.
        root: the directory that paths under ``data`` are relative to.
    """
    found = [f"data: {line}" for run in _distinct(runs, "data") for line in _missing_data(run, root)]
    for run in _distinct(runs, "encoder"):
        found += [f"encoder {run.encoder['name']}: {line}" for line in errors_in(_check_encoder, run, True)]
    for run in _distinct(runs, "decoder"):
        found += errors_in(_check_decoder, run, True)
    return list(dict.fromkeys(found))


def _missing_data(run: RunConfig, root: Path) -> Iterator[str]:
    for name, one in run.data.sets.items():
        if one.format != "synthetic":
            for key in (*SPLITS, "images", "regions"):
                path = root / str(one.options.get(key, "."))
                if not path.exists():
                    yield f"{name}, {key}: {path}: no such {'file' if key in SPLITS else 'directory'}"


def unnamed_regions(runs: Sequence[RunConfig], tasks: Iterable[str]) -> str | None:
    """Return a warning if a task names regions by number, but no input contains the numbers; otherwise None.

    Neither attention over visual slots nor the cross-attention of T5 depends on the number of a slot.
    """
    named = [name for name in tasks if task_class(name).names_regions]
    uses_image = any(getattr(registries.fusions.get(run.fusion["name"]), "uses_image", True) for run in runs)
    if not named or not uses_image or all(run.visual_embedding.get("num_slot_embeddings") for run in runs):
        return None
    return (
        f"{named[0]} names regions by number, and visual_embedding.num_slot_embeddings is 0: the numbers are not in "
        "the input; set it to 1 + the largest number of regions in an image"
    )


def _check_config(registry: Registry[Any], options: Mapping[str, Any]) -> None:
    values = {key: value for key, value in options.items() if key != "name"}
    part: Any = registry.get(options["name"])
    _build_config(f"{registry.kind} {options['name']!r}", part.Config, values)


def _build_config(kind: str, config: Any, values: Mapping[str, Any]) -> None:
    check_keys(f"{kind} key", values, [item.name for item in dataclasses.fields(config)])
    try:
        config(**values)
    except UmieError as error:
        raise UmieError(f"{kind}: {error}") from error
    except (TypeError, ValueError) as error:
        raise UmieError(f"{kind}: invalid value: {error}") from error
