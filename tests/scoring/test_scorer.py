"""Whole evaluations: measures, groups of records, baselines, comparisons."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from umie.errors import UmieError, UnknownNameError
from umie.records import Argument, Entity, Event, Places, Record, Region, Relation, Segment
from umie.scoring import (
    MEASURES,
    MODALITIES,
    Prediction,
    modality_of,
    score_predictions,
    scores_by_combination,
    strict_sheet,
    to_json,
)
from umie.scoring.groups import groups_of
from umie.tasks import task_class

TEXT = "Ann met Bob in Rome"
ANN, MET, BOB, ROME = (0, 3), (4, 7), (8, 11), (15, 19)


def answers(records):
    return [Prediction(record) for record in records]


def evaluate(gold, predicted=None, **options):
    return score_predictions(gold, answers(gold if predicted is None else predicted), resamples=100, **options)


NAMES = [Record(TEXT, entities=(Entity("per", ANN), Entity("loc", ROME)), tasks=("mner",))] * 2
PAIRS = [Record(TEXT, relations=(Relation("peer", ANN, BOB), Relation("none", ANN, ROME)), tasks=("mre",))]
TEXT_ONLY = Record(TEXT, events=(Event("meet", MET, (Argument("Place", ROME),)),), tasks=("med", "meae"))
REGIONS = (Region((0, 0, 0.5, 1)), Region((0.5, 0, 1, 1)))
IMAGE_ONLY = Record("", "1.jpg", REGIONS, events=(Event("meet", None, (Argument("Entity", regions=(0,)),)),))
BOTH = replace(TEXT_ONLY, image="1.jpg", regions=REGIONS, events=(*TEXT_ONLY.events, *IMAGE_ONLY.events))
EVENTS = [TEXT_ONLY, replace(IMAGE_ONLY, tasks=("med", "meae")), BOTH]


def test_scoring_of_files_loads_no_torch():
    code = (
        "import sys, umie.scoring, umie.reports.predictions; sys.exit(bool({'torch', 'matplotlib'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_tasks_are_those_that_gold_is_annotated_for():
    report = evaluate([*NAMES, *PAIRS, *EVENTS])
    assert list(dict.fromkeys(line.task for line in report.lines)) == ["mner", "mre", "med", "meae"]
    assert [line.records for line in report.lines if line.name == "strict"] == [2, 1, 3, 1, 1, 1, 3, 1, 1, 1]
    unnamed = [replace(record, tasks=None) for record in PAIRS]
    assert {line.task for line in evaluate(unnamed).lines} == {"mre"}


def test_records_of_other_tasks_are_ignored():
    """A record that is not annotated for names does not count against a system that finds some there."""
    gold = [*NAMES, Record(TEXT, tasks=("mre",))]
    predicted = [*NAMES, Record(TEXT, entities=(Entity("per", ANN),))]
    assert evaluate(gold, predicted, tasks=["mner"]).line("mner", "strict").score.f1 == 1
    gold[2] = Record(TEXT, tasks=("mner",))
    assert evaluate(gold, predicted).line("mner", "strict").score.precision == 4 / 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["ner"]}, "Unknown task 'ner'. Did you mean 'mner'"),
        ({"modality": "image"}, "Unknown modality 'image'"),
        ({"tasks": ["mner", "mre"]}, "no record of gold is annotated for 'mre'"),
        ({"modality": "image-only"}, "no record of the modality 'image-only' of gold is annotated for 'mner'"),
    ],
)
def test_unknown_or_unannotated_tasks_are_refused(options, message):
    with pytest.raises(UmieError, match=message):
        evaluate(NAMES, **options)


def test_invalid_arguments_are_refused():
    for arguments, other in ((answers(NAMES[:1]), None), (answers(NAMES), answers(NAMES[:1]))):
        with pytest.raises(UmieError, match="1 predictions for 2 records"):
            score_predictions(NAMES, arguments, other=other)
    with pytest.raises(UmieError, match="resamples is 0"):
        score_predictions(NAMES, answers(NAMES), resamples=0)
    with pytest.raises(UmieError, match="seed is -1"):
        score_predictions(NAMES, answers(NAMES), seed=-1)


def test_gold_without_annotation_is_refused():
    with pytest.raises(UmieError, match="not annotated for any task"):
        evaluate([Record(TEXT)])


def test_an_unknown_task_is_an_unknown_name():
    with pytest.raises(UnknownNameError):
        evaluate(NAMES, tasks=["xyz"])


def test_modalities_depend_on_text_and_image():
    assert [modality_of(record) for record in EVENTS] == ["text-only", "image-only", "multimedia"]


def test_every_modality_has_its_own_lines():
    predicted = [replace(TEXT_ONLY, events=()), EVENTS[1], BOTH]
    report = evaluate(EVENTS, predicted)
    f1 = {name: report.line("med", "strict", modality=name).score.f1 for name in MODALITIES}
    assert f1 == {"text-only": 0, "image-only": 1, "multimedia": 1}
    assert report.line("med", "strict", modality="all").score == pytest.approx((1, 3 / 4, 6 / 7, 3, 3, 4))
    assert {line.modality for line in report.lines if line.measure == "text or image"} == {"multimedia"}


def test_one_modality_can_be_chosen_and_a_single_one_is_named():
    chosen = evaluate(EVENTS, modality="image-only")
    single = evaluate(EVENTS[1:2])
    for report in (chosen, single):
        assert {line.modality for line in report.lines} == {"image-only"}
        assert report.line("med", "strict").records == 1
    assert chosen.lines == single.lines


SOUND = Record("", audio="1.wav", segments=(Segment((0, 1)),), entities=(Entity("dog", segments=(0,)),))
MIXED = [Record(TEXT, entities=(Entity("per", ANN),)), replace(SOUND, text=TEXT), SOUND, SOUND]


def test_every_combination_of_media_has_its_own_lines():
    gold = [*MIXED, Record("", audio="2.wav", video="2.mp4")]  # the last has no items, and no lines
    report = evaluate(gold, [*MIXED[:2], replace(SOUND, entities=()), SOUND, gold[-1]], tasks=["mner"])
    found = {line.modality: (line.records, line.score.gold) for line in report.lines if line.name == "grounded"}
    assert found == {"all": (5, 4), "T": (1, 1), "T+A": (1, 1), "A": (2, 2)}
    assert [modality for _, modality, _ in report.parts()] == ["all", "T", "A", "T+A"]
    assert report.line("mner", "grounded", modality="A").score[:2] == (1, 0.5)
    assert {line["modality"] for line in to_json(report)["measures"]} == {"all", "T", "A", "T+A"}
    chosen = evaluate(gold, modality="T+A")
    assert {(line.modality, line.records) for line in chosen.lines} == {("T+A", 1)}


def test_events_have_one_split():
    """That of M2E2 where there are only texts and images, and that by combination where there is a sound."""
    heard = replace(SOUND, entities=(), events=(Event("meet", segments=(0,)),), tasks=("med",))
    names = {line.modality for line in evaluate([*EVENTS, heard]).lines if line.task == "med"}
    assert names == {"all", "T", "I", "T+I", "A"}
    assert {line.modality for line in evaluate([heard]).lines} == {"all"}
    lines = evaluate([*EVENTS, heard]).lines
    assert {line.modality for line in lines if line.measure == "text or image"} == {"T+I"}
    assert modality_of(heard) == "A"
    assert {line.records for line in evaluate([*EVENTS, heard], modality="text-only").lines} == {1}


def test_the_main_measure_of_a_grounded_task_comes_first():
    for gold in (NAMES, [replace(one, tasks=("mner",)) for one in MIXED]):
        report = evaluate(gold, main={"mner": "grounded"})
        assert {line.measure for line in report.main_lines()} == {"grounded"}
        assert {lines[0].measure for _, _, lines in report.parts()} == {"grounded"}
        assert report.line("mner", "strict").score.f1 == 1


def test_the_f1_of_each_combination():
    gold = [replace(one, tasks=("mner",)) for one in MIXED]
    sheet = strict_sheet("mner", [*gold[:2], replace(SOUND, entities=()), SOUND], gold, "grounded")
    found = scores_by_combination(sheet, gold)
    assert {name: scores["f1"] for name, scores in found.items()} == {"T": 1, "A": pytest.approx(2 / 3), "T+A": 1}
    known = {"f1": 0.25, "interval": [0, 1]}  # of a single combination, the scores of all records
    assert scores_by_combination(sheet, gold, known) == found
    single = strict_sheet("mner", gold[:1], gold[:1], "grounded")
    assert scores_by_combination(single, gold[:1], known | {"gold": 1}) == {"T": known}
    assert scores_by_combination(single, gold[:1])["T"]["f1"] == 1


def test_measures_without_items_are_omitted_except_for_the_first():
    names = [line.measure for line in evaluate([TEXT_ONLY]).lines if line.task == "meae" and line.average == "micro"]
    assert names == ["strict", "textual", "by type", "textual by type", "string"]
    empty = evaluate([Record(TEXT, tasks=("mner",))])
    assert [(line.measure, line.score.f1, line.interval) for line in empty.lines] == [("strict", 0, (0, 0))]


def test_perfect_predictions_are_perfect_in_every_measure():
    argument = Argument("Entity", ANN, regions=(0, 1))
    shown = Record(
        "Ann", "a", REGIONS,
        entities=(Entity("person", ANN, regions=(1,)),),
        relations=(Relation("self", ANN, ANN, head_places=Places((1,))),),
        events=(Event("meet", None, (argument,), regions=(0,)),),
    )  # fmt: skip
    report = evaluate([*NAMES, shown, *PAIRS, *EVENTS])
    assert {(line.score.precision, line.score.recall, line.score.f1) for line in report.lines} == {(1, 1, 1)}
    assert {line.interval for line in report.lines} == {(1, 1)}
    assert {(task_class(line.task).kind, line.measure) for line in report.lines} == {
        (measure.kind, measure.name) for measure in MEASURES
    }


def test_a_resample_without_items_is_ignored():
    """One of ten records has the only image: a third of the resamples do not contain it, and do not count as 0."""
    gold = [replace(IMAGE_ONLY, tasks=("meae",)), *[Record("", "2.jpg", tasks=("meae",))] * 9]
    assert evaluate(gold).line("meae", "visual instance").interval == (1, 1)


def test_intervals_baselines_and_labels():
    gold = [Record(TEXT, entities=(Entity("per", ANN),))] * 20 + [Record(TEXT, entities=(Entity("loc", ROME),))] * 20
    predicted = [replace(record, entities=record.entities * (place % 2)) for place, record in enumerate(gold)]
    train = [Record("Ann", entities=(Entity("per", (0, 3)),))]
    line = evaluate(gold, predicted, train=train, seed=1).line("mner", "strict")
    assert line.score.f1 == pytest.approx(2 / 3)
    assert line.interval[0] < 2 / 3 < line.interval[1]
    assert (line.baseline, line.baseline_f1) == ("mentions of train", pytest.approx(2 * 20 / (40 + 40)))
    assert {label: score.f1 for label, (score, _) in line.labels.items()} == pytest.approx({"loc": 2 / 3, "per": 2 / 3})
    assert line.interval[0] > line.labels["loc"][1][0]  # a label has fewer items than all together
    again = evaluate(gold, predicted, train=train, seed=1).line("mner", "strict")
    assert again == line
    assert evaluate(gold, predicted, train=train, seed=2).line("mner", "strict").interval != line.interval


def test_macro_lines_follow_micro_if_there_are_labels():
    predicted = [replace(NAMES[0], entities=NAMES[0].entities[:1]), NAMES[1]]
    report = evaluate(NAMES, predicted)
    assert report.line("mner", "strict", "macro").score.f1 == pytest.approx((1 + 2 / 3) / 2)
    with pytest.raises(UmieError, match="no measure mner boundary macro"):
        report.line("mner", "boundary", "macro")


def test_a_system_against_itself_and_against_a_better_one():
    gold = [Record(TEXT, entities=(Entity("per", ANN), Entity("loc", ROME)))] * 30
    half = [replace(record, entities=record.entities[:1]) for record in gold]
    same = evaluate(gold, half, other=answers(half)).line("mner", "strict").versus
    assert same == (pytest.approx(2 / 3), 0, (0, 0), 1, 1)
    for average in ("micro", "macro"):
        worse = evaluate(gold, half, other=answers(gold)).line("mner", "strict", average).versus
        better = evaluate(gold, gold, other=answers(half)).line("mner", "strict", average).versus
        assert better.difference == -worse.difference > 0.3
        assert better.p_randomization == worse.p_randomization == pytest.approx(1 / 101)
        assert better.p_bootstrap == worse.p_bootstrap == pytest.approx(2 / 101)
    assert evaluate(gold).line("mner", "strict").versus is None


def test_systems_without_items_are_equal():
    gold = [Record(TEXT, tasks=("mner",))]
    versus = evaluate(gold, gold, other=answers(gold)).line("mner", "strict").versus
    assert (versus.difference, versus.p_bootstrap, versus.p_randomization) == (0, 1, 1)


def test_systems_with_other_labels_are_compared():
    gold = NAMES * 5
    renamed = [replace(record, entities=(Entity("x", ANN), Entity("loc", ROME))) for record in gold]
    nothing = [replace(record, entities=()) for record in gold]
    for other in (renamed, nothing):
        versus = evaluate(gold, gold, other=answers(other)).line("mner", "strict", "macro").versus
        assert versus.difference > 0.5


def test_answers_without_offsets_get_only_the_measure_of_strings():
    loose = [Prediction(Record(TEXT), {"entities": (("per", "Ann"), ("loc", "Rome"), ("loc", "Rome"))})] * 2
    report = score_predictions(NAMES, loose, resamples=100, other=answers(NAMES))
    assert [(line.measure, line.average) for line in report.lines] == [("string", "micro"), ("string", "macro")]
    assert report.lines[0].score[:3] == pytest.approx((2 / 3, 1, 4 / 5))
    assert report.lines[0].versus.other == 1
    assert report.released == []
    assert list(report.left_out) == ["released mner"]
    turned = score_predictions(NAMES, answers(NAMES), resamples=100, other=loose)
    assert {line.measure for line in turned.lines if line.versus is not None} == {"string"}
    assert turned.line("mner", "strict").score.f1 == 1


def test_a_task_without_scores_is_listed_with_the_reason():
    """The argument is a region: if the trigger is a string, nothing can be compared."""
    gold = [Record(TEXT, "1.jpg", REGIONS, events=(Event("meet", MET, (Argument("Entity", regions=(0,)),)),))]
    loose = [Prediction(Record(TEXT, "1.jpg", REGIONS), {"events": (("meet", "met"),), "arguments": ()})]
    report = score_predictions(gold, loose, resamples=100)
    assert {line.task for line in report.lines} == {"med"}
    assert list(report.left_out) == ["released med", "meae", "released meae"]
    assert "no offsets" in report.left_out["meae"]
    assert to_json(report)["left_out"] == report.left_out
    assert evaluate(gold).left_out == {}


def test_a_repeated_task_is_scored_once():
    assert evaluate(NAMES, tasks=["mner", "mner"]) == evaluate(NAMES, tasks=["mner"])


def test_the_json_form_is_complete():
    report = evaluate([*NAMES, *EVENTS], other=answers([*NAMES, *EVENTS]), seed=5)
    data = json.loads(json.dumps(to_json(report)))
    assert (data["seed"], data["resamples"], data["level"]) == (5, 100, 0.95)
    assert len(data["measures"]) == len(report.lines)
    first = data["measures"][0]
    assert first["labels"]["per"]["true_positives"] == 2
    assert first["versus"]["p_randomization"] == 1
    assert {key: first[key] for key in ("task", "measure", "average", "modality", "records", "predicted", "gold")} == {
        "task": "mner", "measure": "strict", "average": "micro", "modality": "all",
        "records": 2, "predicted": 4, "gold": 4,
    }  # fmt: skip
    assert [item["task"] for item in data["released"]] == ["mner", "med", "meae"]
    assert data["released"][2]["dropped"] == {"event type of one word": 2, "visual argument": 2}


def test_every_measure_has_a_definition():
    assert all(len(measure.definition) > 20 and measure.definition.endswith(".") for measure in MEASURES)
    assert len({(measure.kind, measure.name) for measure in MEASURES}) == len(MEASURES)


def test_records_can_be_grouped_by_the_number_of_their_items():
    counts = [0, 1, 1, 3, 4, 5]
    gold = [Record("a " * 6, entities=tuple(Entity("per", (2 * n, 2 * n + 1)) for n in range(size))) for size in counts]
    gold = [replace(one, tasks=("mner",)) for one in gold]
    found = {line.modality: (line.records, line.score.gold) for line in evaluate(gold, group_by="items").lines}
    assert found == {"all": (6, 14), "1 item": (2, 2), "3 items": (1, 3), "4 or more items": (2, 9)}
    assert to_json(evaluate(gold, group_by="items"))["group_by"] == "items"
    pairs = tuple(Relation(kind, ANN, BOB) for kind in ("none", "peer", "none"))
    assert groups_of("mre", [Record(TEXT, relations=pairs)], "items")[0] == ["1 item"]
    gold = [Record(TEXT, relations=(Relation(kind, ANN, BOB),)) for kind in ("none", "peer")]
    lines = [line for line in evaluate(gold, group_by="items").lines if line.measure == "strict"]
    assert {line.modality for line in lines} == {"all", "1 item"}  # nothing to score is no F1 of 0
    report = evaluate([BOTH], group_by="items")
    assert "text or image" in {line.measure for line in report.lines if line.task == "med"}
    with pytest.raises(UnknownNameError, match="Unknown grouping 'item'. Did you mean 'items'"):
        evaluate(gold, group_by="item")


def test_records_can_be_grouped_by_whether_text_and_media_show_the_same_items():
    both, told, heard = Entity("per", ANN, segments=(0,)), Entity("per", ANN), Entity("dog", segments=(0,))
    media = {"audio": "1.wav", "segments": (Segment((0, 1)),), "tasks": ("mner",)}
    gold = [Record(TEXT, entities=items, **media) for items in ((both,), (both, heard), (told,), ())]
    gold += [Record("", entities=(heard,), **media), Record(TEXT, entities=(told,), tasks=("mner",))]
    report = evaluate(gold, group_by="alignment")
    found = {line.modality: (line.records, line.score.gold) for line in report.lines if line.name == "strict"}
    assert found == {"all": (6, 6), "aligned": (1, 1), "unaligned": (2, 3)}
    alone = evaluate([gold[0], gold[-1]], group_by="alignment")
    assert {line.modality for line in alone.lines} == {"all", "aligned"}
    shown = Event("meet", MET, (Argument("Agent", segments=(0,)),))
    media["tasks"] = ("med",)
    cases = ((shown, "aligned"), (replace(shown, trigger=None), "unaligned"), (Event("meet", MET), "unaligned"))
    for event, name in cases:
        assert groups_of("med", [Record(TEXT, events=(event,), **media)], "alignment")[0] == [name]
    pair = Relation("peer", ANN, None, Places(segments=(0,)), Places(segments=(0,)))
    half = Record(TEXT, relations=(pair, replace(pair, tail=ANN)), **{**media, "tasks": ("mre",)})
    whole = replace(half, relations=(replace(pair, tail=ANN),))
    assert [groups_of("mre", [one], "alignment")[0] for one in (half, whole)] == [["unaligned"], ["aligned"]]
