"""The examples: all files are valid, and custom parts run next to the built-in ones."""

import ast
import csv
import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from umie import decoders, fusion, registries
from umie.data.twitter import read as read_twitter
from umie.experiments.choices import instruction_label
from umie.experiments.engines.inline import InlineEngine
from umie.experiments.expand import plan, read_grid, read_run
from umie.experiments.parts import check_parts, unnamed_places
from umie.experiments.scheduler import run_grid
from umie.fusion import FusionConfig
from umie.registry import _loaded, load_plugins
from umie.reports.grid import write_report
from umie.types import FusedStates

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
REAL_DATA = ROOT.parent / "shared" / "data"
needs_real_data = pytest.mark.skipif(
    not (REAL_DATA / "twitter2017" / "train.txt").exists(),
    reason=f"reads real tweets below {REAL_DATA}, which are not part of the repository",
)


@pytest.fixture(autouse=True)
def _forget(forget_plugins):
    """Remove the fusion of the example from the registry."""


SMALL = {
    "seeds": [0],
    "warm_start": {"records": 30, "training": {"max_steps": 3, "batch_size": 4}},
    "training": {"max_steps": 3, "batch_size": 4, "initialize_fusion": True},
    "evaluation": {"generation": {"max_new_tokens": 8}},
}


def shrunken(name, folder, **changes):
    """Write an example with fewer records and steps to a directory; return the new file."""
    grid = {**yaml.safe_load((EXAMPLES / name).read_text()), **SMALL, **changes}
    path = folder / Path(name).name
    path.write_text(yaml.safe_dump({key: value for key, value in grid.items() if value is not ...}))
    return path


def lines_of(output):
    return [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]


class Quiet:
    """A display that shows nothing."""

    def preparing(self, what): ...

    def cells(self, tally): ...

    def start(self, job): ...

    def advance_job(self, job, phase, share): ...

    def finish(self, job, line): ...

    def note(self, what): ...


RUNS = sorted(EXAMPLES.glob("train_*.yaml"))
GRIDS = sorted({*EXAMPLES.glob("*.yaml"), *EXAMPLES.glob("real/*.yaml")} - {*RUNS})


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_run_file_is_valid(path):
    run = read_run(path)
    assert run.checkpoints.metric_for_best_model == "mean_f1"
    assert f"umie train examples/{path.name}" in path.read_text().splitlines()[0]
    assert unnamed_places([run], run.tasks) is None


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_every_grid_file_is_valid(path):
    """Check everything that needs neither data nor weights."""
    grid = read_grid(path)
    cells = plan(grid, "", read_files=False)
    check_parts([cell.config for cell in cells], read_files=False)
    assert len(cells) == len(grid.seeds) * len({cell.variant for cell in cells}) > 0
    for plugin in grid.first.plugins:
        assert Path(plugin).is_file()
    assert path.read_text().startswith("# ")
    command = f"examples/{path.relative_to(EXAMPLES)}"
    assert command in path.read_text() or path.stem in (
        "embedded",
        "gate_health",
        "own_fusion",
    )


# --- the studies of the paper ----------------------------------------------------------------------------------------


def study(name):
    grid = read_grid(EXAMPLES / f"{name}.yaml")
    return grid, plan(grid, "", read_files=False)


def test_the_main_table_has_the_training_options_of_the_paper():
    grid, cells = study("paper_main")
    assert {cell.variant: (cell.training["batch_size"], cell.training["learning_rate"]) for cell in cells} == {
        "base": (16, 1e-4),
        "large": (8, 5e-5),
        "xlarge": (8, 5e-5),
    }
    assert all(cell.training["num_train_epochs"] == 40 for cell in cells) and all(
        cell.training["label_smoothing_factor"] > 0 for cell in cells
    )
    assert len(grid.reference) == 3


@pytest.mark.parametrize(
    ("name", "sets"),
    [("paper_zero_shot", ("twitter17", "mnre2")), ("real/unified", ("twitter15", "twitter17", "gmner"))],
)
def test_zero_shot_leaves_out_one_set_at_a_time(name, sets):
    grid, cells = study(name)
    trained = {cell.variant: set(cell.config.trained_on) for cell in cells}
    for left_out in sets:
        assert trained["all sets"] - trained[f"without {left_out}"] == {left_out}
    assert grid.first.data.exclude_overlap


def test_the_instructions_are_evaluated_with_every_wording_of_the_paper():
    grid, _ = study("paper_instructions")
    assert [instruction_label(one) for one in grid.first.evaluation.instructions] == ["paper", "I0", "I1", "I2", "own"]


@pytest.mark.parametrize(("name", "num_gates"), [("paper_gate", 15), ("gate_sweep", 4)])
def test_the_gate_is_swept_from_0_to_1_with_both_residuals(name, num_gates):
    grid, cells = study(name)
    gates = {}
    for cell in cells:
        fusion = cell.parts["fusion"]
        gates.setdefault(fusion["residual"], set()).add(fusion.get("gate", "dynamic"))
    assert gates["paper"] == gates["released"]
    assert len(gates["paper"]) == num_gates + 1
    assert {0.0, 0.1, 1.0, "dynamic"} <= gates["paper"]
    assert len(grid.seeds) == 3


def test_the_corpora_are_twitter_and_news():
    _, cells = study("paper_corpus")
    twitter, news, both = (set(cell.config.trained_on) for cell in cells)
    assert not twitter & news
    assert twitter | news == both


def test_a_plan_lists_missing_data_and_weights(umie, tmp_path):
    """The weights are local files here, so that nothing is requested from the network."""
    shutil.copytree(EXAMPLES / "data", tmp_path / "data")
    grid = yaml.safe_load((EXAMPLES / "paper_main.yaml").read_text())
    grid |= {"encoder": {"name": "resnet101_roi", "weights": str(tmp_path / "resnet.pth")}}
    grid |= {"decoder": str(tmp_path / "flan-t5-base")}
    (tmp_path / "paper_main.yaml").write_text(yaml.safe_dump(grid))
    (tmp_path / "flan-t5-base").mkdir()
    code, out, err = umie("ablate", tmp_path / "paper_main.yaml", "--data-root", tmp_path, "--plan")
    assert code == 2
    assert "blocked: missing files" in out
    words = " ".join(err.split())
    for lacking in ("data.test of twitter17: ", "data.images of m2e2: ", "encoder resnet101_roi: ", "language model '"):
        assert f"umie: missing: {lacking}" in words, lacking


def test_the_embedded_grid_compares_four_fusions():
    cells = read_grid(EXAMPLES / "embedded.yaml").cells
    assert {cell.variant for cell in cells} == {"gated", "concat", "cross_attention", "text_only"}
    assert {cell.seed for cell in cells} == {0, 1, 2}


# --- a custom fusion -------------------------------------------------------------------------------------------------


def test_a_custom_fusion_has_at_most_20_lines():
    source = (EXAMPLES / "own_fusion.py").read_text()
    docstrings = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
        for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)
    }
    code = [
        line
        for number, line in enumerate(source.splitlines(), start=1)
        if line.strip() and not line.strip().startswith("#") and number not in docstrings
    ]
    assert 5 < len(code) <= 20


@pytest.fixture
def mean_add():
    """The fusion of the example, and inputs: three texts with two, one and no visual slots."""
    load_plugins([str(EXAMPLES / "own_fusion.py")])
    torch.manual_seed(0)
    built = fusion.registry.get("mean_add")(FusionConfig(d_model=8, num_heads=2))
    text, visual = torch.randn(3, 5, 8), torch.randn(3, 4, 8)
    text_mask = torch.arange(5) < torch.tensor([[5], [3], [4]])
    visual_mask = torch.arange(4) < torch.tensor([[2], [4], [0]])
    return built, text, text_mask, visual, visual_mask


def test_without_an_image_its_states_are_those_of_the_text(mean_add):
    built, text, text_mask, visual, visual_mask = mean_add
    fused = built(text, text_mask, visual, torch.zeros_like(visual_mask))
    assert torch.equal(fused.states, text)
    assert torch.equal(fused.mask, text_mask)
    mixed = built(text, text_mask, visual, visual_mask).states
    assert torch.equal(mixed[2], text[2])
    assert not torch.allclose(mixed[:2], text[:2])


def test_padding_and_other_records_do_not_matter(mean_add):
    built, text, text_mask, visual, visual_mask = mean_add
    together = built(text, text_mask, visual, visual_mask).states
    garbage = visual.masked_fill(~visual_mask[..., None], 1e4)
    assert torch.equal(built(text, text_mask, garbage, visual_mask).states, together)
    for index in range(3):
        one = slice(index, index + 1)
        slots = int(visual_mask[index].sum())
        single = built(text[one], text_mask[one], visual[one, :slots], visual_mask[one, :slots]).states
        torch.testing.assert_close(single, together[one], atol=1e-6, rtol=0)


def test_gradients_reach_its_weights(mean_add):
    built, text, text_mask, visual, visual_mask = mean_add
    built(text, text_mask, visual, visual_mask).states.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in built.parameters())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A directory for the runs of this file, which share the data."""
    return tmp_path_factory.mktemp("examples")


DATA = {"format": "synthetic", "train": 30, "dev": 3, "test": 6}


@pytest.mark.slow
def test_it_runs_in_a_grid_next_to_a_built_in_one(folder):
    shutil.copy(EXAMPLES / "own_fusion.py", folder)
    path = shrunken("own_fusion.yaml", folder, data=DATA, warm_start=...)
    run = run_grid(read_grid(path), folder, folder / "run", Quiet(), engine=InlineEngine())
    out = write_report(run, folder / "run")
    lines = {line["variant"]: line for line in lines_of(folder / "run")}
    assert {variant: line["status"] for variant, line in lines.items()} == {"mean_add": "ok", "gated": "ok"}
    assert lines["mean_add"]["uses_image"]
    assert lines["mean_add"]["health"]["visual_gradient"] > 0
    assert "gate_mean" not in lines["mean_add"]["health"]
    table = list(csv.DictReader(io.StringIO((folder / "run" / "table.csv").read_text())))
    assert [row["variant"] for row in table[::4]] == ["mean_add", "gated"]
    assert "| mean_add " in out


@pytest.mark.slow
def test_an_installed_distribution_can_provide_it_as_an_entry_point(folder, tmp_path, umie, monkeypatch):
    """The metadata is on the path, like in site-packages; no grid file names the module."""
    shutil.copy(EXAMPLES / "own_fusion.py", tmp_path / "mean_add_module.py")
    metadata = tmp_path / "mean_add-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mean-add\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[umie.fusion]\nmean_add = mean_add_module:MeanAddFusion\n")
    path = shrunken("own_fusion.yaml", tmp_path, data=DATA, warm_start=..., plugins=..., fusion=["mean_add"], seeds=[1])
    code, _, err = umie("ablate", path, "--output", folder / "run")
    assert (code, err.count("Unknown fusion 'mean_add'")) == (2, 1)

    monkeypatch.syspath_prepend(tmp_path)
    assert '"mean_add"' in umie("list", "--json")[1]
    assert "mean_add_module" not in sys.modules  # listed without being imported
    run = run_grid(read_grid(path), tmp_path, tmp_path / "run", Quiet(), engine=InlineEngine())
    (line,) = run.results.values()
    assert (line["status"], line["parts"]["fusion"]) == ("ok", {"name": "mean_add"})
    monkeypatch.delitem(sys.modules, "mean_add_module")


# --- a task, a fusion and an encoder from files ----------------------------------------------------------------------


PLUGINS = [argument for name in ("own_task", "own_fusion", "own_encoder") for argument in ("--plugin", f"{name}.py")]


@pytest.fixture
def custom(tmp_path, monkeypatch):
    """A directory with the example files, like that of a user."""
    for path in (*EXAMPLES.glob("own_*"), *(EXAMPLES / "data").glob("hashtags*.jsonl")):
        target = tmp_path / path.relative_to(EXAMPLES)
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["own_task", "own_fusion", "own_encoder", "own_decoder"])
def test_custom_parts_are_short(name):
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 40


def test_a_custom_decoder_adds_a_number_for_each_width():
    load_plugins([str(EXAMPLES / "own_decoder.py")])
    torch.manual_seed(0)
    decoder = decoders.registry.build("length_prior", source="tiny", max_width=3).eval()
    fused = FusedStates(torch.randn(1, 6, 96), torch.ones(1, 6, dtype=torch.bool), visual=torch.randn(1, 2, 96))
    none = torch.zeros(1, 0, dtype=torch.bool)
    inputs = {
        "label_tokens": torch.tensor([[[0, 0], [1, 1]]]),
        "spans": torch.tensor([[[2, 2, 0, 0, 1], [2, 3, 1, 0, 3], [3, 4, 1, 2, 5], [2, 4, 2, 0, 5]]]),
        "place_slots": torch.tensor([[1]]), "place_mask": torch.tensor([[True]]), "pointing_mask": none,
        "target_tokens": torch.full((1, 2, 2), -1), "target_slots": torch.full((1, 2), -1),
    }  # fmt: skip
    with torch.no_grad():
        before = decoder(fused, **inputs).logits
        decoder.prior.weight[1] = 2.0
        after = decoder(fused, **inputs).logits
    added = torch.tensor([0.0, 2, 2, 0, 0, 0])  # four spans, a place, the whole query
    torch.testing.assert_close(after - before, added[None, :, None].expand_as(before))
    decoder(fused, **inputs, labels=torch.ones_like(before)).loss.backward()
    assert decoder.prior.weight.grad.abs().sum() > 0


def test_custom_parts_run_in_a_grid_and_are_scored(custom):
    path = shrunken("own_parts.yaml", custom, warm_start=...)
    run = run_grid(read_grid(path), custom, custom / "run", Quiet(), engine=InlineEngine())
    assert not run.crashed
    assert {line["parts"]["encoder"]["name"] for line in run.results.values()} == {"tiny", "mean_color"}
    for line in run.results.values():
        assert line["metrics"]["hashtags"]["gold"] == 8
    assert "HASHTAGS" in write_report(run, custom / "run")


@pytest.mark.slow
def test_custom_parts_work_in_train_evaluate_and_extract(custom, umie):
    """Without its plugins, a checkpoint reports the missing part; with them, every command can load it."""
    shutil.copy("own_parts.yaml", "run.yaml")
    settings = ["encoder=mean_color", "fusion=mean_add", "training.max_steps=60", "checkpoints={report_to: []}"]
    settings = [argument for setting in settings for argument in ("--set", setting)]
    code, _, err = umie("train", "run.yaml", "--output", "out", *settings)
    assert code == 0, err
    load_plugins_again()
    code, _, err = umie("extract", "--model", "out/best", "See you at #CES")
    assert code == 2 and "--plugin" in err
    code, out, err = umie("extract", "--model", "out/best", "See you at #CES ! #cats", "--task", "hashtags", *PLUGINS)
    assert code == 0 and "#cats" in out, err
    arguments = ("--data", "data/hashtags.jsonl", "--output", "report", *PLUGINS)
    code, out, err = umie("evaluate", "--model", "out/best", *arguments)
    assert code == 0, err
    scores = json.loads(Path("report/scores.json").read_text())["decodings"]["constrained"]["measures"]
    assert scores[0]["task"] == "hashtags" and scores[0]["gold"] == 16
    assert umie("data", "validate", "data/hashtags.jsonl", *PLUGINS)[0] == 0
    assert "hashtags" in umie("list", "--json", *PLUGINS)[1]


def load_plugins_again():
    """Forget the plugins that the command loaded, like a new process."""
    for registry in registries.ALL.values():
        for name, part in list(registry._parts.items()):
            if not part.__module__.startswith("umie."):
                del registry._parts[name]
    _loaded.clear()


def test_a_plan_rejects_a_fusion_that_violates_its_contract(custom, umie):
    code = (
        Path("own_fusion.py")
        .read_text()
        .replace("torch.clamp(weights.sum(1), min=1)", "visual.shape[1] + 0.0 * visual.sum(1)")
    )
    Path("own_fusion.py").write_text(code)
    exit_code, _, err = umie("ablate", "own_parts.yaml", "--plan", "--output", "run")
    assert exit_code == 2
    assert "mean_add" in err or "MeanAddFusion" in err
    assert "padding" in err


# --- real tweets -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sizes():
    """The numbers of tweets in each split, and of those with an image."""
    found = {}
    for split, file in (("train", "train"), ("dev", "valid"), ("test", "test")):
        tweets = list(read_twitter(REAL_DATA / "twitter2017" / f"{file}.txt", images=REAL_DATA / "twitter_images"))
        found[split] = len(tweets), sum(tweet.image_path().is_file() for tweet in tweets)
    return found


@needs_real_data
def test_the_grid_on_real_tweets_can_be_planned(umie, tmp_path, sizes):
    path = EXAMPLES / "real" / "twitter17_span.yaml"
    code, out, err = umie("ablate", path, "--data-root", REAL_DATA, "--output", tmp_path / "run", "--plan")
    assert (code, err) == (0, "")
    assert out.count("│ to run") == 3
    counted = ", ".join(f"{split} {count}" for split, (count, _) in sizes.items())
    assert f"3 cells; records: {counted}" in out
    assert sizes["train"] == (3373, sizes["train"][1])
    assert not (tmp_path / "run" / "cells").exists()


@needs_real_data
@pytest.mark.slow
def test_a_run_on_real_tweets_counts_those_with_an_image(umie, tmp_path, sizes):
    changes = {"fusion": ["gated", "text_only"], "decoder": {"name": "span"}, "warm_start": ...}
    path = shrunken("real/twitter17_span.yaml", tmp_path, **changes)
    code, out, err = umie("ablate", path, "--data-root", REAL_DATA, "--output", tmp_path / "run")
    assert code == 0, err
    assert [line["status"] for line in lines_of(tmp_path / "run")] == ["ok", "ok"]
    for split, (count, with_image) in sizes.items():
        assert f"- {split}: {count} records, {with_image} with an image" in out
    assert sum(with_image for _, with_image in sizes.values()) < 0.1 * sum(count for count, _ in sizes.values())
    words = " ".join(out.split())
    assert "images that are missing or cannot be read: `text_only`" in words
    count, with_image = sizes["test"]
    assert f"only {with_image} of {count} records of test have an image: too few to be evidence about fusion" in words
    assert "ceiling" not in words
