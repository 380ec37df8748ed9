"""The JSON schemas for editors: up to date, and they admit every example."""

import json
from pathlib import Path

import jsonschema
import pytest

from umie.experiments.combine import SLOTS
from umie.experiments.schema import FOLDER, grid_schema, run_schema
from umie.yaml_files import read_yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
RUNS = sorted([*EXAMPLES.glob("train_*.yaml"), *EXAMPLES.glob("reamo/stage*.yaml")])
GRIDS = sorted({*EXAMPLES.glob("*.yaml"), EXAMPLES / "reamo" / "pipeline.yaml"} - {*RUNS})


@pytest.mark.parametrize(("name", "schema"), [("run", run_schema()), ("grid", grid_schema())])
def test_the_written_schemas_are_those_of_the_code(name, schema):
    """``python -m umie.experiments.schema`` writes them."""
    assert json.loads((FOLDER / f"{name}.json").read_text()) == json.loads(json.dumps(schema))


@pytest.mark.parametrize("path", [*RUNS, *GRIDS], ids=lambda path: path.stem)
def test_every_example_fits_its_schema(path):
    schema = run_schema() if path in RUNS else grid_schema()
    jsonschema.validate(read_yaml(path, "an example"), schema)
    name = "run" if path in RUNS else "grid"
    up = "../" * len(path.relative_to(EXAMPLES).parts)
    assert f"# yaml-language-server: $schema={up}umie/experiments/schemas/{name}.json" in path.read_text()


@pytest.mark.parametrize(
    "changes",
    [
        {"fusoin": "gated"},
        {"training": {"stps": 3}},
        {"evaluation": {"split": 3}},
        {"seed": "x"},
        {"preset": "paper"},
        {"grounders": {"smell": "words"}},
        {"grounders": {"image": 5}},
        {"grounders": {"image": {"top": 1}}},
    ],
    ids=lambda changes: str(changes),
)
def test_what_the_code_refuses_an_editor_marks(changes):
    values = {"data": {"format": "synthetic"}, "tasks": ["mner"]}
    jsonschema.validate(values, run_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**values, **changes}, run_schema())


def test_a_grid_may_vary_its_slots():
    for slot in SLOTS:
        assert {"type": "array"}.items() <= grid_schema()["properties"][slot]["anyOf"][1].items()
