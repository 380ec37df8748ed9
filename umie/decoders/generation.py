"""Generate with transformers' models over fused states: the effective options, and constraints on the answers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from umie.decoders import jump_forward as _jump_forward
from umie.types import FusedStates

MakeSteps = Callable[[Any, FusedStates], _jump_forward.Steps]

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
    seq2seq: Any,
    fused: FusedStates,
    constraint: Any = None,
    *,
    make_steps: MakeSteps | None = None,
    **options: Any,
) -> Any:
    """Generate token ids with transformers' ``generate``: greedy, beams, sampling; see ``Decoder.generate``.

    ``make_steps`` creates the model's ``Steps``, with which plain greedy decoding under a constraint jumps forward.

    Returns:
        Token ids ``[B, L]``, or transformers' output object if the options request one.
    """
    if constraint is not None:
        config = effective_options(seq2seq.generation_config, options)
        limit = constraint.restart(len(fused.states), max_new_tokens_of(config, options))
        config.max_length, config.max_new_tokens = None, limit
        options = {name: value for name, value in options.items() if not hasattr(config, name)}
        options.pop("generation_config", None)
        if make_steps is not None and _is_plain_greedy(config) and not options and not _is_autocast(fused):
            with torch.no_grad():
                return _jump_forward.generate(
                    make_steps(seq2seq, fused),
                    constraint.automata,
                    seq2seq.config.decoder_start_token_id,
                    seq2seq.config.pad_token_id,
                    limit,
                ).to(fused.states.device)
        options |= {
            "generation_config": config,
            "logits_processor": [*(options.get("logits_processor") or ()), constraint],
        }
    return seq2seq.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=fused.states),
        attention_mask=fused.mask.long(),
        **options,
    )


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


def _is_autocast(fused: FusedStates) -> bool:
    return torch.is_autocast_enabled(fused.states.device.type)
