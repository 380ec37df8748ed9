"""Tokens per second of generation with a composed variant, compared with transformers' T5 and with no cache.

All rows have the same weights and generate the same number of tokens. Before timing, the tokens must be equal: of the
variant without an image and the plain T5; of the variant with an image and the plain T5 over the same fused states; and
of decoding with and without a cache. The logits of a given answer must be equal too.

An idle machine, FLAN-T5 base:  python benchmarks/generation/tokens.py
A minute:  python benchmarks/generation/tokens.py --size flan-t5-small --batch 2 --new-tokens 16 --rounds 3
A GPU:  python benchmarks/generation/tokens.py --device cuda --batch 32 --new-tokens 128
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the folder of language.py

import language as shared
from transformers.modeling_outputs import BaseModelOutput

MOST_TIME = 1.05
TOLERANCE = 1e-5
PLAIN, PLAIN_FUSED = "plain T5, text only", "plain T5, from fused states"
TEXT, IMAGE = "umie, text only", "umie, text and image"
FUSED, NO_CACHE = "umie, from fused states", "umie, text and image, no cache"
EQUAL = [(TEXT, PLAIN), (IMAGE, PLAIN_FUSED), (FUSED, PLAIN_FUSED), (IMAGE, NO_CACHE)]


def check(found: dict[str, Tensor], num_tokens: int) -> None:
    """Check that the rows generate equal tokens."""
    for one, other in EQUAL:
        if one not in found or other not in found:
            continue
        assert found[one].shape[1] == num_tokens + 1, f"{one}: {found[one].shape[1] - 1} tokens, not {num_tokens}"
        equal = torch.equal(found[one], found[other])
        assert equal, f"{one} and {other} differ in {int((found[one] != found[other]).sum())} tokens"


def check_logits(one: Tensor, other: Tensor, what: str) -> None:
    """Compare logits: with random weights, different models may choose the same tokens."""
    error = float((one - other).norm() / other.norm())
    assert error <= TOLERANCE, f"{what}: the logits differ by {error:.1e}"


def main() -> None:
    """Measure, print and write the report."""
    parser = shared.arguments(__doc__ or "", batch=8, tokens=64)
    parser.add_argument("--new-tokens", type=int, default=32, help="tokens of an answer (default: %(default)s)")
    parser.add_argument("--num-beams", type=int, default=1, help="1 is greedy (default: %(default)s)")
    parser.add_argument("--no-uncached", action="store_true", help="skip decoding without a cache, which is slow")
    options = parser.parse_args()
    where = shared.prepare(options)
    model = shared.variant(options)
    plain_t5 = shared.plain_t5(model, shared=True)
    text = shared.batch(options, model.decoder.vocab_size or 0, options.new_tokens)
    answer = text.pop("labels")
    visual = shared.features(options)
    with torch.no_grad():
        fused, _, _ = model.fuse(**text, visual=visual)
    # no answer may end early: all rows generate as many tokens
    how = {"max_new_tokens": options.new_tokens, "min_new_tokens": options.new_tokens, "num_beams": options.num_beams}

    def from_fused() -> Tensor:
        # generate may modify its inputs
        states = BaseModelOutput(last_hidden_state=fused.states)
        found: Tensor = plain_t5.generate(encoder_outputs=states, attention_mask=fused.mask.long(), **how)
        return found

    runs = {
        PLAIN: lambda: plain_t5.generate(**text, **how),
        TEXT: lambda: model.generate(**text, **how),
        IMAGE: lambda: model.generate(**text, visual=visual, **how),
        PLAIN_FUSED: from_fused,
        FUSED: lambda: model.decoder.generate(fused, **how),
    }
    if not options.no_uncached:
        runs[NO_CACHE] = lambda: model.generate(**text, visual=visual, use_cache=False, **how)
    with torch.no_grad():
        own, plain = (one(**text, decoder_input_ids=answer).logits for one in (model, plain_t5))
        check_logits(own, plain, "text only")
        plain = plain_t5(
            encoder_outputs=BaseModelOutput(last_hidden_state=fused.states),
            attention_mask=fused.mask.long(),
            decoder_input_ids=answer,
        ).logits
        check_logits(model(**text, visual=visual, decoder_input_ids=answer).logits, plain, "text and image")
        check({name: run() for name, run in runs.items()}, options.new_tokens)
    shared.say("checked: equal tokens and logits")
    rows = {name: shared.Measured() for name in runs}
    with torch.no_grad():
        complete = shared.time_all(runs, rows, options)
    beams = "greedy" if options.num_beams == 1 else f"{options.num_beams} beams"
    shared.report(
        "Generation",
        f"{options.size}, float32, {beams}: {options.batch} texts of {options.tokens // 2} to {options.tokens} tokens, "
        f"{options.new_tokens} new tokens each, cached features of {options.slots} slots x {options.feature_dim}. "
        "Rows from fused states time only the decoder.",
        rows,
        [
            shared.Bound(IMAGE, PLAIN, MOST_TIME),
            shared.Bound(TEXT, PLAIN, MOST_TIME),
            shared.Bound(FUSED, PLAIN_FUSED, MOST_TIME),
            shared.Bound(NO_CACHE, IMAGE),
        ],
        options,
        where,
        num_items=options.batch * options.new_tokens,
        item="tokens",
        complete=complete,
    )


if __name__ == "__main__":
    shared.run(main)
