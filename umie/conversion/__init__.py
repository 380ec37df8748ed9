"""Convert checkpoints of other code to folders that `UmieModel.from_pretrained` loads."""

from umie.conversion.convert import Conversion, convert_released
from umie.conversion.packages import PACKAGES, convert_package

__all__ = ["PACKAGES", "Conversion", "convert_package", "convert_released"]
