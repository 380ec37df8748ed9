"""Convert checkpoints of other code to folders that `UmieModel.from_pretrained` loads."""

from umie.conversion.convert import Conversion, convert_released

__all__ = ["Conversion", "convert_released"]
