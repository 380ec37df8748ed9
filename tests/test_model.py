"""UmieModel with every fusion: saving, images or features, no image = plain T5, batches, generation, gates, parts."""

import copy
import dataclasses
import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from umie import fusion as fusions
from umie.checkpoints import MANIFEST
from umie.errors import UmieError
from umie.model import UmieConfig, UmieModel, UmieOutput
from umie.processor import UmieProcessor
from umie.types import FEATURES, FusedStates, VisualFeatures

OPTIONS = {
    "gated": [
        {},
        {"residual": "released"},
        {"gate": 0.05, "detach_gate": True},
        {"gate": 0.5, "residual": "released", "scaled": True},
    ]
}
FUSIONS = [
    pytest.param({"name": name, **options}, id="-".join([name, *map(str, options.values())]))
    for name in fusions.registry.names()
    for options in OPTIONS.get(name, [{}])
]
SEEING = [param for param in FUSIONS if fusions.registry.get(param.values[0]["name"]).uses_image]
# with random weights, a tied head repeats one token; an untied head generates different tokens
UNTIED = {"source": "tiny", "overrides": {"tie_word_embeddings": False}}
every_fusion = pytest.mark.parametrize("fusion", FUSIONS)
every_seeing_fusion = pytest.mark.parametrize("fusion", SEEING)


@pytest.fixture(scope="module")
def build(variant):
    """A shared model and its processor for a fusion; a test that changes the model uses ``variant`` instead."""
    made = {}

    def make(fusion):
        key = json.dumps(fusion)
        if key not in made:
            made[key] = variant(fusion=fusion, decoder=UNTIED, visual_embedding={"num_slot_embeddings": 3})
        return made[key]

    return make


@pytest.fixture(scope="module")
def records(embedded_records):
    """Six records with names, every other one without an image, with different numbers of regions."""
    chosen = [record for record in embedded_records if record.entities][:6]
    return [
        dataclasses.replace(record, image=None, regions=())
        if index % 2
        else dataclasses.replace(record, regions=record.regions[: index // 2 + 1])
        for index, record in enumerate(chosen)
    ]


@pytest.fixture(scope="module")
def textual(records):
    """The same records, all without images."""
    return [dataclasses.replace(record, image=None, regions=()) for record in records]


def logits(model, batch, **options):
    with torch.no_grad():
        return model(**batch, **options).logits


def plain(model, batch):
    """Return the output of the inner T5 for the same tokens."""
    names = ("input_ids", "attention_mask", "labels")
    with torch.no_grad():
        return model.decoder.seq2seq(**{name: batch[name] for name in names})


def close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@every_fusion
def test_forward(build, records, fusion):
    model, processor = build(fusion)
    batch = processor(records, "mner")
    with torch.no_grad():
        output = model(**batch, output_attention=True)
    num_texts, num_tokens = batch["input_ids"].shape
    assert isinstance(output, UmieOutput)
    assert output.logits.shape == (*batch["labels"].shape, len(processor.tokenizer))
    expected = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), batch["labels"].flatten())
    torch.testing.assert_close(output.loss, expected)
    assert output.text_states.shape == (num_texts, num_tokens, 96)
    assert output.fused_states.shape == (*output.fused_mask.shape, 96)
    if model.fusion.uses_image:
        assert output.visual_states.shape == (*batch["visual_mask"].shape, 96)
        assert not output.visual_states[~batch["visual_mask"]].any()
    else:
        assert output.visual_states is None
    if output.attention is not None:
        assert output.attention.shape == (num_texts, 4, num_tokens, batch["visual_mask"].shape[1])
        with_image = batch["visual_mask"].any(1)
        close(output.attention.sum(-1)[with_image], torch.ones(int(with_image.sum()), 4, num_tokens))
    with torch.no_grad():
        assert model(**batch).attention is None
        unlabeled = {name: value for name, value in batch.items() if name != "labels"}
        assert model(**unlabeled, decoder_input_ids=torch.zeros(num_texts, 2, dtype=torch.long)).loss is None


def test_attention_is_returned_if_the_fusion_attends(build, records):
    for name, has in (("gated", True), ("cross_attention", True), ("concat", False), ("text_only", False)):
        model, processor = build({"name": name})
        with torch.no_grad():
            assert (model(**processor(records, "mner"), output_attention=True).attention is not None) == has


@every_fusion
def test_saved_and_loaded(variant, aligned, records, fusion, tmp_path):
    parts = {"encoder": {"name": "tiny", "crop_size": 6}, "visual_embedding": {"num_layers": 1, "normalize": True}}
    model, processor = variant(fusion=fusion, decoder=UNTIED, **parts)
    batch = processor(records, "mner")
    expected = logits(model, batch)
    generated = model.generate(**batch, max_new_tokens=6)
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, UmieConfig)
    assert config.fusion == fusion
    assert config.encoder == parts["encoder"]
    for loaded in (UmieModel.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert isinstance(loaded, UmieModel)
        assert not loaded.training
        close(logits(loaded, batch), expected)
        assert torch.equal(logits(aligned(loaded), batch), expected)
        assert torch.equal(loaded.generate(**batch, max_new_tokens=6), generated)
        state = loaded.state_dict()
        assert set(state) == set(model.state_dict())
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert [name for name, value in loaded.named_parameters() if not value.requires_grad] == []
    again = UmieModel(config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(logits(again.eval(), batch), expected)


def test_weights_of_a_frozen_encoder_are_in_the_file(variant, aligned, records, tmp_path):
    model, processor = variant(encoder={"name": "tiny", "trainable": False})
    batch = processor(records, "mner")
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(saved[f"encoder.{name}"], value)
    loaded = UmieModel.from_pretrained(tmp_path)
    assert not any(parameter.requires_grad for parameter in loaded.encoder.parameters())
    assert all(parameter.requires_grad for parameter in loaded.visual_embedding.parameters())
    assert torch.equal(logits(aligned(loaded), batch), logits(model, batch))


@pytest.mark.parametrize(
    "lost", ["fusion.attention.key.weight", "encoder.layers.0.bias", "decoder.seq2seq.shared.weight"]
)
def test_a_directory_with_missing_weights(build, tmp_path, lost):
    model, _ = build({"name": "gated"})
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state = {name: value for name, value in state.items() if name != lost}
    if "shared" in lost:  # tied: remove all of its names
        state = {name: value for name, value in state.items() if "embed_tokens" not in name and "lm_head" not in name}
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UmieError, match="model.safetensors: is not the file that was saved"):
        UmieModel.from_pretrained(tmp_path)
    (tmp_path / MANIFEST).unlink()
    named = lost.replace("seq2seq.shared", "seq2seq.decoder.embed_tokens")  # the first of its tied names
    for loader in (UmieModel, AutoModel):
        with pytest.raises(UmieError, match=rf"missing \d weights of this variant, e\.g\. {named}"):
            loader.from_pretrained(tmp_path)


def test_a_file_of_another_configuration(build, tmp_path):
    model, _ = build({"name": "gated"})
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "fusion": {"name": "gated", "residual": "released"}}))
    with pytest.raises(UmieError, match=f"changed it on purpose, remove {MANIFEST}"):
        UmieModel.from_pretrained(tmp_path)
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(UmieError, match="missing 4 weights of this variant, .*fusion.feed_forward"):
        UmieModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("fault", ["no directory", "damaged", "another shape"])
def test_a_directory_that_cannot_be_loaded(build, tmp_path, fault):
    folder = tmp_path / "variant"
    if fault != "no directory":
        model, _ = build({"name": "gated"})
        model.save_pretrained(folder)
    if fault == "damaged":
        (folder / "model.safetensors").write_bytes(b"not a safetensors file")
    if fault == "another shape":
        (folder / MANIFEST).unlink()
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "encoder": {"name": "tiny", "crop_size": 3}}))
    with pytest.raises(UmieError, match=str(folder)):
        UmieModel.from_pretrained(folder)


@pytest.mark.parametrize("name", ["typo", "./owner/model", "../model", "~/model", "/no/model", "owner/model/", "a/b/c"])
def test_a_name_that_is_not_a_directory_is_an_error_without_the_network(monkeypatch, tmp_path, name):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")  # so that nothing next to the repository counts

    def fail(*args, **kwargs):
        raise AssertionError("transformers was called")

    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", fail)
    with pytest.raises(UmieError, match=f"'{name}' is neither an existing directory nor a hub name"):
        UmieModel.from_pretrained(name)


@every_fusion
def test_features_and_images_give_the_same_output(build, records, fusion):
    model, processor = build(fusion)
    batch = processor(records, "mner")
    texts = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    if model.encoder is None:
        visual = VisualFeatures(torch.randn(6, 2, 8), torch.rand(6, 2, 4), torch.ones(6, 2, dtype=torch.bool))
        assert torch.equal(logits(model, texts, visual=visual), logits(model, texts))
        return
    with torch.no_grad():
        visual = model.encoder(**{name: batch[name] for name in model.visual_input_names})
    assert torch.equal(logits(model, texts, visual=visual), logits(model, batch))
    other = {**batch, "crops": -batch["crops"]}
    assert torch.equal(logits(model, other, visual=visual), logits(model, batch))  # features take precedence
    assert not torch.equal(logits(model, other), logits(model, batch))
    assert torch.equal(
        model.generate(**texts, visual=visual, max_new_tokens=5), model.generate(**batch, max_new_tokens=5)
    )
    assert not torch.equal(logits(model, batch), logits(model, texts))
    made = {**texts, "boxes": visual.boxes, "visual_mask": visual.mask, FEATURES: visual.features}
    assert torch.equal(logits(model, made), logits(model, batch))
    assert torch.equal(model.generate(**made, max_new_tokens=5), model.generate(**batch, max_new_tokens=5))


@every_fusion
def test_without_images_it_is_plain_t5(build, textual, records, fusion):
    """Bit for bit: without slots, without visual tensors, and with only masked slots."""
    model, processor = build(fusion)
    batch = processor(textual, "mner")
    assert batch["visual_mask"].shape == (6, 0)
    expected = plain(model, batch)
    texts = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    masked = processor(records, "mner")
    masked["visual_mask"] = torch.zeros_like(masked["visual_mask"])
    assert masked["visual_mask"].shape[1] > 1
    asked = {name: batch[name] for name in ("input_ids", "attention_mask")}
    for given in (batch, texts, masked):
        with torch.no_grad():
            output = model(**given)
        assert torch.equal(output.logits, expected.logits)
        assert torch.equal(output.loss, expected.loss)
        assert output.gate is None or not output.gate.any()
        for options in ({}, {"num_beams": 3}):
            found = model.generate(**given, max_new_tokens=8, **options)
            assert torch.equal(found, model.decoder.seq2seq.generate(**asked, max_new_tokens=8, **options))


@every_fusion
def test_records_without_image_in_a_mixed_batch_are_plain_t5(build, records, fusion):
    model, processor = build(fusion)
    batch = processor(records, "mner")
    with_image = batch["visual_mask"].any(1)
    assert with_image.tolist() == [True, False] * 3
    found, expected = logits(model, batch), plain(model, batch).logits
    close(found[~with_image], expected[~with_image])
    assert (found[with_image] != expected[with_image]).flatten(1).any(1).all() == model.fusion.uses_image


@every_fusion
def test_logits_do_not_depend_on_the_batch(build, records, fusion):
    model, processor = build(fusion)
    batch = processor(records, "mner")
    together = logits(model, batch)
    generated = model.generate(**batch, max_new_tokens=6, min_new_tokens=6)
    for row, record in enumerate(records):
        single = processor(record, "mner")
        num_labels = single["labels"].shape[1]
        close(together[row, :num_labels], logits(model, single)[0])
        assert torch.equal(model.generate(**single, max_new_tokens=6, min_new_tokens=6)[0], generated[row])
    order = [5, 2, 0]
    close(logits(model, {name: value[order] for name, value in batch.items()}), together[order])


@every_fusion
def test_padding_never_matters(build, records, fusion):
    """Add padding to tokens and slots, with arbitrary values in it."""
    model, processor = build(fusion)
    batch = processor(records, "mner")
    expected = logits(model, batch)
    wide = {
        name: torch.nn.functional.pad(value, (0, 4), value=9 if name == "input_ids" else 0)
        for name, value in batch.items()
        if name in ("input_ids", "attention_mask")
    }
    wide["labels"] = batch["labels"]
    slots = batch["visual_mask"].shape[1]
    wide["visual_mask"] = torch.nn.functional.pad(batch["visual_mask"], (0, 3))
    wide["boxes"] = torch.nn.functional.pad(batch["boxes"], (0, 0, 0, 3))
    wide["crops"] = torch.nn.functional.pad(batch["crops"], (0, 0, 0, 0, 0, 0, 0, 3))
    assert wide["crops"].shape[1] == slots + 3
    wide["boxes"][~wide["visual_mask"]] = 0.5
    wide["crops"][~wide["visual_mask"]] = 3.0
    close(logits(model, wide), expected)


@every_fusion
def test_masks_are_converted_or_refused(build, records, fusion):
    model, processor = build(fusion)
    batch = processor(records, "mner")
    expected = logits(model, batch)
    for dtype in (torch.bool, torch.long, torch.float32):
        masks = {name: batch[name].to(dtype) for name in ("attention_mask", "visual_mask")}
        close(logits(model, {**batch, **masks}), expected)
    additive = (1 - batch["attention_mask"].float()) * -1e9
    with pytest.raises(UmieError, match="attention_mask has values other than 0 and 1"):
        logits(model, {**batch, "attention_mask": additive})


@every_fusion
def test_cache_beams_and_sampling(build, records, fusion):
    model, processor = build(fusion)
    batch = processor(records, "mner")
    greedy = model.generate(**batch, max_new_tokens=12)
    assert greedy.shape[0] == 6
    assert greedy[:, 1:].unique().numel() > 10  # a single repeated token would prove nothing
    assert torch.equal(greedy, model.generate(**batch, max_new_tokens=12, use_cache=False))
    beams = [model.generate(**batch, max_new_tokens=8, num_beams=3, use_cache=cache) for cache in (True, False)]
    assert torch.equal(*beams)
    several = model.generate(**batch, max_new_tokens=8, num_beams=3, num_return_sequences=2)
    assert several.shape[0] == 12
    assert torch.equal(several[::2, : beams[0].shape[1]], beams[0])
    samples = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        samples.append(model.generate(**batch, max_new_tokens=8, min_new_tokens=8, do_sample=True))
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])


def test_generation_options_that_are_tensors_reach_generate(build, records):
    model, processor = build({"name": "gated"})
    batch = processor(records, "mner")
    prefix = torch.tensor([[0, 17, 23]]).expand(6, -1)
    found = model.generate(**batch, max_new_tokens=4, decoder_input_ids=prefix)
    assert torch.equal(found[:, :3], prefix)


def test_generate_follows_the_image(build, records):
    """generate decodes from the fused states: its tokens are the most probable ones of forward."""
    model, processor = build({"name": "cross_attention"})
    batch = processor(records, "mner")
    found = model.generate(**batch, max_new_tokens=8, min_new_tokens=8)
    expected = logits(model, {**batch, "labels": found[:, 1:].contiguous()})
    expected[:, :, 1] = float("-inf")  # the end, which min_new_tokens forbids
    assert torch.equal(found[:, 1:], expected.argmax(-1))


@every_fusion
def test_gates(build, records, fusion):
    """``gate`` has one number per record, 0 without an image, within the bounds of the equation."""
    model, processor = build(fusion)
    batch = processor(records, "mner")
    with torch.no_grad():
        gate = model(**batch).gate
    if fusion["name"] != "gated":
        assert gate is None
        return
    with_image = batch["visual_mask"].any(1)
    assert gate.shape == (6,)
    assert not gate[~with_image].any()
    if isinstance(fusion.get("gate"), float):
        assert torch.equal(gate[with_image], torch.full((3,), fusion["gate"]))
    else:
        tau = 2.718281828**0.5
        slope = 0.0001 if fusion.get("residual") == "released" else 0.01
        assert ((-tau * slope <= gate[with_image]) & (gate[with_image] <= tau)).all()
        assert gate[with_image].unique().numel() == 3


@every_seeing_fusion
def test_gradients_reach_every_part(variant, records, fusion):
    model, processor = variant(fusion=fusion, visual_embedding={"num_slot_embeddings": 3})
    model.train()(**processor(records, "mner")).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_visual_gradient_reveals_a_closed_gate(variant, records):
    """The gradient that reaches the encoder is 0 with a closed gate, and grows with a fixed gate."""
    from umie.training import visual_gradient

    norms = []
    for gate in (0, 0.01, 1.0):
        model, processor = variant(fusion={"name": "gated", "gate": gate})
        norms.append(visual_gradient(model, processor(records, "mner")))
    assert norms[0] == 0
    assert 0 < 20 * norms[1] < norms[2]
    model, processor = variant(fusion="text_only")
    assert visual_gradient(model, processor(records, "mner")) == 0


def test_a_text_only_fusion_has_no_encoder(build, records):
    model, processor = build({"name": "text_only"})
    assert model.encoder is None
    assert model.visual_embedding is None
    batch = processor(records, "mner")
    assert batch["visual_mask"].any()
    assert torch.equal(logits(model, batch), plain(model, batch).logits)


@every_fusion
def test_a_misspelled_input_is_an_error(build, records, fusion):
    """Otherwise the image would be silently ignored."""
    model, processor = build(fusion)
    batch = processor(records, "mner")
    assert set(model.visual_input_names) == set(batch) - {"input_ids", "attention_mask", "labels"}
    batch["visual_masks"] = batch.pop("visual_mask")
    with pytest.raises(TypeError, match="unexpected input 'visual_masks'.*visual_mask"):
        model(**batch)
    with pytest.raises((TypeError, ValueError), match="visual_masks"):
        model.generate(**batch)


@every_fusion
def test_initialize_fusion(variant, records, textual, fusion):
    model, processor = variant(fusion=fusion)
    batch = processor(records, "mner")
    batch.pop("labels")
    nothing = processor(textual, "mner")
    nothing.pop("labels")
    before = copy.deepcopy(model.state_dict())
    assert model.initialize_fusion(**nothing) == {}
    dynamic = fusion["name"] == "gated" and "gate" not in fusion
    measured = model.initialize_fusion(**batch)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    if not dynamic:
        assert measured == {}
        assert not changed
        return
    assert measured["gate_cosine"] == pytest.approx(0.75, abs=1e-3)
    assert changed == {f"fusion.gate_{side}.{layer}.weight" for side in ("text", "visual") for layer in (0, 1)}
    with torch.no_grad():
        gate = model(**batch, decoder_input_ids=torch.zeros(6, 1, dtype=torch.long)).gate
    assert gate[batch["visual_mask"].any(1)].mean() == pytest.approx(0.75 * 2.718281828**0.5, abs=1e-2)


@every_fusion
def test_mixed_precision(variant, records, fusion):
    """Under autocast to bfloat16, as in the Trainer, the loss stays close to float32 and gradients are finite."""
    model, processor = variant(fusion=fusion)
    batch = processor(records, "mner")
    expected = model(**batch).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch)
    torch.testing.assert_close(output.loss.float(), expected, atol=0.05, rtol=0.05)
    output.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


@every_fusion
def test_half_precision_weights(variant, records, fusion):
    model, processor = variant(fusion=fusion)
    batch = processor(records, "mner")
    expected = logits(model, batch)
    found = logits(model.to(torch.bfloat16), batch)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.25, rtol=0.1)


def test_the_configuration_is_complete(build):
    """A saved configuration names every part and the decoder's full shape; the widths are not repeated."""
    model, _ = build({"name": "gated"})
    values = json.loads(model.config.to_json_string())
    assert values["model_type"] == "umie"
    assert values["encoder"] == {"name": "tiny"}
    assert values["fusion"] == {"name": "gated"}
    assert values["visual_embedding"] == {"num_slot_embeddings": 3}
    assert values["decoder"]["name"] == "t5"
    assert values["decoder"]["config"]["d_model"] == 96
    again = UmieModel(
        UmieConfig(**{name: values[name] for name in ("encoder", "visual_embedding", "fusion", "decoder")})
    )
    assert sum(map(torch.numel, again.parameters())) == sum(map(torch.numel, model.parameters()))


def test_defaults_of_the_configuration():
    config = UmieConfig()
    assert (config.encoder, config.fusion, config.decoder) == ({"name": "tiny"}, {"name": "gated"}, {"name": "t5"})
    assert UmieConfig(fusion={"gate": 0.5}).fusion == {"name": "gated", "gate": 0.5}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"fusion": {"name": "gatd"}}, "Unknown fusion 'gatd'. Did you mean 'gated'?"),
        ({"fusion": {"gates": 1}}, "Unknown option of fusion 'gated': 'gates'. Did you mean 'gate'?"),
        ({"encoder": {"crop": 3}}, "Unknown option of encoder 'tiny': 'crop'. Did you mean 'crop_size'?"),
        ({"visual_embedding": {"layer": 3}}, "Unknown option of visual_embedding: 'layer'. Did you mean"),
        ({"visual_embedding": {"d_model": 7}}, "the visual_embedding has d_model=7, but the decoder has d_model=96"),
        ({"visual_embedding": {"feature_dim": 7}}, "the visual_embedding has feature_dim=7, but the encoder has"),
        ({"visual_embedding": {"num_layers": -3}}, "num_layers is -3: "),
        ({"visual_embedding": {"num_heads": 5, "head_dim": None}}, "num_heads=5 does not divide d_model=96"),
        ({"visual_embedding": {"num_layers": "two"}}, "num_layers is 'two': "),
    ],
)
def test_bad_configurations(parts, message):
    with pytest.raises(UmieError) as error:
        UmieModel(UmieConfig(**parts))
    assert message in str(error.value)


def parts_of(model, **changed):
    return {"encoder": model.encoder, "visual_embedding": model.visual_embedding, "fusion": model.fusion} | {
        "decoder": model.decoder,
        **changed,
    }


@every_seeing_fusion
def test_a_model_of_built_modules_equals_the_composed_one(variant, aligned, records, fusion, tmp_path):
    options = {"encoder": {"name": "tiny", "crop_size": 6}, "visual_embedding": {"num_layers": 1, "normalize": True}}
    composed, processor = variant(fusion=fusion, decoder=UNTIED, **options)
    batch = processor(records, "mner")
    before = {name: value.clone() for name, value in composed.state_dict().items()}
    model = UmieModel.from_parts(**parts_of(composed)).eval()
    assert model.decoder is composed.decoder
    model.load_part_weights()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.config.fusion == fusion
    assert (model.config.encoder, model.config.visual_embedding) == tuple(options.values())
    assert model.config.decoder == composed.config.decoder
    expected, generated = logits(composed, batch), composed.generate(**batch, max_new_tokens=6)
    assert torch.equal(logits(model, batch), expected)
    assert torch.equal(model.generate(**batch, max_new_tokens=6), generated)
    model.save_pretrained(tmp_path)
    loaded = aligned(UmieModel.from_pretrained(tmp_path))
    assert torch.equal(logits(loaded, batch), expected)
    assert torch.equal(loaded.generate(**batch, max_new_tokens=6), generated)


def test_modules_and_options_can_be_mixed(variant, records):
    composed, processor = variant(decoder=UNTIED)
    built = fusions.registry.build("cross_attention", **{**composed.decoder.widths, "num_heads": 2, "head_dim": None})
    model = UmieModel.from_parts(
        {"name": "tiny", "crop_size": 5}, built, composed.decoder, {"num_slot_embeddings": 2}
    ).eval()
    assert model.fusion is built
    assert model.visual_embedding.config.num_slot_embeddings == 2
    assert model.config.fusion == {"name": "cross_attention", "num_heads": 2, "head_dim": None}
    again = UmieModel(UmieConfig(**{slot: getattr(model.config, slot) for slot in parts_of(model)}))
    again.load_state_dict(model.state_dict())
    assert again.fusion.config == built.config
    batch = UmieProcessor(processor.tokenizer, model.config.encoder)(records, "mner")
    assert torch.equal(logits(again.eval(), batch), logits(model, batch))
    text_only = UmieModel.from_parts(composed.encoder, {"name": "text_only"}, composed.decoder)
    assert text_only.encoder is text_only.visual_embedding is None
    assert text_only.config.encoder == {"name": "tiny"}


class Doubling(fusions.Fusion):
    """An unregistered fusion."""

    def forward(self, text, text_mask, visual, visual_mask, *, output_attention=False):
        return FusedStates(text + visual_mask.any(1)[:, None, None] * text, text_mask)


def test_an_unregistered_fusion_works_but_cannot_be_saved(variant, records, tmp_path, monkeypatch):
    composed, processor = variant(decoder=UNTIED)
    batch = processor(records, "mner")
    fusion = Doubling(fusions.FusionConfig(d_model=96, num_heads=4))
    model = UmieModel.from_parts(**parts_of(composed, fusion=fusion)).eval()
    with_image = batch["visual_mask"].any(1)
    found, expected = logits(model, batch), plain(composed, batch).logits
    close(found[~with_image], expected[~with_image])
    assert not torch.allclose(found[with_image], expected[with_image], atol=1e-3)
    assert model.generate(**batch, max_new_tokens=4).shape[0] == 6
    with pytest.raises(UmieError, match=r"its fusion, .*Doubling, is not registered: add @umie\.fusion\."):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(fusions.registry._parts, "doubling", Doubling)
    registered = UmieModel.from_parts(**parts_of(model)).eval()
    assert registered.config.fusion == {"name": "doubling", "head_dim": None, "d_ff": None}
    registered.save_pretrained(tmp_path)
    close(logits(UmieModel.from_pretrained(tmp_path), batch), found)


def test_a_custom_visual_embedding_works_but_cannot_be_saved(variant, records, tmp_path):
    class FeaturesOnly(torch.nn.Linear):
        def forward(self, visual):
            return super().forward(visual.features)

    composed, processor = variant(decoder=UNTIED)
    batch = processor(records, "mner")
    embedding = FeaturesOnly(composed.encoder.feature_dim, 96)
    model = UmieModel.from_parts(**parts_of(composed, visual_embedding=embedding)).eval()
    assert logits(model, batch).isfinite().all()
    with pytest.raises(UmieError, match="its visual_embedding, .*FeaturesOnly, is not registered"):
        model.save_pretrained(tmp_path)


def test_unsuitable_modules_are_refused(variant):
    composed, _ = variant(decoder=UNTIED)
    with pytest.raises(UmieError, match=r"the fusion is a Linear: pass a umie\.fusion\.base\.Fusion"):
        UmieModel.from_parts(**parts_of(composed, fusion=torch.nn.Linear(2, 2)))
    narrow = fusions.registry.build("gated", d_model=8, num_heads=1)
    with pytest.raises(UmieError, match="the fusion has d_model=8, but the decoder has d_model=96"):
        UmieModel.from_parts(**parts_of(composed, fusion=narrow))
    embedding = fusions.VisualEmbedding(fusions.VisualEmbeddingConfig(feature_dim=7, d_model=96, num_heads=4))
    with pytest.raises(UmieError, match="the visual_embedding has feature_dim=7, but the encoder has feature_dim="):
        UmieModel.from_parts(**parts_of(composed, visual_embedding=embedding))
    with pytest.raises(UmieError, match="Unknown fusion"):
        UmieModel.from_parts(**parts_of(composed, fusion={"name": "doubling"}))


def test_a_notebook_shows_the_parts(variant):
    model, _ = variant(fusion={"name": "gated", "gate": 0.25})
    for parameter in model.encoder.parameters():
        parameter.requires_grad = False
    page = model._repr_html_()
    total = sum(parameter.numel() for parameter in model.fusion.parameters())
    assert f"<tr><td>fusion</td><td>gated</td><td>gate=0.25</td><td>{total:,}</td><td>{total:,}</td></tr>" in page
    assert re.search(r"<td>encoder</td><td>tiny</td><td></td><td>[\d,]+</td><td>0</td>", page)
    assert "encoder" not in variant(fusion="text_only")[0]._repr_html_().replace("decoder", "")
    names = fusions.registry._repr_html_()
    assert all(f"<th>{name}</th><td>" in names for name in ("concat", "cross_attention", "gated", "text_only"))
