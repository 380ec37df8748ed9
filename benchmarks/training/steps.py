"""Step time and peak memory of training a composed variant, beside plain T5 training on the same text.

A step is forward, backward and AdamW's step. The variant takes cached features of 37 slots x 2,048; the plain T5 is
transformers' own, with the same weights, texts and labels. Before anything is timed, the variant without an image
must give the plain T5's loss and gradients, and with one every part of it must have a gradient.

An idle machine, FLAN-T5 base:  python benchmarks/training/steps.py
A minute:  python benchmarks/training/steps.py --size flan-t5-small --batch 4 --tokens 32 --rounds 3
A GPU:  python benchmarks/training/steps.py --device cuda --dtype bfloat16 --batch 32
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where language.py lies

import language as shared

from umie.bench.memory import peak_bytes

MOST_TIME = 1.15
TEXT_ALONE, PLAIN = "umie, text alone", "plain T5"
TOLERANCE = 1e-5


class Training:
    """A model, its optimizer and its batch."""

    def __init__(self, model: Any, given: dict[str, Any], cast: Callable[[], AbstractContextManager[Any]]) -> None:
        self.model, self.given, self.cast = model, given, cast
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)  # as the Trainer takes it

    def gradients(self) -> Tensor:
        """Leave gradients behind, and return the loss."""
        with self.cast():
            loss: Tensor = self.model(**self.given).loss
        loss.backward()
        return loss.detach()

    def step(self) -> None:
        """Take one step."""
        self.gradients()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def held_bytes(self) -> int:
        """Return the bytes of weights and of what the optimizer keeps."""
        kept = [value for state in self.optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
        return sum(tensor.numel() * tensor.element_size() for tensor in [*self.model.parameters(), *kept])


def check(model: Any, twin: Any, text: dict[str, Any], visual: Any, cast: Any) -> None:
    """Hold the variant without an image against the plain T5, and see that the image counts with one."""
    own, plain, with_image = (
        Training(one, given, cast) for one, given in ((model, text), (twin, text), (model, {**text, "visual": visual}))
    )
    difference = abs(float(own.gradients() - plain.gradients()))
    assert difference <= TOLERANCE, f"the losses differ by {difference:.1e}"
    found, expected = (one.shared.weight.grad for one in (model.decoder.seq2seq, twin))
    error = float((found - expected).norm() / expected.norm())
    assert error <= TOLERANCE, f"the gradients of the embedding differ by {error:.1e}"
    for one in (model, twin):
        one.zero_grad(set_to_none=True)
    with_image.gradients()
    lacking = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    lacking = [name for name in lacking if not name.endswith("relative_attention_bias.weight")]
    assert not lacking, f"no gradient reaches {lacking[0]}"
    model.zero_grad(set_to_none=True)


def main() -> None:
    """Measure, print and write."""
    parser = shared.arguments(__doc__ or "", batch=8, tokens=64)
    parser.add_argument("--targets", type=int, default=16, help="tokens of an answer (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="bfloat16: by autocast")
    parser.add_argument("--no-memory", action="store_true", help="leave peaks of memory out")
    options = parser.parse_args()
    where = shared.prepare(options)
    model = shared.variant(options)
    twin = shared.plain_twin(model, shared=False)
    text = shared.batch(options, model.decoder.vocab_size or 0, options.targets)
    visual = shared.features(options)

    def cast() -> AbstractContextManager[Any]:
        if options.dtype == "float32":
            return nullcontext()
        return torch.autocast(torch.device(options.device).type, torch.bfloat16)

    check(model, twin, text, visual, cast)
    shared.say("right: the loss and gradients of the plain T5 without an image, gradients everywhere with one")
    del twin
    ours = f"umie, {options.fusion}"
    trained: dict[str, tuple[nn.Module, dict[str, Any]]] = {
        PLAIN: (shared.plain_twin(model, shared=False), text),
        ours: (model, {**text, "visual": visual}),
    }
    rows = {name: shared.Measured() for name in trained}
    runs = {}
    for name, (one, given) in trained.items():
        one.train()  # dropout, as in training
        runs[name] = Training(one, given, cast)
    complete = shared.time_all({name: run.step for name, run in runs.items()}, rows, options)
    if complete and not options.no_memory:
        for name, run in runs.items():
            rows[name].held_bytes = run.held_bytes()
            rows[name].peak_bytes = peak_bytes(run.step, options.device)
    shape = f"{options.batch} texts of {options.tokens // 2} to {options.tokens} tokens, answers of {options.targets}"
    shared.report(
        "Training steps",
        f"Forward, backward and AdamW's step in {options.dtype}: {options.size}, {shape}, cached features of "
        f"{options.slots} slots x {options.feature_dim}. MiB held are weights and the optimizer's; peaks, with the "
        "gradients, are above that.",
        rows,
        [shared.Bound(ours, PLAIN, MOST_TIME)],
        options,
        where,
        num_items=options.batch,
        item="texts",
        complete=complete,
    )
    peaks = [rows[name].peak_bytes for name in (ours, PLAIN)]
    if peaks[0] and peaks[1]:
        shared.say(f"peak above what is held: {peaks[0] / peaks[1]:.3f} of plain T5's")


if __name__ == "__main__":
    shared.run(main)
