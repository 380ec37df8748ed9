"""Trainable weights: frozen parts do not change at all; adapters replace the language model's weights and merge."""

import pytest
import torch
from safetensors.torch import load_file

from umie.errors import UmieError
from umie.evaluation.queries import QueryDataset
from umie.training import TrainingConfig, adapt, freeze, has_adapter, merged, save_adapter, train

LORA = {"type": "lora", "r": 4, "target_modules": ["q", "v"]}


@pytest.fixture
def small(variant, embedded_records):
    """A fresh variant, its processor and queries."""
    model, processor = variant()
    return model, processor, QueryDataset(embedded_records[:6], ["mner", "mre", "med", "meae"], processor)


def changed(model, before):
    """Return the names of the parameters that changed."""
    return {name for name, value in model.named_parameters() if name in before and not torch.equal(value, before[name])}


@pytest.mark.parametrize(
    ("names", "frozen", "trained"),
    [
        (["text"], ("decoder.",), ("fusion.attention", "visual_embedding", "encoder")),
        (["visual"], ("encoder.", "visual_embedding."), ("fusion.attention", "decoder.")),
        (["fusion"], ("fusion.",), ("decoder.", "visual_embedding")),
        (
            ["decoder.seq2seq.encoder.block", "visual"],
            ("decoder.seq2seq.encoder.block", "encoder."),
            ("decoder.seq2seq.decoder",),
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_frozen_parts_stay_and_the_others_learn(small, names, frozen, trained):
    model, processor, queries = small
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    train(
        model,
        processor,
        queries,
        TrainingConfig(max_steps=2, batch_size=4, freeze=names, weight_decay=0.1, initialize_fusion=True),
    )
    moved = changed(model, before)
    gates = {name for name in moved if name.startswith("fusion.gate_")}  # initialize_fusion sets them
    assert not [name for name in moved - gates if name.startswith(frozen)]
    for prefix in trained:
        assert any(name.startswith(prefix) for name in moved), prefix


def test_an_unknown_part_is_reported_with_the_choices(small):
    with pytest.raises(UmieError, match=r"Unknown part to freeze 'fusoin'. Did you mean 'fusion'\?"):
        freeze(small[0], ["fusoin"])
    with pytest.raises(UmieError, match="nothing is left to train"):
        freeze(small[0], ["text", "visual", "fusion"])


def test_an_adapter_is_trained_instead_of_the_language_model_and_merges_into_a_plain_variant(small, tmp_path):
    model, processor, queries = small
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    train(
        model,
        processor,
        queries,
        TrainingConfig(max_steps=3, batch_size=4, learning_rate=1e-2, adapter=LORA, initialize_fusion=True),
    )
    moved = changed(model, before)
    assert not [name for name in moved if name.startswith("decoder.")]
    assert any(name.startswith("fusion.") for name in moved)
    assert has_adapter(model)
    plain = merged(model)
    assert not has_adapter(plain) and has_adapter(model)
    assert {name for name, _ in plain.named_parameters()} == set(before)
    assert {name.rsplit(".", 2)[-2] for name in changed(plain, before) if name.startswith("decoder.")} == {"q", "v"}
    batch = processor.collate([queries[index] for index in range(4)])
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-5)
    plain.save_pretrained(tmp_path / "plain")
    loaded = type(model).from_pretrained(tmp_path / "plain")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in plain.state_dict().items())
    save_adapter(model, tmp_path / "adapter")
    kept = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert kept and all("lora_" in name for name in kept)


def test_an_adapter_can_be_the_only_trainable_part(small):
    model, processor, queries = small
    config = TrainingConfig(
        max_steps=2, batch_size=4, learning_rate=1e-2, adapter=LORA, freeze=["text", "visual", "fusion"]
    )
    train(model, processor, queries, config)
    learned = {name for name, value in model.named_parameters() if value.requires_grad}
    assert learned and all("lora_" in name for name in learned)
    assert any(float(value.detach().abs().sum()) > 0 for name, value in model.named_parameters() if "lora_B" in name)


def test_constrained_answers_equal_those_of_the_merged_model(small, embedded_records):
    """Constrained greedy decoding calls the layers of T5 directly and must not bypass an adapter."""
    model, processor, queries = small
    train(model, processor, queries, TrainingConfig(max_steps=30, batch_size=8, learning_rate=1e-2, adapter=LORA))
    records = embedded_records[:4]
    inputs = processor(records[0], "mner")
    answers = [
        part.generate(**inputs, constraint=processor.constraint(records[0], "mner")).tolist()
        for part in (model.eval(), merged(model).eval())
    ]
    assert answers[0] == answers[1]


def test_invalid_adapters_are_reported(small):
    model, _, _ = small
    with pytest.raises(UmieError, match=r"Unknown adapter type 'lorra'. Did you mean 'lora'\?"):
        adapt(model, {"type": "lorra"})
    with pytest.raises(UmieError, match="adapter: .*unexpected keyword argument 'rank'"):
        adapt(model, {"type": "lora", "rank": 4})
    with pytest.raises(UmieError, match="adapter: .*nowhere.*linear layers: .*wi_0"):
        adapt(model, {"type": "lora", "target_modules": ["nowhere"]})
