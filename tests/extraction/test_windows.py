"""Long texts: read in windows, whose items are merged."""

import dataclasses
import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given

from umie.errors import UmieError
from umie.extraction import Extractor
from umie.extraction.windows import OVERLAP, in_window, shifted, windows_of
from umie.records import Argument, Entity, Event, Record, Relation

TEXTS = st.text(st.sampled_from("ab. \n中あ!?"), max_size=4000)


def fits_in(limit):
    return lambda text: len(text) <= limit


@given(TEXTS, st.integers(700, 3000))
def test_windows_cover_a_text_once_and_overlap(text, limit):
    windows = windows_of(text, fits_in(limit))
    assert [windows[0].first, windows[-1].last] == [0, len(text)]
    for one, following in itertools.pairwise(windows):
        assert one.last == following.first
        reach = min(OVERLAP, (one.last - one.first) // 2) // 2
        assert one.end - one.last >= min(reach, len(text) - one.last)
        reach = min(OVERLAP, (following.last - following.first) // 2) // 2
        assert following.first - following.start >= min(reach, following.first)
    for one in windows:
        assert 0 <= one.start <= one.first <= one.last <= one.end <= len(text)
        assert one.end - one.start <= limit
    assert len(windows) == 1 or len(text) > limit


@given(TEXTS.filter(str.strip), st.data())
def test_each_item_belongs_to_one_window_and_comes_back(text, data):
    windows = windows_of(text, fits_in(700))

    def span():
        start = data.draw(st.integers(0, len(text) - 1))
        return (start, data.draw(st.integers(start + 1, min(len(text), start + 30))))

    entities = (Entity("a", span()), Entity("b", span()))
    event = Event("c", entities[0].span, (Argument("d", entities[0].span),))
    record = Record(
        text, entities=entities, events=(event,), relations=(Relation("e", *[one.span for one in entities]),)
    )
    parts = [(window, in_window(record, window)) for window in windows]
    for name in ("entities", "events"):
        back = [shifted(one, window.start) for window, part in parts for one in getattr(part, name)]
        assert sorted(back, key=repr) == sorted(getattr(record, name), key=repr)
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
        assert found.probability(entity) is not None
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
