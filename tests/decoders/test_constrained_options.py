"""A constraint respects the limits and generation options of a call or a checkpoint."""

import dataclasses

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessor

from umie.decoders import registry
from umie.errors import UmieError


class NoEnd(LogitsProcessor):
    """Makes the end of an answer improbable, so that only the limit ends it."""

    def __call__(self, input_ids, scores):
        return scores.index_add(1, torch.tensor([1]), torch.full((len(scores), 1), -50.0))


@pytest.fixture(scope="module")
def asked(variant, embedded_records):
    """A variant with large random weights, four records, their batch and its fused states."""
    model, processor = variant(fusion="text_only")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in model.decoder.parameters():
            parameter.data.normal_(0, 0.3)
    records = [dataclasses.replace(r, image=None) for r in embedded_records if r.annotated_for("mner")][:4]
    batch = processor(records, "mner")
    fused, _, _ = model.fuse(batch["input_ids"], batch["attention_mask"])
    return model, processor, records, batch, fused


@pytest.mark.parametrize("jump_forward", [True, False])
@pytest.mark.parametrize(
    ("options", "longest"),
    [
        ({"max_new_tokens": 20}, 21),
        ({"max_new_tokens": 20, "num_beams": 3}, 21),
        ({"max_new_tokens": 20, "do_sample": True}, 21),
        ({"max_length": 12}, 12),
        ({"generation_config": GenerationConfig(max_new_tokens=12)}, 13),
        ({"max_new_tokens": None}, 49),
        ({"max_new_tokens": 500}, 49),
    ],
    ids=["new", "beams", "sampled", "length", "config", "none", "more than the constraint's"],
)
def test_an_answer_ends_within_the_tighter_limit(asked, options, longest, jump_forward):
    model, processor, records, _, fused = asked
    constraint = processor.constraint(records, "mner", max_new_tokens=48)
    rows = model.decoder.generate(
        fused, constraint, jump_forward=jump_forward, logits_processor=[NoEnd()], **options
    ).tolist()
    assert max(map(len, rows)) <= longest
    assert all(processor.tokenizer.eos_token_id in row for row in rows)
    assert sum(items.dropped for items in processor.parse(constraint.read(rows), records, "mner")) == 0


@pytest.mark.parametrize("jump_forward", [True, False])
def test_a_constraint_for_another_batch_is_refused(asked, jump_forward):
    model, processor, records, _, fused = asked
    for count in (0, 2):
        constraint = processor.constraint(records[:count], "mner")
        with pytest.raises(UmieError, match=f"4 rows for {count} queries"):
            model.decoder.generate(fused, constraint, jump_forward=jump_forward, max_new_tokens=8)
    with pytest.raises(UmieError, match="max_new_tokens is 0: use a whole number of at least 1"):
        processor.constraint(records, "mner", max_new_tokens=0)


def test_one_constraint_serves_two_generations(asked):
    model, processor, records, batch, _ = asked
    constraint = processor.constraint(records, "mner", max_new_tokens=32)
    options = {"num_beams": 2, "max_new_tokens": 32}
    first, second = (model.generate(**batch, constraint=constraint, **options) for _ in range(2))
    assert torch.equal(first, second)
    shorter = model.generate(**batch, constraint=constraint, max_new_tokens=6, num_beams=2)
    assert shorter.shape[1] <= 7
    assert torch.equal(model.generate(**batch, constraint=constraint, **options), first)


def test_beams_set_by_the_checkpoint_are_kept(asked):
    model, processor, records, _, fused = asked
    config = model.decoder.seq2seq.generation_config
    try:
        config.num_beams = 3
        by_default, by_processor = (
            model.decoder.generate(
                fused, processor.constraint(records, "mner", 24), jump_forward=jump, max_new_tokens=24
            )
            for jump in (True, False)
        )
    finally:
        config.num_beams = 1
    beams = model.decoder.generate(fused, processor.constraint(records, "mner", 24), num_beams=3, max_new_tokens=24)
    assert torch.equal(by_default, beams)
    assert torch.equal(by_processor, beams)


def test_a_constraint_works_under_autocast(asked):
    model, processor, records, batch, _ = asked
    constraint = processor.constraint(records, "mner", max_new_tokens=16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = model.generate(**batch, constraint=constraint, max_new_tokens=16)
    assert sum(items.dropped for items in processor.parse(constraint.read(rows), records, "mner")) == 0


def test_num_layers_applies_to_encoder_and_decoder():
    built = registry.construct("t5", {"source": "flan-t5-small", "overrides": {"num_layers": 2, "vocab_size": 300}})
    assert len(built.seq2seq.encoder.block) == len(built.seq2seq.decoder.block) == 2
    uneven = registry.construct("t5", {"source": "tiny", "overrides": {"num_layers": 1, "num_decoder_layers": 2}})
    assert (len(uneven.seq2seq.encoder.block), len(uneven.seq2seq.decoder.block)) == (1, 2)
