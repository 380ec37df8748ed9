"""Records with several images: slots and batches, features from a cache, targets, policies, saving, extraction."""

import dataclasses

import pytest
import torch

import umie
from umie import Record, Region, compose
from umie.encoders import CachedEncoder, FeatureCache
from umie.errors import UmieError
from umie.evaluation import evaluate
from umie.extraction import Extractor
from umie.processor import UmieProcessor
from umie.records import Argument, Entity, Event
from umie.types import FEATURES

LEFT, RIGHT, CORNER = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.6, 0.7, 1.0, 1.0)
TASKS = {
    name: {"labels": labels, "grounded": True}
    for name, labels in {"mner": ("person", "place"), "med": ("meet",), "meae": ("Agent",)}.items()
}
ENCODERS = {
    "tiny": {"name": "tiny"},
    "clip": {"name": "clip", "model": "ViT-S-32-alt", "mode": "pool", "short_side": 160},
    "resnet101_roi": {"name": "resnet101_roi", "mode": "align", "short_side": 64},
}
EMBEDDING = {"num_slot_embeddings": 6, "num_image_embeddings": 2}


def record_of(images, regions, shown):
    """Return a record, whose entity, event and argument are shown by regions."""
    image, *more_images = images or [None]
    return Record(
        "Ann met Bob",
        image,
        tuple(Region(box, image=number) for box, number in regions),
        entities=(Entity("person", (0, 3), regions=shown), Entity("person", (8, 11))),
        events=(Event("meet", (4, 7), (Argument("Agent", (0, 3), regions=shown),)),),
        more_images=tuple(more_images),
    )


@pytest.fixture(scope="module")
def records(noise):
    first, second, third = noise(60, 40), noise(40, 60, 1), noise(50, 50, 2)
    return [
        record_of([first], [(LEFT, 0), (RIGHT, 0)], (1,)),
        record_of([first, second], [(LEFT, 0), (RIGHT, 1), (CORNER, 0)], (1,)),
        record_of([], [], ()),
        record_of([third, second, first], [(LEFT, 2), (RIGHT, 1), (CORNER, 1), (LEFT, 0)], (0, 2)),
        record_of([second, third], [], ()),
        record_of([third], [], ()),
    ]


def built(encoder="tiny", decoder="span", fusion="gated", layers="plain", **options):
    torch.manual_seed(0)
    embedding = {**EMBEDDING, "layers": layers}
    return compose({**ENCODERS[encoder], **options}, fusion, decoder, tasks=TASKS, visual_embedding=embedding)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def states_of(model, batch):
    """Return the states of all images and their mask."""
    return model.embed_visual(None, {name: value for name, value in batch.items() if model._takes(name)})


@pytest.fixture(scope="module", params=[*ENCODERS, "tiny concat t5"])
def of_encoder(request):
    """Model and processor with an encoder, and embeddings of images that count."""
    encoder, *others = request.param.split()
    model, processor = built(encoder, "span", *others)
    torch.nn.init.normal_(model.visual_embedding.images.weight)
    return model.eval(), processor


def test_a_mixed_batch_is_that_of_single_records(of_encoder, records):
    model, processor = of_encoder
    batch = processor(records, "meae")
    with torch.no_grad():
        together, (states, mask) = model(**batch), states_of(model, batch)
        for row, record in enumerate(records):
            alone = processor([record], "meae")
            found = model(**alone)
            length = alone["input_ids"].shape[1]
            close(together.text_states[row, :length], found.text_states[0])
            close(together.fused_states[row, :length], found.fused_states[0, :length])
            if found.gate is not None:
                close(together.gate[row], found.gate[0])
            num_slots = alone["visual_mask"].shape[1]
            assert not mask[row, num_slots:].any()
            if record.images:
                close(states[row, :num_slots], states_of(model, alone)[0][0])
            assert ("slot_sources" in alone) == (len(record.images) > 1)


def test_two_images_are_those_encoded_alone_in_the_order_of_the_regions(of_encoder, records):
    model, processor = of_encoder
    first, second = records[1].images
    batch = processor([records[1]], "mner")
    with torch.no_grad():
        found = model.encode_medium("image", batch)
        one = model.encoder.encode([first], [[LEFT, CORNER]])
        two = model.encoder.encode([second], [[RIGHT]])
    order = [(one, 0), (one, 1), (two, 1), (one, 2), (two, 0)]  # image, O1, O2, O3, second image
    close(found.features[0], torch.stack([part.features[0, slot] for part, slot in order]))
    assert torch.equal(found.boxes[0], torch.stack([part.boxes[0, slot] for part, slot in order]))
    assert found.images.tolist() == [[1, 1, 2, 1, 2]]
    assert found.mask.all()
    assert torch.equal(batch["visual_mask"], found.mask)


def test_one_image_has_no_other_keys_and_no_other_parameters(records):
    _, processor = built()
    assert set(processor(records[:1], "med")) == set(processor(records[2:3], "med"))
    assert not any("image" in name for name in processor(records[:1], "med"))
    torch.manual_seed(0)
    plain, _ = compose("tiny", "gated", "span", tasks=TASKS)
    assert not any("visual_embedding.images" in name for name in plain.state_dict())


@pytest.mark.parametrize("decoder", ["t5", "causal"])
def test_an_answer_names_a_region_of_the_second_image(decoder, records):
    model, processor = built(decoder=decoder)
    (query,) = processor.task("mner").queries(records[1])
    assert "O2" in query.answer
    found = evaluate(model, processor, records, "mner", constrained=True, max_new_tokens=30)
    assert found.scores["dropped"] == 0


def test_a_candidate_points_at_its_region_whatever_the_image(records):
    _, processor = built()
    batch = processor(records, "mner")
    row = 1
    places = batch["place_slots"][row, :3].tolist()
    assert places == [1, 2, 3]
    assert batch["slot_sources"][row, places].tolist() == [[1, 1], [2, 1], [1, 2]]
    spans = batch["spans"][row, :, 3:].tolist()
    pointing = batch["labels"][row, spans.index([0, 3]), batch["label_tokens"].shape[1] :]
    assert pointing[:3].tolist() == [0, 1, 0]
    assert batch["pointing_mask"][row].tolist() == [True, True, True, False]


def test_gradients_reach_the_second_image(records):
    model, processor = built()
    batch = processor(records, "mner")
    crops = batch["image2.crops"].requires_grad_()
    model.train()(**batch).loss.backward()
    real = batch["image2.visual_mask"]
    assert (crops.grad.flatten(2).abs().sum(2) > 0)[real].all()
    assert model.visual_embedding.images.weight.grad.abs().sum(1).all()


def test_what_stands_in_empty_slots_never_matters(records):
    model, processor = built()
    batch = processor(records, "mner")
    spoilt = {name: value.clone() for name, value in batch.items()}
    for prefix in ("image1.", "image2.", "image3."):
        for name in ("boxes", "crops"):
            spoilt[prefix + name][~batch[prefix + "visual_mask"]] = 1e4
    spoilt["boxes"][~batch["visual_mask"]] = 1e4
    close(model.eval()(**spoilt).logits, model(**batch).logits)


@pytest.mark.parametrize("encoder", ["tiny", "clip"])
def test_features_from_a_cache_are_those_computed(encoder, records, tmp_path):
    model, processor = built(encoder, trainable=False)
    model.eval()
    expected = model(**processor(records, "mner")).logits
    processor.features["image"] = cached = CachedEncoder(model.encoder, FeatureCache(tmp_path))
    for _ in range(2):
        batch = processor(records, "mner")
        assert FEATURES in batch and "image1.boxes" not in batch
        close(model(**batch).logits, expected)
    assert cached.calls == 8  # distinct images with their regions


def test_regions_beyond_the_most_are_left_out_whatever_their_image(records):
    _, processor = built(max_regions=2)
    cut = dataclasses.replace(records[1], regions=records[1].regions[:2])
    found, expected = processor.encode_media(records[1]), processor.encode_media(cut)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert found["slot_sources"].tolist() == [[1, 0], [1, 1], [2, 1], [2, 0]]


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_image_has_no_slots(missing, records, tmp_path):
    model, processor = built()
    model.eval()
    names = ["a.png", "b.png"]
    for name, image in zip(names, records[1].images, strict=True):
        image.save(tmp_path / name)
    (tmp_path / names[missing]).unlink()
    record = dataclasses.replace(records[1], image="a.png", more_images=["b.png"], image_folder=str(tmp_path))
    with pytest.raises(UmieError, match=f"{names[missing]}.*missing_images"):
        processor([record], "mner")
    processor.missing_images = "skip"
    assert processor.usable([record, records[0]]) == [records[0]]
    processor.reset_counts()
    processor.missing_images = "text_only"
    batch = processor([record], "mner")
    assert processor.counts["missing_images"] == 1
    assert list(processor.unreadable) == [str(tmp_path / names[missing])]
    kept = [[False, False, True, False, True], [True, True, False, True]][missing]
    assert batch["visual_mask"].tolist() == [kept]
    assert batch["pointing_mask"].tolist() == [kept[1:4]]
    assert model(**batch).loss.isfinite()
    found = Extractor(model, processor).extract(record, tasks=["mner"])
    assert [notice.message for notice in found.warnings if "answered from the text and other images" in notice.message]


def test_without_any_readable_image_the_text_remains(records):
    model, processor = built()
    processor.missing_images = "text_only"
    gone = dataclasses.replace(records[1], image="none.png", more_images=("no.png",))
    batch = processor([gone], "med")
    assert batch["visual_mask"].shape == (1, 0)
    text = {name: value for name, value in batch.items() if not model._takes(name)}
    assert torch.equal(model.eval()(**batch).logits, model(**text).logits)


def test_save_and_load(records, tmp_path):
    model, processor = built()
    torch.nn.init.normal_(model.visual_embedding.images.weight)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, batch = umie.UmieModel.from_pretrained(tmp_path), UmieProcessor.from_pretrained(tmp_path)(records, "mner")
    assert torch.equal(again.eval()(**batch).logits, model.eval()(**batch).logits)
    weight = model.visual_embedding.images.weight.detach()
    with torch.no_grad():
        model.visual_embedding.images.weight[1] += 1
    changed = (states_of(model, batch)[0] != states_of(again, batch)[0]).any(2).any(1)
    assert changed.tolist() == [len(record.images) > 1 for record in records]
    assert weight.shape == (2, 96)


def test_an_extractor_takes_a_list_of_images(records, tmp_path):
    model, processor = built(decoder="t5")
    extractor = Extractor(model, processor, max_new_tokens=20)
    images, regions = list(records[1].images), records[1].regions
    found = extractor.extract("Ann met Bob", images, regions=regions, tasks=["mner"])
    assert found.record.images == tuple(images)
    assert found.answers == extractor.extract(records[1], tasks=["mner"]).answers
    assert found.answers[0].gate != extractor.extract("Ann met Bob", images[0], tasks=["mner"]).answers[0].gate
    batch = extractor.extract([*records, *records[::-1]], tasks=["mner"])
    assert [one.answers for one in batch[:6]] == [one.answers for one in batch[:5:-1]]
    shown = dataclasses.replace(found, image_size=(60, 40), more_image_sizes=((40, 60),))
    argument = Argument("Agent", regions=(1,))
    assert shown.pixel_box(argument) == (20, 0, 40, 60)
    assert dataclasses.replace(shown, more_image_sizes=()).pixel_box(argument) is None
    with pytest.raises(UmieError, match="region 0 is in image 2"):
        extractor.extract("Ann met Bob", images, regions=[Region(LEFT, image=2)])
