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

    Args:
        name: the name of the implementation; unique within a block.
        block: our block that it is compared with: ``released``, ``paper``, ``cross_attention`` or ``gate``.
        build: takes a shape and the weights of our released block (a state dict in float32, on the CPU) and returns a
            module. The module maps text ``[B, T, D]``, text mask ``[B, T]``, visual ``[B, V, D]`` and visual mask
            ``[B, V]`` to ``[B, T, D]``, or for a gate to ``[B]``.
        build_reference: the same from the equation. It runs in float64 to check values and gradients. Its parameters
            have the same names.
        note: how its computation differs from ours.
        package: the optional package that it needs, if any.
        dense_only: it has no mask for slots and is correct only if all are real.
        shares_our_reference: the reference is that of our block.
    """

    name: str
    block: str
    build: Builder
    build_reference: Builder
    note: str
    package: str | None = None
    dense_only: bool = False
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
    options: dict[str, Any]
    for name, implementation in (("transformers T5", "sdpa"), ("transformers T5, eager", "eager")):
        for block in ("cross_attention", "paper", "released"):
            options = {"implementation": implementation, "feed_forward": block == "released"}
            found.append(
                Peer(
                    name=name if block != "released" else name.replace("T5", "T5 with FFN"),
                    block=block,
                    build=partial(t5.build, **options),
                    build_reference=partial(t5.build_reference, **options),
                    note=f"{note}; no gate" if block != "cross_attention" else note,
                )
            )
    note = "logits scaled by 1/sqrt(d), RMSNorm without epsilon"
    for name, flash in (("x-transformers", True), ("x-transformers, einsum", False)):
        for block in ("released", "cross_attention"):
            options = {"flash": flash, "feed_forward": block == "released"}
            extra = ", a bias in the first product of the feed-forward layer; no gate" if block == "released" else ""
            found.append(
                Peer(
                    name=name,
                    block=block,
                    build=partial(x_transformers.build, **options),
                    build_reference=partial(x_transformers.build_reference, **options),
                    note=f"{note}{extra}",
                    package="x-transformers",
                )
            )
    note = (
        "logits scaled by 1/sqrt(d), LayerNorm, a feed-forward layer of two products of width 1.5 d_ff (as many "
        "multiplications) and exact gelu, two learned tanh gates in place of ours; slots cannot be masked"
    )
    found.append(
        Peer(
            name="flamingo-pytorch",
            block="released",
            build=flamingo.build,
            build_reference=flamingo.build_reference,
            note=note,
            package="flamingo-pytorch",
            dense_only=True,
        )
    )
    return found
