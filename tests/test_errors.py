"""Messages of errors that a user can fix."""

import math

import pytest

from umie.errors import (
    UmieError,
    UnknownNameError,
    at,
    check_choice,
    check_keys,
    check_positive,
    check_share,
    check_whole,
    shown,
)


def test_an_unknown_name_suggests_the_closest_choice():
    error = UnknownNameError("fusion", "gatd", ["text_only", "gated", "concat"])
    assert str(error) == "Unknown fusion 'gatd'. Did you mean 'gated'? Choices: concat, gated, text_only."


def test_an_unknown_name_without_a_close_choice_only_lists_the_choices():
    assert str(UnknownNameError("task", 7, ["mner"])) == "Unknown task 7. Choices: mner."


def test_the_first_unknown_key_is_reported():
    with pytest.raises(UnknownNameError, match="Unknown grid key 'seed'. Did you mean 'seeds'"):
        check_keys("grid key", ["name", "seed", "other"], ["name", "seeds"])


def test_the_place_precedes_the_message():
    with pytest.raises(UmieError, match=r"^a\.jsonl:3: empty$"), at("a.jsonl:3"):
        raise UmieError("empty")


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, None])
def test_other_values_than_whole_numbers_are_rejected(value: object):
    with pytest.raises(UmieError, match=r"^steps is .*: use a whole number of at least 1"):
        check_whole("steps", value, 1)


@pytest.mark.parametrize("value", [0, -0.5, math.inf, math.nan, "1", True, None])
def test_other_values_than_positive_numbers_are_rejected(value: object):
    with pytest.raises(UmieError, match="^learning_rate is .*: use a number greater than 0"):
        check_positive("learning_rate", value)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, "0", None])
def test_other_values_than_shares_are_rejected(value: object):
    with pytest.raises(UmieError, match="^image_share is .* >= 0 and <= 1$"):
        check_share("image_share", value)


def test_the_bounds_are_shares():
    check_share("a", 0)
    check_share("a", 1)
    with pytest.raises(UmieError, match="< 1$"):
        check_share("dropout", 1, below_one=True)


def test_choices_are_listed():
    with pytest.raises(UmieError, match="^residual is 'x': use one of paper, released$"):
        check_choice("residual", "x", ("paper", "released"))


def test_values_are_shown_shortened():
    assert shown([1, 2]) == "[1, 2]"
    assert len(shown("x" * 1000)) == 80
    assert shown(10**5000) == "<int>"
