"""`span`: scores candidate answers (spans of the text, slots of media, the whole query) in place of generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umie.decoders import registry
from umie.decoders.base import MAX_TARGETS, CandidateOptions, DecoderOutput, ScoringDecoder
from umie.decoders.pretrained import PretrainedConfig, PretrainedDecoder
from umie.errors import check_share, check_whole
from umie.language_models import seq2seq as models
from umie.language_models import text_encoders
from umie.linear import are_plain
from umie.types import FusedStates


@dataclass(frozen=True, kw_only=True)
class SpanDecoderConfig(PretrainedConfig):
    """The text encoder, and how candidates are scored.

    Args:
        source: the text encoder: a preset (random weights), a checkpoint directory, a hub name, or ``package:NAME``.
            Only the encoder of an encoder-decoder such as T5 is used.
        config: the full transformers configuration, used instead of the source's; saved models contain it.
        overrides: single values to change in the configuration.
        max_width: the longest candidate span, in words.
        reader_layers: layers of self-attention over the fused states, with which text states read the visual states
            that a fusion appended. After a pretrained encoder they start as the identity, so as not to disturb it.
        dropout: dropout of the states that are scored.
        threshold: the lowest probability of an answer, and of a place that shows it, 0..1.
        nested: allow answers with overlapping spans; otherwise only the most probable of them is an answer.
    """

    max_width: int = 12
    reader_layers: int = 1
    dropout: float = 0.1
    threshold: float = 0.5
    nested: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("reader_layers", self.reader_layers, 0)
        check_share("dropout", self.dropout, below_one=True)
        self.candidates()  # checks the others

    def candidates(self) -> CandidateOptions:
        """Return the options that choose candidates and answers."""
        return CandidateOptions(max_width=self.max_width, threshold=self.threshold, nested=self.nested)


@registry.register("span")
class SpanDecoder(PretrainedDecoder, ScoringDecoder):
    """Scores each candidate against the states of each label: ``sigmoid(c . l / sqrt(D) + b)``.

    A span is represented by its first and last state and its width, a visual slot by its state, the whole query by its
    first state; all of them also by the spans or places that the query is about. A place that may show an item is
    scored like one more label. Source: Zaratiana et al., GLiNER (2024), Section 2. Deviations: visual slots and whole
    queries are candidates too; the layers before the activation are linear in each state, so that they run once per
    state and not once per span; no LSTM.
    """

    Config = SpanDecoderConfig
    attribute = "text_encoder"
    example = "answerdotai/ModernBERT-base"
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {
            "model_type": "bert", "vocab_size": 1024, "hidden_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 4, "intermediate_size": 192, "max_position_embeddings": 512,
            "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "pad_token_id": 0,
        },
    }  # fmt: skip
    text_encoder: Any

    def __init__(self, config: SpanDecoderConfig) -> None:
        super().__init__(config)
        self.config: SpanDecoderConfig = config
        d_model = self.widths["d_model"]
        num_heads = next(number for number in range(self.widths["num_heads"], 0, -1) if d_model % number == 0)
        self.reader = nn.ModuleList(
            ReaderLayer(d_model, num_heads, config.dropout) for _ in range(config.reader_layers)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.first, self.last = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model, bias=False)
        self.width = nn.Embedding(config.max_width, d_model)
        self.slot, self.whole = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)
        self.targets = nn.ModuleList(nn.Linear(2 * d_model, d_model, bias=False) for _ in range(MAX_TARGETS))
        self.candidate_out = _output(d_model, config.dropout)
        self.label_in, self.label_out = nn.Linear(2 * d_model, d_model), _output(d_model, config.dropout)
        self.bias = nn.Parameter(torch.tensor(-2.0))  # most candidates are no answer
        nn.init.normal_(self.width.weight, std=0.02)

    @property
    def vocab_size(self) -> int:
        """Number of tokens that the encoder has rows for."""
        return int(self.text_encoder.config.vocab_size)

    @property
    def max_lengths(self) -> tuple[int | None, int | None]:
        """The most tokens of a text; answers have none."""
        return models.max_length(self.text_encoder.config, self.text_encoder, "max_encoder_position_embeddings"), None

    @property
    def text_model(self) -> nn.Module:
        """The encoder."""
        encoder: nn.Module = self.text_encoder
        return encoder

    @property
    def candidates(self) -> CandidateOptions:
        """The candidates that the decoder scores."""
        return self.config.candidates()

    def saved_options(self) -> dict[str, Any]:
        """Return the source, the full configuration of the encoder, and the options of the head."""
        own = ("max_width", "reader_layers", "dropout", "threshold", "nested")
        return {**super().saved_options(), **{name: getattr(self.config, name) for name in own}}

    def _build(self) -> Any:
        options = self.config
        return text_encoders.shape(self._source_values(text_encoders.values_of), options.overrides)

    def _load(self, checkpoint: str) -> Any:
        reader: Any = self.reader
        for layer in reader:
            layer.start_as_identity()
        return text_encoders.load(self.text_encoder, self.config.source, checkpoint)

    def _text_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states: Tensor = self.text_encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return states

    def forward(  # type: ignore[override] # the inputs by name
        self,
        fused: FusedStates,
        *,
        label_tokens: Tensor,
        spans: Tensor,
        place_slots: Tensor,
        place_mask: Tensor,
        pointing_mask: Tensor,
        target_tokens: Tensor,
        target_slots: Tensor,
        labels: Tensor | None = None,
    ) -> DecoderOutput:
        """Score all candidates of a query with all its labels; see ``ScoringDecoder.forward``."""
        states = fused.states
        for layer in self.reader:
            states = layer(states, fused.mask)
        states = self.dropout(states)
        about = torch.zeros_like(states[:, :1])  # the spans and places that the query is about
        for number, layer in enumerate(self.targets):
            tokens, slots = target_tokens[:, number], target_slots[:, number : number + 1]
            both = _at(states, tokens.clamp(min=0)).flatten(1)[:, None]  # [B, 1, 2 D]
            about = about + layer(both) * (tokens[:, :1, None] >= 0)
            if fused.visual is not None and (slots >= 0).any():
                shown = _at(fused.visual, slots.clamp(min=0)).repeat(1, 1, 2)
                about = about + layer(shown) * (slots[..., None] >= 0)
        places = self._places(fused, place_slots)
        first, last = self.first(states) + about, self.last(states)
        ends = _at(first, spans[..., 0]) + _at(last, spans[..., 1]) + self.width(spans[..., 2])
        others = torch.cat([places[:, : place_mask.shape[1]], self.whole(states[:, :1])], dim=1) + about
        candidates = torch.cat([ends, others], dim=1)
        label_states = _at(states, label_tokens.clamp(min=0))  # [B, C, 2, D]
        named = self.label_in(label_states.flatten(2))
        named = self.label_out(torch.cat([named, places[:, : pointing_mask.shape[1]]], dim=1))
        logits = _products(self.candidate_out, candidates, named) * states.shape[-1] ** -0.5 + self.bias
        return DecoderOutput(None if labels is None else self.loss(logits, labels), logits)

    def _places(self, fused: FusedStates, slots: Tensor) -> Tensor:
        """Return ``[B, N, D]``, the states of places; zeros if the fusion does not use media."""
        if fused.visual is None or not slots.shape[1]:
            return fused.states.new_zeros(*slots.shape, fused.states.shape[-1])
        # places beyond the slots are no candidates
        states: Tensor = self.slot(self.dropout(_at(fused.visual, slots.clamp(0, fused.visual.shape[1] - 1))))
        return states


class ReaderLayer(nn.Module):
    """Self-attention and a feed-forward layer before which states are normalized."""

    def __init__(self, d_model: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            d_model, num_heads, 2 * d_model, dropout, activation="gelu", batch_first=True, norm_first=True
        )

    def start_as_identity(self) -> None:
        """Set the weights so that states are returned as they are; they still train."""
        for last in (self.layer.self_attn.out_proj, self.layer.linear2):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return states ``[B, T, D]``; ``mask [B, T]`` is True for real states."""
        read: Tensor = self.layer(states, src_key_padding_mask=~mask)
        return read


def _output(d_model: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.GELU(), nn.Dropout(dropout), nn.Linear(d_model, d_model))


def _products(output: nn.Sequential, candidates: Tensor, named: Tensor) -> Tensor:
    """Return ``output(candidates) @ named^T``, ``[B, N, C]``.

    The last layer is linear, and an input has hundreds of candidates and few labels, so it is applied to the labels:
    ``(W g + b) . n = g . (W^T n) + b . n``.
    """
    *layers, last = output
    if not (isinstance(last, nn.Linear) and are_plain(last, may_have_bias=True)):  # an adapter, for example
        projected: Tensor = output(candidates)
        return projected @ named.transpose(1, 2)
    for layer in layers:
        candidates = layer(candidates)
    return candidates @ (named @ last.weight).transpose(1, 2) + (named @ last.bias)[:, None]


def _at(states: Tensor, positions: Tensor) -> Tensor:
    """Return ``[B, ..., D]``, the states ``[B, T, D]`` at ``positions [B, ...]``.

    Rows of a table are copied whole, which on CPUs is six times as fast as ``gather``.
    """
    rows = torch.arange(len(states), device=states.device).view(-1, *[1] * (positions.dim() - 1))
    return F.embedding(positions + rows * states.shape[1], states.flatten(0, 1))
