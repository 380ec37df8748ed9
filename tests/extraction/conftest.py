"""A gated variant that has learned some of the embedded records, saved as a folder."""

import dataclasses

import pytest

from umie.evaluation.queries import QueryDataset
from umie.extraction import Extractor
from umie.training import TrainingConfig, train

TASKS = ("mner", "mre", "med", "meae")


@pytest.fixture(scope="session")
def records(embedded_records):
    """Records of every kind, some of which have lost their images."""
    return [
        dataclasses.replace(record, image=None) if index % 4 == 3 else record
        for index, record in enumerate(embedded_records[:24])
    ]


@pytest.fixture(scope="session")
def learned(variant, records):
    model, processor = variant(fusion={"name": "gated", "gate": "dynamic"})
    dataset = QueryDataset(records[:12], TASKS, processor)
    train(model, processor, dataset, TrainingConfig(steps=90, batch_size=12, learning_rate=3e-3))
    return model, processor


@pytest.fixture(scope="session")
def checkpoint(learned, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    for part in learned:
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def extractor(learned):
    return Extractor(*learned)
