"""The config file of a run: presets, overrides, and errors with the file and the key."""

import pytest

from umie.errors import UmieError, at
from umie.experiments.expand import PRESETS
from umie.experiments.expand import read_run as read_only
from umie.experiments.parts import check_parts


def read_run(path, settings=(), *, read_files=True):
    """Read a config and check its parts, like the command."""
    run = read_only(path, settings)
    with at(str(path)):
        check_parts([run], read_files=read_files)
    return run


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"fusoin": "gated"}, r"Unknown key 'fusoin'. Did you mean 'fusion'\?"),
        ({"seeds": [0, 1]}, "seeds: a key of grids, and a run trains one variant: remove it, or use umie ablate"),
        ({"question": "Why?"}, "question: a key of grids"),
        ({"seed": [0, 1]}, r"seed is \[0, 1\]: use one whole number"),
        ({"seed": -1}, "seeds is -1|seeds is"),
        ({"fusion": ["gated", "concat"]}, "a run trains one variant: choose one fusion"),
        ({"training": {"max_step": 3}}, r"training: Unknown key 'max_step'. Did you mean 'max_steps'\?"),
        (
            {"training": {"max_steps": 3, "num_train_epochs": 2}},
            "training: max_steps is 3 and num_train_epochs is 2: set one of them",
        ),
        ({"training": {"bf16": "float8"}}, "training.bf16 is 'float8'"),
        ({"training": {"freeze": "text"}}, "training.freeze is 'text'"),
        ({"checkpoints": {"evry": 3}}, r"checkpoints: Unknown key 'evry'"),
        ({"checkpoints": {"early_stopping_patience": 0}}, "checkpoints.early_stopping_patience is 0"),
        (
            {"training": {"fsdp": True}, "checkpoints": {"early_stopping_patience": 1}},
            "early_stopping_patience needs dev scores",
        ),
        ({"preset": "paper-bse"}, r"Unknown preset 'paper-bse'. Did you mean 'paper-base'\?"),
        ({"preset": ["paper-base"]}, r"Unknown preset"),
        ({"training": {"weight_decay": [1]}}, r"training.weight_decay is \[1\]"),
        ({"training": {"learning_rate": "fast"}}, "training.learning_rate is 'fast'"),
        ({"start_from": "nowhere", "fusion": ...}, "not a trained variant"),
        ({"start_from": "nowhere"}, "remove 'fusion'"),
        ({"data": ...}, "data is missing"),
        ({"allow_truncated_targets": "yes"}, "allow_truncated_targets is 'yes'"),
    ],
    ids=str,
)
def test_an_error_is_one_line_with_the_file(config_file, changes, expected):
    path = config_file(**changes)
    with pytest.raises(UmieError, match=expected) as caught:
        read_run(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_file_that_is_not_a_config_is_rejected(tmp_path):
    with pytest.raises(UmieError, match="cannot read the config file: No such file"):
        read_run(tmp_path / "nothing.yaml")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    with pytest.raises(UmieError, match="a config file is a mapping of keys"):
        read_run(tmp_path / "list.yaml")


def test_settings_override_the_file(config_file):
    path = config_file()
    run = read_run(
        path,
        [
            "training.max_steps=17",
            "fusion.gate=0.1",
            "seed=3",
            "checkpoints.early_stopping_patience=2",
            "notes=[one, two]",
        ],
    )
    assert (run.training.max_steps, run.seed, run.checkpoints.early_stopping_patience) == (17, 3, 2)
    assert run.parts["fusion"] == {"name": "gated", "dropout": 0.1, "gate": 0.1}
    assert run.notes == ("one", "two")
    assert run.training.batch_size == 4  # unchanged
    for setting, expected in (
        ("training.max_steps", "use key=value"),
        (".max_steps=3", "use key=value"),
        ("name.inner=3", "name is 'small', which has no keys"),
        ("seed=[1", "the value is not valid YAML"),
        ("training.stepz=3", "training: Unknown key 'stepz'"),
    ):
        with pytest.raises(UmieError, match=expected):
            read_run(path, [setting])


def test_an_option_can_be_set_for_a_part_given_as_a_name_or_by_a_preset(config_file):
    run = read_run(config_file(fusion="gated"), ["fusion.gate=0.1"])
    assert run.parts["fusion"] == {"name": "gated", "gate": 0.1}
    path = config_file(fusion=..., preset="paper-base", training=...)
    run = read_run(path, ["fusion.gate=0.1"], read_files=False)
    assert run.parts["fusion"] == {"name": "gated", "residual": "paper", "gate": 0.1}


def test_presets_have_the_values_of_the_paper(config_file):
    expected = {"paper-base": (16, 1e-4, "base"), "paper-large": (8, 5e-5, "large"), "paper-xl": (8, 5e-5, "xl")}
    assert set(PRESETS) == set(expected)
    for preset, (batch_size, rate, size) in expected.items():
        run = read_run(config_file(preset=preset, training=..., fusion=...), read_files=False)
        training, parts = run.training, run.parts
        assert (training.num_train_epochs, training.batch_size, training.learning_rate) == (40, batch_size, rate)
        assert training.label_smoothing_factor > 0
        assert (run.max_input_tokens, run.max_target_tokens) == (256, 128)
        assert parts["decoder"] == {"name": "t5", "source": f"google/flan-t5-{size}"}
        assert parts["encoder"]["name"] == "resnet101_roi" and parts["encoder"]["mode"] == "crop"
        assert parts["encoder"]["weights"] == "IMAGENET1K_V2"
        assert parts["fusion"]["name"] == "gated"
        assert parts["visual_embedding"]["num_slot_embeddings"] == 37


def test_the_values_of_a_file_override_its_preset(config_file):
    path = config_file(preset="paper-base", training={"max_steps": 10, "batch_size": 4}, encoder="tiny", decoder="tiny")
    run = read_run(path)
    assert (run.training.max_steps, run.training.num_train_epochs, run.training.batch_size) == (10, None, 4)
    assert run.training.label_smoothing_factor == PRESETS["paper-base"]["training"]["label_smoothing_factor"]
    assert run.parts["decoder"]["source"] == "tiny"
