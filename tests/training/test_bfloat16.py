"""bfloat16 where it is fast: ``bf16: auto``, and the warning about a machine on which it is slow."""

import pytest
import torch

from umie.evaluation import QueryDataset
from umie.experiments.expand import read_grid
from umie.experiments.scheduler import prepare
from umie.experiments.tally import Silent
from umie.training import TrainingConfig, slow_bfloat16, train, uses_bfloat16
from umie.training.checks import has_bfloat16

GRID = """
data: {format: synthetic, train: 8, test: 4}
tasks: [mner]
training: {max_steps: 1, bf16: %s}
"""


@pytest.fixture(params=[{"avx2": True, "amx_bf16": True}, {"neon": True, "bf16": True}], ids=["x86", "arm"])
def fast(request, monkeypatch):
    """A machine with instructions for bfloat16 and no GPU."""
    _pretend(monkeypatch, request.param)


@pytest.fixture
def slow(monkeypatch):
    """A machine without instructions for bfloat16 and without a GPU."""
    _pretend(monkeypatch, {"avx512_f": True, "amx_bf16": False, "avx512_bf16": False, "l2_cache_size": 1})


def _pretend(monkeypatch, capabilities):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)


def test_auto_follows_the_machine(fast):
    assert has_bfloat16()
    assert uses_bfloat16(TrainingConfig(bf16="auto"))
    assert not uses_bfloat16(TrainingConfig())
    assert slow_bfloat16([TrainingConfig(bf16=True)]) is None


def test_auto_is_float32_without_the_instructions(slow):
    assert not has_bfloat16()
    assert not uses_bfloat16(TrainingConfig(bf16="auto"))
    assert uses_bfloat16(TrainingConfig(bf16=True))


def test_only_training_that_is_slow_is_warned_about(slow):
    assert slow_bfloat16([TrainingConfig(), TrainingConfig(bf16="auto")]) is None
    assert "use training.bf16=auto" in slow_bfloat16([TrainingConfig(), TrainingConfig(bf16=True)])


class _Notes(Silent):
    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)


@pytest.mark.parametrize(("value", "number"), [("true", 1), ("auto", 0)])
def test_a_grid_warns_before_it_trains(slow, tmp_path, value, number):
    path = tmp_path / "grid.yaml"
    path.write_text(GRID % value)
    notes = _Notes()
    prepare(read_grid(path), tmp_path, tmp_path / "out", notes)
    assert sum("no instructions for bfloat16" in line for line in notes.lines) == number


@pytest.mark.parametrize(("bf16", "expected"), [("auto", False), (True, True)])
def test_training_uses_what_was_decided(slow, variant, learned_records, bf16, expected):
    model, processor = variant(fusion="text_only")
    seen = []
    model.decoder.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    config = TrainingConfig(max_steps=1, batch_size=2, bf16=bf16)
    train(model, processor, QueryDataset(learned_records[:2], ["mner"], processor), config)
    assert set(seen) == {expected}
