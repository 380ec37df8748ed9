"""Checks of training options, without the Trainer of transformers, whose import takes seconds."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from umie.errors import UmieError, UnknownNameError, check_keys
from umie.model import UmieModel
from umie.training.config import TrainingConfig
from umie.training.parts import adapt, freeze

# integrations that transformers lists as available if they are installed; others are asked by their callback
_LISTED = ("azure_ml", "comet_ml", "mlflow", "neptune", "tensorboard", "wandb", "codecarbon", "clearml", "dagshub",
           "dvclive", "trackio", "swanlab")  # fmt: skip


def check_training(config: TrainingConfig, model: UmieModel | None = None) -> None:
    """Check training options before anything is loaded.

    Args:
        config: the training options.
        model: a model without weights, e.g. on the device ``meta``, which is changed: parameters are frozen and an
            adapter is inserted. None checks only what does not depend on the model.

    Raises:
        UmieError: the backend of torch.compile is unknown, the adapter cannot be inserted, nothing is left to train, or
            no parameter has a name in ``freeze``.
    """
    backend = config.torch_compile
    if isinstance(backend, str) and backend not in (known := torch._dynamo.list_backends(exclude_tags=())):
        raise UnknownNameError("torch.compile backend", backend, known)
    if model is not None:
        freeze(model, config.freeze, allow_all=config.adapter is not None)
        if config.adapter is not None:
            try:
                adapt(model, config.adapter)
            except ImportError as error:
                raise UmieError(str(error)) from error


def check_reporters(names: Sequence[str]) -> None:
    """Raise UmieError unless every integration of ``report_to`` is known to transformers and installed."""
    if not names or list(names) in (["all"], ["none"]):
        return  # without importing all of them, which takes seconds
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    for name in names:
        check_keys("integration", [name], INTEGRATION_TO_CALLBACK)
        if name not in get_available_reporting_integrations() and name in _LISTED:
            raise UmieError(f"{name} is not installed: install it (pip install {name}), or remove it")
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except Exception as error:  # each raises its own kind
            raise UmieError(f"{name} cannot be used: {' '.join(str(error).split())}") from error
