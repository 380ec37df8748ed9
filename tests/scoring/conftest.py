"""What the tests of scores share: one figure's counts of one record, and where the published data lie."""

from pathlib import Path

import pytest
from umie.scoring.counts import Counts

from umie.data import read
from umie.scoring import MEASURES

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def counts():
    """Return the counts of a figure over all labels: ``counts("mner strict", predicted, gold)``."""

    def sum_up(name, predicted, gold):
        tally = tally_of(name, predicted, gold)
        return Counts(*map(sum, zip(*tally.values(), strict=True))) if tally else Counts(0, 0, 0)

    return sum_up


@pytest.fixture(scope="session")
def tally():
    """Return the counts of a figure by label: ``tally("mner strict", predicted, gold)``."""
    return tally_of


def tally_of(name, predicted, gold):
    (figure,) = (figure for figure in MEASURES if f"{figure.task} {figure.name}" == name)
    return figure.count(predicted, gold)


@pytest.fixture(scope="session")
def published():
    """Read a published file: ``published("mnre", "mnre_v2/test.txt")``; skip where it is not at hand."""

    def records(format_name, file, **options):
        if not (DATA / file).exists():
            pytest.skip(reason=f"the published file {file} is not at hand")
        return list(read(format_name, DATA / file, **options))

    return records
