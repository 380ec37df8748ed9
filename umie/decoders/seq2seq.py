"""`seq2seq`: any encoder-decoder of transformers (BART, mT5, Pegasus), or a pair warm-started from an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from umie.decoders import registry
from umie.decoders.language_model import LanguageModelDecoder
from umie.decoders.pretrained import PretrainedConfig
from umie.language_models import seq2seq as models


@dataclass(frozen=True, kw_only=True)
class Seq2SeqDecoderConfig(PretrainedConfig):
    """Where the model comes from.

    Args:
        source: a checkpoint directory, a hub name such as ``facebook/bart-base``, or ``package:NAME`` for the
            checkpoint inside an installed Python package. An encoder-decoder model is used as is. An encoder (BERT,
            RoBERTa, MiniLM) initializes both halves of a pair, and the decoder's cross-attention is new. ``tiny`` is
            a small BART with random weights.
        config: the full transformers configuration, used instead of the source's; saved models contain it.
        overrides: single values to change in the configuration, e.g. ``{"dropout": 0.0}``; for a warm-started pair by
            half, e.g. ``{"decoder": {"num_hidden_layers": 3}}``. An encoder without a tokenizer next to it needs
            ``decoder_start_token_id``, ``eos_token_id`` and ``pad_token_id`` here.
    """


@registry.register("seq2seq")
class Seq2SeqDecoder(LanguageModelDecoder):
    """Any encoder-decoder model of transformers: BART, mT5, Pegasus, or a pair warm-started from an encoder."""

    Config = Seq2SeqDecoderConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {  # a BART, with the token ids of umie.tokenization
            "model_type": "bart", "vocab_size": 1024, "d_model": 96, "encoder_layers": 2, "decoder_layers": 2,
            "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 192, "decoder_ffn_dim": 192,
            "max_position_embeddings": 512, "dropout": 0.0, "pad_token_id": 0, "bos_token_id": None,
            "eos_token_id": 1, "decoder_start_token_id": 0, "forced_eos_token_id": None, "init_std": 0.1,
        },
    }  # fmt: skip
    example = "facebook/bart-base"

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """The token that ends an answer."""
        end = self.seq2seq.config.eos_token_id
        return (end,) if isinstance(end, int) else ()

    def _build(self) -> Any:
        options = self.config
        checkpoint = self.checkpoint(options.source) if options.config is None else None
        if options.config is not None:
            values = dict(options.config)
        elif checkpoint is None:
            values = dict(self.PRESETS[options.source])
        else:
            values = models.source_values(options.source, checkpoint, options.overrides)
        return models.shape(models.merged(values, options.overrides))

    def _load(self, checkpoint: str) -> Any:
        return models.load(self.seq2seq, self.config.source, checkpoint)
