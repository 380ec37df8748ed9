"""Step time and peak memory of training a composed variant, compared with plain T5 on the same text.

A step is forward, backward and AdamW's update. The variant takes cached features of 37 slots x 2,048; the plain T5 is
that of transformers, with the same weights, texts and labels. Before timing, the variant without an image must give
the loss and gradients of the plain T5, and with an image every parameter must have a gradient.

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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the folder of language.py

import language as shared

from umie.bench.measure import peak_bytes

MOST_TIME = 1.15
PLAIN = "plain T5"
TOLERANCE = 1e-5


class Training:
    """A model, its optimizer and its batch."""

    def __init__(self, model: Any, given: dict[str, Any], cast: Callable[[], AbstractContextManager[Any]]) -> None:
        self.model, self.given, self.cast = model, given, cast
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)  # as in the Trainer

    def gradients(self) -> Tensor:
        """Compute gradients and return the loss."""
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
        """Return the size of the weights and the optimizer's state."""
        kept = [value for state in self.optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
        return sum(tensor.numel() * tensor.element_size() for tensor in [*self.model.parameters(), *kept])


def check(model: Any, plain_t5: Any, text: dict[str, Any], visual: Any, cast: Any) -> None:
    """Compare the variant without an image with the plain T5, and check the gradients with an image."""
    own, plain, with_image = (
        Training(one, given, cast)
        for one, given in ((model, text), (plain_t5, text), (model, {**text, "visual": visual}))
    )
    difference = abs(float(own.gradients() - plain.gradients()))
    assert difference <= TOLERANCE, f"the losses differ by {difference:.1e}"
    found, expected = (one.shared.weight.grad for one in (model.decoder.seq2seq, plain_t5))
    error = float((found - expected).norm() / expected.norm())
    assert error <= TOLERANCE, f"the gradients of the embedding differ by {error:.1e}"
    for one in (model, plain_t5):
        one.zero_grad(set_to_none=True)
    with_image.gradients()
    missing = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    missing = [name for name in missing if not name.endswith("relative_attention_bias.weight")]
    assert not missing, f"no gradient reaches {missing[0]}"
    model.zero_grad(set_to_none=True)


def main() -> None:
    """Measure, print and write."""
    parser = shared.arguments(__doc__ or "", batch=8, tokens=64)
    parser.add_argument("--targets", type=int, default=16, help="tokens of an answer (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="bfloat16 uses autocast")
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    options = parser.parse_args()
    where = shared.prepare(options)
    model = shared.variant(options)
    reference = shared.plain_t5(model, shared=False)
    text = shared.batch(options, model.decoder.vocab_size or 0, options.targets)
    visual = shared.features(options)

    def cast() -> AbstractContextManager[Any]:
        if options.dtype == "float32":
            return nullcontext()
        return torch.autocast(torch.device(options.device).type, torch.bfloat16)

    check(model, reference, text, visual, cast)
    shared.say("checked: the loss and gradients of the plain T5 without an image, all gradients with one")
    del reference
    ours = f"umie, {options.fusion}"
    trained: dict[str, tuple[nn.Module, dict[str, Any]]] = {
        PLAIN: (shared.plain_t5(model, shared=False), text),
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
        f"Forward, backward and AdamW's update in {options.dtype}: {options.size}, {shape}, cached features of "
        f"{options.slots} slots x {options.feature_dim}. MiB held: weights and optimizer state; peaks, with the "
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
        shared.say(f"peak above the memory held: {peaks[0] / peaks[1]:.3f} of plain T5's")


if __name__ == "__main__":
    shared.run(main)
