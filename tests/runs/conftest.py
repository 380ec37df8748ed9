"""What the tests of runs share: a small config, written with other values for some keys."""

import copy

import pytest
import yaml
from small_run import SMALL


@pytest.fixture
def config_file(tmp_path):
    """Write the small config; a value of ... leaves the key out: ``config_file(seed=1)``."""

    def write(name="config.yaml", **changes):
        values = {**copy.deepcopy(SMALL), **changes}
        path = tmp_path / name
        path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not ...}))
        return path

    return write
