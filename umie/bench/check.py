"""An operation that is ready to run, and its correctness: values and gradients against a plain reference in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from umie.bench.operations import FORWARD, TRAINING, Operation, Ours, Weights
from umie.bench.shapes import Inputs

INPUTS = ("text", "visual")  # the inputs that have gradients
WARM_UP = 3  # runs before a CUDA graph is recorded
VALUES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}  # maximum relative error, by the norm
# In 16 bits the plain equations themselves have errors of up to 2.2e-2, in the weights of the gate.
GRADIENTS = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 1e-2}
# A peer must be correct but need not be as precise as ours.
PEER_GRADIENTS = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 5e-2}
# Gradients below this share of the largest parameter gradient are measured against that share: rounding in the terms
# of their sums can exceed them.
SMALL = 1e-2


class Runner:
    """A module that maps ``text, text_mask, visual, visual_mask`` to one tensor, and its inputs."""

    def __init__(self, module: nn.Module, inputs: Inputs, variant: str = "eager") -> None:
        self.module, self.inputs, self.variant = module, inputs, variant
        self._call: Callable[..., Tensor] = torch.compile(module, fullgraph=True) if variant == "compiled" else module
        self._text = inputs.text.detach().requires_grad_()
        self._visual = inputs.visual.detach().requires_grad_()
        self._grad: Tensor | None = None
        self._graphs: dict[str, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def run(self, direction: str) -> Tensor:
        """Run once and return the output; ``gradients`` returns the gradients of the backward pass."""
        if self.variant == "graph":
            graph, out = self._recorded(direction)
            graph.replay()
            return out
        return self._run(direction)

    def _run(self, direction: str) -> Tensor:
        inputs = self.inputs
        if direction == FORWARD:
            with torch.no_grad():
                return self._call(inputs.text, inputs.text_mask, inputs.visual, inputs.visual_mask)
        self.clear()
        out = self._call(self._text, inputs.text_mask, self._visual, inputs.visual_mask)
        torch.autograd.backward(out, self._grad_of(out))
        return out

    def clear(self) -> None:
        """Release the memory of the gradients; a CUDA graph keeps its own."""
        if self._graphs:
            return
        for leaf in self._leaves().values():
            leaf.grad = None

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients of the last run by the names of inputs and parameters."""
        return {name: leaf.grad for name, leaf in self._leaves().items() if leaf.grad is not None}

    def _leaves(self) -> dict[str, Tensor]:
        # the parameters of our fusions are named like those of their references
        module = self.module.fusion if isinstance(self.module, Ours) else self.module
        return {"text": self._text, "visual": self._visual, **dict(module.named_parameters())}

    def real(self, out: Tensor) -> Tensor:
        """Return a mask of the positions of an output that are not padding; it broadcasts against the output."""
        inputs = self.inputs
        if out.ndim < 3:
            return torch.ones_like(out, dtype=torch.bool)
        mask = inputs.text_mask
        if out.shape[1] != mask.shape[1]:  # only our fusions may lengthen the text
            if not isinstance(self.module, Ours):
                raise RuntimeError(f"{type(self.module).__name__} changes the number of states")
            with torch.no_grad():
                mask = self.module.fusion(inputs.text, mask, inputs.visual, inputs.visual_mask).mask
        return mask[..., None]

    def _grad_of(self, out: Tensor) -> Tensor:
        """Return the gradient passed to ``backward``; it is made once, outside the timing."""
        if self._grad is None:
            self._grad = self.inputs.grad
            if out.shape != self._grad.shape:
                drawn = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
                self._grad = drawn.to(out) * self.real(out)
        return self._grad

    def _recorded(self, direction: str) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Return the CUDA graph of a direction and its output, recorded on first use."""
        if direction not in self._graphs:
            stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    self._run(direction)
            torch.cuda.current_stream().wait_stream(stream)
            for leaf in self._leaves().values():
                leaf.grad = None  # so that gradients are allocated in the graph's own memory
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = self._run(direction)
            self._graphs[direction] = graph, out
        return self._graphs[direction]


def place(module: nn.Module, weights: Mapping[str, Tensor], device: str, dtype: torch.dtype) -> nn.Module:
    """Move a module to a device and dtype; parameters that equal a weight, already there, share its memory.

    Otherwise thirty operations at FLAN-T5 XL would hold thirty copies.
    """
    if isinstance(module, Ours):
        for name, parameter in module.fusion.named_parameters():
            shared = weights.get(name)
            if shared is not None and shared.shape == parameter.shape:
                parameter.data = shared
    return module.to(device, dtype).eval()


@dataclass(frozen=True)
class Expected:
    """The results of a reference."""

    values: Tensor
    gradients: Mapping[str, Tensor]  # by the names of inputs and parameters
    real: Tensor  # bool, the positions of the output that are not padding


@dataclass(frozen=True)
class Errors:
    """Relative errors of an operation, by the norm."""

    values: float  # of the output, with or without gradients, whichever is larger
    gradients: float | None = None  # the largest of a gradient; None if gradients were not computed
    worst: str = ""  # the name of that gradient

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

    Only ``real`` positions are compared. ``scale`` is the divisor if it is larger than the norm of ``expected``.
    """
    if found.shape != expected.shape:
        return float("nan")
    difference = found.detach().to("cpu", torch.float64) - expected
    if real is not None:
        difference, expected = difference.masked_fill(~real, 0), expected.masked_fill(~real, 0)
    norm = max(float(expected.norm()), scale)
    return float(difference.norm()) / norm if norm else float(difference.norm())
