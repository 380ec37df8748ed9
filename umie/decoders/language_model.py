"""Decoders around an encoder-decoder model of transformers: their forward pass and generation."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from umie.decoders.base import DecoderOutput, GeneratingDecoder
from umie.decoders.generation import check_length, check_limit, generate
from umie.decoders.pretrained import PretrainedConfig, PretrainedDecoder
from umie.decoders.t5_steps import T5Steps
from umie.errors import UmieError, shown
from umie.language_models import seq2seq as models
from umie.language_models.t5 import T5_FAMILY
from umie.types import IGNORED, FusedStates


class LanguageModelDecoder(PretrainedDecoder, GeneratingDecoder):
    """An unchanged encoder-decoder: its encoder returns the text states, its decoder attends over the fused states.

    Attributes:
        seq2seq: transformers' model.
    """

    attribute = "seq2seq"
    seq2seq: Any

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(self.seq2seq.config, name, None)
            if isinstance(value, int | None) and (value is None or 0 <= value < self.vocab_size):
                continue
            raise UmieError(f"decoder {config.source!r}: {name} is {shown(value)}: use a token below {self.vocab_size}")
        if self.seq2seq.config.decoder_start_token_id is None:
            raise UmieError(
                f"decoder {config.source!r} has no decoder_start_token_id, which begins an answer: set it in overrides"
            )

    @property
    def text_model(self) -> nn.Module:
        """The encoder."""
        encoder: nn.Module = self.seq2seq.get_encoder()
        return encoder

    def _text_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states: Tensor = self.text_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return states

    def forward(  # type: ignore[override] # the inputs by name
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
        check_length("an answer", decoder_input_ids.shape[1], self.max_lengths[1], "max_target_tokens")
        logits = self.seq2seq(
            encoder_outputs=BaseModelOutput(last_hidden_state=fused.states),
            attention_mask=fused.mask.long(),
            decoder_input_ids=decoder_input_ids,
            **options,
        ).logits
        return DecoderOutput(None if labels is None else self.loss(logits, labels), logits)

    def generate(self, fused: FusedStates, constraint: Any = None, *, jump_forward: bool = True, **options: Any) -> Any:
        """Generate token ids with transformers' ``generate``: greedy, beams, sampling; see ``Decoder.generate``.

        Raises:
            UmieError: more new tokens are allowed than the decoder has positions.
        """
        prompt = options.get("decoder_input_ids")
        num_fed = 0 if prompt is None else prompt.shape[1] - 1
        check_limit(self.seq2seq, constraint, options, self.max_lengths[1], num_fed)
        inputs: dict[str, Any] = {
            "encoder_outputs": BaseModelOutput(last_hidden_state=fused.states), "attention_mask": fused.mask.long()
        }  # fmt: skip
        can_jump = jump_forward and self.seq2seq.config.model_type in T5_FAMILY
        steps = partial(T5Steps, self.seq2seq, fused) if can_jump else None
        return generate(self.seq2seq, inputs, constraint, make_steps=steps, **options)

    def _shifted(self, labels: Tensor) -> Tensor:
        """Return labels shifted right, after the start token, as the model itself does."""
        prepare = getattr(self.seq2seq, "prepare_decoder_input_ids_from_labels", None)
        if prepare is not None:
            shifted: Tensor = prepare(labels=labels)
            return shifted
        config = self.seq2seq.config
        start = labels.new_full((len(labels), 1), config.decoder_start_token_id)
        return torch.cat([start, labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, config.pad_token_id)], dim=1)
