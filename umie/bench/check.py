"""An operation is timed only if it is right: its values and gradients against a plain twin in float64 on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from umie.bench.operations import FORWARD, TRAINING, Operation, Weights
from umie.bench.runner import INPUTS, Runner, rounded
from umie.bench.shapes import Inputs

VALUES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}  # most relative error, in the norm
# 16 bits: what the plain equations in bfloat16 have themselves, 2.2e-2 at most, in the weights of the gate.
GRADIENTS = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 1e-2}
# A peer must compute the right thing, and need not be as exact as ours.
PEER_GRADIENTS = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 5e-2}
# Of the largest gradient of a parameter: smaller ones are measured against this, as rounding in what they are summed
# from may be larger than they are.
SMALL = 1e-2


@dataclass(frozen=True)
class Expected:
    """What an operation shall give.

    Args:
        values: the output.
        gradients: by the names of inputs and parameters.
        real: which places of the output count.
    """

    values: Tensor
    gradients: Mapping[str, Tensor]
    real: Tensor


@dataclass(frozen=True)
class Errors:
    """By how much an operation differs from its twin, relative to the norm.

    Args:
        values: of the output, with and without gradients; the larger of the two.
        gradients: the largest of all gradients; None where none could be asked for.
        worst: whose gradient that is.
    """

    values: float
    gradients: float | None = None
    worst: str = ""

    def wrong(self, dtype: torch.dtype, *, peer: bool = False) -> str | None:
        """Return what is wrong, as it stands in a table; None if nothing is.

        Args:
            dtype: what was computed in.
            peer: hold the gradients to the peers' bound.
        """
        if not self.values <= VALUES[dtype]:  # as `not <=`: NaN is wrong
            return f"wrong: error {self.values:.0e} (at most {VALUES[dtype]:.0e})"
        most = (PEER_GRADIENTS if peer else GRADIENTS)[dtype]
        if self.gradients is not None and not self.gradients <= most:
            return f"wrong: error {self.gradients:.0e} in the gradient of {self.worst} (at most {most:.0e})"
        return None


def expect(operation: Operation, inputs: Inputs, weights: Weights, dtype: torch.dtype) -> Expected:
    """Run the twin in float64 on what ``dtype`` can hold of weights and inputs."""
    assert operation.exact is not None
    twin = operation.exact(rounded(weights, dtype)).to("cpu", torch.float64).eval()
    text, visual, grad = (value.to("cpu", torch.float64) for value in (inputs.text, inputs.visual, inputs.grad))
    runner = Runner(twin, Inputs(text, inputs.text_mask.cpu(), visual, inputs.visual_mask.cpu(), grad))
    values = runner.run(TRAINING).detach()
    return Expected(values, runner.gradients(), runner.real(values))


def compare(runner: Runner, expected: Expected, *, training: bool) -> Errors:
    """Run an operation in both directions and measure its errors.

    Args:
        runner: the operation.
        expected: what its twin gives.
        training: ask for gradients too.
    """
    values = error(runner.run(FORWARD), expected.values, expected.real)
    if not training:
        return Errors(values)
    out = runner.run(TRAINING).detach()
    values = max(values, error(out, expected.values, expected.real), key=lambda value: (value != value, value))
    found, worst, largest = runner.gradients(), "", 0.0
    if len(found) != len(expected.gradients):
        return Errors(values, float("nan"), f"all: it has {len(found)} of {len(expected.gradients)}")
    norms = [float(gradient.norm()) for name, gradient in expected.gradients.items() if name not in INPUTS]
    scale = SMALL * max(norms, default=0.0)
    # A peer and its twin may call their parameters by other names; they then come in the same order.
    names = found if found.keys() == expected.gradients.keys() else expected.gradients
    for (name, gradient), wanted in zip(found.items(), names, strict=True):
        here = error(gradient, expected.gradients[wanted], scale=scale)
        if not here <= largest and largest == largest:  # the first that is NaN stays
            worst, largest = name, here
    runner.clear()
    return Errors(values, largest, worst)


def error(found: Tensor, expected: Tensor, real: Tensor | None = None, scale: float = 0.0) -> float:
    """Return the norm of the difference by that of ``expected``, or by ``scale`` if that is larger; NaN at odds.

    Args:
        found: on any device, in any dtype.
        expected: in float64, on the CPU.
        real: bool, which places count; all by default.
        scale: the least norm to divide by.
    """
    if found.shape != expected.shape:
        return float("nan")
    difference = found.detach().to("cpu", torch.float64) - expected
    if real is not None:
        difference, expected = difference.masked_fill(~real, 0), expected.masked_fill(~real, 0)
    norm = max(float(expected.norm()), scale)
    return float(difference.norm()) / norm if norm else float(difference.norm())
