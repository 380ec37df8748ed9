"""A run: what is right is timed, what is wrong or cannot run is told; memory; interrupts."""

import math

import pytest
import torch

from umie.bench import measure
from umie.bench.check import Errors, compare, error, expect
from umie.bench.environment import environment
from umie.bench.memory import peak_bytes
from umie.bench.operations import (
    DIRECTIONS,
    FORWARD,
    TRAINING,
    backends,
    blocks,
    make_weights,
    operations,
)
from umie.bench.results import CANNOT, DONE, MISSED, WRONG, Results
from umie.bench.run import Plan, Progress, run
from umie.bench.runner import Runner, place
from umie.bench.shapes import Shape, draw
from umie.fusion import registry as fusions
from umie.fusion.base import Fusion
from umie.fusion.kernels import registry as kernels
from umie.fusion.kernels.sdpa import Sdpa
from umie.types import FusedStates

MIB = 1 << 20


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Nothing is repeated for long: figures are not looked at here."""
    monkeypatch.setattr(measure, "LEAST_S", 0.0)
    monkeypatch.setattr(measure, "WARM_UP_S", 0.0)


def plan(**options):
    given = {
        "shapes": [Shape(size="tiny", batch=3, tokens=6, slots=4, ragged=True)],
        "blocks": blocks(),
        "backends": backends(),
        "rounds": 2,
        **options,
    }
    return Plan(**given)


def measured(given, progress=None):
    results = Results(environment=environment("cpu", 1), options={"rounds": given.rounds}, rows=[])
    run(given, results, progress or Progress())
    return results


def by_name(results, direction=FORWARD):
    return {(row.block, row.name): row for row in results.rows if row.direction == direction}


def test_everything_registered_is_measured_in_both_directions():
    results = measured(plan(peers=False))
    assert results.complete
    for direction in DIRECTIONS:
        rows = by_name(results, direction)
        for block in ("released", "paper", "cross_attention"):
            assert {name for found, name in rows if found == block} == {f"umie {name}" for name in backends()}
        assert {("gate", "umie"), ("concat", "umie"), ("text_only", "umie")} <= rows.keys()
        for row in rows.values():
            if row.status == CANNOT:
                assert row.reason
                continue
            assert (row.status, len(row.seconds)) == (DONE, 2), row
            assert row.error < 1e-5
            assert row.peak_bytes > 0 or row.block == "text_only"
    assert by_name(results)["released", "umie xformers"].status == CANNOT or torch.cuda.is_available()


def test_peers_and_limits_stand_beside():
    pytest.importorskip("transformers")
    results = measured(
        plan(blocks=["released", "gate"], backends=["auto"], shapes=[Shape(size="tiny", batch=2, tokens=5)])
    )
    rows = by_name(results, TRAINING)
    assert rows["released", "plain released"].status == DONE
    assert rows["gate", "plain gate"].status == DONE
    assert rows["released", "bare products"].kind == "limit"
    assert rows["released", "bare products"].status == DONE


def test_what_takes_no_masks_is_left_out_of_ragged_shapes():
    found = {row.name: row for row in measured(plan(blocks=["released"], backends=["auto"])).rows}
    assert found["flamingo-pytorch"].status == CANNOT
    assert found["flamingo-pytorch"].seconds == []


class Unscaled(Sdpa):
    """Nearly sdpa: off by a hundredth in what it finds."""

    def attend(self, q, k, v, **options):
        return 1.01 * super().attend(q, k, v, **options)


class WrongGradient(Sdpa):
    """The right values; no gradient reaches the keys."""

    def attend(self, q, k, v, **options):
        return super().attend(q, k.detach(), v, **options)


@pytest.mark.parametrize(("name", "kernel", "where"), [("big", Unscaled, "error"), ("cut", WrongGradient, "gradient")])
def test_a_wrong_kernel_is_refused(monkeypatch, name, kernel, where):
    monkeypatch.setitem(kernels._parts, name, kernel)
    told = []

    class Told(Progress):
        def done(self, row):
            told.append(row.name)

    results = measured(plan(blocks=["released", "paper"], backends=["sdpa", name], peers=False), Told())
    for row in results.rows:
        assert row.status == (WRONG if row.name == f"umie {name}" else DONE)
        assert bool(row.seconds) == (row.status == DONE)
        if row.status == WRONG:
            assert row.reason.startswith("wrong: error")
            assert where in row.reason
    assert set(told) == {f"umie {name}"}


def test_a_fusion_of_ones_own_is_a_block_and_one_that_crashes_has_its_reason(monkeypatch):
    class Mean(Fusion):
        def forward(self, text, text_mask, visual, visual_mask, *, output_attention=False):
            return FusedStates(text + visual.mean(1, keepdim=True), text_mask)

    class Crash(Fusion):
        def forward(self, text, text_mask, visual, visual_mask, *, output_attention=False):
            raise RuntimeError("no kernel image\nis available")

    monkeypatch.setitem(fusions._parts, "mean", Mean)
    monkeypatch.setitem(fusions._parts, "crash", Crash)
    rows = by_name(measured(plan(blocks=["mean", "crash"])))
    assert rows["mean", "umie"].status == DONE
    assert (rows["crash", "umie"].status, rows["crash", "umie"].reason) == (CANNOT, "RuntimeError: no kernel image")


def test_an_interrupt_keeps_what_was_measured():
    class Interrupt(Progress):
        steps = saved = 0

        def step(self):
            self.steps += 1
            if self.steps == 5:  # after two checks and two warm-ups: in the first round
                raise KeyboardInterrupt

        def save(self):
            self.saved += 1

    progress = Interrupt()
    first = Shape(size="tiny", batch=1, tokens=2, slots=2)
    results = measured(plan(blocks=["concat", "text_only"], shapes=[first], rounds=3), progress)
    assert not results.complete
    assert progress.saved
    assert {row.status for row in results.rows} == {MISSED}


def test_half_precision_is_held_to_its_own_bound():
    results = measured(plan(blocks=["paper"], backends=["sdpa"], dtypes=["bfloat16"], peers=False))
    assert [row.status for row in results.rows] == [DONE, DONE]
    assert 1e-5 < results.rows[0].error < 1e-2


def test_errors_are_relative_and_nan_is_wrong():
    expected = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert error(torch.tensor([3.0, 4.5]), expected) == pytest.approx(0.1)
    assert error(torch.tensor([3.0, 9.0]), expected, real=torch.tensor([True, False])) == 0
    assert error(torch.tensor([3.0, 4.5]), expected, scale=10.0) == pytest.approx(0.05)
    assert math.isnan(error(torch.zeros(3), expected))
    for wrong in (Errors(2e-5), Errors(float("nan")), Errors(0.0, 1e-4, "text"), Errors(0.0, float("nan"), "text")):
        assert wrong.wrong(torch.float32)
    assert Errors(9e-6, 9e-6).wrong(torch.float32) is None


@pytest.mark.parametrize("block", ["released", "paper", "cross_attention", "gate"])
def test_a_wrong_weight_is_seen_in_every_block(block):
    """The gate stands open, so that what it lets through counts."""
    shape = Shape(size="tiny", batch=2, tokens=5)
    weights, inputs = make_weights(shape), draw(shape, device="cpu", dtype=torch.float32)
    operation = operations(shape, device="cpu", dtype="float32", blocks=[block], backends=["sdpa"], peers=False)[0]
    expected = expect(operation, inputs, weights, torch.float32)
    module = place(operation.build(weights), {}, "cpu", torch.float32)
    name = "gate_visual.0.weight" if block == "gate" else "attention.key.weight"
    assert compare(Runner(module, inputs), expected, training=True).wrong(torch.float32) is None
    with torch.no_grad():
        dict(module.fusion.named_parameters())[name][:8].mul_(1.2)
    assert compare(Runner(module, inputs), expected, training=False).wrong(torch.float32)


def test_parameters_that_are_weights_share_their_memory():
    shape = Shape(size="tiny", batch=1, tokens=2)
    weights = make_weights(shape)
    found = operations(
        shape, device="cpu", dtype="float32", blocks=["released"], backends=["sdpa", "auto"], peers=False
    )
    places = {
        place(operation.build(weights), weights, "cpu", torch.float32).fusion.attention.key.weight.data_ptr()
        for operation in found
    }
    assert places == {weights["attention.key.weight"].data_ptr()}


def test_peak_memory_is_that_of_a_known_allocation():
    def known():
        first, second = (torch.empty(size * MIB, dtype=torch.uint8) for size in (10, 20))
        del first
        third = torch.empty(5 * MIB, dtype=torch.uint8)
        del second
        return third

    kept = torch.empty(7 * MIB, dtype=torch.uint8)  # what was there before does not count
    assert peak_bytes(known, "cpu") == 30 * MIB
    x = torch.zeros(MIB // 4, requires_grad=True)
    assert peak_bytes(lambda: x.exp().detach(), "cpu") == MIB
    assert kept.nbytes == 7 * MIB
