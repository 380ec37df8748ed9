"""What the tests of runs share: a small config, written with other values for some keys."""

import copy

import pytest
import yaml

SMALL = {
    "name": "small",
    "data": {"format": "synthetic", "train": 60, "dev": 6, "test": 12},
    "tasks": ["mner", "mre", "med", "meae"],
    "fusion": {"name": "gated", "dropout": 0.1},
    "training": {"steps": 6, "batch_size": 4},
    "checkpoints": {"every": 2, "report_to": []},
    "evaluation": {"generation": {"max_new_tokens": 8}},
}


@pytest.fixture
def config_file(tmp_path):
    """Write the small config; a value of ... leaves the key out: ``config_file(seed=1)``."""

    def write(name="config.yaml", **changes):
        values = {**copy.deepcopy(SMALL), **changes}
        path = tmp_path / name
        path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not ...}))
        return path

    return write
