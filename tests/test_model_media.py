"""Variants that see images, sounds and videos: batches, absent media, hidden media, saving, and every decoder."""

import dataclasses

import numpy as np
import pytest
import torch

import umie
from umie import Record, Region, compose
from umie.evaluation import evaluate
from umie.media import Clip, Sound
from umie.records import Entity, Event, Relation, Segment, Track

BOX = (0.1, 0.2, 0.5, 0.6)
MEDIA = {"video_encoder": "tiny_video", "audio_encoder": {"name": "tiny_audio", "rate": 4_000}}
TASKS = {
    name: {"labels": labels, "grounded": True}
    for name, labels in {
        "mner": ("person", "place"), "mre": ("none", "peer"), "med": ("meet",), "meae": ("Agent",),
    }.items()
}  # fmt: skip
DECODERS = ["t5", "causal", "span"]


@pytest.fixture(scope="module")
def records(noise):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 8_000).astype(np.float32)
    image = {"image": noise(60, 40), "regions": (Region(BOX), Region((0.5, 0.5, 1, 1)))}
    audio = {"audio": Sound(samples, 4_000), "segments": (Segment((0.2, 0.7)), Segment((1, 1.5)), Segment((1.6, 2)))}
    video = {
        "video": Clip(tuple(noise(60, 40, seed) for seed in range(4)), (0, 0.25, 0.5, 0.75), 1),
        "tracks": (Track((0, 0.5), (BOX, (0, 0, 1, 1))),),
    }
    some = [
        {"text": "Ann met Bob", **image},
        {"text": "Ann", **audio},
        {"text": "Ann left", **image, **audio},
        {"text": "", **image},
        {"text": "", **audio},
        {"text": "", **video, **audio},
        {"text": "Ann went", **image, **audio, **video},
        {"text": "Ann alone"},
    ]
    found = []
    for one in some:
        record = Record(**one)
        places = [(medium, record.places(medium)) for medium in record.media]
        kinds = {"image": "regions", "audio": "segments", "video": "tracks"}
        shown = {kinds[medium]: (len(own) - 1,) for medium, own in places}
        span = (0, 3) if record.text else None
        ends = umie.records.Places(**shown)
        found.append(
            Record(
                **one,
                entities=(Entity("person", span, **shown),),
                relations=(Relation("peer", span, span, ends, ends),),
                events=(Event("meet", span, (umie.records.Argument("Agent", span, **shown),), **shown),),
            )
        )
    return found


def built(decoder, fusion="gated"):
    torch.manual_seed(0)
    embedding = {"num_slot_embeddings": 5}
    return compose("tiny", fusion, decoder, tasks=TASKS, visual_embedding=embedding, **MEDIA)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("fusion", ["gated", "concat", "cross_attention", "text_only"])
def test_a_batch_of_all_combinations_is_that_of_single_records(records, decoder, fusion):
    model, processor = built(decoder, fusion)
    for task in TASKS:
        together = model(**processor(records, task))
        assert together.loss.isfinite()
        for row, record in enumerate(records):
            alone = model(**processor([record], task))
            length = alone.text_states.shape[1]
            torch.testing.assert_close(together.text_states[row, :length], alone.text_states[0], atol=1e-5, rtol=0)
            if decoder == "t5":
                steps = alone.logits.shape[1]
                torch.testing.assert_close(together.logits[row, :steps], alone.logits[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("decoder", DECODERS)
def test_without_media_a_variant_is_one_of_text(records, decoder):
    model, processor = built(decoder)
    plain = Record("Ann met Bob", entities=(Entity("person", (0, 3)),))
    batch = processor([plain], "mner")
    names = [name for name in batch if name in model.visual_input_names]
    assert {"visual_mask", "audio.visual_mask", "video.visual_mask"} <= set(names)
    text = {name: tensor for name, tensor in batch.items() if name not in names}
    assert torch.equal(model(**batch).logits, model(**text).logits)
    with_text = processor([plain, records[6]], "mner")
    assert model(**with_text).loss.isfinite()


def test_slots_of_all_media_reach_the_fusion_and_the_loss(records):
    model, processor = built("span")
    model.train()
    out = model(**processor(records, "mner"))
    assert out.visual_states.shape[1] == 3 + 2 + 4  # of image, video and sound, each with the whole
    out.loss.backward()
    for name, parameter in model.named_parameters():
        if "encoder.layers" in name or "visual_embedding" in name:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert all(model.visual_embedding.media[medium].medium.grad.any() for medium in ("video", "audio"))


def test_what_stands_in_padding_slots_never_matters(records):
    model, processor = built("span")
    batch = processor(records, "mner")
    spoilt = {name: tensor.clone() for name, tensor in batch.items()}
    inputs = {"": ("boxes", "crops"), "audio.": ("boxes", "spans", "bands"), "video.": ("boxes", "crops", "paths")}
    for prefix, names in inputs.items():
        for name in names:
            spoilt[prefix + name][~batch[f"{prefix}visual_mask"]] = 1e4
    torch.testing.assert_close(model(**spoilt).logits, model(**batch).logits, atol=1e-5, rtol=0)


def test_hidden_media_are_as_if_absent_but_their_places_keep_their_names(records):
    _, processor = built("t5")
    processor.blind = frozenset({"audio"})
    batch = processor(records, "mner")
    assert not batch["audio.visual_mask"].any()
    assert batch["visual_mask"].any()
    assert "S3" in records[1].place_names()


def test_dropped_media_are_dropped_in_training_only(records):
    model, processor = built("t5")
    batch = processor(records, "mner")
    model.drop_media = 0.999999
    expected = model(**{name: value for name, value in batch.items() if name not in model.visual_input_names}).loss
    assert not torch.isclose(model(**batch).loss, expected)
    model.decoder.eval()
    model.training = True
    torch.testing.assert_close(model(**batch).loss, expected)


@pytest.mark.parametrize("decoder", DECODERS)
def test_answers_are_well_formed_and_name_only_places_that_exist(records, decoder):
    model, processor = built(decoder)
    for task in TASKS:
        found = evaluate(model, processor, records, task, constrained=True, max_new_tokens=40)
        assert found.scores["dropped"] == 0
        for record, predicted in zip(records, found.predictions, strict=True):
            assert all(record.has(item.places) for item in (*predicted.entities, *predicted.events))


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_saved_variant_is_the_same(records, decoder, tmp_path):
    model, processor = built(decoder)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, processor_again = umie.load(tmp_path, device="cpu")
    batch = processor(records, "mner")
    for name, tensor in processor_again(records, "mner").items():
        assert torch.equal(tensor, batch[name]), name
    assert torch.equal(again(**batch).logits, model(**batch).logits)


def test_an_encoder_of_another_medium_is_one_line():
    with pytest.raises(umie.UmieError, match="TinyAudioEncoder encodes audio, not image: set it as audio_encoder"):
        compose("tiny_audio")
    with pytest.raises(umie.UmieError, match="the audio_encoder TinyEncoder encodes image, not audio: set it as enc"):
        compose(audio_encoder="tiny")


def test_extraction_uses_all_media(records):
    model, processor = built("span")
    found = umie.Extractor(model, processor).extract(records[6], tasks=["mner"])
    assert not [notice for notice in found.warnings if notice.kind in ("image", "audio", "video")]
    blind, processor = compose("tiny", "gated", "span", tasks=TASKS)
    notices = umie.Extractor(blind, processor).extract(records[6], tasks=["mner"]).warnings
    assert {"this variant does not use sounds", "this variant does not use videos"} <= {one.message for one in notices}


def test_the_gate_is_that_of_records_with_any_medium(records):
    extractor = umie.Extractor(*built("span", "gated"))
    found = {record.combination: extractor.extract(record, tasks=["mner"]).gate["mner"] for record in records}
    assert {name for name, gate in found.items() if gate is None} == {"T"}
    assert {"T+A", "A", "A+V"} < {name for name, gate in found.items() if gate}


@pytest.mark.parametrize("hidden", ["blind", "unreadable"])
def test_places_of_a_medium_that_is_not_seen_do_not_have_the_slots_of_another(records, hidden):
    """Of `span`: without the image, its regions are no candidates, although the sound has slots there."""
    _, processor = built("span")
    seen = records[2]  # an image with two regions, a sound with three segments
    if hidden == "blind":
        processor.blind = frozenset({"image"})
    else:
        processor.missing_images = "text_only"
        seen = dataclasses.replace(seen, image="no such file.png")
    batch = processor([seen], "mner")
    assert batch["pointing_mask"].tolist() == [[False, False, True, True, True]]
    alone = processor([dataclasses.replace(seen, text="", entities=(), relations=(), events=())], "mner")
    assert (alone["labels"][0, :5, 0] == -100).tolist() == [True, True, False, False, False]
    pair = Relation("peer", None, None, umie.records.Places(regions=(1,)), umie.records.Places(segments=(0,)))
    asked = processor([dataclasses.replace(seen, entities=(), events=(), relations=(pair,))], "mre")
    assert asked["target_slots"][0, 0] == -1
    assert asked["target_slots"][0, 1] == 1  # the whole sound is slot 0


def test_an_entity_without_a_span_in_a_text_is_not_asked_about(records):
    for decoder in ("span", "t5"):
        _, processor = built(decoder)
        both = dataclasses.replace(records[0], entities=(*records[0].entities, Entity("place", None, regions=(0,))))
        batch, plain = processor([both], "mner"), processor([records[0]], "mner")
        assert torch.equal(batch["labels"], plain["labels"])
