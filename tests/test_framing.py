"""The tokens around queries and answers, and unknown tokens, of tokenizers as models have them."""

import sys
from collections import Counter
from pathlib import Path

import pytest
from tokenizers import processors

from umie import framing
from umie.composition import compose
from umie.errors import UmieError
from umie.framing import expanded, framing_of, unknown_token_of
from umie.processor import UmieProcessor
from umie.records import Entity, Record
from umie.sequences import SequenceEncoder

sys.path.insert(0, str(Path(__file__).resolve().parent / "constrained"))  # for families.py
sys.path.insert(0, str(Path(__file__).resolve().parent / "decoders"))
from families import FAMILIES, unigram
from test_causal import gpt2_tokenizer, llama_tokenizer, qwen_tokenizer


def test_a_tokenizer_that_only_begins_texts_ends_answers_with_its_end_token():
    tokenizer = llama_tokenizer()
    assert tokenizer("").input_ids == [tokenizer.bos_token_id]
    framing = framing_of(tokenizer)
    assert framing.around_query == ((tokenizer.bos_token_id,), ())
    assert framing.around_answer == ((tokenizer.bos_token_id,), (tokenizer.eos_token_id,))


@pytest.mark.parametrize("family", FAMILIES)
def test_queries_and_answers_of_an_encoder_decoder_are_the_tokenizers_own(family):
    tokenizer = FAMILIES[family]()
    framing = framing_of(tokenizer)
    for before, after in (framing.around_query, framing.around_answer):
        body = tokenizer("Ann Lee", add_special_tokens=False).input_ids
        assert [*before, *body, *after] == tokenizer("Ann Lee").input_ids


@pytest.mark.parametrize("make", [llama_tokenizer, gpt2_tokenizer, qwen_tokenizer])
def test_a_prompt_has_the_tokens_of_the_whole_text(make):
    """SentencePiece begins a text with a space, but not a part of one."""
    tokenizer = make()
    framing = framing_of(tokenizer, "Read: {query}\nAnswer:")
    whole = tokenizer("Read: Ann\nAnswer:").input_ids
    assert tuple(whole[: len(framing.before_query)]) == framing.before_query
    assert tuple(whole[-len(framing.after_query) :]) == framing.after_query


def test_a_chat_template_is_written_out_once():
    """Templates may write the date, so a saved model has what was written."""
    tokenizer = qwen_tokenizer()
    model, processor = compose(
        fusion="text_only", decoder={"name": "causal", "overrides": {"eos_token_id": 2}, "prompt": "chat"},
        tokenizer=tokenizer,
    )  # fmt: skip
    text = "<|im_start|>user\n{query}<|im_end|>\n<|im_start|>assistant\n"
    assert model.decoder.prompt == processor.prompt == expanded(tokenizer, "chat") == text
    assert framing_of(tokenizer, text) == framing_of(tokenizer, "chat") == processor.framing


def test_a_chat_template_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr(framing, "MAX_SECONDS", 0.5)
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = "{% for a in range(9999) %}{% for b in range(3000) %}{% endfor %}{% endfor %}"
    with pytest.raises(UmieError, match="chat template fails: it takes more than 0.5 seconds: set prompt to a text"):
        expanded(tokenizer, "chat")
    tokenizer.chat_template = "{{ messages[0].content }}{{ 'x' * 200000 }}"
    with pytest.raises(UmieError, match="does not write the message as it is"):
        expanded(tokenizer, "chat")


def test_a_prompt_that_leaves_no_room_for_the_query_is_refused():
    with pytest.raises(UmieError, match="the prompt alone has .* tokens: shorten it, or increase max_input_tokens"):
        UmieProcessor(qwen_tokenizer(), {"name": "tiny"}, max_input_tokens=16, prompt="{query}" + " a" * 40)


@pytest.mark.parametrize("shared", ["pad_token", "eos_token"])
def test_an_unknown_token_with_another_name_is_still_unknown(shared):
    tokenizer = unigram()
    setattr(tokenizer, shared, tokenizer.unk_token)
    assert unknown_token_of(tokenizer) == tokenizer.unk_token_id
    encoder = SequenceEncoder(tokenizer, 64, 64, "{query} :")
    assert encoder.unwritable_in("Ann 王") == {"王"}
    assert unknown_token_of(gpt2_tokenizer()) is None  # its end token is called unknown, but it writes any text


def test_padding_that_is_the_unknown_token_is_no_character():
    tokenizer = unigram()
    tokenizer.pad_token = tokenizer.unk_token
    processor = UmieProcessor(tokenizer, {"name": "tiny"})
    record = Record("Ann met Bob", entities=(Entity("person", (0, 3)),))
    (query,) = processor.task("mner").queries(record)
    row = [tokenizer.pad_token_id, *tokenizer(query.answer).input_ids, *[tokenizer.pad_token_id] * 3]
    assert processor.decode_text([row], "mner") == [query.answer]


def test_characters_that_a_tokenizer_drops_are_unwritable():
    tokenizer = FAMILIES["byte_fallback"]()
    backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    backend.model.unk_token = None
    backend.model.byte_fallback = False
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    dropping = type(tokenizer)(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>")
    assert dropping.decode(dropping("王", add_special_tokens=False).input_ids).strip() == ""
    counts = Counter()
    record = Record("Ann 王", entities=(Entity("person", (4, 5)),))
    processor = UmieProcessor(dropping, {"name": "tiny"})
    task = processor.task("mner")
    SequenceEncoder(dropping, 64, 64).encode(task, record, task.queries(record)[0], counts)
    assert counts == {"unwritable_inputs": 1, "unwritable_targets": 1}
