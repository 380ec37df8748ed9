"""Grid runs: their output, and how they continue after kills with the same results."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from grid_helpers import TASKS, cells_in_process, lines_of, write_plugin
from PIL import Image

from umie.experiments.expand import plan, read_grid
from umie.experiments.results import RESULTS, append_result, read_results
from umie.records import read_jsonl

VARYING = ("seconds", "memory", "disk", "seal")  # keys that may differ between two runs of a cell


def cells_of(finished):
    fingerprint = next(finished.output.glob("data-*")).name.removeprefix("data-")
    return plan(read_grid(finished.grid_file), fingerprint)


def constant(line: dict) -> dict:
    return {key: value for key, value in line.items() if key not in VARYING}


# --- a finished grid -------------------------------------------------------------------------------------------------


def test_each_cell_has_a_line_with_its_measurements(finished):
    cells = cells_of(finished)
    lines = {line["hash"]: line for line in finished.lines}
    assert len(finished.lines) == len(lines) == 2
    assert set(lines) == {cell.hash for cell in cells}
    for cell in cells:
        line = lines[cell.hash]
        assert (line["status"], line["variant"], line["seed"]) == ("ok", cell.variant, cell.seed)
        assert line["parts"] == cell.parts
        assert set(line["versions"]) == {"umie", "python", "torch", "transformers"}
        assert set(line["metrics"]) == set(TASKS)
        for scores in line["metrics"].values():
            assert {"precision", "recall", "f1", "gold", "predicted", "interval", "dropped"} <= set(scores)
            assert 0 <= scores["f1"] <= 1
            assert scores["gold"] > 0
        assert {"train", "evaluate", "total"} <= set(line["seconds"])
        assert line["seconds"]["total"] >= line["seconds"]["train"] + line["seconds"]["evaluate"] > 0
        assert line["parameters"] == line["trainable_parameters"] > 500_000
        assert set(line["counts"]) == {"train", "test"}
        assert line["train_loss"] > 0
        assert (line["device"], line["uses_image"]) == ("cpu", cell.variant == "gated")
        assert (line["health"]["visual_gradient"] > 0) == (cell.variant == "gated")
        assert ("gate_mean" in line["health"]) == (cell.variant == "gated")
    gated, text_only = (lines[cell.hash] for cell in cells)
    assert gated["parameters"] > text_only["parameters"]


def test_predictions_are_records_of_the_split(finished):
    asked = {record.id: record.text for record in read_jsonl(next(finished.output.glob("data-*")) / "test.jsonl")}
    for line in finished.lines:
        for task in TASKS:
            predictions = list(read_jsonl(finished.output / "cells" / line["hash"] / f"{task}.jsonl"))
            assert len(predictions) == 4
            assert all(asked[prediction.id] == prediction.text for prediction in predictions)


def test_the_table_is_printed_and_written(finished):
    markdown = (finished.output / "table.md").read_text()
    assert finished.out.startswith(markdown)
    assert "Traceback" not in finished.err
    for line in finished.lines:
        assert f"\n| {line['variant']} " in markdown
    assert "*text-only ceiling*" in markdown
    assert "60 records, 60 with an image" in markdown
    assert "nan" not in markdown.casefold()


def test_the_csv_agrees_with_the_results(finished):
    table = list(csv.DictReader(io.StringIO((finished.output / "table.csv").read_text())))
    assert len(table) == 2 * (len(TASKS) + 1)
    scores = {(line["variant"], task): line["metrics"][task]["f1"] for line in finished.lines for task in TASKS}
    for row in table:
        if row["task"] != "mean":
            assert float(row["f1_mean"]) == pytest.approx(scores[row["variant"], row["task"]], abs=1e-6)
        assert 0 < float(row["ceiling"]) < 1


def test_the_figure_opens_and_is_not_blank(finished):
    with Image.open(finished.output / "figure.png") as figure:
        assert len(figure.convert("RGB").getcolors(maxcolors=1 << 24)) > 50


def test_the_warm_start_is_trained_once_and_shared(finished):
    (folder,) = (path for path in (finished.output / "warm_start").iterdir() if not path.suffix)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    jobs = [json.loads(path.read_text()) for path in finished.output.glob("cells/*/job.json")]
    assert [job["warm_start"] for job in jobs] == [str(folder), str(folder)]


# --- running again ---------------------------------------------------------------------------------------------------


def test_a_finished_grid_is_not_run_again(finished, run, tmp_path):
    output = finished.copy(tmp_path)
    before = (output / RESULTS).read_bytes()
    again, recorder = run(finished.grid_file, output)
    assert recorder.started == []
    assert again.crashed == []
    assert (output / RESULTS).read_bytes() == before


def test_a_lost_line_is_restored_from_the_directory_of_the_cell(finished, run, tmp_path):
    output = finished.copy(tmp_path)
    first, second = (output / RESULTS).read_text().splitlines(keepends=True)
    (output / RESULTS).write_text(second)
    again, recorder = run(finished.grid_file, output)
    assert recorder.started == []
    assert again.crashed == []
    assert sorted(lines_of(output), key=lambda line: line["hash"]) == sorted(
        map(json.loads, (first, second)), key=lambda line: line["hash"]
    )


def test_a_lost_results_file_is_restored(finished, run, tmp_path):
    output = finished.copy(tmp_path)
    (output / RESULTS).unlink()
    again, recorder = run(finished.grid_file, output)
    assert recorder.started == []
    assert (again.crashed, len(lines_of(output))) == ([], 2)


@pytest.mark.parametrize("cut", [-1, -2, -400, 5], ids=["line end", "bracket", "middle", "begin"])
def test_an_incomplete_last_line_is_restored(finished, run, tmp_path, cut):
    output = finished.copy(tmp_path)
    text = (output / RESULTS).read_text()
    first, second = text.splitlines(keepends=True)
    (output / RESULTS).write_text(first + second[:cut])
    again, recorder = run(finished.grid_file, output)
    assert recorder.started == []
    assert again.crashed == []
    assert lines_of(output) == [json.loads(first), json.loads(second)]


def test_a_line_without_line_end_is_not_joined_with_the_next(finished, run, tmp_path):
    """An editor removed the last line end, or a kill came just before it."""
    output = finished.copy(tmp_path)
    text = (output / RESULTS).read_text()
    shutil.rmtree(output / "cells")  # only the file has the results
    (output / RESULTS).write_text(text.removesuffix("\n"))
    assert run(finished.grid_file, output)[1].started == []
    append_result(output / RESULTS, {"hash": "of another grid", "status": "ok"})
    assert run(finished.grid_file, output)[1].started == []


def test_a_damaged_line_is_reported_and_restored_from_the_directory_of_the_cell(finished, umie, tmp_path):
    output = finished.copy(tmp_path)
    text = (output / RESULTS).read_text()
    place = text.index('"f1": ') + 6
    (output / RESULTS).write_text(text[:place] + "0.98765" + text[place + 2 :])
    for option in (("--plan",), ()):
        code, _, err = umie("ablate", finished.grid_file, "--output", output, *option)
        assert (code, "running" in err) == (0, False)
        assert f"{output / RESULTS}:1: damaged" in err
    assert (output / RESULTS).read_text().count("0.98765") == 0
    assert sorted(lines_of(output), key=str) == sorted(map(json.loads, text.splitlines()), key=str)


def test_a_result_can_contain_unicode_line_separators(finished, tmp_path):
    first, _ = finished.lines
    line = {**first, "status": "crashed", "error": "ValueError: one\u2028two\u0085three", "traceback": "\x0c\u2029"}
    del line["seal"]
    (tmp_path / RESULTS).write_text(json.dumps(line, ensure_ascii=False) + "\n")
    assert read_results(tmp_path, {first["hash"]: "gated"}, TASKS) == {first["hash"]: line}


def test_results_of_other_grids_are_kept(finished, run, tmp_path):
    output = finished.copy(tmp_path)
    other = json.dumps({"hash": "of another grid", "status": "ok"}) + "\n"
    (output / RESULTS).write_text(other + (output / RESULTS).read_text() + '{"torn')
    done, recorder = run(finished.grid_file, output)
    assert recorder.started == []
    assert (output / RESULTS).read_text().startswith(other)
    assert "of another grid" not in done.results
    assert len(lines_of(output)) == 3


def test_only_a_finished_grid_says_so(finished, tmp_path, umie):
    assert "already had results" not in finished.err
    code, _, err = umie("ablate", finished.grid_file, "--output", finished.copy(tmp_path))
    assert code == 0
    assert "cells already had results; none was run" in err


# --- kills -----------------------------------------------------------------------------------------------------------


def children_of(pid: int) -> list[int]:
    """Return the running child processes of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may end at any time
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(stat.parent.name))
    return found


def cells_of_grid(pid: int) -> list[int]:
    """Return the processes that the fork server of a grid started, and the server."""
    found = children_of(pid)
    below = [cell for child in found for cell in children_of(child)]
    return [*found, *below] if below else []


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds: float, what: str):
    """Return the value of the condition as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"timeout after {seconds} s: {what}"
        time.sleep(0.05)
    return value


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes below /proc")


@pytest.mark.slow
@needs_proc
def test_a_killed_grid_ends_its_cell_which_has_the_same_result_later(finished, start_umie, umie, run, tmp_path):
    """One cell has a result; the other, whose result is incomplete, runs, is killed, and runs again.

    The first results are those of cells in this process: a cell in its own process has the same.
    """
    output = finished.copy(tmp_path)
    (gone,) = (line for line in finished.lines if line["variant"] == "gated")
    (kept,) = (line for line in finished.lines if line["variant"] == "text_only")
    (output / RESULTS).write_text(json.dumps(kept) + "\n" + json.dumps(gone)[:200])
    shutil.rmtree(output / "cells" / gone["hash"])
    grid = start_umie("ablate", finished.grid_file, "--output", output)
    workers = wait_until(lambda: cells_of_grid(grid.pid), 240, "the process of the cell")

    code, _, err = umie("ablate", finished.grid_file, "--output", output)
    assert code == 2
    assert err == f"umie: {output} is in use by another run: wait for it, or use another --output\n"

    os.kill(grid.pid, signal.SIGKILL)
    grid.wait()
    wait_until(lambda: not any(map(is_running, workers)), 20, "the end of the cell's process")
    assert lines_of(output) == [kept]
    assert not (output / "cells" / gone["hash"] / "result.json").exists()  # it was not finished

    again, recorder = run(finished.grid_file, output)
    assert recorder.started == ["gated, seed 0"]
    assert again.crashed == []
    first, second = lines_of(output)
    assert first == kept
    assert constant(second) == constant(gone)
    for task in TASKS:
        file = Path("cells") / gone["hash"] / f"{task}.jsonl"
        assert (output / file).read_bytes() == (finished.output / file).read_bytes()
    log = (output / "cells" / gone["hash"] / "log.txt").read_text()
    assert re.fullmatch(r"\d+ training queries .*\n", log)  # the process ended without errors
    progress = recorder.advanced["gated, seed 0"]
    assert [phase for phase, _ in progress] == ["train"] * 3 + ["evaluate"] * 4
    assert all(0 < share <= 1 for _, share in progress)
    assert [share for phase, share in progress if phase == "train"] == sorted(share for _, share in progress[:3])


@needs_proc
@pytest.mark.slow
def test_a_grid_killed_in_its_second_cell_keeps_the_result_of_the_first(grid_file, start_umie, run, tmp_path):
    output = tmp_path / "run"
    path = grid_file(workers=1)
    grid = start_umie("ablate", path, "--output", output)
    results = output / RESULTS
    wait_until(lambda: len(list(output.glob("cells/*/job.json"))) == 1 or grid.poll(), 60, "the first cell")

    wait_until(lambda: results.exists() and results.read_text().endswith("\n"), 90, "the first result")
    wait_until(lambda: len(list(output.glob("cells/*/job.json"))) == 2, 30, "the second cell")
    workers = wait_until(lambda: cells_of_grid(grid.pid), 120, "the process of the second cell")
    os.kill(grid.pid, signal.SIGKILL)
    grid.wait()
    assert len(lines_of(output)) == 1
    wait_until(lambda: not any(map(is_running, workers)), 20, "the end of the second cell's process")

    before = results.read_bytes()
    (first,) = lines_of(output)
    again, recorder = run(path, output)
    assert again.crashed == []
    assert len(recorder.started) == 1
    assert first["variant"] not in recorder.started[0]
    assert results.read_bytes().startswith(before)
    lines = lines_of(output)
    assert sorted(line["variant"] for line in lines) == ["gated", "text_only"]
    assert [line["status"] for line in lines] == ["ok", "ok"]


@needs_proc
@pytest.mark.slow
def test_an_interrupted_grid_ends_soon_and_says_how_to_continue(finished, grid_file, start_umie, tmp_path):
    """SIGINT is sent only to the grid, as by ``kill -INT`` or a notebook, during a long cell."""
    output = finished.copy(tmp_path, results=False)
    plugin = write_plugin(tmp_path, "sleeps", "open(os.environ['STARTED'], 'w').close(); __import__('time').sleep(60)")
    path = grid_file(fusion=["sleeps"], plugins=[plugin])
    started = tmp_path / "started"
    grid = start_umie("ablate", path, "--output", output, STARTED=str(started))
    wait_until(started.exists, 60, "the cell's first step")
    workers = cells_of_grid(grid.pid)
    os.kill(grid.pid, signal.SIGINT)
    _, err = grid.communicate(timeout=20)
    assert grid.returncode == 130
    assert err.splitlines() == [
        "running 1 of 1 cells",
        "umie: interrupted: 0 of 1 cells are finished; run the same command again to go on",
    ]
    wait_until(lambda: not any(map(is_running, workers)), 20, "the end of the cell's process")


# --- custom data -----------------------------------------------------------------------------------------------------


def test_a_grid_on_custom_data(grid_file, umie, noise, tmp_path):
    """Relative paths, a label schema from the data, a missing image, and no ceiling."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for number, split in enumerate(("train", "test")):
        noise(20, 16, number).save(folder / f"{split}.png")
        entities = [{"type": "Person", "span": [0, 3]}, {"type": "Ort", "span": [10, 16]}]
        records = [
            {"text": "Ann is in Zürich .", "image": image, "entities": entities}
            for image in (f"{split}.png", "missing.png", None)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    path = grid_file(
        data={"format": "jsonl", "train": "train.jsonl", "test": "test.jsonl"},
        tasks=["mner"],
        fusion=["gated"],
        warm_start=...,
        missing_images="text_only",
    )
    with cells_in_process():
        code, out, err = umie("ablate", path, "--data-root", folder, "--output", tmp_path / "run")
    assert (code, "Traceback" in err) == (0, False)
    (line,) = lines_of(tmp_path / "run")
    assert line["metrics"]["mner"]["gold"] == 6
    assert line["counts"]["train"]["missing_images"] == 1
    assert line["counts"]["test"]["missing_images"] == 1
    assert "- test: 3 records, 1 with an image" in out
    assert "- only 1 of 3 records of test have an image: too few to be evidence about fusion" in out
    assert "- 3 records of test also occur in train; scores are inflated" in out
    assert "`text_only`" in out
    assert "ceiling" not in out
    job = json.loads(next((tmp_path / "run").glob("cells/*/job.json")).read_text())
    assert job["data"]["sets"]["data"]["tasks"] == {"mner": {"labels": ["Person", "Ort"]}}
