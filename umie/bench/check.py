"""Correctness of an operation: its values and gradients against a plain reference in float64 on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from umie.bench.operations import FORWARD, TRAINING, Operation, Weights
from umie.bench.runner import INPUTS, Runner
from umie.bench.shapes import Inputs

VALUES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}  # maximum relative error, by the norm
# In 16 bits the plain equations themselves have errors of up to 2.2e-2, in the weights of the gate.
GRADIENTS = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 1e-2}
# A peer must be correct but need not be as precise as ours.
PEER_GRADIENTS = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 5e-2}
# Gradients below this share of the largest parameter gradient are measured against that share: rounding in the terms
# of their sums can exceed them.
SMALL = 1e-2


@dataclass(frozen=True)
class Expected:
    """The results of a reference."""

    values: Tensor
    gradients: Mapping[str, Tensor]  # by the names of inputs and parameters
    real: Tensor  # bool, the positions of the output that are not padding


@dataclass(frozen=True)
class Errors:
    """Relative errors of an operation, by the norm.

    Args:
        values: error of the output, with or without gradients, whichever is larger.
        gradients: the largest error of a gradient; None if gradients were not computed.
        worst: the name of that gradient.
    """

    values: float
    gradients: float | None = None
    worst: str = ""

    def wrong(self, dtype: torch.dtype, *, peer: bool = False) -> str | None:
        """Return a description of the first error above its bound in a dtype, or None."""
        if not self.values <= VALUES[dtype]:  # `not <=`: NaN is wrong
            return f"wrong: error {self.values:.0e} (at most {VALUES[dtype]:.0e})"
        bound = (PEER_GRADIENTS if peer else GRADIENTS)[dtype]
        if self.gradients is not None and not self.gradients <= bound:
            return f"wrong: error {self.gradients:.0e} in the gradient of {self.worst} (at most {bound:.0e})"
        return None


def expect(operation: Operation, inputs: Inputs, weights: Weights, dtype: torch.dtype) -> Expected:
    """Run the reference in float64, on weights and inputs as ``dtype`` can represent them."""
    assert operation.build_reference is not None
    rounded = {name: value.to(dtype).float() for name, value in weights.items()}
    reference = operation.build_reference(rounded).to("cpu", torch.float64).eval()
    text, visual, grad = (value.to("cpu", torch.float64) for value in (inputs.text, inputs.visual, inputs.grad))
    runner = Runner(reference, Inputs(text, inputs.text_mask.cpu(), visual, inputs.visual_mask.cpu(), grad))
    values = runner.run(TRAINING).detach()
    return Expected(values, runner.gradients(), runner.real(values))


def compare(runner: Runner, expected: Expected, *, training: bool) -> Errors:
    """Run an operation forward, with ``training`` also backward, and return its errors."""
    values = error(runner.run(FORWARD), expected.values, expected.real)
    if not training:
        return Errors(values)
    out = runner.run(TRAINING).detach()
    values = max(values, error(out, expected.values, expected.real), key=lambda value: (value != value, value))
    found, worst, largest = runner.gradients(), "", 0.0
    if len(found) != len(expected.gradients):
        return Errors(values, float("nan"), f"all parameters: {len(found)} of {len(expected.gradients)} are present")
    norms = [float(gradient.norm()) for name, gradient in expected.gradients.items() if name not in INPUTS]
    scale = SMALL * max(norms, default=0.0)
    # A peer and its reference may name parameters differently; their order is then the same.
    names = found if found.keys() == expected.gradients.keys() else expected.gradients
    for (name, gradient), wanted in zip(found.items(), names, strict=True):
        here = error(gradient, expected.gradients[wanted], scale=scale)
        if not here <= largest and largest == largest:  # the first NaN is kept
            worst, largest = name, here
    runner.clear()
    return Errors(values, largest, worst)


def error(found: Tensor, expected: Tensor, real: Tensor | None = None, scale: float = 0.0) -> float:
    """Return the norm of the difference relative to that of ``expected``, or NaN if the shapes differ.

    Args:
        found: on any device, in any dtype.
        expected: in float64, on the CPU.
        real: bool, the positions to compare; by default all.
        scale: divide by this number if it is larger than the norm of ``expected``.
    """
    if found.shape != expected.shape:
        return float("nan")
    difference = found.detach().to("cpu", torch.float64) - expected
    if real is not None:
        difference, expected = difference.masked_fill(~real, 0), expected.masked_fill(~real, 0)
    norm = max(float(expected.norm()), scale)
    return float(difference.norm()) / norm if norm else float(difference.norm())
