"""The models that a run leaves: `last` and `best`, folders that load anywhere, without the state of the training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from umie.files import atomic_folder

if TYPE_CHECKING:
    from umie.model import UmieModel
    from umie.processor import UmieProcessor

BEST, LAST = "best", "last"
ADAPTER = "adapter"


def export(model: UmieModel, processor: UmieProcessor, folder: Path) -> None:
    """Write model and processor; an adapter is merged into the weights, and written alone beside them, too."""
    from umie.training import has_adapter, merged, save_adapter

    with atomic_folder(folder) as partial:
        if has_adapter(model):
            save_adapter(model, partial / ADAPTER)
            model = merged(model)
        model.save_pretrained(str(partial))
        processor.save_pretrained(partial)


def load_checkpoint_weights(model: UmieModel, checkpoint: Path) -> None:
    """Put the weights of a checkpoint of the run into its model."""
    from safetensors.torch import load_file

    state = load_file(checkpoint / "model.safetensors")
    missing, unexpected = model.load_state_dict(state, strict=False)
    tied = set(model.all_tied_weights_keys)
    if unexpected or set(missing) - tied:
        raise RuntimeError(f"{checkpoint} is of another model: {sorted({*unexpected, *missing} - tied)[:3]}")
