"""The decoder contract: text tokens to text states, fused states to a loss and logits or to token ids."""

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
    """Options that every decoder has: none yet."""


class DecoderOutput(NamedTuple):
    """The loss (None without labels) and logits ``[B, L, vocabulary]``."""

    loss: Tensor | None
    logits: Tensor


class Decoder(nn.Module, ABC):
    """A language model in two halves, with the fusion between them.

    The text encoder belongs to it too: both halves share a checkpoint, an embedding and a tokenizer.
    """

    Config: ClassVar[type[DecoderConfig]]

    @property
    def all_tied_weights_keys(self) -> dict[str, str]:
        """Weights that share storage, each mapped to the one it is tied to, by name within this decoder."""
        return {}

    @property
    @abstractmethod
    def widths(self) -> Mapping[str, int]:
        """``d_model``, ``num_heads``, ``head_dim`` and ``d_ff``, which fusion modules are built with."""

    @property
    def vocab_size(self) -> int | None:
        """How many tokens the decoder can tell apart; None where it does not say."""
        return None

    @property
    def end_token_id(self) -> int | None:
        """The token that ends an answer; None where any tokenizer's may."""
        return None

    @property
    def max_lengths(self) -> tuple[int | None, int | None]:
        """How many tokens a text and an answer may have; None where positions have no end."""
        return None, None

    @classmethod
    def checkpoint(cls, source: str) -> str | None:
        """Return the folder or hub name that holds a source's weights and tokenizer.

        Args:
            source: what the option ``source`` names.

        Returns:
            Where transformers can read it, or None for a shape that has random weights and no tokenizer.

        Raises:
            UmieError: ``source`` is none that this decoder knows.
        """
        return source

    @abstractmethod
    def saved_options(self) -> dict[str, Any]:
        """Return the options that rebuild this decoder's shape without its source at hand."""

    @abstractmethod
    def load_weights(self) -> None:
        """Load the weights of the source that the options name, if it has any."""

    @abstractmethod
    def save_checkpoint(self, folder: str | Path) -> None:
        """Write the decoder alone as a checkpoint folder, which its option ``source`` can then name."""

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
            labels: ``[B, L]``, -100 where the loss shall not count; shifted right for the decoder's input.
            decoder_input_ids: ``[B, L]``, in place of the shifted labels.
        """

    @abstractmethod
    def generate(self, fused: FusedStates, constraint: Any = None, *, jump_forward: bool = True, **options: Any) -> Any:
        """Generate token ids ``[B, L]`` with a key-value cache.

        Args:
            fused: the states to attend over.
            constraint: an ``umie.constrained.Constraint`` on the answers, or None.
            jump_forward: under a constraint, take in tokens that leave no choice without a step of their own,
                where decoding is greedy and the decoder can; the output is the same.
            options: those of transformers' generate.
        """
