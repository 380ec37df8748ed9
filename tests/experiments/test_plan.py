"""Grid files: errors name the file and the key; the hash of a cell covers everything that its result depends on."""

import json
import subprocess
import sys

import pytest

from umie.errors import UmieError, at
from umie.experiments.config import RunConfig, WarmStart
from umie.experiments.expand import plan, read_grid
from umie.experiments.parts import check_parts
from umie.training import TrainingConfig
from umie.yaml_files import parse_yaml

DATA = {"format": "jsonl", "train": "train.jsonl", "test": "test.jsonl"}


def checked(path, **options):
    """Read a grid and check its parts, like the command."""
    grid = read_grid(path)
    with at(str(path)):
        check_parts([cell.config for cell in grid.cells], **options)
    plan(grid, "", **options)
    return grid


def error_of(path):
    """Return the error of reading a file, without the file name."""
    with pytest.raises(UmieError) as caught:
        checked(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def cells_of(path, fingerprint=""):
    return plan(read_grid(path), fingerprint)


def test_a_valid_file_is_read(grid_file):
    grid = read_grid(grid_file(notes="One sentence.", mean_over="mner"))
    run = grid.first
    assert (grid.name, grid.workers, grid.seeds) == ("small", 2, [0])
    assert list(run.tasks) == ["mner", "mre", "med", "meae"]
    assert [cell.config.fusion for cell in grid.cells] == [{"name": "gated"}, {"name": "text_only"}]
    assert run.warm_start == WarmStart(records=30, training={"max_steps": 3, "batch_size": 4})
    assert (run.notes, run.mean_over) == (("One sentence.",), ("mner",))


def test_defaults(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("data: {format: synthetic}\ntasks: mner\n")
    grid = read_grid(path)
    run = grid.first
    assert (grid.name, list(run.tasks), grid.seeds) == ("mine", ["mner"], [0])
    treated = {"initialize_fusion": True, "learning_rate_multipliers": {"fusion.gate_": 0.003}}  # of a gate
    assert run.training == TrainingConfig(**treated)
    assert run.parts == {
        "encoder": {"name": "tiny"},
        "fusion": {"name": "gated"},
        "decoder": {"name": "t5", "source": "tiny"},
        "visual_embedding": {},
    }
    assert (run.warm_start, run.checkpoints, run.missing_images) == (None, None, "error")
    assert [cell.variant for cell in plan(grid, "")] == ["gated"]


def test_every_error_of_a_file_is_reported_at_once(grid_file):
    path = grid_file(
        fusoin="gated",
        fusion="gatd",
        training={"max_step": 3, "batch_size": 0},
        evaluation={"split": "train"},
        tasks={"mner": {"labls": []}, "mnre": {}},
        workers=0,
    )
    with pytest.raises(UmieError) as caught:
        read_grid(path)
    first, *lines = str(caught.value).splitlines()
    expected = {
        "Unknown key 'fusoin'. Did you mean 'fusion'?",
        "workers is 0",
        "tasks: Unknown option of task 'mner': 'labls'",
        "tasks: Unknown task 'mnre'. Did you mean 'mre'?",
        "fusion: Unknown fusion 'gatd'. Did you mean 'gated'?",
        "training: Unknown key 'max_step'",
        "training.batch_size is 0",
        "evaluation.split: ",
    }
    assert first == f"{path}: {len(expected)} errors:"
    assert all(any(error in line for line in lines) for error in expected)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("010", 10), ("12:30:45", "12:30:45"), ("yes", "yes"), ("2026-11-28", "2026-11-28"), ("~", None)],
)
def test_yaml_values_follow_yaml_1_2(text, value):
    assert parse_yaml(f"key: {text}") == {"key": value}


def test_a_repeated_key_is_an_error_with_its_line(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text("tasks: mner\ntraining:\n  max_steps: 3\n  max_steps: 4\n")
    assert error_of(path) == "line 4: the key 'max_steps' is already set on line 3: remove one"


def test_settings_override_the_file(grid_file):
    path = grid_file()
    grid = read_grid(path, ["training.max_steps=9", "seeds=[4, 5]", "fusion=concat", "evaluation.constrained=true"])
    assert [(cell.variant, cell.seed) for cell in grid.cells] == [("concat", 4), ("concat", 5)]
    assert grid.first.training.max_steps == 9 and grid.first.training.batch_size == 4
    assert grid.first.evaluation.constrained
    with pytest.raises(UmieError, match="has no keys"):
        read_grid(path, ["fusion.gate=0.5"])  # a list of two


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("data: [", "not valid YAML: line 1, column 8: expected the node content", id="open-bracket"),
        pytest.param("data:\n\t- a", "not valid YAML: line 2, column 1: found character", id="tab"),
        pytest.param("a: \0", "not valid YAML: unacceptable character", id="nul"),
        pytest.param(b"a: \xff", "not UTF-8 text", id="not-utf8"),
        pytest.param("[" * 3000, "not valid YAML", id="nested-too-deep"),
        pytest.param("", "a grid file is a mapping of keys such as name, data, tasks", id="empty"),
        pytest.param("- a\n- b", "a grid file is a mapping of keys such as name, data, tasks", id="list"),
        pytest.param("gated", "a grid file is a mapping of keys such as name, data, tasks", id="word"),
    ],
)
def test_a_file_that_is_not_a_mapping_is_rejected(tmp_path, text, expected):
    path = tmp_path / "grid.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert error_of(path).startswith(expected)


def test_a_missing_file_is_reported(tmp_path):
    assert error_of(tmp_path / "none.yaml") == "cannot read the grid file: No such file or directory"
    assert error_of(tmp_path) == "cannot read the grid file: Is a directory, not a regular file"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"data": ...}, "data is missing", id="no-data"),
        pytest.param({"tasks": ...}, "tasks is missing", id="no-tasks"),
        pytest.param({"tasks": []}, "tasks is empty", id="empty-tasks"),
        pytest.param({"data": 3}, "data is 3: expected a mapping", id="data-number"),
        pytest.param({"fusoin": "gated"}, "Unknown key 'fusoin'. Did you mean 'fusion'?", id="key"),
        pytest.param({"fusion": "gatd"}, "Unknown fusion 'gatd'. Did you mean 'gated'? Choices: concat", id="fusion"),
        pytest.param({"encoder": "tinny"}, "Unknown encoder 'tinny'. Did you mean 'tiny'?", id="encoder"),
        pytest.param({"decoder": {"name": "t6"}}, "Unknown decoder 't6'. ", id="decoder"),
        pytest.param({"decoder": "tinny"}, "'tinny'", id="decoder-source"),
        pytest.param({"decoder": {"source": "/no/where"}}, "'/no/where'", id="decoder-folder"),
        pytest.param({"decoder": {"overrides": {"d_modl": 8}}}, "Did you mean 'd_model'?", id="decoder-override"),
        pytest.param({"tasks": ["mnre"]}, "Unknown task 'mnre'. Did you mean 'mre'?", id="task"),
        pytest.param({"tasks": [{"mner": {}}]}, "tasks", id="task-as-mapping-in-list"),
        pytest.param({"tasks": {"mner": {"labls": []}}}, "'labls'. Did you mean 'labels'?", id="task-option"),
        pytest.param({"tasks": {"mner": {"labels": "person"}}}, "labels is 'person'", id="task-labels"),
        pytest.param({"fusion": {"gate": 0.5}}, "Unknown fusion ''", id="fusion-without-name"),
        pytest.param({"fusion": 3}, "fusion", id="fusion-number"),
        pytest.param({"fusion": [["gated"]]}, "fusion", id="fusion-list-in-list"),
        pytest.param({"fusion": {"name": ["gated"]}}, "fusion", id="fusion-name-is-a-list"),
        pytest.param({"fusion": []}, "fusion", id="fusion-empty"),
        pytest.param({"fusion": {"name": "gated", "gaet": 1}}, "'gaet'. Did you mean 'gate'?", id="option"),
        pytest.param({"fusion": {"name": "gated", "gate": "wide"}}, "gate is 'wide': ", id="gate"),
        pytest.param({"fusion": {"name": "gated", "residual": "x"}}, "residual is 'x': ", id="residual"),
        pytest.param({"fusion": {"name": "gated", "dropout": "x"}}, "dropout", id="dropout"),
        pytest.param({"encoder": {"name": "tiny", "crop_size": 0}}, "crop_size is 0: ", id="crop-size"),
        pytest.param(
            {"visual_embedding": {"num_layer": 1}}, "'num_layer'. Did you mean 'num_layers'?", id="embedding-key"
        ),
        pytest.param({"visual_embedding": {"num_layers": -1}}, "num_layers is -1: ", id="embedding"),
        pytest.param({"training": {"max_steps": 0}}, "training.max_steps is 0: ", id="steps"),
        pytest.param({"training": {"stps": 1}}, "'stps'. Did you mean 'max_steps'?", id="training-key"),
        pytest.param({"training": 3}, "training is 3: expected a mapping", id="training-number"),
        pytest.param({"training": {"learning_rate": "fast"}}, "training.learning_rate is 'fast'", id="rate"),
        pytest.param({"training": {"learning_rate_multipliers": 3}}, "learning_rate_multipliers", id="multipliers"),
        pytest.param(
            {"training": {"learning_rate_multipliers": {"fusion.gaet_": 0.1}}},
            "no parameter of any variant starts with 'fusion.gaet_'",
            id="multiplier-of-nothing",
        ),
        pytest.param({"training": {"weight_decay": "x"}}, "weight_decay", id="weight-decay"),
        pytest.param({"data": {"format": "jsnl"}}, "Unknown data format 'jsnl'. Did you mean 'jsonl'?", id="format"),
        pytest.param({"data": {"train": "a.jsonl"}}, "data format", id="no-format"),
        pytest.param({"data": {**DATA, "imges": "x"}}, "'imges'. Did you mean 'images'?", id="data-key"),
        pytest.param({"mean_over": ["mre"], "tasks": ["mner"]}, "mean_over: 'mre'. Choices: mner", id="mean-over"),
        pytest.param({"workers": 0}, "workers is 0: ", id="workers"),
        pytest.param({"workers": "two"}, "workers is 'two': ", id="workers-word"),
        pytest.param({"seeds": ["a"]}, "seeds is ['a']: use whole numbers", id="seeds"),
        pytest.param({"seeds": [0, -1]}, "seeds is [0, -1]: use whole numbers", id="seeds-negative"),
        pytest.param({"seeds": [0.5]}, "seeds is [0.5]: use whole numbers", id="seeds-fraction"),
        pytest.param({"seeds": []}, "seeds", id="seeds-empty"),
        pytest.param({"seeds": [2**32]}, "seeds is [4294967296]", id="seeds-too-large"),
        pytest.param({"seeds": [1, 1]}, "two variants are called 'gated' (seed 1)", id="seed-twice"),
        pytest.param({"fusion": ["gated", {"name": "gated", "label": "x"}]}, "is in the grid twice", id="twice"),
        pytest.param(
            {"warm_start": {"max_steps": 3}}, "warm_start: Unknown key 'max_steps'. Choices: records", id="warm-start"
        ),
        pytest.param(
            {"warm_start": {"training": {"stps": 3}}}, "'stps'. Did you mean 'max_steps'?", id="warm-training"
        ),
        pytest.param(
            {"warm_start": {"training": {"max_steps": 0}}}, "warm_start.training.max_steps is 0", id="warm-steps"
        ),
        pytest.param({"warm_start": {"records": "many"}}, "records", id="warm-records"),
        pytest.param({"warm_start": {"records": 0}}, "records", id="warm-no-records"),
        pytest.param({"warm_start": {"seed": "x"}}, "seed", id="warm-seed"),
        pytest.param({"data": DATA}, "records are drawn only for the embedded data", id="warm-records-of-own-data"),
        pytest.param({"warm_start": 3}, "warm_start is 3: expected a mapping", id="warm-number"),
        pytest.param({"evaluation": {"splt": "dev"}}, "'splt'. Did you mean 'split'?", id="evaluation"),
        pytest.param({"evaluation": {"split": "train"}}, "split 'train'. Choices: dev, test", id="split"),
        pytest.param({"evaluation": {"batch_size": 0}}, "evaluation.batch_size is 0: ", id="batch-size"),
        pytest.param({"evaluation": {"generation": 3}}, "generation", id="generation-number"),
        pytest.param({"evaluation": {"generation": {"num_beans": 2}}}, "num_beans", id="generation-key"),
        pytest.param(
            {"fusion": [{"name": "gated", "label": "x"}, {"name": "concat", "label": "x"}]},
            "two variants are called 'x' (seed 0): remove one, or give them labels",
            id="label-twice",
        ),
        pytest.param({"name": "../elsewhere"}, "name: '../elsewhere' cannot be used as a directory name", id="name"),
        pytest.param({"missing_images": "ignore"}, "Unknown policy for missing images 'ignore'", id="policy"),
        pytest.param({"train_on": ["dta"]}, "data set in train_on: 'dta'. Did you mean 'data'?", id="train-on"),
        pytest.param({"train_on": {"without": "data"}}, "it leaves nothing to train on", id="train-on-nothing"),
        pytest.param({"train_on": {"wihout": "data"}}, "Did you mean 'without'?", id="train-on-key"),
        pytest.param({"train_on": {"label": "x"}}, "use either `only` or `without`", id="train-on-neither"),
        pytest.param({"train_on": 3}, "train_on is", id="train-on-number"),
        pytest.param({"train_on": []}, "train_on is empty", id="train-on-empty"),
        pytest.param({"instruction": "I3"}, "Unknown instruction variant 'I3'. Choices: I0", id="instruction"),
        pytest.param({"instruction": {"mnre": "{labels}"}}, "Did you mean 'mre'?", id="instruction-task"),
        pytest.param({"instruction": {"mner": "{lables}"}}, "{lables}", id="instruction-field"),
        pytest.param({"instruction": {"mre": "{labels}"}}, "is missing the placeholder {head}", id="instruction-lacks"),
        pytest.param({"instruction": {"label": "x"}}, "name a task and its instruction", id="instruction-no-task"),
        pytest.param({"instruction": 3}, "instruction is 3: use paper", id="instruction-number"),
        pytest.param({"evaluation": {"instructions": ["I0", "I0"]}}, "are called 'I0'", id="instructions-twice"),
        pytest.param({"reference": "paper-table-4"}, "Did you mean 'paper-table-4-", id="reference"),
        pytest.param({"reference": {"data": {"mner": 881}}}, "'data' is", id="reference-percent"),
        pytest.param({"reference": {"data": 88}}, "use F1 in percent", id="reference-number"),
        pytest.param({"plugins": "own.py"}, "own.py: not a Python file", id="plugin"),
        pytest.param({"plugins": [3]}, "plugin", id="plugin-number"),
        pytest.param({"notes": {"a": "b"}}, "notes.0 is {'a': 'b'}: should be a valid string", id="notes-mapping"),
    ],
)
def test_an_invalid_value_is_reported(grid_file, changes, expected):
    assert expected in error_of(grid_file(**changes))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("def f(:\n", "SyntaxError: invalid syntax"),
        ("raise RuntimeError('one\\ntwo')", "RuntimeError: one"),
        ("import sys\nsys.exit('enough')", "enough"),
    ],
    ids=["import", "syntax", "two-lines", "exit"],
)
def test_a_failing_plugin_is_reported(grid_file, tmp_path, code, expected):
    (tmp_path / "own.py").write_text(code)
    message = error_of(grid_file(plugins=["own.py"]))
    assert message.startswith(f"plugin {tmp_path / 'own.py'}: ")
    assert expected in message


def test_a_plugin_cannot_use_a_registered_name(grid_file, tmp_path):
    (tmp_path / "own.py").write_text(
        "from umie.fusion import Fusion, registry\n\n\n@registry.register('gated')\nclass Mine(Fusion): pass\n"
    )
    assert "The fusion 'gated' is already registered by umie.fusion.gated" in error_of(grid_file(plugins="own.py"))


@pytest.mark.parametrize("changes", [{"num_heads": 3}, {"num_heads": 12}, {"d_ff": 7}, {"head_dim": 5}])
def test_any_number_of_heads_is_allowed(grid_file, changes):
    """The width of a head comes from the decoder."""
    checked(grid_file(fusion={"name": "gated", **changes}, visual_embedding=changes))


HASHED = {
    "fusion-option": {"fusion": [{"name": "gated", "gate": 0.5}]},
    "fusion": {"fusion": ["concat"]},
    "encoder-option": {"encoder": {"name": "tiny", "crop_size": 8}},
    "decoder-option": {"decoder": {"overrides": {"dropout_rate": 0.1}}},
    "visual-embedding": {"visual_embedding": {"num_layers": 1}},
    "seed": {"seeds": [1]},
    "tasks": {"tasks": ["mner", "mre"]},
    "order-of-tasks": {"tasks": ["mner", "mre", "meae", "med"]},  # determines the order of the queries
    "task-option": {"tasks": {"mner": {"variant": "I1"}, "mre": {}, "med": {}, "meae": {}}},
    "training": {"training": {"max_steps": 4, "batch_size": 4}},
    "multipliers": {"training": {"max_steps": 3, "batch_size": 4, "learning_rate_multipliers": {"fusion": 0.5}}},
    "no-warm-start": {"warm_start": ...},
    "warm-start-records": {"warm_start": {"records": 31, "training": {"max_steps": 3, "batch_size": 4}}},
    "warm-start-training": {"warm_start": {"records": 30, "training": {"max_steps": 4, "batch_size": 4}}},
    "warm-start-seed": {"warm_start": {"records": 30, "training": {"max_steps": 3, "batch_size": 4}, "seed": 1}},
    "split": {"evaluation": {"split": "dev", "generation": {"max_new_tokens": 8}}},
    "generation": {"evaluation": {"generation": {"max_new_tokens": 9}}},
    "missing-images": {"missing_images": "text_only"},
    "instruction": {"instruction": "I1"},
    "own-instruction": {"instruction": {"mner": "Which? {labels}"}},
    "instructions-asked": {"evaluation": {"generation": {"max_new_tokens": 8}, "instructions": ["I1"]}},
}
NOT_HASHED = {
    "workers": {"workers": 1},
    "notes": {"notes": ["A note."]},
    "name": {"name": "other"},
    "label": {"fusion": [{"name": "gated", "label": "ours"}]},
    "mean-over": {"mean_over": ["mner"]},
    "reference": {"reference": ["paper-table-4-base", {"data": {"mner": 88.1}}]},
    "train-on-all": {"train_on": ["data"]},
    "order-of-keys": {"training": {"batch_size": 4, "max_steps": 3}},
}


@pytest.fixture(scope="module")
def gated_hash(tmp_path_factory, write_grid):
    """The hash of the small grid's cell with the gated fusion."""
    (cell,) = cells_of(write_grid(tmp_path_factory.mktemp("gated"), fusion=["gated"]))
    return cell.hash


@pytest.mark.parametrize("changes", HASHED.values(), ids=HASHED)
def test_the_hash_changes_with_what_the_result_depends_on(grid_file, gated_hash, changes):
    (after,) = cells_of(grid_file(**{"fusion": ["gated"], **changes}))
    assert after.hash != gated_hash


@pytest.mark.parametrize("changes", NOT_HASHED.values(), ids=NOT_HASHED)
def test_the_hash_stays_with_what_the_result_does_not_depend_on(grid_file, gated_hash, changes):
    (after,) = cells_of(grid_file(**{"fusion": ["gated"], **changes}))
    assert after.hash == gated_hash


def test_the_hash_changes_with_the_data(grid_file):
    path = grid_file(fusion=["gated"])
    (one,), (other,), (again,) = (cells_of(path, fingerprint) for fingerprint in ("a", "b", "a"))
    assert one.hash == again.hash != other.hash


def test_a_directory_named_like_a_preset_does_not_change_the_hash(grid_file, gated_hash, tmp_path, monkeypatch):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    (cell,) = cells_of(grid_file(fusion=["gated"]))
    assert cell.hash == gated_hash


def test_the_hash_changes_with_the_code_of_a_plugin(grid_file, tmp_path):
    """Otherwise, a corrected fusion would keep the results of the wrong one."""
    code = (
        "from umie.fusion import FusedStates, Fusion, registry\n\n\n"
        "@registry.register('mine')\nclass Mine(Fusion):\n"
        "    def forward(self, text, text_mask, visual, visual_mask, *, output_attention=False):\n"
        "        return FusedStates({result}, text_mask)\n"
    )
    (tmp_path / "own.py").write_text(code.format(result="text"))
    path = grid_file(plugins="own.py", fusion="mine")
    (before,) = cells_of(path)
    (tmp_path / "own.py").write_text(code.format(result="text * 2"))
    (after,) = cells_of(path)
    assert before.hash != after.hash


@pytest.fixture
def varied(grid_file):
    """A grid that varies fusion, training and seed, with nested options."""
    return grid_file(
        fusion=["gated", {"name": "gated", "gate": 0.5, "residual": "released"}, "text_only"],
        training=[{"max_steps": 3, "learning_rate_multipliers": {"fusion": 0.1, "encoder": 0.2}}, {"max_steps": 4}],
        seeds=[0, 1],
        evaluation={"generation": {"num_beams": 2, "length_penalty": 0.5}},
    )


def test_all_hashes_differ(varied):
    hashes = [cell.hash for cell in cells_of(varied, "f")]
    assert len(set(hashes)) == len(hashes) == 12


@pytest.mark.slow
def test_the_hashes_are_the_same_in_another_process(varied):
    code = (
        "import json, sys\nfrom umie.experiments.expand import plan, read_grid\n"
        "print(json.dumps([cell.hash for cell in plan(read_grid(sys.argv[1]), 'f')]))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, str(varied)],
        env={"PYTHONHASHSEED": "12345", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        check=True,
    )
    assert json.loads(other.stdout) == [cell.hash for cell in cells_of(varied, "f")]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"fusion": "gated"}, ["gated"]),
        ({"fusion": ["gated", {"name": "gated", "gate": 0.05}]}, ["gated", "gated(gate=0.05)"]),
        ({"fusion": ["gated", {"name": "gated", "gate": 0.05, "label": "half open"}]}, ["gated", "half open"]),
        (
            {"fusion": ["gated", "concat"], "encoder": ["tiny", {"name": "tiny", "crop_size": 8}]},
            ["tiny + gated", "tiny + concat", "tiny(crop_size=8) + gated", "tiny(crop_size=8) + concat"],
        ),
        (
            {"fusion": "gated", "decoder": ["tiny", {"source": "tiny", "overrides": {"dropout_rate": 0.1}}]},
            ["tiny", "tiny(overrides={'dropout_rate': 0.1})"],
        ),
        ({"fusion": "gated", "decoder": ["tiny", "flan-t5-small"]}, ["tiny", "flan-t5-small"]),
        (
            {"fusion": "gated", "training": [{"label": "short", "max_steps": 3}, {"max_steps": 4}]},
            ["short", "training(max_steps=4)"],
        ),
        (
            {"fusion": "gated", "visual_embedding": [{"label": "deep", "num_layers": 2}, {"num_layers": 1}]},
            ["deep", "visual_embedding(num_layers=1)"],
        ),
    ],
    ids=["one", "options", "label", "two-slots", "decoders", "presets", "training", "visual-embedding"],
)
def test_the_name_of_a_variant_shows_what_varies(grid_file, changes, expected):
    assert [cell.variant for cell in cells_of(grid_file(**changes))] == expected


SETS = {
    "a": {"format": "synthetic", "tasks": ["mner"]},
    "b": {"format": "synthetic", "seed": 1, "tasks": ["mner"]},
}


@pytest.mark.parametrize(
    ("train_on", "expected"),
    [
        (None, {"gated": ["a", "b"]}),
        (["a", "b"], {"gated": ["a", "b"]}),
        (["b"], {"gated": ["b"]}),
        ({"without": "b", "label": "less"}, {"gated": ["a"]}),
        ([["a"], ["b", "a"]], {"a": ["a"], "a + b": ["a", "b"]}),
        (
            ["all", {"without": "a"}, {"label": "first", "only": ["a"]}],
            {"all sets": ["a", "b"], "without a": ["b"], "first": ["a"]},
        ),
    ],
    ids=str,
)
def test_the_data_sets_that_are_trained_on_can_vary(grid_file, train_on, expected):
    path = grid_file(data={"sets": SETS}, tasks=["mner"], fusion=["gated"], train_on=train_on)
    cells = cells_of(path)
    assert [list(cell.config.trained_on) for cell in cells] == list(expected.values())
    assert [cell.variant for cell in cells] == list(expected)
    assert len({cell.hash for cell in cells}) == len(cells)


def test_the_training_of_an_encoder_does_not_reach_variants_without_image(grid_file):
    encoder = [{"name": "tiny", "training": {"max_steps": 5}, "images": "shuffled"}, "tiny"]
    cells = plan(read_grid(grid_file(fusion=["text_only", "gated"], encoder=encoder)), "x")
    assert [(cell.variant, cell.config.images, cell.config.training.max_steps == 5) for cell in cells] == [
        ("text_only", "own", False),
        ("tiny, shuffled images + gated", "shuffled", True),
        ("tiny + gated", "own", False),
    ]


def test_the_wording_can_vary(grid_file):
    own = {"label": "mine", "mner": "Which? {labels}", "mre": "I2"}
    cells = cells_of(grid_file(fusion="gated", instruction=["paper", "I0", own]))
    assert [cell.variant for cell in cells] == ["paper", "I0", "mine"]
    assert cells[1].config.wording["med"] == {"variant": "I0", "instruction": None}
    assert cells[2].config.wording == {
        "mner": {"instruction": "Which? {labels}"},
        "mre": {"variant": "I2", "instruction": None},
    }


def test_a_grid_is_read_without_the_files_that_it_names(grid_file, tmp_path):
    names = {
        "decoder": "google/no-such-model",
        "encoder": {"name": "precomputed", "path": str(tmp_path / "none.tsv"), "boxes": "absolute"},
    }
    path = grid_file(fusion="gated", **names)
    with pytest.raises(UmieError, match="none.tsv"):
        checked(path)
    grid = checked(path, read_files=False)
    assert len(plan(grid, "", read_files=False)) == 1
    for changes, expected in (
        ({"fusion": {"name": "gated", "gate": "wide"}}, "gate is 'wide'"),
        ({"encoder": {"name": "precomputed", "path": "x", "boxes": "abs"}}, "boxes"),
        ({"decoder": {"source": 3}}, "source is 3"),
    ):
        with pytest.raises(UmieError) as caught:
            checked(grid_file(**{"fusion": "gated", **names, **changes}), read_files=False)
        assert expected in str(caught.value)


def test_a_label_does_not_reach_the_parts(grid_file):
    training = {"label": "short", "max_steps": 3}
    embedding = {"label": "deep", "num_layers": 2}
    (cell,) = cells_of(
        grid_file(fusion={"name": "gated", "label": "ours"}, training=training, visual_embedding=embedding)
    )
    assert cell.parts["fusion"] == {"name": "gated"}
    assert cell.parts["visual_embedding"] == {"num_layers": 2}
    treated = {"initialize_fusion": True, "learning_rate_multipliers": {"fusion.gate_": 0.003}}
    assert cell.training == {"max_steps": 3, **treated}


def test_every_variant_runs_with_every_seed(grid_file):
    cells = cells_of(grid_file(seeds=[3, 4]))
    assert [(cell.variant, cell.seed) for cell in cells] == [
        ("gated", 3),
        ("gated", 4),
        ("text_only", 3),
        ("text_only", 4),
    ]
    assert len({cell.hash for cell in cells}) == 4


def test_plans_are_made_of_plain_data(grid_file):
    for cell in cells_of(grid_file(decoder={"overrides": {"dropout_rate": 0.1}})):
        assert RunConfig.from_json(json.loads(json.dumps(cell.config.to_json()))) == cell.config
