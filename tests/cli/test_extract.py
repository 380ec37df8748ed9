"""`umie extract`: tables, JSON, files that a killed run goes on with, and errors in one line."""

import dataclasses
import json

import pytest

import umie as library
from umie.extraction.resumable import ResumableLines
from umie.records import Event, Record, Region, read_jsonl, write_jsonl


@pytest.fixture(scope="module")
def checkpoint(variant, embedded_records, tmp_path_factory):
    """Random weights, whose answers are well-formed all the same; on a few label names, so that they are short."""
    folder = tmp_path_factory.mktemp("checkpoint")
    for part in variant(missing_images="error", max_target_tokens=24):
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def files(tmp_path, monkeypatch, embedded_records):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "photos").mkdir()
    records = []
    for record in embedded_records[:9]:
        record.image.save(tmp_path / "photos" / f"{record.id}.png")
        records.append(dataclasses.replace(record, image=f"{record.id}.png"))
    write_jsonl("in.jsonl", records)
    return tmp_path


def of_file(checkpoint, *more):
    base = ("extract", "--model", checkpoint, "--input", "in.jsonl", "--output", "out.jsonl", "--images", "photos")
    return (*base, "--batch-size", "1", *more)


def test_a_table_with_offsets_and_boxes(umie, files, checkpoint, embedded_records):
    record = embedded_records[2]
    boxes = [",".join(map(str, region.box)) for region in record.regions]
    given = [part for box in boxes for part in ("--region", box)]
    image = f"photos/{record.id}.png"
    code, out, _ = umie("extract", "--model", checkpoint, record.text, "--image", image, *given)
    assert code == 0
    expected = library.Extractor.from_pretrained(checkpoint).extract(record.text, image, regions=record.regions)
    for entity in expected.entities:
        (line,) = [
            line for line in out.splitlines() if f" {entity.span[0]}-{entity.span[1]} " in line and entity.type in line
        ]
        assert entity.text in line
    assert "gate: mner" in out
    code, out, _ = umie("extract", "--model", checkpoint, record.text, "--image", image, *given, "--json")
    printed, wanted = json.loads(out), expected.to_json()
    assert printed.pop("gate") == pytest.approx(wanted.pop("gate"), abs=1e-5)
    assert printed == wanted


def test_regions_and_events_in_the_table(capsys):
    from umie.cli.extract_display import show_extraction
    from umie.extraction import Extraction
    from umie.records import Argument, Entity, Relation

    record = Record(
        "Ann met [Bob]",
        "x.png",
        (Region((0.1, 0.2, 0.5, 0.9), "man"),),
        entities=(Entity("per[son]", (0, 3)),),
        relations=(Relation("peer", (0, 3), (9, 12)), Relation("none", (9, 12), (0, 3))),
        events=(Event("meet", None, (Argument("Agent", region=0), Argument("Entity", (9, 12)))),),
    )
    show_extraction(Extraction(record, image_size=(100, 50)))
    out = " ".join(capsys.readouterr().out.split())
    assert "per[son] Ann 0-3" in out
    assert "Ann peer Bob 0-3, 9-12" in out
    assert "none" not in out
    assert "meet (in the image)" in out
    assert "Agent region 0 (man) box 0.10, 0.20, 0.50, 0.90 10, 10, 50, 45" in out
    assert "Entity Bob 9-12" in out
    show_extraction(Extraction(Record("Ann")))
    assert capsys.readouterr().out == "Nothing was found.\n"


def test_labels_and_tasks(umie, files, checkpoint):
    arguments = ("extract", "--model", checkpoint, "HMS Belfast in London", "--json")
    code, out, err = umie(*arguments, "--task", "mner", "--label", "ship", "--label", "mner=person")
    assert code == 0
    assert {entity["type"] for entity in json.loads(out).get("entities", ())} <= {"ship", "person"}
    assert "note: mner: the checkpoint was not trained for 'ship'\n" in err
    code, out, _ = umie(*arguments, "--label", "med=meet", "--task", "mner", "--task", "med")
    assert {event["type"] for event in json.loads(out).get("events", ())} <= {"meet"}


def test_a_file_to_a_file_that_can_be_scored(umie, files, checkpoint):
    code, out, _ = umie(*of_file(checkpoint, "--details", "details.jsonl"))
    assert code == 0
    assert "records: 9\nWritten: out.jsonl\nWritten: details.jsonl" in out
    found, given = list(read_jsonl("out.jsonl")), list(read_jsonl("in.jsonl"))
    assert [record.id for record in found] == [record.id for record in given]
    extractor = library.Extractor.from_pretrained(checkpoint)
    assert found == [one.record for one in extractor.extract(read_jsonl("in.jsonl", "photos"))]
    details = [json.loads(line) for line in (files / "details.jsonl").read_text().splitlines()]
    assert [line["line"] for line in details] == list(range(1, 10))
    assert all(line["gate"]["mner"] is not None for line in details)
    for task in ("mner", "med"):
        assert umie("evaluate", "--predictions", "out.jsonl", "--gold", "in.jsonl", "--task", task)[0] == 0
    assert sorted(path.name for path in files.iterdir()) == ["details.jsonl", "in.jsonl", "out.jsonl", "photos"]


class Killed(BaseException):
    """As a signal: nothing cleans up behind it but what the language does."""


def test_a_run_that_was_killed_goes_on(umie, files, checkpoint, monkeypatch):
    whole = of_file(checkpoint, "--details", "details.jsonl")
    assert umie(*whole)[0] == 0
    expected = {name: (files / name).read_bytes() for name in ("out.jsonl", "details.jsonl")}
    for name in expected:
        (files / name).unlink()
    real, written = ResumableLines.write, []

    def write(self, *lines):
        if len(written) == 5:
            raise Killed
        written.append(lines)
        real(self, *lines)

    monkeypatch.setattr(ResumableLines, "write", write)
    with pytest.raises(Killed):
        umie(*whole)
    assert not (files / "out.jsonl").exists()
    part = files / "out.jsonl.part"
    with part.open("ab") as file:
        file.write(b'{"text": "half a li')  # as of a kill in the middle of writing
    code, _, err = umie(*of_file(checkpoint, "--details", "details.jsonl", "--num-beams", "2"))
    assert (code, err.count("\n")) == (2, 1)
    assert "out.jsonl.part: is what a run with other input, options or weights left" in err
    written.clear()
    monkeypatch.setattr(ResumableLines, "write", lambda self, *lines: written.append(lines) or real(self, *lines))
    code, _, err = umie(*whole)
    assert code == 0
    assert "going on behind the 5 records of 9 that are done" in err
    assert len(written) == 4
    assert {name: (files / name).read_bytes() for name in expected} == expected
    assert not list(files.glob("*.part*"))


def test_two_processes_do_not_write_one_file(umie, files, checkpoint):
    with ResumableLines([files / "out.jsonl"], "run").open():
        code, _, err = umie(*of_file(checkpoint))
    assert code == 2
    assert "out.jsonl: another process is writing it" in err


def test_a_run_that_did_nothing_leaves_nothing(umie, files, checkpoint):
    """Else the next one, its options mended, would be refused."""
    code, _, err = umie(*of_file(checkpoint, "--task", "ner"))
    assert (code, err.count("\n")) == (2, 1)
    assert sorted(path.name for path in files.iterdir()) == ["in.jsonl", "photos"]
    assert umie(*of_file(checkpoint, "--task", "mner"))[0] == 0


def test_lines_are_truncated_to_what_all_files_have(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    (tmp_path / "a.part").write_text("1\n2\n3\n")
    (tmp_path / "b.part").write_text("1\n2")
    (tmp_path / "a.part.run").write_text("x")
    with ResumableLines(paths, "x").open() as lines:
        assert lines.done == 1
        lines.write("two", "zwei")
    assert (tmp_path / "a").read_text() == "1\ntwo\n"
    assert (tmp_path / "b").read_text() == "1\nzwei\n"


def test_warnings_are_counted(umie, files, checkpoint):
    with (files / "in.jsonl").open("a") as file:
        file.write('{"text": "Ann", "image": "gone.png"}\n')
    code, _, err = umie(*of_file(checkpoint, "--missing-images", "text_only", "--task", "mner"))
    assert code == 0
    assert "note: the image was not looked at: 1 of the 10 records; --details FILE tells which" in err
    (files / "out.jsonl").unlink()
    code, _, err = umie(*of_file(checkpoint, "--task", "mner"))
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("umie: in.jsonl:10: record 'Ann': ")
    assert "gone.png: no such image" in err
    assert len((files / "out.jsonl.part").read_text().splitlines()) == 8  # two windows of four; the third has it


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "Ann", "image": "../secret.png"}', "in.jsonl:10: image '../secret.png' is outside the image folder"),
        ('{"text": 7}', "in.jsonl:10: text is 7"),
        ('{"text": "Ann", "regions": [{"box": [0, 0, 30, 40]}]}', "in.jsonl:10: box [0, 0, 30, 40]"),
        ("{", "in.jsonl:10: not valid JSON"),
    ],
)
def test_bad_lines_are_named_before_anything_is_done(umie, files, checkpoint, line, message):
    with (files / "in.jsonl").open("a") as file:
        file.write(line + "\n")
    code, _, err = umie(*of_file(checkpoint))
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not list(files.glob("out*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Ann"], "--model is missing"),
        (["Ann", "--model", "none"], "none: no such folder"),
        (["--model", "CKPT"], "give a text, or a file with --input"),
        (["Ann", "--model", "CKPT", "--input", "in.jsonl"], "give a text, or a file with --input"),
        (["--model", "CKPT", "--input", "in.jsonl"], "--output is missing"),
        (["--model", "CKPT", "--input", "in.jsonl", "--output", "in.jsonl"], "in.jsonl: is the same file as in.jsonl"),
        (["--model", "CKPT", "--input", "no.jsonl", "--output", "o.jsonl"], "no.jsonl: cannot read"),
        (["--model", "CKPT", "--input", "empty.jsonl", "--output", "o.jsonl"], "empty.jsonl: holds no record"),
        (["--model", "CKPT", "--input", "in.jsonl", "--output", "photos"], "photos: is a folder"),
        (["--model", "CKPT", "--input", "in.jsonl", "--output", "o.jsonl", "--images", "no"], "no: no such folder"),
        (["--model", "CKPT", "--input", "in.jsonl", "--output", "o.jsonl", "--json"], "go with one text"),
        (["Ann", "--model", "CKPT", "--output", "o.jsonl"], "go with --input"),
        (["Ann", "--model", "CKPT", "--label", "ship"], "--label 'ship': say of which task, e.g. mner=ship"),
        (["Ann", "--model", "CKPT", "--task", "ner"], "Unknown task 'ner'"),
        (["Ann", "--model", "CKPT", "--region", "1,2"], "--region '1,2': give four numbers"),
        (["Ann", "--model", "CKPT", "--image", "no.png"], "no.png: no such image"),
        (["Ann", "--model", "CKPT", "--device", "warp"], "device 'warp' cannot be used"),
        (["Ann", "--model", "CKPT", "--batch-size", "0"], "Invalid value for '--batch-size'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(umie, files, checkpoint, arguments, message):
    (files / "empty.jsonl").write_text("\n")
    code, out, err = umie("extract", *[checkpoint if part == "CKPT" else part for part in arguments])
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (files / "o.jsonl").exists()


def test_help_teaches_with_examples(umie):
    code, out, _ = umie("extract", "--help")
    assert code == 0
    assert 'umie extract --model best "Kids at the Salvation Army" --image kids.jpg' in out
    assert "umie extract --model best -i in.jsonl -o out.jsonl --images photos" in out
