"""The fusion contract: text states and visual states in, the states that the decoder attends over out."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from umie.errors import UmieError, check_share, check_whole
from umie.fusion.attention import AUTO, MultiHeadAttention, check_backend, head_width
from umie.fusion.kernels.conditions import without_padding
from umie.types import FusedStates, bool_mask


@dataclass(frozen=True, kw_only=True)
class WidthConfig:
    """The widths that fusions and the visual embedding share; a model fills them in from its decoder.

    Args:
        d_model: width D of text and visual states.
        num_heads: attention heads H.
        head_dim: width of a head; defaults to d_model / num_heads.
        d_ff: inner width of the feed-forward layers, if there are any; defaults to 2 x d_model.
        dropout: dropout probability on the states that a fusion adds to the text states, or a layer to its input.
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
class FusionConfig(WidthConfig):
    """Options of every fusion."""


@dataclass(frozen=True, kw_only=True)
class AttentionFusionConfig(FusionConfig):
    """Options of a fusion in which the text attends over the visual slots.

    Args:
        backend: how attention is computed: ``auto``, or a name from ``umie.fusion.kernels``. All backends compute the
            same values.
        attention_dropout: dropout probability on the attention weights.
    """

    backend: str = AUTO
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_backend(self.backend)
        check_share("attention_dropout", self.attention_dropout, below_one=True)

    def attention(self, *, scaled: bool, output_dropout: float = 0.0) -> MultiHeadAttention:
        """Return the attention layer that these options describe."""
        return MultiHeadAttention(
            self.d_model,
            self.num_heads,
            self.head_dim,
            scaled=scaled,
            dropout=self.attention_dropout,
            output_dropout=output_dropout,
            backend=self.backend,
        )


class Fusion(nn.Module, ABC):
    """One way to combine visual states with text states.

    Every fusion respects its masks: padding never changes a result or a gradient, whatever it holds. A call removes
    NaN, infinite and huge padding before ``forward``. The values of padded states are unspecified. An example whose
    visual mask is all False returns its text states exactly. ``umie.fusion.contract.check_fusion`` checks both.
    """

    Config: ClassVar[type[FusionConfig]] = FusionConfig
    uses_image: ClassVar[bool] = True

    @classmethod
    def training_multipliers(cls, options: Mapping[str, Any]) -> dict[str, float]:
        """Return factors on the learning rate with which a new fusion is trained after ``initialize``, by prefix.

        None by default: the fusion then needs no treatment. See ``TrainingConfig.initialize_fusion``.

        Args:
            options: the options of the fusion.
        """
        return {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        accepted = inspect.signature(cls.forward).parameters.values()
        if not any(one.name == "output_attention" or one.kind == one.VAR_KEYWORD for one in accepted):
            raise UmieError(
                f"{cls.__qualname__}.forward has no argument output_attention: end its arguments with "
                "`*, output_attention=False`; a fusion without attention may ignore it"
            )

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config

    def __call__(
        self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor, *, output_attention: bool = False
    ) -> FusedStates:
        """Fuse a batch, as described in ``forward``; masks of 0 and 1 are converted.

        Raises:
            UmieError: shapes do not match, or a mask has other values.
        """
        inputs = self.without_padding(text, text_mask, visual, visual_mask)
        fused: FusedStates = super().__call__(*inputs, output_attention=output_attention)
        return fused

    def without_padding(
        self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return checked inputs with bool masks and harmless padding; see ``umie.fusion.kernels.conditions``.

        Raises:
            UmieError: as for a call.
        """
        cleaned: list[Tensor] = []
        for name, states, mask in (("text", text, text_mask), ("visual", visual, visual_mask)):
            mask = bool_mask(f"{name}_mask", mask)
            d_model = self.config.d_model
            if not isinstance(states, Tensor) or states.ndim != 3 or states.shape[2] != d_model:
                raise UmieError(f"{name} is {_shape(states)}: pass {name} states [batch, length, {d_model}]")
            if mask.shape != states.shape[:2]:
                raise UmieError(f"{name}_mask is {_shape(mask)}, and {name} is {_shape(states)}: pass [batch, length]")
            cleaned += [without_padding(states, mask), mask]
        if text.shape[0] != visual.shape[0]:
            raise UmieError(f"text has {text.shape[0]} examples, and visual has {visual.shape[0]}: pass equal batches")
        return cleaned[0], cleaned[1], cleaned[2], cleaned[3]

    @abstractmethod
    def forward(
        self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor, *, output_attention: bool = False
    ) -> FusedStates:
        """Fuse a batch.

        Args:
            text: ``[B, T, D]``.
            text_mask: bool ``[B, T]``, True = real.
            visual: ``[B, V, D]``.
            visual_mask: bool ``[B, V]``, True = real.
            output_attention: also return the attention weights, if the fusion has any.

        Returns:
            States ``[B, T', D]`` and their mask; the first T are the text's positions.
        """

    def initialize(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> dict[str, float]:
        """Set weights from the states of a first batch. Optional; call it once, before training.

        Returns:
            The measured values by name; empty if the fusion has nothing to initialize.
        """
        return {}


def _shape(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__
