"""Files for brat, CoNLL and Label Studio, read back."""

import json
import re

import defusedxml.ElementTree
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie import data
from umie.data.exports import export
from umie.errors import UmieError
from umie.records import Argument, Entity, Event, Record, Region, Relation, write_jsonl

ANN, BOB, ROME = (0, 3), (8, 11), (15, 19)
RECORD = Record(
    "Ann met Bob in Rome\n& left",
    "a.jpg",
    (Region((0.1, 0.2, 0.5, 0.9)), Region((0.5, 0.0, 1.0, 1.0), image=0)),
    entities=(
        Entity("person", ANN, regions=(0,)), Entity("person", BOB), Entity("big place", ROME),
        Entity("dog", regions=(1,)),
    ),
    relations=(Relation("peer of", ANN, BOB), Relation("none", BOB, ANN), Relation("in", BOB, (22, 26))),
    events=(
        Event("meet", (4, 7), (Argument("Agent", ANN), Argument("Agent", ROME), Argument("Tool", regions=(1,)))),
        Event("attack", None, (Argument("Target", BOB),)),
    ),
    id="r1",
)  # fmt: skip


def test_brat(tmp_path):
    counts = export([RECORD, Record("nothing")], tmp_path / "b", "brat")
    assert counts == {
        "records": 2, "entities": 3, "entities left out": 1, "relations": 2, "events": 1, "events left out": 1,
        "arguments": 2, "arguments left out": 2,
    }  # fmt: skip
    text = (tmp_path / "b" / "000001.txt").read_text()
    assert text == "Ann met Bob in Rome & left\n"  # a span may not cross lines
    lines = [line.split("\t") for line in (tmp_path / "b" / "000001.ann").read_text().splitlines()]
    marks = {}
    for name, where, *words in lines:
        if name[0] == "T":
            kind, start, end = where.split()
            assert text[int(start) : int(end)] == words[0]
            marks[name] = kind, words[0]
    relations = [re.split("[ :]", where) for name, where in (line[:2] for line in lines) if name[0] == "R"]
    assert [(one[0], marks[one[2]], marks[one[4]]) for one in relations] == [
        ("peer_of", ("person", "Ann"), ("person", "Bob")),
        ("in", ("person", "Bob"), ("mention", "left")),
    ]
    (event,) = (where for name, where in (line[:2] for line in lines) if name[0] == "E")
    trigger, *roles = (one.split(":") for one in event.split())
    assert (trigger[0], marks[trigger[1]]) == ("meet", ("meet", "met"))
    assert [(role, marks[mark][1]) for role, mark in roles] == [("Agent", "Ann"), ("Agent2", "Rome")]
    assert (tmp_path / "b" / "records.tsv").read_text() == "000001\tr1\ta.jpg\n000002\t\t\n"
    config = (tmp_path / "b" / "annotation.conf").read_text()
    assert "big_place" in config.split("[relations]")[0]
    assert "peer_of\tArg1:<ANY>, Arg2:<ANY>" in config
    assert (tmp_path / "b" / "000002.ann").read_text() == ""


def test_label_studio(tmp_path):
    counts = export([RECORD], tmp_path / "t.json", "label-studio")
    assert (counts["entities"], counts["entities left out"], counts["relations"]) == (4, 0, 2)
    (task,) = json.loads((tmp_path / "t.json").read_text())
    assert task["data"] == {"text": RECORD.text, "image": "a.jpg", "id": "r1"}
    results = task["predictions"][0]["result"]
    marks = {one["id"]: one for one in results if "id" in one}
    for one in marks.values():
        value = one["value"]
        if one["type"] == "labels":
            assert RECORD.text[value["start"] : value["end"]] == value["text"]
    boxes = [one["value"] for one in marks.values() if one["type"] == "rectanglelabels"]
    assert [box["x"] for box in boxes if box["rectanglelabels"] == ["person"]] == [pytest.approx(10)]
    related = {
        (marks[one["from_id"]]["value"].get("text"), one["labels"][0], marks[one["to_id"]]["value"].get("text"))
        for one in results
        if one["type"] == "relation"
    }
    assert {
        ("Ann", "peer of", "Bob"),
        ("met", "Agent", "Ann"),
        ("met", "Tool", None),
        ("Ann", "shown by", None),
    } <= related
    view = defusedxml.ElementTree.parse(tmp_path / "t.xml").getroot()
    named = {kind: {one.get("value") for one in view.find(kind)} for kind in ("Labels", "RectangleLabels", "Relations")}
    assert named["Labels"] >= {"person", "big place", "meet"}
    assert named["RectangleLabels"] == {"person", "dog", "Tool"}
    assert named["Relations"] >= {"peer of", "Agent", "shown by"}
    export([Record("no image", id="x")], tmp_path / "u.json", "label-studio", url="/files/")
    assert json.loads((tmp_path / "u.json").read_text())[0]["data"] == {"text": "no image", "image": "", "id": "x"}
    assert "<Image" not in (tmp_path / "u.xml").read_text()
    export([RECORD], tmp_path / "u.json", "label-studio", url="/files/?d=", overwrite=True)
    assert json.loads((tmp_path / "u.json").read_text())[0]["data"]["image"] == "/files/?d=a.jpg"


@given(st.data())
def test_conll_is_read_back(tmp_path_factory, data_of):
    folder = tmp_path_factory.mktemp("c")
    words = data_of.draw(st.lists(st.text("abé1", min_size=1, max_size=4), min_size=1, max_size=8))
    text, spans = "", []
    for word in words:
        spans.append((len(text), len(text) + len(word)))
        text += word + data_of.draw(st.sampled_from([" ", ", ", "  "]))
    chosen = data_of.draw(st.lists(st.tuples(st.integers(0, len(words) - 1), st.integers(0, 3)), max_size=4))
    entities, used = [], set()
    for first, more in chosen:
        covered = set(range(first, min(first + more + 1, len(words))))
        if not covered & used:
            used |= covered
            entities.append(Entity(data_of.draw(st.sampled_from("AB")), (spans[first][0], spans[max(covered)][1])))
    record = Record(text.strip(), entities=tuple(sorted(entities, key=lambda one: one.span)))
    counts = export([record], folder / "c.txt", "conll")
    assert counts["entities"] == len(entities)
    (read,) = data.read("conll", folder / "c.txt")

    def said(one):
        return [(item.type, "".join(one.surface(item.span).split())) for item in one.entities]

    assert said(read) == said(record)


def test_an_entity_inside_another_one_and_inside_a_word(tmp_path):
    record = Record("Newcastle United", entities=(Entity("club", (0, 16)), Entity("city", (0, 9))))
    assert export([record, Record("unhappy", entities=(Entity("mood", (2, 7)),))], tmp_path / "c", "conll") == {
        "records": 2, "entities": 2, "entities left out": 1, "relations left out": 0, "events left out": 0,
    }  # fmt: skip
    assert (tmp_path / "c").read_text() == "Newcastle\tB-club\nUnited\tI-club\n\nun\tO\nhappy\tB-mood\n\n"


def test_nothing_else_is_replaced(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").touch()
    (tmp_path / "t.xml").touch()
    for name, form, message in (
        ("own", "brat", "thesis.txt is not a file that brat was given"),
        ("t.xml", "brat", "it is not a file that brat was given"),
        ("own", "conll", "is a directory"),
        ("u.xml", "label-studio", "the labeling interface is written to this name"),
    ):
        with pytest.raises(UmieError, match=message):
            export([RECORD], tmp_path / name, form, overwrite=True)
    with pytest.raises(UmieError, match=r"t.xml exists"):
        export([RECORD], tmp_path / "t.json", "label-studio")
    assert (tmp_path / "own" / "thesis.txt").exists()
    for _ in range(2):
        export([RECORD], tmp_path / "b", "brat", overwrite=True)


def test_what_a_form_cannot_say_is_counted(tmp_path):
    record = Record("Ann  hi", entities=(Entity("a\tb", (0, 3)), Entity("blank", (3, 5))), events=(Event("meet"),))
    assert export([record], tmp_path / "c", "conll") == {
        "records": 1, "entities": 1, "entities left out": 1, "relations left out": 0, "events left out": 1,
    }  # fmt: skip
    assert (tmp_path / "c").read_text() == "Ann\tB-a_b\nhi\tO\n\n"
    boxes = (Region((0, 0, 1, 1)), Region((0, 0, 1, 1), image=1))
    two = Record(
        "Ann", "a.jpg", boxes, more_images=("b.jpg",), entities=(Entity("person", (0, 3), regions=(0, 1)),) * 2
    )
    counts = export([two], tmp_path / "l.json", "label-studio")
    assert counts["boxes left out"] == 2
    (task,) = json.loads((tmp_path / "l.json").read_text())
    assert sum(one["type"] == "relation" for one in task["predictions"][0]["result"]) == 1


def test_the_command(umie, tmp_path):
    write_jsonl(tmp_path / "r.jsonl", [RECORD])
    for form in ("conll", "brat", "label-studio"):
        code, out, err = umie("data", "export", "-i", tmp_path / "r.jsonl", "--to", form, "-o", tmp_path / form)
        assert code == 0, err
        assert "records: 1" in out
    for arguments, message in (
        (("--to", "brat", "-o", tmp_path / "brat"), "exists: use another --output, or --overwrite"),
        (("--to", "xml", "-o", tmp_path / "x"), "--to is 'xml': use one of conll, brat, label-studio"),
        (("--to", "conll", "-o", tmp_path / "r.jsonl", "--overwrite"), "r.jsonl"),
    ):
        code, _, err = umie("data", "export", "-i", tmp_path / "r.jsonl", *arguments)
        assert (code, message in err) == (2, True), err
    code, _, err = umie(
        "data", "export", "-i", tmp_path / "r.jsonl", "--to", "brat", "-o", tmp_path / "brat", "--overwrite"
    )
    assert code == 0, err
    with pytest.raises(UmieError, match="--to is"):
        export([RECORD], tmp_path / "y", "yaml")
