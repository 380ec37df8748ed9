"""Fixtures for the tests of reports: grids and data without files."""

import dataclasses

import pytest
import yaml

from umie.experiments.data_sets import Corpus, DataSet
from umie.experiments.expand import read_grid


@pytest.fixture
def make_grid(tmp_path):
    """Return a grid with some values: ``make_grid(name="swept", fusion=[...])``."""

    def make(**values):
        path = tmp_path / "grid-file.yaml"
        path.write_text(yaml.safe_dump({"data": {"format": "synthetic"}, **values}))
        grid = read_grid(path)
        path.unlink()
        return grid

    return make


@pytest.fixture
def no_data():
    """Return a data set of which only the sizes are used: ``no_data(tasks=..., num_records=...)``."""

    def make(**changes) -> Corpus:
        values = {item.name: {} for item in dataclasses.fields(DataSet)}
        values |= {"name": "data", "format": "jsonl", "num_excluded": 0, "fingerprint": "f"}
        values |= changes
        values["num_queries"] = {split: dict.fromkeys(values["tasks"], 1) for split in values["num_records"]}
        return Corpus(sets={"data": DataSet(**values)}, weights={"data": 1.0})

    return make
