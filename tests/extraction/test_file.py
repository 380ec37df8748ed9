"""extract_file: progress, resuming, and the arguments that the output depends on."""

import dataclasses

import pytest

from umie.errors import UmieError
from umie.extraction import extract_file
from umie.records import Record, read_jsonl, write_jsonl


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
