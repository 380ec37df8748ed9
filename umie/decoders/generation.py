"""Generate with transformers' models over fused states: the effective options, and constraints on the answers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from umie.decoders import jump_forward as _jump_forward
from umie.errors import UmieError

# values with which decoding is plain greedy; None counts as unset
_PLAIN = {
    "num_beams": 1, "do_sample": False, "use_cache": True, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0,
    "min_length": 0, "num_return_sequences": 1, "num_beam_groups": 1, "return_dict_in_generate": False,
    "encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0, "remove_invalid_values": False,
    "output_scores": False, "output_logits": False, "output_attentions": False, "output_hidden_states": False,
}  # fmt: skip
# options that must be unset in plain greedy decoding
_UNSET = (
    "min_new_tokens", "bad_words_ids", "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens",
    "begin_suppress_tokens", "sequence_bias", "exponential_decay_length_penalty", "guidance_scale", "stop_strings",
    "prompt_lookup_num_tokens", "penalty_alpha", "constraints", "force_words_ids", "watermarking_config",
)  # fmt: skip


def generate(
    model: Any,
    inputs: Mapping[str, Tensor],
    constraint: Any = None,
    *,
    make_steps: Callable[[], _jump_forward.Steps] | None = None,
    **options: Any,
) -> Any:
    """Generate token ids with transformers' ``generate``: greedy, beams, sampling; see ``GeneratingDecoder.generate``.

    Args:
        model: a generating model of transformers.
        inputs: what it generates from: ``encoder_outputs`` to attend over, or ``inputs_embeds`` to continue; and their
            ``attention_mask [B, N]``.
        constraint: see ``GeneratingDecoder.generate``.
        make_steps: creates the model's ``Steps``, with which plain greedy decoding under a constraint jumps forward.
        options: options of transformers' generate.

    Returns:
        Token ids ``[B, L]``, or transformers' output object if the options request one.
    """
    mask = inputs["attention_mask"]
    continues = "inputs_embeds" in inputs  # then transformers returns answers without a start token
    if constraint is not None or continues:
        config = effective_options(model.generation_config, options)
        limit: Any = max_new_tokens_of(config, options)
        if constraint is not None:
            limit = constraint.restart(len(mask), limit, num_start_tokens=0 if continues else 1)
        config.max_length, config.max_new_tokens = None, limit
        options = {name: value for name, value in options.items() if not hasattr(config, name)}
        options.pop("generation_config", None)
        is_plain = _is_plain_greedy(config) and not options and not torch.is_autocast_enabled(mask.device.type)
        if constraint is not None and make_steps is not None and is_plain:
            start, pad = model.config.decoder_start_token_id, model.config.pad_token_id
            with torch.no_grad():
                found = _jump_forward.generate(make_steps(), constraint.automata, start, pad, limit)
            return found.to(mask.device)
        options["generation_config"] = config
        if constraint is not None:
            options["logits_processor"] = [*(options.get("logits_processor") or ()), constraint]
    generated = model.generate(**inputs, **options)
    if not continues:
        return generated
    tokens = generated if isinstance(generated, Tensor) else generated.sequences
    tokens = torch.cat([tokens.new_full((len(tokens), 1), model.generation_config.pad_token_id), tokens], dim=1)
    if isinstance(generated, Tensor):
        return tokens
    generated.sequences = tokens
    return generated


def check_limit(
    model: Any,
    constraint: Any,
    options: Mapping[str, Any],
    num_positions: int | None,
    num_other: int = 0,
    what: str = "an answer",
) -> None:
    """Raise UmieError if the new tokens that a call allows, and others, are more than the decoder has positions."""
    limit = max_new_tokens_of(effective_options(model.generation_config, options), options)
    if limit is None and constraint is not None:
        limit = constraint.max_new_tokens
    check_length(what, (limit or 0) + num_other, num_positions, "max_new_tokens")


def effective_options(own: GenerationConfig, options: Mapping[str, Any]) -> GenerationConfig:
    """Return the model's generation options with the options of a call applied."""
    config = copy.deepcopy(options.get("generation_config") or own)
    config.update(**{name: value for name, value in options.items() if name != "generation_config"})
    return config


def max_new_tokens_of(config: GenerationConfig, options: Mapping[str, Any]) -> int | None:
    """Return the number of new tokens that a call of generate allows; ``max_length`` includes the start token."""
    given = options.get("generation_config")
    if config.max_new_tokens is not None:
        return int(config.max_new_tokens)
    if options.get("max_length") is not None or (given is not None and given.max_length is not None):
        return int(config.max_length) - 1
    return None


def _is_plain_greedy(config: GenerationConfig) -> bool:
    """Return whether each step just takes the most probable token."""
    known = config.to_dict()
    plain = all(known.get(name) in (None, value) for name, value in _PLAIN.items())
    return plain and not any(known.get(name) is not None for name in _UNSET)


def check_length(what: str, length: int, limit: int | None, option: str) -> None:
    """Raise UmieError if a text or an answer has more tokens than the model has positions."""
    if limit is not None and length > limit:
        raise UmieError(f"{what} has {length} tokens, but the decoder has only {limit} positions: lower {option}")
