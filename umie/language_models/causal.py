"""Causal language models of transformers by configuration: Llama, Qwen, GPT-2, SmolLM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from umie.checkpoints import check_config
from umie.errors import UmieError, check_keys
from umie.language_models.seq2seq import config_values, is_seq2seq, pretrained
from umie.language_models.sources import check_complete, read_config


def values_of(source: str, checkpoint: str) -> dict[str, Any]:
    """Return the configuration of a checkpoint.

    Raises:
        UmieError: it cannot be read, or is not one of a causal language model.
    """
    config = read_config(source, checkpoint)
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or is_seq2seq(config):
        decoder = "seq2seq" if is_seq2seq(config) else "span"
        raise UmieError(
            f"decoder {source!r} is a {config.model_type!r} checkpoint, not a causal language model: use the decoder "
            f"{decoder}"
        )
    return config_values(config)


def shape(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> Any:
    """Return a model of this configuration with random weights, and with plain generation options.

    Raises:
        UmieError: an override is not an option of the configuration, or a value cannot be meant.
        Exception: an error of transformers, if no model has these values.
    """
    values = dict(values)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    check_keys("option of the language model:", overrides, config.to_dict())
    for name, value in overrides.items():
        setattr(config, name, value)
    check_config(config.to_dict())
    model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    _plain_generation(model)
    return model


def load(model: Any, source: str, checkpoint: str) -> Any:
    """Return the model with the weights of a checkpoint, in float32. Only safetensors are read.

    Raises:
        UmieError: the checkpoint cannot be read, or is missing weights.
    """
    loaded, missing = pretrained(type(model), source, checkpoint, model.config)
    check_complete(source, missing - set(loaded.all_tied_weights_keys))
    _plain_generation(loaded)
    return loaded


def _plain_generation(model: Any) -> None:
    """Drop the checkpoint's own generation options, such as sampling, which belong to conversations."""
    end = model.config.eos_token_id
    pad = model.config.pad_token_id
    first_end = end[0] if isinstance(end, list) else end
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=first_end if pad is None else pad)
