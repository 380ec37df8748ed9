"""The peers of our blocks: plain implementations, and those of transformers, x-transformers and flamingo-pytorch.

Shapes: B batch, T text tokens, V visual slots, D model width.
"""

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
        name: the name of the implementation.
        block: our block that it is compared with: ``released``, ``paper``, ``cross_attention`` or ``gate``.
        build: takes a shape and the weights of our released block (a state dict in float32, on the CPU) and returns a
            module. The module maps text ``[B, T, D]``, text mask ``[B, T]``, visual ``[B, V, D]`` and visual mask
            ``[B, V]`` to ``[B, T, D]``, or for a gate to ``[B]``.
        build_reference: the same from the equation. It runs in float64 to check values and gradients. Its parameters
            have the same names.
        unsupported_reason: returns why it is not available and what to install, or None.
        note: how its computation differs from ours.
        dense_only: it has no mask for slots and is correct only if all are real.
        shares_our_reference: the reference is that of our block.
    """

    name: str
    block: str
    build: Builder
    build_reference: Builder
    note: str
    unsupported_reason: Callable[[], str | None] = lambda: None
    dense_only: bool = False
    shares_our_reference: bool = False


def peers() -> list[Peer]:
    """Return every peer, including those of packages that are not installed; a name is unique within a block."""
    return [*_plain(), *_t5(), *_x_transformers(), _flamingo()]


def _plain() -> list[Peer]:
    gate = "the gate projects all tokens and slots, then averages the real ones"
    return [
        Peer(
            name=f"plain {block}",
            block=block,
            build=plain.build_gate if block == "gate" else partial(plain.build_block, released=block == "released"),
            build_reference=partial(reference_layer, block=block),
            shares_our_reference=True,
            note=f"the same values; autograd keeps every intermediate result, and {gate}",
        )
        for block in ("released", "paper", "gate")
    ]


def _t5() -> list[Peer]:
    note = (
        "logits not scaled, with a bias of zeros added; without an image it attends to padding; "
        "the mask is prepared once, outside the timing"
    )
    found = []
    for name, implementation in (("transformers T5", "sdpa"), ("transformers T5, eager", "eager")):
        for block in ("cross_attention", "paper", "released"):
            options: dict[str, Any] = {"implementation": implementation, "feed_forward": block == "released"}
            found.append(
                Peer(
                    name=name if block != "released" else name.replace("T5", "T5 with FFN"),
                    block=block,
                    build=partial(t5.build, **options),
                    build_reference=partial(t5.build_reference, **options),
                    note=f"{note}; no gate" if block != "cross_attention" else note,
                )
            )
    return found


def _x_transformers() -> list[Peer]:
    note = "logits scaled by 1/sqrt(d), RMSNorm without epsilon"
    found = []
    for name, flash in (("x-transformers", True), ("x-transformers, einsum", False)):
        for block in ("released", "cross_attention"):
            options: dict[str, Any] = {"flash": flash, "feed_forward": block == "released"}
            extra = ", a bias in the first product of the feed-forward layer; no gate" if block == "released" else ""
            found.append(
                Peer(
                    name=name,
                    block=block,
                    build=partial(x_transformers.build, **options),
                    build_reference=partial(x_transformers.build_reference, **options),
                    unsupported_reason=partial(_missing, "x_transformers", "x-transformers"),
                    note=f"{note}{extra}",
                )
            )
    return found


def _flamingo() -> Peer:
    return Peer(
        name="flamingo-pytorch",
        block="released",
        build=flamingo.build,
        build_reference=flamingo.build_reference,
        unsupported_reason=partial(_missing, "flamingo_pytorch", "flamingo-pytorch"),
        note=(
            "logits scaled by 1/sqrt(d), LayerNorm, a feed-forward layer of two products of width 1.5 d_ff (as many "
            "multiplications) and exact gelu, two learned tanh gates in place of ours; slots cannot be masked"
        ),
        dense_only=True,
    )


def _missing(module: str, package: str) -> str | None:
    if importlib.util.find_spec(module) is not None:
        return None
    return f"{package} is not installed: pip install 'umie[bench]'"
