"""A region's number affects the answer only through slot embeddings; without them renumbering changes nothing."""

from dataclasses import replace

import pytest
import torch

NAMED = {"num_slot_embeddings": 5, "normalize": True}


def logits(model, processor, records):
    """Return the logits of each record's arguments."""
    with torch.no_grad():
        return [model(**processor(record, "meae")).logits for record in records]


@pytest.mark.parametrize("fusion", [{"name": "gated", "gate": 1.0}, "concat", "cross_attention"], ids=str)
def test_renumbering_regions_is_seen_with_slot_embeddings_only(variant, embedded_records, fusion):
    """Labels keep the old numbers, so that the decoder's input stays the same."""
    records = [record for record in embedded_records if record.events][:4]
    arguments = [tuple(item for item in record.events[0].arguments if not item.regions) for record in records]
    records = [
        replace(record, events=(replace(record.events[0], arguments=kept),))
        for record, kept in zip(records, arguments, strict=True)
    ]
    turned = [replace(record, regions=tuple(reversed(record.regions))) for record in records]
    for options, is_seen in (({}, False), (NAMED, True)):
        model, processor = variant(fusion=fusion, visual_embedding=options)
        before, after = logits(model, processor, records), logits(model, processor, turned)
        change = max(float((old - new).abs().max()) for old, new in zip(before, after, strict=True))
        assert (change > 0.01) == is_seen, (options, change)
        assert is_seen or change < 1e-4
