"""Result files: a damaged line or file is noticed, reported and never used."""

import copy
import json
import random

import pytest

from umie.errors import UmieError
from umie.experiments.results import (
    CHECKSUM,
    RESULT,
    RESULTS,
    _intact,
    append_result,
    cell_folder,
    parse_result,
    read_numbers,
    read_results,
    sealed,
)
from umie.files import json_text, parse_json
from umie.versions import file_digest

SCORE = {"f1": 0.5, "precision": 0.25, "recall": 1.0, "interval": [0.4, 0.6], "dropped": 0, "gold": 3, "predicted": 4}
LINE = {
    "hash": "a1b2", "variant": "gated", "seed": 0, "parts": {"fusion": {"name": "gated"}}, "status": "ok",
    "metrics": {"mner": SCORE, "mre": SCORE}, "health": {"visual_gradient": 0.1}, "counts": {"train": {}, "test": {}},
    "parameters": 10, "trainable_parameters": 10, "seconds": {"train": 1.0, "total": 2.0}, "uses_image": True,
    "device": "cpu", "threads": 1, "versions": {"umie": "0.1", "torch": None}, "images": {"encoder_calls": 3},
}  # fmt: skip
OTHER = {**LINE, "hash": "c3d4", "variant": "text_only", "metrics": {"mner": {**SCORE, "f1": 0.75}, "mre": SCORE}}
CELLS = {"a1b2": "gated, seed 0", "c3d4": "text_only, seed 0"}
SCORED = ["mner", "mre"]


@pytest.fixture
def grid(tmp_path):
    """Write results: ``grid(lines, cells)`` with the text of the results file, and of the files of cells by hash."""

    def write(lines=None, cells=None):
        if lines is not None:
            (tmp_path / RESULTS).write_bytes(lines if isinstance(lines, bytes) else lines.encode())
        for name, text in (cells or {}).items():
            path = cell_folder(tmp_path, name) / RESULT
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path

    return write


def read(output, **options):
    damage = []
    return read_results(output, CELLS, SCORED, on_damage=damage.append, **options), damage


def text_of(*lines):
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_a_damaged_line_is_reported_and_recovered_from_the_file_of_its_cell(grid):
    first, second = sealed(LINE), sealed(OTHER)
    damaged = text_of(first, second).replace('"f1": 0.75', '"f1": 0.95')
    output = grid(damaged, {"c3d4": json.dumps(second)})
    results, damage = read(output)
    assert results == {"a1b2": first, "c3d4": second}
    assert damage == [f"{output / RESULTS}:2: damaged: its checksum does not fit its values; the line is not used"]
    assert (output / RESULTS).read_text() == text_of(first, second)
    assert read(output) == (results, [])  # repaired


def test_a_plan_reports_a_damaged_line_and_changes_nothing(grid):
    damaged = text_of(sealed(LINE)).replace("0.25", "0.26")
    output = grid(damaged)
    assert read(output, repair=False)[0] == {}
    assert (output / RESULTS).read_text() == damaged


def test_a_cell_runs_again_if_both_of_its_results_are_damaged(grid):
    output = grid(text_of(sealed(LINE), sealed(OTHER)).replace("0.75", "0.95"), {"c3d4": '{"hash": "c3d4", "sta'})
    results, damage = read(output)
    assert list(results) == ["a1b2"]
    assert "text_only, seed 0 runs again" in damage[1]


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "{}", "[]", "3", '"ok"', '{"hash": "c3d4"}', '{"hash": ["c3d4"], "status": "ok"}',
        '{"hash": "c3d4", "status": "ok"}', '{"hash": "c3d4", "status": "fine"}', "\xff\xfe", "[" * 5000,
        json.dumps({**OTHER, "metrics": None}), json.dumps({**OTHER, "metrics": {"mner": {"f1": "0.5"}, "mre": {}}}),
        json.dumps({**OTHER, "metrics": {"mner": SCORE}}), json.dumps({**OTHER, "health": 3}),
        json.dumps({**OTHER, "hash": "a1b2"}), '{"a": ' + "9" * 5000 + "}",
        json.dumps({**OTHER, "seal": "0" * 16, "x": "\ud800"}),
        '{"hash": "c3d4", "status": "ok", "seal": "0", "x": ' + "[" * 992 + "]" * 992 + "}",
    ],
)  # fmt: skip
def test_a_file_that_is_no_result_is_reported_in_one_line(grid, text):
    data = text.encode("latin-1")
    output = grid(text_of(LINE), {"c3d4": data})
    results, damage = read(output)
    assert results == {"a1b2": LINE}  # of an earlier version, without a checksum
    assert len(damage) == 1
    assert "\n" not in damage[0]
    results, damage = read(grid(data + b"\n" + text_of(LINE).encode()))
    assert results == {"a1b2": LINE}


def test_results_of_other_grids_are_kept(grid):
    other = {"hash": "of another grid", "status": "ok"}
    output = grid(text_of(other, LINE) + '{"torn')
    assert read(output) == ({"a1b2": LINE}, [])
    assert (output / RESULTS).read_text() == text_of(other, LINE)


def test_the_files_of_a_cell_are_used_only_as_they_were_written(tmp_path):
    path = tmp_path / "gates.json"
    path.write_text('{"mner": [0.1, 0.2]}')
    line = {"files": {"gates.json": file_digest(path)}}
    assert read_numbers(line, path, 1) == {"mner": [0.1, 0.2]}
    path.write_text('{"mner": [0.1, 0.3]}')
    assert read_numbers(line, path, 1) == {}
    assert read_numbers({}, path, 1) == {"mner": [0.1, 0.3]}  # of an earlier version
    for text in ("null", "[1]", '{"mner": 1}', '{"mner": ["a"]}', '{"mner": [[1]]}', '{"mn', "\xff"):
        path.write_text(text, encoding="latin-1")
        assert read_numbers({}, path, 1) == {}


def mutated(data, rng):
    """Return bytes with a bit flipped, a part removed or repeated, or some bytes replaced."""
    data = bytearray(data)
    place = rng.randrange(len(data))
    size = rng.choice((1, 1, 2, 8, 60))
    kind = rng.randrange(4)
    if kind == 0:
        data[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[place : place + size]
    elif kind == 2:
        data[place:place] = data[place : place + size]
    else:
        data[place : place + size] = rng.choice((b"0", b"null", b"{}", b'"', b"\n", b"\x00", b"1e999", b"\xff"))
    return bytes(data)


@pytest.mark.parametrize("number", [200, pytest.param(3000, marks=pytest.mark.slow)])
def test_mutated_results_never_change_in_silence(grid, number):
    """A result with a checksum is as it was written, or is not used."""
    rng = random.Random(number)
    written = {line["hash"]: sealed(line) for line in (LINE, OTHER)}
    whole = text_of(*written.values()).encode()
    for _ in range(number):
        lines = mutated(whole, rng)
        cell = mutated(json.dumps(written["c3d4"]).encode(), rng)
        results, damage = read(grid(lines, {"c3d4": cell}), repair=False)
        for name, line in results.items():
            values = {key: line.get(key) for key in written[name]}
            if CHECKSUM in line:
                assert line == written[name], lines
            else:  # the name of this key was changed, and the values were not
                assert {**values, CHECKSUM: written[name][CHECKSUM]} == written[name], lines
        if set(results) != set(written):
            assert damage or not lines.endswith(b"\n") or lines.count(b"\n") < 2


def test_results_cut_at_any_byte_lose_only_the_line_that_was_being_written(grid):
    """Without the files of cells; the next results are appended, and a cell that is lost runs again."""
    first, second = sealed(LINE), sealed(OTHER)
    whole = text_of(first, second).encode()
    ends = {"a1b2": whole.index(b"\n"), "c3d4": len(whole) - 1}  # a whole line whose end is missing counts
    for size in range(len(whole)):
        output = grid(whole[:size])
        results, damage = read(output, repair=size % 2 == 0)
        assert (list(results), damage) == ([name for name, end in ends.items() if size >= end], [])
        for line in (second, first):
            append_result(output / RESULTS, line)
        assert read(output)[0] == {"a1b2": first, "c3d4": second}


def test_reading_many_lines_at_once_is_reading_each(grid):
    rng = random.Random(5)
    drawn = [{**mutated_value(LINE, rng), "hash": f"{number:04x}", "text": "ü \u2028 \x7f"} for number in range(50)]
    lines = list(map(sealed, drawn))
    texts = [(json_text(line) + "\n").encode() for line in lines]
    assert _intact(texts) == [parse_json(text.decode()) for text in texts]
    for broken in (texts[7][:-2], texts[7].replace(b"0007", b"0008"), b"\n", b"[]\n"):
        assert _intact([*texts[:3], broken, *texts[3:5]]) is None


def mutated_value(value, rng):
    """Return a JSON value with one value inside it replaced or removed."""
    value = copy.deepcopy(value)
    inner = value
    while True:
        key = rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        if isinstance(inner[key], dict | list) and inner[key] and rng.random() < 0.7:
            inner = inner[key]
            continue
        if isinstance(inner, dict) and rng.random() < 0.3:
            del inner[key]
        else:
            inner[key] = rng.choice((None, True, -1, 1.5, "", "ok", [], {}, [[]], {"a": None}, float("nan")))
        return value


@pytest.mark.parametrize("number", [200, pytest.param(3000, marks=pytest.mark.slow)])
def test_results_with_other_values_and_no_checksum_are_read_or_refused(number):
    rng = random.Random(number)
    for _ in range(number):
        line = mutated_value(LINE, rng)
        try:
            found = parse_result(json.dumps(line), SCORED)
        except UmieError as error:
            assert "\n" not in str(error)
        else:
            assert found.keys() == line.keys()
            if found["status"] == "ok":
                assert all(isinstance(found["metrics"][key]["f1"], int | float) for key in SCORED)
        if json.dumps(line) == json.dumps(LINE):
            continue
        with pytest.raises(UmieError):  # with the checksum of the original
            parse_result(json.dumps({**line, CHECKSUM: sealed(LINE)[CHECKSUM]}))


def test_a_checksum_does_not_depend_on_spacing():
    line = sealed(LINE)
    assert parse_result(json.dumps(line, indent=1)) == line
    assert parse_json(json.dumps(line)) == line
