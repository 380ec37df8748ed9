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
