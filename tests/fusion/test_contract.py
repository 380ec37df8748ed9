"""`check_fusion` accepts every fusion and names each way to break the contract."""

import time

import pytest
import torch
from torch import nn

from umie.errors import UmieError
from umie.fusion import FusedStates, Fusion, FusionConfig, registry
from umie.fusion.contract import check_fusion
from umie.registry import load_plugins

OPTIONS = [
    {"name": "gated", "residual": "released"},
    {"name": "gated", "gate": 0.05},
    *({"name": name} for name in registry.known()),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_every_fusion_passes(options, dtype):
    torch.manual_seed(0)
    check_fusion(registry.build(d_model=16, num_heads=2, **options).to(dtype), gradients=True)


def test_the_example_passes(request, monkeypatch):
    parts = {name: part for name, part in registry._parts.items() if name != "mean_add"}  # of another test
    monkeypatch.setattr(registry, "_parts", parts)
    monkeypatch.setattr("umie.registry._loaded", {})
    load_plugins([request.config.rootpath / "examples" / "own_fusion.py"])
    check_fusion(registry.build("mean_add", d_model=16, num_heads=2))


def test_a_fusion_accepts_the_argument_of_the_contract():
    with pytest.raises(UmieError, match=r"Plain\.forward has no argument output_attention: end its arguments with"):

        class Plain(Fusion):
            def forward(self, text, text_mask, visual, visual_mask):
                return FusedStates(text, text_mask)


class Sound(Fusion):
    """Adds the mean visual state to every text state; each subclass breaks one rule."""

    def __init__(self):
        super().__init__(FusionConfig(d_model=8, num_heads=2))
        self.project = nn.Linear(8, 8, bias=False)

    def mean(self, visual, mask):
        weights = mask[..., None].to(visual.dtype)
        return (visual * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=1)

    def forward(self, text, text_mask, visual, visual_mask, *, output_attention=False):
        return FusedStates(text + self.project(self.mean(visual, visual_mask)), text_mask)


class Raises(Sound):
    def forward(self, *inputs, **options):
        return torch.zeros(2) + torch.zeros(3)


class ReturnsTensor(Sound):
    def forward(self, *inputs, **options):
        return super().forward(*inputs).states


class Changed(Sound):
    """Returns the sound result after ``change(states, mask, visual_mask)``."""

    def forward(self, text, text_mask, visual, visual_mask, *, output_attention=False):
        fused = super().forward(text, text_mask, visual, visual_mask)
        return FusedStates(*self.change(fused.states, fused.mask, visual_mask))


class Pools(Changed):
    def change(self, states, mask, visual_mask):
        return states.mean(1, keepdim=True), mask[:, :1]


class Narrow(Changed):
    def change(self, states, mask, visual_mask):
        return states[..., :4], mask


class Double(Changed):
    def change(self, states, mask, visual_mask):
        return states.double(), mask


class FloatMask(Changed):
    def change(self, states, mask, visual_mask):
        return states, mask.float()


class LongMask(Changed):
    def change(self, states, mask, visual_mask):
        return states, torch.cat([mask, visual_mask], 1)


class AllReal(Changed):
    def change(self, states, mask, visual_mask):
        return states, torch.ones_like(mask)


class Infinite(Changed):
    def change(self, states, mask, visual_mask):
        return states / 0, mask


class ScalarGate(Sound):
    def forward(self, *inputs, **options):
        fused = super().forward(*inputs)
        return FusedStates(fused.states, fused.mask, gate=torch.tensor(0.5))


class ReadsPadding(Sound):
    """Reads padded slots, except in an example without an image."""

    def mean(self, visual, mask):
        return visual.mean(1, keepdim=True) * mask.any(1)[:, None, None]


class ReadsOtherExamples(Sound):
    def mean(self, visual, mask):
        own = super().mean(visual, mask)
        return (own + own.mean(0, keepdim=True)) * mask.any(1)[:, None, None]


class AddsWithoutImage(Sound):
    def mean(self, visual, mask):
        return super().mean(visual, mask) + 1e-3


class Rescales(Changed):
    """Rounding that only an exact comparison sees."""

    def change(self, states, mask, visual_mask):
        return (states / 3) * 3, mask


BROKEN = [
    (Raises, r"raises on text \[3, 5, 8\] and visual \[3, 4, 8\]: RuntimeError: The size"),
    (ReturnsTensor, "returns Tensor"),
    (Pools, r"states have the shape \[3, 1, 8\]"),
    (Narrow, r"states have the shape \[3, 5, 4\]"),
    (Double, "dtype torch.float64.*torch.float32"),
    (FloatMask, r"mask is torch.float32 \[3, 5\]"),
    (LongMask, r"mask is torch.bool \[3, 9\].*torch.bool \[3, 5\]"),
    (AllReal, "first 5 columns of the mask"),
    (Infinite, "not finite"),
    (ScalarGate, r"gate has the shape \[\]"),
    (ReadsPadding, "depend on its padding"),
    (ReadsOtherExamples, "other examples"),
    (AddsWithoutImage, "without an image"),
    (Rescales, "without an image"),
]


def test_the_basis_of_the_broken_fusions_is_sound():
    check_fusion(Sound())


@pytest.mark.parametrize(("broken", "message"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_fusion_is_named_with_its_fault(broken, message):
    with pytest.raises(UmieError, match=f"^fusion {broken.__name__}: .*{message}"):
        check_fusion(broken())


class Detached(Sound):
    def mean(self, visual, mask):
        return super().mean(visual.detach(), mask)


class Unused(Sound):
    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(8, 8, bias=False)


@pytest.mark.parametrize(("broken", "name"), [(Detached, "visual states"), (Unused, "parameter spare.weight")])
def test_a_missing_gradient_is_named_on_request(broken, name):
    check_fusion(broken())
    with pytest.raises(UmieError, match=f"^fusion {broken.__name__}: no gradient reaches the {name}"):
        check_fusion(broken(), gradients=True)


def test_leaves_mode_weights_and_random_state_unchanged():
    class Dropping(Sound):
        def forward(self, text, text_mask, visual, visual_mask, *, output_attention=False):
            torch.rand(3)
            assert not self.training
            return super().forward(nn.functional.dropout(text, 0.5, self.training), text_mask, visual, visual_mask)

    fusion = Dropping().train()
    state = torch.get_rng_state()
    check_fusion(fusion, gradients=True)
    assert fusion.training
    assert fusion.project.training
    assert fusion.project.weight.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_is_fast():
    fusion = registry.build("gated", d_model=768, num_heads=12, residual="released")
    check_fusion(fusion)
    before = time.process_time()
    check_fusion(fusion)
    assert time.process_time() - before < 0.5  # about 0.02 on one core
