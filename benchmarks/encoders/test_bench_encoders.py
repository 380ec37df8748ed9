"""Time of the visual encoders over one image with 36 regions: `make bench`; a row is timed only if it is right.

Rows one after another, as pytest-benchmark has it: compare rows of one run only, on an idle machine. ``report.py``
next to this file takes the rows in turn, and writes the table.
"""

from __future__ import annotations

import pytest
import torch
import torchvision
from rows import rows

ROWS = rows()


@pytest.mark.parametrize("name", ROWS)
def test_encoder(benchmark, name):
    row = ROWS[name]
    row.check()
    benchmark.extra_info |= {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "threads": torch.get_num_threads(),
        "pixels": row.num_pixels() if row.num_pixels else None,
    }
    benchmark.group = name.split()[0].rstrip(",")
    benchmark.pedantic(row.run, rounds=5, warmup_rounds=1)
