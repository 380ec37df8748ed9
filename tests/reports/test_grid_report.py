"""The report of a grid: means and intervals, ceilings, crashed cells, tables and figures."""

import csv
import dataclasses
import io
import json
import math

import pytest
from PIL import Image

from umie.experiments.expand import plan
from umie.experiments.grid_run import GridRun
from umie.experiments.results import COUNTS
from umie.experiments.summary import MEAN, Interval, rows, score
from umie.reports import grid_figure
from umie.reports.grid import FILES, ceiling_findings, write_report

CEILINGS = {"mner": 0.6, "mre": 0.5}


@pytest.fixture
def grid_run(make_grid, no_data):
    """Return a grid of gated and text_only on two tasks: ``grid_run({("gated", 0): {"mner": 0.5, "mre": 0.7}})``."""

    def make(scores, *, ceilings=CEILINGS, crashed=(), **changes):
        seeds = sorted({seed for _, seed in [*scores, *crashed]})
        grid = make_grid(
            **{
                "name": "by hand",
                "tasks": ["mner", "mre"],
                "fusion": ["gated", "text_only"],
                "seeds": seeds,
                "mean_over": ["mner", "mre"],
                **changes,
            }
        )
        cells = plan(grid, "f")
        data = no_data(
            tasks={"mner": {}, "mre": {}},
            ceilings=ceilings,
            num_records={"train": 30, "dev": 6, "test": 12},
            num_combinations={"train": {"T+I": 29, "T": 1}, "dev": {"T+I": 6}, "test": {"T+I": 10, "T": 2}},
        )
        results = {}
        for cell in cells:
            key = (cell.variant, cell.seed)
            if key in crashed:
                error = {"error": "RuntimeError: no luck", "traceback": "Traceback\n  no luck"}
                results[cell.hash] = {"hash": cell.hash, "status": "crashed", "seed": cell.seed, **error}
            elif key in scores:
                results[cell.hash] = result(cell, scores[key])
        return GridRun(grid, data, cells, results)

    return make


def result(cell, scores):
    gated = cell.variant == "gated"
    return {
        "hash": cell.hash,
        "variant": cell.variant,
        "seed": cell.seed,
        "status": "ok",
        "metrics": {
            task: {"precision": f1, "recall": f1, "f1": f1, "interval": [f1 - 0.02, f1 + 0.02], "dropped": 2}
            for task, f1 in scores.items()
        },
        "health": {"visual_gradient": 0.25, **({"gate_mean": 0.5, "gate_closed": 0.25} if gated else {})},
        "parameters": 1234567,
        "counts": {"train": {"truncated_inputs": 3, "unreachable_spans": 2}, "test": {}},
        "uses_image": gated,
        "device": "cpu",
        "threads": 1,
        "seconds": {"train": 10.0, "total": 20.0},
        "versions": {"umie": "0.1.0"},
    }


SCORES = {
    ("gated", 0): {"mner": 0.80, "mre": 0.60},
    ("gated", 1): {"mner": 0.90, "mre": 0.70},
    ("text_only", 0): {"mner": 0.55, "mre": 0.45},
    ("text_only", 1): {"mner": 0.61, "mre": 0.53},
}


@pytest.mark.parametrize(
    ("values", "mean", "half_width"),
    [
        # By hand: mean, and t(0.975; n - 1) * s / sqrt(n) with t = 4.3027, 2.7764 for 2, 4 degrees.
        ((0.5, 0.6, 0.7), 0.6, 4.30265 * 0.1 / math.sqrt(3)),
        ((0.1, 0.2, 0.3, 0.4, 0.5), 0.3, 2.77645 * 0.158114 / math.sqrt(5)),
        ((0.4, 0.4, 0.4), 0.4, 0.0),
    ],
)
def test_intervals_are_student_s(values, mean, half_width):
    interval = Interval.of(values)
    assert interval.mean == pytest.approx(mean)
    assert interval.half_width == pytest.approx(half_width, rel=1e-4)
    assert str(interval) == f"{mean:.3f} ± {half_width:.3f}"


def test_one_or_two_values_have_no_interval_and_no_values_have_no_mean():
    assert list(map(str, map(Interval.of, ([0.4], [0.4, 0.5], [])))) == ["0.400", "0.450", "-"]
    assert all(math.isnan(Interval.of(values).half_width) for values in ([0.4], [0.4, 0.5], []))


def test_rows_average_over_seeds_and_the_chosen_tasks(grid_run):
    first, second = rows(grid_run(SCORES))
    assert (first.variant, second.variant) == ("gated", "text_only")
    assert [first.scores[name].mean for name in ("mner", "mre", MEAN)] == pytest.approx([0.85, 0.65, 0.75])
    assert second.scores[MEAN].mean == pytest.approx((0.5 + 0.57) / 2)
    third = {("gated", 2): {"mner": 0.85, "mre": 0.95}, ("text_only", 2): {"mner": 0.5, "mre": 0.5}}
    first, _ = rows(grid_run(SCORES | third))
    # The interval of the mean is that of the seeds' means, 0.70, 0.80 and 0.90, not of the six scores.
    assert first.scores[MEAN].half_width == pytest.approx(4.30265 * 0.1 / math.sqrt(3), rel=1e-4)


def test_the_mean_is_only_over_the_chosen_tasks(grid_run):
    run = grid_run(SCORES, mean_over=["mre"])
    assert [score(line, MEAN, run.mean_over) for line in rows(run)[0].lines] == [0.6, 0.7]


def table_of(markdown, heading=None):
    """Return the first table (below a heading) as one mapping a row."""
    if heading is not None:
        markdown = markdown.split(heading, 1)[1]
    lines = markdown[markdown.index("\n|") + 1 :].split("\n\n", 1)[0].splitlines()
    header, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(header, row, strict=True)) for row in body]


def test_the_page_contains_every_number(grid_run, tmp_path):
    markdown = write_report(grid_run(SCORES, notes=["A note."]), tmp_path)
    assert (tmp_path / "table.md").read_text() == markdown
    ceiling, gated, text_only = table_of(markdown)
    assert ceiling == {
        **dict.fromkeys(ceiling, ""),
        "variant": "*text-only ceiling*",
        "MNER": "0.600",
        "MRE": "0.500",
        "mean": "0.550",
    }
    assert gated["MNER"] == "0.850"  # two seeds
    assert [gated[key] for key in ("seeds", "gate", "gate closed", "visual gradient", "parameters", "train s")] == [
        "2",
        "0.50",
        "25%",
        "0.25",
        "1,234,567",
        "10",
    ]
    assert (text_only["gate"], text_only["gate closed"]) == ("-", "-")
    cells = table_of(markdown, "## Cells")
    assert [(cell["variant"], cell["seed"], cell["mean"]) for cell in cells] == [
        ("gated", "0", "0.700"),
        ("gated", "1", "0.800"),
        ("text_only", "0", "0.500"),
        ("text_only", "1", "0.570"),
    ]
    assert cells[0]["MNER [95%]"] == "0.800 [0.780, 0.820]"
    assert cells[0]["dropped"] == "4"
    assert "on the test split (12 records)" in markdown
    assert "`mean` averages MNER, MRE" in markdown
    for fact in (
        "- test: 12 records, 10 with an image",
        "- truncated inputs (train): 3",
        "- unreachable spans (train): 2",
        "- A note.",
        "umie 0.1.0",
    ):
        assert fact in markdown
    assert "failed" not in markdown.casefold()
    assert "nan" not in markdown.casefold()


@pytest.mark.parametrize("grounded", ["mner", "mre"])
def test_the_page_names_grounded_tasks(grid_run, tmp_path, grounded):
    tasks = {task: {"grounded": task == grounded} for task in ("mner", "mre")}
    write_report(grid_run({("gated", 0): {"mner": 0.5, "mre": 0.7}}, tasks=tasks), tmp_path)
    page = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert page.count("(`grounded`)") == 1
    assert f"*{grounded.upper()}*: an item is correct only if the places" in page


def test_scores_by_combination_of_media_and_what_is_possible_without_some(grid_run, tmp_path):
    run = grid_run(SCORES)
    known = {"T": {"mner": {"T": 1}}, "T+I": {"mner": {"T": 0.5, "T+I": 1}, "mre": {"T": 0.3, "T+I": 1}}}
    data = dataclasses.replace(run.data.sets["data"], ceilings_by_combination=known)
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, sets={"data": data}))
    for cell in run.cells:
        seen = cell.variant == "gated"
        for task, f1 in {"mner": 0.9 + cell.seed / 20, "mre": 0.8}.items():
            with_image = f1 if seen else 0.31
            run.results[cell.hash]["metrics"][task]["by_combination"] = {
                "T": {"f1": 0.7, "interval": [0.6, 0.8]},
                "T+I": {"f1": with_image, "interval": [with_image - 0.005, with_image + 0.005]},
            }
    page = write_report(run, tmp_path)
    section = page.split("## By combination of media")[1].split("##")[0]
    assert table_of(section) == [
        {"variant": "gated", "T": "0.700 (0.700)", "T+I": "0.863 (0.850)"},
        {"variant": "text_only", "T": "0.700 (0.700)", "T+I": "0.310 (0.310)"},
        {"variant": "*ceiling without I, A, V*", "T": "", "T+I": "0.400"},
    ]
    assert "2 of 4 are above" in section  # MRE's 0.31 and 0.3, with two seeds; without an image, nothing is hidden
    assert "text_only, seed 1, mre, T+I: 0.310 > 0.300" in section
    assert "## By combination" not in write_report(grid_run(SCORES), tmp_path)


def test_without_ceilings_no_row_and_no_findings(grid_run, tmp_path):
    run = grid_run(SCORES, ceilings={})
    markdown = write_report(run, tmp_path)
    assert "ceiling" not in markdown.casefold()
    assert ceiling_findings(run) == []
    assert len(table_of(markdown)) == 2
    assert {line["ceiling"] for line in csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text()))} == {""}


def test_cells_are_compared_with_the_ceiling(grid_run):
    found = ceiling_findings(grid_run(SCORES))
    assert found == [
        "gated, seed 0: mean 0.700, 0.150 above the mean ceiling",
        "gated, seed 1: mean 0.800, 0.250 above the mean ceiling",
        "text_only, seed 0: MNER 0.550 [0.530, 0.570] is not significantly above the ceiling of 0.600",
        "text_only, seed 0: MRE 0.450 [0.430, 0.470] is not significantly above the ceiling of 0.500",
        "text_only, seed 1: MNER 0.610 [0.590, 0.630] is not significantly above the ceiling of 0.600",
        "text_only, seed 1: MRE 0.530 [0.510, 0.550] is ABOVE the ceiling of 0.500",
    ]
    below = ceiling_findings(grid_run({("gated", 0): {"mner": 0.5, "mre": 0.5}}))
    assert below == ["gated, seed 0: mean 0.500, 0.050 BELOW the mean ceiling"]


def test_crashed_cells_are_listed_and_excluded_from_the_means(grid_run, tmp_path):
    scores = {key: value for key, value in SCORES.items() if key != ("gated", 1)}
    run = grid_run(scores, crashed=[("gated", 1)])
    assert [(cell.variant, cell.seed) for cell in run.crashed] == [("gated", 1)]
    markdown = write_report(run, tmp_path)
    _, gated, text_only = table_of(markdown)
    assert (gated["seeds"], gated["MNER"], gated["mean"]) == ("1", "0.800", "0.700")
    assert text_only["seeds"] == "2"
    assert table_of(markdown, "## Cells")[1]["mean"] == "failed"
    crashed = markdown.split("## Failed (1)")[1]
    assert "gated, seed 1: RuntimeError: no luck" in crashed
    assert "Traceback\n  no luck" in crashed
    assert len(ceiling_findings(run)) == 5


def test_cells_that_never_ran_are_listed(grid_run, tmp_path):
    run = grid_run({key: value for key, value in SCORES.items() if key != ("text_only", 0)})
    markdown = write_report(run, tmp_path)
    assert table_of(markdown, "## Cells")[2]["mean"] == "not run"
    assert "text_only, seed 0: not run" in markdown


def test_a_grid_whose_cells_all_crashed_has_a_report(grid_run, tmp_path):
    markdown = write_report(grid_run({}, crashed=[("gated", 0), ("text_only", 0)]), tmp_path)
    assert [row["mean"] for row in table_of(markdown)] == ["0.550", "-", "-"]
    assert "nan" not in markdown.casefold()
    assert "nan" not in (tmp_path / "table.csv").read_text()
    with Image.open(tmp_path / "figure.png") as figure:
        figure.load()


def test_the_csv_contains_every_number_with_six_places(grid_run, tmp_path):
    write_report(grid_run(SCORES), tmp_path)
    lines = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [(line["variant"], line["task"]) for line in lines] == [
        (variant, task) for variant in ("gated", "text_only") for task in ("mner", "mre", "mean")
    ]
    assert lines[0] == {
        "variant": "gated",
        "task": "mner",
        "num_seeds": "2",
        "f1_mean": "0.850000",
        "f1_t95_half_width": "",  # two seeds
        "f1_by_seed": "0:0.800000 1:0.900000",
        "ceiling": "0.600000",
    }
    assert [float(line["ceiling"]) for line in lines[:3]] == pytest.approx([0.6, 0.5, 0.55])
    assert lines[5]["f1_by_seed"] == "0:0.500000 1:0.570000"


def test_a_single_seed_has_a_mean_and_an_empty_interval(grid_run, tmp_path):
    markdown = write_report(grid_run({key: value for key, value in SCORES.items() if key[1] == 0}), tmp_path)
    _, gated, _ = table_of(markdown)
    assert (gated["seeds"], gated["MNER"], gated["MRE"], gated["mean"]) == ("1", "0.800", "0.600", "0.700")
    assert "nan" not in markdown.casefold()
    for line in csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())):
        assert line["f1_t95_half_width"] == ""
        assert float(line["f1_mean"]) > 0


def test_special_characters_in_labels_are_escaped(grid_run, tmp_path):
    label = 'a|b, "c"'
    scores = {(label, 0): {"mner": 0.5, "mre": 0.5}, ("text_only", 0): SCORES["text_only", 0]}
    run = grid_run(scores, fusion=[{"name": "gated", "label": label}, "text_only"])
    markdown = write_report(run, tmp_path)
    line = next(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert line["variant"] == label
    rows_of_table = markdown[markdown.index("\n|") + 1 :].split("\n\n", 1)[0].splitlines()
    assert len({row.replace("\\|", "").count("|") for row in rows_of_table}) == 1


def test_the_figure_is_not_blank(grid_run, tmp_path):
    write_report(grid_run(SCORES), tmp_path)
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.format == "PNG"
        assert min(figure.size) > 300
        colors = figure.convert("RGB").getcolors(maxcolors=1 << 24)
    assert len(colors) > 50
    white = max(count for count, _ in colors)
    assert white < 0.95 * sum(count for count, _ in colors)


def test_the_written_files(grid_run, tmp_path):
    write_report(grid_run(SCORES), tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {name for name in FILES if not name.startswith("gate")}
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


def test_the_latex_table(grid_run, tmp_path):
    write_report(grid_run(SCORES), tmp_path)
    lines = (tmp_path / "table.tex").read_text().splitlines()
    assert lines[1:4:2] == ["\\toprule", "\\midrule"]
    table = [[cell.strip() for cell in line.split("&")] for line in lines if "&" in line]
    by_name = {name: cells for name, *cells in table}
    assert by_name["text-only ceiling"][1:4] == ["0.600", "0.500", "0.550"]
    assert by_name["text\\_only"][0] == "2"
    assert by_name["gated"][5] == "25\\%"


@pytest.mark.parametrize("num_seeds", [2, 3])
def test_intervals_are_drawn_from_three_seeds_on(grid_run, monkeypatch, tmp_path, num_seeds):
    labels = []
    monkeypatch.setattr(grid_figure, "save_figure", lambda figure, *_, **__: labels.extend(_legend(figure)))
    scores = {("gated", seed): {"mner": 0.8 + seed / 100, "mre": 0.6} for seed in range(num_seeds)}
    write_report(grid_run(scores), tmp_path)
    assert ("95% interval" in labels) == (num_seeds == 3)
    assert {"each seed", "mean over seeds", "text-only ceiling"} <= set(labels)


def test_a_crashed_variant_and_a_missing_seed_are_visible_in_the_figure(grid_run, monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr(grid_figure, "save_figure", lambda figure, *_, **__: figures.append(figure))
    scores = {("gated", 0): {"mner": 0.8, "mre": 0.6}}
    write_report(grid_run(scores, crashed=[("text_only", 0), ("gated", 1)]), tmp_path)
    first = figures[0].axes[0]
    assert [label.get_text() for label in first.get_yticklabels()] == ["gated (1 of 2 seeds)", "text_only"]
    assert [text.get_text() for text in first.texts] == ["0.800", "failed"]


def _legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_training_options_of_single_parts_are_reported_with_their_variants(grid_run, tmp_path):
    fusion = [{"name": "gated", "label": "gated", "training": {"max_steps": 7}}, "text_only"]
    run = grid_run(SCORES, fusion=fusion, training=[{"max_steps": 5, "batch_size": 2}])
    assert {cell.variant: cell.training["max_steps"] for cell in run.cells} == {"gated": 7, "text_only": 5}
    assert run.cells[0].parts["fusion"] == {"name": "gated"}
    markdown = write_report(run, tmp_path)
    assert "- training of gated: max_steps 7, batch_size 2" in markdown
    assert "- training of text_only: max_steps 5, batch_size 2" in markdown


def test_the_page_says_what_the_intervals_support(grid_run, tmp_path):
    third = {("gated", 2): {"mner": 0.85, "mre": 0.65}, ("text_only", 2): {"mner": 0.5, "mre": 0.5}}
    run = grid_run(SCORES | third)
    good, poor = [[3, 3, 3], [2, 2, 2]] * 20, [[1, 2, 3], [1, 2, 2], [0, 1, 3], [1, 3, 2]] * 10
    for cell in run.cells:
        folder = tmp_path / "cells" / cell.hash
        folder.mkdir(parents=True)
        mre = [[1, 2, 2]] * 40  # no difference
        counts = {"mner": good if cell.variant == "gated" else poor, "mre": mre}
        (folder / COUNTS).write_text(json.dumps(counts))
    run.__dict__["baselines"] = {"mner": ("mentions of train", 0.7), "mre": ("always 'peer'", 0.4)}
    page = write_report(run, tmp_path)
    mner, mre = table_of(page, "## What the intervals support")
    assert (mner["variant"], mner["against"], mner["task"], mner["seeds"]) == ("gated", "text_only", "MNER", "3")
    # by hand: 100 of 100 items right; 2 * 30 / (80 + 100)
    assert mner["difference [95%]"].startswith(f"{100 - 100 * 60 / 180:+.1f} [")
    assert (mner["p"], mner["the variant is"]) == ("< 0.001", "better")
    assert (mre["difference [95%]"], mre["the variant is"]) == ("+0.0 [+0.0, +0.0]", "equal")
    assert "- gated: above the baseline on MNER, MRE\n" in page
    assert "- text_only: above the baseline on MRE; not shown on MNER (0 of 3 seeds)\n" in page
    assert "*Baseline without a model*: MNER: mentions of train; MRE: always 'peer'." in page
    assert {row["variant"] for row in table_of(page)} >= {"*baseline without a model*"}


def test_a_grid_without_a_gate_has_no_columns_and_no_words_about_gates(grid_run, tmp_path):
    with_gate, without = (
        write_report(grid_run({(variant, 0): {"mner": 0.5, "mre": 0.7}}), tmp_path)
        for variant in ("gated", "text_only")
    )
    assert "| gate " in with_gate.partition("\n\n*")[0]
    assert "*Gate closed*" in with_gate
    assert "| gate " not in without.partition("## Cells")[0]
    assert "*Gate closed*" not in without
