"""Records and their JSONL form."""

import json
import stat
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from umie.errors import UmieError
from umie.records import (
    NO_RELATION,
    Argument,
    Entity,
    Event,
    Record,
    Region,
    Relation,
    read_jsonl,
    read_numbered_jsonl,
    record_from_json,
    record_to_json,
    write_jsonl,
)

TEXT = "Ann met Bob"
ANN, MET, BOB = (0, 3), (4, 7), (8, 11)
BOX = Region((0.0, 0.25, 0.5, 1.0), "a face")
FULL = Record(
    TEXT,
    image="1.jpg",
    regions=(BOX, Region((0.0, 0.0, 1.0, 1.0))),
    entities=(Entity("person", ANN, regions=(1, 0)),),
    relations=(Relation("peer", ANN, BOB), Relation(NO_RELATION, BOB, ANN)),
    events=(Event("meet", MET, (Argument("Entity", ANN), Argument("Entity", regions=(1,)))), Event("attack")),
    id="7",
    tasks=("mner", "mre"),
)
FULL_LINE = {
    "id": "7",
    "text": "Ann met Bob",
    "image": "1.jpg",
    "regions": [{"box": [0.0, 0.25, 0.5, 1.0], "label": "a face"}, {"box": [0.0, 0.0, 1.0, 1.0]}],
    "entities": [{"type": "person", "span": [0, 3], "text": "Ann", "regions": [1, 0]}],
    "relations": [
        {"type": "peer", "head": {"span": [0, 3], "text": "Ann"}, "tail": {"span": [8, 11], "text": "Bob"}},
        {"type": "none", "head": {"span": [8, 11], "text": "Bob"}, "tail": {"span": [0, 3], "text": "Ann"}},
    ],
    "events": [
        {
            "type": "meet",
            "trigger": {"span": [4, 7], "text": "met"},
            "arguments": [{"role": "Entity", "span": [0, 3], "text": "Ann"}, {"role": "Entity", "region": 1}],
        },
        {"type": "attack", "trigger": None, "arguments": []},
    ],
    "tasks": ["mner", "mre"],
}

LABELS = st.text(min_size=1, max_size=8).map(lambda text: text.strip() or "x")
EDGES = st.tuples(st.floats(0, 0.5), st.floats(0.5, 1, exclude_min=True))  # ascending, so that none is filtered out
REGIONS = st.builds(
    Region,
    st.builds(lambda x, y: (x[0], y[0], x[1], y[1]), EDGES, EDGES),
    st.none() | st.text(max_size=8),
)


def ascending(span: tuple[int, int]) -> tuple[int, int]:
    """Return a span from a start before the end of the text, and an end after its start."""
    start, end = span
    return span if start < end else (end - 1, start + 1)


@st.composite
def records(draw: st.DrawFn) -> Record:
    text = draw(st.text(min_size=1, max_size=30).map(lambda text: text if text.strip() else f"{text}x"))
    spans = st.tuples(st.integers(0, len(text) - 1), st.integers(1, len(text))).map(ascending)
    regions = tuple(draw(st.lists(REGIONS, max_size=3)))
    own = {"probability": st.none() | st.floats(0, 1).map(lambda value: round(value, 4))}
    fillers = st.builds(Argument, LABELS, spans, **own)
    shown = st.just(())
    if regions:
        shown |= st.lists(st.integers(0, len(regions) - 1), max_size=2).map(tuple)
        indices = st.integers(0, len(regions) - 1).map(lambda index: (index,))
        fillers |= st.builds(Argument, LABELS, st.none(), indices, **own)
    events = st.builds(Event, LABELS, st.none() | spans, st.lists(fillers, max_size=3), **own)
    return Record(
        text,
        image=draw(st.none() | st.text(max_size=8)),
        regions=regions,
        entities=tuple(draw(st.lists(st.builds(Entity, LABELS, spans, st.just(""), shown, **own), max_size=3))),
        relations=tuple(draw(st.lists(st.builds(Relation, LABELS, spans, spans, **own), max_size=3))),
        events=tuple(draw(st.lists(events, max_size=3))),
        id=draw(st.none() | st.text(max_size=8)),
        tasks=draw(st.none() | st.lists(st.sampled_from(["mner", "mre", "med", "meae"]), max_size=4).map(tuple)),
    )


def message(path: Path, content: bytes | str) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UmieError) as caught:
        list(read_jsonl(path))
    return str(caught.value)


def test_the_line_of_a_record() -> None:
    assert json.loads(record_to_json(FULL)) == FULL_LINE
    assert record_from_json(json.dumps(FULL_LINE)) == FULL


def test_empty_values_are_omitted_from_the_line() -> None:
    assert record_to_json(Record("é")) == '{"text": "é"}'
    assert record_to_json(Record("a", tasks=())) == '{"text": "a", "tasks": []}'


def test_the_old_spelling_of_the_license_key_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "licence": "CC0"}')
    (record,) = read_jsonl(path)
    assert record.license == "CC0"
    assert record_to_json(record) == '{"text": "a", "license": "CC0"}'
    assert "record has both keys 'license' and 'licence'" in message(
        path, '{"text": "a", "license": "CC0", "licence": null}'
    )
    assert "license is 5" in message(path, '{"text": "a", "licence": 5}')


def test_short_forms_of_the_line() -> None:
    line = {
        "text": TEXT,
        "id": 7,
        "relations": [{"type": "peer", "head": [0, 3], "tail": [8, 11]}],
        "events": [{"type": "meet", "trigger": [4, 7]}],
        "entities": None,
    }
    assert record_from_json(json.dumps(line)) == Record(
        TEXT, relations=(Relation("peer", ANN, BOB),), events=(Event("meet", MET),), id="7"
    )


@given(record=records())
def test_any_record_survives_its_line(record: Record) -> None:
    line = record_to_json(record)
    assert "\n" not in line
    assert record_from_json(line) == record
    assert record_to_json(record_from_json(line)) == line  # also the probabilities, which == ignores


@given(written=st.lists(records(), max_size=4))
def test_any_records_survive_a_file(written: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.jsonl")
        write_jsonl(path, written)
        read = list(read_jsonl(path))
        assert read == written
        assert all(record.image_folder == folder for record in read)


def test_blank_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\n{"text": "a"}\r\n  \n{"text": "b"}')
    assert [record.text for record in read_jsonl(path)] == ["a", "b"]
    assert message(path, '\n{"text": "a"}\n\n{"text": 5}').startswith(f"{path}:4: text is 5")


def test_the_folder_of_the_images(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [FULL])
    assert next(read_jsonl(path)).image_folder == str(tmp_path)
    assert next(read_jsonl(path, tmp_path / "images")).image_folder == str(tmp_path / "images")


LINE_ERRORS = [
    ("{", "not valid JSON: Expecting property name"),
    ("[" * 100_000, "not valid JSON: "),
    ('{"text": "a", "id": ' + "1" * 5000 + "}", "not valid JSON: "),
    ('{"text": "a", "entities": [], "entities": []}', "duplicate key 'entities' in a JSON object"),
    ('{"text": "a", "entities": [{"type": "x", "span": [0, 1], "type": "y"}]}', "duplicate key 'type'"),
    ("[1]", "record is [1]: expected a JSON object"),
    ("{}", "text is None: every record needs a non-empty text"),
    ('{"text": " "}', "text is ' ': every record needs a non-empty text"),
    ('{"text": 5}', "text is 5: every record needs a non-empty text"),
    ('{"text": "\\ud800"}', "text"),
]
FIELD_ERRORS = [
    ('"entites": []', "Unknown record key 'entites'. Did you mean 'entities'? Choices: "),
    ('"id": [1]', "id is [1]: use a string or an integer"),
    ('"id": {}', "id is {}: use a string or an integer"),
    ('"id": 1.5', "id is 1.5: use"),
    ('"id": true', "id is True: use"),
    ('"image": 5', "image is 5: use a file name, or null"),
    ('"regions": {}', "regions is {}: expected a list"),
    ('"tasks": "mner"', "tasks is 'mner': expected a list"),
    ('"regions": [5]', "region is 5: expected a JSON object"),
    ('"regions": [{}]', "region box is None: expected [x1, y1, x2, y2], relative to the image"),
    ('"regions": [{"bbox": []}]', "Unknown region key 'bbox'. Did you mean 'box'?"),
    ('"regions": [{"box": [0, 0, 1]}]', "box [0, 0, 1] must be four finite numbers x1, y1, x2, y2"),
    ('"regions": [{"box": [0, 0, 1, "1"]}]', "box [0, 0, 1, '1'] must be four finite numbers"),
    ('"regions": [{"box": [0, 0, 1, true]}]', "box [0, 0, 1, True] must be four finite numbers"),
    ('"regions": [{"box": [0, 0, 1, NaN]}]', "regions[0].box[3] is nan, which is not a number in JSON"),
    ('"regions": [{"box": [0, 0, 1, 1e999]}]', "regions[0].box[3] is inf, which is not a number in JSON"),
    ('"regions": [{"box": [0, 0, 1, 1' + "0" * 400 + "]}]", "box [0, 0, 1, 1"),
    ('"regions": [{"box": [0, 0, 640, 480]}]', "box [0, 0, 640, 480] is not inside the image: expected"),
    ('"regions": [{"box": [0.5, 0, 0.5, 1]}]', "box [0.5, 0, 0.5, 1] is not inside the image: expected"),
    ('"entities": [5]', "entity is 5: expected a JSON object"),
    ('"entities": [{"type": "x"}]', "entity is None: expected two character offsets [start, end]"),
    ('"entities": [{"span": [0, 1]}]', "entity has type None: expected a non-empty string"),
    ('"entities": [{"type": "", "span": [0, 1]}]', "entity has type '': expected a non-empty string"),
    ('"entities": [{"type": "x", "span": [0]}]', "entity is [0]: expected two character offsets"),
    ('"entities": [{"type": "x", "span": [0, 1.0]}]', "entity is [0, 1.0]: expected two character"),
    ('"entities": [{"type": "x", "span": [false, 1]}]', "entity is [False, 1]: expected two character"),
    ('"entities": [{"type": "x", "span": [1, 1]}]', "entity is [1, 1]: expected 0 <= start < end"),
    ('"entities": [{"type": "x", "span": [-1, 1]}]', "entity is [-1, 1]: expected 0 <= start < end"),
    ('"entities": [{"type": "x", "span": [0, 2]}]', "span [0, 2] is not inside the text of 1 characters"),
    (
        '"entities": [{"type": "x", "span": [0, 1], "text": "b"}]',
        "entity text 'b' differs from the text of its span [0, 1], 'a'",
    ),
    (
        '"image": "1.jpg", "regions": [{"box": [0, 0, 1, 1]}], '
        '"entities": [{"type": "x", "text": "a", "regions": [0]}]',
        "entity text 'a' has no span: add `span`, its offsets, or remove `text`",
    ),
    ('"entities": [{"type": "x", "text": "a"}]', "entity text 'a' has no span: add `span`"),
    (
        '"audio": "1.wav", "segments": [{"interval": [0, 1]}], '
        '"relations": [{"type": "x", "head": [0, 1], "tail": {"text": "a", "segments": [0]}}]',
        "relation tail text 'a' has no span",
    ),
    ('"events": [{"type": "x", "trigger": {"text": 5, "regions": [0]}}]', "event trigger text 5 has no span"),
    (
        '"events": [{"type": "x", "arguments": [{"role": "r", "text": "a", "regions": [0]}]}]',
        "argument 'r' text 'a' has no span",
    ),
    (
        '"entities": [{"type": "x", "span": [0, 1], "probability": "0.5"}]',
        "probability of the entity is '0.5': use a number >= 0 and <= 1",
    ),
    (
        '"events": [{"type": "x", "arguments": [{"role": "r", "span": [0, 1], "probability": 2}]}]',
        "probability of the argument is 2: use a number >= 0 and <= 1",
    ),
    ('"entities": [{"type": "x", "start": 0}]', "Unknown entity key 'start'"),
    ('"entities": [{"type": "x", "span": [0, 1], "regions": 1}]', "regions of entity is 1: expected a list"),
    ('"entities": [{"type": "x", "span": [0, 1], "regions": [true]}]', "entity: region True must be an index of 0"),
    (
        '"entities": [{"type": "x", "span": [0, 1], "regions": [0]}]',
        "entity 'a' refers to region 0, but the record has 0 regions (indices count from 0)",
    ),
    ('"relations": [{"type": "x"}]', "relation head is None: expected two character offsets"),
    ('"relations": [{"type": "x", "head": [0, 1]}]', "relation tail is None: expected two character"),
    ('"relations": [{"head": [0, 1], "tail": [0, 1]}]', "relation has type None: expected a non-empty string"),
    (
        '"relations": [{"type": "x", "head": [0, 1], "tail": {"span": [0, 1], "text": "b"}}]',
        "relation tail text 'b' differs from the text of its span [0, 1], 'a'",
    ),
    ('"relations": [{"type": "x", "head": [0, 1], "tail": [0, 9]}]', "span [0, 9] is not inside"),
    ('"events": [{}]', "event has type None: expected a non-empty string"),
    ('"events": [{"type": "x", "triger": 5}]', "Unknown event key 'triger'. Did you mean 'trigger'?"),
    ('"events": [{"type": "x", "trigger": 5}]', "event trigger is 5: expected two character offsets"),
    ('"events": [{"type": "x", "trigger": [0, 9]}]', "span [0, 9] is not inside the text of 1"),
    ('"events": [{"type": "x", "arguments": 5}]', "arguments is 5: expected a list"),
    ('"events": [{"type": "x", "arguments": [{}]}]', "argument has role None: expected a non-empty string"),
    (
        '"events": [{"type": "x", "arguments": [{"role": "r"}]}]',
        "argument 'r' needs a span, or a place that shows it",
    ),
    (
        '"events": [{"type": "x", "arguments": [{"role": "r", "span": [0, 1], "region": 0}]}]',
        "argument 'r' has `region` and other fillers: use `regions`, a list",
    ),
    (
        '"events": [{"type": "x", "arguments": [{"role": "r", "region": 0, "text": "a man"}]}]',
        "argument 'r' text 'a man' has no span: add `span`, its offsets, or remove `text`",
    ),
    (
        '"events": [{"type": "x", "arguments": [{"role": "r", "region": "O1"}]}]',
        "argument 'r': region 'O1' must be an index",
    ),
    (
        '"events": [{"type": "x", "arguments": [{"role": "r", "region": 0}]}]',
        "argument 'r' refers to region 0, but the record has 0 regions (indices count from 0)",
    ),
]


@pytest.mark.parametrize(
    ("line", "problem"),
    [*LINE_ERRORS, *((f'{{"text": "a", {fields}}}', problem) for fields, problem in FIELD_ERRORS)],
    ids=[problem[:60] for _, problem in LINE_ERRORS + FIELD_ERRORS],
)
def test_errors_name_file_and_line(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "a.jsonl"
    assert message(path, f'{{"text": "good"}}\n\n{line}\n').startswith(f"{path}:3: {problem}")


def test_a_byte_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    start = f"{path}:3: not UTF-8 text (invalid start byte); save the file as UTF-8"
    assert message(path, b'{"text": "a"}\n{"text": "b"}\n{"text": "\xff"}\n') == start


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UmieError) as caught:
        list(read_jsonl(tmp_path / "absent.jsonl"))
    assert str(caught.value) == f"{tmp_path / 'absent.jsonl'}: cannot read: No such file or directory"


def test_a_text_with_an_unpaired_surrogate_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UmieError):
        write_jsonl(tmp_path / "a.jsonl", [Record("\ud800")])


def test_an_image_in_memory_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("before")
    with pytest.raises(UmieError, match="holds its image in memory"):
        write_jsonl(path, [FULL, replace(FULL, image=Image.new("RGB", (2, 2)))])
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_is_readable_by_others_as_usual(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_jsonl(tmp_path / "new" / "a.jsonl", [FULL])
    usual = stat.S_IMODE((tmp_path / "usual").stat().st_mode)
    assert stat.S_IMODE((tmp_path / "new" / "a.jsonl").stat().st_mode) == usual


def test_entities_know_their_text() -> None:
    assert FULL.entities[0].text == "Ann"
    assert FULL.surface(BOB) == "Bob"
    with pytest.raises(UmieError, match="entity text 'Bob' differs from the text of its span"):
        Record(TEXT, entities=(Entity("person", ANN, "Bob"),))


@pytest.mark.parametrize(
    "wrong",
    [
        {"text": ""},
        {"text": " \n"},
        {"text": None},
        {"entities": (Entity("person", (8, 12)),)},
        {"entities": (Entity("person", ANN, regions=(0,)),)},
        {"relations": (Relation("peer", ANN, (8, 12)),)},
        {"relations": (Relation("peer", (8, 12), ANN),)},
        {"events": (Event("meet", (8, 12)),)},
        {"events": (Event("meet", MET, (Argument("Entity", (8, 12)),)),)},
        {"events": (Event("meet", MET, (Argument("Entity", regions=(0,)),)),)},
    ],
)
def test_a_record_refuses_values_that_do_not_fit_its_text(wrong: dict[str, Any]) -> None:
    with pytest.raises(UmieError):
        Record(**{"text": TEXT, **wrong})


def test_lists_become_tuples() -> None:
    record = Record(TEXT, regions=[BOX], entities=[Entity("person", [0, 3])], tasks=["mner"])  # type: ignore[arg-type]
    assert (record.regions, record.entities[0].span, record.tasks) == ((BOX,), (0, 3), ("mner",))
    assert hash(record) == hash(Record(TEXT, regions=(BOX,), entities=(Entity("person", ANN),), tasks=("mner",)))


def test_tasks_of_a_record() -> None:
    assert FULL.annotated_for("mner")
    assert not FULL.annotated_for("med")
    assert Record(TEXT).annotated_for("med")
    assert not Record(TEXT, tasks=()).annotated_for("med")


def test_the_path_of_an_image(tmp_path: Path) -> None:
    assert Record(TEXT).image_path() is None
    assert Record(TEXT, image=Image.new("RGB", (2, 2))).image_path() is None
    assert Record(TEXT, image="a/1.jpg").image_path() == Path("a/1.jpg")
    assert Record(TEXT, image=tmp_path / "1.jpg").image_path() == tmp_path / "1.jpg"
    assert Record(TEXT, image="a/../1.jpg", image_folder=str(tmp_path)).image_path() == (tmp_path / "1.jpg").resolve()


def test_an_image_may_not_be_outside_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    for image in ("../1.jpg", str(tmp_path / "1.jpg"), "link/1.jpg"):
        with pytest.raises(UmieError, match="is outside the directory"):
            Record(TEXT, image=image, image_folder=str(folder)).image_path()


def test_an_image_with_an_invalid_file_name(tmp_path: Path) -> None:
    with pytest.raises(UmieError):
        Record(TEXT, image="a\0b", image_folder=str(tmp_path)).image_path()


def test_lines_and_texts_have_a_limit(tmp_path):
    """The cost of the spans of one line is bounded, so that reading time is linear in the size of the file."""
    path = tmp_path / "long.jsonl"
    entity = {"type": "a", "span": [0, 1]}
    fits = json.dumps({"text": "a" * 100_000, "entities": [entity] * 1000})
    long_text = json.dumps({"text": "a" * 100_001})
    long_line = json.dumps({"text": "a", "entities": [entity] * 40_000})
    path.write_text("\n".join([fits, long_text, long_line]))
    errors = []
    assert [number for number, _ in read_numbered_jsonl(path, on_error=errors.append)] == [1]
    assert [str(error) for error in errors] == [
        f"{path}:2: text has 100,001 characters; the limit is 100,000: split the record",
        f"{path}:3: the line has {len(long_line):,} characters; the limit is 1,048,576: split the record",
    ]


def test_a_record_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    fits = Record("a" * 100_000)
    write_jsonl(path, [fits])
    assert list(read_jsonl(path)) == [fits]
    before = path.read_bytes()
    long_line = Record("a", entities=(Entity("a", (0, 1)),) * 40_000)
    for record, problem in ((Record("a" * 100_001), "text has 100,001 characters"), (long_line, "the line has 1,")):
        with pytest.raises(UmieError) as caught:
            write_jsonl(path, [fits, record])
        assert str(caught.value).startswith(f"{path}: record 2: {problem}")
        assert path.read_bytes() == before


def test_an_unknown_key_is_shown_on_one_line_and_shortened(tmp_path):
    path = tmp_path / "odd.jsonl"
    path.write_text('{"text": "a", "b\\u2028\\ud800": "\\ud800"}\n{"text": "a", "%s": 1}' % ("k" * 5000))
    errors = []
    assert not list(read_numbered_jsonl(path, on_error=errors.append))
    with pytest.raises(UmieError) as first:
        list(read_numbered_jsonl(path))
    assert len(errors) >= 3
    assert all(len(str(error).splitlines()) == 1 and len(str(error)) < 600 for error in [*errors, first.value])
