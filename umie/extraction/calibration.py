"""Whether the probabilities of items are what they say: of items with probability p, a share of p is right."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from umie.errors import UmieError
from umie.extraction.extractor import Extractor
from umie.records import Record, is_no_relation
from umie.scoring import strict_sheet
from umie.tasks.base import tempered

NUM_BINS = 10
NUM_FOLDS = 5
MAX_TEMPERATURE = 20.0


class Judged(NamedTuple):
    """An item that a model found: its probability, whether it is annotated, and the number of its record."""

    probability: float
    is_right: bool
    record: int


class Bin(NamedTuple):
    """The items whose probability is in a range: its place, from 0, their number, and what is known of them.

    These are their mean probability, the share that is right, and its 95% interval.
    """

    place: int
    number: int
    probability: float
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """How well the probabilities of a task fit the share of items that are right.

    Args:
        items: the items that were found.
        share: the share of them that is right, which is the precision.
        error: the expected calibration error: the mean distance of probability and share over ten bins of equal width,
            weighted by their items (Guo et al., 2017). ``mean`` is the mean probability.
        chance: the mean and the 95% quantile of the error of probabilities that are right, by simulation: with few
            items, it is not 0.
        temperature: what divides the log-odds, fitted to all items; further to those that the model has already.
        error_after: the error with a temperature that is fitted to the other records, over five folds.
        loss: the mean negative log likelihood before and after, with the temperatures of the folds.
        bins: those of the error.
        bins_after: the same with the temperatures of the folds.
    """

    items: int
    share: float
    mean: float
    error: float
    chance: tuple[float, float]
    temperature: float
    error_after: float
    loss: tuple[float, float]
    bins: tuple[Bin, ...]
    bins_after: tuple[Bin, ...]

    @property
    def helps(self) -> bool:
        """Whether a temperature is worth it: the error is more than chance, and less on other records with it."""
        return self.error > self.chance[1] and self.loss[1] < self.loss[0] and 0 < self.share < 1


def judged_items(
    extractor: Extractor, records: Sequence[Record], tasks: Sequence[str], on_record: Callable[[], None] | None = None
) -> dict[str, list[Judged]]:
    """Return the items that a model finds in annotated records, by task.

    An item is right if it counts in the strict F1 of its task. That a pair has no relation is no item.

    Args:
        extractor: the model.
        records: annotated records.
        tasks: the tasks.
        on_record: called after each record.

    Raises:
        UmieError: the model reports no probabilities, or a record cannot be read.
    """
    found: dict[str, list[Judged]] = {name: [] for name in tasks}
    for number, extraction in enumerate(extractor.extract_many(records, tasks=tasks)):
        for name in filter(records[number].annotated_for, tasks):
            task = extractor.processor.task(name)
            for item in task.items(extraction.record):
                probability = task.probability_of(item)
                if probability is None or is_no_relation(getattr(item, "type", "")):
                    continue
                score = strict_sheet(name, [task.with_items(extraction.record, [item])], [records[number]]).score()
                found[name].append(Judged(probability, score.true_positives > 0, number))
        if on_record is not None:
            on_record()
    if not any(found.values()):
        raise UmieError("nothing was found, or the decoder reports no probabilities: there is nothing to calibrate")
    return found


def calibrate(judged: Sequence[Judged], seed: int = 0) -> Calibration:
    """Return how well probabilities fit, and the temperature with which they fit best.

    Args:
        judged: the items of a task; at least one.
        seed: of the folds and of the simulation.
    """
    values = np.array([one.probability for one in judged])
    right = np.array([one.is_right for one in judged], dtype=float)
    records = np.array([one.record for one in judged])
    random = np.random.default_rng(seed)
    fold_of = random.integers(NUM_FOLDS, size=records.max() + 1)[records]
    after = values.copy()
    for fold in range(NUM_FOLDS):
        own = fold_of == fold
        if own.any() and not own.all():
            after[own] = _tempered(values[own], fit_temperature(values[~own], right[~own]))
    drawn = [calibration_error(values, random.random(len(values)) < values) for _ in range(1000)]
    return Calibration(
        items=len(judged),
        share=float(right.mean()),
        mean=float(values.mean()),
        error=calibration_error(values, right),
        chance=(float(np.mean(drawn)), float(np.quantile(drawn, 0.95))),
        temperature=fit_temperature(values, right),
        error_after=calibration_error(after, right),
        loss=(_loss(values, right), _loss(after, right)),
        bins=tuple(bins_of(values, right)),
        bins_after=tuple(bins_of(after, right)),
    )


def calibration_error(values: Any, right: Any) -> float:
    """Return the expected calibration error of probabilities ``[N]`` and of what is right ``[N]``, 0..1."""
    return sum(one.number * abs(one.probability - one.share) for one in bins_of(values, right)) / len(values)


def bins_of(values: Any, right: Any) -> Iterator[Bin]:
    """Yield the bins of equal width that have items; the intervals are Wilson's."""
    places = np.minimum((np.asarray(values) * NUM_BINS).astype(int), NUM_BINS - 1)
    for place in np.unique(places):
        own = places == place
        number, share = int(own.sum()), float(right[own].mean())
        z = 1.96
        middle = (share + z * z / (2 * number)) / (1 + z * z / number)
        reach = z / (1 + z * z / number) * math.sqrt(share * (1 - share) / number + z * z / (4 * number**2))
        yield Bin(int(place), number, float(values[own].mean()), share, middle - reach, middle + reach)


def fit_temperature(values: Any, right: Any) -> float:
    """Return the temperature that makes what is right most likely (Guo et al., 2017), at most 20."""
    from scipy.optimize import minimize_scalar  # here, because it is slow to import

    limit = math.log(MAX_TEMPERATURE)
    found = minimize_scalar(
        lambda log: _loss(_tempered(values, math.exp(log)), right), bounds=(-limit, limit), method="bounded"
    )
    return float(math.exp(found.x))


def _tempered(values: Any, temperature: float) -> Any:
    return np.array([tempered(value, temperature) for value in values.tolist()])


def _loss(values: Any, right: Any) -> float:
    clipped = np.clip(values, 1e-7, 1 - 1e-7)  # a sure item that is wrong costs 16, not infinity
    return float(-np.mean(right * np.log(clipped) + (1 - right) * np.log1p(-clipped)))
