"""`causal`: any causal language model of transformers (Llama, Qwen, GPT-2), which continues the fused states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from umie.decoders import registry
from umie.decoders.base import DecoderOutput, GeneratingDecoder
from umie.decoders.generation import check_length, check_limit, generate
from umie.decoders.pretrained import PretrainedConfig, PretrainedDecoder
from umie.errors import UmieError, check_whole
from umie.framing import QUERY, check_prompt, expanded, framing_of
from umie.language_models import causal as models
from umie.types import IGNORED, FusedStates


@dataclass(frozen=True, kw_only=True)
class CausalDecoderConfig(PretrainedConfig):
    """Where the model comes from, and what it continues.

    Args:
        source: a preset (random weights), a checkpoint directory, a hub name, or ``package:NAME`` for the checkpoint
            inside an installed Python package.
        config: the full transformers configuration, used instead of the source's; saved models contain it.
        overrides: single values to change in the configuration.
        prompt: the text to continue: ``{query}`` stands for the instruction and the text. ``chat`` is the tokenizer's
            own chat template, for models tuned on conversations.
        slots_after: visual states that the fusion appended to the text are moved there: after this many tokens of the
            prompt. By default after the tokens before the query, such as the header of a chat.
    """

    prompt: str = f"{QUERY}\n"
    slots_after: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_prompt(self.prompt)
        if self.slots_after is not None:
            check_whole("slots_after", self.slots_after, 0)


@registry.register("causal")
class CausalDecoder(PretrainedDecoder, GeneratingDecoder):
    """An unchanged causal language model: the text states are its token embeddings, and answers continue fused states.

    Visual slots that a fusion appends (``concat``) come before the query, where LLaVA has its image tokens. Other
    fusions change the embeddings of the text. Source: Liu et al., Visual Instruction Tuning (2023), Section 4.1; Zhang
    et al., REAMO (2024), Section 4. Deviation: one state for each slot, not one for each medium.
    """

    Config: ClassVar[type[CausalDecoderConfig]] = CausalDecoderConfig
    attribute = "language_model"
    example = "HuggingFaceTB/SmolLM2-135M"
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {
            "model_type": "llama", "vocab_size": 1024, "hidden_size": 96, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 192,
            "max_position_embeddings": 1024, "tie_word_embeddings": True, "pad_token_id": 0, "bos_token_id": None,
            "eos_token_id": 1,
        },
    }  # fmt: skip
    language_model: Any

    def __init__(self, config: CausalDecoderConfig) -> None:
        super().__init__(config)
        self.config: CausalDecoderConfig = config
        if not self.end_token_ids:
            raise UmieError(f"decoder {config.source!r} has no eos_token_id, which ends an answer: set it in overrides")

    @property
    def widths(self) -> Mapping[str, int]:
        """``d_model``, ``num_heads``, ``head_dim`` and ``d_ff`` of the model's blocks."""
        config = self.language_model.config
        d_model, num_heads = int(config.hidden_size), int(config.num_attention_heads)
        return {
            "d_model": d_model,
            "num_heads": num_heads,
            "head_dim": getattr(config, "head_dim", None) or d_model // num_heads,
            "d_ff": getattr(config, "intermediate_size", None) or 4 * d_model,  # GPT-2 does not name it
        }

    @property
    def vocab_size(self) -> int:
        """Number of tokens that the model has rows for."""
        return int(self.language_model.config.vocab_size)

    @property
    def max_lengths(self) -> tuple[int | None, int | None]:
        """The number of positions, which the text, the visual slots and the answer share."""
        limit = getattr(self.language_model.config, "max_position_embeddings", None)
        return limit, limit

    @property
    def shares_positions(self) -> bool:
        """Whether text and answer share the positions."""
        return True

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        return models.end_tokens(self.language_model.config)

    @property
    def prompt(self) -> str:
        """The text that the model continues; see ``umie.framing``."""
        return self.config.prompt

    @classmethod
    def fit_tokenizer(cls, options: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """Return options with the text of a chat template, and with ``slots_after`` unless the options set it."""
        fitting = super().fit_tokenizer(options, tokenizer)
        fitting["prompt"] = expanded(tokenizer, fitting.get("prompt", cls.Config.prompt))
        if fitting.get("slots_after") is None:
            fitting["slots_after"] = len(framing_of(tokenizer, fitting["prompt"]).before_query)
        return fitting

    def saved_options(self) -> dict[str, Any]:
        """Return the source, the full configuration, and the form of the prompt."""
        own = {"prompt": self.config.prompt, "slots_after": self.config.slots_after}
        return {**super().saved_options(), **own}

    def _build(self) -> Any:
        return models.shape(self._source_values(models.values_of), self.config.overrides)

    def _load(self, checkpoint: str) -> Any:
        return models.load(self.language_model, self.config.source, checkpoint)

    def _text_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states: Tensor = self.language_model.get_input_embeddings()(input_ids)
        return states

    def forward(  # type: ignore[override] # the inputs by name
        self, fused: FusedStates, labels: Tensor | None = None, decoder_input_ids: Tensor | None = None
    ) -> DecoderOutput:
        """Read the fused states and an answer with teacher forcing; see ``GeneratingDecoder.forward``.

        The first of the ``decoder_input_ids`` only marks the start: the fused states are what comes before an answer.
        """
        if decoder_input_ids is None and labels is None:
            raise UmieError("the decoder has no input: pass labels or decoder_input_ids")
        if decoder_input_ids is not None:
            answer = decoder_input_ids[:, 1:]
        else:
            assert labels is not None
            answer = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, self._pad)
        states, mask = self._packed(fused)
        check_length(
            "a text with its answer", states.shape[1] + answer.shape[1], self.max_lengths[0], "max_input_tokens"
        )
        mask = torch.cat([mask, torch.ones_like(answer)], dim=1)
        logits = self.language_model(
            inputs_embeds=torch.cat([states, self._text_states(answer, mask)], dim=1),
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            logits_to_keep=answer.shape[1] + 1,
            use_cache=False,
        ).logits
        return DecoderOutput(None if labels is None else self.loss(logits, labels), logits)

    def generate(self, fused: FusedStates, constraint: Any = None, *, jump_forward: bool = True, **options: Any) -> Any:
        """Generate token ids after a start token; see ``GeneratingDecoder.generate``.

        Raises:
            UmieError: prompt and answer are longer than the model has positions.
        """
        states, mask = self._packed(fused)
        length, what = states.shape[1], "a text with its image and answer"
        check_limit(self.language_model, constraint, options, self.max_lengths[0], length, what=what)
        return generate(self.language_model, {"inputs_embeds": states, "attention_mask": mask}, constraint, **options)

    @property
    def _pad(self) -> int:
        return int(self.language_model.generation_config.pad_token_id)

    def _packed(self, fused: FusedStates) -> tuple[Tensor, Tensor]:
        """Return the real states of each row, padded on the left ``[B, N, D]``, and their mask, 1 = real."""
        states, mask = fused.states, fused.mask
        text = states.shape[1] if fused.num_text is None else fused.num_text
        if text < states.shape[1]:
            after = min(self.config.slots_after or 0, text)
            order = [*range(after), *range(text, states.shape[1]), *range(after, text)]
            states, mask = states[:, order], mask[:, order]
        order_of_rows = mask.long().argsort(dim=1, stable=True)  # padding first
        mask = mask.gather(1, order_of_rows)
        states = states.gather(1, order_of_rows[..., None].expand_as(states)).masked_fill(~mask[..., None], 0)
        first = int(mask.any(dim=0).long().argmax())  # columns that are padding in every row
        return states[:, first:], mask[:, first:].long()
