"""Windows over a sound, for models that hear a limited time, and not less than a tenth of a second."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

WINDOW_S = 30.0
SHORTEST_S = 0.1


def windows(samples: NDArray[np.float32], rate: int) -> Iterator[NDArray[np.float32]]:
    """Yield the samples in windows of 30 s; a sound that is too short is padded with silence.

    The rest after the last window is left out if it is too short to be heard by itself.
    """
    size, shortest = round(WINDOW_S * rate), round(SHORTEST_S * rate)
    for start in range(0, max(1, len(samples)), size):
        window = samples[start : start + size]
        if len(window) < shortest and start:
            return
        yield np.pad(window, (0, max(0, shortest - len(window))))
