"""An operation that is ready to run: its module on a device, its inputs, and its gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from umie.bench.operations import FORWARD, Ours
from umie.bench.shapes import Inputs

INPUTS = ("text", "visual")  # the inputs that have gradients
WARM_UP = 3  # runs before a CUDA graph is recorded


class Runner:
    """A module and its inputs, run in either direction.

    Args:
        module: takes ``text, text_mask, visual, visual_mask`` and returns one tensor.
        inputs: its inputs.
        variant: ``eager``, ``compiled`` or ``graph``.
    """

    def __init__(self, module: nn.Module, inputs: Inputs, variant: str = "eager") -> None:
        self.module = module
        self.inputs = inputs
        self.variant = variant
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
        return {**dict(zip(INPUTS, (self._text, self._visual), strict=True)), **dict(module.named_parameters())}

    def real(self, out: Tensor) -> Tensor:
        """Return a mask of the positions of an output that are not padding; it broadcasts against the output."""
        inputs = self.inputs
        if out.ndim < 3:
            return torch.ones_like(out, dtype=torch.bool)
        mask = inputs.text_mask
        if out.shape[1] != mask.shape[1]:  # only our fusions may lengthen the text
            assert isinstance(self.module, Ours)
            with torch.no_grad():
                mask = self.module.fusion(inputs.text, mask, inputs.visual, inputs.visual_mask).mask
        return mask[..., None]

    def _grad_of(self, out: Tensor) -> Tensor:
        """Return the gradient passed to ``backward``; it is made once, outside the timing."""
        if self._grad is None:
            if out.shape == self.inputs.grad.shape:
                self._grad = self.inputs.grad
            else:
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
