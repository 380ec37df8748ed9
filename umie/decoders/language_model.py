"""Decoders that wrap an encoder-decoder model of transformers: its options, checkpoint, forward pass and generation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutput

from umie.decoders import seq2seq_models as models
from umie.decoders.base import Decoder, DecoderConfig, DecoderOutput
from umie.decoders.generation import effective_options, generate, max_new_tokens_of
from umie.decoders.sources import check_source, located
from umie.decoders.t5_models import T5_FAMILY
from umie.decoders.t5_steps import T5Steps
from umie.errors import UmieError
from umie.types import IGNORED, FusedStates


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig(DecoderConfig):
    """Where the model comes from.

    Args:
        source: a preset (random weights), a checkpoint directory, a hub name, or ``package:NAME`` for the checkpoint
            inside an installed Python package.
        config: the full transformers configuration, used instead of the source's; saved models contain it.
        overrides: single values to change in the configuration.
    """

    source: str = "tiny"
    config: Mapping[str, Any] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.source, str):
            raise UmieError(
                f"source is {self.source!r}: use a preset, a checkpoint directory, a hub name or package:NAME"
            )
        if not isinstance(self.overrides, Mapping):
            raise UmieError(f"overrides is {self.overrides!r}: use a mapping of the model's options")


class LanguageModelDecoder(Decoder):
    """An unchanged encoder-decoder: its encoder returns the text states, its decoder attends over the fused states.

    A subclass builds the model (``_build``) and loads its weights (``_load``).

    Attributes:
        example: a hub name that error messages suggest.
        seq2seq: transformers' model.
    """

    Config: ClassVar[type[LanguageModelConfig]]
    default_source = "tiny"
    example: ClassVar[str]
    seq2seq: Any

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.config = config
        try:
            self.seq2seq = self._build()
        except UmieError:
            raise
        except Exception as error:  # transformers' configurations raise classes of their own
            reason = " ".join(str(error).split())
            raise UmieError(f"decoder {config.source!r}: no model has this shape: {reason}") from error
        if self.seq2seq.config.decoder_start_token_id is None:
            raise UmieError(
                f"decoder {config.source!r} has no decoder_start_token_id, which begins an answer: set it in overrides"
            )

    @abstractmethod
    def _build(self) -> Any:
        """Return the model that the options describe, with random weights."""

    @abstractmethod
    def _load(self, checkpoint: str) -> Any:
        """Return the model with the weights of a checkpoint directory or hub name."""

    @property
    def all_tied_weights_keys(self) -> dict[str, str]:
        """The tied weights, under the names that transformers expects in a model that contains this one."""
        keys = self.seq2seq.all_tied_weights_keys
        return {f"seq2seq.{name}": f"seq2seq.{target}" for name, target in keys.items()}

    @property
    def widths(self) -> Mapping[str, int]:
        """``d_model``, ``num_heads``, ``head_dim`` and ``d_ff`` of the encoder."""
        return models.widths_of(self.seq2seq)

    @property
    def vocab_size(self) -> int:
        """Number of tokens that both halves have rows for."""
        return models.vocab_size_of(self.seq2seq)

    @property
    def max_lengths(self) -> tuple[int | None, int | None]:
        """The most tokens of a text and of an answer; None for relative positions, which have no limit."""
        return models.max_lengths_of(self.seq2seq)

    @classmethod
    def checkpoint(cls, source: str) -> str | None:
        """Return the directory or hub name of a source's checkpoint, or None for a preset."""
        if source in cls.PRESETS:
            return None
        check_source(
            source, [*cls.PRESETS, "a checkpoint directory", f"a hub name such as {cls.example}", "package:NAME"]
        )
        return located(source)

    @classmethod
    def fit_vocabulary(cls, options: Mapping[str, Any], num_tokens: int) -> dict[str, Any]:
        """Return options with ``vocab_size`` set for the tiny preset, unless the options set it."""
        overrides = options.get("overrides", {})
        is_tiny = options.get("source", cls.default_source) == cls.default_source and options.get("config") is None
        if not is_tiny or not isinstance(overrides, Mapping):
            return dict(options)
        return {**options, "overrides": {"vocab_size": num_tokens, **overrides}}

    def saved_options(self) -> dict[str, Any]:
        """Return the source, for reference, and the full configuration."""
        return {"source": self.config.source, "config": models.config_values(self.seq2seq.config)}

    def load_weights(self) -> None:
        """Load the weights of the source; a preset has none.

        Raises:
            UmieError: the checkpoint cannot be read, or is missing weights.
        """
        checkpoint = self.checkpoint(self.config.source)
        if checkpoint is not None:
            self.seq2seq = self._load(checkpoint)

    def save_checkpoint(self, folder: str | Path) -> None:
        """Write a checkpoint directory in transformers' layout."""
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
        """Decode with teacher forcing; see ``Decoder.forward``."""
        options: dict[str, Any] = {}
        if decoder_input_ids is None:
            if labels is None:
                raise UmieError("the decoder has no input: pass labels or decoder_input_ids")
            decoder_input_ids = self._shifted(labels)
            if self.seq2seq.config.model_type == models.PAIRED:  # as transformers does when it shifts the labels
                options["decoder_attention_mask"] = (decoder_input_ids != self.seq2seq.config.pad_token_id).long()
        _check_length("an answer", decoder_input_ids.shape[1], self.max_lengths[1], "max_target_tokens")
        logits = self.seq2seq(
            encoder_outputs=BaseModelOutput(last_hidden_state=fused.states),
            attention_mask=fused.mask.long(),
            decoder_input_ids=decoder_input_ids,
            **options,
        ).logits
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        return DecoderOutput(loss, logits)

    def generate(self, fused: FusedStates, constraint: Any = None, *, jump_forward: bool = True, **options: Any) -> Any:
        """Generate token ids with transformers' ``generate``: greedy, beams, sampling; see ``Decoder.generate``.

        Raises:
            UmieError: more new tokens are allowed than the decoder has positions.
        """
        limit = max_new_tokens_of(effective_options(self.seq2seq.generation_config, options), options)
        if constraint is not None and limit is None:
            limit = constraint.max_new_tokens
        prompt = options.get("decoder_input_ids")
        num_fed = (limit or 0) + (0 if prompt is None else prompt.shape[1] - 1)
        _check_length("an answer", num_fed, self.max_lengths[1], "max_new_tokens")
        can_jump = jump_forward and self.seq2seq.config.model_type in T5_FAMILY
        return generate(self.seq2seq, fused, constraint, make_steps=T5Steps if can_jump else None, **options)

    def _shifted(self, labels: Tensor) -> Tensor:
        """Return labels shifted right, after the start token, as the model itself does."""
        prepare = getattr(self.seq2seq, "prepare_decoder_input_ids_from_labels", None)
        if prepare is not None:
            shifted: Tensor = prepare(labels=labels)
            return shifted
        config = self.seq2seq.config
        start = labels.new_full((len(labels), 1), config.decoder_start_token_id)
        return torch.cat([start, labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, config.pad_token_id)], dim=1)


def _check_length(what: str, length: int, limit: int | None, option: str) -> None:
    if limit is not None and length > limit:
        raise UmieError(f"{what} has {length} tokens, but the decoder has only {limit} positions: lower {option}")
