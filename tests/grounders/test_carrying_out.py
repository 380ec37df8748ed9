"""Calls of answers are carried out by grounders; the answers then refer to what these found."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from umie import Extractor, UmieProcessor, compose
from umie.data.media_contents import LABELS
from umie.data.synthetic_media import SyntheticMediaConfig, scenes, write_synthetic_media
from umie.errors import UmieError
from umie.evaluation import evaluate
from umie.grounders import Grounder, GrounderConfig, registry
from umie.grounders.calls import build_grounders, carry_out, without_found
from umie.records import MEDIA, Entity, Event, Record, Region, Segment, read_jsonl
from umie.scoring import Prediction, score_predictions
from umie.tasks import Items
from umie.tasks import registry as all_tasks

DRAWN = {"image": "drawn_image", "audio": "drawn_sound", "video": "drawn_video"}
CALLING = {name: {"labels": labels, "grounded": True, "style": "reamo"} for name, labels in LABELS.items()}


class Finds(Grounder):
    """Finds the region of each phrase in a list."""

    medium = "image"

    def __init__(self, **found):
        super().__init__(GrounderConfig())
        self.found, self.asked = found, []

    def find(self, source, phrases, known=()):
        self.asked.append((str(source), tuple(phrases), tuple(known)))
        if str(source) == "bad.png":
            raise UmieError("bad.png: cannot be read")
        return [[self.found[phrase]] if phrase in self.found else [] for phrase in phrases]


def box(number, label=None):
    return Region((number / 10, 0.0, number / 10 + 0.1, 1.0), label)


def record_of(image="1.png", **fields):
    return Record("Ann met Bob", image=image, regions=(box(0, "dog"), box(1)), **fields)


def answer_of(*items):
    written = [
        f"[person = <Module>ImageSegmentation</Module><Instruction>{phrase}</Instruction>: {name}]"
        for name, phrase in items
    ]
    return " ".join(written)


def refuse(record, medium, number, error):
    raise error


def carried_out(grounders, record, output, on_unreadable=refuse, **options):
    task = all_tasks.build("mner", labels=["person"], grounded=True, style="reamo")
    (found,), (items,) = carry_out(
        grounders, task, [record], [Items()], [output], on_unreadable=on_unreadable, **options
    )
    return found, items


def test_what_is_found_is_what_answers_refer_to():
    grounder = Finds(man=box(5), dog=box(6))
    record = record_of()
    found, items = carried_out({"image": grounder}, record, answer_of(("Ann", "man"), ("Bob", "dog"), ("Bob", "cat")))
    assert grounder.asked == [("1.png", ("man", "dog", "cat"), record.regions)]  # once for all phrases
    assert found.regions == (*record.regions, box(5, "man"), box(6, "dog"))
    # no call finds the record's own dog
    assert [(item.text, item.regions) for item in items] == [("Ann", (2,)), ("Bob", (3,)), ("Bob", ())]
    assert (grounder.counts["phrases"], grounder.counts["phrases without a place"], grounder.num_found) == (3, 1, 2)


def test_the_next_task_finds_the_same_places_again():
    grounder = Finds(man=box(5), dog=box(6))
    once, _ = carried_out({"image": grounder}, record_of(), answer_of(("Ann", "man")))
    twice, items = carried_out({"image": grounder}, once, answer_of(("Ann", "man"), ("Bob", "dog")))
    assert twice.regions == (*once.regions, box(6, "dog"))
    assert [item.regions for item in items] == [(2,), (3,)]


def test_a_medium_without_a_grounder_shows_nothing_in_a_pipeline():
    record = record_of(audio="1.wav", segments=(Segment((0, 1), "voice"),))
    call = "<Module>AudioSegmentation</Module><Instruction>voice</Instruction>"
    found, (item,) = carried_out({"image": Finds()}, record, f"[person = {call}: Ann]")
    assert (item.segments, found.segments) == ((), record.segments)
    assert carried_out({}, record, f"[person = {call}: Ann]")[1][0].segments == (0,)


def test_phrases_are_cut_alike_wherever_they_occur():
    """A target has no phrase that the grammar would refuse, and a grounder gets the phrase of the answer."""
    task = all_tasks.build("mner", labels=["person"], grounded=True, style="reamo")
    for label in ("a" * 65, "\u00e9" * 33, "word " * 20):
        record = Record(
            "Ann", image="1.png", regions=(box(0, label),), entities=(Entity("person", (0, 3), regions=(0,)),)
        )
        (query,) = task.queries(record)
        _, processor = compose(tasks={"mner": {"labels": ["person"], "grounded": True, "style": "reamo"}})
        tokens = processor.encode_query(record, query, task)["labels"].tolist()
        constraint = processor.constraint(record, task, 200)
        assert constraint.read([[0, *tokens]]) == [query.answer]
        assert task.parse(query.answer, record) == list(record.entities)


def test_without_a_grounder_calls_find_the_own_places_with_that_label():
    found, items = carried_out({}, record_of(), answer_of(("Ann", "dog"), ("Bob", "man")))
    assert found == record_of()
    assert [item.regions for item in items] == [(0,), ()]


def test_nothing_is_found_in_hidden_or_unreadable_media():
    grounder = Finds(dog=box(6))
    output = answer_of(("Ann", "dog"))
    found, items = carried_out({"image": grounder}, record_of(), output, hidden={"image"})
    assert (grounder.asked, [item.regions for item in items]) == ([], [()])
    with pytest.raises(UmieError, match="bad.png: cannot be read"):
        carried_out({"image": grounder}, record_of("bad.png"), output)
    errors = []
    found, items = carried_out(
        {"image": grounder}, record_of("bad.png", more_images=("2.png",)), output, lambda *given: errors.append(given)
    )
    assert [error[1:3] for error in errors] == [("image", 0)]
    assert [found.regions[index].image for item in items for index in item.regions] == [1]  # that of the other image


@pytest.mark.parametrize("policy", ["error", "text_only", "skip"])
def test_the_policy_for_unreadable_media_holds_for_grounders(policy):
    _, processor = compose(tasks=CALLING, missing_images=policy, grounders={"image": Finds()})
    task, record = processor.task("mner"), record_of("bad.png", id="r7")
    given = [Items()], [answer_of(("Ann", "dog"))], [record], task
    if policy == "error":
        with pytest.raises(UmieError, match=r"record 'r7': bad.png: cannot be read; fix the file"):
            processor.carry_out(*given)
    else:
        processor.carry_out(*given)
        assert processor.counts["missing_images"] == 1


def test_each_image_is_looked_into():
    grounder = Finds(man=box(5))
    record = record_of(more_images=("2.png",))
    found, items = carried_out({"image": grounder}, record, answer_of(("Ann", "man")))
    assert found.regions[2:] == (box(5, "man"), replace(box(5, "man"), image=1))
    assert [asked[0] for asked in grounder.asked] == ["1.png", "2.png"]
    assert items[0].regions == (2, 3)


def test_what_was_found_is_no_input_of_the_next_task():
    given = record_of()
    found = replace(given, regions=(*given.regions, box(5)), events=(Event("meet", (4, 7), regions=(2,)),))
    assert without_found(found, given) == replace(given, events=(Event("meet", (4, 7)),))
    pointed = replace(given, events=(Event("meet", (4, 7), regions=(1,)),))
    assert without_found(pointed, given) == pointed


def test_grounders_by_name_options_or_object():
    grounder = Finds()
    built = build_grounders({"image": grounder, "audio": {"name": "words", "top": 2}, "video": "drawn_video"})
    assert built["image"] is grounder
    assert (built["audio"].config.top, built["video"].medium) == (2, "video")
    for given, message in [
        ({"smell": "words"}, "medium"),
        ({"image": "words"}, "words looks into audio: set it for audio"),
        ({"image": {"top": 1}}, "has no name"),
        ({"image": 3}, "use a name, or name and options"),
        ("words", "use a grounder for each medium"),
        ({"image": "none"}, "none"),
    ]:
        with pytest.raises(UmieError, match=message):
            build_grounders(given)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labeled")
    config = SyntheticMediaConfig(train=0, dev=0, test=12, labels=True)
    return list(read_jsonl(write_synthetic_media(folder, config)["test"]))


@pytest.mark.parametrize("medium", MEDIA)
def test_the_rules_find_what_is_drawn(medium):
    """The drawn places are found by their labels at IoU >= 0.5, as often as proposals are asked to be."""
    grounder = registry.build(DRAWN[medium])
    right = asked = 0
    for scene in scenes(SyntheticMediaConfig(train=0, dev=0, test=30, labels=True), "test"):
        drawn = {"image": scene.image, "audio": scene.sound, "video": scene.clip}[medium]
        if drawn is None:
            continue
        known = {place.label: place for place in scene.record.places(medium)}
        for label, (*places,) in zip(known, grounder.find(drawn, list(known)), strict=True):
            if scene.shows[medium].count(label) > 1:
                continue  # two clouds
            asked += 1
            right += bool(places) and overlap(places[0], known[label]) >= 0.5
    assert asked > 100
    assert right / asked >= (0.98 if medium == "image" else 1), right / asked  # some clouds are too pale


def overlap(one, other):
    from umie.records.overlap import place_iou

    return place_iou(one, other)


def test_gold_calls_are_the_ceiling_of_the_pipeline(records):
    """The annotated answers, carried out by the rules, score nearly as the annotation itself."""
    grounders = build_grounders(DRAWN)
    for name, options in CALLING.items():
        task = all_tasks.build(name, **options)
        own = [record for record in records if record.annotated_for(name)]
        queries = [query for record in own for query in task.queries(record)]
        found, items = carry_out(
            grounders, task, own, [Items()] * len(queries), [one.answer for one in queries], on_unreadable=refuse
        )
        remaining = iter(items)
        predictions = []
        for record, grounded in zip(own, found, strict=True):
            merged = Items()
            for _ in task.queries(record):
                merged.extend_with(next(remaining))
            predictions.append(Prediction(task.with_items(grounded, merged)))
        report = score_predictions(own, predictions, tasks=[name], main={name: "grounded"}, resamples=1)
        assert report.lines[0].score.f1 >= 0.95, (name, report.lines[0])


@pytest.fixture(scope="module")
def variant():
    torch.manual_seed(0)
    return compose(
        "tiny",
        "concat",
        "t5",
        video_encoder="tiny_video",
        audio_encoder={"name": "tiny_audio", "rate": 4_000},
        tasks=CALLING,
        visual_embedding={"num_slot_embeddings": 5},
        grounders=DRAWN,
    )


def test_a_variant_with_grounders_is_evaluated_saved_and_loaded(variant, records, tmp_path):
    model, processor = variant
    result = evaluate(model, processor, records, "mner", constrained=True, max_new_tokens=60)
    assert result.scores["dropped"] == 0 or result.scores["f1"] < 1
    processor.save_pretrained(tmp_path)
    again = UmieProcessor.from_pretrained(tmp_path)
    assert {medium: type(one) for medium, one in again.grounders.items()} == {
        medium: type(one) for medium, one in processor.grounders.items()
    }
    processor_of_objects = UmieProcessor(processor.tokenizer, {"name": "tiny"}, grounders={"image": Finds()})
    with pytest.raises(UmieError, match="the grounder of image is an object: pass its name and options to save it"):
        processor_of_objects.save_pretrained(tmp_path / "other")


def test_a_saved_pipeline_loads_where_its_checkpoint_is_gone(tmp_path):
    grounders = {"image": {"name": "grounding", "checkpoint": str(tmp_path / "gone")}}
    model, processor = compose(tasks=CALLING, grounders=grounders)
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    extractor = Extractor.from_pretrained(tmp_path / "saved", grounders={"image": Finds()})
    assert extractor.extract("Ann", tasks=["mner"]).text == "Ann"


def test_the_labels_of_a_record_survive_several_calling_tasks(variant, records):
    """The segments of words keep their words, which the grounder needs for each task; and nothing is found twice."""
    model, processor = variant
    record = next(one for one in records if one.combination == "T+A")
    extractor = Extractor(model, processor, grounders={"audio": "words"}, max_new_tokens=60)
    found = extractor.extract(record, tasks=["mner", "mre"]).record
    assert found.segments[: len(record.segments)] == record.segments
    assert len(set(found.segments)) == len(found.segments)


def test_a_text_model_with_grounders_looks_into_media(tmp_path):
    """That the model has no encoders hides nothing from grounders."""
    _, processor = compose(fusion="text_only", tasks=CALLING, grounders={"image": Finds(dog=box(6))})
    processor.unused = frozenset(MEDIA)
    task = processor.task("mner")
    record = record_of()
    assert not processor.encode_medium("image", record)["visual_mask"].any()
    (found,), _ = processor.carry_out([Items()], [answer_of(("Ann", "dog"))], [record], task)
    assert len(found.regions) == 3
    processor.blind = frozenset({"image"})
    (found,), _ = processor.carry_out([Items()], [answer_of(("Ann", "dog"))], [record], task)
    assert len(found.regions) == 2


def test_what_is_found_in_a_file_is_remembered():
    grounder = Finds(dog=box(6))
    grounder.look(record_of(), ["dog", "man"])
    grounder.look(record_of(), ["man", "cat"])
    assert [asked[1] for asked in grounder.asked] == [("dog", "man"), ("cat",)]
    in_memory = Record("x", image=Image.new("RGB", (4, 4)))
    for _ in range(2):
        grounder.look(in_memory, ["dog"])
    assert len(grounder.asked) == 4


def test_the_extractor_grounds_what_a_model_without_places_extracts():
    torch.manual_seed(0)
    model, processor = compose(decoder={"name": "span", "threshold": 0.01}, tasks={"mner": {"labels": ("person",)}})
    words = tuple(Segment((number / 2, number / 2 + 0.4), word) for number, word in enumerate(["ann", "met", "bob"]))
    import numpy as np

    from umie.media import Sound

    record = Record("Ann met Bob", audio=Sound(np.zeros(8000, dtype=np.float32), 4000), segments=words)
    extractor = Extractor(model, processor)
    found = extractor.extract(record, grounders={"audio": "words"})
    assert found.entities
    assert all(len(item.segments) == 1 for item in found.entities)
    assert not any(item.segments for item in extractor.extract(record).entities)
    constructed = Extractor(model, processor, grounders={"audio": "words"}).extract(record)
    assert constructed.entities == found.entities


def test_the_extractor_reports_media_in_which_nothing_could_be_looked_for():
    model, processor = compose(decoder={"name": "span", "threshold": 0.01}, tasks={"mner": {"labels": ("person",)}})
    record = Record("Ann met Bob", image="bad.png")
    grounders = {"image": Finds()}
    found = Extractor(model, processor, missing_images="text_only").extract(record, grounders=grounders)
    assert any("nothing was looked for" in notice.message for notice in found.warnings)
