"""Generation under a constraint with random weights: every answer parses, and its spans are in the text."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator

import pytest
import torch
from published import FOLDER
from transformers import LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutput

from umie import data
from umie.records import Event, Record, Relation
from umie.tasks import registry

TASKS = ("mner", "mre", "med", "meae")
REAL = [("twitter", "twitter2017/test.txt"), ("mnre", "mnre_v2/test.txt"), ("m2e2", "m2e2/text_multimedia_event.json")]
NEW_TOKENS = 48


def randomized(model, seed, scale=0.3):
    """Redraw all weights of the decoder, so that answers are long and diverse."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.decoder.parameters():
        parameter.data.normal_(0, scale, generator=generator)
    return model


def asked_for(record: Record, name: str, rng: random.Random) -> Record:
    """Return a record of any data set with something for this task to ask about."""
    places = [rng.randrange(len(record.text)) for _ in range(2)]
    head, tail = ((place, min(len(record.text), place + rng.randint(1, 9))) for place in places)
    if name == "mre":
        return dataclasses.replace(record, relations=(Relation("none", head, tail),))
    return dataclasses.replace(record, events=(Event("meet", head),)) if name == "meae" else record


def real_records(number: int) -> list[Record]:
    """Return records without images, taken from the published files in turn."""
    if not all((FOLDER / file).exists() for _, file in REAL):
        pytest.skip(reason="the published files are not available")
    found = [
        list(data.read(format_name, FOLDER / file, images=FOLDER / "m2e2/images" if format_name == "m2e2" else None))
        for format_name, file in REAL
    ]
    mixed = [records[index % len(records)] for index in range(number) for records in found][:number]
    return [dataclasses.replace(record, image=None) for record in mixed if record.text.strip()]


def generations(
    model, processor, records, name, batch_size=50, limit=NEW_TOKENS, **options
) -> Iterator[tuple[Record, str]]:
    task = processor.task(name)
    for start in range(0, len(records), batch_size):
        part = records[start : start + batch_size]
        constraint = processor.constraint(part, task, max_new_tokens=limit)
        rows = model.generate(**processor(part, task), constraint=constraint, max_new_tokens=limit, **options)
        assert rows.shape[1] <= limit + 1
        answered = processor.decode(rows, part, task, constraint)
        assert processor.counts["dropped_items"] == 0, constraint.read(rows)
        yield from zip(answered, constraint.read(rows), strict=True)


def check(model, processor, records, name, **options) -> int:
    """Return the number of generated items; ``decode`` raises if a span leaves the text."""
    task = registry.build(name)
    labels = set(processor.task(name).labels)
    num_items = 0
    for (answer, output), record in zip(generations(model, processor, records, name, **options), records, strict=True):
        assert answer.text == record.text
        found = task.items(answer)
        for item in found:
            label = item.arguments[0].role if name == "meae" else item.type
            assert label in labels, output
        num_items += len(found)
    return num_items


@pytest.mark.parametrize("name", TASKS)
def test_answers_to_embedded_texts_can_be_read(name, variant, embedded_records):
    model, processor = variant(fusion="gated")
    records = [record for record in embedded_records if record.annotated_for(name)]
    assert sum(check(randomized(model, seed), processor, records, name) for seed in range(3)) > len(records) / 2


@pytest.mark.slow
@pytest.mark.parametrize("style", ["structured", "paper", "released"])
@pytest.mark.parametrize("name", TASKS)
def test_1000_answers_to_real_texts_can_be_read(name, style, variant, tokenizer):
    model, processor = variant(fusion="text_only", tasks={name: {"style": style}}, tokenizer=tokenizer)
    rng = random.Random(name)
    records = [asked_for(record, name, rng) for record in real_records(1100)][:1000]
    assert len(records) == 1000
    num_items = 0
    for seed in range(4):
        options = {"do_sample": True} if seed % 2 else {}
        if style == "released":
            options["limit"] = 128  # this tokenizer writes a sentinel with a dozen tokens
        num_items += check(randomized(model, seed), processor, records[seed * 250 : (seed + 1) * 250], name, **options)
    assert num_items > 50


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_50_answers_to_real_texts_can_be_read(name, variant):
    model, processor = variant(fusion="text_only", tasks={name: {}})
    rng = random.Random(name)
    records = [asked_for(record, name, rng) for record in real_records(60)][:50]
    assert check(randomized(model, 1), processor, records, name) > 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mner", {"num_beams": 3}),
        ("mre", {"do_sample": True}),
        ("med", {"num_beams": 2, "do_sample": True}),
        ("meae", {"num_beams": 3}),
    ],
    ids=str,
)
def test_beams_and_samples_can_be_read(name, options, variant, embedded_records):
    model, processor = variant()
    randomized(model, 5)
    records = [record for record in embedded_records if record.annotated_for(name)][:12]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        check(model, processor, records, name, **options)


@pytest.mark.parametrize("name", TASKS)
def test_an_answer_does_not_depend_on_its_batch(name, variant, embedded_records):
    model, processor = variant()
    randomized(model, 7)
    records = [record for record in embedded_records if record.annotated_for(name)][:12]
    together = [output for _, output in generations(model, processor, records, name, batch_size=12)]
    single = [output for _, output in generations(model, processor, records, name, batch_size=1)]
    assert together == single
    assert len(set(together)) > 1 or name == "mre"


@pytest.mark.parametrize(
    ("name", "fusion"), [("mner", "gated"), ("mre", "concat"), ("med", "text_only"), ("meae", "concat")]
)
def test_greedy_answers_equal_those_of_transformers_loop(name, fusion, variant, embedded_records):
    """With jumps, without jumps, and with transformers' generate and the constraint as its logits processor."""
    model, processor = variant(fusion=fusion)
    records = [record for record in embedded_records if record.annotated_for(name)][:10]
    batch = processor(records, name)
    for seed in range(2):
        randomized(model, seed)
        constraint = processor.constraint(records, name, max_new_tokens=NEW_TOKENS)
        jumped = model.generate(**batch, constraint=constraint, max_new_tokens=NEW_TOKENS)
        stepped = model.generate(**batch, constraint=constraint, max_new_tokens=NEW_TOKENS, jump_forward=False)
        assert torch.equal(jumped, stepped)
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        with torch.no_grad():
            fused, _, _ = model.fuse(**inputs)
            constraint.restart()
            theirs = model.decoder.seq2seq.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=fused.states),
                attention_mask=fused.mask.long(),
                logits_processor=LogitsProcessorList([constraint]),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                num_beams=1,
            )
        assert torch.equal(jumped, theirs)


def test_without_a_constraint_nothing_changes(variant, embedded_records):
    model, processor = variant()
    randomized(model, 3)
    records = [record for record in embedded_records if record.annotated_for("mner")][:8]
    batch = processor(records, "mner")
    before = model.generate(**batch, max_new_tokens=16)
    constraint = processor.constraint(records, "mner", max_new_tokens=16)
    constrained = model.generate(**batch, constraint=constraint, max_new_tokens=16)
    after = model.generate(**batch, max_new_tokens=16)
    with torch.no_grad():
        fused, _, _ = model.fuse(**{key: value for key, value in batch.items() if key != "labels"})
        plain = model.decoder.seq2seq.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=fused.states),
            attention_mask=fused.mask.long(),
            max_new_tokens=16,
        )
    assert torch.equal(before, after)
    assert torch.equal(before, plain)
    assert constrained.shape != before.shape or not torch.equal(constrained, before)


def test_zero_shot_labels_are_generated_without_training(variant, embedded_records):
    model, processor = variant()
    task = registry.build("mner", labels=["space ship", "émigré, old"])
    records = [record for record in embedded_records if record.annotated_for("mner")][:10]
    found = [
        item.type
        for seed in range(8)
        for answer, _ in generations(randomized(model, seed), processor, records, task)
        for item in answer.entities
    ]
    assert set(found) == {"space ship", "émigré, old"}


def test_one_constraint_serves_several_generations(variant, embedded_records):
    model, processor = variant()
    randomized(model, 6)
    records = [record for record in embedded_records if record.annotated_for("meae")][:6]
    batch = processor(records, "meae")
    constraint = processor.constraint(records, "meae", max_new_tokens=30)
    beams = model.generate(**batch, constraint=constraint, max_new_tokens=30, num_beams=2)
    greedy = model.generate(**batch, constraint=constraint, max_new_tokens=30)
    assert torch.equal(model.generate(**batch, constraint=constraint, max_new_tokens=30), greedy)
    assert torch.equal(model.generate(**batch, constraint=constraint, max_new_tokens=30, num_beams=2), beams)
