"""The shared learned variant as an extractor."""

import pytest

from umie.extraction import Extractor


@pytest.fixture(scope="session")
def records(learned_records):
    return learned_records


@pytest.fixture(scope="session")
def checkpoint(learned_checkpoint):
    return learned_checkpoint


@pytest.fixture(scope="session")
def extractor(learned):
    return Extractor(*learned)
