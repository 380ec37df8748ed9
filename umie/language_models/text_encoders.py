"""Text encoders of transformers by configuration: BERT, DeBERTa, ModernBERT, XLM-R, or the encoder of a T5 or BART."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, AutoModel, MT5EncoderModel, T5EncoderModel

from umie.checkpoints import check_config
from umie.errors import check_keys
from umie.language_models.seq2seq import config_values, is_seq2seq, pretrained
from umie.language_models.sources import check_complete, read_config
from umie.language_models.t5 import T5_FAMILY, t5_config


def values_of(source: str, checkpoint: str) -> dict[str, Any]:
    """Return the configuration of a checkpoint; see ``umie.language_models.sources.read_config``."""
    return config_values(read_config(source, checkpoint))


def shape(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> Any:
    """Return an encoder of this configuration with random weights.

    Raises:
        UmieError: an override is not an option of the configuration, or a value cannot be meant.
        Exception: an error of transformers, if no model has these values.
    """
    check_keys("option in decoder.overrides:", overrides, values)
    values = {**values, **overrides}
    check_config(values)
    if values.get("model_type") in T5_FAMILY:
        config = t5_config(**values)
        return (MT5EncoderModel if config.model_type == "mt5" else T5EncoderModel)(config)
    return _encoder(AutoModel.from_config(AutoConfig.for_model(**values), trust_remote_code=False))


def load(model: Any, source: str, checkpoint: str) -> Any:
    """Return the encoder with the weights of a checkpoint, in float32. Only safetensors are read.

    Raises:
        UmieError: the checkpoint cannot be read, or is missing weights.
    """
    is_half = is_seq2seq(model.config) and model.config.model_type not in T5_FAMILY
    for kind in (AutoModel, type(model)) if is_half else (type(model),):  # a whole BART, or only its saved encoder
        loaded, missing = pretrained(kind, source, checkpoint, model.config)
        tied = getattr(loaded, "all_tied_weights_keys", None) or {}
        missing = {name for name in missing if name not in tied and "pooler." not in name}
        if is_half and kind is AutoModel:
            missing = {name for name in missing if name.startswith("encoder.")}
        if not missing:
            break
    check_complete(source, missing)
    return _encoder(loaded)


def _encoder(model: Any) -> Any:
    """Return the encoder of a model, without the pooler, which nothing would train."""
    if is_seq2seq(model.config) and hasattr(model, "decoder"):
        model = model.get_encoder()
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model
