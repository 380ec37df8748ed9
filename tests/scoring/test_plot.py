"""The figure of an evaluation."""

import pytest
from PIL import Image

from umie.records import Entity, Event, Record
from umie.scoring import Answer, score_answers
from umie.scoring.plot import draw

GOLD = [
    Record("a b", entities=(Entity("x", (0, 1)), Entity("y", (2, 3))), events=(Event("z", (0, 1)),)),
    Record("", image="1.jpg", events=(Event("z"),)),
]


@pytest.mark.parametrize("records", [GOLD, [Record("a", tasks=("mner",))]], ids=["several", "nothing at all"])
def test_a_picture_is_drawn_whole(tmp_path, records):
    report = score_answers(records, [Answer(record) for record in records], resamples=100)
    draw(report, tmp_path / "made" / "f.png")
    with Image.open(tmp_path / "made" / "f.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 700
        assert len(picture.convert("RGB").getcolors(maxcolors=10**6)) > 10
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["f.png"]


def test_more_figures_make_a_taller_picture(tmp_path):
    heights = []
    for name, tasks in (("one.png", ["mner"]), ("two.png", ["mner", "med"])):
        draw(score_answers(GOLD, [Answer(record) for record in GOLD], tasks=tasks, resamples=100), tmp_path / name)
        with Image.open(tmp_path / name) as picture:
            heights.append(picture.height)
    assert heights[0] < heights[1]
