"""Jump-forward decoding and T5's steps equal transformers' generation, token for token."""

from __future__ import annotations

import random

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from umie.decoders import registry
from umie.decoders.jump_forward import generate
from umie.decoders.t5_steps import T5Steps
from umie.types import FusedStates

FLAN = {
    "vocab_size": 300, "d_model": 48, "d_kv": 16, "d_ff": 64, "num_layers": 3, "num_decoder_layers": 3, "num_heads": 6,
    "dropout_rate": 0.0,
}  # fmt: skip
SHAPES = {
    "tied": {"source": "tiny", "overrides": {"vocab_size": 300}},
    "untied": {"source": "flan-t5-small", "overrides": FLAN},
    "relu": {"source": "tiny", "overrides": {"vocab_size": 300, "feed_forward_proj": "relu", "d_kv": 16}},
}
START, END, PAD = 0, 1, 0


def decoder(shape: str, seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = registry.construct("t5", dict(SHAPES[shape])).eval()
        for parameter in built.parameters():
            parameter.data.normal_(0, 0.15)
    return built


def fused_states(built: torch.nn.Module, num_rows: int, seed: int = 0) -> FusedStates:
    """Random states of different lengths, with padding that must be ignored."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(num_rows, 9, built.widths["d_model"], generator=generator)
    lengths = torch.randint(1, 10, (num_rows, 1), generator=generator)
    return FusedStates(states, torch.arange(9) < lengths)


@torch.no_grad()
def forced(built, fused, rows):
    """The logits after the last token of each row, from transformers' decoder, one row at a time."""
    found = []
    for index, tokens in enumerate(rows):
        output = built.seq2seq(
            encoder_outputs=BaseModelOutput(last_hidden_state=fused.states[index : index + 1]),
            attention_mask=fused.mask[index : index + 1].long(),
            decoder_input_ids=torch.tensor([tokens]),
        )
        found.append(output.logits[0, -1])
    return torch.stack(found)


@pytest.mark.parametrize(("shape", "seed"), list(zip(SHAPES, range(3), strict=True)))
@torch.no_grad()
def test_ragged_feeds_equal_transformers_logits(shape, seed):
    rng = random.Random(seed)
    built = decoder(shape, seed)
    fused = fused_states(built, 5, seed)
    steps = T5Steps(built.seq2seq, fused)
    rows = [[] for _ in range(5)]
    kept = list(range(5))
    for step in range(9):
        fed = [[rng.randrange(300) for _ in range(rng.choice([1, 1, 2, 7, 12]))] for _ in kept]
        for index, tokens in zip(kept, fed, strict=True):
            rows[index] += tokens
        found = steps.feed(fed)
        part = FusedStates(fused.states[kept], fused.mask[kept])
        expected = forced(built, part, [rows[index] for index in kept])
        assert found.shape == (len(kept), 300)
        assert torch.allclose(found, expected, atol=1e-5, rtol=1e-5), (found - expected).abs().max()
        if step in (2, 5):
            chosen = sorted(rng.sample(range(len(kept)), len(kept) - 2)) if step == 2 else [len(kept) - 1, 0]
            steps.keep(chosen)
            kept = [kept[place] for place in chosen]


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_logits_of_some_tokens_are_those_of_all(shape):
    built = decoder(shape)
    fused = fused_states(built, 3)
    all_steps, some_steps = (T5Steps(built.seq2seq, fused) for _ in range(2))
    for fed in ([[0], [0], [0]], [[5, 6], [7], [8, 9, 10]]):
        whole, some = all_steps.feed(fed), some_steps.feed(fed, torch.tensor([1, 17, 299]))
        assert torch.allclose(whole[:, [1, 17, 299]], some, atol=1e-5)


class RandomWalk:
    """A random constraint: usually one token may come next, sometimes several, and the answer ends in time."""

    end = END

    def __init__(self, seed):
        self.start = (seed,)
        self.length = random.Random(seed).randrange(1, 25)

    def tokens(self, state, remaining):
        rng = random.Random(str(state))
        if remaining == 1 or len(state) > self.length:
            return [END]
        return rng.sample(range(2, 300), rng.choice([1, 1, 1, 2, 5, 40]))

    def next(self, state, token):
        return (*state, token)


class Processor:
    """The automata as a logits processor of transformers."""

    def __init__(self, automata, limit):
        self.automata, self.limit = automata, limit

    def __call__(self, input_ids, scores):
        masked = torch.full_like(scores, float("-inf"))
        for row, (automaton, tokens) in enumerate(zip(self.automata, input_ids.tolist(), strict=True)):
            state = automaton.start
            if END in tokens[1:]:
                masked[row, END] = 0
                continue
            for token in tokens[1:]:
                state = automaton.next(state, token)
            allowed = automaton.tokens(state, self.limit - len(tokens) + 1)
            masked[row, allowed] = scores[row, allowed]
        return masked


@pytest.mark.parametrize(("num_rows", "limit"), [(7, 1), (1, 2), (2, 7), (1, 30), (7, 30)])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_jumps_change_nothing(shape, num_rows, limit):
    num_forced = 0
    for seed in range(2):
        built = decoder(shape, seed)
        fused = fused_states(built, num_rows, seed)
        automata = [RandomWalk(100 * seed + row) for row in range(num_rows)]
        jumped, stepped = (
            generate(T5Steps(built.seq2seq, fused), automata, START, PAD, limit, jump=jump) for jump in (True, False)
        )
        assert torch.equal(jumped, stepped)
        assert jumped.shape[1] <= limit + 1
        options = {"max_new_tokens": limit, "do_sample": False, "num_beams": 1}
        theirs = built.seq2seq.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=fused.states),
            attention_mask=fused.mask.long(),
            logits_processor=[Processor(automata, limit)],
            **options,
            pad_token_id=PAD,
            eos_token_id=END,
            decoder_start_token_id=START,
        )
        assert torch.equal(jumped, theirs)
        num_forced += jumped.ne(PAD).sum().item()
    assert num_forced > 0


class CountingSteps(T5Steps):
    """Counts the steps and the tokens that are fed."""

    num_steps = num_tokens = 0

    def feed(self, tokens, *options):
        self.num_steps += 1
        self.num_tokens += sum(map(len, tokens))
        return super().feed(tokens, *options)


@torch.no_grad()
def test_forced_tokens_need_no_separate_step():
    built = decoder("tied")
    fused = fused_states(built, 1)
    automaton = RandomWalk(3)
    automaton.length = 24
    counted = {}
    for jump in (True, False):
        steps = CountingSteps(built.seq2seq, fused)
        row = generate(steps, [automaton], START, PAD, 30, jump=jump)[0].tolist()
        counted[jump] = steps.num_steps
    state, num_choices = automaton.start, 0
    for place, token in enumerate(row[1:]):
        num_choices += len(automaton.tokens(state, 30 - place)) > 1
        state = automaton.next(state, token)
    assert counted[False] == len(row) - 1
    assert counted[True] == num_choices < len(row) - 1


@torch.no_grad()
def test_an_answer_without_a_choice_needs_no_decoder():
    class Forced(RandomWalk):
        def tokens(self, state, remaining):
            return [END] if len(state) > 4 else [len(state) + 10]

    built = decoder("tied")
    steps = CountingSteps(built.seq2seq, fused_states(built, 2))
    rows = generate(steps, [Forced(0), Forced(1)], START, PAD, 30)
    assert rows.tolist() == [[0, 11, 12, 13, 14, 1]] * 2
    assert steps.num_steps == 0


@torch.no_grad()
def test_all_rows_can_be_dropped():
    built = decoder("tied")
    steps = T5Steps(built.seq2seq, fused_states(built, 2))
    steps.feed([[0], [0]])
    steps.keep([])
    steps.keep([])
