"""Checks of the parts that runs use, and a list of the files that are missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from umie import registries
from umie.configs import ConfigError, errors_in
from umie.errors import UmieError, at, check_keys, one_line
from umie.experiments.combine import ENCODERS, uses_image
from umie.experiments.config import PARTS, RunConfig
from umie.experiments.data_sets import Corpus
from umie.experiments.scored_tasks import check_metric
from umie.records.places import MEDIA, PLURALS
from umie.registry import Registry
from umie.types import SPLITS

_SHAPES = (*ENCODERS[1:], "encoder", "fusion", "decoder", "visual_embedding", "start_from")


def check_parts(runs: Sequence[RunConfig], report_to: Sequence[str] = (), *, read_files: bool = True) -> None:
    """Build every encoder with its weights and every variant without weights, so that no run fails because of options.

    The integrations of ``report_to`` must be installed. Fusions registered by plugins are also checked against their
    contract on small inputs. Without ``read_files``, only the options of encoders and decoders are checked, and every
    fusion is built with a tiny decoder.

    Raises:
        UmieError: a part rejects a value, weights cannot be read, no variant has the parameters of a learning rate
            multiplier, a variant cannot be trained as configured (see ``umie.training.check_training``), a generation
            option or an integration is not supported, or a plugin violates its contract. All errors are reported at
            once.
    """
    errors: list[str] = errors_in(_check_reporters, report_to)
    for slot, check in (
        ("visual_embedding", _check_embedding),
        ("evaluation", _check_generation),
        ("checkpoints", _check_checkpoints),
        ("encoder", _check_encoder),
        ("decoder", _check_decoder),
        ("grounders", _check_grounders),
    ):
        for run in _distinct(runs, slot):
            errors += errors_in(_guarded, check, run, read_files)
    if not errors:
        parameters: set[str] = set()
        for run in _distinct(runs, *_SHAPES, "training"):
            errors += errors_in(_guarded, _check_variant, run, read_files, parameters)
        for run in runs if not errors else ():
            errors += errors_in(_check_multipliers, run, read_files, parameters)
    if errors:
        raise ConfigError(errors)


def _guarded(check: Callable[..., None], run: RunConfig, *arguments: Any) -> None:
    """Call a check; raise UmieError for any error of a part that a plugin registers."""
    try:
        check(run, *arguments)
    except UmieError:
        raise
    except Exception as error:
        named = [(registry, run.parts[slot]["name"]) for slot, registry in PARTS.items() if slot in run.parts]
        origins = {name: registry.get(name).__module__ for registry, name in named}
        own = [name for name, origin in origins.items() if not origin.startswith("umie.")]
        if not own:
            raise
        message = one_line(error)
        raise UmieError(f"{' or '.join(own)} (from a plugin) fails: {type(error).__name__}: {message}") from error


def _distinct(runs: Iterable[RunConfig], *slots: str) -> list[RunConfig]:
    """Return one run for each distinct value of some slots."""
    return list({repr([getattr(run, slot) for slot in slots]): run for run in runs}.values())


def _check_embedding(run: RunConfig, read_files: bool) -> None:
    from umie.fusion import VisualEmbeddingConfig

    widths = {"feature_dim": 8, "d_model": 8, "num_heads": 1, "head_dim": 8}
    _check_options("visual_embedding", VisualEmbeddingConfig, {**widths, **run.visual_embedding})


def _check_generation(run: RunConfig, read_files: bool) -> None:
    from umie.decoders.options import check_generation_options

    check_generation_options(run.evaluation.generation, "evaluation.generation", objects=False)


def _check_checkpoints(run: RunConfig, read_files: bool) -> None:
    """Raise UmieError for a metric that is never computed, or an integration that is unknown or not installed."""
    from umie.training import check_reporters

    if run.checkpoints is not None:
        check_metric(run)
        with at("checkpoints.report_to"):
            check_reporters(run.checkpoints.report_to)


def _check_reporters(names: Sequence[str]) -> None:
    from umie.training import check_reporters

    with at("report_to"):
        check_reporters(names)


def _check_encoder(run: RunConfig, read_files: bool) -> None:
    for slot in ENCODERS:
        if slot in run.parts:
            with nullcontext() if slot == "encoder" else at(slot):
                if read_files:
                    registries.encoders.build(**run.parts[slot])
                else:
                    _check_config(registries.encoders, **run.parts[slot])


def _check_decoder(run: RunConfig, read_files: bool) -> None:
    from umie.composition import checkpoint_of, default_tokenizer

    options = run.parts["decoder"]
    if not read_files:
        _check_config(registries.decoders, **options)
    elif checkpoint_of(options) is not None:
        default_tokenizer(options)


def _check_grounders(run: RunConfig, read_files: bool) -> None:
    from umie.grounders.calls import build_grounders

    for medium, options in (run.grounders or {}).items():
        if read_files:
            for part in build_grounders({medium: options}).values():
                part.load_weights()
        else:
            _check_config(registries.grounders, **options)


def _check_config(registry: Registry[Any], name: str, **options: Any) -> None:
    part: Any = registry.get(name)
    _check_options(f"{registry.kind} {name!r}", part.Config, options)


def _check_options(kind: str, config: Any, options: Mapping[str, Any]) -> None:
    check_keys(f"{kind} key", options, [item.name for item in dataclasses.fields(config)])
    try:
        config(**options)
    except UmieError as error:
        raise UmieError(f"{kind}: {error}") from error
    except (TypeError, ValueError) as error:
        raise UmieError(f"{kind}: invalid value: {error}") from error


def _check_variant(run: RunConfig, read_files: bool, parameters: set[str]) -> None:
    """Build a variant without weights, and add the names of its parameters to ``parameters``."""
    import torch

    from umie.fusion import Fusion
    from umie.fusion.contract import check_fusion
    from umie.model import UmieConfig, UmieModel
    from umie.training import check_training

    parts = dict(run.parts)
    if not read_files:
        parts = {slot: part for slot, part in parts.items() if slot not in ENCODERS}
        parts |= {"encoder": {"name": "tiny"}, "decoder": {"name": "t5", "source": "tiny"}}
    is_whole = read_files or run.start_from is not None
    with torch.device("meta"):
        config = UmieConfig(**parts) if run.start_from is None else UmieConfig.from_pretrained(run.start_from)
        model = UmieModel(config)
    parameters.update(name for name, _ in model.named_parameters())
    if run.warm_start is not None and model.decoder.candidates is not None:
        raise UmieError(f"warm_start: the decoder {run.decoder['name']!r} saves only its encoder: leave warm_start out")
    options = dict(run.fusion)
    name = options.pop("name")
    if not registries.fusions.get(name).__module__.startswith("umie."):  # a plugin, even under a built-in name
        fusion = registries.fusions.construct(name, {"d_model": 16, "num_heads": 2, **options})
        if isinstance(fusion, Fusion):
            check_fusion(fusion)
    with at("training"):
        check_training(run.training, model if is_whole else None)
    parameters.update(name for name, _ in model.named_parameters())  # with those of an adapter
    if run.warm_start is not None:
        with at("warm_start.training"):
            check_training(run.warm_start.training)


def _check_multipliers(run: RunConfig, read_files: bool, parameters: set[str]) -> None:
    for prefix in run.training.learning_rate_multipliers:
        is_known = read_files or run.start_from is not None or prefix.startswith("fusion.")
        if is_known and not any(name.startswith(prefix) for name in parameters):
            parts = sorted({".".join(name.split(".")[:2]) for name in parameters})
            raise UmieError(
                f"training.learning_rate_multipliers: no parameter of any variant starts with {prefix!r}; prefixes are "
                f"{', '.join(parts)}; to drop them all: --set training.learning_rate_multipliers={{}}"
            )


def missing_files(runs: Sequence[RunConfig], root: Path) -> list[str]:
    """Return one line for each missing or unreadable file of the runs: data, weights, features, checkpoints.

    Paths under ``data`` are relative to ``root``.
    """
    found = []
    for run in _distinct(runs, "data"):
        for name, one in run.data.sets.items():
            if one.is_drawn:
                continue
            for key in (*SPLITS, "images", "regions"):
                path = root / str(one.options.get(key, "."))
                if not path.exists():
                    found.append(f"data.{key} of {name}: {path}: no such {'file' if key in SPLITS else 'directory'}")
    for run in _distinct(runs, *ENCODERS):
        found += [f"encoder {run.encoder['name']}: {line}" for line in errors_in(_check_encoder, run, True)]
    for run in _distinct(runs, "decoder"):
        found += errors_in(_check_decoder, run, True)
    for run in _distinct(runs, "grounders"):
        found += [f"grounders: {line}" for line in errors_in(_check_grounders, run, True)]
    return list(dict.fromkeys(found))


def ignored_media(variants: Mapping[str, RunConfig], corpus: Corpus) -> list[str]:
    """Return a warning for each medium of records for which some of the variants, by name, have no encoder.

    A variant that is blind to a medium, or whose fusion uses none, hides it on purpose.
    """
    sets = corpus.sets.values()
    records = sum(number for one in sets for number in one.num_records.values())
    found = []
    for medium, slot in zip(MEDIA, ENCODERS, strict=True):
        having = sum(one.num_with(split, [medium]) for one in sets for split in one.num_records)
        without = [
            name
            for name, run in variants.items()
            if getattr(run, slot) is None and uses_image(run.fusion) and medium not in run.blind
        ]
        if having and without:
            by = f" by {', '.join(without)}" if len(without) < len(variants) else ""
            found.append(
                f"{having:,} of {records:,} records have {PLURALS[medium]}, which are ignored{by}: set {slot}, or "
                f"blind: [{medium}] to hide them on purpose"
            )
    return found


def unnamed_places(runs: Sequence[RunConfig], tasks: Iterable[str]) -> str | None:
    """Return the warning of ``umie.composition.unnamed_places`` about runs that answer the tasks, or None."""
    from umie import composition
    from umie.decoders.base import ScoringDecoder

    def is_unnamed(run: RunConfig) -> bool:
        decoder = registries.decoders.get(run.decoder["name"])
        is_scoring = isinstance(decoder, type) and issubclass(decoder, ScoringDecoder)
        is_named = run.visual_embedding.get("num_slot_embeddings") or is_scoring or run.grounders is not None
        return uses_image(run.fusion) and not is_named

    unnamed = list(filter(is_unnamed, runs))
    built = [registries.tasks.build(name, **runs[0].tasks.get(name, {})) for name in tasks]
    slots = zip(MEDIA, ENCODERS, strict=True)
    media = [medium for medium, slot in slots if any(getattr(run, slot) is not None for run in unnamed)]
    return composition.unnamed_places(built, media)
