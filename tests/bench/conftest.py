"""What the benchmarks' tests share: a size that is measured in no time."""

import pytest

from umie.bench import shapes


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """FLAN-T5 in small: ``Shape(size="tiny", ...)``."""
    monkeypatch.setitem(shapes.SIZES, "tiny", (32, 2, 16, 64))
