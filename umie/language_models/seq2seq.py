"""transformers' encoder-decoder models by configuration: shapes, weights, and warm starts from an encoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    PreTrainedConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

from umie.checkpoints import check_config, local_only
from umie.errors import UmieError, check_keys
from umie.language_models.sources import check_complete, check_layers, load_tokenizer, no_warnings, read_config
from umie.language_models.t5 import T5_FAMILY, load_t5, stored_values, t5_config, t5_shape, t5_values
from umie.weights import check_finite, reason_of

PAIRED = "encoder-decoder"
_NOT_SHAPE = (
    "transformers_version", "architectures", "_name_or_path", "dtype", "id2label", "label2id", "problem_type",
)  # fmt: skip


def source_values(source: str, checkpoint: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a checkpoint, or of the pair that an encoder's checkpoint initializes.

    Token ids in ``overrides`` replace those of an encoder's tokenizer.

    Raises:
        UmieError: the configuration cannot be read, or does not say how answers begin and end.
    """
    config = read_config(source, checkpoint)
    if config.model_type in T5_FAMILY:
        return stored_values(config, source, checkpoint)
    if is_seq2seq(config):
        return config_values(config)
    half = config_values(config)
    return {
        "model_type": PAIRED,
        "is_encoder_decoder": True,
        "encoder": {**half, "is_decoder": False, "add_cross_attention": False},
        "decoder": {**half, "is_decoder": True, "add_cross_attention": True},
        **_token_ids(source, checkpoint, config, overrides),
    }


def merged(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return configuration values with overrides applied; a mapping overrides single values of a half."""
    check_keys("option in decoder.overrides:", overrides, values)
    changed = dict(values)
    for name, value in overrides.items():
        if isinstance(values[name], Mapping) and isinstance(value, Mapping):
            check_keys(f"option in decoder.overrides.{name}:", value, values[name])
            value = {**values[name], **value}
        changed[name] = value
    return changed


def shape(values: Mapping[str, Any]) -> Any:
    """Return a model of this configuration with random weights.

    Its generation options are the defaults: a checkpoint's own (beams, forced tokens, no repeated n-grams, lengths)
    belong to another task, such as summarization, and would corrupt answers that repeat labels.

    Raises:
        UmieError: a value cannot be meant, such as a million layers.
        Exception: an error of transformers, if no model has these values.
    """
    check_config(values)
    if values.get("model_type") in T5_FAMILY:
        model = t5_shape(t5_config(**values))
    else:
        # a copy: the configuration of a pair removes `model_type` from the mappings of its halves
        config = AutoConfig.for_model(**deepcopy(dict(values)))
        model = AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=False)
        _drop_pooler(model)
    _plain_generation(model)
    return model


def load(model: Any, source: str, checkpoint: str) -> Any:
    """Return the model with the weights of a checkpoint, in float32. An encoder initializes both halves of a pair.

    Only safetensors are read. In a warm-started decoder, the cross-attention and a head that is missing from the
    checkpoint keep their random weights.

    Raises:
        UmieError: the checkpoint cannot be read, or is missing weights.
    """
    if model.config.model_type in T5_FAMILY:
        loaded = load_t5(model, source, checkpoint, use_safetensors=True)
    elif is_seq2seq(read_config(source, checkpoint)):
        loaded, missing = pretrained(type(model), source, checkpoint, model.config)
        check_complete(source, {name for name in missing - set(loaded.all_tied_weights_keys) if ".pooler." not in name})
        _drop_pooler(loaded)
    else:
        _start_halves(model, source, checkpoint)
        return model
    _plain_generation(loaded)
    return loaded


def is_seq2seq(config: PreTrainedConfig) -> bool:
    """Return whether a configuration describes a whole encoder-decoder model."""
    return config.model_type in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES


def config_values(config: PreTrainedConfig) -> dict[str, Any]:
    """Return a configuration as plain values, without entries that do not affect the model's shape."""
    if config.model_type in T5_FAMILY:
        return t5_values(config)
    return _shape_values(config.to_dict())


def widths_of(model: Any) -> dict[str, int]:
    """Return ``d_model``, ``num_heads``, ``head_dim`` and ``d_ff`` of the encoder, whose states are fused.

    Raises:
        UmieError: the configuration is missing one of them.
    """
    config = model.config.encoder if model.config.model_type == PAIRED else model.config
    d_model = _first(config, "hidden_size", "d_model")
    num_heads = _first(config, "num_attention_heads", "encoder_attention_heads", "num_heads")
    return {
        "d_model": d_model,
        "num_heads": num_heads,
        "head_dim": getattr(config, "d_kv", None) or d_model // num_heads,
        "d_ff": _first(config, "encoder_ffn_dim", "d_ff", "intermediate_size", "hidden_dim", "ffn_dim"),
    }


def vocab_size_of(model: Any) -> int:
    """Return the number of tokens that both halves have rows for."""
    halves = _halves(model)
    return min(int(_first(config, "vocab_size")) for config, _ in halves)


def max_lengths_of(model: Any) -> tuple[int | None, int | None]:
    """Return the numbers of positions of encoder and decoder; None for relative positions, which have no limit."""
    encoder, decoder = (
        max_length(config, module, f"max_{half}_position_embeddings")
        for half, (config, module) in zip(("encoder", "decoder"), _halves(model), strict=True)
    )
    return encoder, decoder


def _halves(model: Any) -> Iterator[tuple[PreTrainedConfig, nn.Module]]:
    paired = model.config.model_type == PAIRED
    yield (model.config.encoder if paired else model.config), model.get_encoder()
    yield (model.config.decoder if paired else model.config), model.get_decoder()


def max_length(config: PreTrainedConfig, module: nn.Module, own: str) -> int | None:
    """Return the number of positions of an encoder or decoder; ``own`` is the option that overrides the common one."""
    limit = getattr(config, own, None) or getattr(config, "max_position_embeddings", None)
    if limit is None or config.model_type in T5_FAMILY:
        return None
    for name, part in module.named_modules():
        if name.endswith("position_embeddings") and getattr(part, "padding_idx", None) is not None:
            return int(limit) - int(part.padding_idx) - 1  # RoBERTa's first position is the padding's id + 1
    return int(limit)


def _first(config: PreTrainedConfig, *names: str) -> int:
    for name in names:
        if isinstance(getattr(config, name, None), int):
            return int(getattr(config, name))
    raise UmieError(f"the {config.model_type!r} configuration has none of {', '.join(names)}")


def _token_ids(
    source: str, checkpoint: str, config: PreTrainedConfig, overrides: Mapping[str, Any]
) -> dict[str, int | None]:
    """Return the token ids that a pair needs: the tokens around a text also begin and end an answer."""
    names = ("decoder_start_token_id", "eos_token_id", "pad_token_id")
    if all(overrides.get(name) is not None for name in names):
        return {name: overrides[name] for name in names}
    found: dict[str, int | None] = {
        "decoder_start_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    }  # fmt: skip
    try:
        tokenizer: Any = load_tokenizer("language model", source)
    except UmieError:
        tokenizer = None
    if tokenizer is not None:
        special = {
            "decoder_start_token_id": (tokenizer.cls_token_id, tokenizer.bos_token_id),
            "eos_token_id": (tokenizer.sep_token_id, tokenizer.eos_token_id),
            "pad_token_id": (tokenizer.pad_token_id,),
        }
        for name, choices in special.items():
            found[name] = next((choice for choice in choices if choice is not None), found[name])
    unknown = [name for name in names if found[name] is None and overrides.get(name) is None]
    if unknown:
        raise UmieError(
            f"language model {source!r}: neither its tokenizer nor its configuration has {', '.join(unknown)}: save a "
            "tokenizer there, or set them in overrides"
        )
    return found


def _start_halves(model: Any, source: str, checkpoint: str) -> None:
    """Copy an encoder's weights into both halves, as far as each half has the same weights."""
    encoder, missing = pretrained(AutoModel, source, checkpoint, model.config.encoder)
    check_complete(source, {name for name in missing if not name.startswith("pooler.")})
    names = set(encoder.state_dict())
    model.encoder.load_state_dict(encoder.state_dict(), strict=False)  # ignores the pooler
    with no_warnings():  # about weights that are new on purpose
        decoder, missing = pretrained(AutoModelForCausalLM, source, checkpoint, model.config.decoder)
    prefix = f"{decoder.base_model_prefix}."
    check_complete(source, {name for name in missing if name.removeprefix(prefix) in names})
    known = {name: value for name, value in decoder.state_dict().items() if name not in missing}
    model.decoder.load_state_dict(known, strict=False)


def pretrained(
    kind: Any, source: str, checkpoint: str, config: PreTrainedConfig, part: str = "language model"
) -> tuple[Any, set[str]]:
    """Return a model with a checkpoint's weights, and the names of the weights missing from the checkpoint.

    ``part`` is what it is for messages.
    """
    try:
        with local_only(checkpoint):
            model, info = kind.from_pretrained(
                checkpoint,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # a damaged checkpoint makes transformers raise nearly anything
        reason = reason_of(error)
        raise UmieError(f"{part} {source!r}: cannot load its weights (safetensors): {reason}") from error
    check_layers(source, checkpoint, info["unexpected_keys"], model, part)
    check_finite(model, f"{part} {source!r}")
    return model, set(info["missing_keys"])


def _drop_pooler(model: Any) -> None:
    """Remove the pooler, which reduces a text's states to one vector: nothing would use or train it."""
    encoder = model.get_encoder()
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None


def _plain_generation(model: Any) -> None:
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    ids = {name: getattr(model.config, name, None) for name in names}
    model.generation_config = GenerationConfig(**ids)


def _shape_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _shape_values(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if name not in _NOT_SHAPE
    }
