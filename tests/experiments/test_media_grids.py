"""Grids over sound and video: variants that do not see some of the media, in training or when they are scored."""

import json

import pytest
from grid_helpers import lines_of

from umie.experiments.expand import read_grid
from umie.experiments.scheduler import run_grid
from umie.reports.grid import write_report

GRID = {
    "name": "small-media",
    "data": {"format": "synthetic_media", "train": 8, "dev": 0, "test": 8, "combinations": ["T+A", "A", "A+V", "V"]},
    "tasks": {name: {"grounded": True} for name in ("mner", "mre", "med", "meae")},
    "audio_encoder": {"name": "tiny_audio", "rate": 4000},
    "video_encoder": "tiny_video",
    "fusion": ["concat", {"name": "concat", "blind": ["audio"]}, "text_only"],
    "decoder": {"name": "span", "max_width": 4, "threshold": 0.1},
    "training": {"max_steps": 3, "batch_size": 8, "drop_media": 0.2},
    "evaluation": {"events": "gold", "blind": ["audio", "image"]},
    "workers": 1,
}


class Silent:
    """A progress display that shows nothing."""

    preparing = cells = start = advance_job = finish = note = staticmethod(lambda *_: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    (folder / "grid.yaml").write_text(json.dumps(GRID))
    run = run_grid(read_grid(folder / "grid.yaml"), folder, folder / "out", Silent(), in_process=True)
    write_report(run, folder / "out")
    return folder / "out"


def test_each_medium_is_hidden_from_the_trained_variant(finished):
    lines = {line["variant"]: line["metrics"] for line in lines_of(finished)}
    assert set(lines) == {"concat", "concat, without audio", "text_only"}
    assert set(lines["concat"]["mner"]["blind"]) == {"audio"}  # no record has an image
    for task, combinations in {"mner": {"A", "T+A"}, "mre": {"A", "T+A"}, "med": {"A+V"}, "meae": {"A+V"}}.items():
        assert set(lines["concat"][task]["blind"]["audio"]["by_combination"]) == combinations
    for variant in ("concat, without audio", "text_only"):  # it is hidden anyway
        assert not any("blind" in metrics for metrics in lines[variant].values())


def test_the_table_by_combination_has_what_is_possible_without_the_hidden_media(finished):
    section = (finished / "table.md").read_text().split("## By combination of media")[1].split("##")[0]
    for row in ("concat, audio hidden", "concat, without audio", "*ceiling without A*", "*ceiling without I, A, V*"):
        assert f"| {row} " in section
    assert "are above what is possible without them" in section
