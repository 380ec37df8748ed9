"""Grounding of records: which words are looked for, and what their items refer to then."""

import pytest

from umie.errors import UmieError
from umie.grounders import Grounder, GrounderConfig, registry
from umie.records import Argument, Entity, Event, Places, Record, Region, Relation, Segment
from umie.scoring import Prediction, score_predictions

TEXT = "Ann met Bob Lee in Rome"
ANN, MET, BOB, ROME = (0, 3), (4, 7), (8, 15), (19, 23)
WORDS = tuple(Segment((number / 2, number / 2 + 0.4), word) for number, word in enumerate(TEXT.lower().split()))


class Listed(Grounder):
    """Finds regions by phrase, from a list for each image."""

    medium = "image"

    def __init__(self, *found):
        super().__init__(GrounderConfig())
        self.found, self.asked = dict(found), []

    def find(self, source, phrases, known=()):
        source = str(source)
        self.asked.append((source, tuple(phrases), tuple(known)))
        if source == "bad.png":
            raise UmieError("bad.png: cannot be read")
        return [list(self.found.get(source, {}).get(phrase, ())) for phrase in phrases]


def box(number):
    return Region((number / 10, 0.0, number / 10 + 0.1, 1.0))


def test_items_are_shown_by_what_is_found():
    record = Record(
        TEXT,
        image="1.png",
        more_images=("2.png",),
        regions=(box(0), box(1)),
        audio="1.wav",
        segments=(Segment((0, 1)),),
        entities=(Entity("per", ANN, regions=(0,), segments=(0,)), Entity("loc", ROME), Entity("dog", regions=(1,))),
        relations=(Relation("peer", ANN, BOB, Places(regions=(1,))),),
        events=(Event("meet", MET, (Argument("agent", BOB), Argument("tool", regions=(0,))), regions=(1,)),),
    )
    found = {"Ann": [box(5)], "Bob Lee": [box(1)], "met": [box(9)]}
    grounder = Listed(("1.png", found), ("2.png", {"Ann": [box(5)]}))
    grounded = grounder.ground(record)
    assert [asked[1] for asked in grounder.asked] == [("Ann", "Rome", "Bob Lee")] * 2  # each once, without the trigger
    assert [asked[2] for asked in grounder.asked] == [record.regions, ()]  # those of each image
    assert grounded.regions == (*record.regions, box(5), Region(box(5).box, image=1))
    ann, rome, dog = grounded.entities
    assert (ann.regions, ann.segments) == ((2, 3), (0,))  # in place of those on the images, and only of those
    assert rome.regions == ()
    assert dog.regions == (1,)  # it has no words
    (relation,) = grounded.relations
    assert (relation.head_places.regions, relation.tail_places.regions) == ((2, 3), (1,))  # which the record had
    (event,) = grounded.events
    assert event.regions == (1,)
    assert [one.regions for one in event.arguments] == [(1,), (0,)]
    assert grounder.counts == {"phrases": 3, "phrases without a place": 1}
    assert grounder.ground(grounded) == grounded


def test_records_without_the_medium_or_words_are_unchanged():
    grounder = Listed()
    for record in (Record(TEXT, entities=(Entity("per", ANN),)), Record(TEXT, image="1.png", regions=(box(0),))):
        assert grounder.ground(record) == record
    assert grounder.asked == []


def test_a_medium_that_cannot_be_read_leaves_its_record():
    record = Record(TEXT, image="bad.png", regions=(box(0),), entities=(Entity("per", ANN, regions=(0,)),), id="7")
    grounder = Listed()
    filled, errors = grounder.filled(record, {}, 1)
    assert (filled, list(errors)) == (record, [0])
    with pytest.raises(UmieError, match=r"record 7: bad\.png: cannot be read"):
        grounder.ground(record)


def test_words():
    entities = (Entity("per", ANN), Entity("per", BOB), Entity("loc", ROME))
    record = Record(TEXT, audio="1.wav", segments=WORDS, entities=entities)
    grounded = registry.build("words").ground(record)
    intervals = [[grounded.segments[index].interval for index in one.segments] for one in grounded.entities]
    assert intervals == [[(0.0, 0.4)], [(1.0, 1.9)], [(2.5, 2.9)]]
    assert grounded.segments[: len(WORDS)] == WORDS
    assert len(grounded.segments) == len(WORDS) + 1  # only Bob Lee is no segment of the record
    twice = Record("a b a", audio="1.wav", segments=tuple(Segment((n, n + 1), word) for n, word in enumerate("aba")))
    found = [registry.build("words", top=top).find("1.wav", ["A,", "c", "?"], twice.segments) for top in (1, 2)]
    assert [[len(places) for places in one] for one in found] == [[1, 0, 0], [2, 0, 0]]


def test_a_text_only_system_gets_grounded_scores():
    segments = tuple(Segment(one.interval) for one in WORDS)
    gold = Record(
        TEXT, audio="1.wav", segments=segments, entities=(Entity("per", ANN, segments=(0,)),), tasks=("mner",)
    )
    heard = Record(TEXT, audio="1.wav", segments=WORDS, entities=(Entity("per", ANN),), tasks=("mner",))
    grounder = registry.build("words")
    scores = []
    for predicted in (heard, grounder.ground(heard)):
        report = score_predictions([gold], [Prediction(predicted)], resamples=10)
        scores.append(report.line("mner", "grounded").score.f1)
    assert scores == [0, 1]
