"""Inputs of a benchmark: the widths of FLAN-T5, a batch size, lengths of real texts, and random states.

Shapes: B batch, T text tokens, V visual slots, D model width, H heads, d head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from umie import tasks
from umie.errors import UmieError, UnknownNameError
from umie.records import read_jsonl

SIZES = {  # d_model, num_heads, head_dim, d_ff of the FLAN-T5 checkpoints
    "small": (512, 6, 64, 1024),
    "base": (768, 12, 64, 2048),
    "large": (1024, 16, 64, 2816),
    "xl": (2048, 32, 64, 5120),
}
NUM_SLOTS = 37
MAX_RECORDS = 5_000  # enough for a distribution of lengths


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One shape of the inputs, dense (every token and slot is real) or ragged.

    In a ragged one, texts and slot lists have different lengths, padded to T and V, and one example has no image.
    """

    size: str  # a key of SIZES
    batch: int
    tokens: int
    slots: int = NUM_SLOTS
    ragged: bool = False

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise UnknownNameError("size", self.size, SIZES)
        for name in ("batch", "tokens", "slots"):
            if getattr(self, name) < 1:
                raise UmieError(f"{name} is {getattr(self, name)}: use 1 or more")

    @property
    def widths(self) -> dict[str, int]:
        """The options of a fusion: ``d_model``, ``num_heads``, ``head_dim``, ``d_ff``."""
        return dict(zip(("d_model", "num_heads", "head_dim", "d_ff"), SIZES[self.size], strict=True))

    def __str__(self) -> str:
        d_model, num_heads, _, _ = SIZES[self.size]
        kind = "ragged" if self.ragged else "dense"
        return f"{self.size} B={self.batch} T={self.tokens} V={self.slots} D={d_model} H={num_heads} {kind}"


@dataclass(frozen=True)
class Inputs:
    """Random states of one shape."""

    text: Tensor  # [B, T, D]
    text_mask: Tensor  # bool [B, T], True = real
    visual: Tensor  # [B, V, D]
    visual_mask: Tensor  # bool [B, V], True = real
    grad: Tensor  # [B, T, D], the gradient passed to backward; 0 at padding


def draw(
    shape: Shape, *, device: str, dtype: torch.dtype, lengths: Sequence[int] | None = None, seed: int = 0
) -> Inputs:
    """Return random inputs. For one seed they are the same on every device, up to the precision of ``dtype``.

    Ragged texts have lengths sampled from ``lengths`` (in tokens), cut at T; by default from T/8 to T.
    """
    generator = torch.Generator().manual_seed(seed)
    batch, tokens, slots, width = shape.batch, shape.tokens, shape.slots, shape.widths["d_model"]
    text, visual, grad = (torch.randn(batch, number, width, generator=generator) for number in (tokens, slots, tokens))
    text_mask, visual_mask = torch.ones(batch, tokens).bool(), torch.ones(batch, slots).bool()
    if shape.ragged:
        choices = torch.tensor(list(lengths) if lengths else list(range(max(1, tokens // 8), tokens + 1)))
        drawn = choices[torch.randint(len(choices), (batch,), generator=generator)].clamp(1, tokens)
        num_slots = torch.randint(1, slots + 1, (batch,), generator=generator)
        if batch > 1:
            num_slots[-1] = 0  # an example without an image
        text_mask = torch.arange(tokens) < drawn[:, None]
        visual_mask = torch.arange(slots) < num_slots[:, None]
        grad = grad * text_mask[..., None]
    text, visual, grad = (value.to(device, dtype) for value in (text, visual, grad))
    return Inputs(text, text_mask.to(device), visual, visual_mask.to(device), grad)


def read_lengths(path: Path) -> list[int]:
    """Return the number of tokens (instruction and text) of each query about the records of a JSONL file.

    They are counted with the tokenizer of the embedded data set, which needs no download.

    Raises:
        UmieError: the file cannot be read or yields no query.
    """
    from umie.composition import default_tokenizer

    tokenizer = default_tokenizer({"source": "tiny"})
    built = {name: tasks.registry.build(name) for name in tasks.ordered()}
    texts = [
        f"{query.instruction} {record.text}".rstrip()
        for record in islice(read_jsonl(path), MAX_RECORDS)
        for name, task in built.items()
        if record.annotated_for(name)
        for query in task.queries(record)
    ]
    if not texts:
        raise UmieError(f"{path}: no record yields a query: use records that are annotated for a task")
    return [len(token_ids) for token_ids in tokenizer(texts)["input_ids"]]
