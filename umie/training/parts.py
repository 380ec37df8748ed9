"""Which weights are trained: freezing parameters by name, and peft adapters in the language model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from umie.errors import UmieError, UnknownNameError, import_extra
from umie.model import UmieModel

GROUPS: Mapping[str, tuple[str, ...]] = {
    "text": ("decoder.",),  # the language model: text encoder and text decoder
    "visual": ("encoder.", "visual_embedding."),
    "fusion": ("fusion.",),
}


def freeze(model: UmieModel, names: Sequence[str], *, allow_all: bool = False) -> None:
    """Exclude parameters from training.

    Args:
        model: any variant.
        names: groups (``text``: the language model, ``visual``: encoder and visual embedding, ``fusion``), or
            prefixes of parameter names such as ``decoder.seq2seq.encoder``.
        allow_all: whether all parameters may be frozen, e.g. because an adapter will be trained.

    Raises:
        UmieError: no parameter starts with a prefix, or no parameter is left to train.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in names:
        prefixes = GROUPS.get(name, (name,))
        if name == "text":  # not a head that was added to the language model, such as that of `span`
            prefixes = (f"decoder.{getattr(model.decoder, 'attribute', '')}",)
        found = [parameter for key, parameter in parameters.items() if key.startswith(prefixes)]
        if not found and name not in GROUPS:  # e.g. text_only has no visual parts
            known = {".".join(key.split(".")[:3]) for key in parameters}
            raise UnknownNameError("part to freeze", name, [*GROUPS, *known])
        for parameter in found:
            parameter.requires_grad_(False)
    if not allow_all and not any(parameter.requires_grad for parameter in parameters.values()):
        raise UmieError(f"freeze is {list(names)!r}: nothing is left to train; remove one of them")


def adapt(model: UmieModel, options: Mapping[str, Any]) -> None:
    """Insert a peft adapter into the language model and freeze the weights of the language model.

    Args:
        model: any variant; its other parts stay trainable.
        options: ``type``, e.g. ``lora`` or ``ia3``, and options of the peft config of that type, e.g. ``r`` and
            ``target_modules``. Without ``target_modules``, peft chooses them by model family.

    Raises:
        UmieError: an unknown type or option, target modules that do not exist, or peft is not installed.
    """
    peft = import_extra("peft", "peft", "an adapter")
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    given = dict(options)
    kind = str(given.pop("type", "lora")).upper()
    known = {str(name.value): config for name, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if kind not in known:
        raise UnknownNameError("adapter type", kind.lower(), sorted(name.lower() for name in known))
    language_model = _language_model(model)
    try:
        peft.inject_adapter_in_model(known[kind](**given), language_model)
    except (TypeError, ValueError) as error:
        layers = {
            name.rpartition(".")[2] for name, part in language_model.named_modules() if isinstance(part, nn.Linear)
        }
        raise UmieError(
            f"adapter: {' '.join(str(error).split())} (the language model's linear layers: {', '.join(sorted(layers))})"
        ) from error


def has_adapter(model: UmieModel) -> bool:
    """Return whether the language model has an adapter."""
    return getattr(_language_model(model), "peft_config", None) is not None


def merged(model: UmieModel) -> UmieModel:
    """Return a copy of the model with the adapter merged into the weights."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = copy.deepcopy(model)
    language_model = _language_model(model)
    for name, layer in list(language_model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(language_model.get_submodule(parent), child, layer.get_base_layer())
    del language_model.peft_config
    return model


def save_adapter(model: UmieModel, folder: Path) -> None:
    """Save only the adapter, in the layout of peft."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    language_model = _language_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    next(iter(language_model.peft_config.values())).save_pretrained(str(folder))
    state = get_peft_model_state_dict(language_model)
    weights = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    save_file(weights, folder / "adapter_model.safetensors")  # the name that peft uses


def _language_model(model: UmieModel) -> PreTrainedModel:
    """Return the transformers model inside the decoder."""
    return next(part for part in model.decoder.modules() if isinstance(part, PreTrainedModel))
