"""A record as a figure: all media, hostile texts, and media that cannot be read."""

import numpy as np
import pytest
from PIL import Image

from umie.data.synthetic_media import SyntheticMediaConfig, scenes
from umie.errors import UmieError
from umie.records import Argument, Entity, Event, Mask, Record, Region, Relation
from umie.reports.record_figure import draw_record
from umie.reports.record_page import COLORS, items_of, owners_of, titled

HOSTILE = "$x_{1}$ <b>&amp;</b> \\frac \u202e日本語テキスト\n\n\x00\t" + "w" * 300


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).reshape(-1, 3)


def has_color(path, color):
    wanted = tuple(int(color[start : start + 2], 16) for start in (1, 3, 5))
    return bool((np.abs(pixels(path).astype(int) - wanted).sum(1) < 12).any())


def test_each_item_has_its_color_in_all_media(tmp_path):
    config = SyntheticMediaConfig(train=0, dev=0, test=4)
    drawn = set()
    for number, scene in enumerate(scenes(config, "test")):
        record = scene.record
        if record.combination in drawn:
            continue
        drawn.add(record.combination)
        scene.save(tmp_path)
        path = tmp_path / f"{number}.png"
        draw_record(Record(**{**vars(record), "image_folder": str(tmp_path)}), path)
        has_item = bool(record.entities or record.events or any(one.type != "none" for one in record.relations))
        assert has_color(path, COLORS[0]) == has_item, record
    assert len(drawn) == 9


def test_masks_overlaps_and_other_formats(tmp_path):
    inside = np.zeros((50, 100), dtype=bool)
    inside[10:30, 20:60] = True
    record = Record(
        "Ann Lee met Bob", image=Image.new("RGB", (100, 50), "white"),
        regions=(Region((0.2, 0.2, 0.6, 0.6), mask=Mask.of(inside)),),
        entities=(Entity("person", (0, 7), regions=(0,), probability=0.5), Entity("name", (0, 3))),
        relations=(Relation("peer", (0, 7), (12, 15)),), events=(Event("meet", (8, 11)),),
    )  # fmt: skip
    for ending in ("png", "svg", "pdf"):
        draw_record(record, tmp_path / f"a.{ending}")
    assert all(has_color(tmp_path / "a.png", color) for color in (COLORS[1], COLORS[3]))
    text = (tmp_path / "a.svg").read_text("utf-8")
    assert "person: Ann Lee (O1) p = 0.50" in text
    assert "O1 person" in text  # on the box
    with pytest.raises(UmieError, match="unknown figure format"):
        draw_record(record, tmp_path / "a.gif")


@pytest.mark.parametrize("text", [HOSTILE, "x " * 5_000, "中" * 500])
@pytest.mark.slow
def test_hostile_texts_and_missing_media(tmp_path, text):
    start = text.index(text.strip()[0])
    record = Record(
        text,
        image="../outside.png",
        audio="none.wav",
        image_folder=str(tmp_path),
        entities=(Entity(HOSTILE, (start, start + 3)),),
    )
    draw_record(record, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        width, height = image.size
    assert width == 1200
    assert height < 6_000


def test_places_are_named_by_what_they_show():
    event = Event("meet", (0, 3), (Argument("agent", regions=(0,)), Argument("target", (4, 7), regions=(0,))), (1,))
    regions = (Region((0, 0, 1, 1)), Region((0, 0, 1, 1)), Region((0, 0, 1, 1)))
    record = Record("Ann met", "a.png", regions, (Entity("person", regions=(0, 1)),), events=(event,))
    owners = owners_of(items_of(record))
    assert [titled(name, owners.get(name, ())) for name in ("O1", "O2", "O3")] == [
        "O1 person, agent, target", "O2 person, meet", "O3",
    ]  # fmt: skip
