"""A benchmark run: every operation of a plan is checked, then timed in alternation, then measured for memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

from torch import Tensor

from umie.bench.check import Expected, Runner, compare, expect, place
from umie.bench.measure import peak_bytes, time_rounds
from umie.bench.operations import DIRECTIONS, DTYPES, TRAINING, Operation, make_weights, operations
from umie.bench.ratios import ROUNDS
from umie.bench.results import CANNOT, DONE, MISSED, WRONG, Results, Row, RowKey
from umie.bench.shapes import Shape, draw


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure; see ``umie.bench.operations`` for the names of blocks, backends, dtypes and directions."""

    shapes: Sequence[Shape]
    blocks: Sequence[str]
    backends: Sequence[str]
    dtypes: Sequence[str] = ("float32",)
    directions: Sequence[str] = DIRECTIONS
    device: str = "cpu"
    rounds: int = ROUNDS
    peers: bool = True  # other libraries' blocks and the limits too
    memory: bool = True  # measure the peak memory of each operation once, after it was timed
    compiled: bool = False  # the sdpa backend under torch.compile too, and on CUDA as a CUDA graph
    lengths: Sequence[int] | None = None  # in tokens, to sample those of ragged texts from; None for a uniform draw

    def groups(self) -> Iterator[tuple[Shape, str, list[Task]]]:
        """Yield the tasks of each shape and dtype, including those that cannot run.

        Use ``environment.device_error`` to find out whether the device is available.
        """
        for shape, dtype in product(self.shapes, self.dtypes):
            found = operations(
                shape,
                device=self.device,
                dtype=dtype,
                blocks=self.blocks,
                backends=self.backends,
                peers=self.peers,
                compiled=self.compiled,
            )
            tasks = [Task(each, {way: _row(shape, dtype, way, each) for way in self.directions}) for each in found]
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
    """Run a plan; ``results`` receives all rows before the first measurement.

    An interrupt keeps the measurements so far and sets ``results.complete`` to False.
    """
    groups = list(plan.groups())
    results.rows += [row for _, _, tasks in groups for task in tasks for row in task.rows.values()]
    weights: dict[Shape, dict[str, Tensor]] = {}
    try:
        for shape, dtype, tasks in groups:
            if shape not in weights:
                weights = {shape: make_weights(shape, plan.lengths)}
            runnable = [task for task in tasks if any(row.status == MISSED for row in task.rows.values())]
            steps = 1 + len(plan.directions) * (plan.rounds + 1 + plan.memory)
            progress.start(len(runnable) * steps, f"{shape} {dtype}")
            _check(plan, shape, dtype, runnable, weights[shape], progress)
            for direction in plan.directions:
                _measure(plan, direction, runnable, progress)
            for task in runnable:
                task.runner = None
            progress.save()
    except KeyboardInterrupt:
        results.complete = False
    progress.save()


def _check(
    plan: Plan, shape: Shape, dtype: str, tasks: Sequence[Task], weights: dict[str, Tensor], progress: Progress
) -> None:
    """Set the runner of each correct task; the rows of the others get their reason."""
    torch_dtype = DTYPES[dtype]
    placed = {name: value.to(plan.device, torch_dtype) for name, value in weights.items()}
    inputs = draw(shape, device=plan.device, dtype=torch_dtype, lengths=plan.lengths)
    expected: dict[tuple[str, str], Expected] = {}
    for task in tasks:
        operation, wrong = task.operation, None
        if expected and next(iter(expected))[0] != operation.block:
            expected.clear()  # references of one block at a time
        try:
            if reason := operation.contract():
                wrong = f"wrong: {reason}"
            else:
                module = place(operation.build(weights), placed, plan.device, torch_dtype)
                task.runner = Runner(module, inputs, operation.variant)
                if operation.build_reference is not None:
                    key = operation.block, operation.reference
                    if key not in expected:
                        expected[key] = expect(operation, inputs, weights, torch_dtype)
                    training = operation.unsupported_reason[TRAINING] is None
                    errors = compare(task.runner, expected[key], training=training)
                    for row in task.rows.values():
                        row.error, row.gradient_error = errors.values, errors.gradients
                    wrong = errors.wrong(torch_dtype, peer=operation.kind == "peer")
            if wrong is not None:
                _refuse(task, WRONG, wrong, progress)
        except Exception as error:
            _refuse(task, CANNOT, _reason(error), progress)
        finally:
            progress.step()


def _refuse(task: Task, status: str, reason: str, progress: Progress) -> None:
    task.runner = None
    for row in task.rows.values():
        if row.status == MISSED:
            row.status, row.reason = status, reason
            progress.done(row)


def _measure(plan: Plan, direction: str, tasks: Sequence[Task], progress: Progress) -> None:
    """Time the tasks that have a runner in alternation, then measure their memory."""
    ready = {
        row.key: (row, task.runner)
        for task in tasks
        if (row := task.rows[direction]).status == MISSED and task.runner is not None
    }

    def after(key: RowKey) -> None:
        ready[key][1].clear()
        progress.step()

    def failed(key: RowKey, error: Exception) -> None:
        row = ready[key][0]
        row.status, row.reason = CANNOT, f"while timed: {_reason(error)}"
        row.seconds.clear()
        progress.done(row)

    try:
        time_rounds(
            {key: partial(runner.run, direction) for key, (_, runner) in ready.items()},
            rounds=plan.rounds,
            device=plan.device,
            times={key: row.seconds for key, (row, _) in ready.items()},
            after=after,
            failed=failed,
        )
    finally:
        for row, _ in ready.values():
            if row.status == MISSED and row.seconds:
                row.status = DONE
    for row, runner in ready.values() if plan.memory else ():
        runner.clear()
        # A CUDA graph allocates its memory when it is recorded, not when it is replayed.
        if row.status == DONE and runner.variant != "graph":
            try:
                row.peak_bytes = peak_bytes(partial(runner.run, direction), plan.device)
            except Exception as error:  # its times remain valid
                row.reason = f"peak memory: {_reason(error)}"
                progress.done(row)
        runner.clear()
        progress.step()


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
        chosen=operation.chosen,
        status=MISSED if reason is None else CANNOT,
        reason=reason,
        note=operation.note,
    )
