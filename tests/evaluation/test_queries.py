"""QueryDataset: its queries, and images that are read lazily, once, and in bounded memory."""

import itertools
from dataclasses import replace

import pytest
import torch

from umie import processor as processor_module
from umie.composition import compose
from umie.data.synthetic import SyntheticConfig, scenes
from umie.encoders.base import no_slots
from umie.errors import UmieError
from umie.evaluation.queries import QueryDataset
from umie.records import Record
from umie.types import FEATURES

TASKS = ("mner", "mre", "med", "meae")


@pytest.fixture(scope="module")
def processor():
    return compose()[1]


@pytest.fixture(scope="module")
def records() -> list[Record]:
    from dataclasses import replace

    drawn = itertools.islice(scenes(SyntheticConfig(), "train"), 6)
    return [replace(scene.record, image=scene.image) for scene in drawn]


def test_each_record_is_asked_the_tasks_it_is_annotated_for(records, processor):
    # two names (one query each), two pairs (one each), two events (detection and arguments)
    assert [len(QueryDataset(records, [task], processor)) for task in TASKS] == [2, 2, 2, 2]
    assert len(QueryDataset(records, TASKS, processor)) == 8


def test_items_equal_the_batch_of_the_processor(records, processor):
    events = [record for record in records if record.events]
    dataset = QueryDataset(records, ["med"], processor)
    batch = processor.collate([dataset[index] for index in range(len(dataset))])
    expected = processor(events, "med")
    assert batch.keys() == expected.keys()
    assert all(torch.equal(batch[name], expected[name]) for name in batch)
    assert dataset.lengths == expected["attention_mask"].sum(1).tolist()


def test_queries_about_one_record_share_its_image(records, processor):
    dataset = QueryDataset(records[2:3], ("med", "meae"), processor)
    assert dataset[0]["crops"] is dataset[1]["crops"]


def test_images_beyond_the_limit_are_read_again(records, variant, monkeypatch):
    _, processor = variant()
    monkeypatch.setattr(processor_module, "MAX_CACHED_BYTES", 0)
    dataset = QueryDataset(records[2:3], ("med", "meae"), processor)
    assert dataset[0]["crops"] is not dataset[1]["crops"]
    assert torch.equal(dataset[0]["crops"], dataset[1]["crops"])


def test_an_image_is_not_read_before_its_item_is_accessed(processor):
    dataset = QueryDataset([Record("a text", image="missing.png", id="r1")], ["mner"], processor)
    with pytest.raises(UmieError, match="'r1'.*missing.png: no such image"):
        dataset[0]


def test_nothing_to_ask_is_an_error(processor):
    with pytest.raises(UmieError, match="no record has a query for any of these tasks: mre"):
        QueryDataset([Record("a text")], ["mre"], processor)


def test_changing_the_source_of_features_clears_the_cached_images(variant, embedded_records):
    """Pixels and features never mix in one batch."""

    class Source:
        def one(self, image, regions=()):
            return {**no_slots(), FEATURES: torch.zeros(0, 5)}

    _, processor = variant()
    dataset = QueryDataset(embedded_records[:9], ["mner"], processor)
    assert "crops" in dataset[0]
    processor.features["image"] = Source()
    assert FEATURES in processor.collate([dataset[0], dataset[1]])
    processor.features.clear()
    assert "crops" in processor.collate([dataset[0], dataset[1]])


def test_data_sets_of_one_processor_open_an_image_once(variant, embedded_records, tmp_path, monkeypatch):
    """One file in two splits and for two tasks; not where it cannot be read, which each split counts."""
    _, processor = variant()
    record = next(record for record in embedded_records if record.annotated_for("med"))
    record.image.save(tmp_path / "photo.png")
    opened = []
    open_image = processor.preprocessor.one
    monkeypatch.setattr(
        processor.preprocessor, "one", lambda *arguments: opened.append(arguments) or open_image(*arguments)
    )
    here, there = (replace(record, image="photo.png", image_folder=str(tmp_path), id=name) for name in ("a", "b"))
    for split in (here, there):
        for task in ("med", "meae"):
            dataset = QueryDataset([split], [task], processor)
            assert all(len(dataset[index]["visual_mask"]) for index in range(len(dataset)))
    assert len(opened) == 1
    moved = replace(here, regions=here.regions[:1], events=())
    assert len(QueryDataset([moved], ["med"], processor)[0]["visual_mask"]) == 2  # other regions, other slots
    assert len(opened) == 2
