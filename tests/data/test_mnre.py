"""The mnre format on small files."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie.data import registry
from umie.errors import UmieError
from umie.records import NO_RELATION, Record, Relation

LINE: dict[str, Any] = {
    "token": ["RT", ":", "Star", "Fox", "joins", "Starlink", "!"],
    "h": {"name": "Star Fox", "pos": [2, 4]},
    "t": {"name": "Starlink", "pos": [5, 6]},
    "img_id": "7.jpg",
    "relation": "/per/org/member_of",
}
RELATION_VALUES = ["/per/org/member_of", "None", "none", "/org/org/alternate_names", "", "/"]


def changed(**fields: object) -> str:
    return repr({**LINE, **fields})


def without(key: str) -> str:
    return repr({name: value for name, value in LINE.items() if name != key})


def read(folder: Path, content: str | bytes, **options: object) -> list[Record]:
    path = folder / "ours_val.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    records = registry.build("mnre", path=path, **options)
    return [replace(record, source=None, license=None, labels=None) for record in records]  # test_notes.py covers them


def test_a_line_is_a_record_with_one_relation(tmp_path: Path) -> None:
    assert read(tmp_path, f"{LINE}\n") == [
        Record(
            text="RT : Star Fox joins Starlink !",
            relations=(Relation("member of", (5, 13), (20, 28)),),
            id="ours_val:1",
            tasks=("mre",),
        )
    ]


def test_lines_are_numbered_in_the_file_and_blank_ones_passed_over(tmp_path: Path) -> None:
    records = read(tmp_path, f"\ufeff{LINE}\r\n\n  {LINE}")
    assert [record.id for record in records] == ["ours_val:1", "ours_val:3"]


def test_the_image_is_named_only_where_a_folder_is_given(tmp_path: Path) -> None:
    (without_image,) = read(tmp_path, repr(LINE))
    (with_image,) = read(tmp_path, repr(LINE), images=tmp_path)
    assert (without_image.image, without_image.image_folder) == (None, None)
    assert with_image.image_path() == (tmp_path / "7.jpg").resolve()


def test_a_number_names_the_image_without_its_ending(tmp_path: Path) -> None:
    (record,) = read(tmp_path, changed(img_id=71532), images=tmp_path)
    assert record.image == "71532.jpg"


@pytest.mark.parametrize(
    ("relation", "label"),
    [
        ("/per/org/member_of", "member of"),
        ("/per/loc/place_of_residence", "place of residence"),
        ("/per/per/peer", "peer"),
        ("/per/per/alternate_names", "alternate names"),
        ("/org/org/alternate_names", "organization alternate names"),
        ("none", NO_RELATION),
        ("None", NO_RELATION),
        ("held_on", "held on"),
    ],
)
def test_relation_names(tmp_path: Path, relation: str, label: str) -> None:
    (record,) = read(tmp_path, changed(relation=relation))
    assert record.relations[0].type == label


@pytest.mark.parametrize(
    ("line", "num_labels"),
    [
        ({**LINE}, 23),  # img_id before relation: version 2
        ({key: LINE[key] for key in ("token", "h", "t", "relation", "img_id")}, 31),
        ({**LINE, "relation": "/per/per/colleague"}, None),
        ({**LINE, "relation": "None"}, 23),
    ],
    ids=["version 2", "version 1", "a label of neither", "none"],
)
def test_the_schema_is_that_of_the_version(tmp_path: Path, line: dict[str, Any], num_labels: int | None) -> None:
    path = tmp_path / "train.txt"
    path.write_text(repr(line))
    (record,) = registry.build("mnre", path=path)
    assert (None if record.labels is None else len(set(record.labels["mre"]))) == num_labels


def test_a_name_may_differ_from_the_tokens_in_spaces(tmp_path: Path) -> None:
    tail = {"name": "can't stop", "pos": [0, 4]}
    (record,) = read(tmp_path, changed(token=["can", "'", "t", "stop", "x"], h={"name": "x", "pos": [4, 5]}, t=tail))
    assert record.surface(record.relations[0].tail) == "can ' t stop"


def test_other_fields_are_passed_over(tmp_path: Path) -> None:
    assert read(tmp_path, changed(caption="a star", entity=[1])) == read(tmp_path, repr(LINE))


def test_literals_are_read_and_code_is_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    line = f"__import__('pathlib').Path({str(trap)!r}).touch()"
    with pytest.raises(UmieError, match=r"ours_val\.txt:1: .* is not a Python dict of literal values"):
        read(tmp_path, line)
    assert not trap.exists()


def test_reads_one_record_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text(f"{LINE}\nbroken\n")
    records = registry.build("mnre", path=path)
    assert next(records).id == "train:1"
    with pytest.raises(UmieError):
        next(records)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{'token': [", "\"{'token': [\" is not a Python dict of literal values: expected one per line"),
        ("{[]: 1}", "'{[]: 1}' is not a Python dict of literal values"),
        ("-" * 20000 + "1", "'-----"),
        ("[" * 20000, "'[[[[["),
        ("[1, 2]", "'[1, 2]' is not a Python dict: expected one per line"),
        (without("token"), "the line has no field 'token'"),
        (without("relation"), "the line has no field 'relation'"),
        (without("h"), "the line has no field 'h'"),
        (without("t"), "the line has no field 't'"),
        (changed(token="Star Fox"), "field 'token' of the line is 'Star Fox': expected a list"),
        (changed(token=[]), "there are no tokens: every record needs a text"),
        (changed(token=["a", 5]), "token 1 is 5: expected a non-empty string"),
        (changed(token=["a", ""]), "token 1 is '': expected a non-empty string"),
        (changed(token=["\ud800"]), "the text contains an unpaired surrogate at character 0"),
        (changed(h=[2, 4]), "field 'h' of the line is [2, 4]: expected an object with named fields"),
        (changed(h={"name": "Star Fox"}), "the head 'h' has no field 'pos'"),
        (changed(h={"pos": [2, 4]}), "the head 'h' has no field 'name'"),
        (changed(t={"name": "x", "pos": 5}), "field 'pos' of the tail 't' is 5: expected a list"),
        (
            changed(t={"name": "x", "pos": [5]}),
            "field 'pos' of the tail 't' is [5]: expected two token offsets",
        ),
        (
            changed(t={"name": "x", "pos": ["5", 6]}),
            "the tail 't' is at ['5', 6]: expected two token offsets",
        ),
        (
            changed(t={"name": "x", "pos": [True, 6]}),
            "the tail 't' is at [True, 6]: expected two token offsets",
        ),
        (
            changed(t={"name": "x", "pos": [6, 8]}),
            "the tail 't' is at tokens [6, 8] of 7: expected 0 <= start",
        ),
        (changed(t={"name": "x", "pos": [3, 3]}), "the tail 't' is at tokens [3, 3] of 7: expected"),
        (changed(t={"name": "x", "pos": [-1, 1]}), "the tail 't' is at tokens [-1, 1] of 7: expected"),
        (
            repr(LINE).replace("[5, 6]", "[0x" + "f" * 5000 + ", 6]"),  # too long for a decimal string
            "the tail 't' is at tokens <list> of 7",
        ),
        (
            changed(t={"name": "Star", "pos": [5, 6]}),
            "the tail 't' is named 'Star', but its tokens are 'Starlink': fix one of them",
        ),
        (changed(relation=5), "field 'relation' of the line is 5: expected a non-empty string"),
        (changed(relation="/per/"), "relation is '/per/': expected a path such as '/per/org/member_of', or 'None'"),
        (b"{'token': ['\xff']}", "not UTF-8 text (invalid start byte); save the file as UTF-8"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, line: str | bytes, problem: str) -> None:
    content = f"{LINE}\n\n".encode() + (line.encode() if isinstance(line, str) else line)
    with pytest.raises(UmieError) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(f"{tmp_path / 'ours_val.txt'}:3: {problem}")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (changed(img_id="../7.jpg"), "img_id is '../7.jpg': expected a file name without directories"),
        (changed(img_id=True), "field 'img_id' of the line is True: expected a non-empty string"),
        (without("img_id"), "the line has no field 'img_id'"),
    ],
)
def test_errors_in_the_name_of_an_image(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(UmieError) as caught:
        read(tmp_path, line, images=tmp_path)
    assert str(caught.value) == f"{tmp_path / 'ours_val.txt'}:1: {problem}"


def test_regions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UmieError, match="'mnre' has no separate region files; leave regions out"):
        read(tmp_path, repr(LINE), regions=tmp_path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UmieError) as caught:
        list(registry.build("mnre", path=tmp_path / "absent.txt"))
    assert str(caught.value) == f"{tmp_path / 'absent.txt'}: cannot read: No such file or directory"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "pos", "x"]), inner),
    max_leaves=5,
)
MENTIONS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a", "a b", "b", ""]),
        "pos": st.lists(st.integers(-1, 4), min_size=2, max_size=2),
    }
)
LINES = st.fixed_dictionaries(
    {
        "token": st.just(["a", "b", "c"]) | VALUES,
        "h": MENTIONS | VALUES,
        "t": MENTIONS | VALUES,
        "img_id": st.just("7.jpg") | VALUES,
        "relation": st.sampled_from(RELATION_VALUES) | VALUES,
    }
).map(lambda line: repr(line).encode(errors="surrogatepass"))


@given(st.binary(max_size=60) | LINES)
def test_no_bytes_raise_anything_but_umie_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.txt")
        path.write_bytes(data)
        try:
            records = list(registry.build("mnre", path=path, images=folder))
        except UmieError as error:
            assert str(error).startswith(f"{path}:")
        else:
            assert all(len(record.relations) == 1 for record in records)
