"""Files of predictions: joining them to gold, optional values, and errors."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umie.errors import UmieError
from umie.records import Argument, Entity, Event, Region, Relation
from umie.scoring import read_gold, read_predictions, score_predictions

ROME = {"type": "location", "span": [3, 7]}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write gold and predictions and read the predictions: ``files(gold_lines, prediction_lines)``."""
    monkeypatch.chdir(tmp_path)

    def read(gold, predictions):
        for name, lines in (("g.jsonl", gold), ("p.jsonl", predictions)):
            text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
            (tmp_path / name).write_text(text, encoding="utf-8")
        return read_predictions("p.jsonl", read_gold("g.jsonl"), "g.jsonl")

    return read


def test_by_id_in_any_order(files):
    gold = [{"id": "a", "text": "in Rome"}, {"id": "b", "text": "in Oslo"}]
    answers = files(gold, [{"id": "b", "text": "in Oslo"}, {"id": "a", "text": "in Rome", "entities": [ROME]}])
    assert [answer.record.text for answer in answers] == ["in Rome", "in Oslo"]
    assert [len(answer.record.entities) for answer in answers] == [1, 0]


def test_by_order_where_an_id_is_missing_or_repeated(files):
    for ids in ([None, "b"], ["a", "a"]):
        gold = [{"text": f"in Rome {name}", "id": name} for name in ids]
        answers = files(gold, list(gold))
        assert [answer.record.text for answer in answers] == [line["text"] for line in gold]


def test_an_id_may_be_a_number(files):
    assert len(files([{"id": 7, "text": "in Rome"}], [{"id": "7", "entities": [ROME]}])) == 1


def test_missing_text_image_and_regions_come_from_gold(files):
    gold = {"id": "a", "text": "in Rome", "image": "1.jpg", "regions": [{"box": [0, 0, 0.5, 1]}]}
    event = {"type": "meet", "arguments": [{"role": "Place", "region": 0}]}
    (answer,) = files([gold], [{"id": "a", "events": [event]}])
    assert answer.record.regions == (Region((0, 0, 0.5, 1)),)
    assert (answer.record.text, answer.record.image) == ("in Rome", "1.jpg")
    (own,) = files([gold], [{"id": "a", "events": [event], "regions": [{"box": [0, 0, 1, 1]}]}])
    assert own.record.regions == (Region((0, 0, 1, 1)),)


def test_all_media_and_their_places_come_from_gold(files):
    mask = {"size": [1, 2], "counts": [1, 1]}
    gold = {
        "id": "a", "text": "in Rome", "image": "1.jpg", "regions": [{"box": [0, 0, 1, 1], "mask": mask}],
        "audio": "1.wav", "segments": [{"interval": [0, 1], "label": "dog"}],
        "video": "1.mp4", "tracks": [{"times": [0, 1], "boxes": [[0, 0, 1, 1], None]}],
    }  # fmt: skip
    entity = {**ROME, "regions": [0], "segments": [0], "tracks": [0]}
    (answer,) = files([gold], [{"id": "a", "entities": [entity, {"type": "dog", "segments": [0]}]}])
    (line,) = read_gold("g.jsonl")
    for name in ("image", "audio", "video", "regions", "segments", "tracks"):
        assert getattr(answer.record, name) == getattr(line.record, name), name
    assert answer.record.entities[0].places == ((0,), (0,), (0,))


def test_items_without_a_span_next_to_strings(files):
    """They have no string: the others are compared."""
    gold = {"id": "a", "text": "in Rome", "audio": "1.wav", "segments": [{"interval": [0, 1]}]}
    heard, written = {"segments": [0]}, {"text": "Rome"}
    line = {
        "id": "a",
        "entities": [{"type": "dog", **heard}, {"type": "location", **written}],
        "relations": [{"type": "x", "head": heard, "tail": written}, {"type": "y", "head": written, "tail": [0, 2]}],
        "events": [
            {"type": "e", "trigger": written, "arguments": [{"role": "r", **heard}, {"role": "s", "span": [0, 2]}]},
            {"type": "f", "trigger": heard, "arguments": [{"role": "t", **written}]},
        ],
    }
    (answer,) = files([gold], [line])
    assert answer.strings == {
        "entities": (("location", "Rome"),),
        "relations": (("y", "Rome", "in"),),
        "events": (("f", None), ("e", "Rome")),
        "arguments": (("s", "in", "e", "Rome"), ("t", "Rome", "f", None)),
    }


def test_gold_without_its_regions_is_a_perfect_answer(files):
    """The label `union` decides which measure uses a box, so it must be copied from gold with the box."""
    boxes = [[0, 0, 0.2, 1], [0.8, 0, 1, 1], [0, 0, 1, 1]]
    regions = [{"box": box, "label": label} for box, label in zip(boxes, ("man", None, "union"), strict=True)]
    arguments = [{"role": "Entity", "region": index} for index in range(3)]
    gold = {"id": "a", "text": "", "image": "1.jpg", "events": [{"type": "meet", "arguments": arguments}]}
    answers = files([{**gold, "regions": regions}], [gold])
    assert [region.label for region in answers[0].record.regions] == ["man", None, "union"]
    records = [line.record for line in read_gold("g.jsonl")]
    report = score_predictions(records, answers, resamples=100)
    assert [line.measure for line in report.lines if line.score.f1 != 1] == []
    assert report.line("meae", "visual instance").score.gold == 2


def test_a_record_with_only_an_image(files):
    (answer,) = files([{"id": "a", "text": "", "image": "1.jpg"}], [{"id": "a", "events": [{"type": "meet"}]}])
    assert answer.record.events == (Event("meet"),)


A, B = {"id": "a", "text": "in Rome"}, {"id": "b", "text": "in Oslo"}


@pytest.mark.parametrize(
    ("gold", "predictions", "message"),
    [
        ([A, B], [A], r"p.jsonl: has no record with the id 'b' of g.jsonl:2: add a line"),
        ([A], [A, B], r"p.jsonl:2: id 'b' is not in g.jsonl: remove the line"),
        ([A], [{**A, "text": "in Roma"}], r"p.jsonl:1: text is 'in Roma', but g.jsonl:1 says 'in Rome'"),
        ([{"text": "x"}, {"text": "y"}], [{"text": "x"}], r"p.jsonl: has 1 records, .* is g.jsonl:2: add"),
        ([{"text": "x"}], [{"text": "x"}, {"text": "y"}], r"p.jsonl:2: more records than the 1 of g.jsonl"),
        ([{"text": "x"}, {"text": "y"}], [{"text": "y"}, {"text": "x"}], r"p.jsonl:1: text is 'y', but g.jsonl:1"),
        ([{"text": "x"}], [{"entities": []}], r"p.jsonl:1: text is '', but g.jsonl:1 says 'x'"),
        ([A], ['{"id": "a", "entities": [], "entities": [1]}'], r"p.jsonl:1: duplicate key 'entities'"),
        ([A], ["{"], r"p.jsonl:1: not valid JSON"),
        ([A], ["", "[]"], r"p.jsonl:2: the line is \[\]: expected a JSON object"),
        ([A], [{**A, "entitys": []}], r"p.jsonl:1: Unknown record key 'entitys'. Did you mean 'entities'"),
        ([A], [{**A, "entities": [{"type": "x", "span": [0, 99]}]}], r"p.jsonl:1: .*not inside the text"),
        ([A], [{**A, "entities": [{"type": "x"}]}], r"p.jsonl:1: entity is None"),
        ([A], [{**A, "entities": [{"type": "", "text": "Rome"}]}], r"p.jsonl:1: entity has type ''"),
        ([A], [{**A, "events": [{"type": "x", "arguments": [{"role": "y", "region": 0}]}]}], r"refers to region 0"),
        ([A], [{**A, "relations": [{"type": "x", "head": {"text": "Rome"}, "tail": [0, 99]}]}], r"span \[0, 99\]"),
        ([A], [{**A, "relations": [{"type": "x", "head": {"text": "Rome"}}]}], r"mention is None"),
        ([A], [{**A, "events": [{"type": "x", "text": "Rome"}]}], r"Unknown event key 'text'"),
        ([A], [{**A, "entities": [{"type": "x", "text": "\ud800"}]}], r"p.jsonl:1: .* unpaired surrogate"),
        ([A], ['{"id": "a", "x": ' + "[" * 100000 + "]" * 100000 + "}"], r"p.jsonl:1: "),
        ([], [A], r"g.jsonl: has no records"),
    ],
)
def test_errors_name_file_and_line(files, gold, predictions, message):
    with pytest.raises(UmieError, match=message):
        files(gold, predictions)


def test_a_mention_without_offsets_makes_the_whole_file_one_of_strings(files):
    loose = {"type": "location", "text": "Oslo"}
    answers = files([A, B], [{**A, "entities": [ROME]}, {**B, "entities": [loose, loose]}])
    assert [answer.strings["entities"] for answer in answers] == [
        (("location", "Rome"),),
        (("location", "Oslo"), ("location", "Oslo")),
    ]
    assert answers[0].record.entities == (Entity("location", (3, 7), "Rome"),)
    assert set(answers[0].strings) == {"entities"}


def test_relations_without_offsets(files):
    loose = [
        {"type": "in", "head": {"text": "we"}, "tail": [3, 7]},
        {"type": "none", "head": {"text": "we"}, "tail": [3, 7]},
        {"type": "near", "head": [0, 2], "tail": {"span": [3, 7]}},
    ]
    (answer,) = files([A], [{**A, "relations": loose}])
    assert answer.strings == {"relations": (("near", "in", "Rome"), ("in", "we", "Rome"))}
    assert answer.record.relations == (Relation("near", (0, 2), (3, 7)),)


def test_events_without_offsets(files):
    loose = [
        {"type": "meet", "trigger": {"text": "met"}, "arguments": [{"role": "Place", "span": [3, 7]}]},
        {
            "type": "die",
            "trigger": [0, 2],
            "arguments": [{"role": "Place", "text": "Rome"}, {"role": "By", "span": [0, 2]}],
        },
        {"type": "rest", "arguments": [{"role": "Place", "text": "here"}]},
    ]
    (answer,) = files([A], [{**A, "events": loose}])
    assert answer.strings["events"] == (("die", "in"), ("rest", None), ("meet", "met"))
    assert answer.strings["arguments"] == (
        ("By", "in", "die", "in"),
        ("Place", "Rome", "meet", "met"),
        ("Place", "Rome", "die", "in"),
        ("Place", "here", "rest", None),
    )
    assert answer.record.events == (Event("die", (0, 2), (Argument("By", (0, 2)),)), Event("rest"))


@pytest.mark.parametrize("places", [{}, {"regions": [0]}, {"span": None}])
def test_a_text_next_to_places_needs_no_span(files, places):
    gold = {**A, "image": "1.jpg", "regions": [{"box": [0, 0, 1, 1]}]}
    loose = {"text": "Rome", **places}
    events = [{"type": "meet", "trigger": loose, "arguments": [{"role": "Place", **loose}]}]
    relations = [{"type": "near", "head": [0, 2], "tail": loose}]
    line = {**A, "entities": [{"type": "location", **loose}], "relations": relations, "events": events}
    (answer,) = files([gold], [line])
    assert answer.strings == {
        "entities": (("location", "Rome"),),
        "relations": (("near", "in", "Rome"),),
        "events": (("meet", "Rome"),),
        "arguments": (("Place", "Rome", "meet", "Rome"),),
    }
    described = {"role": "Place", "text": "a man", "region": 0}
    (answer,) = files([gold], [{**A, "events": [{"type": "meet", "arguments": [described]}]}])
    assert answer.record.events == (Event("meet", None, (Argument("Place", regions=(0,)),)),)


SPANS = st.lists(st.integers(-1, 9), min_size=2, max_size=2)
MENTIONS = SPANS | st.fixed_dictionaries(
    {}, optional={"span": SPANS | st.none(), "text": st.sampled_from(["", "in", 3])}
)
VALUES = st.none() | st.integers() | st.text(max_size=3) | MENTIONS
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["x", "", None]),
        "span": SPANS,
        "text": st.just("in"),
        "region": st.integers(0, 1),
    },
)
ITEMS = st.lists(
    VALUES
    | st.fixed_dictionaries(
        {"type": st.sampled_from(["x", "none", "", None])},
        optional={
            "span": SPANS, "text": VALUES, "head": VALUES, "tail": VALUES, "trigger": VALUES,
            "arguments": st.lists(ARGUMENTS | VALUES, max_size=3) | VALUES,
        },
    ),
    max_size=3,
)  # fmt: skip
LINES = st.fixed_dictionaries({}, optional=dict.fromkeys(("entities", "relations", "events", "text"), ITEMS | VALUES))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES)
def test_any_line_is_read_or_refused_with_its_place(files, line):
    try:
        (answer,) = files([A], [{"id": "a", **line}])
    except UmieError as error:
        assert str(error).startswith("p.jsonl:1: ")
        assert "\n" not in str(error)
    else:
        assert answer.record.text == "in Rome"
        assert all(isinstance(part, str | None) for keys in answer.strings.values() for key in keys for part in key)
