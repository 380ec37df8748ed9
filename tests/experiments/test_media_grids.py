"""Grids over sound and video: variants that do not see some of the media, in training or when they are scored."""

import json

import pytest
from grid_helpers import lines_of

from umie.experiments.engines.inline import InlineEngine
from umie.experiments.expand import read_grid, read_run
from umie.experiments.run import run_training
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
    run = run_grid(read_grid(folder / "grid.yaml"), folder, folder / "out", Silent(), engine=InlineEngine())
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


def test_the_table_speaks_of_all_media(finished):
    page = " ".join((finished / "table.md").read_text().split())
    assert "- train: 32 records, 0 with an image, 16 with a video, 24 with a sound" in page
    assert "that is possible without media, computed" in page
    assert "not in the text, or not a place in a medium. *Encoder calls*: images, sounds and videos that were" in page
    assert "- media that are missing or cannot be read: `error`" in page
    for name in ("about an image ", "of the image", "visual path", "too few to be evidence"):
        assert name not in page
    calls = next(line["images"] for line in lines_of(finished) if line["variant"] == "concat")
    total = sum(one.get("encoder_calls", 0) for one in (calls, calls["audio"], calls["video"]))
    assert total > calls["audio"]["encoder_calls"] > 0
    assert f"| {total} |" in page


SMALL_DATA = {"format": "synthetic_media", "train": 6, "dev": 2, "test": 6, "combinations": ["T+I", "T+A", "A+V"]}
NO_AUDIO = {"name": "no-audio", "data": SMALL_DATA, "tasks": ["mner"], "video_encoder": "tiny_video"}
ADVICE = "set audio_encoder, or blind: [audio] to hide them on purpose"
IGNORED = f"28 of 42 records have sounds, which are ignored{{}}: {ADVICE}"


@pytest.mark.slow
def test_a_plan_and_a_table_say_that_a_medium_has_no_encoder(umie, tmp_path, ablate):
    path = tmp_path / "grid.yaml"
    grid = NO_AUDIO | {"training": {"max_steps": 1, "batch_size": 4}, "workers": 1}
    path.write_text(json.dumps(grid | {"fusion": ["concat", "text_only", {"name": "concat", "blind": ["audio"]}]}))
    code, _, err = umie("ablate", path, "--plan", "--output", tmp_path / "out")
    assert (code, err.count(f"umie: warning: {IGNORED.format(' by concat')}\n")) == (0, 1), err
    path.write_text(json.dumps(grid | {"fusion": "concat"}))
    assert f"- **warning**: {IGNORED.format('')}\n" in ablate(path, tmp_path / "out")
    path.write_text(json.dumps(grid | {"audio_encoder": {"name": "tiny_audio", "rate": 4000}}))
    assert "ignored" not in umie("ablate", path, "--plan", "--output", tmp_path / "out")[2]


def test_a_plan_names_the_tasks_and_the_places_whose_names_are_not_in_the_input(umie, tmp_path):
    path = tmp_path / "grid.yaml"
    tasks = {"mner": {}, "mre": {"grounded": True}, "meae": {}}
    data = SMALL_DATA | {"combinations": ["T+I", "A+V"]}
    grid = {"name": "numbers", "data": data, "tasks": tasks, "fusion": "concat", "audio_encoder": "tiny_audio"}
    grid |= {"video_encoder": "tiny_video", "training": {"max_steps": 1, "batch_size": 4}}
    sentence = "mre and meae name regions, tracks and segments by number, and visual_embedding.num_slot_embeddings"
    for changes, number in [({}, 1), ({"decoder": "span"}, 0), ({"visual_embedding": {"num_slot_embeddings": 5}}, 0)]:
        path.write_text(json.dumps(grid | changes))
        code, _, err = umie("ablate", path, "--plan")
        assert (code, err.count(f"umie: warning: {sentence}")) == (0, number), err


@pytest.mark.slow
def test_a_run_says_that_a_medium_has_no_encoder(tmp_path, umie):
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(NO_AUDIO | {"fusion": "concat", "training": {"max_steps": 1, "batch_size": 4}}))
    code, _, err = umie("train", path, "--plan")
    assert (code, err.count(f"warning: {IGNORED.format('')}\n")) == (0, 1), err
    notes = Notes()
    result = run_training(read_run(path), root=tmp_path, output=tmp_path / "run", progress=notes)
    assert notes.lines.count(f"warning: {IGNORED.format('')}") == 1
    assert IGNORED.format("") in result.facts
    data = ("--data", "test", "--format", "synthetic_media", "--limit", "9", "--resamples", "100")
    code, _, err = umie("evaluate", "--model", tmp_path / "run" / "best", *data, "--output", tmp_path / "report")
    line = "of 9 records have sounds, which are ignored: the model was trained without audio_encoder"
    assert (code, err.count(line)) == (0, 1), err
    assert line in (tmp_path / "report" / "report.md").read_text()
    hidden = ("--blind", "audio", "--output", tmp_path / "hidden")
    assert line not in umie("evaluate", "--model", tmp_path / "run" / "best", *data, *hidden)[2]


class Notes(Silent):
    """A progress display that keeps the notes."""

    phase = advance = staticmethod(lambda *_: None)

    def __init__(self):
        self.lines = []
        self.note = self.lines.append
