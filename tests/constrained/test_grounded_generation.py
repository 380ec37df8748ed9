"""Grounded answers of random weights in each combination of media: all well-formed, and they name only what exists."""

import sys
from pathlib import Path

import pytest
import torch

from umie import compose
from umie.data.media_contents import LABELS
from umie.data.synthetic_media import COMBINATIONS, SyntheticMediaConfig, tasks_of, write_synthetic_media
from umie.evaluation import QueryDataset, answer_queries
from umie.records import read_jsonl

sys.path.insert(0, str(Path(__file__).resolve().parent))
from test_generation import randomized
from test_grounded import places_in

MANY = pytest.param(1000, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    def records_of(combination, number):
        folder = tmp_path_factory.mktemp("media")
        config = SyntheticMediaConfig(train=number, dev=0, test=0, combinations=(combination,))
        return list(read_jsonl(write_synthetic_media(folder, config)["train"]))

    return records_of


@pytest.mark.parametrize("number", [8, MANY])
@pytest.mark.parametrize("decoder", ["t5", "causal", {"name": "span", "threshold": 0.45}])
def test_answers_of_random_weights(read, decoder, number):
    torch.manual_seed(0)
    model, processor = compose(
        "tiny",
        "concat",
        decoder,
        video_encoder="tiny_video",
        audio_encoder={"name": "tiny_audio", "rate": 4_000},
        tasks={name: {"labels": labels, "grounded": True} for name, labels in LABELS.items()},
        visual_embedding={"num_slot_embeddings": 5},
    )
    num_items = num_shown = 0
    for seed, combination in enumerate(COMBINATIONS):
        randomized(model, seed)
        for record, task, query, answer in answers(model, processor, read(combination, number), tasks_of(combination)):
            assert answer.items.dropped == 0, answer.output
            if isinstance(decoder, str):  # what was generated is what is read
                assert task.parse(answer.output, record, query.target) == answer.items
            for item in answer.items:
                assert (item.arguments[0].role if task.name == "meae" else item.type) in LABELS[task.name]
                shown = places_in(item)
                assert all(map(record.has, shown)), answer.output
                num_shown += sum(map(any, shown))
                num_items += 1
    assert num_items > 3 * number
    assert num_shown > number


def answers(model, processor, records, names):
    for name in names:
        task = processor.task(name)
        queries = QueryDataset([record for record in records if record.annotated_for(name)], [task], processor)
        found = answer_queries(
            model.eval(), processor, task, queries.asked, queries, queries.lengths,
            constrained=True, batch_size=50, max_new_tokens=48,
        )  # fmt: skip
        for (record, query), answer in zip(queries.asked, found, strict=True):
            yield record, task, query, answer
