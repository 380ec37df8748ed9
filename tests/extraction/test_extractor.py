"""Extractor: its questions, results and warnings."""

import ast
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import umie
from umie.evaluation import evaluate
from umie.extraction import Extractor
from umie.extraction.result import NOTICES
from umie.media import Clip, Sound
from umie.records import (
    MEDIA,
    Argument,
    Entity,
    Event,
    Places,
    Record,
    Region,
    Relation,
    no_relation_names,
    record_from_json,
)
from umie.records.places import NOWHERE, PLACES

TASKS = ("mner", "mre", "med", "meae")
ANN, BOB, ROME = (0, 3), (8, 11), (15, 19)
TEXT = "Ann met Bob in Rome"


def kinds(found):
    return [notice.kind for notice in found.warnings]


@pytest.mark.parametrize("task", ["mner", "mre", "med"])
def test_results_equal_those_of_evaluation(learned, extractor, records, task):
    """Evaluation reaches the same answers by another path."""
    expected = evaluate(*learned, records, task, constrained=True)
    asked = [record for record in records if record.annotated_for(task)]
    found = extractor.extract(asked, tasks=[task])
    built = learned[1].task(task)
    assert [built.items(one.record) for one in found] == [built.items(record) for record in expected.predictions]
    gates = [gate for one in found for gate in one.gate.values() if gate is not None]
    assert sorted(gates) == pytest.approx(sorted(expected.gates), abs=1e-5)


@pytest.mark.parametrize(("events", "tasks"), [("gold", ["meae"]), ("predicted", ["med", "meae"])])
def test_arguments_of_given_and_predicted_events(learned, extractor, records, events, tasks):
    asked = [record for record in records if record.annotated_for("meae")]
    expected = evaluate(*learned, asked, "meae", constrained=True, events=events).predictions
    assert [one.events for one in extractor.extract(asked, tasks=tasks)] == [record.events for record in expected]


def test_given_probabilities_never_leak_into_an_answer(extractor, records):
    seen = next(record for record in records if record.events)
    given = [dataclasses.replace(event, arguments=(), probability=0.11) for event in seen.events]
    asked = [dataclasses.replace(seen, events=events) for events in (given, seen.events)]  # they are equal
    found = extractor.extract(asked, tasks=["meae"])
    assert [[event.probability for event in one.events] for one in found] == [[None] * len(given)] * 2
    assert all(one.probability is not None for each in found for event in each.events for one in event.arguments)


def test_an_annotation_never_leaks_into_an_answer(extractor, records):
    """An annotated record and its bare text and image give the same result; only the pairs of MRE are input."""
    for record in records[:6]:
        bare = Record(record.text, record.image, record.regions)
        annotated = dataclasses.replace(record, relations=())
        assert extractor.extract(annotated).record.events == extractor.extract(bare).record.events
        assert extractor.extract(annotated).entities == extractor.extract(bare).entities


def test_every_ordered_pair_of_entities_is_asked_about(extractor):
    entities = [Entity("person", ANN), Entity("person", BOB), Entity("location", ROME), Entity("person", ROME)]
    found = extractor.extract(Record(TEXT, entities=entities), tasks=["mre"])
    pairs = [(item.head, item.tail) for item in found.record.relations]
    assert pairs == [(ANN, BOB), (ANN, ROME), (BOB, ANN), (BOB, ROME), (ROME, ANN), (ROME, BOB)]
    assert [item.type for item in found.relations] == [
        t for t in (i.type for i in found.record.relations) if t != "none"
    ]
    assert found.entities == ()
    assert kinds(found) == []


def test_mner_runs_before_mre(extractor):
    """For a plain text, whether or not MNER is requested."""
    both = extractor.extract("Good to see Dema Sama and Fuza Zote .", tasks=["mre", "mner"])
    names = {entity.span for entity in both.entities}
    assert {(item.head, item.tail) for item in both.record.relations} == {
        (a, b) for a in names for b in names if a != b
    }
    single = extractor.extract("Good to see Dema Sama and Fuza Zote .", tasks=["mre"])
    assert single.record.relations == both.record.relations
    assert single.entities == ()


def test_the_nearest_pairs_are_kept(learned):
    entities = [Entity("person", ANN), Entity("person", BOB), Entity("location", ROME)]
    found = Extractor(*learned, max_pairs=3).extract(Record(TEXT, entities=entities), tasks=["mre"])
    assert [(item.head, item.tail) for item in found.record.relations] == [(ANN, BOB), (BOB, ROME), (ROME, BOB)]
    assert found.warnings == (("pairs", "mre: only the 3 nearest of 6 entity pairs were asked about"),)


def test_given_pairs_are_asked_about(extractor):
    record = Record(TEXT, relations=[Relation("couple", BOB, ANN)])
    found = extractor.extract(record, tasks=["mner", "mre"])
    assert {(item.head, item.tail) for item in found.record.relations} == {(BOB, ANN)}


def test_labels_of_the_call(extractor):
    found = extractor.extract(TEXT, tasks=["mner"], labels={"mner": ["ship", "person"]})
    assert {entity.type for entity in found.entities} <= {"ship", "person"}
    assert found.warnings == (("labels", "mner: the checkpoint was not trained on the labels 'ship'"),)
    again = extractor.extract(TEXT, tasks=["mner"])
    assert again.warnings == ()
    found = extractor.extract(TEXT, tasks=["meae"], labels={"med": ["meet"], "meae": ["Place"]})
    assert {event.type for event in found.events} <= {"meet"}
    assert {argument.role for event in found.events for argument in event.arguments} <= {"Place"}


def test_the_tasks_are_those_of_the_checkpoint(variant, learned):
    assert Extractor(*learned).extract("Ann").record.tasks == TASKS
    model, processor = variant(tasks={"med": {"labels": ["meet", "attack"]}})
    assert Extractor(model, processor).extract("Ann").record.tasks == ("med",)
    model, processor = variant(tasks=None)
    assert Extractor(model, processor).extract("Ann", tasks=["mner", "med"]).record.tasks == ("mner", "med")


def test_a_truncated_text_gives_a_warning(learned):
    found = Extractor(*learned, long_texts="truncate").extract("Ann met Bob . " * 200, tasks=["mner"])
    assert kinds(found) == ["truncated"]
    assert found.answers[0].is_truncated
    assert kinds(Extractor(*learned).extract("Ann met Bob .", tasks=["mner"])) == []


def test_invalid_items_are_dropped_with_a_warning(learned):
    found = Extractor(*learned, constrained=False, max_new_tokens=4).extract([TEXT, "Rome " * 9], tasks=["mner", "med"])
    assert any("dropped" in kinds(one) for one in found)
    for one in found:
        dropped = sum(answer.dropped for answer in one.answers)
        assert ("dropped" in kinds(one)) == (dropped > 0)
    constrained = Extractor(*learned).extract([TEXT, "Rome " * 9], tasks=["mner", "med"])
    assert all(kinds(one) == [] for one in constrained)


def test_named_regions_have_boxes(extractor, records):
    asked = [record for record in records if record.annotated_for("meae") and record.image is not None]
    boxes = [(0.25, 0.0, 0.5, 1.0), (0.5, 0.5, 1.0, 0.75)]
    found = [extractor.extract(record, record.image, tasks=["meae"], regions=boxes) for record in asked]
    named = [
        (one, argument)
        for one in found
        for event in one.events
        for argument in event.arguments
        if argument.span is None
    ]
    assert named
    for one, argument in named:
        assert one.region(argument).box == boxes[argument.regions[0]]
        width, height = one.image_size
        x1, y1, x2, y2 = boxes[argument.regions[0]]
        assert one.pixel_box(argument) == tuple(map(round, (x1 * width, y1 * height, x2 * width, y2 * height)))
        (written,) = (
            item
            for event in one.to_json()["events"]
            for item in event["arguments"]
            if item.get("region") == argument.regions[0] and item["role"] == argument.role
        )
        assert written["box"] == list(boxes[argument.regions[0]])
        assert written["pixels"] == list(one.pixel_box(argument))
    argument = Argument("Agent", (0, 3))
    assert found[0].region(argument) is found[0].pixel_box(argument) is None


@pytest.mark.parametrize("boxes", [[(0, 0, 1, 1)], [(0, 0, 1, 1), (0, 0, 0.5, 1)]])
def test_new_regions_leave_nothing_that_refers_to_the_old_ones(extractor, noise, boxes):
    old = Places(regions=(1,))
    record = Record(
        TEXT,
        noise(20, 20),
        [Region((0, 0, 0.5, 0.5)), Region((0.5, 0.5, 1, 1))],
        entities=[Entity("person", ANN, regions=(1,)), Entity("person", regions=(0,)), Entity("person", regions=(1,))],
        relations=[Relation("peer", ANN, BOB, old), Relation("peer", ANN, None, tail_places=old)],
        events=[Event("meet", (4, 7), (Argument("Agent", regions=(1,)),), regions=(1,))],
    )
    found = extractor.extract(record, tasks=["mre", "meae"], regions=boxes)
    assert [answer.target for answer in found.answers if answer.task == "mre"] == [(ANN, BOB, NOWHERE, NOWHERE)]
    assert [event.places for event in found.events] == [NOWHERE]
    pairs = dataclasses.replace(record, relations=(), events=())
    assert extractor.extract(pairs, tasks=["mre"], regions=boxes).answers == ()  # one written entity is no pair


def test_a_thin_box_is_at_least_one_pixel_wide():
    record = Record("", image="x.png", regions=[Region((0.9999, 0.1, 1.0, 0.10001))])
    found = umie.extraction.Extraction(record, image_size=(10, 10))
    assert found.pixel_box(Argument("Agent", regions=(0,))) == (9, 1, 10, 2)


def test_the_image_size_respects_exif_orientation(extractor, records, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    event = Event("meet", None, (Argument("Agent", regions=(0,)),))
    record = Record("", str(tmp_path / "turned.jpg"), [Region((0, 0, 1, 1))], events=[event])
    assert umie.extraction.media.image_sizes(record) == ((20, 40),)


def test_the_json_form_is_a_record_with_extra_keys(extractor, records):
    asked = records[2]
    found = extractor.extract(dataclasses.replace(asked, image="some.png"), asked.image, regions=asked.regions)
    data = json.loads(json.dumps(found.to_json()))
    assert set(data["gate"]) <= set(TASKS)
    for name in ("gate", "warnings"):
        data.pop(name)
    for item in (*data.get("entities", ()), *data.get("events", ())):
        assert 0 < item.pop("probability") <= 1
        for argument in item.get("arguments", ()):
            for extra in ("box", "pixels", "probability"):
                argument.pop(extra, None)
    record = record_from_json(json.dumps(data))
    assert (record.text, record.entities, record.events) == (found.text, found.entities, found.events)


def test_media_in_memory_have_no_name_in_the_json_form(extractor, noise):
    clip = Clip((noise(8, 8), noise(8, 8)), (0.0, 0.5), 1.0)
    record = Record(TEXT, noise(8, 8), audio=Sound(np.zeros(1000, np.float32), 1000), video=clip)
    data = extractor.extract(dataclasses.replace(record, more_images=(noise(8, 8),)), tasks=["med"]).to_json()
    assert (data["images"], data["audio"], data["video"]) == (["in memory"] * 2, "in memory", "in memory")
    assert {"image", "audio", "video"}.isdisjoint(extractor.extract(TEXT, tasks=["med"]).to_json())


@pytest.mark.parametrize(
    ("policy", "message"),
    [("text_only", "answered from the text only"), ("skip", "the record was skipped")],
)
def test_a_missing_image(learned, policy, message):
    found = Extractor(*learned, missing_images=policy).extract(TEXT, "no/such.png")
    ((kind, said),) = found.warnings
    assert kind == "image"
    assert said == f"no/such.png: no such image; {message}"
    plain = Extractor(*learned).extract(TEXT)
    if policy == "skip":
        assert (found.entities, found.events, found.answers, found.gate) == ((), (), (), {})
    else:
        assert (found.entities, found.record.relations, found.events) == (
            plain.entities,
            plain.record.relations,
            plain.events,
        )
        assert set(found.gate.values()) == {None}


def test_a_missing_image_is_an_error_by_default(learned):
    with pytest.raises(umie.UmieError, match=r"no/such.png: no such image; fix the file, or set missing_images"):
        Extractor(*learned).extract(TEXT, "no/such.png")
    placed = Extractor(*learned).extract_many(
        ["Ann", Record("Bob", "no/such.png")], place=lambda n: f"in.jsonl:{n + 7}"
    )
    with pytest.raises(umie.UmieError, match=r"^in.jsonl:8: record 'Bob': no/such.png"):
        list(placed)


def test_missing_images_defaults_to_the_setting_of_the_processor(variant, learned):
    model, processor = variant(missing_images="text_only")
    assert kinds(Extractor(model, processor).extract("Ann", "no.png", tasks=["mner"])) == ["image"]
    assert processor.missing_images == "text_only"
    assert processor.counts == {}


def test_an_image_outside_its_folder_is_an_error(learned, tmp_path):
    record = Record("Ann", "../x.png", image_folder=str(tmp_path))
    with pytest.raises(umie.UmieError, match="is outside the directory"):
        Extractor(*learned, missing_images="skip").extract(record)


def test_unused_images_and_regions_give_warnings(variant, learned, records, noise):
    assert kinds(Extractor(*learned).extract(TEXT, tasks=["mner"], regions=[(0, 0, 1, 1)])) == ["regions"]
    many = [(index / 50, 0, (index + 1) / 50, 1) for index in range(40)]
    found = Extractor(*learned).extract(TEXT, noise(20, 20), tasks=["mner"], regions=many)
    assert found.warnings == (("regions", "only the first 36 of 40 regions were used"),)
    found = Extractor(*variant(fusion="text_only")).extract(TEXT, noise(20, 20), tasks=["mner"])
    assert found.warnings == (("image", "this variant does not use images"),)
    assert found.gate == {"mner": None}


def test_every_kind_of_notice_has_its_sentence_for_counts():
    trees = [ast.parse(path.read_text()) for path in Path(umie.extraction.__file__).parent.glob("*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    made = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Notice"]
    literal = {kind.value for kind in made if isinstance(kind, ast.Constant)}
    assert {kind.id for kind in made if not isinstance(kind, ast.Constant)} == {"medium", "kind"}
    assert literal | {*MEDIA, *PLACES.values()} == set(NOTICES)


@pytest.mark.parametrize("fusion", ["concat", "cross_attention"])
def test_a_fusion_without_a_gate_has_none(variant, records, fusion):
    assert Extractor(*variant(fusion=fusion)).extract(records[0], tasks=["mner"]).gate == {"mner": None}


def test_a_saved_variant_gives_the_same_result(extractor, checkpoint, records):
    loaded = umie.Extractor.from_pretrained(checkpoint, device="cpu")
    assert [one.record for one in loaded.extract(records[:6])] == [one.record for one in extractor.extract(records[:6])]


def test_half_precision(checkpoint, records):
    loaded = Extractor.from_pretrained(checkpoint, device="cpu", dtype="bfloat16")
    assert str(loaded.model.dtype) == "torch.bfloat16"
    assert len(loaded.extract(records[:4])) == 4


def test_features_from_a_cache(variant, records, tmp_path):
    """A processor can read features from a cache instead of computing them."""
    from umie.encoders import CachedEncoder, FeatureCache

    model, processor = variant(encoder={"name": "tiny", "trainable": False})
    expected = Extractor(model, processor, max_new_tokens=16).extract(records[:6], tasks=["mner", "med"])
    processor.features["image"] = CachedEncoder(model.encoder, FeatureCache(tmp_path))
    files = []
    for record in records[:6]:
        files.append(record)
        if record.image is not None:
            record.image.save(tmp_path / f"{record.id}.png")
            files[-1] = dataclasses.replace(record, image=str(tmp_path / f"{record.id}.png"))
    found = Extractor(model, processor, max_new_tokens=16).extract(files, tasks=["mner", "med"])
    for one, other in zip(found, expected, strict=True):
        assert [answer.output for answer in one.answers] == [answer.output for answer in other.answers]
        gates = [[answer.gate for answer in side.answers if answer.gate is not None] for side in (one, other)]
        assert gates[0] == pytest.approx(gates[1], abs=1e-6)  # batches of another size round differently


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["ner"]}, "Unknown task 'ner'"),
        ({"tasks": "mner"}, r"pass a list of task names, \['mner'\]"),
        ({"tasks": []}, "tasks is empty"),
        ({"labels": {"ner": ["x"]}}, "Unknown task in labels: 'ner'"),
        ({"tasks": ["med"], "labels": {"mner": ["x"]}}, "Unknown task in labels: 'mner'"),
        ({"labels": {"mner": []}}, "labels is empty"),
        ({"labels": {"mner": "person"}}, "expected a list of strings"),
        ({"regions": [(0, 0, 30, 40)]}, r"box \[0, 0, 30, 40\]"),
    ],
)
def test_bad_input(extractor, options, message):
    with pytest.raises(umie.UmieError, match=message):
        extractor.extract(TEXT, **options)


def test_bad_texts_and_folders(extractor, tmp_path, checkpoint):
    for text, message in (("", "text is empty"), (7, "7 is not a text"), ([7], "7 is not a text")):
        with pytest.raises(umie.UmieError, match=message):
            extractor.extract(text)
    with pytest.raises(umie.UmieError, match="put them into records"):
        extractor.extract([TEXT], "x.png")
    with pytest.raises(umie.UmieError, match="is neither an existing directory"):
        Extractor.from_pretrained(tmp_path / "none")
    with pytest.raises(umie.UmieError, match=r"does not contain umie_processor.json"):
        Extractor.from_pretrained(tmp_path)
    with pytest.raises(umie.UmieError, match="device 'warp' cannot be used"):
        Extractor.from_pretrained(checkpoint, device="warp")
    with pytest.raises(umie.UmieError, match="dtype is 'int8'"):
        Extractor.from_pretrained(checkpoint, dtype="int8")


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"max_pairs": 0}, {"constrained": "yes"}, {"missing_images": "ignore"}]
)
def test_bad_options(learned, options):
    with pytest.raises(umie.UmieError, match=next(iter(options)).split("_")[0]):
        Extractor(*learned, **options)


@pytest.fixture
def ner2(tmp_path):
    """A task that a plugin file registers."""
    from umie import tasks
    from umie.registry import load_plugins

    (tmp_path / "plugin.py").write_text(
        "from umie.tasks import registry\n"
        "from umie.tasks.mner import MNER\n\n\n"
        '@registry.register("ner2")\n'
        "class Ner2(MNER):\n"
        '    name = "ner2"\n'
    )
    load_plugins([tmp_path / "plugin.py"])
    yield "ner2"
    del tasks.registry._parts["ner2"]


def test_a_registered_task_extracts_like_a_built_in_one(learned, records, ner2):
    labels = learned[1].task("mner").labels
    expected = Extractor(*learned).extract(records[:6], tasks=["mner"])
    found = Extractor(*learned).extract(records[:6], tasks=[ner2], labels={ner2: labels})
    assert [one.entities for one in found] == [one.entities for one in expected]
    assert any(one.entities for one in found)
    values, same = ([entity.probability for one in each for entity in one.entities] for each in (found, expected))
    assert values == pytest.approx(same, abs=1e-5)
    assert all(set(one.gate) == {ner2} for one in found)


def test_an_image_file_is_opened_at_most_twice(learned, records, tmp_path, monkeypatch):
    """Once for its features, and once for its size if an argument is a region."""
    opened = []
    real = Image.open
    monkeypatch.setattr(
        Image, "open", lambda file, *rest: opened.append(str(getattr(file, "name", file))) or real(file, *rest)
    )
    files = []
    for record in records[:9]:
        if record.image is not None:
            record.image.save(tmp_path / f"{record.id}.png")
            files.append(dataclasses.replace(record, image=str(tmp_path / f"{record.id}.png")))
    opened.clear()
    Extractor(*learned).extract(files)
    assert {opened.count(record.image) for record in files} <= {1, 2}


def test_labels_that_mean_no_relation(extractor):
    """A label that may mean it is warned about; a chosen one is ``none`` in the result."""
    record = Record(TEXT, relations=(Relation("none", ANN, BOB),))
    labels = {"mre": ["negative"]}  # the only possible answer
    found = extractor.extract(record, tasks=["mre"], labels=labels)
    assert ([item.type for item in found.relations], "no relation" in kinds(found)) == (["negative"], True)
    with no_relation_names(["negative"]):
        found = extractor.extract(record, tasks=["mre"], labels=labels)
    assert [item.type for item in found.record.relations] == ["none"]
    assert (found.relations, "no relation" in kinds(found)) == ((), False)
    found = extractor.extract(record, tasks=["mre"], labels={"mre": ["NA"]})
    assert (found.relations, "no relation" in kinds(found)) == ((), True)


def test_labels_without_one_for_no_relation_are_warned_about(extractor):
    record = Record(TEXT, relations=(Relation("none", ANN, BOB),))
    for labels, expected in ((["employs"], True), (["employs", "none"], False), (["employs", "NA"], False)):
        found = extractor.extract(record, tasks=["mre"], labels={"mre": labels})
        assert any("every pair gets a relation" in one.message for one in found.warnings) == expected
