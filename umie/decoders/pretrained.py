"""Decoders around a model of transformers: where it comes from, its shape and weights, and its text states."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from umie.decoders.base import Decoder, DecoderConfig
from umie.decoders.generation import check_length
from umie.errors import UmieError
from umie.language_models import seq2seq as models
from umie.language_models.sources import check_num_of, check_source, located, with_weights
from umie.weights import reason_of


@dataclass(frozen=True, kw_only=True)
class PretrainedConfig(DecoderConfig):
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


class PretrainedDecoder(Decoder):
    """A decoder around a model of transformers.

    A subclass builds the model (``_build``), loads its weights (``_load``) and encodes texts (``_text_states``).

    Attributes:
        attribute: the attribute that holds the model.
        example: a hub name that error messages suggest.
    """

    Config: ClassVar[type[PretrainedConfig]]
    default_source = "tiny"
    attribute: ClassVar[str]
    example: ClassVar[str]

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.config = config
        try:
            checkpoint = self.checkpoint(config.source) if config.config is None else None
            if checkpoint is not None:
                check_num_of(self._build, checkpoint)
            setattr(self, self.attribute, self._build())
        except (UmieError, ImportError):
            raise
        except Exception as error:  # transformers' configurations raise classes of their own
            raise UmieError(f"decoder {config.source!r}: no model has this shape: {reason_of(error)}") from error

    @abstractmethod
    def _build(self) -> Any:
        """Return the model that the options describe, with random weights."""

    @abstractmethod
    def _load(self, checkpoint: str) -> Any:
        """Return the model with the weights of a checkpoint directory or hub name."""

    @abstractmethod
    def _text_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the states ``[B, T, D]`` of a text that is short enough."""

    @property
    def model(self) -> Any:
        """The model of transformers."""
        return getattr(self, self.attribute)

    @property
    def all_tied_weights_keys(self) -> dict[str, str]:
        """The tied weights, under the names that transformers expects in a model that contains this one."""
        keys = getattr(self.model, "all_tied_weights_keys", None) or {}
        return {f"{self.attribute}.{name}": f"{self.attribute}.{target}" for name, target in keys.items()}

    @property
    def widths(self) -> Mapping[str, int]:
        """``d_model``, ``num_heads``, ``head_dim`` and ``d_ff`` of the encoder."""
        return models.widths_of(self.model)

    @property
    def vocab_size(self) -> int:
        """Number of tokens that the model has rows for."""
        return models.vocab_size_of(self.model)

    @property
    def max_lengths(self) -> tuple[int | None, int | None]:
        """The most tokens of a text and of an answer; None for relative positions, which have no limit."""
        return models.max_lengths_of(self.model)

    @classmethod
    def checkpoint(cls, source: str) -> str | None:
        """Return the directory or hub name of a source's checkpoint, or None for a preset.

        Raises:
            UmieError: the source does not exist, or could be a preset or a checkpoint directory.
        """
        if source in cls.PRESETS:
            if source != cls.default_source and (Path(source) / "config.json").is_file():
                raise UmieError(
                    f"source {source!r} is a preset with random weights, and there is a checkpoint directory of this "
                    f"name: write ./{source} to load it, or rename it"
                )
            return None
        check_source(
            "decoder",
            source,
            [*cls.PRESETS, "a checkpoint directory", f"a hub name such as {cls.example}", "package:NAME"],
        )
        return located(source)

    @classmethod
    def fit_tokenizer(cls, options: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """Return options with ``vocab_size`` set for the tiny preset, unless the options set it."""
        overrides = options.get("overrides", {})
        is_tiny = options.get("source", cls.default_source) == cls.default_source and options.get("config") is None
        if not is_tiny or not isinstance(overrides, Mapping):
            return dict(options)
        return {**options, "overrides": {"vocab_size": len(tokenizer), **overrides}}

    def saved_options(self) -> dict[str, Any]:
        """Return the source, for reference, and the full configuration."""
        return {"source": self.config.source, "config": models.config_values(self.model.config)}

    def load_weights(self) -> None:
        """Load the weights of the source; a preset has none.

        Raises:
            UmieError: the checkpoint cannot be read, or is missing weights.
        """
        checkpoint = self.checkpoint(self.config.source)
        if checkpoint is not None:
            folder = with_weights(self.config.source, checkpoint, self._build)
            setattr(self, self.attribute, self._load(folder))

    def save_checkpoint(self, folder: str | Path) -> None:
        """Write a checkpoint directory in transformers' layout."""
        self.model.save_pretrained(folder)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return text states ``[B, T, D]``.

        Raises:
            UmieError: the text is longer than the model has positions.
        """
        check_length("a text", input_ids.shape[1], self.max_lengths[0], "max_input_tokens")
        return self._text_states(input_ids, attention_mask)

    def _source_values(self, read: Callable[[str, str], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the option ``config``, or the preset's configuration, or that of the source's checkpoint."""
        options = self.config
        checkpoint = self.checkpoint(options.source) if options.config is None else None
        if options.config is not None:
            return dict(options.config)
        return dict(self.PRESETS[options.source] if checkpoint is None else read(options.source, checkpoint))
