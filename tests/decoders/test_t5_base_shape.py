"""FLAN-T5 base's exact shape in the hub's layout loads, fuses, trains and generates; text-only output is plain T5's.

A small model runs the same tests every time; the full shape is marked slow.
"""

import copy
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from umie.composition import compose
from umie.conversion import convert_released
from umie.data.synthetic import LABELS
from umie.evaluation.queries import QueryDataset
from umie.model import UmieModel
from umie.training import TrainingConfig, train

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conversion"))  # for published_model.py

from published_model import state_dict

SHAPES = {
    "small": {
        "vocab_size": 1100, "d_model": 40, "d_kv": 8, "d_ff": 56, "num_layers": 2, "num_heads": 3,
    },
    # as published with the checkpoint google/flan-t5-base
    "flan-t5-base": {
        "vocab_size": 32128, "d_model": 768, "d_kv": 64, "d_ff": 2048, "num_layers": 12, "num_heads": 12,
    },
}  # fmt: skip
NUM_PARAMETERS = {"flan-t5-base": 247_577_856}
TASKS = {"mner": {"labels": LABELS["mner"]}}


@pytest.fixture(
    scope="module",
    params=["small", "small, config as saved", pytest.param("flan-t5-base", marks=pytest.mark.slow)],
)
def checkpoint(request, tmp_path_factory, tokenizer):
    """A directory with config.json, model.safetensors and a tokenizer, and the shape in it."""
    name = request.param.split(",")[0]
    shape = SHAPES[name]
    folder = tmp_path_factory.mktemp("checkpoint")
    options = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0}
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**shape, **options))
    # transformers ties the head of a new T5 whatever its configuration says
    model.lm_head.weight = nn.Parameter(torch.randn_like(model.shared.weight) * shape["d_model"] ** -0.5)
    if name in NUM_PARAMETERS:
        assert sum(parameter.numel() for parameter in model.parameters()) == NUM_PARAMETERS[name]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if "as saved" not in request.param:  # the hub's files say explicitly that the head is untied
        values = json.loads((folder / "config.json").read_text())
        del values["scale_decoder_outputs"]
        (folder / "config.json").write_text(json.dumps({**values, "tie_word_embeddings": False}))
    yield folder, shape
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def plain(checkpoint, aligned):
    """The checkpoint loaded by transformers."""
    return aligned(T5ForConditionalGeneration.from_pretrained(checkpoint[0]).eval())


@pytest.fixture(scope="module")
def records(embedded_records):
    """Two records with names and images, of different lengths."""
    chosen = [record for record in embedded_records if record.entities]
    return [chosen[0], max(chosen, key=lambda record: len(record.text))]


def assert_apart(seq2seq):
    assert seq2seq.lm_head.weight is not seq2seq.shared.weight
    assert not torch.equal(seq2seq.lm_head.weight, seq2seq.shared.weight)
    assert seq2seq.encoder.embed_tokens.weight is seq2seq.shared.weight
    assert seq2seq.decoder.embed_tokens.weight is seq2seq.shared.weight
    assert not seq2seq.config.scale_decoder_outputs


@pytest.mark.parametrize("fusion", ["text_only", "gated"])
def test_text_only_output_equals_transformers_bit_for_bit(checkpoint, plain, aligned, records, fusion):
    """Loss, logits and generated tokens are equal; the gated fusion gets no image, or only padding slots."""
    model, processor = compose(encoder="tiny", fusion=fusion, decoder=str(checkpoint[0]), tasks=TASKS)
    aligned(model)
    batch = processor(records, "mner")
    text = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    assert not text["attention_mask"].all()
    masked = {**batch, "visual_mask": torch.zeros_like(batch["visual_mask"])}
    with torch.no_grad():
        expected = plain(**text)
        for given in (text, masked) if fusion == "gated" else (text,):
            output = model(**given)
            assert torch.equal(output.logits, expected.logits)
            assert torch.equal(output.loss, expected.loss)
            real = text["attention_mask"].bool()
            assert torch.equal(output.fused_states[real], output.text_states[real])
    del text["labels"]
    for options in ({}, {"num_beams": 3}):
        tokens = model.generate(**text, max_new_tokens=6, **options)
        assert tokens.unique().numel() > 3
        assert torch.equal(tokens, plain.generate(**text, max_new_tokens=6, **options))
    assert_apart(model.decoder.seq2seq)


@pytest.mark.slow
def test_fuses_trains_a_step_and_generates(checkpoint, records):
    model, processor = compose(encoder="tiny", fusion="gated", decoder=str(checkpoint[0]), tasks=TASKS)
    batch = processor(records, "mner")
    with_image = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        output = model(**batch)
    assert output.gate.all()
    for row, mask in enumerate(batch["attention_mask"].bool()):
        assert not torch.allclose(output.fused_states[row, mask], output.text_states[row, mask])
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    options = TrainingConfig(max_steps=1, batch_size=2, learning_rate=1e-3, warmup_ratio=0.0)
    result = train(model, processor, QueryDataset(records, ["mner"], processor), options)
    assert result["steps"] == 1
    assert torch.tensor(result["train_loss"]).isfinite()
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    for part in (
        "decoder.seq2seq.shared", "decoder.seq2seq.lm_head", "decoder.seq2seq.encoder.block.0.layer.0.SelfAttention.q",
        "decoder.seq2seq.decoder.block.1.layer.1.EncDecAttention.v", "fusion.attention.value",
        "visual_embedding.feature_projection",
    ):  # fmt: skip
        assert f"{part}.weight" in changed, part
    model.eval()
    answer = model.generate(**with_image, max_new_tokens=4)
    assert answer.shape[0] == 2
    assert answer.shape[1] <= 5
    assert_apart(model.decoder.seq2seq)


def test_head_and_embedding_differ_after_every_way_of_loading(checkpoint, plain, tmp_path):
    folder, shape = checkpoint
    assert_apart(plain)
    model, _ = compose(encoder="tiny", fusion="gated", decoder=str(folder))
    assert_apart(model.decoder.seq2seq)
    model.save_pretrained(tmp_path / "model")
    loaded = UmieModel.from_pretrained(tmp_path / "model").decoder.seq2seq
    assert_apart(loaded)
    for name in ("shared", "lm_head"):
        assert torch.equal(getattr(loaded, name).weight, getattr(plain, name).weight)
    again = UmieModel(copy.deepcopy(model.config))
    again.load_state_dict(model.state_dict())
    assert_apart(again.decoder.seq2seq)
    model.decoder.save_checkpoint(tmp_path / "decoder")
    del model, loaded, again
    shutil.rmtree(tmp_path / "model")
    assert_apart(T5ForConditionalGeneration.from_pretrained(tmp_path / "decoder"))
    shutil.rmtree(tmp_path / "decoder")

    config = {**shape, "num_decoder_layers": shape["num_layers"]}
    config |= {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128}
    torch.save(state_dict(config, feature_dim=512), tmp_path / "state.pth")
    (tmp_path / "config.json").write_text(json.dumps(config))
    convert_released(tmp_path / "state.pth", tmp_path / "config.json", tmp_path / "converted")
    (tmp_path / "state.pth").unlink()
    assert_apart(UmieModel.from_pretrained(tmp_path / "converted").decoder.seq2seq)
    shutil.rmtree(tmp_path / "converted")
