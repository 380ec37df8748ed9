"""Training: learning rates, seeds, the initialization of the fusion, and that a model learns."""

import dataclasses
import math

import pytest
import torch

from umie.errors import UmieError
from umie.evaluation.queries import QueryDataset
from umie.extraction import Extractor
from umie.fusion.gated import GatedFusion
from umie.processor import UmieProcessor
from umie.training import TrainingConfig, train, visual_gradient
from umie.training.mixture import RunSampler, as_mixture

TASKS = ("mner", "mre", "med", "meae")
QUICK = {"max_steps": 3, "batch_size": 4, "learning_rate": 1e-3, "initialize_fusion": False}


@pytest.fixture(scope="module")
def records(embedded_records):
    """Six records: two with names, two with pairs, two with events."""
    return embedded_records[:6]


def trained(variant, records, *, seed=0, tasks=TASKS, on_step=None, parts=None, **options):
    """Train a fresh variant; return the model, the processor, the initial weights, and the result of ``train``."""
    model, processor = variant(**(parts or {}))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    dataset = QueryDataset(records, tasks, processor)
    measured = train(model, processor, dataset, TrainingConfig(**{**QUICK, **options}), seed=seed, on_step=on_step)
    return model, processor, before, measured


# --- the configuration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_steps": 0}, "max_steps is 0"),
        ({"max_steps": 1.5}, "max_steps is 1.5"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"learning_rate": -1e-4}, "learning_rate is -0.0001"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"learning_rate": math.inf}, "learning_rate is inf"),
        ({"learning_rate": "1e-3"}, "learning_rate is '1e-3'"),
        ({"max_grad_norm": 0}, "max_grad_norm is 0"),
        ({"warmup_ratio": 1}, "warmup_ratio is 1"),
        ({"label_smoothing_factor": -0.1}, "label_smoothing_factor is -0.1"),
        ({"weight_decay": -1}, "weight_decay is -1"),
        ({"weight_decay": "x"}, "weight_decay is 'x'"),
        ({"learning_rate_multipliers": {"fusion": -1}}, "learning_rate_multipliers"),
        ({"learning_rate_multipliers": {"fusion": "slow"}}, "learning_rate_multipliers"),
        ({"learning_rate_multipliers": 3}, "learning_rate_multipliers is 3"),
    ],
    ids=str,
)
def test_an_invalid_value_is_reported_with_its_field(options, expected):
    with pytest.raises(UmieError) as caught:
        TrainingConfig(**options)
    assert expected in str(caught.value)


# --- learning rates --------------------------------------------------------------------------------------------------


def test_the_longest_prefix_determines_the_learning_rate(variant, records):
    """AdamW's first step changes the weight with the largest gradient by the learning rate."""
    multipliers = {"fusion": 0.5, "fusion.gate_": 0.01, "fusion.gate_text": 0.1, "encoder": 0.0, "decoder.nothing": 9.0}
    rate = 1e-2
    model, _, before, _ = trained(
        variant,
        records,
        parts={"fusion": {"name": "gated", "gate": "dynamic"}},
        max_steps=1,
        batch_size=8,
        learning_rate=rate,
        warmup_ratio=0,
        weight_decay=0,
        initialize_fusion=True,  # opens the gate, so that no part has a tiny gradient
        learning_rate_multipliers=multipliers,
    )
    expected = {"fusion.attention": 0.5, "fusion.gate_visual": 0.01, "fusion.gate_text": 0.1, "encoder": 0.0}
    counts = dict.fromkeys([*expected, "decoder", "visual_embedding"], 0)
    for name, parameter in model.named_parameters():
        part = next((prefix for prefix in counts if name.startswith(prefix)), None)
        if part is not None and not name.startswith("fusion.gate"):  # initialize changes these as well
            counts[part] += 1
            change = float((parameter.detach() - before[name]).abs().max())
            if change:  # the batch may not use a parameter
                assert change == pytest.approx(rate * expected.get(part, 1.0), rel=0.02), name
            else:
                assert expected.get(part) == 0.0 or "relative_attention_bias" in name, name
    assert min(counts[part] for part in ("fusion.attention", "encoder", "decoder", "visual_embedding")) > 0


def test_the_gate_has_its_own_learning_rate(variant, records):
    model, _, before, _ = trained(
        variant,
        records,
        max_steps=1,
        batch_size=8,
        learning_rate=1e-2,
        warmup_ratio=0,
        weight_decay=0,
        learning_rate_multipliers={"fusion": 0.5, "fusion.gate_": 0.01, "fusion.gate_text": 0.1},
    )
    moved = {name: float((value.detach() - before[name]).abs().max()) for name, value in model.named_parameters()}
    for layer in ("0", "1"):
        assert moved[f"fusion.gate_text.{layer}.weight"] == pytest.approx(1e-3, rel=0.02)
        assert moved[f"fusion.gate_visual.{layer}.weight"] == pytest.approx(1e-4, rel=0.02)


def test_weight_decay_applies_to_matrices_only(variant, records):
    """If learning rate times decay is 1, a matrix without gradient becomes 0; a vector does not."""
    parts = {"fusion": {"name": "gated", "gate": 0.0}}  # the gradient of the visual path is exactly 0
    model, _, before, _ = trained(
        variant, records, parts=parts, max_steps=1, warmup_ratio=0, learning_rate=0.01, weight_decay=100.0
    )
    after = model.state_dict()
    assert float(before["encoder.layers.0.weight"].abs().max()) > 0
    assert float(after["encoder.layers.0.weight"].abs().max()) < 1e-6
    assert torch.equal(after["encoder.layers.0.bias"], before["encoder.layers.0.bias"])


def test_progress_is_reported_after_every_step(variant, records):
    steps = []
    _, _, _, measured = trained(variant, records, on_step=lambda *step: steps.append(step))
    assert [step[:2] for step in steps] == [(1, 3), (2, 3), (3, 3)]
    assert set(measured) == {"train_loss", "steps"}
    assert 0 < measured["train_loss"] < 20


# --- initialization of the fusion ------------------------------------------------------------------------------------


def test_a_new_gate_is_opened_unless_told_otherwise(variant, records, monkeypatch):
    calls = []
    initialize = GatedFusion.initialize

    def counted(self, *args, **options):
        calls.append(self)
        return initialize(self, *args, **options)

    monkeypatch.setattr(GatedFusion, "initialize", counted)
    _, _, _, measured = trained(variant, records)
    assert (calls, "gate_cosine" in measured) == ([], False)
    for choice in (None, True):
        model, processor, _, measured = trained(variant, records, initialize_fusion=choice, max_steps=1)
        assert calls.pop() is model.fusion
        assert measured["gate_cosine"] == pytest.approx(0.75, abs=0.01)
    dataset = QueryDataset(records, TASKS, processor)
    once_more = TrainingConfig(**{**QUICK, "initialize_fusion": None})
    assert "gate_cosine" not in train(model, processor, dataset, once_more)  # what was learned is kept
    _, _, _, measured = trained(variant, records, parts={"fusion": "concat"}, initialize_fusion=None, max_steps=1)
    assert calls == []


def test_the_treatment_has_a_low_learning_rate():
    multipliers = {"fusion.gate_": 0.003}
    assert TrainingConfig().treated({}).initialize_fusion is False
    treated = TrainingConfig(learning_rate_multipliers={"encoder": 5}).treated(multipliers)
    assert treated.initialize_fusion
    assert treated.learning_rate_multipliers == {"encoder": 5, "fusion.gate_": 0.003}
    own = TrainingConfig(learning_rate_multipliers={"fusion.gate_": 1.0}).treated(multipliers)
    assert own.learning_rate_multipliers == {"fusion.gate_": 1.0}
    for choice in (True, False):
        assert TrainingConfig(initialize_fusion=choice).treated(multipliers).learning_rate_multipliers == {}


def test_a_fusion_without_initialization_can_be_trained(variant, records):
    for fusion in ("text_only", "concat", {"name": "gated", "gate": 0.5}):
        _, _, _, measured = trained(variant, records, parts={"fusion": fusion}, initialize_fusion=True, max_steps=1)
        assert set(measured) == {"train_loss", "steps"}


def test_the_fusion_can_be_initialized_on_records_without_images(variant, records):
    texts = [dataclasses.replace(record, image=None) for record in records]
    _, _, _, measured = trained(variant, texts, initialize_fusion=True, max_steps=1)
    assert set(measured) == {"train_loss", "steps"}


# --- seeds -----------------------------------------------------------------------------------------------------------


def test_the_seed_determines_the_weights(variant, records):
    runs = [trained(variant, records, seed=seed) for seed in (5, 5, 6)]
    one, same, other = (model.state_dict() for model, *_ in runs)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert runs[0][3] == runs[1][3] != runs[2][3]
    assert all(torch.equal(runs[0][2][name], runs[2][2][name]) for name in runs[0][2])  # same initial weights


def test_the_seed_determines_dropout(variant, records):
    parts = {"fusion": {"name": "gated", "dropout": 0.3}, "decoder": {"overrides": {"dropout_rate": 0.3}}}
    one, same = (trained(variant, records, seed=5, parts=parts)[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[name], same[name]) for name in one)


# --- learning --------------------------------------------------------------------------------------------------------


def test_eight_queries_are_memorized(variant, embedded_records):
    model, processor = variant(fusion="text_only")
    dataset = QueryDataset(embedded_records[:6], TASKS, processor)
    assert len(dataset) == 8  # two of each task
    batch = processor.collate([dataset[index] for index in range(8)])
    with torch.no_grad():
        before = float(model(**batch).loss)
    losses = []
    config = TrainingConfig(max_steps=36, batch_size=8, learning_rate=4e-3)
    train(model, processor, dataset, config, on_step=lambda step, total, loss: losses.append(loss))
    model.eval()
    with torch.no_grad():
        after = float(model(**batch).loss)
    assert after < 0.3 * before
    assert losses[-1] < 0.5 * losses[5]  # logged every 3 steps


def test_the_visual_path_learns_too(variant, records):
    model, _, before, _ = trained(variant, records, parts={"fusion": {"name": "gated", "gate": 0.5}})
    for part in ("encoder.", "visual_embedding.", "fusion.", "decoder."):
        assert any(
            not torch.equal(value, before[name]) for name, value in model.named_parameters() if name.startswith(part)
        ), part


def test_a_model_that_knows_regions_says_where_it_gets_none(variant, records, tmp_path):
    model, processor, *_ = trained(variant, records, tasks=["mner"])
    assert processor.trained_places == ("image",)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    extractor = Extractor.from_pretrained(tmp_path, device="cpu")
    seen = next(record for record in records if record.regions)
    bare = dataclasses.replace(seen.ungrounded("image"), regions=())
    found = [extractor.extract(one, tasks=["mner"]) for one in (seen, bare, dataclasses.replace(bare, image=None))]
    assert [[notice.kind for notice in one.warnings] for one in found] == [[], ["places"], []]
    _, processor, *_ = trained(variant, [bare], tasks=["mner"], max_steps=1)
    assert processor.trained_places == ()
    blind = {"encoder": {"name": "tiny", "max_regions": 0}}
    assert trained(variant, records, tasks=["mner"], max_steps=1, parts=blind)[1].trained_places == ()
    with pytest.raises(UmieError, match="trained_places is 'text'"):
        UmieProcessor(processor.tokenizer, processor.encoder, trained_places=["text"])


def test_a_frozen_encoder_does_not_change(variant, records):
    parts = {"encoder": {"name": "tiny", "trainable": False}, "fusion": {"name": "gated", "gate": 0.5}}
    model, _, before, _ = trained(variant, records, parts=parts)
    for name, value in model.named_parameters():
        if name.startswith("encoder."):
            assert torch.equal(value, before[name])


# --- the gradient on the visual path ---------------------------------------------------------------------------------


@pytest.fixture
def gradient(variant, records):
    """Return the visual gradient of a fresh variant with this fusion."""

    def measure(fusion, records=records, **parts):
        model, processor = variant(fusion=fusion, **parts)
        dataset = QueryDataset(records, TASKS, processor)
        value = visual_gradient(model, processor.collate([dataset[index] for index in range(len(dataset))]))
        assert all(parameter.grad is None for parameter in model.parameters())  # no side effects
        return value

    return measure


def test_the_visual_gradient_grows_with_the_gate(gradient):
    closed, narrow, wide = (gradient({"name": "gated", "gate": gate}) for gate in (0.0, 0.01, 1.0))
    assert closed == 0
    assert 0 < narrow < wide / 10


def test_the_visual_gradient_reveals_a_starving_gate(gradient):
    """Below 0, LeakyReLU has a slope of only 0.01."""
    assert gradient({"name": "gated", "gate": -0.005}) < gradient({"name": "gated", "gate": 0.5}) / 10


def test_the_visual_gradient_is_zero_without_images(gradient, records):
    assert gradient("text_only") == 0
    texts = [dataclasses.replace(record, image=None) for record in records]
    assert gradient({"name": "gated", "gate": 1.0}, texts) == 0
    assert gradient("concat", texts) == 0


@pytest.mark.parametrize("fusion", ["concat", "cross_attention"])
def test_fusions_without_a_gate_have_a_visual_gradient(gradient, fusion):
    assert gradient(fusion) > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, to which the Trainer moves the model")
def test_the_visual_gradient_works_on_the_device_of_the_model(variant, records):
    model, processor, _, _ = trained(variant, records, parts={"fusion": "concat"}, initialize_fusion=True)
    dataset = QueryDataset(records, TASKS, processor)
    assert visual_gradient(model, processor.collate([dataset[0], dataset[1]])) > 0


# --- the loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_the_smoothed_mean_over_the_tokens_of_a_step(variant, records, smoothing, accumulation):
    """By definition: (1 - e) times the log-probability of the label, plus e times the mean over the vocabulary."""
    model, processor = variant()
    dataset = QueryDataset(records, TASKS, processor)
    sampler = RunSampler(as_mixture(dataset), 1, 4, 0)
    batch = processor.collate([dataset[index] for index in sampler.batch(0)])
    with torch.no_grad():
        scores = model(**batch).logits.log_softmax(-1)
    labels = batch["labels"]
    own = scores.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    expected = -((1 - smoothing) * own + smoothing * scores.mean(-1))[labels != -100].mean()
    config = TrainingConfig(
        max_steps=1,
        batch_size=4,
        learning_rate=1e-9,
        label_smoothing_factor=smoothing,
        gradient_accumulation_steps=accumulation,
        initialize_fusion=False,
    )
    assert train(model, processor, dataset, config)["train_loss"] == pytest.approx(float(expected), rel=1e-4)
