"""Mixtures: the order in which the queries of one or several data sets are trained on, determined by a seed."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Sampler

from umie.errors import UmieError, check_choice, check_positive
from umie.training.config import STRATEGIES

WINDOW = 32  # number of batches within which queries are grouped by length


class Mixture(ConcatDataset[dict[str, Tensor]]):
    """Several data sets as one, each with its share in training.

    Args:
        sources: name, encoded queries (see QueryDataset) and weight of each data set.
        strategy: ``proportional`` draws every query once per pass or, if the weights differ, a source in proportion to
            weight times size; ``equal`` in proportion to its weight; ``temperature`` in proportion to weight times size
            to the power of ``1 / temperature``.
        temperature: 1 is proportional; larger values approach equal shares.

    Attributes:
        names: the names of the sources.
        probabilities: the probability of drawing from each source.
        lengths: the number of input tokens of each query.
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
        self._is_plain = strategy == "proportional" and len({weight for _, _, weight in sources}) == 1

    def source_of(self, index: int) -> str:
        """Return the name of the source of a query."""
        return self.names[bisect.bisect_right(self.cumulative_sizes, index)]

    def place_of(self, index: int) -> tuple[Any, int]:
        """Return the data set of a query, and its index in it."""
        number = bisect.bisect_right(self.cumulative_sizes, index)
        return self.datasets[number], index - [0, *self.cumulative_sizes][number]

    def stream(self, seed: int) -> Iterator[int]:
        """Yield indices endlessly; each pass over a source has a new random order."""
        generator = torch.Generator().manual_seed(seed)
        if self._is_plain:
            yield from _passes(len(self), 0, generator)
        seeds = torch.randint(0, 2**62, (len(self.names),), generator=generator).tolist()
        starts = [0, *self.cumulative_sizes[:-1]]
        streams = [
            _passes(end - start, start, torch.Generator().manual_seed(own))
            for start, end, own in zip(starts, self.cumulative_sizes, seeds, strict=True)
        ]
        probabilities = torch.tensor(self.probabilities, dtype=torch.float64)
        while True:
            for source in torch.multinomial(probabilities, 4096, replacement=True, generator=generator).tolist():
                yield next(streams[source])


class RunSampler(Sampler[int]):
    """The indices of a run, ``batch_size`` per step. The queries of a step depend only on the seed and the step.

    With ``group_by_length``, queries of similar length are in the same step.
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
        """Return the indices of a step; the first step is 0."""
        return next(itertools.islice(self.batches(), step, None))


def as_mixture(dataset: Dataset[Any]) -> Mixture:
    """Return a data set as a mixture with a single source; a mixture is returned unchanged."""
    return dataset if isinstance(dataset, Mixture) else Mixture([("data", dataset, 1.0)])


def _passes(size: int, start: int, generator: torch.Generator) -> Iterator[int]:
    """Yield ``start`` to ``start + size - 1`` repeatedly, each time in a new random order."""
    while True:
        for index in torch.randperm(size, generator=generator).tolist():
            yield start + index
