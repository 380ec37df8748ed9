"""Generation options are checked before anything is loaded."""

import pytest
from transformers import GenerationConfig

from umie.decoders.options import CHECKS, check_generation_options
from umie.errors import UmieError

FITTING = (
    {},
    {"num_beams": 4, "length_penalty": 0.5, "early_stopping": "never", "max_new_tokens": 8},
    {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0},
    {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "min_new_tokens": 0},
    {"suppress_tokens": [3, 4], "bad_words_ids": [[3], [4, 5]], "sequence_bias": [[[3, 4], -1.5]]},
    {"num_return_sequences": 1, "return_dict_in_generate": False, "num_beam_groups": None},
    {"exponential_decay_length_penalty": [3, 1.1], "forced_eos_token_id": 1},
    {"generation_config": GenerationConfig(num_beams=2), "logits_processor": []},
)
WRONG = (
    ({"num_beams": 0}, "num_beams is 0: use a whole number of at least 1"),
    ({"num_beams": True}, "num_beams is True"),
    ({"num_beams": "4"}, "num_beams is '4'"),
    ({"num_beans": 2}, "Did you mean 'num_beams'?"),
    ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    ({"max_length": 1}, "max_length is 1"),
    ({"do_sample": True, "temperature": 0.0}, "temperature is 0.0: use a number greater than 0"),
    ({"temperature": 0.5}, "`do_sample` is not set to `True`"),
    ({"do_sample": True, "top_p": 1.5}, "top_p is 1.5"),
    ({"length_penalty": 2.0}, "beam-based generation"),
    ({"num_beams": 2, "length_penalty": float("nan")}, "length_penalty is nan"),
    ({"early_stopping": "always", "num_beams": 2}, "early_stopping is 'always'"),
    ({"num_return_sequences": 2, "num_beams": 2}, "umie supports only 1"),
    ({"return_dict_in_generate": True}, "umie supports only False"),
    ({"penalty_alpha": 0.6}, "umie does not support penalty_alpha"),  # its code is downloaded from the hub
    ({"custom_generate": "nobody/code"}, "Unknown option"),
    ({"trust_remote_code": True}, "Unknown option"),
    ({"stop_strings": ["a"]}, "umie does not support stop_strings"),
    ({"bad_words_ids": [[]]}, "bad_words_ids is []"),
    ({"suppress_tokens": 3}, "use a list of token ids"),
    ({"suppress_tokens": [-3]}, "suppress_tokens is -3"),
    ({"sequence_bias": {"a": 1}}, "sequence_bias is 'a'"),
    ({"exponential_decay_length_penalty": [1]}, "the first token and a factor"),
    ({"cache_implementation": "paged"}, "cache_implementation is 'paged'"),
    ({"generation_config": {"num_beams": 2}}, "use a GenerationConfig of transformers"),
)


@pytest.mark.parametrize("options", FITTING, ids=str)
def test_options_that_fit_are_accepted(options):
    check_generation_options(options)


@pytest.mark.parametrize(("options", "expected"), WRONG, ids=lambda value: str(value)[:40])
def test_other_options_are_reported_in_one_line(options, expected):
    with pytest.raises(UmieError) as caught:
        check_generation_options(options, "evaluation.generation")
    assert expected in str(caught.value)
    assert "evaluation.generation" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CHECKS)
def test_any_value_is_accepted_or_reported(name):
    for value in ([], {}, object(), "", [[None]], -1, float("inf"), 10**30, [{}]):
        try:
            check_generation_options({name: value})
        except UmieError as error:
            assert "\n" not in str(error)


def test_objects_are_no_values_of_a_config():
    with pytest.raises(UmieError, match="Unknown option"):
        check_generation_options({"logits_processor": []}, objects=False)
