"""The figure of an evaluation."""

import pytest
from PIL import Image

from umie.records import Entity, Event, Record
from umie.reports.score_figure import draw
from umie.scoring import Prediction, score_predictions

GOLD = [
    Record("a b", entities=(Entity("x", (0, 1)), Entity("y", (2, 3))), events=(Event("z", (0, 1)),)),
    Record("", image="1.jpg", events=(Event("z"),)),
]


@pytest.mark.parametrize("records", [GOLD, [Record("a", tasks=("mner",))]], ids=["several", "nothing at all"])
def test_a_image_is_drawn_whole(tmp_path, records):
    report = score_predictions(records, [Prediction(record) for record in records], resamples=100)
    draw(report, tmp_path / "made" / "f.png")
    with Image.open(tmp_path / "made" / "f.png") as image:
        assert image.format == "PNG"
        assert image.width > 700
        assert len(image.convert("RGB").getcolors(maxcolors=10**6)) > 10
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["f.png"]


def test_more_figures_make_a_taller_image(tmp_path):
    heights = []
    for name, tasks in (("one.png", ["mner"]), ("two.png", ["mner", "med"])):
        draw(
            score_predictions(GOLD, [Prediction(record) for record in GOLD], tasks=tasks, resamples=100),
            tmp_path / name,
        )
        with Image.open(tmp_path / name) as image:
            heights.append(image.height)
    assert heights[0] < heights[1]
