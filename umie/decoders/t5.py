"""`t5`: T5-family models of transformers, from a preset, a local directory or a hub name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import T5Config, T5ForConditionalGeneration

from umie.decoders import registry
from umie.decoders.language_model import LanguageModelDecoder
from umie.decoders.pretrained import PretrainedConfig
from umie.errors import UmieError, check_keys
from umie.language_models.sources import read_config
from umie.language_models.t5 import T5_FAMILY, load_t5, stored_values, t5_config, t5_shape, t5_values

_FLAN = {"vocab_size": 32128, "feed_forward_proj": "gated-gelu", "dropout_rate": 0.1}


@dataclass(frozen=True, kw_only=True)
class T5DecoderConfig(PretrainedConfig):
    """Where the T5 comes from.

    Args:
        source: a preset (random weights in the named shape), a local checkpoint directory, ``package:NAME`` (the
            checkpoint inside an installed package), or a hub name.
        config: the full transformers configuration, used instead of the source's; saved models contain it.
        overrides: single values to change in the configuration, e.g. ``{"dropout_rate": 0.0}``.
    """


@registry.register("t5")
class T5Decoder(LanguageModelDecoder):
    """An unchanged T5: its encoder returns the text states, its decoder attends over the fused states."""

    Config = T5DecoderConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
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
    example = "google/flan-t5-base"

    def _build(self) -> T5ForConditionalGeneration:
        options = self.config
        values = dict(self._values() if options.config is None else options.config)
        check_keys("option in decoder.overrides:", options.overrides, values)
        values.update(options.overrides)
        if "num_layers" in options.overrides and "num_decoder_layers" not in options.overrides:
            values["num_decoder_layers"] = values["num_layers"]  # transformers' generate expects them to be equal
        return t5_shape(t5_config(**values))

    def _load(self, checkpoint: str) -> T5ForConditionalGeneration:
        return load_t5(self.seq2seq, self.config.source, checkpoint)

    def _values(self) -> Mapping[str, Any]:
        source = self.config.source
        checkpoint = self.checkpoint(source)
        if checkpoint is None:
            defaults = {"tie_word_embeddings": False, "decoder_start_token_id": 0}
            return t5_values(T5Config(**{**defaults, **self.PRESETS[source]}))
        config = read_config(source, checkpoint)
        if config.model_type not in T5_FAMILY:
            raise UmieError(
                f"decoder {source!r} is a {config.model_type!r} checkpoint, not of the T5 family: use the decoder "
                "seq2seq"
            )
        return stored_values(config, source, checkpoint)
