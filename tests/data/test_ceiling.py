"""The text-only ceiling against brute force over every rule."""

from itertools import chain, combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from umie.data.synthetic import Candidate, SyntheticConfig, ceilings, text_only_ceiling

candidates = st.builds(
    Candidate,
    frequency=st.floats(0, 5, allow_subnormal=False),
    probability=st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1, allow_subnormal=False)),
)


def brute_force(candidates):
    """Return the best F1 over all sets of candidates that a rule may predict."""
    gold = sum(candidate.frequency * candidate.probability for candidate in candidates)
    best = 0.0
    for rule in chain.from_iterable(combinations(candidates, size) for size in range(len(candidates) + 1)):
        found = sum(candidate.frequency * candidate.probability for candidate in rule)
        predicted = sum(candidate.frequency for candidate in rule)
        if predicted + gold > 0:
            best = max(best, 2 * found / (predicted + gold))
    return best


@given(st.lists(candidates, max_size=7))
@example([Candidate(1, 0.5), Candidate(1, 0.5), Candidate(4, 0.25)])
@example([Candidate(0, 1.0), Candidate(0, 0.0)])
def test_equals_brute_force(candidates):
    ceiling = text_only_ceiling(candidates)
    assert ceiling == pytest.approx(brute_force(candidates), abs=1e-12)
    assert text_only_ceiling(iter(candidates[::-1])) == pytest.approx(ceiling, abs=1e-12)
    assert 0 <= ceiling <= 1 + 1e-12


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], 0.0),
        ([Candidate(1, 1.0)], 1.0),
        ([Candidate(3, 0.0)], 0.0),
        # one item in four is right: naming all gives 2 * 1 / (4 + 1)
        ([Candidate(4, 0.25)], 0.4),
        # half of the texts determine the answer; guessing in the others loses more than it gains
        ([Candidate(0.5, 1.0), Candidate(0.5 * 20, 0.05)], 2 * 0.5 / (0.5 + 1)),
        # here it pays: 2 * (0.5 + 0.25) / (0.5 + 0.5 + 0.75)
        ([Candidate(0.5, 1.0), Candidate(0.5, 0.5)], 1.5 / 1.75),
    ],
)
def test_known_values(given, expected):
    assert text_only_ceiling(given) == pytest.approx(expected, abs=1e-12)


def test_ceilings_of_the_embedded_data_set():
    found = ceilings(SyntheticConfig())
    assert set(found) == {"mner", "mre", "med", "meae"}
    assert all(0.50 <= ceiling <= 0.65 for ceiling in found.values())


def test_ceilings_fall_with_the_share_of_images_that_decide():
    shares = [0, 0.2, 0.5, 0.62, 0.8, 1]
    rows = [ceilings(SyntheticConfig(image_share=share)) for share in shares]
    for task in rows[0]:
        column = [row[task] for row in rows]
        assert column[0] == 1
        assert column == sorted(column, reverse=True)
        assert column[-1] < column[-2]
    # no text determines the answer: one label of four for every record; for relations, `none` is not a positive
    assert rows[-1]["mner"] == rows[-1]["med"] == pytest.approx(2 * 1 / (4 + 1))
    assert rows[-1]["mre"] == pytest.approx(2 * 0.75 / (3 + 0.75))
    # agent and target either way round (2 of 4 right), regions (2 of 8 right) left out or not
    assert rows[-1]["meae"] == pytest.approx(max(2 * 2 / (4 + 4), 2 * 4 / (12 + 4)))
