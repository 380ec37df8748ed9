"""An operation made ready: its weights where it runs, its inputs, and one call that does it once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from umie.bench.operations import FORWARD, Ours, Weights
from umie.bench.shapes import Inputs

INPUTS = ("text", "visual")  # what gets a gradient beside the parameters
WARM_UP = 3  # runs before a CUDA graph is recorded


class Runner:
    """Runs a module in either direction.

    Args:
        module: takes ``text, text_mask, visual, visual_mask``, and gives one tensor.
        inputs: what it is given.
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
        """Do the operation once and return its output; with backward, gradients lie where ``gradients`` finds them."""
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
        """Give the gradients' memory back; those of a graph belong to it and stay."""
        if self._graphs:
            return
        for leaf in self._leaves().values():
            leaf.grad = None

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients that the last run left, by the names of the inputs and of the parameters."""
        return {name: leaf.grad for name, leaf in self._leaves().items() if leaf.grad is not None}

    def _leaves(self) -> dict[str, Tensor]:
        module = self.module.fusion if isinstance(self.module, Ours) else self.module  # ours have their twins' names
        return {**dict(zip(INPUTS, (self._text, self._visual), strict=True)), **dict(module.named_parameters())}

    def real(self, out: Tensor) -> Tensor:
        """Return which places of an output are no padding: a mask that broadcasts against it."""
        inputs = self.inputs
        if out.ndim < 3:
            return torch.ones_like(out, dtype=torch.bool)
        mask = inputs.text_mask
        if out.shape[1] != mask.shape[1]:
            if isinstance(self.module, Ours):
                with torch.no_grad():
                    mask = self.module.fused(inputs.text, mask, inputs.visual, inputs.visual_mask).mask
            else:
                mask = torch.cat([mask, inputs.visual_mask], dim=1)
        return mask[..., None]

    def _grad_of(self, out: Tensor) -> Tensor:
        """Return what is given to ``backward``: made once, outside the timing."""
        if self._grad is None:
            if out.shape == self.inputs.grad.shape:
                self._grad = self.inputs.grad
            else:
                drawn = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
                self._grad = drawn.to(out) * self.real(out)
        return self._grad

    def _recorded(self, direction: str) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Return the CUDA graph of a direction and its output, recorded when it is first asked for."""
        if direction not in self._graphs:
            stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    self._run(direction)
            torch.cuda.current_stream().wait_stream(stream)
            for leaf in self._leaves().values():
                leaf.grad = None  # so that the graph's own memory holds what it writes
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = self._run(direction)
            self._graphs[direction] = graph, out
        return self._graphs[direction]


def place(module: nn.Module, weights: Mapping[str, Tensor], device: str, dtype: torch.dtype) -> nn.Module:
    """Bring a module to a device and a dtype; parameters that equal a weight share its memory.

    Without that, thirty operations at FLAN-T5 XL would hold thirty copies.

    Args:
        module: in float32, on the CPU.
        weights: on the device, in the dtype, by their names in our fusions.
        device: where it shall run.
        dtype: in which.
    """
    fusion = getattr(module, "fusion", None)
    if isinstance(module, Ours) and isinstance(fusion, nn.Module):
        for name, parameter in fusion.named_parameters():
            shared = weights.get(name)
            if shared is not None and shared.shape == parameter.shape:
                parameter.data = shared
    return module.to(device, dtype).eval()


def rounded(weights: Weights, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return weights as ``dtype`` can hold them, in float32."""
    return {name: value.to(dtype).float() for name, value in weights.items()}
