"""The operations to time: every fusion with every attention backend, its peers, and its limit, with equal weights.

A block is a computation: ``released`` and ``paper`` (the two residuals of the gated fusion), ``gate`` (only its gate),
or any other registered fusion by its name.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from umie.bench.peers.registry import peers
from umie.bench.products import BLOCKS, bare_products
from umie.bench.reference_layers import reference_layer
from umie.bench.shapes import Shape, draw
from umie.errors import UmieError
from umie.fusion import Fusion
from umie.fusion import registry as fusions
from umie.fusion.attention import AUTO, explain
from umie.fusion.contract import check_fusion
from umie.fusion.kernels import KernelCase
from umie.fusion.kernels import registry as kernels

FORWARD, TRAINING = "forward", "forward+backward"
DIRECTIONS = (FORWARD, TRAINING)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GATED = ("released", "paper", "gate")  # the blocks of the fusion `gated`
LIMIT = "bare products"
OURS = "umie"
Weights = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One implementation of a block at a shape; a limit has no result that could be checked."""

    block: str
    name: str  # unique within the block
    kind: Literal["ours", "peer", "limit"]
    build: Callable[[Weights], nn.Module]  # in float32, on the CPU
    build_reference: Callable[[Weights], nn.Module] | None = None  # it runs in float64; None for a limit
    reference: str = OURS  # operations of a block with the same reference share its results
    contract: Callable[[], str | None] = lambda: None  # returns how the fusion contract is broken, if it is
    chosen: bool = False  # whether this is the default of our library, without a backend chosen by name
    # for each direction, why it cannot run here, or None
    unsupported_reason: Mapping[str, str | None] = field(default_factory=lambda: dict.fromkeys(DIRECTIONS))
    note: str = ""
    variant: Literal["eager", "compiled", "graph"] = "eager"


class Ours(nn.Module):
    """A fusion of this library, with the signature of the benchmarks."""

    def __init__(self, fusion: Fusion) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """Return the states ``[B, T', D]``."""
        states: Tensor = self.fusion(text, text_mask, visual, visual_mask).states
        return states


class Gate(Ours):
    """Only the gate of the gated fusion."""

    def forward(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """Return the gate ``[B]``."""
        fusion: Any = self.fusion
        found: Tensor = fusion.gate_value(text, text_mask, visual, visual_mask)
        return found


def blocks() -> list[str]:
    """Return the names of all blocks."""
    return [*GATED, *(name for name in fusions.names() if name != "gated")]


def backends() -> list[str]:
    """Return the names of all attention backends, ``auto`` first."""
    return [AUTO, *kernels.names()]


def make_weights(shape: Shape, lengths: Sequence[int] | None = None) -> dict[str, Tensor]:
    """Return the weights of the gated fusion; every operation uses those that fit.

    The gate is opened for the inputs that ``draw`` returns: with random weights it is near 0, and the values would
    not show an error in the gated states.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fusion: Any = fusions.build("gated", residual="released", **shape.widths)
        drawn = draw(shape, device="cpu", dtype=torch.float32, lengths=lengths)
        fusion.initialize(drawn.text, drawn.text_mask, drawn.visual, drawn.visual_mask)
    return {name: value.detach() for name, value in fusion.state_dict().items()}


def case_of(shape: Shape, *, device: str, dtype: str, direction: str) -> KernelCase:
    """Return the case by which an attention backend is chosen for the layer inside a fusion."""
    widths = shape.widths
    return KernelCase(
        device=torch.device(device).type,
        dtype=DTYPES[dtype],
        batch=shape.batch,
        num_queries=shape.tokens,
        num_keys=shape.slots,
        num_heads=widths["num_heads"],
        head_dim=widths["head_dim"],
        d_model=widths["d_model"],
        needs_grad=direction == TRAINING,
    )


def operations(
    shape: Shape,
    *,
    device: str,
    dtype: str,
    blocks: Sequence[str],
    backends: Sequence[str],
    peers: bool = True,
    compiled: bool = False,
) -> list[Operation]:
    """Return every operation of some blocks at a shape, including those that cannot run.

    ``peers`` includes peers and limits; ``compiled`` includes the sdpa backend under ``torch.compile``, and on CUDA as
    a CUDA graph.
    """
    found: list[Operation] = []
    for block in blocks:
        found += _ours(shape, block, device, dtype, backends, compiled=compiled)
        if peers:
            found += _peers(shape, block)
            if block in BLOCKS:
                build = functools.partial(bare_products, shape, block)
                found.append(Operation(block=block, name=LIMIT, kind="limit", build=build))
    return found


def _ours(
    shape: Shape, block: str, device: str, dtype: str, backends: Sequence[str], *, compiled: bool
) -> Iterator[Operation]:
    build = functools.partial(_build, shape, block)
    if block in BLOCKS:
        ours: dict[str, Any] = {"build_reference": functools.partial(reference_layer, shape, block=block)}
    else:  # in float64 the fusion is its own reference; the contract is checked instead
        ours = {"build_reference": functools.partial(build, backend="reference") if _has_backends(block) else build}
        ours["contract"] = functools.partial(_broken_contract, shape, block)
    ours |= {"block": block, "kind": "ours"}
    if not _has_backends(block):
        yield Operation(name=OURS, build=build, chosen=True, **ours)
        return
    for backend in backends:
        cases = {way: case_of(shape, device=device, dtype=dtype, direction=way) for way in DIRECTIONS}
        if backend == AUTO:
            note = f"takes {' or '.join(dict.fromkeys(explain(case).chosen for case in cases.values()))}"
            reasons: dict[str, str | None] = dict.fromkeys(DIRECTIONS)
        else:
            note = ""
            reasons = {way: kernels.build(backend).unsupported_reason(case) for way, case in cases.items()}
        yield Operation(
            name=f"{OURS} {backend}",
            build=functools.partial(build, backend=backend),
            chosen=backend == AUTO,
            unsupported_reason=reasons,
            note=note,
            **ours,
        )
    variants: list[Any] = ["compiled", *(["graph"] if torch.device(device).type == "cuda" else [])] if compiled else []
    for variant in variants:
        name = f"{OURS} sdpa, {variant}"
        yield Operation(name=name, build=functools.partial(build, backend="sdpa"), variant=variant, **ours)


def _peers(shape: Shape, block: str) -> Iterator[Operation]:
    for peer in peers():
        if peer.block != block:
            continue
        reason = peer.unsupported_reason()
        if reason is None and peer.dense_only and shape.ragged:
            reason = "does not support masks: dense shapes only"
        yield Operation(
            block=block,
            name=peer.name,
            kind="peer",
            build=functools.partial(peer.build, shape),
            build_reference=functools.partial(peer.build_reference, shape),
            reference=OURS if peer.shares_our_reference else peer.name,
            unsupported_reason=dict.fromkeys(DIRECTIONS, reason),
            note=peer.note,
        )


def _has_backends(block: str) -> bool:
    if block in GATED:
        return block != "gate"  # the gate has no attention
    config: Any = getattr(fusions.get(block), "Config", None)
    return config is not None and any(option.name == "backend" for option in dataclasses.fields(config))


def _build(shape: Shape, block: str, weights: Weights, backend: str = "") -> Ours:
    """Return a fusion with all weights that fit; its other weights are drawn from a fixed seed."""
    options: dict[str, Any] = {**shape.widths, **({"backend": backend} if backend else {})}
    if block in GATED:
        options["residual"] = "paper" if block == "paper" else "released"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        fusion = fusions.build("gated" if block in GATED else block, **options)
    own = fusion.state_dict()
    fitting = {key: value for key, value in weights.items() if key in own and own[key].shape == value.shape}
    fusion.load_state_dict(fitting, strict=False)
    return Gate(fusion) if block == "gate" else Ours(fusion)


def _broken_contract(shape: Shape, block: str) -> str | None:
    try:
        check_fusion(_build(shape, block, {}).fusion, gradients=True)
    except UmieError as error:
        if error.__cause__ is not None:  # the fusion does not run at all
            raise error.__cause__ from None
        return str(error)
    return None
