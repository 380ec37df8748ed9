"""Fixtures of the scoring tests: the counts of one measure for one record, and the published data."""

from pathlib import Path

import pytest

from umie.data import read
from umie.scoring.counts import Counts
from umie.scoring.measures import measures_of

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def counts():
    """Return the counts of a measure over all labels: ``counts("mner strict", predicted, gold)``."""

    def sum_up(name, predicted, gold):
        tally = tally_of(name, predicted, gold)
        return Counts(*map(sum, zip(*tally.values(), strict=True))) if tally else Counts(0, 0, 0)

    return sum_up


@pytest.fixture(scope="session")
def tally():
    """Return the counts of a measure by label: ``tally("mner strict", predicted, gold)``."""
    return tally_of


def tally_of(name, predicted, gold):
    task, _, wanted = name.partition(" ")
    (measure,) = (measure for measure in measures_of(task) if measure.name == wanted)
    return measure.count(predicted, gold)


@pytest.fixture(scope="session")
def published():
    """Read a published file: ``published("mnre", "mnre_v2/test.txt")``; skip if it is missing."""

    def records(format_name, file, **options):
        if not (DATA / file).exists():
            pytest.skip(reason=f"the published file {file} is missing")
        return list(read(format_name, DATA / file, **options))

    return records
