"""Extraction from tables: CSV, TSV, Parquet, and the rows of data sets."""

import csv
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hypothesis.strategies as st
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from PIL import Image

from umie.errors import UmieError, UnknownNameError
from umie.extraction import extract_file, records_from_rows
from umie.extraction.rows import columns_of, other_columns
from umie.extraction.source import read_items
from umie.records import read_jsonl
from umie.records.jsonl import KEYS

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)


def lines_of(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def picture(color, size=(40, 30), kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "red.png").write_bytes(picture("red"))
    return tmp_path


@given(st.lists(st.fixed_dictionaries({"tweet": CELLS, "lang": CELLS, "text": CELLS}), max_size=5))
def test_any_table_is_read_as_it_was_written(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("tables")
    for name, delimiter in (("in.csv", ","), ("in.tsv", "\t")):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["tweet", "lang", "text"], delimiter=delimiter, quoting=csv.QUOTE_ALL)
            writer.writeheader()
            writer.writerows(rows)
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(
            rows, pyarrow.schema([(name, pyarrow.string()) for name in ("tweet", "lang", "text")])
        ),
        folder / "in.parquet",
    )
    for name in ("in.csv", "in.tsv", "in.parquet"):
        items = list(read_items(folder / name, None, {"text": "tweet"}))
        assert len(items) == len(rows)
        for item, row in zip(items, rows, strict=True):
            assert item.is_empty == (not row["tweet"].strip())
            if item.record is not None:
                assert item.record.text == row["tweet"]
                assert item.further == {"lang": row["lang"], "input.text": row["text"]}  # text is a key of the output


def test_the_results_of_a_table_are_those_of_its_records(folder, checkpoint):
    rows = [
        {"tweet": "Saw Deke Roli", "photo": "red.png", "lang": "en", "n": "1"},
        {"tweet": "a, b\nc", "photo": "", "lang": "de", "n": "2"},
    ]
    with Path("in.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    table = [
        {**row, "n": int(row["n"]), "photo": {"bytes": picture("red"), "path": None} if row["photo"] else None}
        for row in rows
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), "in.parquet")
    with Path("in.jsonl").open("w") as file:
        for row in rows:
            file.write(json.dumps({"text": row["tweet"], **({"image": row["photo"]} if row["photo"] else {})}) + "\n")
    expected = extract_file(checkpoint, "in.jsonl", "plain.jsonl", device="cpu") and list(read_jsonl("plain.jsonl"))
    for source in ("in.csv", "in.parquet"):
        columns = {"text": "tweet", "image": "photo", "id": "n"}
        summary = extract_file(checkpoint, source, "out.jsonl", columns=columns, device="cpu", overwrite=True)
        lines = lines_of("out.jsonl")
        assert [line["lang"] for line in lines] == ["en", "de"]
        assert [line["id"] for line in lines] == ["1", "2"]
        assert lines[0]["image"] == {"in.csv": "red.png", "in.parquet": "image of row 1"}[source]
        assert summary.further == {"lang": 2}
        for line, record in zip(lines, expected, strict=True):
            own = record.entities and [[one.type, list(one.span)] for one in record.entities]
            assert [[one["type"], one["span"]] for one in line.get("entities", ())] == list(own)


def test_bad_rows_are_named_and_rejected(folder, checkpoint):
    (folder / "in.csv").write_text('text,image\nSaw Ann,red.png\none,two,three\n" ",\nBob,../other.png\nCy,\n')
    with pytest.raises(UmieError, match=r"in.csv:3: has 3 columns, and the header 2"):
        extract_file(checkpoint, "in.csv", "out.jsonl", device="cpu")
    summary = extract_file(checkpoint, "in.csv", "out.jsonl", device="cpu", skip_bad=True)
    assert (summary.total, summary.written, summary.rejected, summary.empty) == (5, 2, 2, 1)
    rejected = lines_of("out.jsonl.rejected.jsonl")
    assert [line["line"] for line in rejected] == [3, 4, 5]
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([{"text": "a", "image": picture("red")[:60]}, {"text": "b", "image": b"no image"}]),
        "in.parquet",
    )
    summary = extract_file(checkpoint, "in.parquet", "rows.jsonl", device="cpu", skip_bad=True)
    assert (summary.written, summary.rejected) == (0, 2)
    reasons = [line["reason"] for line in lines_of("rows.jsonl.rejected.jsonl")]
    assert all("not a readable image" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.csv", b"", "in.csv:1: the first line must name each column once"),
        ("in.csv", b"text,text\n", "in.csv:1: the first line must name each column once"),
        (
            "in.csv",
            b"tweet,n\nAnn,1\n",
            r"in.csv: there is no column 'text' for the text, only: tweet, n; name it with",
        ),
        ("in.csv", b"text\nAnn\n\xff\xfe\n", "in.csv:3: not UTF-8 text"),
        ("in.csv", b'text,n\nAnn,1\n"hello,2\nBob,3\n', "in.csv:3: not a table .* double those inside"),
        ("in.parquet", b"PAR1 no", "in.parquet: not a readable Parquet file"),
        ("in.csv", b"\x1f\x8b\x08\x00", "in.csv: the file is"),
    ],
)
def test_tables_that_cannot_be_read(folder, checkpoint, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(UmieError, match=message):
        extract_file(checkpoint, name, "out.jsonl", device="cpu")
    assert not (folder / "out.jsonl").exists()


def test_columns_on_the_command_line(folder, umie, checkpoint):
    (folder / "in.tsv").write_text("tweet\tlang\nSaw Deke Roli\ten\n")
    options = ["extract", "-m", checkpoint, "-i", "in.tsv", "-o", "out.jsonl", "--device", "cpu"]
    assert umie(*options, "--column", "text=tweet")[0] == 0
    assert json.loads((folder / "out.jsonl").read_text())["lang"] == "en"
    for wrong, message in (("text", "use FIELD=COLUMN"), ("words=tweet", "Unknown field of a record: 'words'")):
        assert message in umie(*options, "--column", wrong)[2]
    (folder / "in.jsonl").write_text('{"text": "Ann"}\n')
    assert "only tables have columns" in umie(*options[:4], "in.jsonl", *options[5:], "--column", "text=a")[2]
    assert "--column" in umie("extract", "-m", checkpoint, "Ann", "--column", "text=a")[2]


def test_a_text_per_line(tmp_path):
    path = tmp_path / "in.txt"
    path.write_text('Ann, "Bob"\n\n  \n{a brace\n{"text": "json"}\n{}\n')
    texts = [(1, 'Ann, "Bob"'), (4, "{a brace"), (5, '{"text": "json"}'), (6, "{}")]
    assert [(one.number, one.record.text) for one in read_items(path, None)] == texts
    with pytest.raises(UmieError, match="only tables have columns"):
        list(read_items(path, None, {"text": "tweet"}))
    path.write_text('\n{"text": "json"}\nmore\n')
    with pytest.raises(UmieError, match=r"in.txt:2: the line is a record as JSON, not a text: name the file .jsonl"):
        list(read_items(path, None))


@given(st.dictionaries(st.from_regex(r"\A(input\.){0,2}(text|entities|id|own)\Z"), st.integers(), max_size=9))
def test_every_further_column_is_copied_once(row):
    copied = other_columns(row, columns_of({"text": "tweet"}))
    assert sorted(copied.values()) == sorted(value for name, value in row.items() if name != "id")
    assert not set(copied) & set(KEYS)
    assert all(copied[name] == value for name, value in row.items() if name not in KEYS)


def test_rows_of_a_data_set(extractor):
    rows = [
        {"tweet": "Saw Deke Roli", "image": Image.new("RGB", (8, 8), "red"), "label": 3},
        {"tweet": "b", "image": None},
    ]
    records = list(records_from_rows(rows, columns={"text": "tweet"}))
    assert [record.text for record in records] == ["Saw Deke Roli", "b"]
    assert records[0].image.getpixel((0, 0)) == (255, 0, 0)
    assert [found.text for found in extractor.extract_many(records)] == ["Saw Deke Roli", "b"]
    (missing,) = records_from_rows([{"text": "a", "image": math.nan, "id": 7}])
    assert (missing.image, missing.id) == (None, "7")
    (missing,) = records_from_rows([{"text": "a", "image": {"bytes": None, "path": None}}])
    assert missing.image is None
    for wrong, message in (
        ([{"text": 3}], "row 1: column text is 3: expected a text"),
        ([{"text": "a"}, ["b"]], "row 2: a row is"),
        ([{"text": "a", "image": 7}], "expected the path of a file"),
    ):
        with pytest.raises(UmieError, match=message):
            list(records_from_rows(wrong))
        bad = []
        list(records_from_rows(wrong, on_bad=lambda number, error, bad=bad: bad.append((number, str(error)))))
        assert [number for number, _ in bad] == [len(wrong)]
    kept = records_from_rows([{"text": "a"}, {"text": 3}, {"text": "b"}], on_bad=lambda *_: None)
    assert [record.text for record in kept] == ["a", "b"]
    with pytest.raises(UnknownNameError):
        list(records_from_rows(rows, columns={"words": "tweet"}))


def test_a_data_frame_with_missing_values():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["a", None], "id": [12, None], "image": ["a.png", "b.png"]})
    assert [(one.text, one.id) for one in records_from_rows(frame)] == [("a", "12"), ("", None)]
    nullable = frame.convert_dtypes()
    assert [(one.text, one.id, one.image) for one in records_from_rows(nullable)] == [
        ("a", "12", "a.png"),
        ("", None, "b.png"),
    ]


def test_a_row_without_text_and_image_is_empty(folder, checkpoint):
    none = {"bytes": None, "path": None}
    rows = [{"text": "Saw Deke Roli", "image": none}, {"text": "", "image": none}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), "in.parquet")
    summary = extract_file(checkpoint, "in.parquet", "out.jsonl", device="cpu", skip_bad=True)
    assert (summary.written, summary.empty, summary.rejected) == (1, 1, 0)


@pytest.fixture
def many(folder):
    with Path("many.csv").open("w") as file:
        file.write("text,image\n")
        for number in range(200):
            file.write(
                "bad,row,\n"
                if number % 67 == 66
                else f"Saw Deke Roli {number},{'red.png' if number % 9 == 0 else ''}\n"
            )
    return folder / "many.csv"


@pytest.mark.slow
def test_several_processes_write_what_one_does(many, checkpoint):
    options = {"skip_bad": True, "batch_size": 4, "details": "d1.jsonl"}
    extract_file(checkpoint, many, "one.jsonl", device="cpu", **options)
    extract_file(checkpoint, many, "two.jsonl", device=["cpu", "cpu"], **{**options, "details": "d2.jsonl"})
    for one, two in (("one.jsonl", "two.jsonl"), ("d1.jsonl", "d2.jsonl")):
        assert lines_of(one) == lines_of(two)
    rejected = [lines_of(f"{name}.jsonl.rejected.jsonl") for name in ("one", "two")]
    assert rejected[0] == rejected[1]
    with pytest.raises(UmieError, match="many.csv:68: has 3 columns"):
        extract_file(checkpoint, many, "three.jsonl", device=["cpu", "cpu"])
    with pytest.raises(UmieError, match="device 'nowhere' cannot be used"):
        extract_file(checkpoint, many, "three.jsonl", device=["cpu", "nowhere"], skip_bad=True)


@pytest.mark.slow
def test_killed_processes_lose_and_double_nothing(many, checkpoint):
    extract_file(checkpoint, many, "one.jsonl", device="cpu", skip_bad=True)
    command = [sys.executable, "-m", "umie", "extract", "-m", checkpoint, "-i", many, "-o", "two.jsonl", "--skip-bad",
               "--device", "cpu,cpu", "--batch-size", "1"]  # fmt: skip
    for lines in (20, 90):
        running = subprocess.Popen(list(map(str, command)), start_new_session=True, stderr=subprocess.PIPE)
        part = many.parent / "two.jsonl.part"
        while running.poll() is None and (not part.exists() or part.read_bytes().count(b"\n") < lines):
            time.sleep(0.02)
        assert running.poll() is None, running.stderr.read().decode()
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        running.stderr.close()
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    assert (many.parent / "two.jsonl").read_text() == (many.parent / "one.jsonl").read_text()


def test_several_devices_need_a_file(umie, checkpoint):
    assert "several devices share a file" in umie("extract", "-m", checkpoint, "Ann", "--device", "cpu,cpu")[2]
    with pytest.raises(UmieError, match="device is"):
        extract_file(checkpoint, "in.jsonl", "out.jsonl", device=[])
