"""Probabilities of the items of generated answers, compared with sums over all answers."""

import itertools

import pytest
import torch

from umie import Extractor
from umie.composition import compose
from umie.constrained import Constraint
from umie.evaluation import QueryDataset
from umie.evaluation.answers import answer_queries


def answers(variant, records, task, **options):
    model, processor = variant
    built = processor.task(task)
    dataset = QueryDataset(records, [built], processor)
    return answer_queries(
        model, processor, built, dataset.asked, dataset, dataset.lengths, probabilities=True, batch_size=8, **options
    )


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("task", ["mner", "mre", "med", "meae"])
def test_every_item_has_a_probability(learned, learned_records, task, constrained):
    records = [record for record in learned_records if record.annotated_for(task)]
    found = answers(learned, records, task, constrained=constrained)
    assert sum(len(answer.items) for answer in found) > 0
    for answer in found:
        assert len(answer.items.probabilities) == len(answer.items)
        assert all(0 < value <= 1 + 1e-6 for value in answer.items.probabilities)


@torch.no_grad()
def test_the_probabilities_of_all_relations_sum_to_one(embedded_records):
    """An answer to MRE has at least one label, so the probabilities of its first label are a distribution."""
    torch.manual_seed(0)
    model, processor = compose(fusion="text_only")
    task = processor.task("mre")
    record = next(record for record in embedded_records if record.annotated_for("mre"))
    (query,) = task.queries(record)
    batch = processor(record, task)
    fused, _, _ = model.fuse(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    total = 0.0
    for label in task.labels:
        written = task.style.linearize([type(query.items[0])(label)])
        constraint = Constraint(processor.tokenizer, task, [(record, query)], 128)
        ids = processor.tokenizer(written).input_ids[:-1]
        start = model.decoder.seq2seq.config.decoder_start_token_id
        logits = model.decoder(fused, decoder_input_ids=torch.tensor([[start, *ids[:-1]]])).logits[0]
        value = 0.0
        for step, token, allowed in zip(logits, ids, constraint.allowed(0, ids), strict=True):
            value += float(step[token] - step[list(allowed)].logsumexp(0))
        total += torch.tensor(value).exp().item()
    assert total == pytest.approx(1, abs=1e-4)
    (answer,) = answers((model, processor), [record], "mre", constrained=True)
    assert 0 < answer.items.probabilities[0] < 1


def test_a_constraint_only_raises_probabilities(learned, learned_records):
    """The same tokens are chosen from fewer."""
    records = [record for record in learned_records if record.annotated_for("mner")]
    free, constrained = (answers(learned, records, "mner", constrained=one) for one in (False, True))
    compared = 0
    for one, other in zip(free, constrained, strict=True):
        if one.items == other.items:
            for lower, higher in zip(one.items.probabilities, other.items.probabilities, strict=True):
                assert lower <= higher + 1e-6
                compared += 1
    assert compared > 3


def test_extractions_carry_probabilities(learned, learned_records):
    found = Extractor(*learned).extract(learned_records)
    items = list(itertools.chain.from_iterable((*one.entities, *one.events) for one in found))
    assert items
    for one in found:
        data = one.to_json()
        for item, written in zip(one.entities, data.get("entities", ()), strict=True):
            assert written["probability"] == round(item.probability, 4)
        for event in one.events:
            assert 0 < event.probability <= 1
            assert all(argument.probability is not None for argument in event.arguments)
        lines = str(one).splitlines()
        assert lines[0] == one.text
        assert len(lines) - 1 == max(
            1, len(one.entities) + len(one.relations) + sum(1 + len(e.arguments) for e in one.events)
        )
        assert all(f"p={item.probability:.2f}" in str(one) for item in one.entities)
