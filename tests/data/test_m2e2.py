"""The m2e2 format on small files."""

import copy
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from umie.data import registry
from umie.errors import UmieError
from umie.records import Argument, Event, Record, Region

SENTENCES: list[dict[str, Any]] = [
    {
        "sentence_id": "S_1",
        "words": ["Police", "held", "two", "men", "in", "Rome", "after", "a", "march", "."],
        "golden-event-mentions": [
            {
                "event_type": "Justice:Arrest-Jail",
                "trigger": {"start": 1, "end": 2, "text": "held"},
                "arguments": [
                    {"role": "Person", "start": 2, "end": 4, "text": "two men"},
                    {"role": "Place", "start": 5, "end": 6},
                ],
            },
            {"event_type": "Conflict:Demonstrate", "trigger": {"start": 8, "end": 9}, "arguments": []},
        ],
        "image": ["P_1.jpg", "P_2.jpg"],
    },
    {"sentence_id": "S_2", "words": ["Nothing", "."], "golden-event-mentions": [], "image": []},
]
PAIRS = "S_1\tP_1.jpg\tJustice:Arrest-Jail\nS_1\tP_2.jpg\tConflict:Demonstrate"
IMAGES: dict[str, Any] = {
    "P_1": {
        "role": {
            "Person": [["1", 20, 10, 60, 50], ["0", 0, 0, 201, 100]],
            "Agent": [["1", 100, 0, 200, 100]],
        },
        "event_type": "Justice:Arrest-Jail",
    },
    "P_2": {"role": {"Entity": [["1", 1, 1, 10, 10]]}, "event_type": "Contact:Meet"},
}
TEXT = "Police held two men in Rome after a march ."
ARREST = Event("arrest jail", (7, 11), (Argument("Person", (12, 19)), Argument("Place", (23, 27))))
MARCH = Event("demonstrate", (36, 41))


def write(
    folder: Path,
    sentences: Any = SENTENCES,
    pairs: str | None = PAIRS,
    images: Any = IMAGES,
    size: Any = (200, 100),
) -> Path:
    path = folder / "text_multimedia_event.json"
    path.write_text(json.dumps(sentences))
    if pairs is not None:
        (folder / "crossmedia_coref.txt").write_text(pairs)
    if images is not None:
        (folder / "image_multimedia_event.json").write_text(json.dumps(images))
    if size is not None:
        Image.new("RGB", size).save(folder / "P_1.jpg")
    return path


def read(path: Path, **options: object) -> list[Record]:
    records = registry.build("m2e2", path=path, **options)
    return [replace(record, source=None, license=None, labels=None) for record in records]  # test_notes.py covers them


def message(path: Path, **options: object) -> str:
    with pytest.raises(UmieError) as caught:
        read(path, **options)
    return str(caught.value)


def changed(change: str, value: object) -> list[dict[str, Any]]:
    """Return the sentences with one place changed, e.g. '0.words' or 'EVENT.trigger' of the first event."""
    sentences = copy.deepcopy(SENTENCES)
    keys = change.replace("EVENT", "0.golden-event-mentions.0").split(".")
    *parents, last = (int(key) if key.isdigit() else key for key in keys)
    target: Any = sentences
    for key in parents:
        target = target[key]
    if value is KeyError:
        del target[last]
    else:
        target[last] = value
    return sentences


def test_one_record_for_each_pair_and_for_a_sentence_without_one(tmp_path: Path) -> None:
    records = read(write(tmp_path))
    assert records == [
        Record(TEXT, events=(ARREST, MARCH), id="S_1:P_1", tasks=("med", "meae")),
        Record(TEXT, events=(ARREST, MARCH), id="S_1:P_2", tasks=("med", "meae")),
        Record("Nothing .", id="S_2", tasks=("med", "meae")),
    ]


def test_boxes_become_arguments_of_the_event_of_the_pair(tmp_path: Path) -> None:
    record = read(write(tmp_path), images=tmp_path)[0]
    visual = (Argument("Person", regions=(0,)), Argument("Person", regions=(1,)), Argument("Agent", regions=(2,)))
    assert record.regions == (
        Region((0.1, 0.1, 0.3, 0.5), "instance"),
        Region((0.0, 0.0, 1.0, 1.0), "union"),
        Region((0.5, 0.0, 1.0, 1.0), "instance"),
    )
    assert record.events == (Event("arrest jail", (7, 11), (*ARREST.arguments, *visual)), MARCH)
    assert record.image_path() == (tmp_path / "P_1.jpg").resolve()


def test_boxes_of_an_image_annotated_for_another_event_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path)
    Image.new("RGB", (50, 50)).save(tmp_path / "P_2.jpg")
    record = read(path, images=tmp_path)[1]
    assert (record.image, record.regions, record.events) == ("P_2.jpg", (), (ARREST, MARCH))


def test_an_image_that_is_not_there_leaves_no_regions(tmp_path: Path) -> None:
    records = read(write(tmp_path, size=None), images=tmp_path)
    assert [(record.image, record.regions) for record in records] == [
        ("P_1.jpg", ()),
        ("P_2.jpg", ()),
        (None, ()),
    ]
    assert records[0].events == (ARREST, MARCH)


def test_boxes_are_relative_to_the_image_as_displayed(tmp_path: Path) -> None:
    path = write(tmp_path, size=None)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter: stored 100 x 200, displayed 200 x 100
    Image.new("RGB", (100, 200)).save(tmp_path / "P_1.jpg", exif=exif)
    assert read(path, images=tmp_path)[0].regions[0].box == (0.1, 0.1, 0.3, 0.5)


def test_other_files_may_be_missing(tmp_path: Path) -> None:
    path = write(tmp_path, pairs=None, images=None)
    assert [record.id for record in read(path, images=tmp_path)] == ["S_1", "S_2"]
    (tmp_path / "crossmedia_coref.txt").write_text(PAIRS)
    record = read(path, images=tmp_path)[0]
    assert (record.id, record.image, record.regions) == ("S_1:P_1", "P_1.jpg", ())


def test_pairs_of_another_file_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, pairs="T_1\tP_1.jpg\tContact:Meet\n")
    assert [record.id for record in read(path)] == ["S_1", "S_2"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Justice:Arrest-Jail", "arrest jail"),
        ("Contact:Meet", "meet"),
        ("Conflict:Attack", "attack"),
        ("Movement:Transport", "transport"),
        ("Conflict:Demonstrate", "demonstrate"),
        ("Contact:Phone-Write", "phone write"),
        ("Life:Die", "die"),
        ("Transaction:Transfer-Money", "transfer"),
    ],
)
def test_event_names_are_the_papers(tmp_path: Path, name: str, label: str) -> None:
    path = write(tmp_path, changed("0.golden-event-mentions.1.event_type", name), pairs=None)
    assert read(path)[0].events[1].type == label


def write_images(folder: Path, name: str = "image_only_event.json", images: Any = IMAGES) -> Path:
    path = folder / name
    path.write_text(json.dumps(images))
    Image.new("RGB", (200, 100)).save(folder / "P_1.jpg")
    return path


def test_an_image_may_be_named_with_its_ending(tmp_path: Path) -> None:
    images = {"P_2.heic": next(iter(IMAGES.values()))}
    (record,) = read(write_images(tmp_path, images=images), images=tmp_path)
    assert record.image == "P_2.heic"


@pytest.mark.parametrize("name", ["image_only_event.json", "image_multimedia_event.json"])
def test_an_image_without_text_is_an_event_without_trigger(tmp_path: Path, name: str) -> None:
    there, missing = read(write_images(tmp_path, name), images=tmp_path)
    visual = (Argument("Person", regions=(0,)), Argument("Person", regions=(1,)), Argument("Agent", regions=(2,)))
    assert there == Record(
        "",
        image="P_1.jpg",
        regions=(
            Region((0.1, 0.1, 0.3, 0.5), "instance"),
            Region((0.0, 0.0, 1.0, 1.0), "union"),
            Region((0.5, 0.0, 1.0, 1.0), "instance"),
        ),
        events=(Event("arrest jail", None, visual),),
        id="P_1",
        tasks=("med", "meae"),
    )
    assert there.image_path() == (tmp_path / "P_1.jpg").resolve()
    # its boxes cannot be placed, so that it says nothing of arguments
    assert missing == Record("", image="P_2.jpg", events=(Event("meet"),), id="P_2", tasks=("med",))


def test_images_without_texts_require_their_folder(tmp_path: Path) -> None:
    path = write_images(tmp_path)
    assert message(path) == f"{path}: annotates images without texts: specify images, the directory of the images"


@pytest.mark.parametrize(
    ("stem", "image", "problem"),
    [
        ("../P_1", {}, "../P_1: the image is '../P_1': expected a file name without directories"),
        ("P_1", 5, "P_1: the image is 5: expected an object with the field 'event_type'"),
        ("P_1", {"event_type": "Life:Die", "role": {"Victim": [["1", 1, 1, 300, 9]]}}, "P_1: role 'Victim': box [1, 1"),
        (
            "P_1",
            {"event_type": "Life:Die", "role": {"Victim": [["2", 1, 1, 3, 9]]}},
            "P_1: role 'Victim': flag is '2': expected '1' (an instance) or '0' (the union)",
        ),
    ],
)
def test_errors_in_an_image_without_text_name_file_and_image(
    tmp_path: Path, stem: str, image: Any, problem: str
) -> None:
    path = write_images(tmp_path, images={"P_0": IMAGES["P_2"], stem: image})
    assert message(path, images=tmp_path).startswith(f"{path}: {problem}")


@pytest.mark.parametrize(
    ("change", "value", "problem"),
    [
        ("1.sentence_id", KeyError, "sentence 1 (counted from 0): the sentence has no field 'sentence_id'"),
        ("1.sentence_id", 5, "sentence 1 (counted from 0): field 'sentence_id' of the sentence is 5: expected"),
        ("1.sentence_id", "", "sentence 1 (counted from 0): field 'sentence_id' of the sentence is '': expected"),
        ("1", "text", "sentence 1 (counted from 0): the sentence is 'text': expected an object with the field"),
        ("0.words", KeyError, "S_1: the sentence has no field 'words'"),
        ("0.words", "Police", "S_1: field 'words' of the sentence is 'Police': expected a list"),
        ("0.words", [], "S_1: there are no tokens: every record needs a text"),
        ("0.words.1", None, "S_1: token 1 is None: expected a non-empty string"),
        (
            "0.golden-event-mentions",
            KeyError,
            "S_1: the sentence has no field 'golden-event-mentions'",
        ),
        ("EVENT", 7, "S_1: the event is 7: expected an object with the field 'event_type'"),
        ("EVENT.event_type", "A:", "S_1: event type is 'A:': expected a name such as"),
        ("EVENT.trigger", KeyError, "S_1: the event 'arrest jail' has no field 'trigger'"),
        ("EVENT.trigger.end", 11, "S_1: the trigger of 'arrest jail' is at tokens [1, 11] of 10"),
        ("EVENT.trigger.end", KeyError, "S_1: the trigger of 'arrest jail' is at [1, None]"),
        ("EVENT.trigger.text", "men", "S_1: the trigger of 'arrest jail' is named 'men', but"),
        ("EVENT.trigger.text", 5, "S_1: the trigger of 'arrest jail' is named 5, but its tokens are"),
        ("EVENT.arguments", None, "S_1: field 'arguments' of the event 'arrest jail' is None"),
        ("EVENT.arguments.0.role", KeyError, "S_1: the argument has no field 'role'"),
        ("EVENT.arguments.0.role", "\ud800", "S_1: field 'role' of the argument contains an unpaired"),
        ("EVENT.arguments.0.start", 4, "S_1: the argument 'Person' is at tokens [4, 4] of 10"),
        ("EVENT.arguments.0.start", "2", "S_1: the argument 'Person' is at ['2', 4]: expected"),
    ],
)
def test_errors_in_a_sentence_name_file_and_sentence(tmp_path: Path, change: str, value: object, problem: str) -> None:
    path = write(tmp_path, changed(change, value))
    assert message(path).startswith(f"{path}: {problem}")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            "S_1 P_1.jpg Life:Die",
            "'S_1 P_1.jpg Life:Die' is not a pair: expected sentence<TAB>image<TAB>event type",
        ),
        (
            "S_1\t../P_1.jpg\tLife:Die",
            "the image is '../P_1.jpg': expected a file name without directories",
        ),
        ("S_1\tP_1.jpg\tLife:", "event type is 'Life:': expected a name such as 'Justice:Arrest-Jail'"),
        ("S_9\tP_1.jpg\tLife:Die", "there is no sentence S_9: add it, or remove the pair"),
        ("S_2\tP_1.jpg\tLife:Die", "the sentence S_2 has no event of type 'die'"),
        (
            "S_1\tP_9.jpg\tConflict:Demonstrate",
            "the image P_9 is not in image_multimedia_event.json: add it",
        ),
    ],
)
def test_errors_in_a_pair_name_file_and_line(tmp_path: Path, line: str, problem: str) -> None:
    path = write(tmp_path, pairs=f"{PAIRS}\n\n{line}")
    assert message(path, images=tmp_path).startswith(f"{tmp_path / 'crossmedia_coref.txt'}:4: {problem}")


def test_a_pair_that_is_not_utf8(tmp_path: Path) -> None:
    path = write(tmp_path, pairs=None)
    (tmp_path / "crossmedia_coref.txt").write_bytes(f"{PAIRS}\n".encode() + b"\xff")
    assert message(path).startswith(f"{tmp_path / 'crossmedia_coref.txt'}:3: not UTF-8 text")


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (5, "P_1: the image is 5: expected an object with the field 'event_type'"),
        ({"role": {}}, "P_1: the image has no field 'event_type'"),
        ({"event_type": "Justice:Arrest-Jail"}, "P_1: the image has no field 'role'"),
        ({"Person": 5}, "P_1: field 'Person' of the image's roles is 5: expected a list"),
        ({"\ud800": []}, "P_1: a role contains an unpaired surrogate at character 0"),
        ({"Person": [5]}, "P_1: role 'Person': box is 5: expected [flag, x1, y1, x2, y2]"),
        (
            {"Person": [[1, 2, 3, 4]]},
            "P_1: role 'Person': box is [1, 2, 3, 4]: expected [flag, x1, y1, x2, y2]",
        ),
        ({"Person": [["1", 1, 1, 9, "9"]]}, "P_1: role 'Person': box is ['1', 1, 1, 9, '9']: expected"),
        ({"Person": [["1", 1, 1, 9, True]]}, "P_1: role 'Person': box is ['1', 1, 1, 9, True]: expected"),
        (
            {"Person": [["1", 1, 1, 203, 9]]},
            "P_1: role 'Person': box [1, 1, 203, 9] is outside the image of 200 x 100",
        ),
        ({"Person": [["1", 9, 1, 9, 9]]}, "P_1: role 'Person': box [9, 1, 9, 9] has no area"),
        ({"Person": [["1", 1, 1, 9, 10**400]]}, "P_1: role 'Person': box [1, 1, 9, 1000"),
        ({"Person": [["1", 1, 1, 9, float("nan")]]}, "P_1: role 'Person': box [1, 1, 9, nan] is outside"),
    ],
)
def test_errors_in_an_image_name_file_and_image(tmp_path: Path, image: Any, problem: str) -> None:
    if isinstance(image, dict) and not image.keys() & {"role", "event_type"}:
        image = {"role": image, "event_type": "Justice:Arrest-Jail"}
    path = write(tmp_path, images={**IMAGES, "P_1": image})
    assert message(path, images=tmp_path).startswith(f"{tmp_path / 'image_multimedia_event.json'}: {problem}")


def test_errors_in_whole_files_name_them(tmp_path: Path) -> None:
    path = tmp_path / "text_multimedia_event.json"
    assert message(path).startswith(f"{path}: cannot read: No such file or directory")
    for content, problem in [
        (b"", "not valid JSON: Expecting value"),
        (b"[1,", "not valid JSON: Expecting value"),
        (b"[" * 100_000, "not valid JSON: "),
        (b"1" * 5000, "not valid JSON: "),
        (b"\xff", "not UTF-8 text (invalid start byte); save the file as UTF-8"),
        (b"5", "is 5: expected a list of sentences or an object of images"),
    ]:
        path.write_bytes(content)
        assert message(path).startswith(f"{path}: {problem}")
    write(tmp_path, images=[1])
    assert message(path, images=tmp_path) == (
        f"{tmp_path / 'image_multimedia_event.json'}: is [1]: expected an object with one entry per image"
    )


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, size=None)
    (tmp_path / "P_1.jpg").write_bytes(b"no image")
    assert message(path, images=tmp_path).startswith(f"{tmp_path / 'P_1.jpg'}: not a readable image (")


def test_a_mistyped_folder_of_images_is_not_taken_for_missing_images(tmp_path: Path) -> None:
    assert message(write(tmp_path), images=tmp_path / "imags") == (
        f"{tmp_path / 'imags'}: no such directory; use an existing one as images, or leave it out"
    )


def test_regions_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert message(path, regions=tmp_path) == (
        f"{path}: the format 'm2e2' has no separate region files; leave regions out"
    )


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


def with_boxes(value: object) -> dict[str, Any]:
    return {**IMAGES, "P_1": {**IMAGES["P_1"], "role": {"Person": value}}}


PLACES = [
    "0", "0.words", "0.sentence_id", "0.golden-event-mentions", "EVENT", "EVENT.event_type", "EVENT.trigger",
    "EVENT.trigger.start", "EVENT.arguments", "EVENT.arguments.0", "EVENT.arguments.0.end",
]  # fmt: skip


@given(
    st.binary(max_size=40)
    | (VALUES | VALUES.map(with_boxes)).map(json.dumps).map(str.encode)
    | st.builds(changed, st.sampled_from(PLACES), VALUES).map(json.dumps).map(str.encode),
    st.just(PAIRS.encode()) | st.binary(max_size=40),
    VALUES | VALUES.map(with_boxes),
)
def test_no_bytes_raise_anything_but_umie_error(sentences: bytes, pairs: bytes, images: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), pairs=None, images=images)
        path.write_bytes(sentences)
        Path(folder, "crossmedia_coref.txt").write_bytes(pairs)
        try:
            records = read(path, images=folder)
        except UmieError as error:
            assert str(error).startswith(folder)
        else:
            assert all(record.tasks and record.tasks[0] == "med" for record in records)
