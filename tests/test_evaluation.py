"""Evaluation: scores equal those of separate decoding and scoring, for any batches."""

import dataclasses

import pytest
import torch

from umie import compose
from umie.data.media_contents import LABELS
from umie.data.synthetic_media import SyntheticMediaConfig, write_synthetic_media
from umie.encoders.blobs import BlobConfig
from umie.encoders.regions.blobs import BlobProposer
from umie.errors import UmieError
from umie.evaluation import SourcePredictions, evaluate
from umie.evaluation.checkpoint import evaluate_checkpoint
from umie.evaluation.queries import QueryDataset
from umie.evaluation.schema import choose_tasks
from umie.records import read_jsonl
from umie.reports.checkpoint_page import page
from umie.scoring import strict_score

TASKS = ("mner", "mre", "med", "meae")


@pytest.fixture(scope="module")
def records(learned_records):
    """Twelve records, four of each kind, one of which has no image; the variant was trained on half of the records."""
    return learned_records[6:18]


@pytest.mark.parametrize("task", TASKS)
def test_scores_equal_those_of_separate_decoding_and_scoring(learned, records, task):
    model, processor = learned
    result = evaluate(model, processor, records, task, events="gold")
    assert result.is_oracle == (task == "meae")
    asked = [record for record in records if record.annotated_for(task)]
    built = processor.task(task)
    decoded = processor.decode(model.generate(**processor(asked, task)), asked, task)
    assert result.predictions == decoded
    expected = strict_score(task, decoded, asked)
    assert {name: result.scores[name] for name in expected} == expected
    positives = [{item for item in built.items(r) if built.label_of(item) != "none"} for r in asked]
    assert result.scores["gold"] == sum(map(len, positives))


@pytest.mark.parametrize("task", ["mner", "med"])
def test_scores_have_the_f1_of_each_combination_of_media(learned, records, task):
    asked = [record for record in records if record.annotated_for(task)]
    result = evaluate(*learned, asked, task)
    assert {record.combination for record in asked} == {"T", "T+I"} == set(result.scores["by_combination"])
    for name, scores in result.scores["by_combination"].items():
        own = [one for one in zip(result.predictions, asked, strict=True) if one[1].combination == name]
        expected = strict_score(task, *map(list, zip(*own, strict=True)))
        assert scores == {key: expected[key] for key in ("f1", "interval")}


def test_a_grounded_checkpoint_is_judged_by_places(variant, records):
    tasks = {name: {"grounded": True} for name in ("mner", "mre")}
    names = {"num_slot_embeddings": 5}
    model, processor = variant(tasks=tasks, visual_embedding=names, max_target_tokens=8)
    (result,) = evaluate_checkpoint(model, processor, records, choose_tasks(processor, records), resamples=10)
    assert {line.measure for line in result.report.main_lines()} == {"grounded"}
    assert "MNER, MRE: an item is correct only if the places" in page("x", [result], {}, {"gates": "gates.png"})


def test_groundings_are_compared_with_the_annotation_also_where_places_are_proposed(tmp_path):
    """Proposals are in another order than the annotated regions, or are not among them."""
    config = SyntheticMediaConfig(train=0, dev=0, test=6, combinations=("I",))
    records = list(read_jsonl(write_synthetic_media(tmp_path, config)["test"]))
    records = [record for record in records if record.annotated_for("mner")]
    proposed = list(BlobProposer(BlobConfig(top=2)).fill(records, replaces=True))
    assert any(record.gold is not None and not record.entities for record in proposed)
    torch.manual_seed(0)
    tasks = {"mner": {"grounded": True, "labels": LABELS["mner"]}}
    model, processor = compose(fusion="concat", decoder="span", tasks=tasks)
    scores = evaluate(model, processor, proposed, "mner").scores
    assert scores["groundings"]["found"][1] == sum(len(record.entities) for record in records)


def test_some_answers_of_the_model_are_correct(learned, records):
    """Otherwise, the other tests would compare zeros."""
    scores = [evaluate(*learned, records, task).scores for task in TASKS]
    assert sum(score["true_positives"] for score in scores) > 5
    assert sum(score["true_positives"] for score in scores) < sum(score["gold"] for score in scores)


@pytest.mark.parametrize("task", ["mner", "meae"])
def test_results_do_not_depend_on_the_batches(learned, records, task):
    whole, single, odd = (evaluate(*learned, records, task, batch_size=size) for size in (64, 1, 3))
    for other in (single, odd):
        assert other.scores == whole.scores
        assert other.predictions == whole.predictions
        assert sorted(other.gates) == pytest.approx(sorted(whole.gates), abs=1e-5)


def test_there_is_a_gate_for_each_query_with_an_image(learned, records):
    model, processor = learned
    for task in TASKS:
        asked = [record for record in records if record.annotated_for(task)]
        with_image = [record for record in asked if record.image is not None]
        assert 0 < len(with_image) < len(asked)
        result = evaluate(model, processor, records, task, events="gold")
        assert len(result.gates) == sum(len(processor.task(task).queries(record)) for record in with_image)
        with torch.no_grad():
            expected = model(**processor(with_image, task)).gate.tolist()
        assert sorted(result.gates) == pytest.approx(sorted(expected), abs=1e-5)


def test_there_are_no_gates_without_images_or_a_gated_fusion(learned, variant, records):
    texts = [dataclasses.replace(record, image=None) for record in records]
    assert evaluate(*learned, texts, "mner", max_new_tokens=4).gates == []
    for fusion in ("text_only", "concat"):
        assert evaluate(*variant(fusion=fusion), records, "mner", max_new_tokens=4).gates == []


def test_predictions_are_the_records_with_other_annotation(learned, records):
    result = evaluate(*learned, records, "med")
    asked = [record for record in records if record.annotated_for("med")]
    assert len(result.predictions) == len(asked) == 4
    for prediction, record in zip(result.predictions, asked, strict=True):
        assert (prediction.id, prediction.text, prediction.regions) == (record.id, record.text, record.regions)
        assert prediction.image is record.image


def test_truncated_items_are_counted_as_dropped(learned, records):
    model, processor = learned
    asked = [record for record in records if record.annotated_for("mner")]
    whole = evaluate(model, processor, records, "mner")
    cut = evaluate(model, processor, records, "mner", max_new_tokens=3)
    assert cut.scores["dropped"] > whole.scores["dropped"]
    outputs = processor.decode_text(model.generate(**processor(asked, "mner"), max_new_tokens=3), "mner")
    by_hand = [processor.task("mner").parse(output, record) for output, record in zip(outputs, asked, strict=True)]
    assert cut.scores["dropped"] == sum(items.dropped for items in by_hand)
    assert cut.scores["predicted"] == sum(map(len, by_hand))


def test_generation_options_reach_the_decoder(learned, records):
    greedy = evaluate(*learned, records, "mner", num_beams=1)
    assert evaluate(*learned, records, "mner").predictions == greedy.predictions
    model, processor = learned
    asked = [record for record in records if record.annotated_for("mner")]
    beams = processor.decode(model.generate(**processor(asked, "mner"), num_beams=3), asked, "mner")
    assert evaluate(model, processor, records, "mner", num_beams=3).predictions == beams


def test_there_is_no_dropout_and_no_gradient(variant, records):
    model, processor = variant(decoder={"overrides": {"dropout_rate": 0.5}})
    model.train()
    one, two = (evaluate(model, processor, records, "mner", max_new_tokens=6) for _ in range(2))
    assert not model.training
    assert one == two
    assert all(parameter.grad is None for parameter in model.parameters())


def test_progress_is_reported_after_every_batch(learned, records):
    calls = []
    evaluate(*learned, records, "mner", batch_size=3, max_new_tokens=2, on_batch=lambda *done: calls.append(done))
    assert calls == [(1, 2), (2, 2)]


def test_records_without_annotation_for_a_task_are_skipped(learned, records):
    assert len(evaluate(*learned, records, "mre", max_new_tokens=2).predictions) == 4
    with pytest.raises(UmieError, match="no record has a query"):
        evaluate(*learned, [record for record in records if not record.annotated_for("mre")], "mre")


def test_the_second_stage_asks_about_the_events_that_the_first_found(learned, records):
    """MEAE is asked about the predictions of MED; arguments of events that were not found are missed."""
    model, processor = learned
    two_stages = evaluate(model, processor, records, "meae", events="predicted")
    asked = [record for record in records if record.annotated_for("meae")]
    detected = evaluate(model, processor, records, "med").predictions
    meae = processor.task("meae")
    assert [meae.queries(record) for record in detected] != [meae.queries(record) for record in asked]
    by_hand = []
    for record in detected:
        queries = meae.queries(record)
        answers = processor.decode(model.generate(**processor([record], meae)), [record], meae) if queries else [record]
        by_hand += [meae.items(answers[0])]
    predicted = [meae.with_items(*pair) for pair in zip(detected, by_hand, strict=True)]
    expected = strict_score("meae", predicted, asked)
    assert {name: two_stages.scores[name] for name in expected} == expected
    assert two_stages.scores["gold"] == evaluate(model, processor, records, "meae", events="gold").scores["gold"]
    sources = SourcePredictions()
    assert evaluate(model, processor, records, "med", sources=sources).predictions == detected
    given = evaluate(model, processor, records, "meae", sources=sources)
    assert given.scores == two_stages.scores
    assert not given.is_oracle


def test_without_events_all_arguments_are_missed(learned, records):
    model, processor = learned
    asked = [record for record in records if record.annotated_for("meae")]
    nothing = [dataclasses.replace(record, events=()) for record in asked]
    sources = SourcePredictions()
    sources.add("med", asked, nothing)
    scores = evaluate(model, processor, asked, "meae", events="predicted", sources=sources).scores
    assert scores["f1"] == 0
    assert scores["predicted"] == 0 < scores["gold"]


def test_an_unknown_choice_of_events_is_rejected(learned, records):
    with pytest.raises(UmieError, match="events is 'oracle': use one of predicted, gold"):
        evaluate(*learned, records, "meae", events="oracle")


@pytest.mark.parametrize("task", TASKS)
def test_constrained_answers_are_well_formed(learned, records, task):
    constrained = evaluate(*learned, records, task, constrained=True)
    assert constrained.scores["dropped"] == 0
    beams = evaluate(*learned, records, task, constrained=True, num_beams=2)
    assert beams.scores["dropped"] == 0


@pytest.mark.parametrize("task", TASKS)
def test_a_constraint_does_not_change_answers_that_satisfy_it(learned, records, task):
    model, processor = learned
    asked = [record for record in records if record.annotated_for(task)]
    batch = processor(asked, task)
    free = model.generate(**batch, max_new_tokens=60).tolist()
    constraint = processor.constraint(asked, task, max_new_tokens=60)
    constrained = model.generate(**batch, constraint=constraint, max_new_tokens=60).tolist()
    kept = 0
    for automaton, row, other in zip(constraint.automata, free, constrained, strict=True):
        state, tokens = automaton.start, row[1 : row.index(automaton.end) + 1] if automaton.end in row else []
        for place, token in enumerate(tokens):
            if token not in automaton.tokens(state, 60 - place):
                break
            state = automaton.next(state, token)
        else:
            kept += bool(tokens)
            assert not tokens or other[1 : len(tokens) + 1] == tokens
    assert kept


@pytest.mark.parametrize("task", ["mner", "meae"])
def test_a_task_object_has_its_own_schema(learned, records, task):
    """Data sets have different labels; the task of the processor is not changed."""
    model, processor = learned
    own = processor.task(task)
    built = type(own)(dataclasses.replace(own.config, labels=tuple(reversed(own.labels))))
    result = evaluate(model, processor, records, built, events="gold")
    asked = [record for record in records if record.annotated_for(task)]
    assert result.predictions == processor.decode(model.generate(**processor(asked, built)), asked, built)
    prompt = QueryDataset(records, [built], processor).asked[0][1].instruction
    assert prompt.index(own.labels[-1]) < prompt.index(own.labels[0])
    assert QueryDataset(records, [task], processor).asked[0][1].instruction != prompt


def test_the_first_stage_of_meae_can_use_another_schema(learned, records):
    model, processor = learned
    own = processor.task("med")
    other = type(own)(dataclasses.replace(own.config, labels=("attack",)))
    single = evaluate(model, processor, records, "meae", sources=SourcePredictions({"med": other}), constrained=True)
    sources = SourcePredictions()
    evaluate(model, processor, records, other, sources=sources, constrained=True)
    assert single.scores == evaluate(model, processor, records, "meae", sources=sources, constrained=True).scores
    assert {event.type for record in single.predictions for event in record.events} <= {"attack"}
