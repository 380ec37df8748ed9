"""What a run would fail on late is an error of its plan, in one line."""

import copy

import pytest
import yaml
from small_run import SMALL

FUSION = """
from umie.fusion import Fusion, FusedStates, registry

@registry.register("own")
class Own(Fusion):
    def __init__(self, config):
        super().__init__(config)
        {build}
    def forward(self, text, text_mask, visual, visual_mask, *, output_attention=False):
        {run}
        return FusedStates(text, text_mask)
"""

WRONG = {
    "beams": ({"evaluation": {"generation": {"num_beams": 0}}}, "evaluation.generation: num_beams is 0"),
    "reporter": ({"checkpoints": {"report_to": ["nosuch"]}}, "checkpoints.report_to: Unknown integration 'nosuch'"),
    "not installed": ({"checkpoints": {"report_to": ["mlflow"]}}, "mlflow is not installed"),
    "metric": ({"checkpoints": {"report_to": [], "metric_for_best_model": "mrr_f1"}}, "Did you mean 'mre_f1'?"),
    "compile": ({"training": {"torch_compile": "nosuch"}}, "Unknown torch.compile backend 'nosuch'"),
    "freeze": ({"training": {"freeze": ["nosuch"]}}, "Unknown part to freeze 'nosuch'"),
    "freeze all": ({"training": {"freeze": ["text", "visual", "fusion"]}}, "nothing is left to train"),
    "multiplier": ({"training": {"learning_rate_multipliers": {"nosuch.": 0.1}}}, "starts with 'nosuch.'"),
    "adapter": ({"training": {"adapter": {"type": "nosuch"}}}, "Unknown adapter type 'nosuch'"),
    "adapter option": ({"training": {"adapter": {"type": "lora", "rank": 8}}}, "rank"),
    "adapter rank": ({"training": {"adapter": {"r": -1, "target_modules": ["q"]}}}, "training: adapter"),
    "adapter modules": ({"training": {"adapter": {"target_modules": ["nosuch"]}}}, "linear layers: k, "),
    "mean": ({"tasks": ["mner"], "mean_over": ["mre"]}, "mean_over"),
    "patience": (
        {"data": {"format": "jsonl", "train": "a.jsonl", "test": "b.jsonl"}, "tasks": ["mner"],
         "checkpoints": {"early_stopping_patience": 2, "report_to": []}},
        "early_stopping_patience needs dev scores",
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def records(tmp_path):
    for name, text, label in (("a", "Anna ran", "person"), ("b", "Bo sat", "place"), ("c", "Cy is", "person")):
        line = f'{{"text": "{text}", "entities": [{{"type": "{label}", "span": [0, 2]}}]}}\n'
        (tmp_path / f"{name}.jsonl").write_text(line)


@pytest.fixture
def plan(umie, tmp_path):
    """Return the errors of the plans of the small run with these changes: as a run, and as a grid."""

    def call(**changes):
        values = {**copy.deepcopy(SMALL), **changes}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
        errors = []
        for command in ("train", "ablate"):
            code, _, err = umie(command, tmp_path / "config.yaml", "--plan", "--output", tmp_path / "out")
            assert (code, "Traceback" in err) == (2, False), err
            errors.append(err)
        return errors

    return call


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.slow
def test_a_plan_fails_instead_of_the_run(plan, name):
    changes, expected = WRONG[name]
    for err in plan(**changes):
        assert expected in err


def test_a_label_that_is_not_in_training(plan):
    data = {"format": "jsonl", "train": "a.jsonl", "dev": "c.jsonl", "test": "b.jsonl"}
    for err in plan(data=data, tasks=["mner"], checkpoints={"report_to": []}):
        assert "Unknown mner label 'place'" in err


@pytest.mark.parametrize(
    ("build", "run"),
    [("raise KeyError('own')", "pass"), ("pass", "raise RuntimeError('own')"), ("import own_nothing", "pass")],
    ids=["constructor", "forward", "import"],
)
def test_a_fusion_of_a_plugin_that_fails(plan, tmp_path, build, run):
    (tmp_path / "own.py").write_text(FUSION.format(build=build, run=run))
    for err in plan(plugins=["own.py"], fusion="own"):
        assert "own" in err
