"""A grid over several data sets: held-out sets are scored, and so is each wording."""

import json

import pytest

from umie.experiments.config import RunConfig
from umie.experiments.results import GATES

SIZES = {"format": "synthetic", "train": 30, "dev": 3, "test": 6}
GRID = {
    "data": {
        "sets": {
            "names": {**SIZES, "tasks": ["mner"]},
            "both": {**SIZES, "seed": 1},
            "own": {"format": "jsonl", "train": "own.jsonl", "tasks": {"mner": {"labels": ["ship", "person"]}}},
        },
        "sampling": {"strategy": "equal"},
    },
    "tasks": ["mner", "med"],
    "fusion": ["gated"],
    "train_on": ["all", {"without": "names"}],
    "warm_start": {"training": {"max_steps": 2, "batch_size": 4}},
    "evaluation": {
        "generation": {"max_new_tokens": 4},
        "instructions": ["paper", {"label": "mine", "mner": "Names? {labels}", "med": "I1"}],
    },
    "reference": [{"title": "last year", "names": {"mner": 50}, "nothing": {"mner": 1}}],
    "mean_over": ["mner"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The directory shared by the tests."""
    return tmp_path_factory.mktemp("several")


@pytest.fixture
def finished_grid(folder, write_grid, ablate):
    """Run the grid; from the second test on, only write its report."""
    line = {"text": "Ann is aboard .", "entities": [{"type": "person", "span": [0, 3]}], "tasks": ["mner"]}
    (folder / "own.jsonl").write_text(json.dumps(line) + "\n")
    path = write_grid(folder, **GRID)
    out = ablate(path, folder / "run")
    lines = [json.loads(text) for text in (folder / "run" / "results.jsonl").read_text().splitlines()]
    return {line["variant"]: line for line in lines}, out, folder / "run"


def test_every_set_is_scored_with_every_wording(finished_grid):
    lines, _, output = finished_grid
    assert set(lines) == {"all sets", "without names"}  # in any order
    keys = [f"{one} [{word}]" for word in ("paper", "mine") for one in ("names mner", "both mner", "both med")]
    for line in lines.values():
        assert line["status"] == "ok"
        assert list(line["metrics"]) == keys
        cell = output / "cells" / line["hash"]
        assert (cell / "names-mner-mine.jsonl").is_file()
        gates = json.loads((cell / GATES).read_text())
        assert {key: len(values) for key, values in gates.items()} == dict.fromkeys(keys[:1], 2) | {
            key: len(gates[key]) for key in keys[1:]
        }
        assert "gates" not in json.dumps({key: value for key, value in line.items() if key != "files"})


def trained_on(job):
    return RunConfig.from_json(job["config"]).trained_on


def test_a_held_out_set_is_used_neither_in_training_nor_in_the_warm_start(finished_grid):
    lines, _, output = finished_grid
    assert {variant: list(line["shares"]) for variant, line in lines.items()} == {
        "all sets": ["names", "both", "own"],
        "without names": ["both", "own"],
    }
    assert lines["without names"]["shares"] == {"both": 0.5, "own": 0.5}
    starts = {}
    for path in output.glob("warm_start/*.log.d/job.json"):
        job = json.loads(path.read_text())
        starts[trained_on(job)] = job["folder"]
    assert set(starts) == {("names", "both", "own"), ("both", "own")}
    for variant, line in lines.items():
        job = json.loads((output / "cells" / line["hash"] / "job.json").read_text())
        assert job["warm_start"] == starts[trained_on(job)], variant
        assert job["data"]["sets"]["own"]["tasks"] == {"mner": {"labels": ["ship", "person"]}}


def test_the_table_shows_set_wording_and_published_scores(finished_grid):
    _, out, output = finished_grid
    words = " ".join(out.split())
    for fact in (
        "names MNER [mine]",
        "`mean` averages names MNER [paper], both MNER [paper], names MNER [mine], both MNER [mine].",
        "- own is not scored: it has no annotated test records",
        "- own train: 1 records, 0 with an image",
        "- sampling of the data sets in training: equal",
        "- training shares of without names: both 50.0%, own 50.0%",
        "- decoder t5 (tiny): random weights, then a text-only warm start",
        "*last year*: published in the grid file, not measured here.",
    ):
        assert fact in words, fact
    (row,) = [line for line in out.splitlines() if "*last year (the grid file)*" in line]
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[3:9] == ["0.500", "", "", "0.500", "", ""]
    header = (output / "table.csv").read_text().splitlines()[0]
    assert header.endswith(",ceiling,reference: last year")


def test_free_and_constrained_answers_are_scored_apart(tmp_path, write_grid, ablate):
    decoding = {"constrained": "both", "generation": {"max_new_tokens": 24}}
    grid = {"data": SIZES, "tasks": ["mre"], "fusion": ["text_only"], "evaluation": decoding}
    out = ablate(write_grid(tmp_path, **grid), tmp_path / "run")
    (line,) = map(json.loads, (tmp_path / "run" / "results.jsonl").read_text().splitlines())
    assert list(line["metrics"]) == ["mre", "mre [free]"]
    assert "`mean` averages MRE." in out
    assert "decoding: constrained, and free, max_new_tokens 24" in out
    cell = tmp_path / "run" / "cells" / line["hash"]
    answers = {
        name: [json.loads(text).get("relations") for text in (cell / f"{name}.jsonl").read_text().splitlines()]
        for name in ("mre", "mre-free")
    }
    assert all(answers["mre"])  # the grammar admits no empty answer
    assert not all(answers["mre-free"])  # of a model that has learned nothing
