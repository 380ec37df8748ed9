"""Extraction from standard input to standard output."""

import io
import json
import sys

import pytest

from umie.errors import UmieError
from umie.extraction import Extractor, extract_file, extract_stream
from umie.records import Record, record_to_json

TEXTS = ["Ann met Bob in Rome", "Saw Deke Roli", "nothing here", "Bob left", "Ann again"]
LINES = [record_to_json(Record(text, id=str(number))) for number, text in enumerate(TEXTS)]
GOOD = "".join(f"{line}\n" for line in LINES)
BAD = f'{LINES[0]}\nnot json\n\n{{"text": " "}}\n{LINES[1][:-1]}, "own": 7}}\n{{"text": "x", "image": "../a.png"}}\n'


@pytest.fixture
def small(learned):
    return Extractor(*learned, batch_size=2)


class Slow(io.BytesIO):
    """A stream that notes how many lines were read before each result was written."""

    def __init__(self, content):
        super().__init__(content)
        self.num_read = 0

    def readline(self, *size):
        self.num_read += 1
        return super().readline(*size)


def test_results_are_those_of_a_file_and_come_batch_by_batch(small, checkpoint, tmp_path):
    (tmp_path / "in.jsonl").write_text(GOOD)
    extract_file(checkpoint, tmp_path / "in.jsonl", tmp_path / "out.jsonl", device="cpu")
    source, written = Slow(GOOD.encode()), []
    summary = extract_stream(small, source, lambda line: written.append((source.num_read, line)), pytest.fail)
    assert [line for _, line in written] == (tmp_path / "out.jsonl").read_text().splitlines()
    assert [number for number, _ in written] == [2, 2, 4, 4, 6]  # no line of a later batch is waited for
    assert (summary.total, summary.written, summary.rejected, summary.empty) == (5, 5, 0, 0)


def test_lines_without_a_result_are_rejected(small, tmp_path):
    written, rejected = [], []
    summary = extract_stream(
        small, io.BytesIO(BAD.encode()), written.append, rejected.append, images=tmp_path, skip_bad=True
    )
    assert [json.loads(line)["id"] for line in written] == ["0", "1"]
    assert json.loads(written[1])["own"] == 7  # further keys are copied
    assert [json.loads(line)["line"] for line in rejected] == [2, 4, 6]
    assert (summary.total, summary.written, summary.rejected, summary.empty) == (5, 2, 2, 1)


def test_the_extractor_is_not_changed(small, tmp_path):
    line = json.dumps({"text": "Ann", "image": "missing.png"}).encode()
    for _ in range(2):
        written, rejected = [], []
        extract_stream(small, io.BytesIO(line), written.append, rejected.append, images=tmp_path, skip_bad=True)
        assert (len(written), len(rejected)) == (0, 1)
    assert small.missing_images == "error"


def test_without_skip_bad_the_first_bad_line_ends_it(small, tmp_path):
    written = []
    with pytest.raises(UmieError, match=r"standard input:6: .*to go on without it: --skip-bad"):
        extract_stream(small, io.BytesIO(f"{GOOD}not json\n".encode()), written.append, pytest.fail)
    assert len(written) == 5  # all lines before it
    written.clear()
    lines = f'{LINES[0]}\n{{"text": "x", "image": "gone.png"}}\n{LINES[1]}\n'
    with pytest.raises(UmieError, match=r"standard input:2: .*gone.png"):
        extract_stream(small, io.BytesIO(lines.encode()), written.append, pytest.fail, images=tmp_path)
    assert [json.loads(line)["id"] for line in written] == ["0"]
    assert extract_stream(small, io.BytesIO(b""), written.append, pytest.fail).total == 0


def test_the_command(umie, checkpoint, monkeypatch, tmp_path):
    def piped(content, *arguments):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        return umie("extract", "-m", checkpoint, "--device", "cpu", "-i", "-", *arguments)

    code, out, err = piped(GOOD.encode())
    assert code == 0, err
    assert [json.loads(line)["id"] for line in out.splitlines()] == list("01234")
    assert "records: 5 (5 written, 0 rejected or without text)" in err
    code, out, err = piped('{"text": "Caf\u00e9 \U0001f600 Ann", "own": 1}\n'.encode())
    assert json.loads(out)["text"] == "Caf\u00e9 \U0001f600 Ann"
    assert "keys that are not those of a record were copied: own" in err
    code, out, err = piped(BAD.encode(), "--skip-bad", "--output", "-")
    assert code == 0, err
    assert len(out.splitlines()) == 2
    assert "rejected: " in err
    for arguments, message in (
        (("--output", tmp_path / "o.jsonl"), "results go to standard output"),
        (("--overwrite",), "need a file"),
        (("--images", tmp_path / "no"), "not a directory"),
    ):
        code, _, err = piped(GOOD.encode(), *arguments)
        assert (code, message in err) == (2, True), err
    code, _, err = umie("extract", "-m", checkpoint, "-i", tmp_path / "in.jsonl")
    assert (code, "--output is missing" in err) == (2, True)
