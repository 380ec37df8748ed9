"""What is timed: every fusion by every attention backend, its peers and its limit, with one set of weights.

A block is what an operation computes: ``released`` and ``paper`` (the gated fusion's two residuals), ``gate`` (its gate
alone), and every other registered fusion by its name.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from umie.bench.shapes import Shape, draw
from umie.fusion import registry as fusions
from umie.fusion.attention import AUTO, explain
from umie.fusion.kernels import KernelCase
from umie.fusion.kernels import registry as kernels
from umie.types import FusedStates

FORWARD, TRAINING = "forward", "forward+backward"
DIRECTIONS = (FORWARD, TRAINING)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GATED = ("released", "paper", "gate")  # the blocks of the fusion `gated`
LIMIT = "bare products"
OURS = "umie"
TWIN = "twin"
Weights = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One way of computing a block at a shape.

    Args:
        block: what it computes.
        name: what it is called, unique in its block.
        kind: of whose making it is; a limit computes nothing that could be compared.
        build: makes it from the weights, in float32 on the CPU.
        exact: makes the plain twin, which runs in float64; None for a limit.
        reference: what the twin is called; operations of a block with the same one share its results.
        backend: of attention, where the operation has a choice.
        unsupported_reason: for each direction the reason why it cannot run here; None where it can.
        note: what a reader should know.
        variant: how it is run: as written, compiled, or replayed from a CUDA graph.
    """

    block: str
    name: str
    kind: Literal["ours", "peer", "limit"]
    build: Callable[[Weights], nn.Module]
    exact: Callable[[Weights], nn.Module] | None = None
    reference: str = TWIN
    backend: str | None = None
    unsupported_reason: Mapping[str, str | None] = field(default_factory=lambda: dict.fromkeys(DIRECTIONS))
    note: str = ""
    variant: Literal["eager", "compiled", "graph"] = "eager"

    @property
    def is_chosen(self) -> bool:
        """Whether this is what a user of ours gets without asking."""
        return self.kind == "ours" and self.backend in (None, AUTO) and self.variant == "eager"


class Ours(nn.Module):
    """A fusion of ours as the benchmarks call it."""

    def __init__(self, fusion: Any) -> None:
        super().__init__()
        self.fusion = fusion

    def fused(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> FusedStates:
        """Return all that the fusion gives."""
        found: FusedStates = self.fusion(text, text_mask, visual, visual_mask)
        return found

    def forward(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """Return the states ``[B, T', D]``."""
        return self.fused(text, text_mask, visual, visual_mask).states


class Gate(Ours):
    """The gate of the gated fusion, and nothing else of it."""

    def forward(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """Return the gate ``[B]``."""
        found: Tensor = self.fusion.gate_value(text, text_mask, visual, visual_mask)
        return found


def blocks() -> list[str]:
    """Return the names of all blocks."""
    return [*GATED, *(name for name in fusions.names() if name != "gated")]


def backends() -> list[str]:
    """Return the names of all attention backends, ``auto`` first."""
    return [AUTO, *kernels.names()]


def make_weights(shape: Shape, lengths: Sequence[int] | None = None) -> dict[str, Tensor]:
    """Return the weights of the gated fusion, which every operation takes what fits of.

    Its gate stands open on what ``draw`` gives for the shape: from random weights it is near 0, and nothing of what is
    behind it would be seen in the values.

    Args:
        shape: of the batch.
        lengths: what the texts' lengths are drawn from; see ``draw``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fusion: Any = fusions.build("gated", residual="released", **shape.widths)
        drawn = draw(shape, device="cpu", dtype=torch.float32, lengths=lengths)
        fusion.initialize(drawn.text, drawn.text_mask, drawn.visual, drawn.visual_mask)
    return {name: value.detach() for name, value in fusion.state_dict().items()}


def case_of(shape: Shape, *, device: str, dtype: str, direction: str) -> KernelCase:
    """Return what the backends of attention are chosen by for the layer inside a fusion."""
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
    """Return every operation of some blocks at a shape, those among them that cannot run.

    Args:
        shape: of the batch.
        device: ``cpu``, ``cuda``, ...
        dtype: a key of ``DTYPES``.
        blocks: names of blocks.
        backends: names of attention backends, ``auto`` among them or not.
        peers: take other libraries' blocks and the limits as well.
        compiled: take the sdpa path under ``torch.compile``, and on CUDA as a CUDA graph.
    """
    found: list[Operation] = []
    for block in blocks:
        found += _ours(shape, block, device, dtype, backends)
        if compiled:
            found += _compiled(shape, block, device)
        if peers:
            found += _peers(shape, block)
            found += _limits(shape, block)
    return found


def _ours(shape: Shape, block: str, device: str, dtype: str, backends: Sequence[str]) -> Iterator[Operation]:
    build, exact = _builders(shape, block)
    if not _has_backends(block):
        yield Operation(block=block, name=OURS, kind="ours", build=build, exact=exact)
        return
    for backend in backends:
        unsupported_reason: dict[str, str | None] = {}
        chosen: dict[str, None] = {}
        for direction in DIRECTIONS:
            case = case_of(shape, device=device, dtype=dtype, direction=direction)
            if backend == AUTO:
                unsupported_reason[direction] = None
                chosen[explain(case).chosen] = None
            else:
                unsupported_reason[direction] = kernels.build(backend).unsupported_reason(case)
        yield Operation(
            block=block,
            name=f"{OURS} {backend}",
            kind="ours",
            build=functools.partial(build, backend=backend),
            exact=exact,
            backend=backend,
            unsupported_reason=unsupported_reason,
            note=f"takes {' or '.join(chosen)}" if chosen else "",
        )


def _compiled(shape: Shape, block: str, device: str) -> Iterator[Operation]:
    """Yield the sdpa path compiled, and where there are CUDA graphs, as one."""
    if not _has_backends(block):
        return
    build, exact = _builders(shape, block)
    variants: list[Literal["compiled", "graph"]] = ["compiled"]
    if torch.device(device).type == "cuda":
        variants.append("graph")
    for variant in variants:
        yield Operation(
            block=block,
            name=f"{OURS} sdpa, {variant}",
            kind="ours",
            build=functools.partial(build, backend="sdpa"),
            exact=exact,
            backend="sdpa",
            variant=variant,
        )


def _peers(shape: Shape, block: str) -> Iterator[Operation]:
    from umie.bench.peers.registry import peers

    for peer in peers():
        if peer.block != block:
            continue
        reason = peer.unsupported_reason()
        if reason is None and peer.dense_only and shape.ragged:
            reason = "takes no masks: dense shapes only"
        yield Operation(
            block=block,
            name=peer.name,
            kind="peer",
            build=functools.partial(peer.build, shape),
            exact=functools.partial(peer.exact, shape),
            reference=TWIN if peer.has_our_twin else peer.name,
            unsupported_reason=dict.fromkeys(DIRECTIONS, reason),
            note=peer.note,
        )


def _has_backends(block: str) -> bool:
    config: Any = getattr(fusions.get(block), "Config", None) if block not in GATED else None
    if block in GATED:
        return block != "gate"  # the gate has no attention
    return config is not None and any(option.name == "backend" for option in dataclasses.fields(config))


def _builders(shape: Shape, block: str) -> tuple[Callable[..., nn.Module], Callable[[Weights], nn.Module]]:
    """Return what builds a block of ours, and what builds its twin.

    That of a block whose equation stands in ``_twins`` shares no code with it; any other is its own twin in float64,
    on the reference backend where it has one.
    """
    if block in GATED:
        options: dict[str, Any] = {"residual": "paper" if block == "paper" else "released"}
        build = functools.partial(_build, shape, "gated", Gate if block == "gate" else Ours, options)
    else:
        build = functools.partial(_build, shape, block, Ours, {})
    from umie.bench.reference_layers import BLOCKS, twin

    if block in BLOCKS:
        return build, functools.partial(twin, shape, block=block)
    return build, functools.partial(build, backend="reference") if _has_backends(block) else build


def _build(
    shape: Shape, name: str, adapter: type[Ours], options: Mapping[str, Any], weights: Weights, backend: str = ""
) -> Ours:
    """Return a fusion with all of the weights that fit; what it has beyond them is drawn from a fixed seed."""
    given = {**options, **shape.widths, **({"backend": backend} if backend else {})}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        fusion: Any = fusions.build(name, **given)
    own = fusion.state_dict()
    fitting = {key: value for key, value in weights.items() if key in own and own[key].shape == value.shape}
    fusion.load_state_dict(fitting, strict=False)
    return adapter(fusion)


def _limits(shape: Shape, block: str) -> Iterator[Operation]:
    from umie.bench.limits import bare_products, has_products

    if has_products(block):
        yield Operation(block=block, name=LIMIT, kind="limit", build=functools.partial(bare_products, shape, block))
