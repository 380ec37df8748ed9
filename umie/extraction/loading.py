"""A saved variant and its processor, put on a device."""

from __future__ import annotations

from pathlib import Path

import torch

from umie.errors import UmieError, check_choice
from umie.model import UmieModel
from umie.processor import UmieProcessor

DTYPES = ("float32", "bfloat16", "float16")


def load_checkpoint(
    folder: str | Path, device: str | None = None, dtype: str = "float32"
) -> tuple[UmieModel, UmieProcessor]:
    """Load a folder that ``model.save_pretrained`` and ``processor.save_pretrained`` wrote.

    Args:
        folder: the folder.
        device: e.g. ``cpu``, ``cuda:1``; by default a GPU where there is one.
        dtype: ``float32``, ``bfloat16`` or ``float16``.

    Returns:
        The model, in evaluation mode, and its processor.

    Raises:
        UmieError: there is no such folder, it is incomplete, or the device cannot be used.
    """
    check_choice("dtype", dtype, DTYPES)
    if not Path(folder).is_dir():
        raise UmieError(f"{folder}: no such folder; give one with a saved model and its processor")
    processor = UmieProcessor.from_pretrained(folder)
    model: UmieModel = UmieModel.from_pretrained(str(folder), dtype=getattr(torch, dtype))
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device is None else device
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:  # an unknown name; a device that is not there
        reason = " ".join(str(error).split())
        raise UmieError(f"device {device!r} cannot be used: {reason}; give cpu, or one that is there") from error
    return model.eval(), processor
