"""Figures of scores, labels and gates."""

import html
import re

import pytest
from PIL import Image

from umie.errors import UmieError
from umie.records import Entity, Event, Record
from umie.reports.gates import draw_gates
from umie.reports.score_figure import draw_labels, draw_scores
from umie.scoring import Prediction, Report, score_predictions
from umie.scoring.gates import gate_summary

GOLD = [
    Record("a b", entities=(Entity("x", (0, 1)), Entity("y", (2, 3))), events=(Event("z", (0, 1)),)),
    Record("", image="1.jpg", events=(Event("z"),)),
]


@pytest.mark.parametrize("records", [GOLD, [Record("a", tasks=("mner",))]], ids=["several", "nothing at all"])
def test_scores_are_drawn(tmp_path, records):
    report = score_predictions(records, [Prediction(record) for record in records], resamples=100)
    draw_scores(report, tmp_path / "made" / "f.png")
    with Image.open(tmp_path / "made" / "f.png") as image:
        assert image.format == "PNG"
        assert image.width > 700
        assert len(image.convert("RGB").getcolors(maxcolors=10**6)) > 10
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["f.png"]


def test_two_systems_and_labels_are_drawn(tmp_path):
    answers = [Prediction(record) for record in GOLD]
    report = score_predictions(GOLD, answers, other=answers[::-1], tasks=["med"], resamples=100)
    draw_scores(report, tmp_path / "both.svg")
    assert "F1 of A with 95% interval" in _texts(tmp_path / "both.svg")
    assert draw_labels(report, tmp_path / "labels.png")
    empty = score_predictions([Record("a", tasks=("mner",))], [Prediction(Record("a"))], resamples=100)
    assert not draw_labels(empty, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_a_report_without_scores_cannot_be_drawn(tmp_path):
    with pytest.raises(UmieError, match="no scores to draw"):
        draw_scores(Report([], [], 100, 0), tmp_path / "f.png")


@pytest.mark.parametrize("gates", [[0.0], [0.2] * 5, [-0.1, 0.0, 0.3], [0.01 * index for index in range(300)] + [50.0]])
def test_gates_of_any_range_are_drawn(tmp_path, gates):
    draw_gates({"MNER": gates, "MRE": [], "MED": [0.5, 0.6]}, tmp_path / "gates.svg", reference={"MED": 0.4})
    texts = _texts(tmp_path / "gates.svg")
    assert f"{len(gates):,} queries" in texts
    assert "published median" in texts
    assert ("outside" in texts) == (gates[-1] == 50)
    assert "MRE" not in texts


def test_the_summary_of_gates():
    assert gate_summary([-0.2, 0.0, 0.2, 1.0]) == pytest.approx(
        {"median": 0.1, "mean": 0.25, "min": -0.2, "max": 1.0, "closed": 0.5}
    )


def _texts(path):
    found = re.findall(r"<text[^>]*>(.*?)</text>", path.read_text(encoding="utf-8"), re.DOTALL)
    return html.unescape("\n".join(found))
