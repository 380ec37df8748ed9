"""Copies of known versions are identified by content, not by form."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from umie.audit.fingerprints import BUCKETS, compare, fingerprint, known_versions, to_json
from umie.data.source import Source
from umie.errors import UmieError
from umie.records import Argument, Entity, Event, Places, Record, Region, Relation, Segment

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
REAL = {
    "Twitter-15 train (UMT)": ("twitter", "twitter2015/train.txt"),
    "Twitter-15 valid (UMT)": ("twitter", "twitter2015/valid.txt"),
    "Twitter-17 train (UMT)": ("twitter", "twitter2017/train.txt"),
    "Twitter-17 valid (UMT)": ("twitter", "twitter2017/valid.txt"),
    "Twitter-17 test (UMT)": ("twitter", "twitter2017/test.txt"),
    "MNRE-1 train": ("mnre", "mnre_v1/ours_train.txt"),
    "MNRE-1 val": ("mnre", "mnre_v1/ours_val.txt"),
    "MNRE-2 train": ("mnre", "mnre_v2/train.txt"),
    "MNRE-2 val": ("mnre", "mnre_v2/val.txt"),
    "MNRE-2 test": ("mnre", "mnre_v2/test.txt"),
    "GMNER v2 train": ("twitter", "gmner/txt/train.txt"),
    "GMNER v2 dev": ("twitter", "gmner/txt/dev.txt"),
    "M2E2 multimedia pairs": ("m2e2", "m2e2/text_multimedia_event.json"),
}


def test_items_without_a_span_are_not_part_of_a_version():
    """They depend on media that may be missing, as arguments in images do; mixed with spans, they can be sorted."""
    shown = {"audio": "a.wav", "segments": (Segment((0, 1)),)}
    heard = {"head_places": Places(segments=(0,)), "tail_places": Places(segments=(0,))}
    record = replace(tweet(1), **shown)
    more = replace(
        record,
        entities=(Entity("person", segments=(0,)), *record.entities),
        relations=(Relation("peer", None, None, **heard), Relation("peer", (0, 1), None, **heard), *record.relations),
    )
    parts = ("texts", "annotated")
    one, other = fingerprint([record]), fingerprint([more])
    assert [getattr(one, part) for part in parts] == [getattr(other, part) for part in parts]


def tweet(number):
    text = f"Person {number} met Bob"
    start = text.index("met")
    return Record(
        text,
        entities=(Entity("person", (0, start - 1)), Entity("person", (start + 4, len(text)))),
        relations=(Relation("peer", (0, start - 1), (start + 4, len(text))),),
        events=(Event("meet", (start, start + 3), (Argument("Entity", (0, start - 1)), Argument("Person", (0, 6)))),),
        id=str(number),
    )


RECORDS = [tweet(number) for number in range(600)]
KNOWN = fingerprint(RECORDS, "known")


def relation_to_known(records):
    (result,) = compare(fingerprint(records), [KNOWN])
    return result


def spaced(record):
    """Return the record with every space doubled, as after another tokenizer."""

    def move(span):
        return tuple(place + record.text[:place].count(" ") for place in span)

    return Record(
        record.text.replace(" ", "  "),
        entities=[Entity(entity.type, move(entity.span)) for entity in record.entities],
        relations=[Relation(item.type, move(item.head), move(item.tail)) for item in record.relations],
        events=[
            Event(event.type, move(event.trigger), [Argument(item.role, move(item.span)) for item in event.arguments])
            for event in record.events
        ],
    )


def with_image(record):
    image = Argument("Place", regions=(0,))
    events = tuple(replace(event, arguments=(*event.arguments, image)) for event in record.events)
    return replace(record, image="1.jpg", regions=(Region((0, 0, 1, 1)),), events=events, id=None, source="elsewhere")


@pytest.mark.parametrize(
    "records",
    [
        random.Random(0).sample(RECORDS, len(RECORDS)),
        [replace(record, entities=record.entities[::-1]) for record in RECORDS],
        [spaced(record) for record in RECORDS],
        [with_image(record) for record in RECORDS],
    ],
    ids=["another order", "entities in another order", "other spaces", "images, ids and sources"],
)
def test_copies_are_the_same(records):
    result = relation_to_known(records)
    assert (result.verdict, result.texts, result.annotations, result.labels) == ("same", 0, 0, {})


def edited(record):
    return replace(record, entities=(Entity("place", record.entities[0].span), *record.entities[1:]))


@pytest.mark.parametrize("number", [1, 20, 150])
def test_edited_labels(number):
    result = relation_to_known([edited(record) for record in RECORDS[:number]] + RECORDS[number:])
    assert (result.verdict, result.texts, result.shared) == ("edited labels", 0, 1.0)
    assert result.annotations == pytest.approx(number, rel=0.15)
    assert result.labels == {"mner": {"person": (1200, 1200 - number), "place": (0, number)}}


@pytest.mark.parametrize(
    "change",
    [
        lambda record: replace(record, relations=()),
        lambda record: replace(record, events=()),
        lambda record: replace(record, entities=(Entity("person", (0, 6)), *record.entities[1:])),
        lambda record: replace(record, events=(replace(record.events[0], arguments=()),)),
        lambda record: replace(record, events=(replace(record.events[0], trigger=None),)),
    ],
    ids=["relation", "event", "span", "arguments", "trigger"],
)
def test_every_part_of_the_annotation_counts(change):
    result = relation_to_known([change(RECORDS[0]), *RECORDS[1:]])
    assert (result.verdict, result.annotations) == ("edited labels", 1)


def test_edited_texts():
    result = relation_to_known(RECORDS[10:])
    assert (result.verdict, result.texts) == ("edited texts", pytest.approx(10, abs=2))
    result = relation_to_known([Record("a new text"), *RECORDS])
    assert (result.verdict, result.texts, result.annotations) == ("edited texts", 1, 1)


def test_a_part_of_a_version_overlaps_with_it():
    more = [tweet(number) for number in range(6000)]
    (result,) = compare(fingerprint(more), [KNOWN])
    assert (result.verdict, result.texts, result.annotations) == ("overlap", None, None)
    assert result.shared > 0.5


def test_other_texts_are_no_version():
    assert compare(fingerprint(Record(f"unheard of {number}") for number in range(600)), [KNOWN]) == []
    assert compare(fingerprint([]), [KNOWN]) == []


def test_the_closest_comes_first():
    part, other = fingerprint(RECORDS[5:], "part"), fingerprint([edited(RECORDS[0]), *RECORDS[1:]], "edited")
    found = compare(fingerprint(RECORDS), [part, other, KNOWN])
    assert [item.name for item in found] == ["known", "edited", "part"]


def test_a_table_survives_its_file(tmp_path):
    path = tmp_path / "versions.json"
    path.write_text(to_json([KNOWN, fingerprint([], "empty")]))
    assert known_versions(path) == [KNOWN, fingerprint([], "empty")]


def test_a_fingerprint_holds_no_text():
    assert "Bob" not in to_json([KNOWN])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("{}", "expected a list of fingerprints"),
        ("[5]", "entry 0: is 5: expected an object with name"),
        ('[{"name": "x"}]', "entry 0: is {'name': 'x'}: expected an object with name"),
        ('[{"nane": "x"}]', "entry 0: key 'nane'. Did you mean 'name'?"),
    ],
)
def test_bad_tables(tmp_path, content, message):
    path = tmp_path / "versions.json"
    path.write_text(content)
    with pytest.raises(UmieError) as caught:
        known_versions(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(("field", "value"), [("text_buckets", "?"), ("smallest", 5), ("annotation_buckets", "AAAA")])
def test_bad_entries(tmp_path, field, value):
    path = tmp_path / "versions.json"
    (entry,) = json.loads(to_json([KNOWN]))
    path.write_text(json.dumps([entry | {field: value}]))
    with pytest.raises(UmieError, match=f"entry 0: {field}"):
        known_versions(path)


def test_the_table_of_the_library():
    table = known_versions()
    assert sorted(item.name for item in table) == sorted(REAL)
    assert sum(item.records for item in table) > BUCKETS


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_the_real_files_are_the_known_versions(name):
    if not DATA.exists():
        pytest.skip(f"the real data are not at {DATA}")
    format_name, path = REAL[name]
    best, *_ = compare(fingerprint(Source(DATA / path, format_name).named()), known_versions())
    assert (best.name, best.verdict) == (name, "same"), "rebuild it as in docs/data.md if a reader changed on purpose"
