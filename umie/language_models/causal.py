"""Causal language models of transformers by configuration: Llama, Qwen, GPT-2, SmolLM."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedConfig
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
    _check_type(config)
    return config_values(config)


def shape(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> Any:
    """Return a model of this configuration with random weights, and with plain generation options.

    Raises:
        UmieError: an override is not an option of the configuration, a value cannot be meant, or models of this kind do
            not continue embeddings from left to right.
        Exception: an error of transformers, if no model has these values.
    """
    values = dict(values)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    check_keys("option of the language model:", overrides, config.to_dict())
    for name, value in overrides.items():
        setattr(config, name, value)
    check_config(config.to_dict())
    _check_type(config)
    if hasattr(config, "is_decoder"):
        config.is_decoder = True  # without it, BERT and its kin see the tokens that they are to predict
    with torch.device("meta"):
        _check_continues(AutoModelForCausalLM.from_config(config, trust_remote_code=False))
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


def end_tokens(config: PreTrainedConfig) -> tuple[int, ...]:
    """Return the tokens that end a text; some models have several."""
    end = config.eos_token_id
    return tuple(end) if isinstance(end, list | tuple) else () if end is None else (end,)


def _check_type(config: PreTrainedConfig) -> None:
    kind = config.model_type
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or is_seq2seq(config):
        decoder = "seq2seq" if is_seq2seq(config) else "span"
        raise UmieError(f"{kind!r} models are not causal language models: use the decoder {decoder}")


def _check_continues(model: Any) -> None:
    """Raise UmieError unless a model reads embeddings with masked padding on the left, at given positions."""
    needed = {
        model.forward: ("inputs_embeds", "attention_mask", "position_ids", "logits_to_keep"),
        model.prepare_inputs_for_generation: ("inputs_embeds",),
    }
    for function, names in needed.items():
        known = inspect.signature(function).parameters
        missing = [name for name in names if name not in known]
        if missing:
            raise UmieError(
                f"{model.config.model_type!r} models cannot continue fused states (they take no {missing[0]}): use a "
                "model such as Llama, Qwen or GPT-2"
            )


def _plain_generation(model: Any) -> None:
    """Drop the checkpoint's own generation options, such as sampling, which belong to conversations."""
    ends, pad = end_tokens(model.config), model.config.pad_token_id
    if pad is None or not 0 <= pad < model.config.vocab_size:
        pad = ends[0] if ends else None
    model.generation_config = GenerationConfig(eos_token_id=list(ends) or None, pad_token_id=pad)
