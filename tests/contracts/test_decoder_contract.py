"""The contracts of every registered decoder, and of every task on the embedded data set."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_model, save_model

from umie import tasks
from umie.data.synthetic import LABELS
from umie.decoders import GeneratingDecoder, registry
from umie.scoring import strict_score
from umie.tasks.base import VARIANTS
from umie.types import FusedStates

BERT = {
    "model_type": "bert", "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 64, "initializer_range": 0.2,
}  # fmt: skip
PAIR = {
    "model_type": "encoder-decoder", "encoder": BERT,
    "decoder": {**BERT, "is_decoder": True, "add_cross_attention": True},
    "decoder_start_token_id": 2, "pad_token_id": 0, "eos_token_id": 3,
}  # fmt: skip
SEQ2SEQ = {
    "bart": {
        "model_type": "bart", "vocab_size": 300, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
        "max_position_embeddings": 64, "init_std": 0.2,
    },
    "mt5": {
        "model_type": "mt5", "vocab_size": 300, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
    },
    "bert2bert": PAIR,
    "two widths": {**PAIR, "decoder": {**PAIR["decoder"], "hidden_size": 48, "intermediate_size": 40}},
}  # fmt: skip
T5 = {"model_type": "t5", "vocab_size": 300, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
ENCODERS = [
    {"source": "tiny"}, {"config": T5}, {"config": {**BERT, "model_type": "roberta"}, "nested": True},
    {"config": {**BERT, "model_type": "deberta-v2"}, "reader_layers": 2}, {"config": SEQ2SEQ["bart"]},
    {"config": {**BERT, "model_type": "modernbert", "pad_token_id": 0, "eos_token_id": 1, "cls_token_id": 2}},
]  # fmt: skip
LLAMA = {
    "model_type": "llama", "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48, "initializer_range": 0.2, "bos_token_id": 2, "eos_token_id": 1,
}  # fmt: skip
CAUSAL = [
    {"source": "tiny"}, {"config": LLAMA}, {"config": {**LLAMA, "model_type": "qwen2"}, "prompt": "chat"},
    {"config": {
        "model_type": "gpt2", "vocab_size": 300, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64,
        "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 1, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }},
]  # fmt: skip
OPTIONS = {
    "causal": CAUSAL,
    "t5": [{"source": "tiny"}, {"source": "tiny", "overrides": {"tie_word_embeddings": False}}],
    "seq2seq": [{"config": config} for config in SEQ2SEQ.values()],
    "span": ENCODERS,
}
DECODERS = [
    pytest.param((name, options), id=f"{name}-{index}")
    for name in registry.names()
    for index, options in enumerate(OPTIONS.get(name, [{}]))
]
LENGTHS = (6, 2, 9)
GENERATING = [param for param in DECODERS if issubclass(registry.get(param.values[0][0]), GeneratingDecoder)]
generating = pytest.mark.parametrize("case", GENERATING, indirect=True, scope="module")


def build(name, options):
    torch.manual_seed(0)
    return registry.build(name, **options).eval()


def rows_of(inputs, rows):
    return {name: value[rows] for name, value in inputs.items()}


@pytest.fixture(scope="module", params=DECODERS)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def decoder(case):
    return build(*case)


@pytest.fixture(scope="module")
def texts():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, 200, (length,), generator=generator) for length in LENGTHS]


@pytest.fixture(scope="module")
def labels():
    labels = torch.randint(3, 200, (3, 5), generator=torch.Generator().manual_seed(1))
    labels[1, 3:] = -100
    return labels


@pytest.fixture(scope="module")
def inputs(decoder, labels):
    """What the decoder is trained with."""
    if isinstance(decoder, GeneratingDecoder):
        return {"labels": labels}
    targets = torch.tensor([[[0, 0], [1, 4]], [[1, 1], [-1, -1]], [[-1, -1], [-1, -1]]])
    right = torch.randint(0, 2, (3, 6, 2), generator=torch.Generator().manual_seed(1))  # 3 spans, 2 regions, the query
    right[1, 1:3] = right[0, 4] = -100
    shown = torch.full((3, 6, 2), -100)  # which of two regions shows a span, of three answers
    shown[0, 1, 0], shown[1, 0], shown[2, 2] = 1, torch.tensor([0, 1]), torch.tensor([1, 1])
    return {
        "labels": torch.cat([right, shown], dim=2),
        "label_tokens": torch.tensor([[[0, 0], [1, 2]], [[0, 1], [1, 1]], [[3, 4], [5, 5]]]),
        "spans": torch.tensor(
            [[[2, 2, 0, 0, 1], [2, 4, 2, 0, 9], [5, 5, 0, 5, 9]], [[1, 1, 0, 0, 1]] * 3, [[6, 8, 1, 2, 9]] * 3]
        ),
        "place_slots": torch.tensor([[1, 2]] * 3),
        "place_mask": torch.tensor([[True, False], [True, True], [True, True]]),
        "target_tokens": targets,
        "target_slots": torch.tensor([[-1, -1], [-1, 2], [1, 0]]),
        "pointing_mask": torch.tensor([[True, False], [True, True], [True, True]]),
    }


@pytest.fixture
def fused(decoder, texts):
    """Text states of the decoder's encoder, in one padded batch, and visual states."""
    ids, mask = padded(texts)
    with torch.no_grad():
        states = decoder.encode_text(ids, mask)
    visual = torch.randn(3, 3, states.shape[2], generator=torch.Generator().manual_seed(3))
    return FusedStates(states, mask.bool(), visual=visual)


def padded(texts, size=None, fill=7):
    size = size or max(map(len, texts))
    ids = torch.full((len(texts), size), fill)
    mask = torch.zeros(len(texts), size, dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return ids, mask


def test_widths_build_a_fusion(decoder, fused):
    from umie import fusion

    widths = decoder.widths
    assert set(widths) == {"d_model", "num_heads", "head_dim", "d_ff"}
    assert fused.states.shape[2] == widths["d_model"]
    assert fusion.registry.build("gated", **widths).config.d_ff == widths["d_ff"]


def test_text_states_do_not_depend_on_the_batch(decoder, texts):
    with torch.no_grad():
        for size in (9, 14):
            states = decoder.encode_text(*padded(texts, size))
            for row, text in enumerate(texts):
                single = decoder.encode_text(*padded([text]))[0]
                torch.testing.assert_close(states[row, : len(text)], single, atol=1e-5, rtol=1e-5)


def test_logits_do_not_depend_on_the_batch(decoder, fused, inputs):
    """Masked states may have any values, and any number of them may follow."""
    states = torch.cat([fused.states, torch.zeros_like(fused.states)], dim=1)
    mask = torch.cat([fused.mask, torch.zeros_like(fused.mask)], dim=1)
    states = states.masked_fill(~mask[..., None], 100.0)
    with torch.no_grad():
        expected = decoder(fused, **inputs).logits
        found = decoder(FusedStates(states, mask, visual=fused.visual), **inputs).logits
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        for row, length in enumerate(LENGTHS):
            own = slice(row, row + 1)
            one = FusedStates(fused.states[own, :length], fused.mask[own, :length], visual=fused.visual[own])
            single = decoder(one, **rows_of(inputs, own)).logits
            torch.testing.assert_close(expected[row], single[0], atol=1e-5, rtol=1e-5)


@generating
def test_generated_tokens_do_not_depend_on_the_batch(decoder, fused):
    states = torch.cat([fused.states, torch.zeros_like(fused.states)], dim=1)
    mask = torch.cat([fused.mask, torch.zeros_like(fused.mask)], dim=1)
    states = states.masked_fill(~mask[..., None], 100.0)
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    found = decoder.generate(FusedStates(states, mask), **options)
    for row, length in enumerate(LENGTHS):
        one = FusedStates(fused.states[row : row + 1, :length], fused.mask[row : row + 1, :length])
        assert torch.equal(decoder.generate(one, **options)[0], found[row])


def test_every_real_state_is_attended_over(decoder, fused, inputs):
    """This includes states after the text, where a fusion appends the image."""
    extra = torch.randn(3, 2, fused.states.shape[2], generator=torch.Generator().manual_seed(2))
    mask = torch.cat([fused.mask, torch.ones(3, 2, dtype=torch.bool)], dim=1)
    with torch.no_grad():
        plain = decoder(fused, **inputs).logits
        states = torch.cat([fused.states, extra], dim=1)
        longer = decoder(FusedStates(states, mask, visual=fused.visual), **inputs).logits
    assert longer.shape == plain.shape
    assert not torch.allclose(longer, plain, atol=1e-4)


def test_loss_is_the_mean_over_its_targets(decoder, fused, inputs):
    """The mean over tokens, or over queries, of the sum over candidates."""
    with torch.no_grad():
        output = decoder(fused, **inputs)
    labels = inputs["labels"]
    logits, targets = output.logits[labels >= 0], labels[labels >= 0]
    if isinstance(decoder, GeneratingDecoder):
        total = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    else:
        total = -torch.where(targets.bool(), logits.sigmoid(), 1 - logits.sigmoid()).log().sum()
    torch.testing.assert_close(output.loss, total / decoder.num_targets(labels))
    smooth = decoder.loss(output.logits, labels, 0.2)
    assert smooth.isfinite()
    assert smooth != output.loss


@generating
def test_decoding_is_causal(decoder, fused, labels):
    changed = labels.clone()
    changed[:, 2] = (changed[:, 2] + 1) % 200
    with torch.no_grad():
        first, second = decoder(fused, labels).logits, decoder(fused, changed).logits
    torch.testing.assert_close(first[:, :3], second[:, :3])
    assert not torch.allclose(first[:, 3:], second[:, 3:], atol=1e-4)


@generating
def test_generate_agrees_with_forward(decoder, fused):
    """Cached generation agrees with one forward pass over the generated tokens."""
    found = decoder.generate(fused, max_new_tokens=8, do_sample=False)
    assert found.shape[0] == 3
    with torch.no_grad():
        output = decoder(fused, decoder_input_ids=found[:, :-1])
    assert output.loss is None
    likeliest = output.logits.argmax(-1)
    (end,) = decoder.end_token_ids or (1,)
    ended = (found[:, 1:] == end).cumsum(1).bool().roll(1, 1)
    ended[:, 0] = False
    assert torch.equal(found[:, 1:][~ended], likeliest[~ended])
    again = decoder.generate(fused, max_new_tokens=8, do_sample=False, use_cache=False)
    assert torch.equal(again, found)


def test_gradients_reach_every_parameter_and_the_states(case, texts, fused, inputs):
    decoder = build(*case)
    ids, mask = padded(texts)
    states = decoder.encode_text(ids, mask)
    states.retain_grad()
    decoder(FusedStates(states, mask.bool(), visual=fused.visual), **inputs).loss.backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    assert states.grad[mask.bool()].any(dim=-1).all()
    assert not states.grad[~mask.bool()].any()


def test_saved_options_rebuild_the_shape(case, decoder, fused, inputs, tmp_path):
    options = json.loads(json.dumps(decoder.saved_options()))
    torch.manual_seed(9)
    again = registry.construct(case[0], options).eval()
    assert json.loads(json.dumps(again.saved_options())) == options
    save_model(decoder, str(tmp_path / "decoder.safetensors"))
    load_model(again, str(tmp_path / "decoder.safetensors"))
    with torch.no_grad():
        assert torch.equal(again(fused, **inputs).logits, decoder(fused, **inputs).logits)


def test_a_saved_checkpoint_is_a_source(case, decoder, aligned, texts, fused, inputs, tmp_path):
    decoder.save_checkpoint(tmp_path / "checkpoint")
    own = {name: value for name, value in case[1].items() if name not in ("source", "config")}
    again = aligned(registry.build(case[0], source=str(tmp_path / "checkpoint"), **own)).eval()
    with torch.no_grad():
        assert torch.equal(again.encode_text(*padded(texts)), aligned(decoder).encode_text(*padded(texts)))
        if isinstance(decoder, GeneratingDecoder):  # the others save only their encoder
            assert torch.equal(again(fused, **inputs).logits, decoder(fused, **inputs).logits)
    first, second = decoder.saved_options(), again.saved_options()
    assert {**second, "source": first["source"]} == first


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", tasks.ordered())
def test_every_task_reads_back_its_targets(name, variant, embedded):
    task = tasks.registry.build(name, labels=LABELS[name], variant=variant)
    records = [scene.record for scene in embedded if scene.record.annotated_for(name)]
    assert len(records) == 20
    answers = []
    for record in records:
        task.check(record)
        (query,) = task.queries(record)
        assert all(label in query.instruction for label in task.labels)
        items = task.parse(query.answer, record, query.target)
        assert items.dropped == 0
        again = task.with_items(record, items)
        assert [query.answer] == [asked.answer for asked in task.queries(again)]
        answers.append(items)
    num_gold = sum(task.label_of(item) != "none" for record in records for item in task.items(record))

    def score(answers):
        return strict_score(name, [task.with_items(*pair) for pair in zip(records, answers, strict=True)], records)

    scores = score(answers)
    assert scores["f1"] == scores["precision"] == scores["recall"] == 1
    assert scores["true_positives"] == scores["gold"] == num_gold > 10
    assert score([[] for _ in records])["f1"] == 0
    half = [answer if index % 2 else [] for index, answer in enumerate(answers)]
    found = sum(task.label_of(item) != "none" for answer in half for item in answer)
    assert score(half)["recall"] == found / num_gold
    assert score(half)["precision"] == 1


@pytest.mark.parametrize("name", tasks.ordered())
def test_every_task_reads_another_records_answer_without_raising(name, embedded):
    """Spans are searched in the record's own text, so an answer about another text has almost none."""
    task = tasks.registry.build(name, labels=LABELS[name])
    records = [scene.record for scene in embedded if scene.record.annotated_for(name)]
    wrong = []
    for record, other in zip(records, records[1:] + records[:1], strict=True):
        (asked,), (query,) = task.queries(record), task.queries(other)
        wrong.append(task.parse(query.answer, replace(record, regions=(), entities=(), events=()), asked.target))
    spans = name != "mre"  # a relation's answer is only a label
    assert sum(len(answer) for answer in wrong) < sum(len(task.items(record)) for record in records) * (
        0.3 if spans else 1.1
    )
    assert (sum(answer.dropped for answer in wrong) > 0) == spans
    predictions = [task.with_items(*pair) for pair in zip(records, wrong, strict=True)]
    assert strict_score(name, predictions, records)["f1"] < 0.5
