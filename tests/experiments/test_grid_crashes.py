"""Grids with crashes and bad input: each is reported with its reason, and the next run retries what crashed."""

import pytest
from grid_helpers import cells_in_process, lines_of, write_plugin

from umie.experiments.scheduler import RESULTS

NO_TEXT = r"""os.write(1, b'\xff\xfe\n{"event": 3}\n[]\n')"""


def small(tmp_path, **plugins):
    """Return the values of a grid file with three cells at most, and plugins that run these lines."""
    return {
        "plugins": [write_plugin(tmp_path, name, lines) for name, lines in plugins.items()],
        "data": {"format": "synthetic", "train": 12, "dev": 6, "test": 6},
        "tasks": ["mner"],
        "warm_start": ...,
    }


def test_crashed_cells_are_reported_and_run_again(grid_file, umie, tmp_path):
    """One cell raises until it is fixed, the other works."""
    output = tmp_path / "run"
    fixed = tmp_path / "fixed"  # outside the plugins, whose change would change all hashes
    raises = f"if not os.path.exists({str(fixed)!r}): raise RuntimeError('no luck')"
    path = grid_file(**small(tmp_path, raises=raises), fusion=["raises", "text_only"])
    with cells_in_process():
        code, out, err = umie("ablate", path, "--output", output, "--split", "dev")
    assert code == 1
    assert "1 of 2 cells failed" in err
    assert "Traceback" not in err
    lines = {line["variant"]: line for line in lines_of(output)}
    assert len(lines) == len(lines_of(output)) == 2
    assert {variant: line["status"] for variant, line in lines.items()} == {"raises": "crashed", "text_only": "ok"}
    assert lines["raises"]["error"] == "RuntimeError: no luck"
    assert "raises.py" in lines["raises"]["traceback"]
    assert "raise RuntimeError('no luck')" in lines["raises"]["traceback"]
    assert set(lines["text_only"]["counts"]) == {"train", "dev"}
    for text in (out, (output / "table.md").read_text()):
        assert "on the dev split (6 records)" in text
        assert "## Failed (1)\n\nThe next run tries them again. Where a limit was exceeded, raise it first.\n" in text
        assert "raises, seed 0: RuntimeError: no luck" in text

    before = (output / RESULTS).read_bytes()
    fixed.touch()
    with cells_in_process():
        code, out, err = umie("ablate", path, "--output", output, "--split", "dev")
    assert (code, "## Failed" in out, "| failed" in out) == (0, False, False)
    assert "running 1 of 2 cells\n" in err  # successful cells are not run again
    assert (output / RESULTS).read_bytes().startswith(before)
    (added,) = lines_of(output)[2:]
    assert (added["hash"], added["status"]) == (lines["raises"]["hash"], "ok")
    assert (output / "figure.png").exists()


@pytest.mark.slow
def test_a_killed_cell_is_reported(grid_file, umie, tmp_path):
    """It prints bytes that are not text before it is killed."""
    output = tmp_path / "run"
    dies = f"{NO_TEXT}; os.kill(os.getpid(), signal.SIGKILL)"
    path = grid_file(**small(tmp_path, dies=dies), fusion=["dies"])
    code, out, err = umie("ablate", path, "--output", output, "--split", "dev")
    assert (code, "Traceback" in err) == (1, False)
    assert "1 of 1 cells failed" in err
    (line,) = lines_of(output)
    assert (line["status"], line["error"]) == ("crashed", "the process was killed by signal 9")
    assert "dies, seed 0: the process was killed by signal 9" in out


def test_cells_report_the_crash_of_their_warm_start(grid_file, umie, tmp_path):
    """The decoder passes all checks but cannot be trained: its vocabulary is smaller than that of the tokenizer."""
    output = tmp_path / "run"
    path = grid_file(decoder={"source": "tiny", "overrides": {"vocab_size": 300}})
    with cells_in_process():
        code, out, err = umie("ablate", path, "--output", output)
    assert (code, "Traceback" in err) == (1, False)
    assert err.count(": failed") == 1  # only the warm start ran
    lines = lines_of(output)
    assert sorted(line["variant"] for line in lines) == ["gated", "text_only"]
    for line in lines:
        assert line["status"] == "crashed"
        assert line["error"].startswith("the warm start that this cell needs failed: UmieError: the tokenizer")
        assert "Traceback" in line["traceback"]
    assert "## Failed (2)" in out


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
    path = grid_file(data={"format": "jsonl", "train": "a.jsonl", "test": "b.jsonl"}, warm_start=...)
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
