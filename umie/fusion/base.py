"""The fusion contract: text states and visual states in, the states that the decoder attends over out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from umie.errors import check_share, check_whole
from umie.fusion.attention import AUTO, MultiHeadAttention, check_backend, head_width
from umie.types import FusedStates


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """Options that every fusion has; a model fills in the widths from its decoder.

    Args:
        d_model: width D of text and visual states.
        num_heads: attention heads H.
        head_dim: width of a head; None takes d_model / num_heads.
        d_ff: inner width of a feed-forward layer, where the fusion has one; None takes 2 x d_model.
        dropout: on what the fusion adds to the text states.
    """

    d_model: int
    num_heads: int
    head_dim: int | None = None
    d_ff: int | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("d_model", "num_heads"):
            check_whole(name, getattr(self, name), 1)
        for name in ("head_dim", "d_ff"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        check_share("dropout", self.dropout, below_one=True)
        head_width(self.d_model, self.num_heads, self.head_dim)


@dataclass(frozen=True, kw_only=True)
class AttentionFusionConfig(FusionConfig):
    """Options of a fusion in which the text attends over the visual slots.

    Args:
        backend: how attention is computed: ``auto``, or a name of ``umie.fusion.kernels``; values are the same.
        attention_dropout: share of attention weights dropped while training.
    """

    backend: str = AUTO
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_backend(self.backend)
        check_share("attention_dropout", self.attention_dropout, below_one=True)

    def attention(self, *, scaled: bool) -> MultiHeadAttention:
        """Return the attention layer that these options describe."""
        return MultiHeadAttention(
            self.d_model,
            self.num_heads,
            self.head_dim,
            scaled=scaled,
            dropout=self.attention_dropout,
            backend=self.backend,
        )


class Fusion(nn.Module, ABC):
    """One way of bringing visual states into text states.

    Every fusion is masked (padding changes nothing), and an example whose visual mask is all False comes out
    as its text states, exactly.
    """

    Config: ClassVar[type[FusionConfig]] = FusionConfig
    uses_image: ClassVar[bool] = True

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def forward(
        self,
        text: Tensor,
        text_mask: Tensor,
        visual: Tensor,
        visual_mask: Tensor,
        *,
        output_attention: bool = False,
    ) -> FusedStates:
        """Fuse a batch.

        Args:
            text: ``[B, T, D]``.
            text_mask: bool ``[B, T]``, True = real.
            visual: ``[B, V, D]``.
            visual_mask: bool ``[B, V]``, True = real.
            output_attention: return the attention weights too, where the fusion has any.
        """

    def initialize(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> dict[str, float]:
        """Set weights from the states of a first batch; call it once, before training, if at all.

        Returns:
            What was measured and set, by name; empty where the fusion has nothing to set.
        """
        return {}
