"""Paired comparisons of a grid's variants: with the one that has no image, and with the control of shuffled images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umie.experiments.results import COUNTS, cell_folder, read_numbers
from umie.experiments.scored_tasks import ScoredTask
from umie.experiments.summary import CellLike, GridLike

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Draws = NDArray[np.float64]

BySeed = Mapping[int, Mapping[str, Any]]
"""Counts of correct, predicted and annotated items, by seed and scored task, for each record."""

Side = tuple[str, BySeed]
"""The name of a variant, and its counts."""

ALPHA = 0.05
POWER = 0.8
RESAMPLES = 1000


@dataclass(frozen=True)
class Comparison:
    """The difference in F1 between two variants on one scored task, over the seeds and records that both have.

    The interval and p account for both sources of chance: seeds by Student's t, records by the paired bootstrap.
    """

    variant: str
    against: str
    task: str  # the title of the scored task
    num_seeds: int
    difference: float  # the mean over seeds, 0..1
    half_width: float  # of the 95% interval
    smallest: float  # the difference that a grid like this one would find in 80% of repetitions
    p: float  # two-sided
    adjusted: float = math.nan  # p, corrected for the number of comparisons (Holm)

    @property
    def is_significant(self) -> bool:
        """Whether the two variants differ, after correction for the number of comparisons."""
        return self.adjusted < ALPHA

    @property
    def verdict(self) -> str:
        """What the result supports, in words."""
        if self.is_significant:
            return "better" if self.difference > 0 else "worse"
        if self.smallest == 0:
            return "equal"
        if math.isnan(self.smallest):
            return "not distinguishable: too few records"
        return f"not distinguishable; differences below {100 * self.smallest:.1f} points would often be missed"


def counts_in(run: GridLike, output: Path) -> Mapping[str, BySeed]:
    """Return the counts of the cells in the directory of a grid that were scored, by variant."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for cell in run.cells:
        own = found.setdefault(cell.variant, {})
        line = run.results.get(cell.hash, {})
        if line.get("status") == "ok":
            counts = read_numbers(line, cell_folder(output, cell.hash) / COUNTS, depth=2)
            own |= {cell.seed: counts} if counts else {}
    return found


def compare(run: GridLike, counts: Mapping[str, BySeed]) -> list[Comparison]:
    """Compare every variant with its reference: the one without image input, and its own with shuffled images.

    Without a variant that ignores the image, the reference is the first variant. Sets that one of the two variants was
    not trained on are left out, and so are cells that have no counts (from an earlier version) or crashed.
    """
    first: dict[str, CellLike] = {}
    for cell in run.cells:
        first.setdefault(cell.variant, cell)
    compared: list[Comparison] = []
    for mine, theirs in _pairs(list(first.values())):
        both = set(mine.trained_on) & set(theirs.trained_on)
        tasks = [task for task in run.scored if task.data_set in both]
        compared += compare_sides((mine.variant, counts[mine.variant]), (theirs.variant, counts[theirs.variant]), tasks)
    return corrected(compared)


def compare_sides(mine: Side, theirs: Side, tasks: Sequence[ScoredTask]) -> list[Comparison]:
    """Compare two sides, each with its name and the counts of its seeds, on tasks for which they have the same records.

    The p of the comparisons is not corrected for their number.
    """
    found = []
    for task in tasks:
        seeds = [seed for seed in mine[1] if seed in theirs[1]]
        sheets = [[side[1][seed].get(task.key, ()) for seed in seeds] for side in (mine, theirs)]
        rows = {tuple(map(len, sheet)) for side in sheets for sheet in side}
        if seeds and len(rows) == 1 and set(*rows) == {3}:  # the same records
            found.append(_compared(mine[0], theirs[0], task.title, *sheets))
    return found


def _pairs(cells: Sequence[CellLike]) -> Iterator[tuple[CellLike, CellLike]]:
    """Yield the variants to compare with their references, given one cell of each variant."""
    blind = [cell.variant for cell in cells if not cell.uses_image]
    references = [cell for cell in cells if cell.variant in blind]
    for cell in cells:
        if 0 < len(blind) < len(cells):
            if cell.variant in blind:
                continue
            reference = next((one for one in references if _agree(one, cell)), references[0])
        else:
            reference = cells[0]
        if cell is not reference and not _is_control(reference, cell):
            yield cell, reference
    for cell in cells:
        if cell.variant not in blind:
            yield from ((cell, other) for other in cells if _is_control(cell, other))


def _is_control(cell: CellLike, other: CellLike) -> bool:
    """Return whether the other cell differs only in that its images are shuffled."""
    return _setup(cell, "shuffled") == _setup(other) != _setup(cell)


def _setup(cell: CellLike, images: str | None = None) -> dict[str, Any]:
    """Return all values of a cell but its seed, with other ``images`` if given."""
    return {**cell.setup, **({} if images is None else {"images": images})}


def _agree(reference: CellLike, cell: CellLike) -> bool:
    """Return whether a cell has the options of a reference that vary, except for the fusion."""
    return all(cell.labels.get(slot) == label for slot, label in reference.labels.items() if slot != "fusion")


def _compared(variant: str, against: str, task: str, mine: Sequence[Any], theirs: Sequence[Any]) -> Comparison:
    """Compare counts ``[records, 3]`` of both sides, one for each seed."""
    import numpy as np
    from scipy import stats

    values, resampled = [], []
    for one, other in zip(mine, theirs, strict=True):
        (f1, draws), (other_f1, other_draws) = _f1(one), _f1(other)
        values.append(f1 - other_f1)
        resampled.append(draws - other_draws)
    mean, num_seeds = statistics.mean(values), len(values)
    of_records = float(np.std(np.mean(resampled, axis=0)))
    of_seeds = statistics.stdev(values) / math.sqrt(num_seeds) if num_seeds > 1 else 0.0
    error = math.hypot(of_seeds, of_records)
    # Welch and Satterthwaite: the seeds' part has as few degrees of freedom as there are seeds, the records' part many
    freedom = (num_seeds - 1) * (error / of_seeds) ** 4 if of_seeds else math.inf
    if not of_records and mean:  # e.g. one record: nothing is known about chance
        return Comparison(variant, against, task, num_seeds, mean, math.nan, math.nan, p=1.0)
    p = float(2 * stats.t.sf(abs(mean) / error, freedom)) if error else 1.0
    quantiles = stats.t.ppf([1 - ALPHA / 2, POWER], freedom)
    half_width, smallest = float(quantiles[0] * error), float(quantiles.sum() * error)
    return Comparison(variant, against, task, num_seeds, mean, half_width, smallest, p)


def _f1(counts: Any) -> tuple[float, Draws]:
    """Return the F1 of counts ``[records, 3]``, and that of resamples of the records."""
    import numpy as np

    from umie.scoring.resampling import bootstrap_sums
    from umie.scoring.score_sheet import f1_of_sums

    sheet = np.asarray(counts, dtype=np.float64)[:, None]
    total = f1_of_sums(sheet.sum(axis=0)[None])
    return float(np.nan_to_num(total)[0]), np.nan_to_num(f1_of_sums(bootstrap_sums(sheet, RESAMPLES, 0)))


def corrected(found: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons with p adjusted by Holm's method, which controls the chance of any false finding."""
    adjusted = dict.fromkeys(range(len(found)), 1.0)
    largest = 0.0
    for rank, place in enumerate(sorted(adjusted, key=lambda place: found[place].p)):
        largest = max(largest, min(1.0, (len(found) - rank) * found[place].p))
        adjusted[place] = largest
    return [replace(one, adjusted=adjusted[place]) for place, one in enumerate(found)]
