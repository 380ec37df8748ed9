"""Generation options: which ones of transformers' ``generate`` umie supports, and which values they may have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from umie.errors import (
    UmieError,
    UnknownNameError,
    check_choice,
    check_flag,
    check_positive,
    check_share,
    check_whole,
    shown,
)

Check = Callable[[str, Any], None]


def _at_least(minimum: int) -> Check:
    return lambda name, value: check_whole(name, value, minimum)


def _only(plain: Any) -> Check:
    def check(name: str, value: Any) -> None:
        if type(value) is not type(plain) or value != plain:
            raise UmieError(
                f"{name} is {shown(value)}: umie supports only {plain}; use model.generate for other outputs"
            )

    return check


def _number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UmieError(f"{name} is {shown(value)}: use a number")


def _inner_share(name: str, value: Any) -> None:
    _number(name, value)
    if not 0 < value <= 1:
        raise UmieError(f"{name} is {shown(value)}: use a number > 0 and <= 1")


def _token(name: str, value: Any) -> None:
    for token in value if isinstance(value, list | tuple) and value else [value]:
        check_whole(name, token, 0)


def _tokens(name: str, value: Any) -> None:
    if not isinstance(value, list | tuple) or not value:
        raise UmieError(f"{name} is {shown(value)}: use a list of token ids")
    _token(name, value)


def _lists_of_tokens(name: str, value: Any) -> None:
    if not isinstance(value, list | tuple) or not value:
        raise UmieError(f"{name} is {shown(value)}: use a list of lists of token ids")
    for tokens in value:
        _tokens(name, tokens)


def _biases(name: str, value: Any) -> None:
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    is_pairs = isinstance(pairs, list | tuple) and pairs and all(isinstance(one, list | tuple) for one in pairs)
    if not is_pairs or any(len(one) != 2 for one in pairs):
        raise UmieError(f"{name} is {shown(value)}: use a list of pairs of token ids and a number")
    for tokens, bias in pairs:
        _tokens(name, tokens)
        _number(name, bias)


def _decay(name: str, value: Any) -> None:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise UmieError(f"{name} is {shown(value)}: use a list of the first token and a factor")
    check_whole(name, value[0], 0)
    _number(name, value[1])


def _early_stopping(name: str, value: Any) -> None:
    if value != "never":
        check_flag(name, value)


def _cache(name: str, value: Any) -> None:
    check_choice(name, value, ("dynamic", "static"))


CHECKS: Mapping[str, Check] = {
    **dict.fromkeys(("num_beams", "max_new_tokens"), _at_least(1)),
    "max_length": _at_least(2),  # with the start token
    **dict.fromkeys(
        ("min_length", "min_new_tokens", "top_k", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"), _at_least(0)
    ),
    **dict.fromkeys(
        ("do_sample", "use_cache", "renormalize_logits", "remove_invalid_values", "disable_compile"), check_flag
    ),
    **dict.fromkeys(("temperature", "repetition_penalty", "encoder_repetition_penalty", "max_time"), check_positive),
    **dict.fromkeys(("top_p", "top_h", "typical_p"), _inner_share),
    **dict.fromkeys(("min_p", "epsilon_cutoff", "eta_cutoff"), check_share),
    "length_penalty": _number,
    "early_stopping": _early_stopping,
    "cache_implementation": _cache,
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id"), _token),
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens"), _tokens),
    "bad_words_ids": _lists_of_tokens,
    "sequence_bias": _biases,
    "exponential_decay_length_penalty": _decay,
    **dict.fromkeys(("num_return_sequences", "num_beam_groups"), _only(1)),
    **dict.fromkeys(
        ("return_dict_in_generate", "output_scores", "output_logits", "output_attentions", "output_hidden_states"),
        _only(False),
    ),
}
"""The options that a config can have. Others need objects, a tokenizer, another model or code from the network."""

OBJECTS = ("generation_config", "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "synced_gpus",
           "jump_forward")  # fmt: skip
"""Further arguments of ``generate``, which only a caller in Python can pass."""


def check_generation_options(options: Mapping[str, Any], owner: str = "generation", *, objects: bool = True) -> None:
    """Check the options of ``generate`` before anything is loaded.

    Args:
        options: the options by name; None leaves an option unset.
        owner: the term for the options in messages.
        objects: whether they come from Python and may be objects; see ``OBJECTS``.

    Raises:
        UmieError: an option is unknown or not supported, a value is not allowed, or an option has no effect together
            with the others.
    """
    from transformers import GenerationConfig

    known = [*CHECKS, *(OBJECTS if objects else ())]
    of_transformers = GenerationConfig().to_dict()
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if name in OBJECTS and objects:
            continue
        if name not in CHECKS:
            if name in of_transformers:
                raise UmieError(f"{owner}: umie does not support {name}: remove it, or use model.generate")
            raise UnknownNameError(f"option in {owner}:", name, known)
        try:
            CHECKS[name](name, value)
        except UmieError as error:
            raise UmieError(f"{owner}: {error}") from error
    config = given.get("generation_config")
    if config is not None and not isinstance(config, GenerationConfig):
        raise UmieError(f"{owner}: generation_config is {shown(config)}: use a GenerationConfig of transformers")
    try:
        checked = GenerationConfig()
        for name in CHECKS.keys() & given.keys():  # the constructor would log what validate raises
            setattr(checked, name, given[name])
        checked.validate(strict=True)
    except (ValueError, TypeError) as error:
        lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
        found = [line for line in lines if not line.startswith(("GenerationConfig is invalid", "If you're using"))]
        raise UmieError(f"{owner}: {' '.join(found)}") from error
