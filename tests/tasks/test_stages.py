"""The tasks of REAMO's stages of tuning: captions and matches. Neither has the text in its input."""

import pytest
import torch

from umie import compose
from umie.data.synthetic_media import SyntheticMediaConfig, scenes
from umie.errors import UmieError
from umie.evaluation import evaluate
from umie.records import Entity, Record, Region, Segment
from umie.tasks import registry
from umie.tasks.match import Shown

REGIONS = (Region((0, 0, 0.5, 1), "left man"), Region((0.5, 0, 1, 1), "dog"), Region((0, 0, 1, 1)))
RECORD = Record(
    "A man  and a dog", image="1.png", regions=REGIONS, audio="1.wav", segments=(Segment((0, 1), "bark"),),
    entities=(Entity("person", (2, 5)),),
)  # fmt: skip


def test_a_caption_is_the_text_without_the_text():
    task = registry.build("caption")
    (query,) = task.queries(RECORD)
    assert (query.answer, query.hides_text) == (RECORD.text, True)
    _, processor = compose(decoder="causal", tasks=["caption"])
    words = processor.tokenizer.decode(processor.encode_query(RECORD, query, task)["input_ids"])
    assert "Please write the caption." in words
    assert "man" not in words
    assert task.parse(" A man and\n a dog ", RECORD) == task.items(RECORD) == ["A man and a dog"]
    assert task.parse("  ", RECORD) == []
    found = task.with_items(RECORD, ["A cat"])
    assert (found.text, found.entities, found.regions) == ("A cat", (), REGIONS)
    assert registry.build("caption").queries(Record("no media")) == []


def test_matches_ask_about_each_label_and_about_another_one():
    task = registry.build("match")
    queries = task.queries(RECORD)
    assert [(query.target[:3], query.answer) for query in queries] == [
        (("image", 0, "left man"), "[yes]"),
        (("image", 0, "dog"), "[no]"),
        (("image", 1, "dog"), "[yes]"),
        (("image", 1, "left man"), "[no]"),
        (("audio", 0, "bark"), "[yes]"),  # no other segment has a label
    ]
    assert "Does O1 show left man? Options: yes, no." in queries[0].instruction
    for query in queries:
        (item,) = task.parse(query.answer, RECORD, query.target)
        assert item == Shown(*query.target[:3], query.answer == "[yes]")
    assert task.items(RECORD) == [query.target for query in queries if query.answer == "[yes]"]
    answers = [Shown("image", 0, "dog"), Shown("image", 1, "dog", False), Shown("audio", 0, "bark")]
    found = task.with_items(RECORD, answers)
    assert [region.label for region in found.regions] == ["dog", None, None]
    assert [segment.label for segment in found.segments] == ["bark"]


def test_always_yes_is_right_half_of_the_time():
    task = registry.build("match")
    answers = [Shown(*query.target[:3]) for query in task.queries(RECORD)]
    found = task.with_items(RECORD, answers)
    assert [region.label for region in found.regions] == ["left man | dog", "dog | left man", None]
    right = set(task.items(found)) & set(task.items(RECORD))
    assert (len(right), len(task.items(found)), len(task.items(RECORD))) == (3, 5, 3)


@pytest.mark.parametrize("name", ["caption", "match"])
def test_they_are_asked_for_only_where_a_record_lists_them(name):
    task = registry.build(name)
    assert not task.is_annotated(RECORD)
    with pytest.raises(UmieError, match="leave grounded out"):
        registry.build(name, grounded=True)


def test_labels_of_matches_are_yes_and_no():
    with pytest.raises(UmieError, match="use yes and no"):
        registry.build("match", labels=["true", "false"])


def test_drawn_captions_say_what_is_shown():
    config = SyntheticMediaConfig(train=3, dev=0, test=0, captions=True, combinations=("T+I", "T+A", "T+V"))
    for scene in scenes(config, "train"):
        record = scene.record
        (medium,) = record.media
        labels = sorted(place.label for place in record.places(medium))
        assert sorted(record.text.split(", ")) == labels
        assert (record.tasks, record.entities, record.relations, record.events) == (("caption", "match"), (), (), ())


@pytest.mark.parametrize("name", ["caption", "match"])
def test_a_model_answers_them(name, tmp_path):
    config = SyntheticMediaConfig(train=0, dev=0, test=4, captions=True, combinations=("T+I",))
    records = []
    for scene in scenes(config, "test"):
        scene.save(tmp_path)
        records.append(scene.record)
    records = [Record(**{**vars(record), "image_folder": str(tmp_path)}) for record in records]
    torch.manual_seed(0)
    model, processor = compose(decoder="causal", fusion="concat", tasks=[name])
    result = evaluate(model, processor, records, name, constrained=True, max_new_tokens=8)
    assert len(result.predictions) == len(records)
    assert 0 <= result.scores["f1"] <= 1
    if name == "match":
        assert result.scores["dropped"] == 0  # under the grammar
        scoring = compose(decoder="span", fusion="concat", tasks=[name])
        assert evaluate(*scoring, records, name).scores["dropped"] == 0
    else:
        scoring = compose(decoder="span", fusion="concat", tasks=[name])
        with pytest.raises(UmieError, match="the answers of caption are free text"):
            evaluate(*scoring, records, name)
