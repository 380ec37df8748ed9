"""What stands beside our blocks: the plain ones, and those of transformers, x-transformers and flamingo-pytorch.

Shapes: B batch, T text tokens, V visual slots, D model width.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from umie.bench import reference_layers as _twins
from umie.bench.peers import flamingo as _peers_flamingo
from umie.bench.peers import plain as _peers_plain
from umie.bench.peers import t5 as _peers_t5
from umie.bench.peers import x_transformers as _peers_x_transformers
from umie.bench.shapes import Shape

Builder = Callable[[Shape, Mapping[str, Tensor]], nn.Module]


@dataclass(frozen=True)
class Peer:
    """An implementation by others, or by somebody who writes the equations down plainly.

    Args:
        name: whose it is.
        block: which block of ours it stands beside: ``released``, ``paper``, ``cross_attention`` or ``gate``.
        build: takes a shape and the weights of our released block (its state dict, float32, on the CPU) and returns
            a module; called with text ``[B, T, D]``, text mask ``[B, T]``, visual ``[B, V, D]`` and visual mask
            ``[B, V]`` it gives ``[B, T, D]``, or for a gate ``[B]``.
        exact: the same from the equation, which runs in float64: what the peer's values and gradients are checked
            against. Parameters have the same names in both.
        unsupported_reason: gives the reason why it cannot be had here, and what to install; None where it can.
        note: what it computes otherwise than ours.
        dense_only: it has no mask for slots, and is right only where all are real.
        has_our_twin: ``exact`` is that of our block too.
    """

    name: str
    block: str
    build: Builder
    exact: Builder
    unsupported_reason: Callable[[], str | None]
    note: str
    dense_only: bool = False
    has_our_twin: bool = False


def peers() -> list[Peer]:
    """Return every peer, those of packages that are not installed too; a name stands once for each block."""
    return [*_plain(), *_t5(), *_x_transformers(), _flamingo()]


def _plain() -> list[Peer]:
    note = "the same values; every intermediate kept for autograd, and the gate projects all tokens, then averages"
    blocks = [
        Peer(
            name=f"plain {block}",
            block=block,
            build=partial(_peers_plain.build_block, released=block == "released"),
            exact=partial(_twins.twin, block=block),
            has_our_twin=True,
            unsupported_reason=_here,
            note=note,
        )
        for block in ("released", "paper")
    ]
    gate = Peer(
        name="plain gate",
        block="gate",
        build=_peers_plain.build_gate,
        exact=partial(_twins.twin, block="gate"),
        has_our_twin=True,
        unsupported_reason=_here,
        note="the same values; projects all tokens and slots, then averages the real ones",
    )
    return [*blocks, gate]


def _t5() -> list[Peer]:
    note = (
        "logits unscaled and a bias of zeros added to them; without an image it attends to padding; "
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
                    build=partial(_peers_t5.build, **options),
                    exact=partial(_peers_t5.exact, **options),
                    unsupported_reason=_here,
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
            found.append(
                Peer(
                    name=name,
                    block=block,
                    build=partial(_peers_x_transformers.build, **options),
                    exact=partial(_peers_x_transformers.exact, **options),
                    note=f"{note}, a bias in the feed-forward's first product; no gate"
                    if block == "released"
                    else note,
                    unsupported_reason=partial(_missing, "x_transformers", "x-transformers"),
                )
            )
    return found


def _flamingo() -> Peer:
    return Peer(
        name="flamingo-pytorch",
        block="released",
        build=_peers_flamingo.build,
        exact=_peers_flamingo.exact,
        unsupported_reason=partial(_missing, "flamingo_pytorch", "flamingo-pytorch"),
        note=(
            "logits scaled by 1/sqrt(d), LayerNorm, a feed-forward of two products with 1.5 d_ff (as many "
            "multiplications) and exact gelu, two learned tanh gates in place of ours; slots cannot be masked"
        ),
        dense_only=True,
    )


def _here() -> str | None:
    return None


def _missing(module: str, package: str) -> str | None:
    if importlib.util.find_spec(module) is not None:
        return None
    return f"{package} is not installed: pip install 'umie[bench]'"
