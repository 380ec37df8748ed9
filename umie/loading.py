"""Loading a saved variant and its processor onto a device."""

from __future__ import annotations

from pathlib import Path

import torch

from umie.errors import UmieError, UnknownNameError, check_choice, one_line
from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.registries import ALL
from umie.tokenization import check_vocabulary

DTYPES = ("float32", "bfloat16", "float16")


def load(
    name: str | Path, device: str | None = None, dtype: str = "float32", *, revision: str | None = None
) -> tuple[UmieModel, UmieProcessor]:
    """Return the model, in evaluation mode, and the processor that ``save_pretrained`` wrote to one directory.

    Args:
        name: the directory, or the name of a repository on the Hugging Face Hub, ``owner/model``.
        device: e.g. ``cpu`` or ``cuda:1``; by default a GPU if there is one.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        revision: branch, tag or commit of the repository; by default its main branch.

    Raises:
        UmieError: there is no such directory or repository, a file is missing, a part is registered by a
            plugin that is not loaded, or the device cannot be used.
    """
    check_choice("dtype", dtype, DTYPES)
    options = {} if revision is None else {"revision": revision}
    try:
        processor = UmieProcessor.from_pretrained(name, **options)
        model: UmieModel = UmieModel.from_pretrained(str(name), dtype=getattr(torch, dtype), **options)
    except UnknownNameError as error:
        if any(f"Unknown {registry.kind} " in str(error) for registry in ALL.values()):
            place = "" if str(name) in str(error) else f"{name}: "
            raise UmieError(
                f"{place}{error} If a plugin file registers it, use --plugin FILE, or umie.registry.load_plugins."
            ) from error
        raise
    check_vocabulary(processor.tokenizer, model.decoder.vocab_size, str(name))
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device is None else device
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:  # an unknown name, or a device that does not exist
        reason = one_line(error)
        raise UmieError(f"device {device!r} cannot be used: {reason}; use cpu or an existing device") from error
    return model.eval(), processor
