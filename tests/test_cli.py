"""The command line: output, errors and exit codes. tests/experiments/test_grid_runs.py runs grids."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import umie as library
from umie import encoders, registries
from umie.data.synthetic import SyntheticConfig, ceilings
from umie.records import read_jsonl

GRID = """
name: tiny-grid
data: {format: synthetic, train: 6, dev: 3, test: 3}
tasks: [mner]
fusion: [gated, {name: gated, gate: 0.5, label: "[half] open"}]
seeds: [0, 1]
"""


@pytest.fixture
def grid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    return path


@pytest.mark.parametrize("name", ["resnet101_roi", "grid", "gated", "t5", "mner", "synthetic", "synthetic_media"])
def test_list_shows_every_option_of_a_part(umie, name):
    code, out, _ = umie("list", name, "--json")
    assert code == 0
    meanings = json.loads(out)
    assert all(meanings.values()), meanings
    assert name in umie("list", name)[1]
    if name == "resnet101_roi":
        assert set(meanings) == {field.name for field in dataclasses.fields(encoders.registry.get(name).Config)}


def test_list_of_an_unknown_part_suggests_one(umie):
    code, _, err = umie("list", "clp")
    assert (code, err.count("\n")) == (2, 1)
    assert "Unknown part 'clp'. Did you mean 'clip'?" in err


def test_list_as_json_prints_only_json():
    command = subprocess.run(
        [str(Path(sys.executable).with_name("umie")), "list", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=True,
    )
    parts = json.loads(command.stdout)
    assert list(parts) == list(registries.ALL)
    assert {"clip", "resnet101_roi", "tiny"} <= set(parts["encoders"])
    assert {"concat", "cross_attention", "gated", "text_only"} <= set(parts["fusions"])
    assert "t5" in parts["decoders"]
    assert list(parts["tasks"]) == ["caption", "match", "meae", "med", "mner", "mre"]
    assert all(description for names in parts.values() for description in names.values())
    assert parts["decoders"]["span"].endswith("of each label: sigmoid(c . l / sqrt(D) + b)")
    assert {"twitter", "synthetic", "synthetic_media"} <= set(parts["data formats"])
    listed = {kind: getattr(library, f"list_{kind.replace(' ', '_')}")() for kind in parts}
    listed["data formats"] += library.list_embedded_sets()
    assert {kind: sorted(names) for kind, names in listed.items()} == {kind: sorted(own) for kind, own in parts.items()}
    assert command.stderr == ""


def test_list_is_a_table(umie):
    code, out, err = umie("list")
    assert (code, err) == (0, "")
    for name in ("cross_attention", "mner", "t5", "twitter"):
        assert name in out
    assert "flan-t5-base" in umie("list", "t5")[1]


def test_help_lists_the_commands(umie):
    for arguments, expected in ((["--help"], 0), ([], 2)):
        code, out, err = umie(*arguments)
        assert (code, err) == (expected, "")
        assert "Multimodal information extraction from composable parts" in out
        for command in ("list", "ablate", "data"):
            assert re.search(rf"^\W*{command}\s", out, re.MULTILINE)


def test_the_help_of_ablate_describes_options_and_exit_codes(umie):
    code, out, _ = umie("ablate", "--help")
    assert code == 0
    for option in ("--plan", "--calibrate", "--seeds", "--only", "--only-failed", "--limit", "--data-root", "--output"):
        assert option in out
    words = " ".join(out.split())
    assert "Run an ablation grid and write its report, table and figure" in words
    assert "Exit code: 0 all chosen cells have results, 1 a cell failed" in words


def test_the_version_is_that_of_the_library(umie):
    assert umie("--version") == (0, f"{library.__version__}\n", "")


def test_an_unknown_command_or_option_is_exit_code_2(umie, grid):
    for arguments in (["ablat"], ["ablate", grid, "--pln"], ["ablate", grid, "--workers", "0"], ["ablate"]):
        code, out, err = umie(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("umie: ")
        assert re.search(r" \(see umie.* --help\)\n$", err)


def test_data_synthetic_writes_records_that_can_be_read(umie, tmp_path):
    folder = tmp_path / "drawn"
    code, out, err = umie(
        "data", "synthetic", folder, "--train", "6", "--dev", "3", "--test", "3", "--seed", "7", "--image-share", "1"
    )
    assert (code, err) == (0, "")
    config = SyntheticConfig(seed=7, train=6, dev=3, test=3, image_share=1)
    for split, size in (("train", 6), ("dev", 3), ("test", 3)):
        records = list(read_jsonl(folder / f"{split}.jsonl"))
        assert len(records) == size
        assert all(record.image_path().is_file() for record in records)
        assert f"{split}: {size} records in" in out
    shown = " ".join(out.split())
    for task, ceiling in ceilings(config).items():
        assert f"{task.upper()} {ceiling:.3f}" in shown


def test_data_synthetic_media_writes_records_and_says_what_partial_sight_can_reach(umie, tmp_path):
    folder = tmp_path / "drawn"
    sizes = ["--train", "4", "--dev", "2", "--test", "2"]
    code, out, err = umie("data", "synthetic-media", folder, *sizes, "--combination", "T+I", "--combination", "V+A")
    assert (code, err) == (0, "")
    shown = " ".join(out.split())
    for split, size in (("train", 8), ("dev", 4), ("test", 4)):
        records = list(read_jsonl(folder / f"{split}.jsonl"))
        assert [record.combination for record in records] == ["T+I", "A+V"] * (size // 2)
        assert all(record.path(medium).is_file() for record in records for medium in record.media)
        assert f"{split}: {size} records in" in shown
    assert "best F1 of MNER in T+I, of types / with places, seeing: T 0.551 / 0.551" in shown
    assert (
        "best F1 of MED in A+V, of types / with places, seeing: nothing 0.400 / 0.118, A 1.000 / 1.000, V 0.400 / 0.118"
        in shown
    )
    code, _, err = umie("data", "synthetic-media", folder, *sizes)
    assert (code, f"{folder / 'train.jsonl'} exists: use another directory, or --overwrite" in err) == (2, True)
    code, _, err = umie("data", "synthetic-media", folder, "--combination", "T+X")
    assert (code, err.count("\n")) == (2, 1)
    assert "a combination is 'T+X'" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--train", "-1"], "train is -1"),
        (["--image-share", "2"], "image_share is 2"),
    ],
)
def test_data_synthetic_rejects_invalid_values(umie, tmp_path, arguments, expected):
    code, out, err = umie("data", "synthetic", tmp_path / "drawn", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert expected in err


def test_data_synthetic_reports_a_directory_that_cannot_be_written(umie, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = umie("data", "synthetic", tmp_path / "file", "--train", "3", "--dev", "3", "--test", "3")
    assert (code, err.count("\n")) == (2, 1)
    assert str(tmp_path / "file") in err


def rows_of(out):
    return [[cell.strip() for cell in line.strip("│ ").split("│")] for line in out.splitlines() if "│" in line]


def test_plan_lists_the_cells_without_running_them(umie, grid, tmp_path):
    code, out, err = umie("ablate", grid, "--plan")
    assert (code, err) == (0, "")
    rows = rows_of(out)
    assert [row[1:] for row in rows] == [
        ["gated", "0", "to run"],
        ["gated", "1", "to run"],
        ["[half] open", "0", "to run"],
        ["[half] open", "1", "to run"],
    ]
    assert len({row[0] for row in rows}) == 4
    assert "4 cells; records: train 6, dev 3, test 3; output: runs/tiny-grid" in out
    assert not (tmp_path / "runs").exists()


def test_plan_shows_the_state_of_cells(umie, grid, tmp_path):
    _, out, _ = umie("ablate", grid, "--plan")
    cells = [row[0] for row in rows_of(out)]
    results = tmp_path / "runs" / "tiny-grid" / "results.jsonl"
    results.parent.mkdir(parents=True)
    score = {"f1": 0.5, "precision": 0.5, "recall": 0.5, "interval": [0.4, 0.6], "dropped": 0}
    done = {"seed": 0, "metrics": dict.fromkeys(("mner", "mre", "med", "meae"), score), "health": {}, "counts": {}}
    done |= {"parameters": 1, "seconds": {}, "uses_image": True, "device": "cpu", "threads": 1, "versions": {}}
    lines = [
        {"hash": cells[0], "status": "ok", **done},
        {"hash": cells[2], "status": "crashed", "error": "", "traceback": ""},
        {"hash": cells[3], "status": "ok"},  # not a result
    ]
    results.write_text("".join(json.dumps(line) + "\n" for line in lines))
    torn = results.read_bytes() + b'{"hash": "'
    results.write_bytes(torn)
    _, out, err = umie("ablate", grid, "--plan")
    assert [row[3] for row in rows_of(out)] == ["ok", "to run", "failed", "to run"]
    assert "results.jsonl:3: not a result: " in err
    assert results.read_bytes() == torn  # only a run, which has the lock, repairs it


def test_another_split_has_other_cells(umie, grid):
    test, dev, named = (
        {row[0] for row in rows_of(umie("ablate", grid, "--plan", *arguments)[1])}
        for arguments in ([], ["--split", "dev"], ["--split", "test"])
    )
    assert "output: runs/tiny-grid-dev\n" in umie("ablate", grid, "--plan", "--split", "dev")[1]
    assert len(test) == len(dev) == 4
    assert not test & dev
    assert named == test


def test_workers_and_output_do_not_change_the_cells(umie, grid, tmp_path):
    one, other = (
        {row[0] for row in rows_of(umie("ablate", grid, "--plan", *arguments)[1])}
        for arguments in ([], ["--workers", "7", "--output", tmp_path / "else[where]"])
    )
    assert one == other
    assert "output: else[where]\n" in umie("ablate", grid, "--plan", "--output", "else[where]")[1]


def test_data_root_is_the_directory_of_relative_paths(umie, tmp_path):
    (tmp_path / "there").mkdir()
    for name, text in (("a", "Ann"), ("b", "Bob")):
        line = f'{{"text": "{text}", "entities": [{{"type": "p", "span": [0, 3]}}]}}\n'
        (tmp_path / "there" / f"{name}.jsonl").write_text(line)
    path = tmp_path / "grid.yaml"
    path.write_text("data: {format: jsonl, train: a.jsonl, test: b.jsonl}\ntasks: mner\n")
    code, _, err = umie("ablate", path, "--plan", "--output", tmp_path / "run")
    assert code == 2
    assert f"{tmp_path / 'a.jsonl'}: no such file" in err
    code, out, _ = umie("ablate", path, "--plan", "--output", tmp_path / "run", "--data-root", tmp_path / "there")
    assert code == 0
    assert "records: train 1, test 1" in out


def test_a_missing_data_root_is_reported(umie, grid, tmp_path):
    code, out, err = umie("ablate", grid, "--data-root", tmp_path / "none")
    assert (code, out, err) == (2, "", f"umie: --data-root {tmp_path / 'none'}: not a directory\n")


def start(*arguments, **options):
    """Run the command line in its own process."""
    program = "import sys; from umie.cli import main; sys.argv[0] = 'umie'; main()"
    interruptible = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # background processes ignore SIGINT
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, text=True, preexec_fn=interruptible, **options)


def test_a_closed_output_pipe_is_not_an_error(tmp_path):
    path = tmp_path / "many.jsonl"
    path.write_text('{"text": "Ann ", "entities": [{"type": "a", "span": [0, 4]}]}\n' * 20_000)
    with start("data", "validate", path, "--warnings", 0, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 1
        assert process.stderr.read() == ""


def test_an_interrupt_leaves_no_traceback(tmp_path):
    path = tmp_path / "many.jsonl"
    path.write_text('{"text": "Ann ", "entities": [{"type": "a", "span": [0, 4]}]}\n' * 20_000)
    with start("data", "validate", path, "--warnings", 0, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()  # the command waits for the others to be read
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() in ("", "umie: interrupted\n")  # depends on the version of typer
