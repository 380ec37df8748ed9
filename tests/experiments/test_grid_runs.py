"""Grid runs: their output, and how they continue after crashes and kills with the same results."""

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
from PIL import Image

from umie.experiments.expand import plan, read_grid
from umie.experiments.scheduler import RESULTS, _append, read_results
from umie.records import read_jsonl

TASKS = ("mner", "mre", "med", "meae")
VARYING = ("seconds",)  # keys that may differ between two runs of a cell

PLUGIN = """
import os, signal, sys
from umie.fusion import FusedStates, Fusion, registry

class Passing(Fusion):
    def forward(self, text, text_mask, visual, visual_mask, *, output_attention=False):
        if text.requires_grad:  # while training, not when the grid file is checked
            {body}
        return FusedStates(text, text_mask)

registry.register({name!r})(type({name!r}, (Passing,), {{}}))
"""


def write_plugin(folder: Path, name: str, body: str) -> str:
    """Write a fusion whose forward runs ``body`` and returns the text; return the file name."""
    (folder / f"{name}.py").write_text(PLUGIN.format(name=name, body=body))
    return f"{name}.py"


def lines_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / RESULTS).read_text(encoding="utf-8").splitlines()]


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
    assert finished.command.stdout.startswith(markdown)
    assert "Traceback" not in finished.command.stderr
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
    assert finished.command.stderr.count("warm start: started") == 1
    (folder,) = (path for path in (finished.output / "warm_start").iterdir() if not path.suffix)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    jobs = [json.loads(path.read_text()) for path in finished.output.glob("cells/*/job.json")]
    assert [job["warm_start"] for job in jobs] == [str(folder), str(folder)]


def test_processes_end_without_errors(finished):
    for log in finished.output.rglob("log.txt"):
        assert re.fullmatch(r"(\d+ training queries .*\n)?", log.read_text()), log


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


def test_a_line_without_line_end_is_not_joined_with_the_next(finished, tmp_path):
    """An editor removed the last line end, or a kill came just before it."""
    output = finished.copy(tmp_path)
    text = (output / RESULTS).read_text()
    shutil.rmtree(output / "cells")  # only the file has the results
    (output / RESULTS).write_text(text.removesuffix("\n"))
    cells = cells_of(finished)
    assert len(read_results(output, cells)) == 2
    _append(output / RESULTS, {"hash": "of another grid", "status": "ok"})
    assert len(read_results(output, cells)) == 2


def test_a_result_can_contain_unicode_line_separators(finished, tmp_path):
    output = finished.copy(tmp_path)
    cells = cells_of(finished)
    first, _ = finished.lines
    crashed = {**first, "status": "crashed", "error": "ValueError: one\u2028two\u0085three", "traceback": "\x0c\u2029"}
    shutil.rmtree(output / "cells")
    (output / RESULTS).write_text(json.dumps(crashed, ensure_ascii=False) + "\n")
    assert read_results(output, cells) == {first["hash"]: crashed}


def test_results_of_other_grids_are_kept(finished, run, tmp_path):
    output = finished.copy(tmp_path)
    other = json.dumps({"hash": "of another grid", "status": "ok"}) + "\n"
    (output / RESULTS).write_text(other + (output / RESULTS).read_text() + '{"torn')
    done, recorder = run(finished.grid_file, output)
    assert recorder.started == []
    assert (output / RESULTS).read_text().startswith(other)
    assert "of another grid" not in done.results
    assert len(lines_of(output)) == 3


# --- crashes ---------------------------------------------------------------------------------------------------------


NO_TEXT = r"""os.write(1, b'\xff\xfe\n{"event": 3}\n[]\n')"""


def test_crashed_cells_are_reported_and_run_again(finished, grid_file, umie, tmp_path):
    """The first raises until it is fixed, the second prints bytes that are not text and is killed, the third works."""
    output = finished.copy(tmp_path, results=False)
    fixed = tmp_path / "fixed"  # outside the plugins, whose change would change all hashes
    plugins = [
        write_plugin(tmp_path, "raises", f"if not os.path.exists({str(fixed)!r}): raise RuntimeError('no luck')"),
        write_plugin(tmp_path, "dies", f"{NO_TEXT}; os.kill(os.getpid(), signal.SIGKILL)"),
    ]
    path = grid_file(fusion=["raises", "dies", "text_only"], plugins=plugins, warm_start=...)
    code, out, err = umie("ablate", path, "--output", output, "--split", "dev")
    assert code == 1
    assert "2 of 3 cells crashed" in err
    assert "Traceback" not in err
    lines = {line["variant"]: line for line in lines_of(output)}
    assert len(lines) == len(lines_of(output)) == 3
    assert {variant: line["status"] for variant, line in lines.items()} == {
        "raises": "crashed",
        "dies": "crashed",
        "text_only": "ok",
    }
    assert lines["raises"]["error"] == "RuntimeError: no luck"
    assert "raises.py" in lines["raises"]["traceback"]
    assert "raise RuntimeError('no luck')" in lines["raises"]["traceback"]
    assert lines["dies"]["error"] == "the process was killed by signal 9"
    assert set(lines["text_only"]["counts"]) == {"train", "dev"}
    for text in (out, (output / "table.md").read_text()):
        assert "on the dev split (6 records)" in text
        assert "## Crashed (2; run the grid again to retry)" in text
        assert "raises, seed 0: RuntimeError: no luck" in text
        assert "dies, seed 0: the process was killed by signal 9" in text

    before = (output / RESULTS).read_bytes()
    fixed.touch()
    path = grid_file(fusion=["raises", "text_only"], plugins=plugins, warm_start=...)
    code, out, err = umie("ablate", path, "--output", output, "--split", "dev")
    assert (code, "## Crashed" in out, "| crashed" in out) == (0, False, False)
    assert err.count(": started") == 1  # successful cells are not run again
    assert (output / RESULTS).read_bytes().startswith(before)
    (added,) = lines_of(output)[3:]
    assert (added["hash"], added["status"]) == (lines["raises"]["hash"], "ok")
    with Image.open(output / "figure.png") as figure:
        figure.load()


def test_cells_report_the_crash_of_their_warm_start(finished, grid_file, umie, tmp_path):
    """The decoder passes all checks but cannot be trained: its vocabulary is smaller than that of the tokenizer."""
    output = finished.copy(tmp_path, results=False)
    path = grid_file(decoder={"source": "tiny", "overrides": {"vocab_size": 300}})
    code, out, err = umie("ablate", path, "--output", output)
    assert (code, err.count(": started"), "Traceback" in err) == (1, 1, False)  # only the warm start
    lines = lines_of(output)
    assert sorted(line["variant"] for line in lines) == ["gated", "text_only"]
    for line in lines:
        assert line["status"] == "crashed"
        assert line["error"].startswith("the warm start that this cell needs crashed: UmieError: the tokenizer")
        assert "Traceback" in line["traceback"]
    assert "## Crashed (2;" in out


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


@needs_proc
def test_a_killed_grid_ends_its_cell_which_has_the_same_result_later(finished, start_umie, umie, run, tmp_path):
    """One cell has a result; the other, whose result is incomplete, runs, is killed, and runs again."""
    output = finished.copy(tmp_path)
    (gone,) = (line for line in finished.lines if line["variant"] == "gated")
    (kept,) = (line for line in finished.lines if line["variant"] == "text_only")
    (output / RESULTS).write_text(json.dumps(kept) + "\n" + json.dumps(gone)[:200])
    shutil.rmtree(output / "cells" / gone["hash"])
    grid = start_umie("ablate", finished.grid_file, "--output", output)
    (worker,) = wait_until(lambda: children_of(grid.pid), 60, "the process of the cell")

    code, _, err = umie("ablate", finished.grid_file, "--output", output)
    assert code == 2
    assert err == f"umie: {output} is in use by another run: wait for it, or use another --output\n"

    os.kill(grid.pid, signal.SIGKILL)
    grid.wait()
    wait_until(lambda: not is_running(worker), 20, "the end of the cell's process")
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
    progress = recorder.advanced["gated, seed 0"]
    assert [phase for phase, _ in progress] == ["train"] * 3 + ["evaluate"] * 4
    assert all(0 < share <= 1 for _, share in progress)
    assert [share for phase, share in progress if phase == "train"] == sorted(share for _, share in progress[:3])


@needs_proc
@pytest.mark.slow
def test_a_grid_killed_in_its_second_cell_keeps_the_result_of_the_first(finished, grid_file, start_umie, run, tmp_path):
    output = finished.copy(tmp_path, results=False)
    path = grid_file(workers=1)
    grid = start_umie("ablate", path, "--output", output)
    results = output / RESULTS
    wait_until(lambda: len(list(output.glob("cells/*/job.json"))) == 1 or grid.poll(), 60, "the first cell")

    wait_until(lambda: results.exists() and results.read_text().endswith("\n"), 90, "the first result")
    wait_until(lambda: len(list(output.glob("cells/*/job.json"))) == 2, 30, "the second cell")
    (worker,) = wait_until(lambda: children_of(grid.pid), 30, "the process of the second cell")
    os.kill(grid.pid, signal.SIGKILL)
    grid.wait()
    assert len(lines_of(output)) == 1
    wait_until(lambda: not is_running(worker), 20, "the end of the second cell's process")

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
    (worker,) = children_of(grid.pid)
    os.kill(grid.pid, signal.SIGINT)
    _, err = grid.communicate(timeout=20)
    assert grid.returncode == 130
    assert "interrupted; finished cells are kept" in err
    wait_until(lambda: not is_running(worker), 20, "the end of the cell's process")
    assert "Traceback" not in err


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


# --- bad input -------------------------------------------------------------------------------------------------------


def one_line(err: str) -> str:
    assert err.count("\n") == 1, err
    assert err.startswith("umie: ")
    return err.removeprefix("umie: ").rstrip("\n")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"fusion": "gatd"}, "Unknown fusion 'gatd'. Did you mean 'gated'?"),
        ({"data": {"format": "jsnl"}}, "Unknown data format 'jsnl'. Did you mean 'jsonl'?"),
        ({"data": {"format": "synthetic", "image_share": 2}}, "image_share is 2"),
        ({"plugins": ["two_lines.py"]}, "RuntimeError: one"),
        ({"name": "[red]x", "fusion": "[bold]"}, "Unknown fusion '[bold]'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
@pytest.mark.parametrize("plan", [(), ("--plan",)], ids=["run", "plan"])
def test_bad_input_is_one_line_and_exit_code_2(grid_file, umie, tmp_path, changes, expected, plan):
    (tmp_path / "two_lines.py").write_text("raise RuntimeError('one\\ntwo')")
    path = grid_file(**changes)
    code, out, err = umie("ablate", path, "--output", tmp_path / "run", *plan)
    assert (code, out) == (2, "")
    assert expected in one_line(err)
    assert not list(tmp_path.glob("run/cells/*"))


def test_missing_files_are_reported_and_by_a_plan_all_at_once(grid_file, umie, tmp_path):
    path = grid_file(
        data={"format": "jsonl", "train": "none.jsonl", "test": "a", "images": "images"},
        decoder=["tiny", "nobody/nothing"],
        warm_start=...,
    )
    code, out, err = umie("ablate", path, "--output", tmp_path / "run", "--plan")
    assert code == 2
    lines = err.replace("\n", " ").split("umie: missing: ")[1:]
    for line, expected in zip(
        lines, ("none.jsonl: no such", "a: no such file", "images: no such directory", "'nobody/nothing'"), strict=True
    ):
        assert expected in line
    assert out.count("blocked: missing files") == 4
    code, out, err = umie(
        "ablate", grid_file(data={"format": "jsonl", "train": "none.jsonl", "test": "a"}, warm_start=...)
    )
    assert (code, out) == (2, "")
    assert "none.jsonl: cannot read" in one_line(err)


def test_an_invalid_record_is_reported_in_one_line(grid_file, umie, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": ""}\n')
    path = grid_file(data={"format": "jsonl", "train": "a.jsonl", "test": "a.jsonl"}, warm_start=...)
    code, _, err = umie("ablate", path, "--output", tmp_path / "run")
    assert code == 2
    assert one_line(err).startswith(f"{tmp_path / 'a.jsonl'}:2: text is ''")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data-root", "{folder}/none"], "--data-root {folder}/none: not a directory"),
        (["--data-root", "{folder}/grid.yaml"], "--data-root {folder}/grid.yaml: not a directory"),
        (["--split", "train"], "Unknown evaluation split 'train'. Choices: dev, test."),
        (["--output", "{folder}/grid.yaml"], "{folder}/grid.yaml"),
        (["--output", "{folder}/grid.yaml/below"], "{folder}/grid.yaml"),
    ],
    ids=["data", "data is a file", "split", "output is a file", "output below a file"],
)
def test_invalid_options_are_reported_in_one_line(grid_file, umie, tmp_path, arguments, expected):
    path = grid_file()
    code, _, err = umie("ablate", path, *(argument.format(folder=tmp_path) for argument in arguments))
    assert code == 2
    assert expected.format(folder=tmp_path) in one_line(err)


def test_bad_input_is_one_line_in_a_real_process(start_umie, tmp_path):
    command = start_umie("ablate", tmp_path / "none.yaml")
    out, err = command.communicate(timeout=60)
    assert (command.returncode, out) == (2, "")
    assert one_line(err) == f"{tmp_path / 'none.yaml'}: cannot read the grid file: No such file or directory"


def test_only_a_finished_grid_says_so(finished, tmp_path, umie):
    assert "already had results" not in finished.command.stderr
    code, _, err = umie("ablate", finished.grid_file, "--output", finished.copy(tmp_path))
    assert code == 0
    assert "cells already had results; none was run" in err
