"""Properties of all readers: source and license of each record, listed errors, and no errors but UmieError."""

import importlib.metadata
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import mutated
from samples import IDS, PAIR, SAMPLES, SENTENCE, Sample

from umie import data
from umie.audit.checks import validate
from umie.data.consistency import consistent
from umie.data.reading import numbered_lines
from umie.data.source import Source
from umie.errors import UmieError
from umie.records import Record, read_jsonl, write_jsonl

samples = pytest.mark.parametrize("sample", SAMPLES, ids=IDS)


def read_all(sample: Sample, folder: str | Path, **changed: bytes) -> tuple[list[Record], list[UmieError]]:
    """Return the records and the errors of a sample with changed files; an error that ends reading is the last one."""
    path, options = sample.write(folder, changed)
    records, errors = [], []
    try:
        for record in data.read(sample.format, path, **options, on_error=errors.append):
            records.append(record)
    except UmieError as error:
        errors.append(error)
    return records, errors


@samples
def test_the_samples_are_valid(sample: Sample, tmp_path: Path) -> None:
    records, errors = read_all(sample, tmp_path)
    assert (len(records), errors) == (sample.num_records, [])


@samples
def test_every_record_has_a_source_and_a_license(sample: Sample, tmp_path: Path) -> None:
    records, _ = read_all(sample, tmp_path)
    for record in records:
        if sample.format == "jsonl":  # from its line
            assert (record.source, record.license, record.labels) == ("a book", None, {"mner": ("person",)})
        else:
            name, _, file = str(record.source).partition(": ")
            assert name and file == sample.main
            assert (record.license is None) == (sample.format == "conll")  # any data set
            assert "only" in (record.license or "only")
            assert record.labels and set(record.tasks or ()) <= set(record.labels)
            assert str(tmp_path) not in f"{record.source}{record.license}"


@samples
def test_every_label_is_in_the_schema(sample: Sample, tmp_path: Path) -> None:
    for record in read_all(sample, tmp_path)[0]:
        if sample.format != "jsonl":
            schema = record.labels or {}
            assert {entity.type for entity in record.entities} <= set(schema.get("mner", ()))
            assert {relation.type for relation in record.relations} <= set(schema.get("mre", ()))
            assert {event.type for event in record.events} <= set(schema.get("med", ()))
            roles = {argument.role for event in record.events for argument in event.arguments}
            assert roles <= set(schema.get("meae", ()))


@samples
def test_records_survive_jsonl(sample: Sample, tmp_path: Path) -> None:
    records, _ = read_all(sample, tmp_path)
    write_jsonl(tmp_path / "copy.jsonl", records)
    assert list(read_jsonl(tmp_path / "copy.jsonl")) == records


@samples
def test_a_record_that_cannot_be_read_is_listed_and_the_others_are_read(sample: Sample, tmp_path: Path) -> None:
    (good, _), (records, errors) = read_all(sample, tmp_path), ([], [])
    path, options = sample.write(tmp_path, {sample.main: sample.with_broken()})
    records = list(data.read(sample.format, path, **options, on_error=errors.append))
    assert [record.text for record in records] == [record.text for record in good]
    assert [record.entities for record in records] == [record.entities for record in good]
    assert len(errors) == 1
    assert str(errors[0]).startswith(f"{path}:")
    with pytest.raises(UmieError) as caught:
        list(data.read(sample.format, path, **options))
    assert str(caught.value) == str(errors[0])


@samples
def test_a_file_that_cannot_be_opened_raises_though_errors_are_listed(sample: Sample, tmp_path: Path) -> None:
    path, options = sample.write(tmp_path)
    path.unlink()
    errors: list[UmieError] = []
    with pytest.raises(UmieError, match="cannot read: No such file or directory"):
        list(data.read(sample.format, path, **options, on_error=errors.append))
    assert errors == []


@samples
def test_a_line_that_is_not_utf8_or_too_long_costs_one_record(sample: Sample, tmp_path: Path) -> None:
    if sample.json_like or sample.format == "jsonl":  # one value; lines of their own, see tests/test_records.py
        return
    content = sample.files[sample.main]
    for bad in (b"\xff", b"x" * (3 << 20)):
        header = b"IMGID:1\n" if content.startswith(b"IMGID") else b""
        records, errors = read_all(sample, tmp_path, **{sample.main: header + bad + b"\n\n" + content})
        assert len(records) == sample.num_records
        assert len(errors) == 1
        assert f"{sample.main}:{2 if header else 1}: " in str(errors[0])


def test_each_broken_tweet_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(
        "x\tO\ny\tO\n\nIMGID:1\na\tB-NONE\nb\tB-NONE\n\nIMGID:2\n\nIMGID:../3\nc\tO\n\nIMGID:4\nd\tO\n"
    )
    errors: list[UmieError] = []
    records = list(data.read("twitter", tmp_path / "a.txt", on_error=errors.append))
    assert [record.id for record in records] == ["4"]
    lines = [str(error).removeprefix(f"{tmp_path / 'a.txt'}:").split(":")[0] for error in errors]
    assert lines == ["1", "5", "8", "10"]


def test_errors_in_other_files_are_listed_too(tmp_path: Path) -> None:
    sample = next(sample for sample in SAMPLES if sample.main == "text.json")
    pairs = b"S_1\tP_1.jpg\tJustice:Arrest-Jail\nno pair\nS_9\tP_1.jpg\tLife:Die\nS_1\tP_2.jpg\tLife:Die\n"
    records, errors = read_all(sample, tmp_path, **{"crossmedia_coref.txt": pairs})
    assert [record.id for record in records] == ["S_1:P_1", "S_2"]
    place = tmp_path / "crossmedia_coref.txt"
    assert [str(error).partition(": ")[0] for error in errors] == [f"{place}:2", f"{place}:3", f"{place}:4"]


def only_error(format_name: str, path: Path, **options: object) -> str:
    errors: list[UmieError] = []
    assert list(data.read(format_name, path, **options, on_error=errors.append)) == []
    (error,) = errors
    return str(error).removeprefix(f"{path}")


def test_texts_lines_and_names_have_limits(tmp_path: Path) -> None:
    """Limits keep time and memory linear for any file."""
    path = tmp_path / "a.txt"
    path.write_text("IMGID:1\n" + "x\tO\n" * 60_000)
    assert only_error("twitter", path) == ":50002: the text of line 1 has more than 100,000 characters: split it"
    path.write_text(repr({**PAIR, "token": ["Ann", "Lee", "joins", "NASA", "x" * 60_000]}))
    assert len(list(data.read("mnre", path))) == 1
    path.write_text(repr({**PAIR, "token": ["Ann", "Lee", "joins", "NASA", "x" * 70_000]}))
    assert only_error("mnre", path) == ":1: the line has more than 65,536 bytes: split or remove it"
    path.write_text(json.dumps({**SENTENCE, "tokens": ["x" * 100_001]}))
    assert only_error("ace", path) == ":1: the text has 100,001 characters; the limit is 100,000: split it"
    path.write_text(f"IMGID:{'é' * 130}\nx\tO\n")
    assert only_error("twitter", path).startswith(":1: the id of the image is 'ééé")
    path.write_text("IMGID:a\u2028b\nx\tO\n")
    assert only_error("twitter", path).startswith(":1: the id of the image is 'a\\u2028b': expected a single line")


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_a_line_of_just_the_allowed_length_is_read(tmp_path: Path, ending: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 10 + b"\r\n" + b"y" * 11 + b"\n" + b"z" * 10 + ending)
    lines = list(numbered_lines(path, 10))
    assert [number for number, _ in lines] == [1, 2, 3]
    assert (lines[0][1], str(lines[1][1])[:27], lines[2][1]) == ("x" * 10, "the line has more than 10 b", "z" * 10)


def plain_reader(path: str, *, images: object = None, regions: object = None) -> Iterator[Record]:
    """Read like a plugin without ``on_error``."""
    yield Record("one")
    raise UmieError(f"{path}:2: broken")


def test_a_plugin_need_not_list_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("plain", f"{__name__}:plain_reader", "umie.data")
    monkeypatch.setattr(data.registry, "_plugins", lambda: {"plain": point})
    monkeypatch.setattr(data.registry, "_parts", dict(data.registry._parts))
    errors: list[UmieError] = []
    assert [record.text for record in data.read("plain", "x", on_error=errors.append)] == ["one"]
    assert [str(error) for error in errors] == ["x:2: broken"]
    with pytest.raises(UmieError, match="x:2: broken"):
        list(data.read("plain", "x"))


def test_options_of_a_format_are_declared_by_its_reader(tmp_path: Path) -> None:
    assert data.format_options("swig") == {"mapping": "str | Path | None"}
    assert data.format_options("twitter") == {}
    assert set(data.format_options("jsonl")) == {"boxes", "offsets"}
    with pytest.raises(UmieError, match=r"Unknown swig option 'mappin'\. Did you mean 'mapping'\?"):
        data.read("swig", tmp_path / "a.json", mappin="x")
    with pytest.raises(UmieError, match="mapping is 5"):
        list(data.read("swig", tmp_path / "a.json", mapping=5))


def test_options_of_a_format_reach_its_reader(tmp_path: Path) -> None:
    sample = next(sample for sample in SAMPLES if sample.format == "swig")
    path, options = sample.write(tmp_path)
    (tmp_path / "ace_sr_mapping.txt").rename(tmp_path / "other.txt")
    assert len(list(data.read("swig", path, **options, mapping=tmp_path / "other.txt"))) == 2
    with pytest.raises(UmieError, match=r"ace_sr_mapping\.txt: no such file: put ace_sr_mapping\.txt of M2E2 there"):
        list(data.read("swig", path, **options))


def test_an_unknown_format_is_reported_at_once() -> None:
    with pytest.raises(UmieError, match="Unknown data format 'swigg'"):
        data.read("swigg", "x")


# Fuzzing: any file of a format, with changes in its bytes or its JSON.


def place(error: UmieError) -> str:
    """Return the file, and the line if any, of an error."""
    return " ".join(str(error).split(" ")[:1])


@samples
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(drawn=st.data())
def test_what_is_converted_is_valid(sample: Sample, drawn: st.DataObject) -> None:
    """Whatever a reader reads, also from a damaged file, the converted file has no error."""
    name = drawn.draw(st.sampled_from(list(sample.files)), label="file")
    content = drawn.draw(mutated(sample.files[name] * drawn.draw(st.sampled_from([1, 2]))), label="content")
    with tempfile.TemporaryDirectory() as folder:
        records, _ = read_all(sample, folder, **{name: content})
        path = Path(folder, "converted.jsonl")
        write_jsonl(path, consistent(records))
        found: list[str] = []
        if records:
            validate(
                Source(path), lambda place, finding: found.append(finding.message * finding.is_error), images=False
            )
        assert not any(found)


@samples
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(drawn=st.data())
def test_no_file_raises_anything_but_umie_error(sample: Sample, drawn: st.DataObject) -> None:
    name = drawn.draw(st.sampled_from(list(sample.files)), label="file")
    content = drawn.draw(mutated(sample.files[name]) | st.binary(max_size=60), label="content")
    with tempfile.TemporaryDirectory() as folder:
        records, errors = read_all(sample, folder, **{name: content})
        for record in records:
            assert isinstance(record, Record)
        for error in errors:
            assert isinstance(error, UmieError)
            assert str(error).startswith(folder)
            if sample.format != "jsonl":  # its messages come from umie.records
                assert len(str(error).splitlines()) == 1, str(error)
                assert len(str(error)) < 2000
        path, options = sample.write(folder, {name: content})
        before_the_first = []
        try:
            for record in data.read(sample.format, path, **options):
                before_the_first.append(record)
            assert errors == []
        except UmieError as error:
            assert place(error) == place(errors[0])
            assert sample.format == "jsonl" or str(error) == str(errors[0])  # on_error gets several errors per line
        assert before_the_first == records[: len(before_the_first)]
