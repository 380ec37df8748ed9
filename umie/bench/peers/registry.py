"""The peers of our blocks: plain implementations, and those of transformers, x-transformers and flamingo-pytorch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from umie.bench.peers import flamingo, plain, t5, x_transformers
from umie.bench.reference_layers import reference_layer
from umie.bench.shapes import Shape

Builder = Callable[[Shape, Mapping[str, Tensor]], nn.Module]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """An implementation by another library, or a plain one.

    ``build`` takes a shape and the weights of our released block (a state dict in float32, on the CPU) and returns a
    module. The module maps text ``[B, T, D]``, text mask ``[B, T]``, visual ``[B, V, D]`` and visual mask ``[B, V]`` to
    ``[B, T, D]``, or for a gate to ``[B]``. ``build_reference`` does the same from the equation, which runs in float64
    to check values and gradients; its parameters have the same names.
    """

    name: str  # unique within a block
    block: str  # our block that it is compared with: released, paper, cross_attention or gate
    build: Builder
    build_reference: Builder
    note: str  # how its computation differs from ours
    package: str | None = None  # the optional package that it needs
    dense_only: bool = False  # it has no mask for slots and is correct only if all are real
    shares_our_reference: bool = False

    def unsupported_reason(self) -> str | None:
        """Return why it is not available and what to install, or None."""
        if self.package is None or importlib.util.find_spec(self.package.replace("-", "_")) is not None:
            return None
        return f"{self.package} is not installed: pip install 'umie[bench]'"


def peers() -> list[Peer]:
    """Return every peer, including those of packages that are not installed."""
    gate = "the gate projects all tokens and slots, then averages the real ones"
    found = [
        Peer(
            name=f"plain {block}",
            block=block,
            build=partial(plain.build, block=block),
            build_reference=partial(reference_layer, block=block),
            shares_our_reference=True,
            note=f"the same values; autograd keeps every intermediate result, and {gate}",
        )
        for block in ("released", "paper", "gate")
    ]
    note = (
        "logits not scaled, with a bias of zeros added; without an image it attends to padding; "
        "the mask is prepared once, outside the timing"
    )
    for name, implementation in (("transformers T5", "sdpa"), ("transformers T5, eager", "eager")):
        for block in ("cross_attention", "paper", "released"):
            options: dict[str, Any] = {"implementation": implementation, "feed_forward": block == "released"}
            title = name if block != "released" else name.replace("T5", "T5 with FFN")
            found.append(_peer(title, block, t5, options, note if block == "cross_attention" else f"{note}; no gate"))
    note = "logits scaled by 1/sqrt(d), RMSNorm without epsilon"
    for name, flash in (("x-transformers", True), ("x-transformers, einsum", False)):
        for block in ("released", "cross_attention"):
            options = {"flash": flash, "feed_forward": block == "released"}
            extra = ", a bias in the first product of the feed-forward layer; no gate" if block == "released" else ""
            found.append(_peer(name, block, x_transformers, options, note + extra, package="x-transformers"))
    note = (
        "logits scaled by 1/sqrt(d), LayerNorm, a feed-forward layer of two products of width 1.5 d_ff (as many "
        "multiplications) and exact gelu, two learned tanh gates in place of ours; slots cannot be masked"
    )
    found.append(_peer("flamingo-pytorch", "released", flamingo, {}, note, package="flamingo-pytorch", dense_only=True))
    return found


def _peer(name: str, block: str, module: Any, options: dict[str, Any], note: str, **facts: Any) -> Peer:
    """Return the peer of a module whose two builders take the same options."""
    build, build_reference = partial(module.build, **options), partial(module.build_reference, **options)
    return Peer(name=name, block=block, build=build, build_reference=build_reference, note=note, **facts)
