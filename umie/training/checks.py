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


def has_bfloat16() -> bool:
    """Return whether this machine has instructions for bfloat16 where it trains: on a GPU, or else on the processor."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if torch.backends.mps.is_available():
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # earlier versions of torch
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return any(value is True and "bf16" in name for name, value in torch.cpu.get_capabilities().items())


def uses_bfloat16(config: TrainingConfig) -> bool:
    """Return whether training on this machine uses bfloat16 autocast."""
    return has_bfloat16() if config.bf16 == "auto" else config.bf16


def slow_bfloat16(configs: Sequence[TrainingConfig]) -> str | None:
    """Return a warning if a training run uses bfloat16 autocast on a device without instructions for it, or None."""
    if has_bfloat16() or not any(config.bf16 is True for config in configs):
        return None
    return (
        "training.bf16 is true, but this machine has no instructions for bfloat16, so training takes several times as "
        "long as in float32: use training.bf16=auto, or false"
    )


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
