"""The config file of a run: presets, settings, and one line that names the file and the key for everything wrong."""

import pytest

from umie.errors import UmieError
from umie.experiments.presets import PRESETS
from umie.experiments.run_config import read_run


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"fusoin": "gated"}, r"Unknown config key 'fusoin'. Did you mean 'fusion'\?"),
        ({"seeds": [0, 1]}, "Unknown config key 'seeds'"),
        ({"seed": [0, 1]}, r"seed is \[0, 1\]: give one whole number"),
        ({"seed": -1}, "seeds is"),
        ({"fusion": ["gated", "concat"]}, "a run trains one variant: give one option for fusion"),
        ({"training": {"step": 3}}, r"Unknown training key 'step'. Did you mean 'steps'\?"),
        ({"training": {"steps": 3, "epochs": 2}}, "steps is 3 and epochs is 2: give one of them"),
        ({"training": {"precision": "float8"}}, "precision is 'float8': give one of float32, bfloat16"),
        ({"training": {"freeze": "text"}}, "freeze is 'text': give a list"),
        ({"checkpoints": {"evry": 3}}, r"Unknown checkpoints key 'evry'"),
        ({"checkpoints": {"patience": 0}}, "patience is 0"),
        ({"training": {"fsdp": True}, "checkpoints": {"patience": 1}}, "patience needs dev scores"),
        ({"preset": "paper-bse"}, r"Unknown preset 'paper-bse'. Did you mean 'paper-base'\?"),
        ({"preset": ["paper-base"]}, r"Unknown preset"),
        ({"training": {"weight_decay": [1]}}, r"weight_decay is \[1\]: give 0 or more"),
        ({"training": {"learning_rate": "1e-4"}}, "YAML reads 1e-4 as text: write 1.0e-4"),
        ({"start_from": "nowhere", "fusion": ...}, "no trained variant there"),
        ({"start_from": "nowhere"}, "leave 'fusion' out"),
        ({"data": ...}, "lacks 'data'"),
        ({"allow_truncated_targets": "yes"}, "allow_truncated_targets is 'yes'"),
    ],
    ids=str,
)
def test_what_is_wrong_is_one_line_with_the_file(config_file, changes, expected):
    path = config_file(**changes)
    with pytest.raises(UmieError, match=expected) as caught:
        read_run(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_file_that_is_no_config(tmp_path):
    with pytest.raises(UmieError, match="cannot read the config file: No such file"):
        read_run(tmp_path / "nothing.yaml")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    with pytest.raises(UmieError, match="a config file is a mapping of keys"):
        read_run(tmp_path / "list.yaml")


def test_settings_go_before_the_file(config_file):
    path = config_file()
    run = read_run(
        path, ["training.steps=17", "fusion.gate=0.1", "seed=3", "checkpoints.patience=2", "notes=[one, two]"]
    )
    assert (run.training.steps, run.seed, run.checkpoints.patience) == (17, 3, 2)
    assert run.cell("").parts["fusion"] == {"name": "gated", "dropout": 0.1, "gate": 0.1}
    assert run.grid.notes == ["one", "two"]
    assert run.training.batch_size == 4  # what is not set stays
    for setting, expected in (
        ("training.steps", "give key=value"),
        (".steps=3", "give key=value"),
        ("name.inner=3", "name is 'small', it has no keys of its own"),
        ("seed=[1", "the value is not YAML"),
        ("training.stepz=3", "Unknown training key 'stepz'"),
    ):
        with pytest.raises(UmieError, match=expected):
            read_run(path, [setting])


def test_an_option_of_a_part_that_the_file_names_shortly_or_not_at_all(config_file):
    run = read_run(config_file(fusion="gated"), ["fusion.gate=0.1"])
    assert run.cell("").parts["fusion"] == {"name": "gated", "gate": 0.1}
    path = config_file(fusion=..., preset="paper-base", training=...)
    run = read_run(path, ["fusion.gate=0.1"], read_files=False)
    assert run.cell("", read_files=False).parts["fusion"] == {"name": "gated", "residual": "paper", "gate": 0.1}


def test_presets_carry_the_papers_values(config_file):
    expected = {"paper-base": (16, 1e-4, "base"), "paper-large": (8, 5e-5, "large"), "paper-xl": (8, 5e-5, "xl")}
    assert set(PRESETS) == set(expected)
    for preset, (batch_size, rate, size) in expected.items():
        run = read_run(config_file(preset=preset, training=..., fusion=...), read_files=False)
        training, parts = run.training, run.cell("", read_files=False).parts
        assert (training.epochs, training.batch_size, training.learning_rate) == (40, batch_size, rate)
        assert training.label_smoothing > 0
        assert (run.max_input_tokens, run.max_target_tokens) == (256, 128)
        assert parts["decoder"] == {"name": "t5", "source": f"google/flan-t5-{size}"}
        assert parts["encoder"]["name"] == "resnet101_roi" and parts["encoder"]["mode"] == "crop"
        assert parts["encoder"]["weights"] == "IMAGENET1K_V2"
        assert parts["fusion"]["name"] == "gated"
        assert parts["visual_embedding"]["num_slot_embeddings"] == 37


def test_a_files_own_values_go_before_its_presets(config_file):
    path = config_file(preset="paper-base", training={"steps": 10, "batch_size": 4}, encoder="tiny", decoder="tiny")
    run = read_run(path)
    assert (run.training.steps, run.training.epochs, run.training.batch_size) == (10, None, 4)
    assert run.training.label_smoothing == PRESETS["paper-base"]["training"]["label_smoothing"]
    assert run.cell("").parts["decoder"]["source"] == "tiny"
