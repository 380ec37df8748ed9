"""transformers' T5 and mT5 by configuration: shapes and weights, with the output head tied or untied as published."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedConfig,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.utils import SAFE_WEIGHTS_NAME, cached_file

from umie.checkpoints import check_config, local_only
from umie.errors import UmieError
from umie.language_models.sources import check_complete, check_layers
from umie.weights import check_finite, reason_of

T5_FAMILY = ("t5", "mt5")


class _UntiedHead:
    """Keeps the output head separate from the embedding, as in T5 v1.1, FLAN-T5 and mT5.

    transformers 5 forces ``tie_word_embeddings`` to True for the family and would tie the head as well.
    """

    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    }
    config: PreTrainedConfig
    lm_head: nn.Linear

    def _init_weights(self, module: nn.Module) -> None:
        if module is getattr(self, "lm_head", None):
            # transformers draws the head with std 1, which assumes that its input is scaled down; here it is not
            nn.init.normal_(self.lm_head.weight, std=self.config.d_model**-0.5)
        else:
            super()._init_weights(module)  # type: ignore[misc] # a mixin: the method is the T5 base's


class UntiedT5(_UntiedHead, T5ForConditionalGeneration):
    """T5 v1.1 and FLAN-T5: logits are not scaled, the head is a separate matrix."""


class UntiedMT5(_UntiedHead, MT5ForConditionalGeneration):
    """mT5: like T5 v1.1."""


def t5_config(model_type: str = "t5", tie_word_embeddings: bool = False, **values: Any) -> T5Config | MT5Config:
    """Return transformers' configuration from values as returned by ``t5_values``.

    Raises:
        UmieError: a value cannot be meant, such as a million layers.
    """
    check_config(values)
    if model_type == "mt5":
        return MT5Config(**values)
    # transformers reads False as "T5 v1.1: do not scale the logits"; see _UntiedHead.
    tied = bool(tie_word_embeddings)
    return T5Config(**{"decoder_start_token_id": 0, **values}, tie_word_embeddings=tied)


def t5_values(config: PreTrainedConfig) -> dict[str, Any]:
    """Return the configuration with the true value of ``tie_word_embeddings``."""
    values = config.to_dict()
    scaled = values.pop("scale_decoder_outputs", False)
    for name in ("transformers_version", "architectures", "_name_or_path", "dtype"):
        values.pop(name, None)
    return {**values, "tie_word_embeddings": bool(scaled)}


def stored_values(config: PreTrainedConfig, source: str, checkpoint: str) -> dict[str, Any]:
    """Return ``t5_values`` of a checkpoint, whose head is untied if it differs from the embedding.

    transformers writes configurations with ``scale_decoder_outputs: true`` for such models, too, whose logits would
    then be scaled. A warning says so.
    """
    values = t5_values(config)
    if config.model_type == "t5" and values["tie_word_embeddings"] and has_own_head(checkpoint):
        warnings.warn(
            f"{source}: its output head differs from its embedding, so the logits are not scaled, although its "
            "configuration says so: set scale_decoder_outputs to false there",
            stacklevel=2,
        )
        values["tie_word_embeddings"] = False
    return values


def t5_shape(config: T5Config | MT5Config) -> T5ForConditionalGeneration:
    """Return a model of the T5 family with random weights, whose head is tied if its configuration says so."""
    if isinstance(config, MT5Config):
        return UntiedMT5(config)
    return T5ForConditionalGeneration(config) if config.scale_decoder_outputs else UntiedT5(config)


def load_t5(
    shape: T5ForConditionalGeneration, source: str, checkpoint: str, **options: Any
) -> T5ForConditionalGeneration:
    """Return a model from ``t5_shape`` with the weights of a checkpoint, in float32; options are for from_pretrained.

    Raises:
        UmieError: the checkpoint cannot be read, is missing weights, or has another head than the shape.
    """
    if type(shape) is T5ForConditionalGeneration and has_own_head(checkpoint):
        raise UmieError(
            f"language model {source!r}: its output head differs from its embedding, so its logits must not be scaled: "
            "set overrides: {tie_word_embeddings: false}"
        )
    try:
        with local_only(checkpoint):
            seq2seq, info = type(shape).from_pretrained(
                checkpoint,
                config=shape.config,
                dtype=torch.float32,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # a damaged checkpoint makes transformers raise nearly anything
        raise UmieError(f"language model {source!r}: cannot load its weights: {reason_of(error)}") from error
    check_layers(source, checkpoint, info["unexpected_keys"], seq2seq)
    check_finite(seq2seq, f"language model {source!r}")
    for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id"):  # a generation_config.json may lack them
        if getattr(seq2seq.generation_config, name, None) is None:
            setattr(seq2seq.generation_config, name, getattr(seq2seq.config, name))
    missing = set(info["missing_keys"]) - set(seq2seq.all_tied_weights_keys)
    if missing == {"lm_head.weight"}:  # saved while tied: the head equals the embedding
        seq2seq.lm_head.weight.data.copy_(seq2seq.shared.weight.data)
    else:
        check_complete(source, missing)
    return seq2seq


def has_own_head(checkpoint: str) -> bool:
    """Return whether the safetensors of a checkpoint contain an output head that differs from the embedding."""
    found: dict[str, torch.Tensor] = {}
    try:
        folder = Path(checkpoint)
        one = None if folder.is_dir() else cached_file(checkpoint, SAFE_WEIGHTS_NAME, local_files_only=True)
        for path in sorted(folder.glob("*.safetensors")) if one is None else [one]:
            with safe_open(path, "pt") as file:
                for name in {"lm_head.weight", "shared.weight"} & set(file.keys()):
                    found[name] = file.get_tensor(name)
    except (OSError, SafetensorError):  # from_pretrained reports it
        return False
    return len(found) == 2 and not torch.equal(*found.values())
