"""The byte-level tokenizer restores any text exactly, whatever it was trained on."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from umie.composition import default_tokenizer
from umie.tokenization import train_tokenizer

EOS, PAD, UNKNOWN = 1, 0, 2


@pytest.fixture(scope="module")
def bare():
    """An untrained tokenizer: only bytes and special tokens."""
    return train_tokenizer([], 259)


def check_lossless(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert ids[-1] == EOS
    assert not {EOS, PAD, UNKNOWN} & set(ids[:-1])
    decoded = tokenizer.batch_decode([[*ids, PAD, PAD]], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert decoded == [text]
    assert tokenizer.decode(ids[:-1]) == text


@given(text=st.text(max_size=60))
@example("")
@example("  two  spaces , \t a tab\r\n and no end ")
@example("O1 O12 [Agent = O2] [person: Ann|]]2")
@example("naïve café, 東京, 🧑‍🚒 Ωmega \u200d\ufeff\x00")
@example("I 'm do n't . !")
def test_any_text_is_restored(tokenizer, bare, text):
    check_lossless(tokenizer, text)
    check_lossless(bare, text)


@pytest.mark.parametrize("text", ["</s>", "a </s> b", "<pad>", "x<unk>y", "<pad></s><unk>"])
def test_a_text_that_contains_a_special_token_is_restored(tokenizer, tmp_path, text):
    check_lossless(tokenizer, text)
    tokenizer.save_pretrained(tmp_path)
    check_lossless(AutoTokenizer.from_pretrained(tmp_path), text)


def test_special_tokens_are_those_of_t5(tokenizer, bare):
    for trained in (tokenizer, bare):
        assert (trained.pad_token_id, trained.eos_token_id, trained.unk_token_id) == (PAD, EOS, UNKNOWN)
        assert trained.convert_ids_to_tokens([0, 1, 2]) == ["<pad>", "</s>", "<unk>"]


def test_sizes(tokenizer, bare):
    assert len(tokenizer) == 1024
    assert len(bare) == 259
    assert len(train_tokenizer(["banana banana banana"] * 3, 262)) == 262


def test_every_digit_is_a_token(tokenizer):
    """This also holds if the training texts repeat a number."""
    for trained in (tokenizer, train_tokenizer(["O12 2024 12 2024"] * 20, 300)):
        tokens = trained.convert_ids_to_tokens(trained("O12 2024").input_ids)
        assert [token for token in tokens if re.search(r"\d", token)] == list("122024")
    first, twelfth = (tokenizer.convert_ids_to_tokens(tokenizer(f"= O{n}").input_ids[:-1]) for n in (1, 12))
    assert twelfth == [*first, "2"]


def test_training_shortens_texts(tokenizer, bare):
    text = "Please extract the following entity type: person, location"
    assert len(tokenizer(text).input_ids) < len(bare(text).input_ids) / 3


def test_names_of_other_splits_are_about_as_short(tokenizer, embedded):
    """Splits share no names, but the syllables of names."""
    from umie.data.synthetic import SyntheticConfig, scenes

    def pieces(scenes):
        names = [scene.record.entities[0].text for scene in scenes if scene.record.entities]
        return sum(len(tokenizer(" " + name).input_ids) for name in names) / len(names)

    assert pieces(embedded) < 1.2 * pieces(scenes(SyntheticConfig(train=60), "train"))


def test_training_is_deterministic(tokenizer):
    again = default_tokenizer({"source": "tiny"})
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_saved_and_loaded(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert len(loaded) == len(tokenizer)
    for text in ("", "Saw  Bado Rima !", "naïve 東京\n12 "):
        assert loaded(text).input_ids == tokenizer(text).input_ids
        check_lossless(loaded, text)
