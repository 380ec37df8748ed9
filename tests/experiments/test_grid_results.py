"""Results of a grid in Python and as files: loading, archives, merging, comparing, exporting."""

import csv
import gzip
import io
import json
import os
import random
import shutil
from pathlib import Path

import pytest
import yaml
from grid_helpers import TASKS, cells_in_process, lines_of

from umie.cli.console import SafeConsole
from umie.errors import UmieError
from umie.experiments import archive, load
from umie.experiments.archive import read_archive, write_archive
from umie.experiments.grid_file import GRID_FILE, read_grid_file
from umie.experiments.merge import merge
from umie.experiments.results import COUNTS, RESULT, RESULTS, parse_sealed, sealed, write_sealed
from umie.records import read_jsonl
from umie.reports.grid_export import export


@pytest.fixture(scope="module")
def packed(finished, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "small.umie.gz"
    write_archive(path, finished.output, load(finished.output).results)
    return path


def reseal(line, **changes):
    return sealed({key: value for key, value in {**line, **changes}.items() if key != "seal"})


def change_results(folder, change):
    """Replace the result lines in a directory by changed ones, also those in the directories of cells."""
    lines = [change(line) for line in lines_of(folder)]
    kept = [line for line in lines if line is not None]
    (folder / RESULTS).write_text("".join(json.dumps(line) + "\n" for line in kept))
    for path in (folder / "cells").iterdir():
        (path / RESULT).unlink()
        for line in kept:
            if line["hash"] == path.name:
                (path / RESULT).write_text(json.dumps(line))
    return folder


# --- loading ---------------------------------------------------------------------------------------------------------


def test_load_gives_cells_predictions_and_tidy_rows(finished):
    results = load(finished.output)
    lines = {line["variant"]: line for line in finished.lines}
    assert (results.name, results.tasks, results.damage) == ("small", list(TASKS), [])
    assert [(cell.variant, cell.seed, results.status(cell)) for cell in results.cells] == [
        ("gated", 0, "ok"),
        ("text_only", 0, "ok"),
    ]
    assert results.slots == ["fusion"]
    cell = results.cell("gated", 0)
    assert cell.hash == lines["gated"]["hash"]
    assert cell.setup["training"]["max_steps"] == 3
    written = finished.output / "cells" / cell.hash / "mner.jsonl"
    assert results.predictions(cell, "mner") == list(read_jsonl(written))
    rows = list(results.rows())
    assert all(list(row) == results.columns for row in rows)
    found = {(row["variant"], row["task"], row["metric"]): row["value"] for row in rows}
    assert len(found) == len(rows)
    for variant, line in lines.items():
        for task in TASKS:
            values = line["metrics"][task]
            assert found[variant, task, "f1"] == values["f1"]
            assert found[variant, task, "interval_low"] == values["interval"][0]
            assert found[variant, task, "by_combination.T+I.f1"] == values["by_combination"]["T+I"]["f1"]
        assert found[variant, "", "seconds.train"] == line["seconds"]["train"]
        assert found[variant, "", "parameters"] == line["parameters"]


def test_a_data_frame_has_a_row_for_each_cell_task_and_metric(finished):
    pandas = pytest.importorskip("pandas")
    results = load(finished.output)
    frame = results.frame()
    assert list(frame.columns) == results.columns
    assert len(frame) == len(list(results.rows()))
    table = frame[frame.metric == "f1"].pivot(index="variant", columns="task", values="value")
    assert isinstance(table, pandas.DataFrame)
    assert table.loc["gated", "mner"] == next(
        line["metrics"]["mner"]["f1"] for line in finished.lines if line["variant"] == "gated"
    )


def test_without_pandas_the_error_says_what_to_install(finished, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(UmieError, match=r"pip install 'umie\[pandas\]'"):
        load(finished.output).frame()


def test_what_is_no_grid_or_cell_is_an_error(finished, packed, tmp_path):
    results = load(finished.output)
    (tmp_path / "text").write_text("{}")
    (tmp_path / "empty").mkdir()
    for path, expected in (
        (tmp_path / "none", "no such directory: use the output directory of a grid"),
        (tmp_path / "text", "not an archive of a grid"),
        (tmp_path / "empty", f"has no {GRID_FILE}: use the output directory of a grid"),
    ):
        with pytest.raises(UmieError, match=f"{path}: {expected}"):
            load(path)
    with pytest.raises(UmieError, match="Unknown variant 'gatd'. Did you mean 'gated'?"):
        results.cell("gatd", 0)
    with pytest.raises(UmieError, match="'gated' has no seed 3; its seeds are 0"):
        results.cell("gated", 3)
    with pytest.raises(UmieError, match="Unknown scored task 'ner'"):
        results.predictions(results.cells[0], "ner")
    with pytest.raises(UmieError, match="was restored from an archive, which has no predictions"):
        load(packed).predictions(results.cells[0], "mner")


def test_a_damaged_description_or_result_is_reported(finished, tmp_path):
    output = finished.copy(tmp_path)
    text = (output / RESULTS).read_text()
    (output / RESULTS).write_text(text.replace('"f1": ', '"f1": 1', 1))
    (damage, *_) = load(output).damage
    assert damage.startswith(f"{output / RESULTS}:1: ")
    grid = (output / GRID_FILE).read_text()
    for damaged in (grid.replace('"seed": 0', '"seed": 1', 1), grid[:200], "null", "[]", "{}"):
        (output / GRID_FILE).write_text(damaged)
        with pytest.raises(UmieError) as caught:
            load(output)
        assert str(caught.value).startswith(f"{output / GRID_FILE}: ") and "\n" not in str(caught.value)


# --- archives --------------------------------------------------------------------------------------------------------


def test_an_archive_has_what_tables_and_tests_need_and_no_texts(finished, packed, tmp_path):
    folder, read = load(finished.output), load(packed)
    assert read.grid == folder.grid
    assert read.results == folder.results
    assert read.counts == folder.counts
    assert set(read.counts["gated"][0]) == set(TASKS)
    write_archive(tmp_path / "again.gz", finished.output, folder.results)
    assert (tmp_path / "again.gz").read_bytes() == packed.read_bytes()
    assert packed.stat().st_size < 10_000
    text = gzip.decompress(packed.read_bytes()).decode()
    for path in finished.output.glob("data-*/*.jsonl"):
        assert not any(record.text in text for record in read_jsonl(path))


def test_a_grid_goes_on_from_an_archive(finished, packed, umie, tmp_path):
    """In an empty directory, the cells of the archive do not run again, and the tables are the same."""
    output = tmp_path / "run"
    code, out, err = umie("grid", "merge", packed, "--output", output)
    assert (code, out, err) == (0, f"{output}: 2 of 2 cells are finished, 2 added\n", "")
    assert sorted(path.name for path in output.glob("cells/*/*")) == [COUNTS, COUNTS, RESULT, RESULT]
    code, _, err = umie("ablate", finished.grid_file, "--output", output)
    assert (code, "all 2 cells already had results; none was run" in err) == (0, True)
    for name in ("table.csv", "table.tex"):
        assert (output / name).read_bytes() == (finished.output / name).read_bytes()
    first, again = (load(folder).grid for folder in (finished.output, output))
    assert again.command == f"umie ablate {finished.grid_file} --output {output}"
    assert again.model_copy(update={"command": first.command}) == first

    more = tmp_path / "more.yaml"  # a further variant runs, the others do not
    values = yaml.safe_load(Path(finished.grid_file).read_text())
    more.write_text(yaml.safe_dump({**values, "fusion": ["gated", "text_only", "concat"]}, sort_keys=False))
    with cells_in_process():
        code, _, err = umie("ablate", more, "--output", output)
    assert (code, "running 1 of 3 cells\n" in err) == (0, True)
    assert [line["variant"] for line in lines_of(output)] == ["gated", "text_only", "concat"]


def evil(packed, folder, change):
    """Write an archive whose lines were changed by someone who can compute checksums."""
    lines = [json.loads(line) for line in gzip.decompress(packed.read_bytes()).splitlines()]
    changed = change(lines)
    path = folder / "evil.gz"
    path.write_bytes(gzip.compress(b"".join(json.dumps(reseal(line)).encode() + b"\n" for line in changed)))
    return path


def with_result(lines, **changes):
    line = lines[1]
    return [lines[0], {**line, "result": reseal(line["result"], **changes)}, *lines[2:]]


def with_grid(lines, **changes):
    return [{**lines[0], "grid": {**lines[0]["grid"], **changes}}, *lines[1:]]


def with_cell(lines, **changes):
    cell, *others = lines[0]["grid"]["cells"]
    return with_grid(lines, cells=[{**cell, **changes}, *others])


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: with_cell(lines, hash="../../outside"),
        lambda lines: with_cell(lines, hash="/etc/cron.d/x"),
        lambda lines: with_result(lines, hash="../../outside"),
        lambda lines: with_result(lines, hash="aaaaaaaaaaaa"),
        lambda lines: with_result(lines, status="crashed", error="x", traceback="y"),
        lambda lines: with_result(lines, metrics={}),
        lambda lines: with_result(lines, seed=77),
        lambda lines: with_result(lines, metrics={key: {"f1": 17.0} for key in lines[1]["result"]["metrics"]}),
        lambda lines: [lines[0], {**lines[1], "counts": {}}, *lines[2:]],
        lambda lines: [lines[0], {**lines[1], "counts": {"mner": [[1, -1, 1]]}}, *lines[2:]],
        lambda lines: [lines[0], {**lines[1], "counts": {"../x": [[1, 1, 1]]}}, *lines[2:]],
        lambda lines: [lines[0], {**lines[1], "counts": {"mner": [[1, 1]]}}, *lines[2:]],
        lambda lines: [lines[0], {**lines[1], "counts": {"mner": "many"}}, *lines[2:]],
        lambda lines: [lines[0], lines[1], lines[1], *lines[2:]],
        lambda lines: [lines[0], lines[1], lines[-1]],
        lambda lines: lines[:-1],
        lambda lines: [*lines, lines[1]],
        lambda lines: lines[1:],
        lambda lines: with_grid(lines, scored=[]),
        lambda lines: with_grid(lines, scored=[{"key": "mner"}]),
        lambda lines: with_grid(lines, mean_over=["x"]),
        lambda lines: with_grid(lines, cells=[]),
        lambda lines: with_grid(lines, cells=[lines[0]["grid"]["cells"][0]] * 2),
        lambda lines: with_grid(lines, format=2),
        lambda lines: with_grid(lines, references=[{"title": "a", "source": "b", "values": [0.5]}]),
        lambda lines: [],
        lambda lines: [{"a": 1}],
    ],
)
def test_an_archive_that_was_made_up_is_refused_and_writes_nothing_outside(packed, tmp_path, change):
    path = evil(packed, tmp_path, change)
    with pytest.raises(UmieError) as caught:
        merge([path], tmp_path / "deep" / "run")
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert {one.name for one in tmp_path.iterdir()} <= {"evil.gz", "deep"}


def test_counts_that_do_not_fit_their_result_are_refused(packed, tmp_path):
    def change(lines):
        (first, *others), zero = lines[1]["counts"]["mner"], [0, 0, 0]
        counts = {**lines[1]["counts"], "mner": [zero if first != zero else [1, 1, 1], *others]}
        return [lines[0], {**lines[1], "counts": counts}, *lines[2:]]

    with pytest.raises(UmieError, match="do not fit its result"):
        merge([evil(packed, tmp_path, change)], tmp_path / "run")


@pytest.mark.parametrize(
    ("limit", "value"), [("MAX_LINE_BYTES", 2000), ("MAX_BYTES", 5000)], ids=["line", "whole file"]
)
def test_the_size_of_an_archive_is_bounded(packed, monkeypatch, limit, value):
    monkeypatch.setattr(archive, limit, value)
    with pytest.raises(UmieError, match="is larger than an archive can be"):
        load(packed)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(70):
            file.write(bytes(1 << 20))
    with pytest.raises(UmieError, match="is larger than an archive can be"):
        load(path)


@pytest.mark.parametrize("kind", ["empty", "pipe", "link to nothing", "other gzip"])
def test_what_is_no_archive_is_refused(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "empty":
        path.touch()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to nothing":
        path.symlink_to("nothing")
    else:
        path.write_bytes(gzip.compress(b'{"text": "A record."}\n'))
    with pytest.raises(UmieError):
        load(path)


@pytest.mark.parametrize("number", [150, pytest.param(3000, marks=pytest.mark.slow)])
def test_a_damaged_archive_is_refused_or_unchanged(packed, tmp_path, number):
    rng = random.Random(number)
    whole = packed.read_bytes()
    plain = gzip.decompress(whole)
    grid, cells = read_archive(packed)
    expected = grid, list(cells)
    refused = 0
    for place in range(number):
        data = bytearray(plain if place % 2 else whole)
        for _ in range(rng.choice((1, 1, 3))):
            at = rng.randrange(len(data))
            action = rng.randrange(3)
            if action == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif action == 1:
                del data[at : at + rng.choice((1, 5, 500))]
            else:
                data[at:at] = data[max(0, at - 30) : at]
        path = tmp_path / "damaged.gz"
        path.write_bytes(gzip.compress(bytes(data)) if place % 2 else bytes(data))
        try:
            found, cells = read_archive(path)
            assert (found, list(cells)) == expected  # e.g. another date in the header
        except UmieError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 0.9 * number


# --- merging ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def halves(finished, tmp_path):
    """Two directories of the finished grid, each with the result of one variant."""
    folders = []
    for variant in ("gated", "text_only"):
        (tmp_path / variant).mkdir()
        folder = finished.copy(tmp_path / variant)
        folders.append(change_results(folder, lambda line, own=variant: line if line["variant"] == own else None))
    return folders


def test_results_of_two_directories_are_joined(finished, halves, tmp_path, umie):
    output = tmp_path / "joined"
    code, out, err = umie("grid", "merge", *halves, "-o", output)
    assert (code, out, err) == (0, f"{output}: 2 of 2 cells are finished, 2 added\n", "")
    whole, joined = load(finished.output), load(output)
    assert (joined.grid, joined.results, joined.counts) == (whole.grid, whole.results, whole.counts)
    for cell in whole.cells:
        assert joined.predictions(cell, "med") == whole.predictions(cell, "med")
    before = (output / RESULTS).read_bytes()
    assert merge([*halves, finished.output], output).num_added == 0  # a second time
    assert (output / RESULTS).read_bytes() == before
    code, _, err = umie("ablate", finished.grid_file, "--output", output)
    assert (code, "none was run" in err) == (0, True)


def test_a_directory_keeps_what_it_has(halves, packed, tmp_path):
    output = halves[0]
    before = {path: path.stat().st_mtime_ns for path in (output / "cells").glob("*/mner.jsonl")}
    merged = merge([packed], output)
    assert (merged.num_finished, merged.num_added, merged.conflicts) == (2, 1, [])
    assert before == {path: path.stat().st_mtime_ns for path in (output / "cells").glob("*/mner.jsonl")}


def test_seeds_of_two_machines_are_joined(finished, packed, tmp_path):
    """The other machine ran the same grid with another seed."""
    other = finished.copy(tmp_path)
    grid = json.loads((other / GRID_FILE).read_text())
    names = {}
    for number, cell in enumerate(grid["cells"]):
        names[cell["hash"]] = f"{number:012x}"
        cell |= {"hash": names[cell["hash"]], "seed": 1}
    write_sealed(other / GRID_FILE, {key: value for key, value in grid.items() if key != "seal"})
    for old, new in names.items():
        (other / "cells" / old).rename(other / "cells" / new)
    change_results(other, lambda line: reseal(line, hash=names[line["hash"]], seed=1))
    merged = merge([packed, other], tmp_path / "joined")
    assert (merged.num_cells, merged.num_finished) == (4, 4)
    joined = load(tmp_path / "joined")
    assert [(cell.variant, cell.seed) for cell in joined.cells] == [
        ("gated", 0), ("text_only", 0), ("gated", 1), ("text_only", 1),
    ]  # fmt: skip
    assert set(joined.counts["gated"]) == {0, 1}


def test_results_of_a_cell_that_differ_are_reported_and_the_first_is_kept(finished, packed, tmp_path, umie):
    other = finished.copy(tmp_path)

    def change(line):
        metrics = {**line["metrics"], "mner": {**line["metrics"]["mner"], "f1": 0.875}}
        return reseal(line, metrics=metrics) if line["variant"] == "gated" else line

    change_results(other, change)
    code, _, err = umie("grid", "merge", packed, other, "-o", tmp_path / "joined")
    what = "gated, seed 0: F1 of mner is 0.875000, not 0.000000"
    assert (code, err) == (1, f"umie: conflict: {what} in {other}; the result of {packed} is kept\n")
    assert load(tmp_path / "joined").results == load(packed).results


def test_what_is_not_the_same_grid_is_refused(finished, packed, tmp_path):
    other = finished.copy(tmp_path)
    grid = parse_sealed((other / GRID_FILE).read_text())
    first, second = grid["cells"]
    setup = {**first["setup"], "training": {**first["setup"]["training"], "max_steps": 9}}
    for changes, expected in (
        ({"split": "dev"}, "they differ in split"),
        ({"records": {"data": "0" * 64}}, "they differ in records"),
        ({"scored": grid["scored"][:1], "mean_over": ["mner"]}, "they differ in scored"),
        ({"cells": [{**first, "hash": "a" * 12, "setup": setup}, second]}, "they differ in training.max_steps"),
        ({"cells": [{**first, "hash": "a" * 12}, second]}, "they differ in its data, weights, plugins or version"),
    ):
        write_sealed(other / GRID_FILE, reseal(grid, **changes))
        with pytest.raises(UmieError, match=expected) as caught:
            merge([packed, other], tmp_path / "joined")
        assert str(caught.value).startswith(f"{other}: ")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(UmieError, match=f"is a directory without {GRID_FILE}"):
        merge([packed], tmp_path / "mine")


def test_links_in_a_directory_are_not_followed(finished, tmp_path):
    folder = finished.copy(tmp_path)
    (tmp_path / "secret").write_text("secret")
    for path in folder.glob("cells/*/mner.jsonl"):
        path.unlink()
        path.symlink_to(tmp_path / "secret")
    merge([folder], tmp_path / "joined")
    assert not list((tmp_path / "joined").glob("cells/*/mner.jsonl"))


# --- showing, comparing, exporting -----------------------------------------------------------------------------------


def test_show_prints_the_table_of_ablate_and_the_cells(finished, packed, umie):
    code, out, _ = umie("grid", "show", finished.output)
    assert code == 0
    main = (finished.output / "table.md").read_text().split("\n\n")[2]
    assert main in out
    assert "Cells: 2 finished." in out
    assert "## What the intervals support" in out
    assert umie("grid", "show", packed)[1] == out
    code, out, _ = umie("grid", "show", finished.output, "--cells")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()[2:]]
    assert [row[1:4] for row in rows] == [["gated", "0", "ok"], ["text_only", "0", "ok"]]


def test_on_a_terminal_the_tables_fit_its_width(finished, umie, monkeypatch):
    shown = io.StringIO()
    console = SafeConsole(file=shown, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr("umie.cli.console.out", console)
    assert umie("grid", "show", finished.output)[0] == 0
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    text = shown.getvalue()
    for name in ("MEAE", "parameters", "gate closed", "train s"):  # no column is lost, no number is cut
        assert name in text
    assert f"{finished.lines[0]['parameters']:,}" in text
    assert sum(line.split()[:1] == ["gated"] for line in lines) > 2  # each part says whose numbers they are


def test_show_and_export_escape_texts_of_others(packed, tmp_path, umie):
    name = "\x1b[31m<b>x</b>|=1+1 $x$ \u202e"
    path = evil(packed, tmp_path, lambda lines: with_cell(with_grid(lines, name=name), labels={"fusion": name}))
    for option in ((), ("--cells",)):
        code, out, _ = umie("grid", "show", path, *option)
        assert code == 0
        assert not {"\x1b", "\u202e"} & set(out)
        assert "<b>" not in out
    results = load(path)
    for suffix in (".csv", ".md", ".tex", ".json"):
        export(results, tmp_path / f"out{suffix}")
        assert "\x1b" not in (tmp_path / f"out{suffix}").read_text()
    assert "<b>" not in (tmp_path / "out.md").read_text()
    assert "\\$x\\$" in (tmp_path / "out.tex").read_text()


def test_exports_are_tidy_or_the_table(finished, umie, tmp_path):
    files = [tmp_path / f"out{suffix}" for suffix in (".csv", ".json", ".md", ".tex")]
    options = [part for file in files for part in ("-o", file)]
    code, out, _ = umie("grid", "export", finished.output, *options, "--archive", tmp_path / "a.gz")
    assert code == 0
    assert out.splitlines()[:4] == [f"Written: {file}" for file in files]
    assert out.splitlines()[4].startswith(f"Written: {tmp_path / 'a.gz'} (2 cells, ")
    results = load(finished.output)
    rows = list(results.rows())
    table = list(csv.DictReader(io.StringIO(files[0].read_text())))
    assert [{**row, "seed": int(row["seed"]), "value": float(row["value"])} for row in table] == rows
    written = json.loads(files[1].read_text())
    assert written["rows"] == rows
    assert written["grid"]["versions"] == [finished.lines[0]["versions"]]
    assert "| gated " in files[2].read_text()
    assert files[3].read_text() == (finished.output / "table.tex").read_text()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "nothing to write: use --output FILE, or --archive FILE"),
        (["-o", "x.xlsx"], "x.xlsx: use a name that ends in .csv, .json, .html, .md, .tex, .png, .pdf, .svg"),
    ],
)
def test_an_export_without_a_known_format_is_an_error(finished, umie, arguments, expected):
    assert umie("grid", "export", finished.output, *arguments) == (2, "", f"umie: {expected}\n")


def compared(out):
    return [[cell.strip() for cell in line.split("|")[1:4]] for line in out.splitlines()[2:]]


def test_compare_tests_variants_and_directories(finished, packed, umie):
    one = finished.output
    code, out, err = umie("grid", "compare", one, "--variant", "text_only", "--against", "gated")
    assert (code, compared(out)) == (0, [["text_only", "gated", task.upper()] for task in TASKS])
    assert err == "umie: comparisons of a single seed do not include the variation between seeds\n"
    assert compared(umie("grid", "compare", one)[1]) == [["gated", "text_only", task.upper()] for task in TASKS]
    assert umie("grid", "compare", one, "--variant", "gated")[1] == umie("grid", "compare", one)[1]
    out = umie("grid", "compare", one, "--baseline", "gated")[1]
    assert compared(out) == [["text_only", "gated", task.upper()] for task in TASKS]
    out = umie("grid", "compare", one, packed)[1]
    assert [row[:2] for row in compared(out)[::4]] == [
        [f"gated ({one})", f"gated ({packed})"],
        [f"text_only ({one})", f"text_only ({packed})"],
    ]
    assert "equal" in out
    out = umie("grid", "compare", one, packed, "--variant", "gated", "--against", "text_only")[1]
    assert compared(out)[0][:2] == [f"gated ({one})", f"text_only ({packed})"]


def test_a_comparison_of_other_records_or_unknown_variants_is_an_error(finished, umie, tmp_path):
    other = finished.copy(tmp_path)
    write_sealed(other / GRID_FILE, reseal(json.loads((other / GRID_FILE).read_text()), records={"data": "0" * 64}))
    for arguments, expected in (
        ([finished.output, other], "has other records than"),
        ([finished.output, "--variant", "gatd"], "Unknown variant 'gatd'. Did you mean 'gated'?"),
        ([finished.output, "--baseline", "gatd"], "Unknown variant 'gatd'. Did you mean 'gated'?"),
    ):
        code, out, err = umie("grid", "compare", *arguments)
        assert (code, out, expected in err, err.count("\n")) == (2, "", True, 1)
    shutil.rmtree(other / "cells")
    code, _, err = umie("grid", "compare", other)
    assert (code, "nothing to compare" in err) == (2, True)


def test_the_help_has_examples(umie):
    for command in ("show", "compare", "merge", "export"):
        code, out, _ = umie("grid", command, "--help")
        assert (code, f"umie grid {command} " in out, "Exit code: 0" in " ".join(out.split())) == (0, True, True)


def test_the_description_is_written_before_the_first_cell(grid_file, umie, tmp_path):
    """So that an interrupted grid can be shown."""
    path = grid_file(plugins=[str(_stopping(tmp_path))], fusion=["stops", "text_only"], warm_start=...)
    with cells_in_process():
        assert umie("ablate", path, "--output", tmp_path / "run")[0] == 130
    assert [cell.variant for cell in read_grid_file(tmp_path / "run").cells] == ["stops", "text_only"]
    code, out, _ = umie("grid", "show", tmp_path / "run", "--cells")
    assert (code, out.count("not run")) == (0, 2)


def _stopping(folder):
    from grid_helpers import write_plugin

    return folder / write_plugin(folder, "stops", "raise KeyboardInterrupt")
