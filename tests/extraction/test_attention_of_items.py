"""Attention from the words of items to what the model sees."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from umie.errors import UmieError
from umie.extraction import Attention, Extractor
from umie.extraction.attention import rows_of
from umie.records import Entity, Record, Region
from umie.reports.attention_figure import draw_attention


@pytest.fixture(scope="module")
def seen(learned_records):
    return next(record for record in learned_records if record.image is not None and record.entities)


def by_hand(model, processor, record, span):
    """Return the mean attention of the tokens of a span, found by decoding prefixes of the input."""
    task = processor.task("mner")
    (query,) = task.queries(dataclasses.replace(record, entities=()))
    batch = processor(dataclasses.replace(record, entities=(), relations=(), events=(), tasks=("mner",)), "mner")
    inputs = {key: value for key, value in batch.items() if key not in model.decoder.input_names}
    with torch.no_grad():
        fused, _, _ = model.fuse(output_attention=True, **inputs)
    words = processor.tokenizer(f"{query.instruction} {record.text}", return_offsets_mapping=True).offset_mapping
    start = len(query.instruction) + 1
    rows = [row for row, (a, b) in enumerate(words) if a < span[1] + start and b > max(a, span[0] + start)]
    return fused.attention[0].mean(0)[rows].mean(0)


@pytest.mark.parametrize(
    "parts",
    [
        {"fusion": "gated"},
        {"fusion": "cross_attention"},
        {"fusion": "gated", "decoder": {"name": "span", "max_width": 3}},
    ],
    ids=str,
)
def test_weights_are_those_of_the_fusion(variant, seen, parts):
    model, processor = variant(**parts)
    extractor = Extractor(model, processor)
    record = dataclasses.replace(seen, regions=(Region((0, 0, 0.5, 0.5)), Region((0.5, 0.5, 1, 1))), events=())
    found = extractor.extract(record, tasks=["mner"])
    found = dataclasses.replace(found, record=dataclasses.replace(found.record, entities=seen.entities))
    attention = extractor.attention(found)
    assert [one.span for one in attention] == [one.span for one in seen.entities]
    for one in attention:
        assert list(one.weights) == ["image", "O1", "O2"]
        assert sum(one.weights.values()) == pytest.approx(1, abs=1e-5)
        expected = by_hand(model, processor, record, one.span)
        assert list(one.weights.values()) == pytest.approx(expected.tolist(), abs=1e-5)
    header, *rows = rows_of(attention, found.record)
    assert header == ("attention of", "image", "O1", "O2")
    assert len(rows) == len(attention)


def test_several_images_have_names(learned, seen):
    extractor = Extractor(*learned)
    record = Record("Ann met Bob", seen.image, more_images=(seen.image,), entities=(Entity("person", (0, 3)),))
    found = extractor.extract(dataclasses.replace(record, entities=()), tasks=["mner"])
    found = dataclasses.replace(found, record=dataclasses.replace(found.record, entities=record.entities))
    (one,) = extractor.attention(found)
    assert list(one.weights) == ["image", "image 2"]
    assert sum(one.weights.values()) == pytest.approx(1, abs=1e-5)


def test_without_attention_there_is_an_error(variant, learned, seen):
    with pytest.raises(UmieError, match="the model sees no image"):
        extractor = Extractor(*learned)
        extractor.attention(extractor.extract("Ann met Bob", tasks=["mner"]))
    extractor = Extractor(*variant(fusion="concat"))
    found = extractor.extract(seen, tasks=["mner"])
    found = dataclasses.replace(found, record=dataclasses.replace(found.record, entities=seen.entities))
    with pytest.raises(UmieError, match="the fusion concat has no attention"):
        extractor.attention(found)


def test_the_figure_shades_the_regions_by_their_attention(variant, seen, tmp_path):
    model, processor = variant(fusion="gated")
    regions = (Region((0.05, 0.1, 0.45, 0.9)), Region((0.55, 0.1, 0.95, 0.9)))
    record = dataclasses.replace(seen, image=Image.new("RGB", (400, 200), "black"), regions=regions)
    span = seen.entities[0].span
    weights = {"image": 0.1, "O1": 0.1, "O2": 0.8}
    attention = [Attention("mner", seen.entities[0], span, weights)] * 2
    draw_attention(attention, record, tmp_path / "a.png")
    drawn = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    orange = drawn[..., 0] - drawn[..., 2]  # more red than blue
    middle = orange[:, : orange.shape[1] // 2]  # the first panel
    left, right = middle[:, : middle.shape[1] // 2], middle[:, middle.shape[1] // 2 :]
    assert np.percentile(right, 60) > np.percentile(left, 60) + 50
    with pytest.raises(UmieError, match="no attention to a region"):
        draw_attention([Attention("mner", seen.entities[0], span, {"image": 1.0})], record, tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()
    found = Extractor(model, processor).extract(dataclasses.replace(seen, regions=regions), tasks=["mner"])
    found = dataclasses.replace(found, record=dataclasses.replace(found.record, entities=seen.entities))
    draw_attention(Extractor(model, processor).attention(found), found.record, tmp_path / "c.svg")
    assert "O2" in (tmp_path / "c.svg").read_text()
