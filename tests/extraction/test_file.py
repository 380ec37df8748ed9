"""extract_file: progress, resuming, and the arguments that the output depends on."""

import dataclasses
import json
from pathlib import Path

import pytest

from umie.errors import UmieError
from umie.extraction import extract_file
from umie.records import Record, read_jsonl, write_jsonl
from umie.resumable import is_changed


class Stop(Exception):
    pass


@pytest.fixture
def source(tmp_path, monkeypatch, records):
    monkeypatch.chdir(tmp_path)
    write_jsonl("in.jsonl", [dataclasses.replace(record, image=None, regions=(), events=()) for record in records[:5]])
    return "in.jsonl"


def test_the_output_is_that_of_the_extractor(source, checkpoint, extractor):
    progress = []
    summary = extract_file(
        checkpoint,
        source,
        "out.jsonl",
        details="details.jsonl",
        tasks=["mner"],
        labels={"mner": ["ship"]},
        device="cpu",
        on_progress=lambda *counts: progress.append(counts),
    )
    expected = extractor.extract(read_jsonl(source), tasks=["mner"], labels={"mner": ["ship"]})
    assert list(read_jsonl("out.jsonl")) == [found.record for found in expected]
    assert progress == [(number, 5) for number in range(6)]
    assert (summary.total, summary.resumed, summary.warnings) == (5, 0, {"labels": 5})


@pytest.mark.parametrize("change", [{"tasks": ["med"]}, {"num_beams": 2}, {"labels": {"mner": ["ship"]}}])
def test_only_the_same_call_resumes(source, checkpoint, change):
    def stop(done, total):
        if done == 3:
            raise Stop

    options = {"tasks": ["mner"], "device": "cpu", "batch_size": 1}
    with pytest.raises(Stop):
        extract_file(checkpoint, source, "out.jsonl", on_progress=stop, **options)
    with pytest.raises(UmieError, match="out.jsonl.part: belongs to an unfinished run"):
        extract_file(checkpoint, source, "out.jsonl", **{**options, **change})
    summary = extract_file(checkpoint, source, "out.jsonl", **{**options, "batch_size": 4})
    assert (summary.total, summary.resumed) == (5, 3)
    assert len(list(read_jsonl("out.jsonl"))) == 5


def test_bad_arguments(source, checkpoint, tmp_path):
    write_jsonl("other.jsonl", [Record("Ann")])
    for options, message in (
        ({"output": "in.jsonl"}, "in.jsonl: is the same file as in.jsonl"),
        ({"details": "out.jsonl"}, "out.jsonl: is the same file as out.jsonl"),
        ({"images": "photos"}, "images: photos is not a directory"),
        ({"model": "best"}, "'best' is neither an existing directory"),
        ({"source": "gone.jsonl"}, "gone.jsonl: cannot read"),
    ):
        with pytest.raises(UmieError, match=message):
            extract_file(**{"model": checkpoint, "source": source, "output": "out.jsonl", **options})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "other.jsonl"]


LINES = [
    json.dumps({"id": "a", "text": "Ann", "user": {"n": 1.5, "of": ["x"]}, "lang": "en"}),
    '{"text": "Bob", "text": "Ben"}',
    "",
    '{"id": "c", "text": " "}',
    '{"id": "d", "text": "Cy", "image": "gone.jpg", "lang": "zh"}',
    "no JSON",
    '{"id": "f", "text": "Di", "key": "\\ud800"}',
    '{"id": "g", "text": "Ed", "image": "../gone.jpg"}',
    '{"id": "h", "text": "Flo"}',
    '{"id": "i", "text": "Gus", "score": {"all": [1, -1e999]}}',
]
REASONS = {
    2: "duplicate key 'text'",
    4: "the text is empty",
    5: "gone.jpg",
    6: "not valid JSON",
    8: "../gone.jpg",
    10: "score.all[1] is -inf",
}


@pytest.fixture
def mixed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text("\n".join(LINES) + "\n")
    return "in.jsonl"


def lines_of(name):
    with Path(name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_bad_lines_cost_only_themselves(mixed, checkpoint, batch_size):
    with pytest.raises(UmieError, match=r"in.jsonl:2: duplicate key 'text' .*--skip-bad"):
        extract_file(checkpoint, mixed, "out.jsonl", tasks=["mner"], device="cpu")
    summary = extract_file(
        checkpoint, mixed, "out.jsonl", details="more.jsonl", tasks=["mner"], device="cpu", skip_bad=True,
        batch_size=batch_size,
    )  # fmt: skip
    assert (summary.total, summary.written, summary.rejected, summary.empty) == (9, 3, 5, 1)
    rejected = lines_of("out.jsonl.rejected.jsonl")
    assert {line["line"]: line["content"] for line in rejected} == {
        number: line for number, line in enumerate(LINES, start=1) if number in REASONS
    }
    for line in rejected:
        assert REASONS[line["line"]] in line["reason"]
    assert [line["id"] for line in lines_of("out.jsonl")] == ["a", "f", "h"]
    assert [line["line"] for line in lines_of("more.jsonl")] == [1, 7, 9]
    assert not is_changed(Path("out.jsonl"))


def test_further_keys_with_the_names_of_details_are_copied_under_others(tmp_path, monkeypatch, checkpoint):
    monkeypatch.chdir(tmp_path)
    Path("own.jsonl").write_text('{"text": "Ann", "line": 5, "gate": 1, "input.line": 6}\n')
    extract_file(checkpoint, "own.jsonl", "out.jsonl", details="more.jsonl", tasks=["mner"], device="cpu")
    (line,) = lines_of("more.jsonl")
    assert (line["line"], line["input.line"], line["input.input.line"], line["input.gate"]) == (1, 6, 5, 1)


def test_further_keys_are_copied_as_they_are(mixed, checkpoint):
    summary = extract_file(checkpoint, mixed, "out.jsonl", tasks=["mner"], device="cpu", skip_bad=True)
    first, second, third = lines_of("out.jsonl")
    assert {key: first[key] for key in ("user", "lang")} == {"user": {"n": 1.5, "of": ["x"]}, "lang": "en"}
    assert second["key"] == "\ud800"
    assert set(third) == {"id", "text", "tasks"} or "entities" in third
    assert summary.further == {"user": 1, "lang": 1, "key": 1}


def test_the_policy_for_images_may_change_when_a_run_is_resumed(mixed, checkpoint):
    Path(mixed).write_text("\n".join(line for line in LINES if '"d"' in line or '"a"' in line or '"h"' in line))
    options = {"tasks": ["mner"], "device": "cpu", "batch_size": 1}
    with pytest.raises(UmieError, match=r"in.jsonl:2: .*gone.jpg"):
        extract_file(checkpoint, mixed, "out.jsonl", **options, on_progress=lambda done, total: None)
    for more, expected in (
        ({"missing_images": "text_only"}, ["a", "d", "h"]),
        ({"skip_bad": True}, ["a", "h"]),
    ):
        summary = extract_file(checkpoint, mixed, "out.jsonl", **options, **more, overwrite=True)
        assert [line["id"] for line in lines_of("out.jsonl")] == expected
        assert (summary.total, summary.rejected) == (3, 3 - len(expected))


def test_a_run_of_only_bad_lines(mixed, checkpoint):
    Path(mixed).write_text("no JSON\n" * 70)
    summary = extract_file(checkpoint, mixed, "out.jsonl", device="cpu", skip_bad=True, batch_size=4)
    assert (summary.total, summary.rejected, lines_of("out.jsonl")) == (70, 70, [])


def test_rejected_lines_can_be_no_input(mixed, checkpoint):
    lines = Path("out.jsonl.rejected.jsonl")
    lines.write_text('{"text": "Ann"}\n')
    with pytest.raises(UmieError, match="is the same file as"):
        extract_file(checkpoint, lines, "out.jsonl")
    assert lines.exists()


def test_a_complete_output_is_neither_written_again_nor_replaced(mixed, checkpoint):
    options = {"tasks": ["mner"], "device": "cpu", "skip_bad": True}
    first = extract_file(checkpoint, mixed, "out.jsonl", **options)
    Path("out.jsonl.rejected.jsonl").unlink()  # a user may tidy up
    before = Path("out.jsonl").stat()
    again = extract_file(checkpoint, mixed, "out.jsonl", **options, on_progress=lambda *counts: pytest.fail())
    assert Path("out.jsonl").stat() == before
    assert (first.was_complete, again.was_complete, again.resumed) == (False, True, 9)
    assert (again.written, again.rejected, again.empty) == (first.written, first.rejected, first.empty) == (3, 5, 1)
    other = "out.jsonl: already exists, from other input, options or weights"
    for change, found in (({"tasks": ["med"]}, other), ({"details": "more.jsonl"}, f"{other}, and without more.jsonl")):
        with pytest.raises(UmieError, match=f"{found}: .*--overwrite"):
            extract_file(checkpoint, mixed, "out.jsonl", **{**options, **change})
    assert not extract_file(checkpoint, mixed, "out.jsonl", **options, overwrite=True).was_complete
    Path("out.jsonl").write_text("edited by hand\n")
    with pytest.raises(UmieError, match=r"out.jsonl: is complete, but was changed since"):
        extract_file(checkpoint, mixed, "out.jsonl", **options)
    assert Path("out.jsonl").read_text() == "edited by hand\n"


def test_a_damaged_line_of_an_unfinished_output_costs_one_record(source, checkpoint):
    def stop(done, total):
        if done == 4:
            raise Stop

    options = {"tasks": ["mner"], "device": "cpu", "batch_size": 1}
    whole = extract_file(checkpoint, source, "whole.jsonl", **options)
    with pytest.raises(Stop):
        extract_file(checkpoint, source, "out.jsonl", on_progress=stop, **options)
    part = Path("out.jsonl.part")
    part.write_bytes(part.read_bytes().replace(b"text", b"tent", 1))
    notes, progress = [], []
    summary = extract_file(
        checkpoint,
        source,
        "out.jsonl",
        note=notes.append,
        on_progress=lambda *counts: progress.append(counts),
        **options,
    )
    assert notes == [summary.damage]
    assert "item 1 is written again; what was damaged is kept in out.jsonl.part.damaged" in notes[0]
    assert progress == [(3, 5), (4, 5), (5, 5)]
    assert (summary.resumed, summary.written, whole.written) == (3, 5, 5)
    assert Path("out.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
    assert b"tent" in Path("out.jsonl.part.damaged").read_bytes()
