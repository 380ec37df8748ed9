"""A grid of a variant that points and of one whose answers call grounders."""

import json

import pytest
from grid_helpers import lines_of
from test_media_grids import Silent

from umie.errors import UmieError
from umie.experiments.config import RunConfig
from umie.experiments.engines.inline import InlineEngine
from umie.experiments.expand import read_grid
from umie.experiments.identity import identity
from umie.experiments.parts import check_parts
from umie.experiments.scheduler import run_grid
from umie.reports.grid import write_report
from umie.scoring.grounding_errors import ANNOTATED, MIOU, PREDICTED

GRID = {
    "name": "pipeline",
    "data": {
        "format": "synthetic_media", "combinations": ["T+I", "A+V"], "train": 8, "dev": 2, "test": 6, "labels": True,
        "first_share": 1,
    },
    "tasks": {name: {"grounded": True} for name in ("mner", "mre", "med", "meae")},
    "audio_encoder": {"name": "tiny_audio", "rate": 4000},
    "video_encoder": "tiny_video",
    "visual_embedding": {"num_slot_embeddings": 5},
    "fusion": "concat",
    "grounders": [
        {"label": "points"},
        {"label": "calls", "image": "drawn_image", "audio": "drawn_sound", "video": {"name": "drawn_video", "top": 2}},
    ],
    "training": {"max_steps": 4, "batch_size": 8},
    "evaluation": {"constrained": True, "events": "gold"},
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "grid.yaml").write_text(json.dumps({**GRID, "workers": 1}), encoding="utf-8")
    run = run_grid(read_grid(folder / "grid.yaml"), folder, folder / "out", Silent(), engine=InlineEngine())
    write_report(run, folder / "out")
    return folder / "out", {line["variant"]: line for line in lines_of(folder / "out")}


def test_both_have_scores_of_places_and_only_calls_a_ceiling(finished):
    _, lines = finished
    verdicts = {*PREDICTED, *ANNOTATED, *MIOU.values(), *(f"{name}, by item" for name in MIOU.values())}
    assert set(lines) == {"points", "calls"}
    for variant, line in lines.items():
        for metrics in line["metrics"].values():
            assert metrics["groundings"]
            assert set(metrics["groundings"]) <= verdicts
            assert all(0 <= total <= out_of for total, out_of in metrics["groundings"].values())
            assert ("gold_calls" in metrics) == (variant == "calls")
            assert metrics.get("gold_calls", 1) > 0.8  # rules carry out the annotated calls


def test_the_report_has_tables_of_media_and_places(finished):
    folder, _ = finished
    page, table = (folder / "report.html").read_text("utf-8"), (folder / "table.md").read_text("utf-8")
    for said in ("I-Seg, by item", "propagation", "miss-grounding", "Annotated calls, carried out by the grounders"):
        assert said in page
        assert said in table
    assert '<h2 id="combinations">' in page
    assert "answers of calls describe places, which grounders look for: image drawn_image, audio drawn_sound" in table


def test_styles_follow_grounders():
    config = RunConfig(**{**GRID, "grounders": {"image": "drawn_image"}, "name": "x"})
    assert config.wording == {name: {"style": "reamo"} for name in GRID["tasks"]}
    config = RunConfig(**{**GRID, "grounders": {}, "name": "x"})
    assert (config.grounders, config.wording) == (None, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grounders": {"smell": "words"}}, "medium in grounders"),
        ({"grounders": {"image": "grounder"}}, "grounder"),
        ({"grounders": "words"}, "use a grounder for each medium"),
        ({"grounders": {"image": {"top": 2}}}, "use a name, or a mapping with name and options"),
        ({"grounders": {"audio": "words"}, "tasks": ["mner"]}, "no task is: set grounded: true for one"),
        ({"grounders": {"image": "words"}}, "words looks into audio: set it as audio"),
        ({"grounders": {"image": "sam2"}}, "sam2 sharpens places and finds none"),
        ({"grounders": {"audio": "words"}, "decoder": "span"}, "span scores candidates and writes no calls"),
        (
            {"grounders": {"audio": "words"}, "tasks": {"mner": {"grounded": True, "style": "structured"}}},
            "need the style reamo",
        ),
        (
            {
                "grounders": {"audio": "words"},
                "data": {
                    "sets": {"a": {"format": "synthetic_media"}, "b": {"format": "synthetic", "tasks": {"mner": {}}}}
                },
                "tasks": {"mner": {"grounded": True}},
            },
            "mner is grounded in some data sets, and not in b",
        ),
    ],
)
def test_wrong_grounders(changes, message):
    with pytest.raises(UmieError, match=message):
        RunConfig(**{**GRID, "grounders": None, "name": "x", **changes})


def test_the_content_of_a_checkpoint_is_part_of_the_identity(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"1")

    def identity_of(**options):
        grounders = {"image": {"name": "sam3", "checkpoint": str(tmp_path / "one"), **options}}
        return json.dumps(identity(RunConfig(**{**GRID, "grounders": grounders, "name": "x"}), "data"), default=str)

    first = identity_of()
    assert identity_of(top=1, device="cuda", min_score=0.3) == first  # by default, and without an effect
    assert identity_of(checkpoint=str(tmp_path / "two")) == first  # elsewhere
    assert identity_of(top=2) != first
    (tmp_path / "one" / "model.safetensors").write_bytes(b"22")
    assert identity_of() != first
    without = RunConfig(**{**GRID, "grounders": None, "name": "x"})
    assert "grounders" not in identity(without, "data")["parts"]


def test_so_is_the_content_of_a_package(tmp_path, monkeypatch):
    folder = tmp_path / "umie_test_sentences"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "config.json").write_text("{}")
    (tmp_path / "captions.txt").write_text("a.jpg: a cat")
    monkeypatch.syspath_prepend(str(tmp_path))

    def identity_of(**parts):
        return json.dumps(identity(RunConfig(**{**GRID, "name": "x", "grounders": None, **parts}), "data"), default=str)

    source = "package:umie_test_sentences"
    for parts in (
        {"grounders": {"image": {"name": "labels", "checkpoint": source}}},
        {"encoder": {"name": "captions", "source": source, "path": str(tmp_path / "captions.txt")}},
    ):
        (folder / "model.safetensors").write_bytes(b"1")
        first = identity_of(**parts)
        (folder / "model.safetensors").write_bytes(b"22")
        assert identity_of(**parts) != first


def test_a_plan_refuses_options_of_grounders():
    config = RunConfig(**{**GRID, "grounders": {"image": {"name": "drawn_image", "top": 0}}, "name": "x"})
    for read_files in (False, True):
        with pytest.raises(UmieError, match="top"):
            check_parts([config], read_files=read_files)
