"""The control `images: shuffled`: records with the images of others."""

from dataclasses import replace

import pytest
from grid_helpers import TASKS, cells_in_process, lines_of
from hypothesis import given
from hypothesis import strategies as st

from umie.errors import UmieError
from umie.experiments.data_sets import with_shuffled_images
from umie.experiments.expand import plan, read_grid
from umie.records import Argument, Entity, Event, Record, Region

BOX = Region((0.0, 0.0, 0.5, 1.0))
SMALL = {"data": {"format": "synthetic", "train": 12, "dev": 6, "test": 6}, "tasks": ["mner"], "warm_start": ...}


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 3))
def test_every_image_goes_to_another_record(has_image, seed):
    records = [
        Record(
            f"text {index}", image=f"{index}.jpg" if given else None, regions=(BOX,) * (given * index), id=str(index)
        )
        for index, given in enumerate(has_image)
    ]
    if sum(has_image) == 1:
        return
    shuffled = with_shuffled_images(records, seed)
    assert [replace(record, image=None, regions=()) for record in shuffled] == [
        replace(record, image=None, regions=()) for record in records
    ]
    images = {record.image: record.regions for record in records}
    assert {record.image: record.regions for record in shuffled} == images
    if sum(has_image) > 1:
        moved = [one.image != two.image for one, two in zip(records, shuffled, strict=True)]
        assert moved == has_image
    assert shuffled == with_shuffled_images(records, seed)


def test_an_image_is_replaced_by_the_same_one_wherever_it_occurs():
    records = [Record(f"text {index}", image=f"{index // 5}.jpg") for index in range(15)]
    shuffled = with_shuffled_images(records)
    assert all(one.image != two.image for one, two in zip(records, shuffled, strict=True))
    assert len({(one.image, two.image) for one, two in zip(records, shuffled, strict=True)}) == 3


def test_a_single_image_cannot_be_shuffled():
    with pytest.raises(UmieError, match="only one image"):
        with_shuffled_images([Record("a", image="1.jpg"), Record("b", image="1.jpg"), Record("c")])


def test_what_an_image_shows_is_left_out():
    entity = Entity("person", (0, 3), regions=(0,))
    spoken, seen = Argument("Entity", (0, 3)), Argument("Entity", regions=(0,))
    events = (Event("meet", None, (spoken, seen)),)
    shown = Record("Ann", image="1.jpg", regions=(BOX,), entities=(entity,), events=events)
    _, found = with_shuffled_images([Record("x", image="2.jpg"), shown])
    assert (found.image, found.regions, found.entities) == ("2.jpg", (), (Entity("person", (0, 3), "Ann"),))
    assert found.events == (Event("meet", None, (spoken,)),)


def test_regions_and_annotation_are_kept_where_answers_refer_to_them(grid_file):
    """Else the control would be scored on other items: without regions, on mentions alone."""
    entity = Entity("person", (0, 3), regions=(0,))
    events = (Event("meet", None, (Argument("Entity", regions=(0,)),)),)
    shown = Record("Ann", image="1.jpg", regions=(BOX,), entities=(entity,), events=events)
    _, found = with_shuffled_images([Record("x", image="2.jpg"), shown], keeps_regions=True)
    assert found == replace(shown, image="2.jpg")


@pytest.mark.parametrize("tasks", [["med", "meae"], {task: {"grounded": True} for task in TASKS}])
def test_a_control_is_scored_on_the_same_items(grid_file, umie, tmp_path, tasks):
    gold = {}
    for images in ("own", "shuffled"):
        path = grid_file(**{**SMALL, "tasks": tasks}, images=images, fusion=["gated"])
        with cells_in_process():
            code, out, _ = umie("ablate", path, "--output", tmp_path / images)
        assert code == 0, out
        (line,) = lines_of(tmp_path / images)
        gold[images] = {task: scores["gold"] for task, scores in line["metrics"].items()}
    assert gold["own"] == gold["shuffled"]


def test_a_grid_can_have_shuffled_images_as_a_variant(grid_file):
    fusion = [
        "text_only",
        "gated",
        {"name": "gated", "images": "shuffled"},
        {"name": "concat", "label": "c", "images": "shuffled"},
    ]
    cells = plan(read_grid(grid_file(fusion=fusion)), "x")
    assert [cell.variant for cell in cells] == ["text_only", "gated", "gated, shuffled images", "c"]
    assert [cell.config.images for cell in cells] == ["own", "own", "shuffled", "shuffled"]
    assert len({cell.hash for cell in cells}) == 4
    assert "images" not in cells[2].config.fusion


def test_other_choices_are_refused(grid_file):
    with pytest.raises(UmieError, match="choice of images 'mixed'"):
        read_grid(grid_file(images="mixed"))


def test_a_variant_is_trained_with_shuffled_images(grid_file, umie, tmp_path):
    path = grid_file(**SMALL, fusion=["gated", {"name": "gated", "images": "shuffled"}])
    with cells_in_process():
        code, out, err = umie("ablate", path, "--output", tmp_path / "run")
    assert code == 0, err
    own, shuffled = lines_of(tmp_path / "run")
    assert own["train_loss"] != shuffled["train_loss"]
    assert "| gated, shuffled images " in out
