"""A run of the benchmarks: the rows of a plan, each checked, then timed in turn, then weighed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from umie.bench.check import Expected, compare, expect
from umie.bench.limits import BLOCKS, copy_bandwidth, floor_s, matrix_rate
from umie.bench.measure import in_turn
from umie.bench.memory import peak_bytes
from umie.bench.operations import DIRECTIONS, DTYPES, TRAINING, Operation, make_weights, operations
from umie.bench.ratios import ROUNDS
from umie.bench.results import CANNOT, DONE, MISSED, WRONG, Results, Row
from umie.bench.runner import Runner, place
from umie.bench.shapes import Shape, draw


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure.

    Args:
        shapes: of the batch.
        blocks: see ``operations.blocks``.
        backends: see ``operations.backends``.
        dtypes: keys of ``operations.DTYPES``.
        directions: of ``operations.DIRECTIONS``.
        device: ``cpu``, ``cuda``, ``cuda:1``.
        rounds: how often each operation is timed.
        peers: other libraries' blocks and the limits as well.
        memory: weigh each operation once, after it was timed.
        compiled: the sdpa path under ``torch.compile`` as well, and on CUDA as a CUDA graph.
        lengths: numbers of tokens that the texts of ragged shapes are drawn from; None for any.
    """

    shapes: Sequence[Shape]
    blocks: Sequence[str]
    backends: Sequence[str]
    dtypes: Sequence[str] = ("float32",)
    directions: Sequence[str] = DIRECTIONS
    device: str = "cpu"
    rounds: int = ROUNDS
    peers: bool = True
    memory: bool = True
    compiled: bool = False
    lengths: Sequence[int] | None = None

    def operations(self, shape: Shape, dtype: str) -> list[Operation]:
        """Return every operation at a shape and dtype."""
        return operations(
            shape,
            device=self.device,
            dtype=dtype,
            blocks=self.blocks,
            backends=self.backends,
            peers=self.peers,
            compiled=self.compiled,
        )

    def rows(self) -> list[Row]:
        """Return a row for everything that would be measured, and for what cannot be, with the reason.

        Whether the device is there at all is ``environment.device_reason``'s to say.
        """
        found = []
        for shape in self.shapes:
            for dtype in self.dtypes:
                for operation in self.operations(shape, dtype):
                    for direction in self.directions:
                        reason = operation.unsupported_reason[direction]
                        found.append(_row(shape, dtype, direction, operation, reason))
        return found


class Progress:
    """What a run tells of itself; this one says nothing."""

    def start(self, total: int, what: str) -> None:
        """Begin a group of rows: ``total`` steps are to come."""

    def step(self) -> None:
        """Count one warm-up, check or measurement."""

    def done(self, row: Row) -> None:
        """Tell what became of a row that will not be timed."""

    def save(self) -> None:
        """Keep what there is."""


def run(plan: Plan, results: Results, progress: Progress) -> None:
    """Measure a plan into ``results``; an interrupt keeps what was measured, and ``results`` is then not complete.

    Args:
        plan: what to measure.
        results: rows are added, all of them before anything is measured.
        progress: told what happens.
    """
    results.rows += plan.rows()
    rows = {row.key: row for row in results.rows}
    try:
        for shape in plan.shapes:
            weights = make_weights(shape, plan.lengths)
            for dtype in plan.dtypes:
                _Group(plan, shape, dtype, weights, rows, progress).run()
                progress.save()
    except KeyboardInterrupt:
        results.complete = False
    progress.save()


class _Group:
    """The rows of one shape and dtype: they share weights and inputs."""

    def __init__(
        self,
        plan: Plan,
        shape: Shape,
        dtype: str,
        weights: dict[str, Tensor],
        rows: dict[tuple[str, str, str, str, str], Row],
        progress: Progress,
    ) -> None:
        self.plan, self.shape, self.dtype = plan, shape, dtype
        self.rows, self.progress, self.weights = rows, progress, weights
        self.torch_dtype = DTYPES[dtype]
        self.placed = {name: value.to(plan.device, self.torch_dtype) for name, value in weights.items()}
        self.inputs = draw(shape, device=plan.device, dtype=self.torch_dtype, lengths=plan.lengths)

    def run(self) -> None:
        """Check all, time what is right, weigh it."""
        plan = self.plan
        chosen = [
            operation
            for operation in plan.operations(self.shape, self.dtype)
            if any(self._row(operation, direction).status == MISSED for direction in plan.directions)
        ]
        self.progress.start(
            len(chosen) * (1 + len(plan.directions) * (plan.rounds + 1 + plan.memory)), f"{self.shape} {self.dtype}"
        )
        ready = self._check(chosen)
        self._set_floors()
        for direction in plan.directions:
            runners = {
                self._row(operation, direction).key: runner
                for operation, runner in ready.values()
                if self._row(operation, direction).status == MISSED
            }
            self._time(direction, runners)
            if plan.memory:
                self._weigh(direction, runners)

    def _row(self, operation: Operation, direction: str) -> Row:
        return self.rows[(str(self.shape), self.dtype, direction, operation.block, operation.name)]

    def _check(self, chosen: list[Operation]) -> dict[tuple[str, str], tuple[Operation, Runner]]:
        """Return what is right, ready to run; the others get their reason."""
        ready = {}
        expected: dict[str, Expected] = {}
        block = ""
        for operation in chosen:
            if operation.block != block:
                block = operation.block
                expected.clear()
            try:
                runner = self._prepare(operation, expected)
            except Exception as error:
                self._refuse(operation, CANNOT, _reason(error))
                continue
            finally:
                self.progress.step()
            if runner is not None:
                ready[operation.block, operation.name] = operation, runner
        return ready

    def _prepare(self, operation: Operation, expected: dict[str, Expected]) -> Runner | None:
        """Build an operation and compare it with its twin; None where it is wrong."""
        module = place(operation.build(self.weights), self.placed, self.plan.device, self.torch_dtype)
        runner = Runner(module, self.inputs, operation.variant)
        if operation.exact is None:
            return runner
        if operation.reference not in expected:
            expected[operation.reference] = expect(operation, self.inputs, self.weights, self.torch_dtype)
        training = operation.unsupported_reason[TRAINING] is None
        errors = compare(runner, expected[operation.reference], training=training)
        for direction in self.plan.directions:
            row = self._row(operation, direction)
            row.error, row.gradient_error = errors.values, errors.gradients
        if reason := errors.wrong(self.torch_dtype, peer=operation.kind == "peer"):
            self._refuse(operation, WRONG, reason)
            return None
        return runner

    def _set_floors(self) -> None:
        """Write the least time of each row, where the device is none whose bare products are the limit."""
        device = self.plan.device
        if torch.device(device).type == "cpu":
            return
        rate, bandwidth = _rates(device, self.torch_dtype)
        for row in self.rows.values():
            if (
                (row.shape, row.dtype) == (str(self.shape), self.dtype)
                and row.block in BLOCKS
                and row.block != "concat"
            ):
                row.floor_s = floor_s(
                    self.shape,
                    row.block,
                    dtype=self.torch_dtype,
                    rate=rate,
                    bandwidth=bandwidth,
                    backward=row.direction == TRAINING,
                    inputs=self.inputs,
                )

    def _refuse(self, operation: Operation, status: str, reason: str) -> None:
        for direction in self.plan.directions:
            row = self._row(operation, direction)
            if row.status == MISSED:
                row.status, row.reason = status, reason
                self.progress.done(row)

    def _time(self, direction: str, runners: dict[tuple[str, str, str, str, str], Runner]) -> None:
        by_name = {"\t".join(key): (self.rows[key], runner) for key, runner in runners.items()}

        def after(name: str) -> None:
            by_name[name][1].clear()
            self.progress.step()

        def failed(name: str, error: Exception) -> None:
            row = by_name[name][0]
            row.status, row.reason = CANNOT, f"while timed: {_reason(error)}"
            row.seconds.clear()
            self.progress.done(row)

        try:
            in_turn(
                {name: functools.partial(runner.run, direction) for name, (_, runner) in by_name.items()},
                rounds=self.plan.rounds,
                device=self.plan.device,
                times={name: row.seconds for name, (row, _) in by_name.items()},
                after=after,
                failed=failed,
            )
        finally:
            for row, _ in by_name.values():
                if row.status == MISSED and row.seconds:
                    row.status = DONE

    def _weigh(self, direction: str, runners: dict[tuple[str, str, str, str, str], Runner]) -> None:
        for key, runner in runners.items():
            row = self.rows[key]
            runner.clear()
            # A graph holds its memory from when it was recorded: what a replay allocates says nothing.
            if row.status == DONE and runner.variant != "graph":
                try:
                    row.peak_bytes = peak_bytes(functools.partial(runner.run, direction), self.plan.device)
                except Exception as error:  # its times stand
                    row.reason = f"peak memory: {_reason(error)}"
                    self.progress.done(row)
            runner.clear()
            self.progress.step()


def _reason(error: Exception) -> str:
    """Return an error as one line: whatever it is, it is a row's, and shall be seen there."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


@functools.cache
def _rates(device: str, dtype: torch.dtype) -> tuple[float, float]:
    """Return the device's matrix rate and copy bandwidth, measured once."""
    return matrix_rate(device, dtype), copy_bandwidth(device)


def _row(shape: Shape, dtype: str, direction: str, operation: Operation, reason: str | None) -> Row:
    return Row(
        shape=str(shape),
        widths={name: getattr(shape, name) for name in ("size", "batch", "tokens", "slots", "ragged")},
        dtype=dtype,
        direction=direction,
        block=operation.block,
        name=operation.name,
        kind=operation.kind,
        chosen=operation.is_chosen,
        status=MISSED if reason is None else CANNOT,
        reason=reason,
        note=operation.note,
    )
