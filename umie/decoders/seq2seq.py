"""`seq2seq`: any encoder-decoder of transformers (BART, mT5, Pegasus), or a pair warm-started from an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutput

from umie.decoders import registry
from umie.decoders import seq2seq_models as models
from umie.decoders.base import Decoder, DecoderConfig, DecoderOutput
from umie.decoders.generation import generate, limit_of, resolved
from umie.decoders.sources import check_source, located
from umie.decoders.t5_steps import T5Steps
from umie.errors import UmieError
from umie.types import FusedStates

IGNORED = -100  # label of positions that the loss passes over
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {  # a BART, with the token ids of umie.tokenization
        "model_type": "bart", "vocab_size": 1024, "d_model": 96, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 192, "decoder_ffn_dim": 192,
        "max_position_embeddings": 512, "dropout": 0.0, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1,
        "decoder_start_token_id": 0, "forced_eos_token_id": None, "init_std": 0.1,
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Seq2SeqDecoderConfig(DecoderConfig):
    """Where the model comes from.

    Args:
        source: a checkpoint folder, a hub name such as ``facebook/bart-base``, or ``package:NAME`` for the checkpoint
            inside an installed Python package. Of an encoder-decoder model it is taken as it is. Of an encoder
            (BERT, RoBERTa, MiniLM) both halves start with its weights, and the decoder's cross-attention is new.
            ``tiny`` is a small BART with random weights.
        config: the full transformers configuration, in place of the source's; saved models carry it.
        overrides: single values to change in it, e.g. ``{"dropout": 0.0}``; of a warm-started pair by half, e.g.
            ``{"decoder": {"num_hidden_layers": 3}}``. Where no tokenizer lies beside an encoder, its
            ``decoder_start_token_id``, ``eos_token_id`` and ``pad_token_id`` are given here.
    """

    source: str = "tiny"
    config: Mapping[str, Any] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.source, str):
            raise UmieError(f"source is {self.source!r}: give a checkpoint folder, a hub name or package:NAME")
        if not isinstance(self.overrides, Mapping):
            raise UmieError(f"overrides is {self.overrides!r}: give a mapping of the model's options")


@registry.register("seq2seq")
class Seq2SeqDecoder(Decoder):
    """Any encoder-decoder model of transformers: BART, mT5, Pegasus, or a pair warm-started from an encoder."""

    Config = Seq2SeqDecoderConfig

    def __init__(self, config: Seq2SeqDecoderConfig) -> None:
        super().__init__()
        self.config = config
        checkpoint = self.checkpoint(config.source) if config.config is None else None
        if config.config is not None:
            values = dict(config.config)
        elif checkpoint is None:
            values = PRESETS[config.source]
        else:
            values = models.source_values(config.source, checkpoint, config.overrides)
        values = models.merged(values, config.overrides)
        try:
            self.seq2seq: Any = models.shape(values)
        except Exception as error:  # transformers validates with classes of its own
            reason = " ".join(str(error).split())
            raise UmieError(f"decoder {config.source!r}: no encoder-decoder has this shape: {reason}") from error
        if self.seq2seq.config.decoder_start_token_id is None:
            raise UmieError(
                f"decoder {config.source!r}: give overrides: decoder_start_token_id, which begins an answer"
            )

    @property
    def all_tied_weights_keys(self) -> dict[str, str]:
        """The tied weights, under the names that transformers looks for in a model that holds this one."""
        keys = self.seq2seq.all_tied_weights_keys
        return {f"seq2seq.{name}": f"seq2seq.{target}" for name, target in keys.items()}

    @property
    def widths(self) -> Mapping[str, int]:
        """``d_model``, ``num_heads``, ``head_dim`` and ``d_ff`` of the encoder."""
        return models.widths_of(self.seq2seq)

    @property
    def vocab_size(self) -> int:
        """Tokens that both halves have rows for."""
        return models.vocab_size_of(self.seq2seq)

    @property
    def end_token_id(self) -> int | None:
        """The token that ends an answer."""
        end = self.seq2seq.config.eos_token_id
        return int(end) if isinstance(end, int) else None

    @property
    def max_lengths(self) -> tuple[int | None, int | None]:
        """How many tokens a text and an answer may have."""
        return models.max_lengths_of(self.seq2seq)

    @classmethod
    def checkpoint(cls, source: str) -> str | None:
        """Return where a source's checkpoint lies; a preset has none."""
        if source in PRESETS:
            return None
        check_source(source, [*PRESETS, "a checkpoint folder", "a hub name such as facebook/bart-base", "package:NAME"])
        return located(source)

    def saved_options(self) -> dict[str, Any]:
        """Return the source, for the record, and the full configuration."""
        return {"source": self.config.source, "config": models.config_values(self.seq2seq.config)}

    def load_weights(self) -> None:
        """Load the checkpoint of the source, or start both halves from it; a preset has none.

        Raises:
            UmieError: the checkpoint cannot be read, or leaves weights unset that it should hold.
        """
        checkpoint = self.checkpoint(self.config.source)
        if checkpoint is not None:
            self.seq2seq = models.load(self.seq2seq, self.config.source, checkpoint)

    def save_checkpoint(self, folder: str | Path) -> None:
        """Write a checkpoint folder in transformers' layout."""
        self.seq2seq.save_pretrained(folder)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the encoder's last states ``[B, T, D]``.

        Raises:
            UmieError: the text is longer than the encoder has positions.
        """
        _check_length("a text", input_ids.shape[1], self.max_lengths[0], "max_input_tokens")
        encoder = self.seq2seq.get_encoder()
        states: Tensor = encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return states

    def forward(
        self, fused: FusedStates, labels: Tensor | None = None, decoder_input_ids: Tensor | None = None
    ) -> DecoderOutput:
        """Decode with teacher forcing; see the contract."""
        options: dict[str, Any] = {}
        if decoder_input_ids is None:
            if labels is None:
                raise UmieError("give labels or decoder_input_ids")
            decoder_input_ids = self._shifted(labels)
            if self.seq2seq.config.model_type == models.PAIRED:  # as transformers does where it shifts the labels
                options["decoder_attention_mask"] = (decoder_input_ids != self.seq2seq.config.pad_token_id).long()
        _check_length("an answer", decoder_input_ids.shape[1], self.max_lengths[1], "max_target_tokens")
        logits = self.seq2seq(
            encoder_outputs=BaseModelOutput(last_hidden_state=fused.states),
            attention_mask=fused.mask.long(),
            decoder_input_ids=decoder_input_ids,
            use_cache=False,
            **options,
        ).logits
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        return DecoderOutput(loss, logits)

    def generate(self, fused: FusedStates, constraint: Any = None, *, jump_forward: bool = True, **options: Any) -> Any:
        """Generate token ids with transformers' ``generate``: greedy, beams, sampling; see the contract.

        Raises:
            UmieError: more new tokens are allowed than the decoder has positions.
        """
        limit = limit_of(resolved(self.seq2seq.generation_config, options), options)
        if constraint is not None and limit is None:
            limit = constraint.max_new_tokens
        prompt = options.get("decoder_input_ids")
        fed = (limit or 0) + (0 if prompt is None else prompt.shape[1] - 1)
        _check_length("an answer", fed, self.max_lengths[1], "max_new_tokens")
        jumps = jump_forward and self.seq2seq.config.model_type in models.T5_FAMILY
        return generate(self.seq2seq, fused, constraint, make_steps=T5Steps if jumps else None, **options)

    def _shifted(self, labels: Tensor) -> Tensor:
        """Return labels moved to the right, behind the start token, as the model itself does."""
        prepare = getattr(self.seq2seq, "prepare_decoder_input_ids_from_labels", None)
        if prepare is not None:
            shifted: Tensor = prepare(labels=labels)
            return shifted
        config = self.seq2seq.config
        start = labels.new_full((len(labels), 1), config.decoder_start_token_id)
        return torch.cat([start, labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, config.pad_token_id)], dim=1)


def _check_length(what: str, length: int, limit: int | None, option: str) -> None:
    if limit is not None and length > limit:
        raise UmieError(f"{what} of {length} tokens: the decoder has positions for {limit}; lower {option}")
