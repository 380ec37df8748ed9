"""The decoder contract: text tokens to text states, and fused states to answers, by tokens or by scored candidates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from umie.errors import check_flag, check_share, check_whole
from umie.types import IGNORED, FusedStates


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Base class for decoder options. There are no common options yet."""


MAX_TARGETS = 2  # mentions that a query is about: the head and the tail of a pair, or the trigger of an event


class DecoderOutput(NamedTuple):
    """The loss (None without labels) and logits: ``[B, L, vocabulary]``, or ``[B, S + R + 1, C + P]`` of candidates."""

    loss: Tensor | None
    logits: Tensor


@dataclass(frozen=True, kw_only=True)
class CandidateOptions:
    """The candidates that a decoder scores, and how answers are chosen from them.

    Args:
        max_width: the longest candidate span, in words.
        threshold: the lowest probability of an answer, and of a region that shows it, 0..1.
        nested: allow answers with overlapping spans; otherwise only the most probable of them is an answer.
    """

    max_width: int = 12
    threshold: float = 0.5
    nested: bool = False

    def __post_init__(self) -> None:
        check_whole("max_width", self.max_width, 1)
        check_share("threshold", self.threshold)
        check_flag("nested", self.nested)


class Decoder(nn.Module, ABC):
    """The text encoder and the part that answers, with the fusion between them.

    Both share a checkpoint and a tokenizer. Subclass ``GeneratingDecoder`` or ``ScoringDecoder``.

    Attributes:
        input_names: the tensors of a batch that ``forward`` takes, next to the fused states.
        PRESETS: sources with random weights, by name, and the shape of each.
        default_source: the option ``source`` if none is set; None if the decoder has no such option.
    """

    Config: ClassVar[type[DecoderConfig]]
    input_names: ClassVar[tuple[str, ...]]
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    default_source: ClassVar[str | None] = None

    @property
    def all_tied_weights_keys(self) -> dict[str, str]:
        """Weights that share storage, each mapped to the one it is tied to, by name within this decoder."""
        return {}

    @property
    @abstractmethod
    def widths(self) -> Mapping[str, int]:
        """The widths that fusion modules are built with: ``d_model``, ``num_heads``, ``head_dim`` and ``d_ff``."""

    @property
    def vocab_size(self) -> int | None:
        """Number of tokens that the decoder has rows for; None if unknown."""
        return None

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer; empty if the decoder accepts any tokenizer's end token."""
        return ()

    @property
    def candidates(self) -> CandidateOptions | None:
        """The candidates that the decoder scores; None if it generates answers."""
        return None

    @property
    def prompt(self) -> str | None:
        """The text that a causal decoder continues, see ``umie.framing``; None for other decoders."""
        return None

    @property
    def max_lengths(self) -> tuple[int | None, int | None]:
        """The most tokens of a text and of an answer; None for no limit."""
        return None, None

    @property
    def text_model(self) -> nn.Module | None:
        """The module that alone computes text states; None if they also depend on other parts of the decoder."""
        return None

    @property
    def shares_positions(self) -> bool:
        """Whether a text and its answer share the positions of ``max_lengths``."""
        return False

    @classmethod
    def checkpoint(cls, source: str) -> str | None:
        """Return the directory or hub name that holds a source's weights and tokenizer.

        Args:
            source: the value of the option ``source``.

        Returns:
            A name that transformers can load, or None for a preset, which has random weights and no tokenizer.

        Raises:
            UmieError: the decoder does not know the source.
        """
        return source

    @classmethod
    def fit_tokenizer(cls, options: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """Return options that fit a tokenizer, such as the size of the vocabulary, where they are left open.

        Args:
            options: the decoder's options.
            tokenizer: the tokenizer of the variant.
        """
        return dict(options)

    @abstractmethod
    def saved_options(self) -> dict[str, Any]:
        """Return options that rebuild this decoder's shape without access to its source."""

    @abstractmethod
    def load_weights(self) -> None:
        """Load the weights of the option ``source``, if it has any."""

    @abstractmethod
    def save_checkpoint(self, folder: str | Path) -> None:
        """Write only the decoder, as a checkpoint directory that can be used as ``source``."""

    @abstractmethod
    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return text states ``[B, T, D]`` of ``input_ids [B, T]``."""

    @abstractmethod
    def forward(self, fused: FusedStates, **inputs: Any) -> DecoderOutput:
        """Return the logits of answers, and the loss if ``inputs`` has ``labels``; see the subclasses."""

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean loss of labels, of which those that are -100 are left out."""

    def num_targets(self, labels: Tensor) -> Tensor:
        """Return the number of terms of which ``loss`` is the mean."""
        return labels.ne(IGNORED).sum()


class GeneratingDecoder(Decoder):
    """A decoder that writes answers, token by token."""

    input_names = ("labels", "decoder_input_ids")

    @abstractmethod
    def forward(  # type: ignore[override] # the inputs by name
        self, fused: FusedStates, labels: Tensor | None = None, decoder_input_ids: Tensor | None = None
    ) -> DecoderOutput:
        """Decode with teacher forcing.

        Args:
            fused: the states to attend over.
            labels: ``[B, L]``, -100 at positions to leave out of the loss; shifted right as the decoder's input.
            decoder_input_ids: ``[B, L]``, used instead of the shifted labels.
        """

    def loss(self, logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy over the tokens."""
        return F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, label_smoothing=label_smoothing
        )

    @abstractmethod
    def generate(self, fused: FusedStates, constraint: Any = None, *, jump_forward: bool = True, **options: Any) -> Any:
        """Generate token ids ``[B, L]``, each row after a start token, with a key-value cache.

        Args:
            fused: the states to attend over.
            constraint: an ``umie.constrained.Constraint`` on the answers, or None.
            jump_forward: under a constraint, feed tokens that are the only choice together with the next token, if
                decoding is greedy and the decoder supports it; the output is the same.
            options: options of transformers' generate.
        """


class ScoringDecoder(Decoder):
    """A decoder that scores candidate answers: spans of the text, places in media, and the whole query."""

    input_names = (
        "labels", "label_tokens", "spans", "place_slots", "place_mask", "pointing_mask", "target_tokens",
        "target_slots",
    )  # fmt: skip

    @property
    @abstractmethod
    def candidates(self) -> CandidateOptions:
        """The candidates that the decoder scores."""

    @abstractmethod
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
        """Score all candidates of a query with all its labels, and with the places that may show them.

        Args:
            fused: the fused states, whose first T are those of the text, and the visual states.
            label_tokens: ``[B, C, 2]``, the first and the last token of each label; -1 in padding.
            spans: ``[B, S, 5]``: the first and the last token of each span, its width in words minus 1, and the start
                and the end of its characters, which are not scored.
            place_slots: ``[B, N]``, the visual slot of each place; N is the larger one of R and P.
            place_mask: bool ``[B, R]``, True where place r is a candidate; R is 0 if none is.
            pointing_mask: bool ``[B, P]``, True where place p may show an item; P is 0 unless the task is grounded.
            target_tokens: ``[B, K, 2]``, the first and the last token of spans that the query is about; -1 for none.
            target_slots: ``[B, K]``, the visual slots that the query is about in place of spans; -1 for none.
            labels: ``[B, S + R + 1, C + P]``: 1 if the label is right for the span, place or query, or if the place
                shows the item; 0 if not; -100 if that is no candidate. The logits have the same shape.
        """

    def loss(self, logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the binary cross-entropy, summed over the candidates of an input: the mean over inputs.

        Only right labels are smoothed: the others are so many that they would dominate the loss.
        """
        targets = labels.to(logits.dtype) * (1 - label_smoothing)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return losses.masked_fill(labels == IGNORED, 0).sum() / len(labels)

    def num_targets(self, labels: Tensor) -> Tensor:
        """Return the number of inputs."""
        return labels.new_tensor(len(labels))
