"""A run: correct operations are timed, others are reported with a reason; memory; interrupts."""

import dataclasses
import functools
import math

import pytest
import torch

from umie.bench import measure, shapes
from umie.bench.check import Errors, Runner, compare, error, expect, place
from umie.bench.environment import environment
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
from umie.bench.shapes import Shape, draw
from umie.fusion import registry as fusions
from umie.fusion.base import Fusion
from umie.fusion.cross_attention import CrossAttentionFusion
from umie.fusion.kernels import registry as kernels
from umie.fusion.kernels.cpu.feed_forward import _GatedFeedForward
from umie.fusion.kernels.sdpa import Sdpa
from umie.fusion.layers import GatedFeedForward, RMSNorm
from umie.types import FusedStates

MIB = 1 << 20


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Skip repeats: no test here depends on times."""
    monkeypatch.setattr(measure, "MIN_S", 0.0)
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


@pytest.fixture(scope="module")
def everything():
    """One run of every block, backend, peer and limit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(shapes.SIZES, "tiny", (32, 2, 16, 64))
        patch.setattr(measure, "MIN_S", 0.0)
        patch.setattr(measure, "WARM_UP_S", 0.0)
        return measured(plan())


def test_everything_registered_is_measured_in_both_directions(everything):
    assert everything.complete
    for direction in DIRECTIONS:
        rows = by_name(everything, direction)
        for block in ("released", "paper", "cross_attention"):
            ours = {name for found, name in rows if found == block and name.startswith("umie")}
            assert ours == {f"umie {name}" for name in backends()}
        assert {("gate", "umie"), ("concat", "umie"), ("text_only", "umie")} <= rows.keys()
        for row in rows.values():
            if row.status == CANNOT:
                assert row.reason
                continue
            assert (row.status, len(row.seconds)) == (DONE, 2), row
            assert row.kind == "limit" or row.error < 1e-5
            assert row.peak_bytes > 0 or row.block == "text_only"
    assert by_name(everything)["released", "umie xformers"].status == CANNOT or torch.cuda.is_available()


def test_peers_and_limits_are_measured_too(everything):
    rows = by_name(everything, TRAINING)
    for key in (("released", "plain released"), ("gate", "plain gate"), ("released", "bare products")):
        assert rows[key].status == DONE
    assert rows["released", "bare products"].kind == "limit"
    assert (rows["released", "flamingo-pytorch"].status, rows["released", "flamingo-pytorch"].seconds) == (CANNOT, [])


class Unscaled(Sdpa):
    """sdpa with an error of one percent."""

    def attend(self, q, k, v, **options):
        return 1.01 * super().attend(q, k, v, **options)


class WrongGradient(Sdpa):
    """Correct values, but no gradient reaches the keys."""

    def attend(self, q, k, v, **options):
        return super().attend(q, k.detach(), v, **options)


@pytest.mark.parametrize(("name", "kernel", "where"), [("big", Unscaled, "error"), ("cut", WrongGradient, "gradient")])
def test_a_wrong_kernel_is_refused(monkeypatch, name, kernel, where):
    monkeypatch.setitem(kernels._parts, name, kernel)
    reported = []

    class Reporting(Progress):
        def done(self, row):
            reported.append(row.name)

    results = measured(plan(blocks=["released", "paper"], backends=["sdpa", name], peers=False), Reporting())
    for row in results.rows:
        assert row.status == (WRONG if row.name == f"umie {name}" else DONE)
        assert bool(row.seconds) == (row.status == DONE)
        if row.status == WRONG:
            assert row.reason.startswith("wrong: error")
            assert where in row.reason
    assert set(reported) == {f"umie {name}"}


def other_eps(patch):
    patch.setattr(RMSNorm, "__init__", lambda self, d_model: torch.nn.RMSNorm.__init__(self, d_model, eps=1e-3))


def swapped_gradients(patch):
    backward = _GatedFeedForward.backward

    def swapped(ctx, grad):
        found = list(backward(ctx, grad))
        gate, up = (place for place, value in enumerate(found) if value is not None and value.shape == (64, 32))
        found[gate], found[up] = found[up], found[gate]
        return tuple(found)

    patch.setattr(_GatedFeedForward, "backward", staticmethod(swapped))


def halved_feed_forward(patch):
    forward = GatedFeedForward.forward
    patch.setattr(GatedFeedForward, "forward", lambda self, states, added, **_: added + 0.5 * forward(self, states))


@pytest.mark.parametrize(
    ("bug", "wrong"),
    [
        (other_eps, {"released", "paper", "cross_attention"}),
        (swapped_gradients, {"released"}),
        (halved_feed_forward, {"released"}),
    ],
)
def test_a_bug_that_every_backend_has_makes_our_rows_wrong(monkeypatch, bug, wrong):
    """The reference shares no code with ours: the `reference` backend is as wrong as the others."""
    bug(monkeypatch)
    listed = ["released", "paper", "cross_attention", "gate"]
    results = measured(plan(blocks=listed, backends=["reference", "sdpa"], rounds=1, memory=False, peers=False))
    for row in results.rows:
        assert (row.status == WRONG) == (row.block in wrong), row


def test_values_that_are_wrong_only_with_gradients_are_refused(monkeypatch):
    class Trained(CrossAttentionFusion):
        def forward(self, *inputs, **options):
            found = super().forward(*inputs, **options)
            off = 0.001 * found.states.detach() if torch.is_grad_enabled() else 0.0  # every gradient is right
            return dataclasses.replace(found, states=found.states + off)

    monkeypatch.setitem(fusions._parts, "cross_attention", Trained)
    results = measured(plan(blocks=["cross_attention"], backends=["sdpa"], peers=False))
    assert {row.status for row in results.rows} == {WRONG}
    assert "gradient" not in results.rows[0].reason


class OwnFusion(Fusion):
    """Keeps the contract: the mean of the real slots is added."""

    def forward(self, text, text_mask, visual, visual_mask, *, output_attention=False):
        return FusedStates(text + self.mean(visual, visual_mask)[:, None], text_mask)

    def mean(self, visual, mask):
        return (visual * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


class ReadsPadding(OwnFusion):
    def mean(self, visual, mask):
        return visual.mean(1)


class ChangesText(OwnFusion):
    def mean(self, visual, mask):
        return super().mean(visual, mask) + 0.5


class Detached(OwnFusion):
    def mean(self, visual, mask):
        return super().mean(visual.detach(), mask)


class WrongMask(OwnFusion):
    def forward(self, text, text_mask, *inputs, **options):
        return FusedStates(super().forward(text, text_mask, *inputs, **options).states, ~text_mask)


class Crash(Fusion):
    def forward(self, text, text_mask, visual, visual_mask, *, output_attention=False):
        raise RuntimeError("no kernel image\nis available")


@pytest.mark.parametrize(
    ("fusion", "status", "reason"),
    [
        (OwnFusion, DONE, None),
        (ReadsPadding, WRONG, "padding"),
        (ChangesText, WRONG, "without an image"),
        (Detached, WRONG, "no gradient reaches the visual states"),
        (WrongMask, WRONG, "text_mask"),
        (Crash, CANNOT, "RuntimeError: no kernel image"),
    ],
)
def test_a_custom_fusion_must_keep_the_contract(monkeypatch, fusion, status, reason):
    monkeypatch.setitem(fusions._parts, "own", fusion)
    (row,) = measured(plan(blocks=["own"], directions=[FORWARD], memory=False)).rows
    assert row.status == status
    assert (row.reason is None) if reason is None else (reason in row.reason)


class Fails(Sdpa):
    """Runs out of memory from its nth call on."""

    calls = 0
    first = 0

    def attend(self, q, k, v, **options):
        type(self).calls += 1
        if self.calls >= self.first:
            raise MemoryError("9 GB\nwere asked for")
        return super().attend(q, k, v, **options)


@pytest.mark.parametrize("first", [3, 5])  # calls: a check in each direction, warm-up, two rounds of two
def test_a_failure_while_timed_is_reported(monkeypatch, first):
    monkeypatch.setitem(kernels._parts, "fails", Fails)
    Fails.calls, Fails.first = 0, first
    results = measured(plan(blocks=["paper"], backends=["fails", "sdpa"], peers=False))
    assert results.complete
    for row in results.rows:
        if row.name == "umie sdpa":
            assert (row.status, len(row.seconds)) == (DONE, 2)
        else:
            assert (row.status, row.seconds) == (CANNOT, [])
            assert row.reason == "while timed: MemoryError: 9 GB"


def test_a_failed_memory_measurement_keeps_the_times(monkeypatch):
    monkeypatch.setitem(kernels._parts, "fails", Fails)
    Fails.calls, Fails.first = 0, 8
    results = measured(plan(blocks=["paper"], backends=["fails"], directions=[FORWARD], peers=False))
    (row,) = results.rows
    assert (row.status, len(row.seconds), row.peak_bytes) == (DONE, 2, None)
    assert row.reason == "peak memory: MemoryError: 9 GB"


def test_an_operation_runs_untimed_before_each_measurement():
    calls, times = [], {"a": [], "b": []}
    measure.time_rounds(
        {name: functools.partial(calls.append, name) for name in times}, rounds=3, device="cpu", times=times
    )
    assert [len(found) for found in times.values()] == [3, 3]
    assert calls[:2] == ["a", "b"]  # warm-ups
    assert len(calls) == 2 + 2 * 2 * 3
    assert all(untimed == timed for untimed, timed in zip(calls[2::2], calls[3::2], strict=True))


def test_an_interrupt_keeps_the_results():
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


def test_half_precision_has_its_own_bound():
    results = measured(plan(blocks=["cross_attention"], backends=["sdpa"], dtypes=["bfloat16"], peers=False))
    assert [row.status for row in results.rows] == [DONE, DONE]
    assert 1e-5 < results.rows[0].error < 1e-2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_plain_blocks_are_correct_without_an_image_in_16_bits(dtype):
    results = measured(plan(blocks=["released", "paper", "gate"], backends=[], dtypes=[dtype], rounds=1, memory=False))
    plain = [row for row in results.rows if row.name.startswith("plain")]
    assert len(plain) == 6
    assert all(row.status == DONE for row in plain), [row.reason for row in plain]


def test_errors_are_relative_and_nan_is_wrong():
    expected = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert error(torch.tensor([3.0, 4.5]), expected) == pytest.approx(0.1)
    assert error(torch.tensor([3.0, 9.0]), expected, real=torch.tensor([True, False])) == 0
    assert error(torch.tensor([3.0, 4.5]), expected, scale=10.0) == pytest.approx(0.05)
    assert math.isnan(error(torch.zeros(3), expected))
    for wrong in (Errors(2e-5), Errors(float("nan")), Errors(0.0, 1e-4, "text"), Errors(0.0, float("nan"), "text")):
        assert wrong.wrong(torch.float32)
    assert Errors(9e-6, 9e-6).wrong(torch.float32) is None


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, "3e-02"), (torch.float16, "1e-02")])
def test_in_16_bits_gradients_of_peers_have_their_own_bound(dtype, most):
    assert f"(at most {most})" in Errors(0.0, 4e-2, "text").wrong(dtype)
    assert Errors(0.0, 9e-3, "text").wrong(dtype) is None
    assert Errors(0.0, 4e-2, "text").wrong(dtype, peer=True) is None
    assert "(at most 5e-02)" in Errors(0.0, 6e-2, "text").wrong(dtype, peer=True)
    assert Errors(2e-2, 0.0, "text").wrong(dtype, peer=True)  # values have one bound
    assert Errors(0.0, 2e-5, "text").wrong(torch.float32, peer=True)


@pytest.mark.parametrize("block", ["released", "paper", "cross_attention", "gate"])
def test_a_wrong_weight_is_noticed_in_every_block(block):
    """The gate is open, so that the values depend on every weight."""
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


def test_equal_weights_share_their_memory():
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


def test_peak_memory_of_known_allocations():
    def known():
        first, second = (torch.empty(size * MIB, dtype=torch.uint8) for size in (10, 20))
        del first
        third = torch.empty(5 * MIB, dtype=torch.uint8)
        del second
        return third

    kept = torch.empty(7 * MIB, dtype=torch.uint8)  # memory allocated before is not counted
    assert measure.peak_bytes(known, "cpu") == 30 * MIB
    x = torch.zeros(MIB // 4, requires_grad=True)
    assert measure.peak_bytes(lambda: x.exp().detach(), "cpu") == MIB
    assert kept.nbytes == 7 * MIB
