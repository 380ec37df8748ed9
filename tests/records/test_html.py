"""Records in notebooks: every character of the text once, every item, and nothing that is not escaped."""

import re
from html import unescape
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from umie.extraction import Extraction, Notice
from umie.records import Argument, Entity, Event, Record, Region, Relation

HOSTILE = "<script>alert(1)</script> & 'Ann' \"met\" Bob"


class Balanced(HTMLParser):
    """Checks that tags are closed in order, and keeps the text of the first paragraph."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.is_over, self.tags = [], "", False, set()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.is_over |= tag == "p"

    def handle_data(self, data):
        self.text += "" if self.is_over else data


def parsed(record):
    page = Balanced()
    page.feed(record._repr_html_())
    assert not page.open
    return page


def test_items_are_listed_and_hostile_text_is_escaped():
    record = Record(
        HOSTILE,
        "<img src=x>.png",
        (Region((0, 0, 1, 1)),),
        entities=(Entity("<b>", (29, 32)), Entity("thing", regions=(0,))),
        relations=(Relation("peer", (29, 32), (40, 43)), Relation("none", (40, 43), (29, 32))),
        events=(Event("meet", (35, 38), (Argument("agent", (29, 32), regions=(0,)),)), Event("attack")),
    )
    page = parsed(record)
    assert page.text == HOSTILE
    assert page.tags == {"div", "p", "mark", "small", "table", "thead", "tbody", "tr", "th", "td"}
    rows = re.findall(r"<tr><td>(\w+)</td><td[^>]*>(.*?)</td><td>(.*?)</td>", record._repr_html_())
    assert [tuple(map(unescape, row)) for row in rows] == [
        ("entity", "<b>", "Ann"),
        ("entity", "thing", "O1"),
        ("relation", "peer", "Ann \u2013 Bob"),
        ("event", "meet", "met"),
        ("argument", "agent", "Ann O1"),
        ("event", "attack", "(not in the text)"),
    ]
    assert "no items" in Record("nothing")._repr_html_()


def test_an_extraction_has_probabilities_and_warnings():
    found = Extraction(
        Record("Ann", entities=(Entity("person", (0, 3), probability=0.25),)), (Notice("image", "<not> used"),)
    )
    assert "<th>probability</th>" in found._repr_html_() and "<td>0.25</td>" in found._repr_html_()
    assert "probability" not in Record("Ann", entities=(Entity("person", (0, 3)),))._repr_html_()
    assert "&lt;not&gt; used" in found._repr_html_()


@given(
    st.text(min_size=1, max_size=20).filter(str.strip),
    st.lists(st.tuples(st.integers(0, 19), st.integers(1, 20)), max_size=6),
)
def test_the_text_is_whole_with_any_spans(text, spans):
    kept = [(start, min(end, len(text))) for start, end in spans if start < min(end, len(text))]
    entities = tuple(Entity("ab"[number % 2], span) for number, span in enumerate(dict.fromkeys(kept)))
    try:
        record = Record(text, entities=entities)
    except ValueError:
        return  # no text that a record can have
    page = Balanced()
    page.feed(record._repr_html_().replace("\r", "").replace("\x00", ""))
    assert page.text == text.replace("\r", "").replace("\x00", "")
