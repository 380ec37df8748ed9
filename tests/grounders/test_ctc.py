"""`ctc`: the alignment against all paths, and a small recognizer with random weights."""

import itertools
import json
import math
import random

import numpy as np
import pytest
import torch
import transformers
from media_checkpoints import MODELS

from umie.errors import UmieError
from umie.grounders import registry
from umie.grounders.ctc import align
from umie.media import Sound

LETTERS = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "A": 5, "B": 6, "C": 7}


def collapsed(path, blank=0):
    return [token for token, _ in itertools.groupby(path) if token != blank]


def cheapest(log_probs, tokens):
    """Return the least cost of an interval whose frames say the tokens, by trying everything."""
    num_frames, num_tokens = log_probs.shape
    costs = log_probs.max(1, keepdims=True) - log_probs
    best = math.inf
    for first, end in itertools.combinations(range(num_frames + 1), 2):
        for path in itertools.product(range(num_tokens), repeat=end - first):
            if collapsed(path) == tokens and path[0] and path[-1]:
                best = min(best, sum(costs[first + number, token] for number, token in enumerate(path)))
    return best


@pytest.mark.parametrize("seed", range(30))
def test_the_alignment_is_the_cheapest_of_all(seed):
    drawn = random.Random(seed)
    num_frames, tokens = drawn.randint(1, 5), [drawn.randint(1, 2) for _ in range(drawn.randint(1, 3))]
    logits = np.random.default_rng(seed).normal(size=(num_frames, 3)) * 2
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected, found = cheapest(log_probs, tokens), align(log_probs, tokens, 0)
    if math.isinf(expected):
        assert found is None  # too few frames
        return
    assert 0 <= found.first < found.end <= num_frames
    assert 0 < found.score <= 1
    assert -math.log(found.score) * (found.end - found.first) == pytest.approx(expected, abs=1e-9)


def spoken(path, num_tokens=8):
    """Return log-probabilities that say a path, with one token per frame."""
    probabilities = np.full((len(path), num_tokens), 0.02)
    for frame, token in enumerate(path):
        probabilities[frame, token] = 1 - 0.02 * (num_tokens - 1)
    return np.log(probabilities)


def test_a_phrase_is_found_where_it_is_said():
    log_probs = spoken([0, 7, 0, 5, 5, 0, 6, 0, 6, 0, 7])
    assert align(log_probs, [5, 6, 6], 0) == (3, 9, 1.0)
    assert align(log_probs, [7], 0)[:2] in ((1, 2), (10, 11))
    assert align(log_probs, [6, 5], 0).score < 0.5
    assert align(log_probs, [], 0) is None
    assert align(log_probs[:2], [6, 6], 0) is None


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ctc")
    _, options, _, _ = MODELS["wav2vec2"]
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(**options, pad_token_id=0)
    transformers.Wav2Vec2ForCTC(config).save_pretrained(folder)
    (folder / "letters.json").write_text(json.dumps(LETTERS))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "letters.json"))
    transformers.Wav2Vec2Processor(transformers.Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder


def noise(seconds, seed=0):
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, round(16_000 * seconds))
    return Sound(samples.astype(np.float32), 16_000)


@pytest.mark.parametrize("seconds", [0.01, 2.0, 61.0])
@pytest.mark.slow
def test_segments_are_inside_the_sound(checkpoint, seconds):
    grounder = registry.build("ctc", checkpoint=str(checkpoint), min_score=0)
    sound = noise(seconds)
    found = grounder.find(sound, ["ab", "Abc cab", "!?", "b"])
    assert found[2] == []  # the recognizer has no such letters
    for (segment,) in [own for own in (found[0], found[1], found[3]) if own]:
        start, end = segment.interval
        assert 0 <= start < end <= sound.seconds + 1e-6
    assert found[3]
    assert registry.build("ctc", checkpoint=str(checkpoint), min_score=1).find(noise(1), ["ab"]) == [[]]


def test_what_is_no_checkpoint(tmp_path, checkpoint):
    with pytest.raises(UmieError, match="checkpoint is None: use the directory of a CTC model"):
        registry.build("ctc")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UmieError, match=r"empty"):
        registry.build("ctc", checkpoint=str(tmp_path / "empty"))
    with pytest.raises(UmieError, match="Unknown option of grounder 'ctc': 'checkpoints'. Did you mean 'checkpoint'"):
        registry.build("ctc", checkpoints="x")
