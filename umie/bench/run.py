"""A benchmark run: every operation of a plan is checked, then timed in alternation, then measured for memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from umie.bench.check import Expected, compare, expect
from umie.bench.measure import peak_bytes, time_rounds
from umie.bench.operations import DIRECTIONS, DTYPES, TRAINING, Operation, make_weights, operations
from umie.bench.ratios import ROUNDS
from umie.bench.results import CANNOT, DONE, MISSED, WRONG, Results, Row
from umie.bench.runner import Runner, place
from umie.bench.shapes import Shape, draw


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure.

    Args:
        shapes: the shapes of the inputs.
        blocks: see ``operations.blocks``.
        backends: see ``operations.backends``.
        dtypes: keys of ``operations.DTYPES``.
        directions: from ``operations.DIRECTIONS``.
        device: ``cpu``, ``cuda``, ``cuda:1``.
        rounds: how often each operation is timed.
        peers: include other libraries' blocks and the limits.
        memory: measure the peak memory of each operation once, after it was timed.
        compiled: include the sdpa backend under ``torch.compile``, and on CUDA as a CUDA graph.
        lengths: lengths in tokens to sample those of ragged texts from; None for a uniform distribution.
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

    def groups(self) -> Iterator[tuple[Shape, str, list[Task]]]:
        """Yield the tasks of each shape and dtype, including those that cannot run.

        Use ``environment.device_error`` to find out whether the device is available.
        """
        for shape in self.shapes:
            for dtype in self.dtypes:
                tasks = []
                for operation in self.operations(shape, dtype):
                    rows = {way: _row(shape, dtype, way, operation) for way in self.directions}
                    tasks.append(Task(operation, rows))
                yield shape, dtype, tasks

    def rows(self) -> list[Row]:
        """Return an empty row for every measurement, with the reason if it cannot run."""
        return [row for _, _, tasks in self.groups() for task in tasks for row in task.rows.values()]


@dataclass
class Task:
    """An operation, its row for each direction, and its runner once it has passed the checks."""

    operation: Operation
    rows: dict[str, Row]
    runner: Runner | None = None


class Progress:
    """Callbacks of a run; these do nothing."""

    def start(self, total: int, what: str) -> None:
        """Begin a group of rows with ``total`` steps."""

    def step(self) -> None:
        """Count one warm-up, check or measurement."""

    def done(self, row: Row) -> None:
        """Report a row that will not be timed, or whose memory was not measured."""

    def save(self) -> None:
        """Save the results so far."""


def run(plan: Plan, results: Results, progress: Progress) -> None:
    """Run a plan. An interrupt keeps the measurements so far and sets ``results.complete`` to False.

    Args:
        plan: what to measure.
        results: receives all rows before the first measurement.
        progress: receives the callbacks.
    """
    groups = list(plan.groups())
    results.rows += [row for _, _, tasks in groups for task in tasks for row in task.rows.values()]
    weights: dict[Shape, dict[str, Tensor]] = {}
    try:
        for shape, dtype, tasks in groups:
            if shape not in weights:
                weights = {shape: make_weights(shape, plan.lengths)}
            _Group(plan, shape, dtype, progress).run(tasks, weights[shape])
            progress.save()
    except KeyboardInterrupt:
        results.complete = False
    progress.save()


class _Group:
    """The tasks of one shape and dtype, which share weights and inputs."""

    def __init__(self, plan: Plan, shape: Shape, dtype: str, progress: Progress) -> None:
        self.plan, self.shape, self.progress = plan, shape, progress
        self.name, self.dtype = f"{shape} {dtype}", DTYPES[dtype]

    def run(self, tasks: Sequence[Task], weights: dict[str, Tensor]) -> None:
        """Check all tasks, time the correct ones, and measure their memory."""
        plan = self.plan
        tasks = [task for task in tasks if any(row.status == MISSED for row in task.rows.values())]
        steps = 1 + len(plan.directions) * (plan.rounds + 1 + plan.memory)
        self.progress.start(len(tasks) * steps, self.name)
        self._check(tasks, weights)
        for direction in plan.directions:
            ready = {
                row.key: (row, task.runner)
                for task in tasks
                if (row := task.rows[direction]).status == MISSED and task.runner is not None
            }
            self._time(direction, list(ready.values()))
            if plan.memory:
                self._measure_memory(direction, list(ready.values()))
        for task in tasks:
            task.runner = None

    def _check(self, tasks: Sequence[Task], weights: dict[str, Tensor]) -> None:
        """Set the runner of each correct task; the rows of the others get their reason."""
        plan = self.plan
        placed = {name: value.to(plan.device, self.dtype) for name, value in weights.items()}
        inputs = draw(self.shape, device=plan.device, dtype=self.dtype, lengths=plan.lengths)
        expected: dict[tuple[str, str], Expected] = {}
        for task in tasks:
            operation = task.operation
            if expected and next(iter(expected))[0] != operation.block:
                expected.clear()  # references of one block at a time
            try:
                reason = operation.contract()
                if reason is not None:
                    self._refuse(task, WRONG, f"wrong: {reason}")
                    continue
                runner = Runner(
                    place(operation.build(weights), placed, plan.device, self.dtype), inputs, operation.variant
                )
                if operation.build_reference is not None:
                    key = operation.block, operation.reference
                    if key not in expected:
                        expected[key] = expect(operation, inputs, weights, self.dtype)
                    errors = compare(runner, expected[key], training=operation.unsupported_reason[TRAINING] is None)
                    for row in task.rows.values():
                        row.error, row.gradient_error = errors.values, errors.gradients
                    if reason := errors.wrong(self.dtype, peer=operation.kind == "peer"):
                        self._refuse(task, WRONG, reason)
                        continue
                task.runner = runner
            except Exception as error:
                self._refuse(task, CANNOT, _reason(error))
            finally:
                self.progress.step()

    def _refuse(self, task: Task, status: str, reason: str) -> None:
        for row in task.rows.values():
            if row.status == MISSED:
                row.status, row.reason = status, reason
                self.progress.done(row)

    def _time(self, direction: str, ready: Sequence[tuple[Row, Runner]]) -> None:
        by_name = {"\t".join(row.key): (row, runner) for row, runner in ready}

        def after(name: str) -> None:
            by_name[name][1].clear()
            self.progress.step()

        def failed(name: str, error: Exception) -> None:
            row = by_name[name][0]
            row.status, row.reason = CANNOT, f"while timed: {_reason(error)}"
            row.seconds.clear()
            self.progress.done(row)

        try:
            time_rounds(
                {name: partial(runner.run, direction) for name, (_, runner) in by_name.items()},
                rounds=self.plan.rounds,
                device=self.plan.device,
                times={name: row.seconds for name, (row, _) in by_name.items()},
                after=after,
                failed=failed,
            )
        finally:
            for row, _ in ready:
                if row.status == MISSED and row.seconds:
                    row.status = DONE

    def _measure_memory(self, direction: str, ready: Sequence[tuple[Row, Runner]]) -> None:
        for row, runner in ready:
            runner.clear()
            # A CUDA graph allocates its memory when it is recorded, not when it is replayed.
            if row.status == DONE and runner.variant != "graph":
                try:
                    row.peak_bytes = peak_bytes(partial(runner.run, direction), self.plan.device)
                except Exception as error:  # its times remain valid
                    row.reason = f"peak memory: {_reason(error)}"
                    self.progress.done(row)
            runner.clear()
            self.progress.step()


def _reason(error: Exception) -> str:
    """Return an error as one line for the row that it belongs to."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _row(shape: Shape, dtype: str, direction: str, operation: Operation) -> Row:
    reason = operation.unsupported_reason[direction]
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
