"""The decoder contract: text tokens to text states, and fused states to a loss and logits or to token ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from umie.types import FusedStates


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Base class for decoder options. There are no common options yet."""


class DecoderOutput(NamedTuple):
    """The loss (None without labels) and logits ``[B, L, vocabulary]``."""

    loss: Tensor | None
    logits: Tensor


class Decoder(nn.Module, ABC):
    """A language model in two halves, with the fusion between them.

    It includes the text encoder: both halves share a checkpoint, an embedding and a tokenizer.

    Attributes:
        PRESETS: sources with random weights, by name, and the shape of each.
        default_source: the option ``source`` if none is set; None if the decoder has no such option.
    """

    Config: ClassVar[type[DecoderConfig]]
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
    def end_token_id(self) -> int | None:
        """The token that ends an answer; None if the decoder accepts any tokenizer's end token."""
        return None

    @property
    def max_lengths(self) -> tuple[int | None, int | None]:
        """The most tokens of a text and of an answer; None for no limit."""
        return None, None

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
    def fit_vocabulary(cls, options: Mapping[str, Any], num_tokens: int) -> dict[str, Any]:
        """Return options whose vocabulary has the size of a tokenizer, if they leave that size open.

        Args:
            options: the decoder's options.
            num_tokens: size of the tokenizer.
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
    def forward(
        self, fused: FusedStates, labels: Tensor | None = None, decoder_input_ids: Tensor | None = None
    ) -> DecoderOutput:
        """Decode with teacher forcing.

        Args:
            fused: the states to attend over.
            labels: ``[B, L]``, -100 at positions to leave out of the loss; shifted right as the decoder's input.
            decoder_input_ids: ``[B, L]``, used instead of the shifted labels.
        """

    @abstractmethod
    def generate(self, fused: FusedStates, constraint: Any = None, *, jump_forward: bool = True, **options: Any) -> Any:
        """Generate token ids ``[B, L]`` with a key-value cache.

        Args:
            fused: the states to attend over.
            constraint: an ``umie.constrained.Constraint`` on the answers, or None.
            jump_forward: under a constraint, feed tokens that are the only choice together with the next token, if
                decoding is greedy and the decoder supports it; the output is the same.
            options: options of transformers' generate.
        """
