"""`t5`: T5-family models of transformers, from a preset, a local folder or a hub name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedConfig,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutput

from umie.decoders import registry
from umie.decoders.base import Decoder, DecoderConfig, DecoderOutput
from umie.decoders.generation import generate
from umie.decoders.sources import check_source, located
from umie.decoders.t5_steps import T5Steps
from umie.errors import UmieError, check_keys
from umie.types import FusedStates

_FLAN = {"vocab_size": 32128, "feed_forward_proj": "gated-gelu", "dropout_rate": 0.1}
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "vocab_size": 1024, "d_model": 96, "d_kv": 24, "d_ff": 192, "num_layers": 2, "num_heads": 4,
        "relative_attention_max_distance": 64, "feed_forward_proj": "gated-gelu", "dropout_rate": 0.0,
        "tie_word_embeddings": True,
    },
    "flan-t5-small": {**_FLAN, "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_heads": 6},
    "flan-t5-base": {**_FLAN, "d_model": 768, "d_kv": 64, "d_ff": 2048, "num_layers": 12, "num_heads": 12},
    "flan-t5-large": {**_FLAN, "d_model": 1024, "d_kv": 64, "d_ff": 2816, "num_layers": 24, "num_heads": 16},
    "flan-t5-xl": {**_FLAN, "d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_layers": 24, "num_heads": 32},
}  # fmt: skip


class _UntiedHead:
    """Keeps the output head apart from the embedding, which T5 v1.1, FLAN-T5 and mT5 do not share.

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
            # transformers draws the head with std 1, as for a head whose input is scaled down; ours is not.
            nn.init.normal_(self.lm_head.weight, std=self.config.d_model**-0.5)
        else:
            super()._init_weights(module)  # type: ignore[misc] # a mixin: the method is the T5 base's


class UntiedT5(_UntiedHead, T5ForConditionalGeneration):
    """T5 v1.1 and FLAN-T5: logits are not scaled, the head is its own matrix."""


class UntiedMT5(_UntiedHead, MT5ForConditionalGeneration):
    """MT5: as T5 v1.1."""


@dataclass(frozen=True, kw_only=True)
class T5DecoderConfig(DecoderConfig):
    """Where the T5 comes from.

    Args:
        source: a preset (random weights in the shape of its name), a local checkpoint folder,
            ``package:NAME`` (the checkpoint inside an installed package), or a hub name.
        config: the full transformers configuration, in place of the source's; saved models carry it.
        overrides: single values to change in it, e.g. ``{"dropout_rate": 0.0}``.
    """

    source: str = "tiny"
    config: Mapping[str, Any] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.source, str):
            raise UmieError(f"source is {self.source!r}: give a preset, a folder or a hub name")
        if not isinstance(self.overrides, Mapping):
            raise UmieError(f"overrides is {self.overrides!r}: give a mapping of T5 options")


@registry.register("t5")
class T5Decoder(Decoder):
    """An unchanged T5: its encoder gives the text states, its decoder attends over the fused ones."""

    Config = T5DecoderConfig

    def __init__(self, config: T5DecoderConfig) -> None:
        super().__init__()
        self.config = config
        chosen = _chosen_config(config)
        try:
            self.seq2seq: T5ForConditionalGeneration = t5_shape(chosen)
        except (RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UmieError(f"decoder {config.source!r}: no T5 has this shape: {reason}") from error

    @property
    def all_tied_weights_keys(self) -> dict[str, str]:
        """The tied weights, under the names that transformers looks for in a model that holds this one."""
        keys = self.seq2seq.all_tied_weights_keys
        return {f"seq2seq.{name}": f"seq2seq.{target}" for name, target in keys.items()}

    @property
    def widths(self) -> Mapping[str, int]:
        """``d_model``, ``num_heads``, ``head_dim`` and ``d_ff``."""
        config = self.seq2seq.config
        return {
            "d_model": config.d_model,
            "num_heads": config.num_heads,
            "head_dim": config.d_kv,
            "d_ff": config.d_ff,
        }

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        size: int = self.seq2seq.config.vocab_size
        return size

    @classmethod
    def checkpoint(cls, source: str) -> str | None:
        """Return where a source's checkpoint lies; a preset has none."""
        if source in PRESETS:
            return None
        check_source(source, [*PRESETS, "a checkpoint folder", "a hub name such as google/flan-t5-base"])
        return located(source)

    def saved_options(self) -> dict[str, Any]:
        """Return the source, for the record, and the full configuration."""
        return {"source": self.config.source, "config": t5_values(self.seq2seq.config)}

    def load_weights(self) -> None:
        """Load the checkpoint of the source; a preset has none.

        Raises:
            UmieError: the checkpoint cannot be read, or leaves weights unset.
        """
        checkpoint = self.checkpoint(self.config.source)
        if checkpoint is not None:
            self.seq2seq = load_t5(self.seq2seq, self.config.source, checkpoint)

    def save_checkpoint(self, folder: str | Path) -> None:
        """Write a checkpoint folder in transformers' layout."""
        self.seq2seq.save_pretrained(folder)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the encoder's last states ``[B, T, D]``."""
        states: Tensor = self.seq2seq.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return states

    def forward(
        self, fused: FusedStates, labels: Tensor | None = None, decoder_input_ids: Tensor | None = None
    ) -> DecoderOutput:
        """Decode with teacher forcing; see the contract."""
        output = self.seq2seq(
            encoder_outputs=BaseModelOutput(last_hidden_state=fused.states),
            attention_mask=fused.mask.long(),
            labels=labels,
            decoder_input_ids=decoder_input_ids,
        )
        return DecoderOutput(output.loss, output.logits)

    def generate(self, fused: FusedStates, constraint: Any = None, *, jump_forward: bool = True, **options: Any) -> Any:
        """Generate token ids with transformers' ``generate``: greedy, beams, sampling; see the contract."""
        return generate(self.seq2seq, fused, constraint, make_steps=T5Steps if jump_forward else None, **options)


def load_t5(
    shape: T5ForConditionalGeneration, source: str, checkpoint: str, **options: Any
) -> T5ForConditionalGeneration:
    """Return a model of the T5 family with the weights of a checkpoint, in float32.

    Args:
        shape: a model from ``t5_shape``.
        source: what errors call the checkpoint.
        checkpoint: its folder or hub name.
        options: for transformers' from_pretrained.

    Raises:
        UmieError: the checkpoint cannot be read, or leaves weights unset.
    """
    try:
        seq2seq, info = type(shape).from_pretrained(
            checkpoint, config=shape.config, dtype=torch.float32, output_loading_info=True, **options
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise UmieError(f"decoder source {source!r}: cannot load its weights: {error}") from error
    missing = set(info["missing_keys"]) - set(seq2seq.all_tied_weights_keys)
    if missing == {"lm_head.weight"}:  # saved while tied: the head is the embedding
        seq2seq.lm_head.weight.data.copy_(seq2seq.shared.weight.data)
    elif missing:
        raise UmieError(
            f"decoder source {source!r}: the checkpoint lacks {len(missing)} weights, e.g. {sorted(missing)[0]}"
        )
    return seq2seq


def _chosen_config(options: T5DecoderConfig) -> T5Config | MT5Config:
    values = dict(options.config) if options.config is not None else _source_values(options.source)
    check_keys("T5 option", options.overrides, values)
    values.update(options.overrides)
    if "num_layers" in options.overrides and "num_decoder_layers" not in options.overrides:
        values["num_decoder_layers"] = values["num_layers"]  # transformers' generate counts on both alike
    try:
        return t5_config(**values)
    except Exception as error:  # transformers validates with classes of its own
        raise UmieError(f"decoder {options.source!r}: {' '.join(str(error).split())}") from error


def t5_config(model_type: str = "t5", tie_word_embeddings: bool = False, **values: Any) -> T5Config | MT5Config:
    """Return transformers' configuration from values as ``t5_values`` gives them."""
    if model_type == "mt5":
        return MT5Config(**values)
    # What transformers reads as "T5 v1.1: do not scale the logits"; see _UntiedHead.
    tied = bool(tie_word_embeddings)
    return T5Config(**{"decoder_start_token_id": 0, **values}, tie_word_embeddings=tied)


def _source_values(source: str) -> dict[str, Any]:
    if source in PRESETS:
        return t5_values(T5Config(**{"tie_word_embeddings": False, "decoder_start_token_id": 0, **PRESETS[source]}))
    try:
        config = AutoConfig.from_pretrained(T5Decoder.checkpoint(source))
    except (OSError, ValueError) as error:
        raise UmieError(
            f"decoder {source!r} is no checkpoint folder or hub name that can be read: {str(error).splitlines()[0]}"
        ) from error
    if config.model_type not in ("t5", "mt5"):
        raise UmieError(
            f"decoder {source!r} is a {config.model_type!r} checkpoint, not of the T5 family: name the decoder seq2seq"
        )
    return t5_values(config)


def t5_values(config: PreTrainedConfig) -> dict[str, Any]:
    """Return the configuration with ``tie_word_embeddings`` as it is in truth."""
    values = config.to_dict()
    scaled = values.pop("scale_decoder_outputs", False)
    for name in ("transformers_version", "architectures", "_name_or_path", "dtype"):
        values.pop(name, None)
    return {**values, "tie_word_embeddings": bool(scaled)}


def t5_shape(config: T5Config | MT5Config) -> T5ForConditionalGeneration:
    """Return a model of the T5 family with random weights, whose head is tied where its configuration says so."""
    if isinstance(config, MT5Config):
        return UntiedMT5(config)
    return T5ForConditionalGeneration(config) if config.scale_decoder_outputs else UntiedT5(config)
