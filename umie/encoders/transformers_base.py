"""Base of the encoders around models of transformers: configuration, preparation of inputs, weights."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import nn
from transformers import AutoConfig, AutoModel

from umie.checkpoints import check_config
from umie.encoders.tower import BackboneConfig, BackboneEncoder
from umie.errors import UmieError, at, check_kind, check_text, shown
from umie.files import read_json
from umie.hub import hub_folder
from umie.language_models.seq2seq import config_values, pretrained
from umie.language_models.sources import (
    PACKAGE,
    check_complete,
    check_num_of,
    check_source,
    located,
    no_warnings,
    read_config,
    with_weights,
)
from umie.weights import reason_of

KIND = "encoder"


@dataclass(frozen=True)
class Family:
    """A kind of model: how it is built, and which part of it is used.

    Args:
        model: the class in transformers, if it is not what AutoModel builds.
        module: the path of the encoder in that model; "" for the model itself.
        head: the path of the projection to the space of several media, if there is one.
        frozen: the paths of parts, in the tower, that the model runs without gradients.
        unused: values of the configuration that make the rest of the model small, or switch it off.
    """

    model: str | None = None
    module: str = ""
    head: str = ""
    frozen: tuple[str, ...] = ()
    unused: Mapping[str, Any] = field(default_factory=dict)

    def tower(self, model: nn.Module) -> nn.Module:
        """Return the part of a model that is used: the encoder, or ``encoder`` and ``head``."""
        encoder = model.get_submodule(self.module)
        return nn.ModuleDict({"encoder": encoder, "head": model.get_submodule(self.head)}) if self.head else encoder

    def width(self, shape: Mapping[str, Any]) -> int:
        """Return the width of the features of a model of this configuration."""
        return int(shape["hidden_size"])


@dataclass(frozen=True)
class Whole:
    """A kind of checkpoint that contains a model of a family: the paths of its configuration and of the model."""

    config: str
    module: str


@dataclass(frozen=True, kw_only=True)
class TransformersConfig(BackboneConfig):
    """Options of every encoder around a model of transformers.

    Args:
        source: a checkpoint directory, a hub name, or ``package:NAME``; None for random weights, with ``config``.
        config: the transformers configuration of the encoder, used instead of the source's; saved models contain it.
        preparation: how inputs are prepared, as in preprocessor_config.json, used instead of the source's; saved models
            contain it.
    """

    FINGERPRINT_EXCLUDE: ClassVar[frozenset[str]] = BackboneConfig.FINGERPRINT_EXCLUDE | {"source"}
    weights_option: ClassVar[str | None] = "source"
    FAMILIES: ClassVar[Mapping[str, Any]] = {}
    WHOLES: ClassVar[Mapping[str, Whole]] = {}
    PREPARED_BY: ClassVar[tuple[tuple[str, str | None], ...]] = ()  # files, and the key in a file of several

    source: str | None = None
    config: Mapping[str, Any] | None = None
    preparation: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text("source", self.source)
        for name in ("config", "preparation"):
            value = getattr(self, name)
            if value is not None:
                check_kind(name, value, Mapping, "use a mapping")
                with at(name):
                    check_config(value)
        if self.source is None and self.config is None:
            raise UmieError(
                "source is not set: set it to a checkpoint directory, a hub name or package:NAME, or set config to the "
                "configuration of a model of transformers for random weights"
            )

    @cached_property
    def shape(self) -> Mapping[str, Any]:
        """The configuration of the encoder, as plain values."""
        if self.config is None:
            source = str(self.source)
            check_source(KIND, source, ["a checkpoint directory", "a hub name", f"{PACKAGE}NAME"])
            whole = read_config(source, located(source), KIND)
            part = self.WHOLES.get(whole.model_type)
            inner: Any = whole
            for name in part.config.split(".") if part else ():
                inner = getattr(inner, name)
            values = config_values(inner)
        else:
            values = dict(self.config)
        if values.get("model_type") not in self.FAMILIES:
            known = ", ".join(sorted({*self.FAMILIES, *self.WHOLES}))
            raise UmieError(f"{self._name} is of the kind {shown(values.get('model_type'))}: use one of {known}")
        for name, unused in self.FAMILIES[values["model_type"]].unused.items():
            values[name] = {**(values.get(name) or {}), **unused} if isinstance(unused, Mapping) else unused
        try:
            return config_values(AutoConfig.for_model(**values))  # with the defaults
        except Exception as error:  # a value of a wrong kind makes transformers raise nearly anything
            raise UmieError(f"{self._name}: its configuration cannot be used: {reason_of(error)}") from error

    @cached_property
    def prepared(self) -> Mapping[str, Any]:
        """How inputs are prepared, as in preprocessor_config.json."""
        if self.preparation is not None or self.source is None:
            return dict(self.preparation or {})
        checkpoint = located(self.source)
        folder = Path(checkpoint) if Path(checkpoint).is_dir() else hub_folder(checkpoint)
        for name, key in self.PREPARED_BY:
            path = folder / name
            values = read_json(path, "a JSON object", allow_nan=True) if path.is_file() else None
            if isinstance(values, Mapping) and key is not None:
                values = values.get(key)
            if isinstance(values, Mapping):
                with at(str(path)):
                    check_config(values)
                return dict(values)
        raise UmieError(f"{self._name} does not say how inputs are prepared: save its preprocessor_config.json there")

    @property
    def _name(self) -> str:
        return "config" if self.source is None else f"source {self.source!r}"

    @property
    def family(self) -> Any:
        """The family of the model."""
        return self.FAMILIES[self.shape["model_type"]]

    @property
    def feature_dim(self) -> int:
        """Width of the features."""
        return int(self.family.width(self.shape))

    def identity(self) -> dict[str, Any]:
        """Return the options that features depend on."""
        return {**super().identity(), "config": dict(self.shape), "preparation": dict(self.prepared)}


class TransformersEncoder(BackboneEncoder):
    """An encoder around a model of transformers, frozen unless the configuration says ``trainable``."""

    config: TransformersConfig

    def __init__(self, config: TransformersConfig) -> None:
        build = partial(built, config.shape, config.family)
        if config.config is None:
            check_num_of(build, located(str(config.source)))
        super().__init__(config, build())

    def load_weights(self) -> None:
        """Load the weights of the source; only safetensors are read, and no code of the checkpoint is run."""
        source = self.config.source
        if source is None:
            return
        family = self.config.family
        folder = with_weights(source, located(source), partial(built, self.config.shape, family))
        config = read_config(source, folder, KIND)
        whole = self.config.WHOLES.get(config.model_type)
        kind = AutoModel if whole or family.model is None else _class(family.model)
        with redirect_stdout(None), no_warnings():  # of weights that are not used; PE-AV prints what its docs lack
            loaded, missing = pretrained(kind, source, folder, config, KIND)
        tower = family.tower(loaded.get_submodule(whole.module) if whole else loaded)
        used = {id(value) for value in tower.state_dict(keep_vars=True).values()}
        names = {name for name, value in loaded.state_dict(keep_vars=True).items() if id(value) in used}
        check_complete(source, names & missing, KIND)
        own = self.tower.state_dict()
        state = {name: value for name, value in tower.state_dict().items() if name in own}
        self.load_tower(state, f"{KIND} {source!r}")
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; what the model runs without gradients is never trained."""
        super().train(mode)
        for name in self.config.family.frozen:
            self.tower.get_submodule(name).requires_grad_(False)
        return self

    def saved_options(self) -> dict[str, Any]:
        """Return what the source determines, so that a saved model does not need it."""
        return {"config": dict(self.config.shape), "preparation": dict(self.config.prepared)}


def built(values: Mapping[str, Any], family: Family) -> nn.Module:
    """Return the tower of this configuration with random weights.

    Raises:
        UmieError: a value cannot be meant.
        Exception: an error of transformers, if no model has these values.
    """
    check_config(values)
    config = AutoConfig.for_model(**values)
    with redirect_stdout(None):  # building PE-AV prints what its docs lack
        if family.model is None:
            return family.tower(AutoModel.from_config(config, trust_remote_code=False))
        return family.tower(_class(family.model)(config))


def _class(name: str) -> Any:
    import transformers

    return getattr(transformers, name)
