"""Long texts: read in windows, whose items are merged."""

import dataclasses
from functools import partial

import hypothesis.strategies as st
import pytest
from hypothesis import given

from umie.errors import UmieError
from umie.extraction import Extractor
from umie.extraction.result import Extraction
from umie.extraction.windows import OVERLAP, SHORTEST, InputRoom, Window, in_window, merged, shifted, windows_of
from umie.grounders import Grounder
from umie.grounders.base import GrounderConfig
from umie.records import Argument, Entity, Event, Record, Region, Relation

TEXTS = st.one_of(
    [
        st.text(st.sampled_from(alphabet), max_size=2000)
        for alphabet in ("ab. \n中あ!?", "中あ。", "ab-/.", "a  \n\u00a0")
    ]
)


def fits_in(limit):
    return lambda text: len(text) <= limit


@given(TEXTS, st.integers(140, 1500))
def test_windows_cover_a_text_once_and_overlap(text, limit):
    windows = windows_of(text, fits_in(limit))
    edges = [0, *(edge for one in windows for edge in (one.first, one.last)), len(text)]
    assert edges == sorted(edges)
    assert not any(text[end:start].strip() for end, start in zip(edges[::2], edges[1::2], strict=True))  # white space
    for one in windows:
        assert 0 <= one.start <= one.first <= one.last <= one.end <= len(text)
        own = text[one.first : one.last].encode()
        assert one.end - one.start <= limit or len(own) < SHORTEST
        reach = min(OVERLAP, (one.last - one.first) // 2) // 2
        assert len(windows) == 1 or one.end - one.last >= min(reach, len(text) - one.last)
        assert len(windows) == 1 or one.first - one.start >= min(reach, one.first)
        assert len(windows) == 1 or text[one.first : one.last].strip()
    assert len(windows) == 1 or len(text) > limit


@given(TEXTS.filter(str.strip), st.data())
def test_each_item_belongs_to_one_window_and_comes_back(text, data):
    windows = windows_of(text, fits_in(data.draw(st.integers(140, 700))))

    def span():
        start = data.draw(st.integers(0, len(text) - 1))
        return (start, data.draw(st.integers(start + 1, min(len(text), start + 15))))

    spans = [one for one in (span(), span()) if text[slice(*one)].strip()]
    entities = tuple(Entity("a", one) for one in dict.fromkeys(spans))
    events = (*(Event("c", one.span) for one in entities[:1]), Event("f"))
    pairs = (Relation("e", entities[0].span, entities[1].span),) if len(entities) == 2 else ()
    annotated = [dataclasses.replace(one, arguments=[Argument("d", span) for span in spans]) for one in events]
    record = Record(text, entities=entities, events=annotated, relations=pairs)
    parts = [(window, in_window(record, window, windows[:place])) for place, window in enumerate(windows)]
    asked = [shifted(one, window.start) for window, part in parts for one in part.relations]
    assert asked == [one for one in pairs if any(window.contains(one) for window in windows)]  # once
    assert not pairs or not any(part.entities for _, part in parts)  # given pairs are all that is asked about
    for name in ("events",) if pairs else ("entities", "events"):
        back = [shifted(one, window.start) for window, part in parts for one in getattr(part, name)]
        assert sorted(back, key=repr) == sorted({"entities": record.entities, "events": events}[name], key=repr)
    for _, part in parts:
        for entity in part.entities:
            assert part.surface(entity.span) == entity.text


def test_borders_are_at_sentences_else_at_words():
    text = ("One two three. " * 200) + ("four five " * 200)
    for window in windows_of(text, fits_in(900))[1:]:
        before = text[: window.first].rstrip()
        assert before[-1] == "." if window.first <= 3000 else text[window.first - 1] == " "
        assert window.start == 0 or text[window.start - 1].isspace()


@pytest.fixture(scope="module")
def long_text(learned_records):
    texts = [record.text for record in learned_records if record.entities][:4]
    filler = "Nothing happens here , again and again . " * 12
    return texts, filler.join(["", *(f"{text} . " for text in texts), ""])


def test_items_are_found_wherever_they_are(extractor, long_text):
    texts, whole = long_text
    found = extractor.extract(whole, tasks=["mner", "med"])
    assert {notice.kind for notice in found.warnings} == {"windows"}
    assert found.record.text == whole
    for entity in found.entities:
        assert whole[slice(*entity.span)] == entity.text
        assert entity.probability is not None
    assert list(found.entities) == sorted(found.entities, key=lambda one: one.span)
    last = whole.rindex(texts[-1])
    assert any(one.span[0] >= last for one in (*found.entities,)) or any(
        one.trigger[0] >= last for one in found.events if one.trigger
    )
    cut = Extractor(extractor.model, extractor.processor, long_texts="truncate").extract(whole, tasks=["mner", "med"])
    assert {notice.kind for notice in cut.warnings} == {"truncated"}


def test_short_texts_and_order_are_untouched(extractor, learned_records, long_text):
    _, whole = long_text
    texts = [learned_records[0], Record(whole, id="long"), learned_records[1], Record(whole, id="again")]
    found = list(extractor.extract_many(texts))
    assert [one.record.id for one in found] == [one.id for one in texts]
    assert found[0] == extractor.extract(learned_records[0])
    assert found[1].entities == found[3].entities
    assert [len(one.answers) > 4 for one in found] == [False, True, False, True]


def test_given_pairs_are_asked_about_in_their_window(extractor, long_text):
    texts, whole = long_text
    at = whole.rindex(texts[-1])
    pair = Relation("none", (at, at + 3), (at + 4, at + 6))
    far = Relation("none", (0, 3), (at, at + 3))
    found = extractor.extract(Record(whole, relations=(pair, far)), tasks=["mre"])
    assert [(one.head, one.tail) for one in found.record.relations] == [(pair.head, pair.tail)]
    assert [one.target[:2] for one in found.answers if one.task == "mre"] == [(pair.head, pair.tail)]
    assert not found.entities
    assert "1 given pairs are in no window together" in found.warnings[0].message
    entities = (Entity("person", (at, at + 3)), Entity("person", (at + 4, at + 6)))
    asked = extractor.extract(Record(whole, entities=entities, relations=(pair,)), tasks=["mner", "mre"])
    assert [one.target[:2] for one in asked.answers if one.task == "mre"] == [(pair.head, pair.tail)]
    found = extractor.extract(Record(whole, entities=entities), tasks=["mre"])
    assert {one.task for one in found.answers} == {"mre"}  # a window without given entities does not find its own
    spans = {one.span for one in entities}
    assert {(one.head, one.tail) for one in found.record.relations} == {(a, b) for a in spans for b in spans if a != b}


def test_given_events_are_asked_about_in_their_window(extractor, long_text):
    _, whole = long_text
    event = Event("meet", (len(whole) - 8, len(whole) - 3))
    found = extractor.extract(Record(whole, events=(event,)), tasks=["meae"])
    assert [(one.task, one.target.trigger) for one in found.answers] == [("meae", event.trigger)]
    assert [one.trigger for one in found.events] == [event.trigger]


def test_the_same_words_may_be_asked_about_differently(extractor, long_text):
    """A window without the given entities asks about no pairs, and a record of the same words about its own."""
    texts, whole = long_text
    at = whole.rindex(texts[-1])
    entities = (Entity("person", (at, at + 3)), Entity("person", (at + 4, at + 6)))
    record = Record(whole, entities=entities)
    room = InputRoom(extractor.processor, [extractor.processor.task("mre")])
    (first, *_) = windows_of(whole, lambda text: room.fits(record, text))
    short = Record(whole[first.start : first.end])
    found = list(extractor.extract_many([record, short], tasks=["mre"]))
    for one, alone in zip(found, (record, short), strict=True):
        expected = extractor.extract(alone, tasks=["mre"])
        assert [answer.target for answer in one.answers] == [answer.target for answer in expected.answers]


@pytest.mark.parametrize("name", ["mner", "mre"])
def test_a_text_that_fits_is_not_truncated(extractor, name):
    """The tokens are estimated before they are counted, and the estimate is never too low."""
    task = extractor.processor.task(name)
    room = InputRoom(extractor.processor, [task])
    counts, answers = extractor.processor.counts, []
    for text in ("Deke Roli met Wug-Tan, 🎉 中あ! ", "x" * 9 + " ", "- ", "</s>"):
        for length in range(60, 1500, 7):
            part = (text * 750)[:length]
            pair = Relation("none", (0, min(length, 30)), (max(length - 40, 0), length))
            record = Record(part, relations=(pair,) if name == "mre" else ())
            answers.append(room.fits(record, part))
            before = counts["truncated_inputs"]
            extractor.processor.encode_query(record, *task.queries(record), task)
            assert not (answers[-1] and counts["truncated_inputs"] > before)
    assert {True, False} == set(answers)


def test_white_space_is_no_text(extractor):
    for space in (" ", "\n", "\u00a0"):
        found = extractor.extract(f"Saw Deke Roli .{space * 3000}Bob", tasks=["mner"])
        assert {notice.kind for notice in found.warnings} <= {"windows"}


@pytest.mark.parametrize("space", [" ", "\n", "\u00a0"])
def test_words_after_much_white_space_are_read(variant, space):
    """Then one window is left, which is not the whole text."""
    model, processor = variant(decoder={"name": "span", "threshold": 0.01})
    extractor = Extractor(model, processor, threshold=0.0)
    text = f"{space * 600}Ann met Bob in Rome"
    found = extractor.extract(text, tasks=["mner"])
    assert [notice.kind for notice in found.warnings] == ["windows"]
    assert found.entities
    assert all(one.span[0] >= 600 and text[slice(*one.span)] == one.text for one in found.entities)


@pytest.mark.parametrize(
    "text", ["🎉" * 300, "🎉 " * 90, "中あ" * 400, "🎉" * 63], ids=["run", "words", "Asian", "short"]
)
def test_no_character_is_left_out_if_each_is_several_tokens(variant, text):
    _, processor = variant(decoder={"name": "span"})
    processor.max_input_tokens = 200
    task = processor.task("mner")
    windows = windows_of(text, partial(InputRoom(processor, [task]).fits, Record(text)))
    for window in windows:
        record = Record(text[window.start : window.end])
        before = processor.counts["truncated_inputs"]
        for query in task.queries(record):
            processor.encode_query(record, query, task)
        assert processor.counts["truncated_inputs"] == before


def test_of_items_that_cross_a_border_the_less_probable_one_is_left_out():
    text = "a b c d"
    windows = [Window(0, 7, 0, 2, is_first=True), Window(0, 7, 2, 7)]

    def found(*entities):
        return Extraction(Record(text, entities=entities, tasks=("mner",)))

    for crossing, beyond in ((0.9, 0.6), (0.6, 0.9)):
        parts = [
            found(Entity("x", (0, 3), probability=crossing)),
            found(Entity("x", (2, 3), probability=beyond), Entity("y", (4, 7), probability=0.5)),
        ]
        kept = merged(Record(text), windows, parts).entities
        assert [one.span for one in kept] == [(0, 3) if crossing > beyond else (2, 3), (4, 7)]
        assert len(merged(Record(text), windows, parts, nested=True).entities) == 3
    both = [Entity("x", (2, 3), probability=0.5), Entity("x", (2, 5), probability=0.6)]  # of one window
    assert len(merged(Record(text), windows, [found(), found(*both)]).entities) == 2


class Finder(Grounder):
    """Shows each phrase in a region whose height is the phrase's length."""

    medium = "image"

    def find(self, source, phrases, known=()):
        return [[Region((0, 0, 0.1, 0.01 * (1 + len(phrase))))] for phrase in phrases]


def test_places_of_a_grounder_stay_with_their_items(extractor, long_text, learned_records):
    record = next(one for one in learned_records if one.image is not None and one.regions)
    bare = dataclasses.replace(record, text=long_text[1], entities=(), relations=(), events=())
    found = extractor.extract(bare, tasks=["mner"], grounders={"image": Finder(GrounderConfig())})
    assert found.entities
    for one in found.entities:
        assert found.regions(one)[-1].box[3] == pytest.approx(0.01 * (1 + len(one.text)))
        assert one.probability is not None
        assert found.region_pixels(found.regions(one)[-1]) is not None


def test_errors_name_the_line_of_a_long_text(extractor, long_text):
    _, whole = long_text
    records = [Record("Ann"), Record(whole), Record("Bob", image="gone.png")]
    with pytest.raises(UmieError, match="line 2: .*gone.png"):
        list(extractor.extract_many(records, place="line {}".format))
    with pytest.raises(UmieError, match="long_texts is 'all'"):
        Extractor(extractor.model, extractor.processor, long_texts="all")


def test_a_document_with_an_image_is_one_extraction(extractor, learned_records, long_text):
    record = next(one for one in learned_records if one.image is not None and one.regions)
    found = extractor.extract(dataclasses.replace(record, text=long_text[1], entities=(), relations=(), events=()))
    assert found.record.image is record.image
    assert found.gate.keys() == {answer.task for answer in found.answers}
