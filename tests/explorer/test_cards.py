"""The cards: what they say, what differs between them, and that texts from data cannot do anything in them."""

import base64
import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from umie.explorer import Answer, Example, Shown
from umie.explorer.cards import cards_of, render_cards, render_examples, render_head, render_problem
from umie.extraction import Extraction, ExtractionAnswer, Notice
from umie.records import Argument, Entity, Event, Record, Region, Relation
from umie.records.html import COLORS
from umie.records.places import Mask, Places

LABELS = {"mner": ("person", "place"), "mre": ("near", "none"), "med": ("meet",), "meae": ("Agent", "Target")}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> ${alert(3)} {{alert(4)}} javascript:alert(5)"


class Elements(HTMLParser):
    """The elements of a page, each with its attributes and the text in it."""

    def __init__(self, page):
        super().__init__()
        self.found, self.open = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append({"tag": tag, "text": "", **dict(attributes)})
        if tag not in ("img", "path"):
            self.open.append(self.found[-1])

    def handle_endtag(self, tag):
        while self.open and self.open.pop()["tag"] != tag:
            pass

    def handle_data(self, data):
        for one in self.open:
            one["text"] += data

    def of(self, name):
        """Return the elements with a class, or a tag."""
        return [one for one in self.found if name in (one.get("class") or "").split() or one["tag"] == name]

    def texts(self, name):
        return [" ".join(one["text"].split()) for one in self.of(name)]


def answer(record, name="a/best", **changes):
    given = ExtractionAnswer("mner", None, "", gate=0.5)
    warnings = changes.pop("warnings", ())
    return Answer(name, Extraction(record, tuple(warnings), answers=(given,)), ("image",), 0.25, **changes)


def drawn(*answers, annotated=None, threshold=0.0):
    return Elements(render_cards(cards_of(Shown(answers, annotated, "test.jsonl:7")), LABELS, threshold))


PERSON, PLACE = Entity("person", (0, 3)), Entity("place", (7, 11))


@pytest.fixture(scope="module")
def meeting(tmp_path_factory, noise):
    """A text and an image, with two entities, a relation between them, and an event with an argument in the image."""
    path = tmp_path_factory.mktemp("images") / "meeting.png"
    noise(200, 100).save(path)
    agent, target = Argument("Agent", (0, 3)), Argument("Target", regions=(1,))
    event = Event("meet", (12, 17), (agent, target))
    return Record(
        "Ann in Rome meets", path, (Region((0, 0, 0.2, 0.2)), Region((0.5, 0.25, 0.75, 1))),
        (PERSON, PLACE), (Relation("near", (0, 3), (7, 11)), Relation("none", (7, 11), (0, 3))), (event,),
    )  # fmt: skip


def probable(record):
    """Return the record with a probability of each item."""
    (event,) = record.events
    agent, target = (replace(one, probability=value) for one, value in zip(event.arguments, (0.6, 0.3), strict=True))
    entities = (replace(one, probability=value) for one, value in zip(record.entities, (0.9, 0.4), strict=True))
    relations = (replace(record.relations[0], probability=0.7), *record.relations[1:])
    events = (replace(event, arguments=(agent, target), probability=0.8),)
    return replace(record, entities=tuple(entities), relations=relations, events=events)


def test_text_boxes_and_table(meeting):
    page = drawn(answer(probable(meeting)))
    assert page.texts("mark") == ["Ann person 0.90 Agent 0.60", "Rome place 0.40", "meets meet 0.80"]
    assert page.texts("ux-text") == ["Ann person 0.90 Agent 0.60 in Rome place 0.40 meets meet 0.80"]
    unused, used = page.of("ux-box")
    assert "ux-unused" in unused["class"]
    assert (used["text"].split(), used["data-items"].split()) == (["Target", "0.30", "O2"], ["3"])
    style = "left: 50.00%; top: 25.00%; width: 25.00%; height: 75.00%"
    assert used["style"].startswith(style)
    rows = [row for row in page.texts("tr") if row]
    assert rows[1:] == [
        "person Ann 0.90", "place Rome 0.40", "near Ann → Rome 0.70", "meet meets 0.80", "Agent Ann 0.60",
        "Target O2 0.30",
    ]  # fmt: skip
    assert page.texts("footer")[0].startswith("gate: mner 0.50 · 0.25 s")


def test_a_relation_is_in_the_text_only_without_entities(meeting):
    bare = Record(meeting.text, relations=meeting.relations)
    assert drawn(answer(bare)).texts("mark") == ["Ann near (head)", "Rome near (tail)"]


def test_labels_keep_their_colors(meeting):
    def colors(page):
        return {one["text"].split()[0]: one["style"] for one in page.of("ux-chip")}

    every = colors(drawn(answer(meeting)))
    for kind in ("entities", "relations", "events"):
        part = Record(meeting.text, meeting.image, meeting.regions, **{kind: getattr(meeting, kind)})
        found = colors(drawn(answer(part)))
        assert found == {name: every[name] for name in found} != {}
    assert len({every[name] for name in ("meet", "Agent", "Target")}) == 3
    assert all(style.removeprefix("--own: ") in COLORS for style in every.values())
    new = Record(meeting.text, entities=(Entity("not in the schema", (0, 3)),))
    assert colors(drawn(answer(new)))["not"].removeprefix("--own: ") in COLORS


def test_the_threshold_hides_items(meeting):
    page = drawn(answer(probable(meeting)), threshold=0.65)
    rows = [row for row in page.texts("tr") if row]
    assert rows[1:] == ["person Ann 0.90", "near Ann → Rome 0.70", "meet meets 0.80"]
    assert "3 below the threshold" in page.texts("ux-note")
    assert "ux-unused" in page.of("ux-box")[1]["class"]
    assert drawn(answer(meeting), threshold=1.0).texts("tr") == drawn(answer(meeting)).texts("tr")  # without any


def test_the_threshold_does_not_hide_the_annotation():
    annotated = Record("Ann", entities=(Entity("person", (0, 3), probability=0.3),))
    found = Record("Ann", entities=(Entity("person", (0, 3), probability=0.9),))
    assert marks(drawn(answer(found), annotated=annotated, threshold=0.5)) == [["✓"], ["✓"]]


def test_an_unlikely_event_is_hidden_with_its_arguments(meeting):
    (event,) = meeting.events
    likely = tuple(replace(one, probability=0.9) for one in event.arguments)
    events = (replace(event, arguments=likely, probability=0.2),)
    page = drawn(answer(Record(meeting.text, meeting.image, meeting.regions, events=events)), threshold=0.5)
    assert "Nothing was found." in page.texts("ux-note")


def marks(page):
    """Return the marks of each card."""
    found = []
    for one in page.found:
        if one["tag"] == "article":
            found.append([])
        if "ux-mark" in (one.get("class") or ""):
            found[-1].append(one["text"])
    return found


def test_items_of_one_variant_and_annotated_ones_are_marked():
    first = Record("Ann in Rome", entities=(PERSON, PLACE))
    second = Record("Ann in Rome", entities=(PERSON, Entity("person", (7, 11))))
    assert marks(drawn(answer(first), answer(second, name="b/best"))) == [["only here"], ["only here"]]
    assert marks(drawn(answer(first), annotated=first)) == [["✓", "✓"], ["✓", "✓"]]
    assert marks(drawn(answer(second), annotated=first)) == [["✓", "✗"], ["✓", "missed"]]
    both = drawn(answer(first), answer(second, name="b/best"), annotated=first)
    assert marks(both) == [["✓", "✓", "only here"], ["✓", "✗", "only here"], ["✓", "missed by b/best"]]
    assert drawn(answer(first), annotated=first).texts("h2") == ["a/best", "Annotation: test.jsonl:7"]


def test_an_item_is_the_same_wherever_it_is_seen(meeting):
    """As for `umie explain`, the region of an item with words does not count."""
    seen = Record(meeting.text, meeting.image, meeting.regions, (Entity("person", (0, 3), regions=(1,)),))
    assert marks(drawn(answer(seen), annotated=Record(meeting.text, entities=(PERSON,)))) == [["✓"], ["✓"]]


def test_the_json_has_no_paths(meeting):
    page = drawn(answer(probable(meeting)))
    (text,) = page.of("pre")
    written = json.loads(text["text"])
    assert written["image"] == "meeting.png"
    assert written["entities"][0]["probability"] == 0.9
    assert '"box": [ 0.5, 0.25, 0.75, 1.0 ]' in text["text"]
    (link,) = page.of("a")
    assert (link["download"], json.loads(base64.b64decode(link["href"].partition(",")[2]))) == ("a-best.json", written)
    assert str(meeting.image).rpartition("/")[0] not in "".join(str(one) for one in page.found)


def test_several_images(meeting, tmp_path, noise):
    noise(30, 30).save(tmp_path / "other.png")
    regions = (Region((0, 0, 0.2, 0.2)), Region((0.5, 0.5, 1, 1), image=1))
    seen = Entity("person", (0, 3), regions=(1,))
    record = Record("Ann", meeting.image, regions, (seen,), more_images=(tmp_path / "other.png",))
    page = drawn(answer(record))
    assert [one["alt"] for one in page.of("img")] == ["meeting.png", "other.png"]
    assert [("ux-used" in one["class"]) for one in page.of("ux-box")] == [False, True]
    assert json.loads(page.of("pre")[0]["text"])["images"] == ["meeting.png", "other.png"]


def test_the_mask_of_a_region_is_drawn(meeting):
    mask = Mask((2, 4), (0, 4, 4))
    page = drawn(answer(Record("Ann", meeting.image, (Region((0, 0, 0.5, 1), mask=mask),))))
    (layer,) = page.of("ux-mask")
    assert layer["src"].startswith("data:image/png;base64,")


def test_numbers_are_joined_only_outside_of_strings():
    record = Record("[\n1,\n2 ]", entities=(Entity("[ 1, 2 ]", (0, 3)),))
    (text,) = drawn(answer(record)).of("pre")
    written = json.loads(text["text"])
    assert (written["text"], written["entities"][0]["type"]) == ("[\n1,\n2 ]", "[ 1, 2 ]")


def test_an_image_that_is_gone_and_a_variant_that_does_not_look(meeting, tmp_path):
    gone = Record("Ann", tmp_path / "gone.png")
    (problem,) = drawn(answer(gone)).texts("ux-problem")
    assert problem.endswith("gone.png: no such image")
    blind = Answer("b", Extraction(meeting), (), 0.0)
    page = drawn(blind)
    assert page.of("figure") == page.of("img") == []


def test_warnings_and_a_fixed_gate(meeting):
    page = drawn(answer(meeting, gate=0.25, warnings=[Notice("image", "it was not used")]))
    assert page.texts("ux-warning") == ["it was not used"]
    assert page.texts("footer")[0].startswith("gate fixed at 0.25 · 0.25 s")


def test_whether_the_image_mattered(explorer, form_of):
    for number in range(3):
        shown = explorer.ask(form_of(number, explained=True))
        explanation = shown.answers[0].explanation
        page = Elements(render_cards(cards_of(shown), explorer.labels))
        changed, total = explanation.counts("without")
        (section,) = page.texts("ux-explanation")
        assert f"{changed} of {total} items" in section
        views = explanation.extractions
        bold = sum(one.changed(view) for one in explanation.decisions for view in views)
        assert len(page.of("ux-changed")) == bold


def test_hostile_texts_are_only_shown(tmp_path, noise):
    noise(20, 20).save(tmp_path / "a.png")
    entity = Entity(HOSTILE, (0, len(HOSTILE)), regions=(0,))
    event = Event(HOSTILE, None, (Argument(HOSTILE, regions=(0,)),), regions=(0,))
    relation = Relation(HOSTILE, (0, 3), None, tail_places=Places(regions=(0,)))
    region = Region((0, 0, 0.5, 0.5), HOSTILE)
    record = Record(HOSTILE, tmp_path / "a.png", (region,), (entity,), (relation,), (event,), id=HOSTILE)
    pages = [
        render_cards(cards_of(Shown((answer(record, name=HOSTILE),), record, HOSTILE)), {"mner": (HOSTILE,)}),
        render_examples([Example(HOSTILE, record)]),
        render_problem(HOSTILE),
    ]
    for page in pages:
        elements = Elements(page)
        assert not elements.of("script")
        assert {one["src"].partition(",")[0] for one in elements.of("img")} <= {"data:image/png;base64"}
        assert all(one["href"].startswith("data:application/json;base64,") for one in elements.of("a"))
        assert not [name for one in elements.found for name in one if name.startswith("on")]
        assert HOSTILE in "".join(str(one) for one in (*elements.texts("article"), *elements.texts("button"),
                                                       *elements.texts("p")))  # fmt: skip


def test_control_characters_are_escaped():
    assert "\\u202e" in render_problem("a\u202eb")


def test_the_head_names_the_variants(gated, blind):
    assert Elements(render_head([gated])).texts("h1") == ["gated/best"]
    page = Elements(render_head([gated, blind]))
    assert page.texts("h1") == ["gated/best against random/best"]
    assert page.texts("p") == ["gated/best: tiny + gated + spanrandom/best: text_only + span"]
