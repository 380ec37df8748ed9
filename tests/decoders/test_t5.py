"""T5: the head stays separate from the embedding in every way of loading; text-only output equals transformers' T5."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import MT5Config, MT5ForConditionalGeneration, T5Config, T5ForConditionalGeneration, T5Model

from umie.composition import compose
from umie.decoders import registry
from umie.decoders.t5 import T5Decoder
from umie.errors import UmieError
from umie.model import UmieModel
from umie.types import FusedStates

SHAPE = {
    "vocab_size": 1024, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}  # fmt: skip
# layers, d_model, heads, d_kv, d_ff and parameters, as published with the checkpoints google/flan-t5-*
PUBLISHED = {
    "flan-t5-small": (8, 512, 6, 64, 1024, 76_961_152),
    "flan-t5-base": (12, 768, 12, 64, 2048, 247_577_856),
    "flan-t5-large": (24, 1024, 16, 64, 2816, 783_150_080),
    "flan-t5-xl": (24, 2048, 32, 64, 5120, 2_849_757_184),
}


def write_checkpoint(folder, *, kind="t5", tied=False, copies=False, dtype=torch.float32, tokenizer=None):
    """Write a checkpoint in the hub's layout: config.json and model.safetensors.

    An untied checkpoint has a separate head and ``tie_word_embeddings: false``, which transformers 5 would not write.
    """
    torch.manual_seed(0)
    activation = "relu" if tied else "gated-gelu"
    config_class, model_class = {
        "t5": (T5Config, T5ForConditionalGeneration),
        "mt5": (MT5Config, MT5ForConditionalGeneration),
    }[kind]
    model = model_class(config_class(**SHAPE, feed_forward_proj=activation))
    state = {name: value.detach().clone() for name, value in model.state_dict().items() if "embed_tokens" not in name}
    state = {name: value if value.any() else torch.randn_like(value) for name, value in state.items()}
    state["shared.weight"] = torch.randn(1024, 32)
    if tied:
        del state["lm_head.weight"]
    else:
        state["lm_head.weight"] = torch.randn(1024, 32) * 0.2
    if copies:
        for stack in ("encoder", "decoder"):
            state[f"{stack}.embed_tokens.weight"] = state["shared.weight"].clone()
    folder.mkdir(exist_ok=True)
    save_file({name: value.to(dtype) for name, value in state.items()}, folder / "model.safetensors", {"format": "pt"})
    values = {**SHAPE, "feed_forward_proj": activation, "model_type": kind, "architectures": [model_class.__name__]}
    values.update({"tie_word_embeddings": tied, "is_encoder_decoder": True, "pad_token_id": 0, "eos_token_id": 1})
    values["torch_dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(values))
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return state


@pytest.fixture(scope="module")
def untied(tmp_path_factory, tokenizer):
    """A T5 v1.1 checkpoint folder with a tokenizer, and its weights."""
    folder = tmp_path_factory.mktemp("t5") / "v11"
    return folder, write_checkpoint(folder, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def tied(tmp_path_factory, tokenizer):
    """A T5 v1.0 checkpoint: relu, one matrix for embedding and head, scaled logits."""
    folder = tmp_path_factory.mktemp("t5") / "v10"
    return folder, write_checkpoint(folder, tied=True, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 1000, (3, 7), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    ids[1, 4:] = 0
    labels = torch.randint(3, 1000, (3, 5), generator=generator)
    labels[2, 3:] = -100
    return ids, mask, labels


def run(decoder, batch):
    """Run text encoder and decoder, with aligned weights; see the fixture ``aligned``."""
    ids, mask, labels = batch
    decoder.eval()
    for parameter in decoder.parameters():
        parameter.data = parameter.data.clone()
    with torch.no_grad():
        return decoder(FusedStates(decoder.encode_text(ids, mask), mask.bool()), labels)


def check_apart(decoder, state):
    """Check that head and embedding are two matrices with the checkpoint's weights, and logits are not scaled."""
    seq2seq = decoder.seq2seq
    assert torch.equal(seq2seq.lm_head.weight, state["lm_head.weight"])
    for embedding in (seq2seq.shared, seq2seq.encoder.embed_tokens, seq2seq.decoder.embed_tokens):
        assert torch.equal(embedding.weight, state["shared.weight"])
        assert embedding.weight is seq2seq.shared.weight
    assert seq2seq.lm_head.weight is not seq2seq.shared.weight
    assert not torch.equal(seq2seq.lm_head.weight, seq2seq.shared.weight)


def expected_logits(folder, state, batch, scale=1.0, head="lm_head.weight"):
    """Run transformers' own encoder and decoder stacks, and apply the head manually."""
    ids, mask, labels = batch
    stacks = T5Model.from_pretrained(folder).eval()
    start = torch.cat([torch.zeros(len(ids), 1, dtype=torch.long), labels[:, :-1].clamp(min=0)], dim=1)
    with torch.no_grad():
        hidden = stacks(input_ids=ids, attention_mask=mask, decoder_input_ids=start).last_hidden_state
    return scale * hidden @ state[head].T


@pytest.mark.parametrize("copies", [False, True], ids=["as in v1.1", "with copies of the embedding"])
def test_untied_checkpoint(tmp_path, batch, copies):
    state = write_checkpoint(tmp_path, copies=copies)
    decoder = registry.build("t5", source=str(tmp_path))
    check_apart(decoder, state)
    output = run(decoder, batch)
    expected = expected_logits(tmp_path, state, batch)
    torch.testing.assert_close(output.logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(expected.flatten(0, 1), batch[2].flatten()))


def test_untied_checkpoint_equals_transformers_own_class(untied, aligned, batch):
    """Logits, loss and generated tokens equal T5ForConditionalGeneration with the checkpoint's head."""
    folder, state = untied
    theirs = aligned(T5ForConditionalGeneration.from_pretrained(folder).eval())
    theirs.lm_head = nn.Linear(32, 1024, bias=False)
    theirs.lm_head.weight = nn.Parameter(state["lm_head.weight"].clone())
    theirs.config.scale_decoder_outputs = False
    ids, mask, labels = batch
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, labels=labels)
    decoder = registry.build("t5", source=str(folder)).eval()
    found = run(decoder, batch)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.loss, expected.loss)
    with torch.no_grad():
        fused = FusedStates(decoder.encode_text(ids, mask), mask.bool())
    for options in ({}, {"num_beams": 3}):
        own = decoder.generate(fused, max_new_tokens=6, **options)
        assert own.unique().numel() > 3
        assert torch.equal(own, theirs.generate(input_ids=ids, attention_mask=mask, max_new_tokens=6, **options))


def test_tied_checkpoint_stays_tied_and_scaled(tied, aligned, batch):
    folder, state = tied
    decoder = registry.build("t5", source=str(folder))
    seq2seq = decoder.seq2seq
    assert seq2seq.lm_head.weight is seq2seq.shared.weight is seq2seq.encoder.embed_tokens.weight
    assert torch.equal(seq2seq.shared.weight, state["shared.weight"])
    output = run(decoder, batch)
    expected = expected_logits(folder, state, batch, scale=32**-0.5, head="shared.weight")
    torch.testing.assert_close(output.logits, expected, atol=1e-5, rtol=1e-5)
    theirs = aligned(T5ForConditionalGeneration.from_pretrained(folder).eval())
    ids, mask, labels = batch
    with torch.no_grad():
        assert torch.equal(output.logits, theirs(input_ids=ids, attention_mask=mask, labels=labels).logits)


@pytest.mark.parametrize("kind", ["untied", "tied"])
def test_saved_and_loaded_with_the_model(kind, request, tmp_path, batch):
    """save_pretrained and from_pretrained of the whole model, twice, without access to the source."""
    folder, state = request.getfixturevalue(kind)
    source = shutil.copytree(folder, tmp_path / "source")
    model, _ = compose(decoder=str(source), fusion="text_only")
    expected = run(model.decoder, batch).logits
    shutil.rmtree(source)
    for step in ("first", "second"):
        model.save_pretrained(tmp_path / step)
        model = UmieModel.from_pretrained(tmp_path / step)
        seq2seq = model.decoder.seq2seq
        if kind == "untied":
            check_apart(model.decoder, state)
            saved = load_file(tmp_path / step / "model.safetensors")
            assert torch.equal(saved["decoder.seq2seq.lm_head.weight"], state["lm_head.weight"])
            assert torch.equal(saved["decoder.seq2seq.shared.weight"], state["shared.weight"])
        else:
            assert seq2seq.lm_head.weight is seq2seq.shared.weight
            assert seq2seq.config.scale_decoder_outputs
        assert torch.equal(run(model.decoder, batch).logits, expected)


def test_load_state_dict(untied, batch):
    """Loading a state dict into a decoder, or into a whole model, keeps the embedding separate."""
    folder, state = untied
    loaded = registry.build("t5", source=str(folder))
    torch.manual_seed(3)
    other = registry.construct("t5", {"source": str(folder)})
    assert not torch.equal(other.seq2seq.shared.weight, state["shared.weight"])
    other.load_state_dict(loaded.state_dict())
    check_apart(other, state)
    assert torch.equal(run(other, batch).logits, run(loaded, batch).logits)
    model, _ = compose(decoder=str(folder))
    again = UmieModel(model.config)
    again.load_state_dict(model.state_dict())
    check_apart(again.decoder, state)


def test_safetensors_of_the_decoder(untied, tmp_path, batch):
    folder, state = untied
    loaded = registry.build("t5", source=str(folder))
    shared = {name: value.clone() for name, value in loaded.state_dict().items()}
    save_file(shared, tmp_path / "decoder.safetensors")
    other = registry.construct("t5", loaded.saved_options())
    other.load_state_dict(load_file(tmp_path / "decoder.safetensors"))
    check_apart(other, state)
    assert torch.equal(run(other, batch).logits, run(loaded, batch).logits)


def test_mt5_checkpoint(tmp_path, batch):
    state = write_checkpoint(tmp_path / "mt5", kind="mt5")
    decoder = registry.build("t5", source=str(tmp_path / "mt5"))
    check_apart(decoder, state)
    options = decoder.saved_options()
    again = registry.construct("t5", json.loads(json.dumps(options)))
    again.load_state_dict(decoder.state_dict())
    check_apart(again, state)
    assert torch.equal(run(again, batch).logits, run(decoder, batch).logits)
    theirs = MT5ForConditionalGeneration.from_pretrained(tmp_path / "mt5").eval()
    theirs.lm_head = nn.Linear(32, 1024, bias=False)
    theirs.lm_head.weight = nn.Parameter(state["lm_head.weight"].clone())
    ids, mask, labels = batch
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, labels=labels).logits
    torch.testing.assert_close(run(decoder, batch).logits, expected, atol=1e-5, rtol=1e-5)


def test_untied_configuration_over_tied_weights(tmp_path):
    """transformers 5 writes no head: head and embedding start equal, but as two matrices."""
    state = write_checkpoint(tmp_path, tied=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    seq2seq = registry.build("t5", source=str(tmp_path)).seq2seq
    assert torch.equal(seq2seq.lm_head.weight, state["shared.weight"])
    assert seq2seq.lm_head.weight is not seq2seq.shared.weight
    assert not seq2seq.config.scale_decoder_outputs


def test_half_precision_checkpoint_is_loaded_in_full(tmp_path, tokenizer, batch):
    """The dtype matches the fusion and the visual embedding, which start in float32."""
    state = write_checkpoint(tmp_path, dtype=torch.bfloat16, tokenizer=tokenizer)
    model, _ = compose(decoder=str(tmp_path), fusion="cross_attention")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.decoder.seq2seq.lm_head.weight, state["lm_head.weight"].bfloat16().float())
    image = {"crops": torch.zeros(3, 1, 3, 10, 10), "boxes": torch.zeros(3, 1, 4)}
    ids, mask, labels = batch
    output = model(ids, mask, labels=labels, **image, visual_mask=torch.ones(3, 1, dtype=torch.bool))
    assert output.loss.isfinite()


@pytest.mark.parametrize("preset", T5Decoder.PRESETS)
def test_presets_tie_head_and_embedding_like_their_model(preset):
    with torch.device("meta"):
        seq2seq = registry.construct("t5", {"source": preset}).seq2seq
    apart = seq2seq.lm_head.weight is not seq2seq.shared.weight
    assert apart == (preset != "tiny")
    assert seq2seq.config.scale_decoder_outputs == (preset == "tiny")
    assert seq2seq.encoder.embed_tokens.weight is seq2seq.decoder.embed_tokens.weight is seq2seq.shared.weight


def test_a_preset_with_the_name_of_a_checkpoint_directory_is_refused(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "flan-t5-small")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UmieError, match=r"'flan-t5-small' is a preset .* write \./flan-t5-small to load it, or rename it"
    ):
        registry.build("t5", source="flan-t5-small")
    assert registry.build("t5", source="./flan-t5-small").seq2seq.config.d_model == 32


def test_an_untied_preset_has_two_matrices_of_random_weights():
    torch.manual_seed(0)
    decoder = registry.build("t5", source="tiny", overrides={"tie_word_embeddings": False})
    head, embedding = decoder.seq2seq.lm_head.weight, decoder.seq2seq.shared.weight
    assert not torch.equal(head, embedding)
    assert 0.8 < head.std() * 96**0.5 < 1.2  # logits start with unit variance without scaling


@pytest.mark.parametrize("preset", PUBLISHED)
def test_presets_have_the_published_shapes(preset):
    layers, d_model, heads, d_kv, d_ff, num_parameters = PUBLISHED[preset]
    with torch.device("meta"):
        decoder = registry.construct("t5", {"source": preset})
    assert dict(decoder.widths) == {"d_model": d_model, "num_heads": heads, "head_dim": d_kv, "d_ff": d_ff}
    assert sum(parameter.numel() for parameter in decoder.parameters()) == num_parameters
    shapes = {name: tuple(value.shape) for name, value in decoder.seq2seq.state_dict().items()}
    assert shapes["shared.weight"] == shapes["lm_head.weight"] == (32128, d_model)
    for stack in ("encoder", "decoder"):
        assert (
            sum(name.startswith(f"{stack}.block.") and name.endswith("SelfAttention.q.weight") for name in shapes)
            == layers
        )
        block = f"{stack}.block.{layers - 1}.layer"
        feed_forward = f"{block}.{1 if stack == 'encoder' else 2}.DenseReluDense"
        assert shapes[f"{block}.0.SelfAttention.q.weight"] == (heads * d_kv, d_model)
        assert shapes[f"{block}.0.SelfAttention.o.weight"] == (d_model, heads * d_kv)
        assert shapes[f"{feed_forward}.wi_0.weight"] == shapes[f"{feed_forward}.wi_1.weight"] == (d_ff, d_model)
        assert shapes[f"{feed_forward}.wo.weight"] == (d_model, d_ff)
        assert shapes[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] == (32, heads)
    assert decoder.seq2seq.config.dense_act_fn == "gelu_new"


def test_labels_are_shifted_right(untied, batch):
    decoder = registry.build("t5", source=str(untied[0])).eval()
    ids, mask, labels = batch
    shifted = torch.cat([torch.zeros(3, 1, dtype=torch.long), labels[:, :-1].clamp(min=0)], dim=1)
    with torch.no_grad():
        fused = FusedStates(decoder.encode_text(ids, mask), mask.bool())
        assert torch.equal(decoder(fused, labels).logits, decoder(fused, decoder_input_ids=shifted).logits)


def test_overrides_change_single_values(untied):
    decoder = registry.build("t5", source=str(untied[0]), overrides={"dropout_rate": 0.25})
    assert decoder.seq2seq.config.dropout_rate == 0.25
    assert decoder.saved_options()["config"]["dropout_rate"] == 0.25
    check_apart(decoder, untied[1])
    with pytest.raises(
        UmieError, match=r"Unknown option in decoder.overrides: 'dropout'. Did you mean 'dropout_rate'\?"
    ):
        registry.build("t5", overrides={"dropout": 0.1})


def builds(source):
    return {
        "registry": lambda: registry.build("t5", source=str(source)),
        "compose": lambda: compose(decoder=str(source)),
    }


@pytest.mark.parametrize("how", ["registry", "compose"])
def test_missing_folder(tmp_path, how):
    with pytest.raises(UmieError, match=f"decoder '{re.escape(str(tmp_path)[:40])}"):  # a long name is cut
        builds(tmp_path / "nowhere")[how]()


@pytest.mark.parametrize("how", ["registry", "compose"])
def test_another_family(tmp_path, tokenizer, how):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 32}))
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UmieError, match="is a 'bert' checkpoint, not of the T5 family"):
        builds(tmp_path)[how]()


@pytest.mark.parametrize("how", ["registry", "compose"])
def test_folder_without_a_model(tmp_path, how):
    with pytest.raises(UmieError, match=f"language model '{tmp_path}'"):
        builds(tmp_path)[how]()


@pytest.mark.parametrize("how", ["registry", "compose"])
def test_folder_without_weights(tmp_path, tokenizer, how):
    write_checkpoint(tmp_path, tokenizer=tokenizer)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UmieError, match="cannot load its weights"):
        builds(tmp_path)[how]()


@pytest.mark.parametrize("how", ["registry", "compose"])
def test_incomplete_checkpoint(tmp_path, tokenizer, how):
    state = write_checkpoint(tmp_path, tokenizer=tokenizer)
    del state["decoder.block.1.layer.1.EncDecAttention.k.weight"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        UmieError, match=r"missing 1 weights, e\.g\. decoder\.block\.1\.layer\.1\.EncDecAttention\.k\.weight"
    ):
        builds(tmp_path)[how]()


def test_checkpoint_of_another_shape(tmp_path):
    state = write_checkpoint(tmp_path)
    state["shared.weight"] = torch.zeros(1000, 32)
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UmieError, match="cannot load its weights"):
        registry.build("t5", source=str(tmp_path))


def test_damaged_weights(tmp_path):
    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(UmieError, match="cannot load its weights"):
        registry.build("t5", source=str(tmp_path))


def test_folder_without_a_tokenizer(tmp_path):
    write_checkpoint(tmp_path)
    with pytest.raises(UmieError, match="tokenizer"):
        compose(decoder=str(tmp_path))


def test_a_head_that_differs_from_the_embedding_is_not_scaled_whatever_the_configuration_says(tmp_path):
    """transformers writes ``scale_decoder_outputs: true`` for such models; the logits would be divided by sqrt(d)."""
    write_checkpoint(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config.pop("tie_word_embeddings", None)
    expected = registry.build("t5", source=str(tmp_path / "model")).eval()
    path.write_text(json.dumps({**config, "scale_decoder_outputs": True, "tie_word_embeddings": True}))
    with pytest.warns(UserWarning, match="its output head differs from its embedding"):
        found = registry.build("t5", source=str(tmp_path / "model")).eval()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        logits = [decoder.seq2seq(input_ids=ids, labels=ids).logits for decoder in (expected, found)]
    assert torch.equal(*logits)
    assert found.saved_options()["config"]["tie_word_embeddings"] is False
    again = registry.construct("t5", found.saved_options())
    assert type(again.seq2seq) is type(found.seq2seq)


@pytest.mark.parametrize(("name", "layers"), [("t5", "num_layers"), ("seq2seq", "encoder_layers")])
def test_absurd_sizes_are_refused_before_anything_is_built(name, layers):
    with pytest.raises(UmieError, match=f"{layers} is 100000: use a number of at most 1,000"):
        compose(fusion="text_only", decoder={"name": name, "source": "tiny", "overrides": {layers: 100_000}})
