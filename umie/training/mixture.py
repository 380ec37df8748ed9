"""Mixtures: the order in which the queries of one or several data sets are trained on, a function of a seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence, Sized
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Sampler

from umie.errors import UmieError, check_choice, check_positive
from umie.training.config import STRATEGIES

WINDOW = 32  # batches among which queries of like length are put together


class Queries(Sized, Protocol):
    """A data set of encoded queries that tells their lengths."""

    lengths: Sequence[int]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return the tensors of a query."""


class Mixture(ConcatDataset[dict[str, Tensor]]):
    """Several data sets as one, with the share that each has in the training.

    Args:
        sources: for each its name, its encoded queries and its weight.
        strategy: ``proportional`` draws every query once a pass; with weights that differ, a source as often as
            weight times size. ``equal`` draws sources in turn of their weights, whatever their size. ``temperature``
            goes between the two: by weight times size to the power of ``1 / temperature``.
        temperature: 1 is proportional; the higher, the more equal.

    Attributes:
        names: of the sources.
        probabilities: of drawing from each source.
        lengths: input tokens of each query.
    """

    def __init__(
        self,
        sources: Sequence[tuple[str, Any, float]],
        strategy: str = "proportional",
        temperature: float = 2.0,
    ) -> None:
        check_choice("strategy", strategy, STRATEGIES)
        check_positive("temperature", temperature)
        if not sources:
            raise UmieError("a mixture needs at least one data set")
        for name, _, weight in sources:
            check_positive(f"weight of {name}", weight)
        super().__init__([dataset for _, dataset, _ in sources])
        self.names = [name for name, _, _ in sources]
        self.lengths: list[int] = list(itertools.chain.from_iterable(dataset.lengths for _, dataset, _ in sources))
        exponent = {"proportional": 1.0, "equal": 0.0, "temperature": 1 / temperature}[strategy]
        shares = [weight * len(dataset) ** exponent for _, dataset, weight in sources]
        self.probabilities = [share / sum(shares) for share in shares]
        self._sizes = [len(dataset) for _, dataset, _ in sources]
        self._is_plain = strategy == "proportional" and len({weight for _, _, weight in sources}) == 1

    def source_of(self, index: int) -> str:
        """Return the name of the source that a query is of."""
        return self.names[next(number for number, end in enumerate(self.cumulative_sizes) if index < end)]

    def place_of(self, index: int) -> tuple[Any, int]:
        """Return the data set that a query is of, and its index there."""
        number = next(number for number, end in enumerate(self.cumulative_sizes) if index < end)
        return self.datasets[number], index - (self.cumulative_sizes[number] - self._sizes[number])

    def stream(self, seed: int) -> Iterator[int]:
        """Yield indices without end: each source in a new random order in every pass over it."""
        generator = torch.Generator().manual_seed(seed)
        if self._is_plain:
            yield from _passes(len(self), 0, generator)
        starts = [end - size for end, size in zip(self.cumulative_sizes, self._sizes, strict=True)]
        seeds = torch.randint(0, 2**62, (len(starts),), generator=generator).tolist()
        streams = [
            _passes(size, start, torch.Generator().manual_seed(own))
            for size, start, own in zip(self._sizes, starts, seeds, strict=True)
        ]
        probabilities = torch.tensor(self.probabilities, dtype=torch.float64)
        while True:
            for source in torch.multinomial(probabilities, 4096, replacement=True, generator=generator).tolist():
                yield next(streams[source])


class RunSampler(Sampler[int]):
    """The indices of a whole run, batch after batch: what a step trains on depends on seed and step alone.

    Args:
        mixture: what is drawn from.
        num_steps: optimizer steps.
        batch_size: queries a step.
        seed: of the order.
        group_by_length: put queries of like length into one batch.
    """

    def __init__(
        self, mixture: Mixture, num_steps: int, batch_size: int, seed: int, *, group_by_length: bool = False
    ) -> None:
        self.mixture, self.num_steps, self.batch_size, self.seed = mixture, num_steps, batch_size, seed
        self.group_by_length = group_by_length

    def __len__(self) -> int:
        return self.num_steps * self.batch_size

    def __iter__(self) -> Iterator[int]:
        return itertools.chain.from_iterable(self.batches())

    def batches(self) -> Iterator[list[int]]:
        """Yield the indices of each step."""
        stream = self.mixture.stream(self.seed)
        generator = torch.Generator().manual_seed(self.seed + 1)
        left = self.num_steps
        while left:
            count = min(WINDOW, left)
            left -= count
            window = list(itertools.islice(stream, count * self.batch_size))
            order = list(range(count))
            if self.group_by_length:
                window.sort(key=lambda index: self.mixture.lengths[index])  # stable: ties stay in random order
                order = torch.randperm(count, generator=generator).tolist()
            for number in order:
                yield window[number * self.batch_size : (number + 1) * self.batch_size]

    def batch(self, step: int) -> list[int]:
        """Return the indices of one step, counted from 0."""
        return next(itertools.islice(self.batches(), step, None))


def as_mixture(dataset: Dataset[Any]) -> Mixture:
    """Return a data set as a mixture of itself alone."""
    return dataset if isinstance(dataset, Mixture) else Mixture([("data", dataset, 1.0)])


def _passes(size: int, start: int, generator: torch.Generator) -> Iterator[int]:
    """Yield ``start`` to ``start + size - 1`` again and again, each time in a new order."""
    while True:
        for index in torch.randperm(size, generator=generator).tolist():
            yield start + index
