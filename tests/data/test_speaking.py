"""umie data speak: the segments of mentions and of other words, and files of records with speech."""

import ctypes.util
import importlib.util
import random

import numpy as np
import pytest
from PIL import Image

from umie.data.speaking import spoken_record, without_text
from umie.media import open_sound
from umie.media.speech import SpokenWord
from umie.records import (
    Argument,
    Entity,
    Event,
    Places,
    Record,
    Region,
    Relation,
    read_jsonl,
    record_from_json,
    record_to_json,
    write_jsonl,
)  # fmt: skip
from umie.records.notes import collected_notes

TEXT = "so Ann Lee met old Bob of Rome today :"
ANN, MET, BOB, OLD_BOB, ROME, COLON = (3, 10), (11, 14), (19, 22), (15, 22), (26, 30), (37, 38)
STARTS = {word: TEXT.index(word) for word in TEXT.split()[:-1]}
WORDS = [
    SpokenWord((start, start + len(word)), (number + 0.1, number + 0.9))
    for number, (word, start) in enumerate(STARTS.items())
]
needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None and ctypes.util.find_library("espeak-ng") is None,
    reason="espeak-ng is not installed: pip install espeakng-loader",
)


@pytest.fixture
def record():
    return Record(
        TEXT,
        image="1.png",
        regions=(Region((0, 0, 0.5, 1)),),
        entities=(
            Entity("person", ANN, regions=(0,)), Entity("person", BOB), Entity("person", OLD_BOB),
            Entity("location", ROME), Entity("other", COLON), Entity("dog", regions=(0,)),
        ),
        relations=(Relation("peer", ANN, BOB), Relation("none", ANN, COLON)),
        events=(
            Event("meet", MET, (Argument("Agent", ANN), Argument("Place", regions=(0,)), Argument("Sign", COLON))),
            Event("eat", None),
        ),
    )  # fmt: skip


def heard(record, places):
    return [record.segments[index].interval for index in places.segments]


def test_mentions_are_segments_and_the_other_words_are_groups_of_two(record):
    with collected_notes() as notes:
        spoken = spoken_record(record, "a/1.wav", WORDS)
    assert spoken.audio == "a/1.wav"
    ann, met, bob, old_bob, rome = (1.1, 2.9), (3.1, 3.9), (5.1, 5.9), (4.1, 5.9), (7.1, 7.9)
    others = [(0.1, 0.9), (6.1, 6.9), (8.1, 8.9)]  # so; of; today
    assert [segment.interval for segment in spoken.segments] == sorted([ann, met, bob, old_bob, rome, *others])
    assert [heard(spoken, entity.places) for entity in spoken.entities] == [[ann], [bob], [old_bob], [rome], [], []]
    assert [entity.regions for entity in spoken.entities] == [(0,), (), (), (), (), (0,)]
    peer, none = spoken.relations
    assert [heard(spoken, places) for places in (peer.head_places, peer.tail_places)] == [[ann], [bob]]
    assert (heard(spoken, none.head_places), none.tail_places) == ([ann], Places())
    meet, eat = spoken.events
    assert (heard(spoken, meet.places), eat.places) == ([met], Places())
    assert [heard(spoken, argument.places) for argument in meet.arguments] == [[ann], [], []]
    assert sum(notes.values()) == 3  # the colon, as an entity, a tail and an argument
    assert record_from_json(record_to_json(spoken)) == spoken


def test_labels_are_what_the_segments_say(record):
    spoken = spoken_record(record, "1.wav", WORDS, labels=True)
    said = {segment.interval: segment.label for segment in spoken.segments}
    assert (said[1.1, 2.9], said[3.1, 3.9], said[6.1, 6.9]) == ("Ann Lee", "met", "of")
    for entity in spoken.entities:
        for index in entity.segments:
            assert spoken.segments[index].label.split() == entity.text.split()
    assert not any(segment.label for segment in spoken_record(record, "1.wav", WORDS).segments)


@pytest.mark.parametrize(("group", "expected"), [(1, 9), (2, 5), (3, 3), (100, 1)])
def test_groups_of_other_words(group, expected):
    spoken = spoken_record(Record(TEXT), "1.wav", WORDS, group=group)
    assert len(spoken.segments) == expected
    assert spoken.segments[0].interval == (0.1, min(group, 9) - 0.1)
    assert spoken.segments[-1].interval[1] == 8.9


def test_a_mention_inside_a_word_and_two_mentions_of_one_word():
    text = "#AnnBob!"
    record = Record(text, entities=(Entity("person", (1, 4)), Entity("person", (4, 7))))
    spoken = spoken_record(record, "1.wav", [SpokenWord((0, 7), (0.0, 1.0))])
    assert [entity.segments for entity in spoken.entities] == [(0,), (0,)]
    assert len(spoken.segments) == 1


def test_shuffled_segments_are_those_of_the_same_mentions(record):
    plain = spoken_record(record, "1.wav", WORDS)
    orders = set()
    for seed in range(10):
        spoken = spoken_record(record, "1.wav", WORDS, shuffle=random.Random(seed))
        orders.add(spoken.segments)
        assert sorted(spoken.segments, key=lambda segment: segment.interval) == sorted(
            plain.segments, key=lambda segment: segment.interval
        )
        for one, other in zip(spoken.entities, plain.entities, strict=True):
            assert heard(spoken, one.places) == heard(plain, other.places)
    assert len(orders) > 5


def test_without_a_text_the_places_are_the_whole_answer(record):
    spoken = spoken_record(record, "1.wav", WORDS)
    bare = without_text(spoken)
    assert (bare.text, bare.combination) == ("", "I+A")
    assert [(entity.type, entity.span, entity.text) for entity in bare.entities] == [
        *[("person", None, "")] * 3, ("location", None, ""), ("dog", None, "")
    ]  # fmt: skip
    assert [entity.places for entity in bare.entities[:4]] == [entity.places for entity in spoken.entities[:4]]
    (peer,) = bare.relations
    assert (peer.head, peer.tail, peer.head_places) == (None, None, spoken.relations[0].head_places)
    meet, eat = bare.events
    assert [argument.role for argument in meet.arguments] == ["Agent", "Place"]
    assert (meet.trigger, meet.segments, eat.places) == (None, spoken.events[0].segments, Places())


@needs_espeak
@pytest.mark.parametrize("options", [[], ["--drop-text", "--shuffle-segments", "--rate", "250"]])
def test_records_are_spoken_into_a_folder_with_their_images(umie, tmp_path, monkeypatch, record, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "images" / "1.png")
    said = [record, Record("...", id="7"), Record("Rome again", entities=(Entity("location", (0, 4)),), id="x/../y")]
    write_jsonl("train.jsonl", said)
    code, out, err = umie("data", "speak", "train.jsonl", "--images", "images", "--output", "spoken", *options)
    assert code == 0
    assert "left out: record 7: nothing of its text is said" in err
    found = list(read_jsonl("spoken/train.jsonl"))
    assert out == f"2 records, {sum(len(one.segments) for one in found)} segments in spoken/train.jsonl\n"
    assert [one.audio for one in found] == ["train/1.wav", "train/3.wav"]
    assert [one.text for one in found] == (["", ""] if options else [TEXT, "Rome again"])
    with Image.open(found[0].path("image")) as image:
        assert image.getpixel((0, 0)) == (255, 0, 0)
    for one in found:
        sound = open_sound(one.path("audio"))
        loud = np.zeros(len(sound.samples), bool)
        for segment in one.segments:
            first, last = (round(second * sound.rate) for second in segment.interval)
            assert np.abs(sound.samples[first:last]).max() > 0.05
            loud[first:last] = True
        assert np.abs(sound.samples[~loud]).sum() < 1e-3 * np.abs(sound.samples).sum()
    assert umie("data", "validate", "spoken/train.jsonl")[0] == 0
    again = (tmp_path / "spoken" / "train.jsonl").read_bytes()
    command = ("data", "speak", "train.jsonl", "--images", "images", "--output", "spoken", *options)
    code, _, err = umie(*command)
    assert (code, err) == (2, "umie: spoken/train.jsonl: exists: use another --output, or --overwrite to replace it\n")
    assert umie(*command, "--overwrite")[0] == 0
    assert (tmp_path / "spoken" / "train.jsonl").read_bytes() == again


@needs_espeak
@pytest.mark.parametrize(
    ("line", "arguments", "message"),
    [
        ('{"text": "Ann", "audio": "1.wav", "id": "7"}', [], "record 7: has a sound, 1.wav"),
        (
            '{"text": "Ann", "gold": {}, "id": "7"}',
            [],
            "record 7: its places are proposed (it has gold): use speak before",
        ),
        ('{"text": "Ann", "gold": {}, "id": "7"}', ["--drop-text"], "record 7: its places are proposed"),
        ('{"text": "Ann", "image": "no.png", "id": "7"}', [], "no.png: no such image"),
        ('{"text": "Ann", "image": "../no.png", "id": "7"}', [], "../no.png: is outside the directory"),
        ('{"text": "..."}', [], "d.jsonl: espeak-ng says nothing of its texts"),
        ('{"text": "Ann"}', ["--voice", "none"], "Unknown voice 'none'"),
        ('{"text": "Ann"}', ["--rate", "9"], "rate is 9: use 80 to 450 words per minute"),
        ('{"text": "Ann"}', ["--output", "."], "d.jsonl: is the input"),
    ],
)
def test_bad_input_is_one_line(umie, tmp_path, monkeypatch, line, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.jsonl").write_text(line + "\n")
    code, out, err = umie(
        "data", "speak", "d.jsonl", *(arguments if "--output" in arguments else ["-o", "o", *arguments])
    )
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert not (tmp_path / "o").exists()
