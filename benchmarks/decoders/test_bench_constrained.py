"""Constrained against unconstrained decoding: time per batch of 16 queries, on annotated answers.

The weights are random, so a bias leads every mode to the annotated answers: all modes decode the same tokens, and the
bias costs the same in each. The records are real tweets and news if available, else those of the embedded set.

Processor time of one thread is measured, so that other load on the machine has little effect. Run:
``pytest benchmarks/decoders --benchmark-only --benchmark-timer=time.process_time --benchmark-columns=median,iqr``
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from transformers import LogitsProcessor

from umie import data
from umie.composition import compose, tokenizer_texts
from umie.constrained import Constraint
from umie.data.synthetic import SyntheticConfig, scenes
from umie.decoders.jump_forward import generate
from umie.decoders.t5_steps import T5Steps
from umie.tasks import registry as tasks
from umie.tokenization import train_tokenizer

BATCH, NEW_TOKENS = 16, 128
torch.set_num_threads(1)  # steps are too short for several threads
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
REAL = {
    "mner": ("twitter", "twitter2017/test.txt"),
    "mre": ("mnre", "mnre_v2/test.txt"),
    "med": ("m2e2", "m2e2/text_multimedia_event.json"),
    "meae": ("m2e2", "m2e2/text_multimedia_event.json"),
}
MODES = ("free", "constrained", "constrained_steps", "jump_forward")


def records(task, count):
    """Return records with an answer, from the published set or the embedded one."""
    name, file = REAL[task]
    if (SHARED / file).exists():
        read = data.read(name, SHARED / file)
        return list(itertools.islice((record for record in read if _is_answered(record, task)), count)), file
    drawn = (scene.record for scene in scenes(SyntheticConfig(test=3 * count), "test"))
    return list(itertools.islice((record for record in drawn if record.annotated_for(task)), count)), "embedded"


def _is_answered(record, task):
    return any(query.answer for query in tasks.build(task, labels=_labels(record, task)).queries(record))


def _labels(record, task):
    return (record.labels or {}).get(task)


class Biased(LogitsProcessor):
    """Adds a bias to the annotated next token, so that it is chosen."""

    def __init__(self, answers):
        self.answers = answers

    def __call__(self, input_ids, scores):
        place = input_ids.shape[1] - 1
        scores[torch.arange(len(scores)), [answer[min(place, len(answer) - 1)] for answer in self.answers]] += 1e4
        return scores


class BiasedSteps:
    """The decoder's steps with the same bias."""

    def __init__(self, steps, answers):
        self.steps, self.answers, self.places = steps, answers, [-1] * len(answers)

    def feed(self, tokens, candidates):
        logits = self.steps.feed(tokens, candidates)
        self.places = [place + len(row) for place, row in zip(self.places, tokens, strict=True)]
        best = [
            answer[min(place, len(answer) - 1)]
            for place, answer, row in zip(self.places, self.answers, tokens, strict=True)
            if row
        ]
        for row, token in enumerate(best):
            logits[row, candidates == token] += 1e4
        return logits

    def keep(self, rows):
        self.steps.keep(rows)
        self.answers = [self.answers[row] for row in rows]
        self.places = [self.places[row] for row in rows]


@pytest.fixture(scope="module", params=["tiny", "flan-t5-small", "flan-t5-base"])
def shape(request):
    """A decoder with random weights and a tokenizer trained on the texts."""
    torch.manual_seed(0)
    found = {task: records(task, 64) for task in REAL}
    built = {task: tasks.build(task, labels=_labels(found[task][0][0], task)) for task in REAL}
    texts = [text for task in REAL for text in tokenizer_texts(found[task][0], [built[task]])]
    tokenizer = train_tokenizer(texts, 4096)
    model, processor = compose(fusion="text_only", decoder=request.param, tokenizer=tokenizer)
    return request.param, model, processor, found, built


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", list(REAL))
@torch.no_grad()
def test_decoding(benchmark, shape, task, mode):
    name, model, processor, found, built = shape
    chosen, source = found[task]
    asked = [(record, query) for record in chosen for query in built[task].queries(record)][:BATCH]
    batch = processor.collate([processor.encode_query(*pair) | processor.preprocessor.one(None) for pair in asked])
    answers = [[token for token in row if token != -100] for row in batch["labels"].tolist()]
    fused, _, _ = model.fuse(batch["input_ids"], batch["attention_mask"])
    t5 = model.decoder

    def run():
        if mode == "free":
            return t5.seq2seq.generate(
                encoder_outputs=_encoded(fused), attention_mask=fused.mask.long(), max_new_tokens=NEW_TOKENS,
                logits_processor=[Biased(answers)],
            )  # fmt: skip
        constraint = Constraint(processor.tokenizer, built[task], asked, NEW_TOKENS)
        if mode == "constrained":
            return t5.generate(
                fused, constraint, jump_forward=False, max_new_tokens=NEW_TOKENS, logits_processor=[Biased(answers)]
            )
        steps = BiasedSteps(T5Steps(t5.seq2seq, fused), answers)
        return generate(steps, constraint.automata, 0, 0, NEW_TOKENS, jump=mode == "jump_forward")

    expected = [[0, *answer] for answer in answers]
    assert [row[: len(answer)] for row, answer in zip(run().tolist(), expected, strict=True)] == expected
    benchmark.extra_info |= {"shape": name, "task": task, "mode": mode, "data": source, "batch": BATCH}
    benchmark.extra_info["tokens"] = sum(map(len, answers))
    benchmark.group = f"{name}, {task}"
    benchmark.pedantic(run, rounds=3 if name == "flan-t5-base" else 7, warmup_rounds=1)


def _encoded(fused):
    from transformers.modeling_outputs import BaseModelOutput

    return BaseModelOutput(last_hidden_state=fused.states)
