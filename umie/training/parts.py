"""Which weights learn: freezing parts by name, and adapters of peft inside the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from umie.errors import UmieError, UnknownNameError
from umie.model import UmieModel

GROUPS: Mapping[str, tuple[str, ...]] = {
    "text": ("decoder.",),  # the language model: text encoder and text decoder
    "visual": ("encoder.", "visual_embedding."),
    "fusion": ("fusion.",),
}


def freeze(model: UmieModel, names: Sequence[str]) -> int:
    """Keep parts from learning.

    Args:
        model: any variant.
        names: groups (``text``: the whole language model, ``visual``: encoder and visual embedding, ``fusion``), or
            prefixes of parameter names such as ``decoder.seq2seq.encoder``.

    Returns:
        How many values are frozen by it.

    Raises:
        UmieError: a prefix that no parameter begins with, or nothing is left to train.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    frozen = 0
    for name in names:
        prefixes = GROUPS.get(name, (name,))
        found = [parameter for key, parameter in parameters.items() if key.startswith(prefixes)]
        if not found and name not in GROUPS:  # a fusion of text alone has no visual part
            raise UnknownNameError("part to freeze", name, [*GROUPS, *_prefixes(parameters)])
        for parameter in found:
            if parameter.requires_grad:
                frozen += parameter.numel()
                parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise UmieError(f"freeze is {list(names)!r}: nothing is left to train; leave one part out of it")
    return frozen


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter inside a model's language model.

    Args:
        model: the model that holds it.
        config: of peft.
    """

    model: UmieModel
    config: Any

    def merged(self) -> UmieModel:
        """Return a copy of the model with the adapter added into its weights: a plain variant."""
        import copy

        from peft.tuners.tuners_utils import BaseTunerLayer

        model = copy.deepcopy(self.model)
        for name, layer in list(model.decoder.named_modules()):
            if isinstance(layer, BaseTunerLayer):
                layer.merge()
                parent, _, child = name.rpartition(".")
                setattr(model.decoder.get_submodule(parent), child, layer.get_base_layer())
        return model

    def state_dict(self) -> dict[str, Any]:
        """Return the adapter's own weights, under the names that peft saves them by."""
        from peft import get_peft_model_state_dict

        state: dict[str, Any] = get_peft_model_state_dict(self.model.decoder)
        return state


def adapt(model: UmieModel, options: Mapping[str, Any]) -> LoadedAdapter:
    """Put an adapter of peft into the language model, whose own weights are then frozen.

    Args:
        model: any variant; its other parts learn as before.
        options: ``type``, e.g. ``lora`` or ``ia3``, and the options of peft's config of that type, e.g. ``r`` and
            ``target_modules``; without ``target_modules`` peft's own choice for the family.

    Raises:
        UmieError: an unknown type or option, modules that are not there.
        ImportError: peft is not installed.
    """
    try:
        import peft
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    except ImportError as error:
        raise ImportError("adapters need peft: pip install 'umie[peft]'") from error
    given = dict(options)
    kind = str(given.pop("type", "lora")).upper()
    known = {str(name.value): config for name, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if kind not in known:
        raise UnknownNameError("adapter type", kind.lower(), sorted(name.lower() for name in known))
    try:
        config = known[kind](**given)
        if getattr(config, "target_modules", None) is None and "target_modules" not in given:
            config.target_modules = _default_targets(model, kind)
        peft.inject_adapter_in_model(config, model.decoder)
    except (TypeError, ValueError) as error:
        raise UmieError(f"adapter: {' '.join(str(error).split())}") from error
    return LoadedAdapter(model, config)


def _default_targets(model: UmieModel, kind: str) -> Any:
    """Return the modules that peft adapts by default in a model of this family."""
    from peft.utils import constants

    tables = {"LORA": "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"}
    tables["IA3"] = "TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING"
    table = getattr(constants, tables.get(kind, tables["LORA"]))
    family = next(
        (
            config.model_type
            for module in model.decoder.modules()
            if (config := getattr(module, "config", None)) is not None and getattr(config, "model_type", None) in table
        ),
        None,
    )
    if family is None:
        linear = sorted(
            {name.rpartition(".")[2] for name, part in model.decoder.named_modules() if isinstance(part, nn.Linear)}
        )
        raise UmieError(
            f"adapter: give target_modules; the language model's linear layers are called {', '.join(linear)}"
        )
    return list(table[family])


def _prefixes(names: Mapping[str, Any]) -> list[str]:
    return sorted({".".join(name.split(".")[:3]) for name in names})
