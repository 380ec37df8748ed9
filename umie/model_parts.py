"""The parts of a model: build them from options, or derive the options of built modules."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from umie import decoders, encoders, fusion
from umie.errors import UmieError, check_keys
from umie.fusion import VisualEmbedding, VisualEmbeddingConfig
from umie.records import Medium
from umie.registry import Registry

Part: TypeAlias = nn.Module | Mapping[str, Any]
ENCODER_SLOTS: Mapping[Medium, str] = {"image": "encoder", "video": "video_encoder", "audio": "audio_encoder"}
"""The slot of the encoder of each medium; those of video and audio may be empty."""
CONTRACTS: Mapping[str, type[nn.Module]] = {
    **dict.fromkeys(ENCODER_SLOTS.values(), encoders.VisualEncoder),
    "visual_embedding": nn.Module,
    "fusion": fusion.Fusion,
    "decoder": decoders.Decoder,
}
REGISTRIES: Mapping[str, Registry[Any]] = {
    **dict.fromkeys(ENCODER_SLOTS.values(), encoders.registry),
    "fusion": fusion.registry,
    "decoder": decoders.registry,
}


def without_folders(options: Mapping[str, Any] | None) -> Any:
    """Return the options of an encoder or a decoder to save: of local weights, only the name."""
    if not options:
        return options
    part: Any = encoders.registry.get(options["name"]) if options.get("name") in encoders.registry else None
    option = "source" if part is None else getattr(part.Config, "weights_option", None)
    given = options.get(option) if option else None
    if isinstance(given, str | os.PathLike) and Path(given).exists():
        return {**options, option: Path(given).name}
    return options


def build_part(
    slot: str,
    options: Mapping[str, Any] | None,
    modules: Mapping[str, nn.Module],
    widths: Mapping[str, Any] | None = None,
) -> Any:
    """Return the module of a slot, or build it from its options; ``widths`` are the decoder's, for a fusion.

    Raises:
        UmieError: the options are wrong, or the widths of the module differ from the decoder's.
    """
    if slot in modules:
        module = modules[slot]
        d_model = getattr(getattr(module, "config", None), "d_model", None)
        if widths and d_model not in (None, widths["d_model"]):
            raise UmieError(
                f"the {slot} has d_model={d_model}, but the decoder has d_model={widths['d_model']}: build it with "
                "**decoder.widths"
            )
        return module
    options = dict(options or {})
    if slot in ENCODER_SLOTS.values():
        check_medium(slot, REGISTRIES[slot].get(options.get("name", "")))
    if widths and "d_model" in options:
        raise UmieError(f"{slot}: d_model is the decoder's and cannot be set")
    return REGISTRIES[slot].construct(options.pop("name"), {**(widths or {}), **options})


def check_medium(slot: str, part: Any) -> None:
    """Raise UmieError if an encoder, or its class, does not encode the medium of its slot."""
    medium = next(medium for medium, name in ENCODER_SLOTS.items() if name == slot)
    own: Medium = getattr(getattr(part, "Preprocessor", None), "medium", "image")
    if own != medium:
        name = getattr(part, "__name__", type(part).__name__)
        raise UmieError(f"the {slot} {name} encodes {own}, not {medium}: set it as {ENCODER_SLOTS[own]}")


def build_visual_embedding(
    options: Mapping[str, Any] | None, modules: Mapping[str, nn.Module], widths: Mapping[str, Any]
) -> nn.Module:
    """Return the module of the visual embedding, or build it; ``widths`` are those of the encoder and the decoder.

    Raises:
        UmieError: the options are wrong, or the widths of the module differ from those of encoder and decoder.
    """
    module = modules.get("visual_embedding")
    own = getattr(module, "config", None)
    given = dict(options or {})
    if module is not None:  # one without a config has only an image's features
        assumed = ("feature_dim", "d_model")
        given = {name: getattr(own, name, value if name in assumed else None) for name, value in widths.items()}
    for name, expected in widths.items():
        if name == "d_model":
            source = "decoder"
        elif name.endswith("_dim") and name != "head_dim":
            source = {"feature_dim": "encoder"}.get(name, name.replace("_dim", "_encoder"))
        else:
            continue
        if given.get(name, expected) != expected:
            raise UmieError(f"the visual_embedding has {name}={given[name]}, but the {source} has {name}={expected}")
    if module is not None:
        return module
    known = [field.name for field in dataclasses.fields(VisualEmbeddingConfig)]
    check_keys("option of visual_embedding:", given, known)
    try:
        return VisualEmbedding(VisualEmbeddingConfig(**{**widths, **given}))
    except (TypeError, UmieError) as error:
        raise UmieError(f"visual_embedding: {error}") from error


def options_of(slot: str, module: nn.Module, inherited: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the options that rebuild a module, or None if its class is not registered.

    Options that the slot takes from other parts are ``inherited`` unless they are set.
    """
    if slot == "visual_embedding":
        return _changed_options(module.config, inherited) if type(module) is VisualEmbedding else None
    name = REGISTRIES[slot].name_of(type(module))
    if name is None or slot == "decoder":  # a decoder has saved_options
        return name if name is None else {"name": name}
    config = getattr(module, "config", None)
    return {"name": name, **_changed_options(config, inherited)} if dataclasses.is_dataclass(config) else None


def _changed_options(config: Any, inherited: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a config that differ from their inherited or default values, as JSON has them."""
    values = json.loads(json.dumps(dataclasses.asdict(config), default=os.fspath))
    defaults = {field.name: _default_of(field) for field in dataclasses.fields(config)} | dict(inherited)
    return {name: value for name, value in values.items() if getattr(config, name) != defaults[name]}


def _default_of(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
