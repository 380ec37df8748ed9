"""Figure 4 from a grid: sweeps, comparisons with the paper, and the two figures."""

import json
import re

import pytest
from PIL import Image

from umie.experiments.expand import plan
from umie.experiments.grid_run import GridRun
from umie.experiments.results import GATES
from umie.reports.gate_study import (
    AGREES,
    DISAGREES,
    HISTOGRAM,
    SWEEP,
    UNDECIDED,
    dynamic_gates,
    gate_findings,
    sweeps,
)
from umie.reports.grid import write_report

SEEDS = [0, 1, 2]
FUSIONS = [
    {"name": "gated", "detach_gate": True, "label": "D"},
    {"name": "gated", "gate": 0.0},
    {"name": "gated", "gate": 0.1},
    {"name": "gated", "gate": 1.0},
    {"name": "gated", "residual": "released", "gate": 0.5},
    {"name": "gated", "residual": "released"},
    "text_only",
]
F1 = {"dynamic": (0.80, 0.82, 0.81), 0.0: (0.70, 0.72, 0.71), 0.1: (0.80, 0.81, 0.83), 1.0: (0.85, 0.86, 0.87)}


@pytest.fixture
def swept(make_grid, no_data):
    """Return a grid that varies the gate under two residuals: ``swept(f1=..., crashed=...)``."""

    def make(f1=F1, seeds=SEEDS, crashed=()):
        tasks = {"mner": {}, "mre": {}}
        grid = make_grid(name="swept", tasks=list(tasks), fusion=FUSIONS, seeds=seeds, mean_over=list(tasks))
        cells = plan(grid, "f")
        sizes = {"train": 9, "test": 9}
        data = no_data(tasks=tasks, num_records=sizes, num_combinations={"train": {"T+I": 9}, "test": {"T+I": 9}})
        results = {}
        for cell in cells:
            values = f1.get(cell.parts["fusion"].get("gate", "dynamic"), (0.5, 0.6, 0.4))
            score = {"mner": values[cell.seed], "mre": values[cell.seed] / 2}
            results[cell.hash] = {
                "hash": cell.hash,
                "status": "crashed" if (cell.variant, cell.seed) in crashed else "ok",
                "error": "no luck",
                "seed": cell.seed,
                "metrics": {task: {"f1": f1, "interval": [f1, f1], "dropped": 0} for task, f1 in score.items()},
                "health": {},
                "counts": {},
                "parameters": 1,
                "uses_image": True,
                "device": "cpu",
                "threads": 1,
                "seconds": {"train": 1.0},
                "versions": {},
            }
        return GridRun(grid, data, cells, results)

    return make


def record_gates(run, output, gates):
    for cell in run.cells:
        folder = output / "cells" / cell.hash
        folder.mkdir(parents=True, exist_ok=True)
        (folder / GATES).write_text(json.dumps(gates))


def test_variants_of_a_sweep_differ_only_in_the_gate(swept):
    first, second = sweeps(swept())
    assert (first.title, second.title) == ("residual paper", "residual released")
    assert list(first.fixed) == [0.0, 0.1, 1.0]
    assert list(second.fixed) == [0.5]
    assert sorted(first.dynamic) == sorted(second.dynamic) == SEEDS
    assert first.f1("dynamic", "mner") == [0.80, 0.82, 0.81]
    assert first.gain("dynamic", 0.0, "mner") == pytest.approx([0.1, 0.1, 0.1])


def test_each_claim_of_the_paper_agrees_disagrees_or_is_undecided(swept):
    found = {
        (one.task, one.claim): (one.measured, one.verdict)
        for one in gate_findings(swept())
        if one.sweep == "residual paper"
    }
    assert found["MNER", "dynamic is better than g = 0 (by 0.1 in the paper)"] == (
        "+10.0 [+10.0, +10.0], the paper's value is outside",
        AGREES,
    )
    assert found["MNER", "dynamic is better than g = 0.1"][1] == UNDECIDED
    assert found["MNER", "dynamic is better than g = 1"][1] == DISAGREES
    assert found["MNER", "g = 0.1 is better than g = 1"][1] == DISAGREES
    # by hand: -(0.05, 0.05, 0.04) in points: mean -4.667, t(0.975; 2) * s / sqrt(3) = 4.30265 * 0.57735 / 1.73205
    assert found["MNER", "g = 0.1 is better than g = 1"][0] == "-4.7 [-6.1, -3.2]"
    assert found["MRE", "gains more over g = 0 than MNER"] == ("-5.0 [-5.0, -5.0]", DISAGREES)


def test_with_one_seed_nothing_is_decided(swept):
    assert {one.verdict for one in gate_findings(swept(seeds=[0]))} == {UNDECIDED}


def test_a_crashed_seed_is_excluded_from_the_pairs(swept):
    (sweep, _) = sweeps(swept(crashed=[("D", 1)]))
    assert sweep.gain("dynamic", 0.0, "mner") == pytest.approx([0.1, 0.1])


def test_dynamic_gates_are_collected_over_seeds_with_the_authors_medians(swept, tmp_path):
    run = swept()
    record_gates(run, tmp_path, {"mner": [0.1, 0.2, 0.6], "mre": [-0.01]})
    mner, mre = dynamic_gates(run, tmp_path)[:2]
    assert (mner.sweep, mner.task, len(mner.values), mner.published) == ("residual paper", "MNER", 9, 0.056)
    assert (mre.sweep, mre.task, list(mre.values), mre.published) == ("residual paper", "MRE", [-0.01] * 3, 0.082)


@pytest.mark.slow
def test_the_report_draws_both_figures(swept, tmp_path):
    run = swept()
    record_gates(run, tmp_path, {"mner": [0.1, 0.2, 0.6], "mre": [-0.01, 0.05]})
    report = write_report(run, tmp_path)
    assert re.search(r"\| residual paper +\| MNER +\| 9 +\| 0.200 +\| 0.056", report)
    for name in (SWEEP, HISTOGRAM):
        assert f"![{name}]({name})" in report
        with Image.open(tmp_path / name) as figure:
            colors = figure.convert("RGB").getcolors(maxcolors=1 << 24)
            assert max(count for count, _ in colors) < 0.95 * figure.width * figure.height
    assert "comparisons agree" in report
    assert re.search(r"\| residual paper +\| MNER +\| dynamic is better than g = 1 ", report)


@pytest.mark.slow
def test_without_recorded_gates_there_is_no_histogram(swept, tmp_path):
    report = write_report(swept(), tmp_path)
    assert (tmp_path / SWEEP).exists() and not (tmp_path / HISTOGRAM).exists()
    assert HISTOGRAM not in report


def test_a_sweep_whose_cells_all_crashed_has_a_report(swept, tmp_path):
    run = swept(seeds=[0], crashed=[(cell.variant, 0) for cell in swept(seeds=[0]).cells])
    assert "nan" not in write_report(run, tmp_path).casefold()
