"""Paired comparisons of a grid's variants with one of them, and with the control of shuffled images.

In a grid that varies several slots, also the effect of each option over the others, and whether effects depend on each
other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from umie.experiments.results import COUNTS, cell_folder, read_numbers
from umie.experiments.scored_tasks import ScoredTask
from umie.experiments.statistics import BySeed, Comparison, contrast, corrected, scores_of
from umie.experiments.summary import MEAN, CellLike, GridLike


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

    The reference is the variant that the grid names as ``compare_with``; if it names none and no variant ignores the
    image, the first variant. Sets that one of the two variants was not trained on are left out, and so are cells that
    have no counts (from an earlier version) or crashed.
    """
    cells = one_per_variant(run)
    pairs = dict.fromkeys((mine.variant, theirs.variant) for mine, theirs in _pairs(cells, run.compare_with))
    trained = {cell.variant: set(cell.trained_on) for cell in cells}
    found = compare_pairs(
        counts, pairs, run.scored, lambda pair, task: all(task.data_set in trained[one] for one in pair)
    )
    return corrected(found)


def compare_pairs(
    counts: Mapping[str, BySeed],
    pairs: Iterable[tuple[str, str]],
    tasks: Sequence[ScoredTask],
    is_fair: Callable[[tuple[str, str], ScoredTask], bool] = lambda pair, task: True,
) -> list[Comparison]:
    """Compare pairs of variants, given by name, on tasks; p is not corrected for the number of comparisons."""
    scores = {task.key: scores_of(counts, [task.key]) for task in tasks}
    return [
        found
        for mine, theirs in pairs
        for task in tasks
        if is_fair((mine, theirs), task)
        for found in contrast(scores[task.key], {mine: 1.0, theirs: -1.0}, (mine, theirs, task.title))
    ]


def one_per_variant(run: GridLike) -> list[CellLike]:
    """Return the first cell of each variant."""
    first: dict[str, CellLike] = {}
    for cell in run.cells:
        first.setdefault(cell.variant, cell)
    return list(first.values())


def options_by_slot(cells: Iterable[CellLike]) -> dict[str, list[str]]:
    """Return the options of the slots with several options."""
    found: dict[str, dict[str, None]] = {}
    for cell in cells:
        for slot, label in cell.options.items():
            found.setdefault(slot, {})[label] = None
    return {slot: list(own) for slot, own in found.items() if len(own) > 1}


def marginal_effects(run: GridLike, counts: Mapping[str, BySeed]) -> list[Comparison]:
    """Return the effect of each option of each slot: the mean difference to the reference's option over all others.

    The difference is between variants that have the same options in all other slots, and the same seed. Options that
    occur with fewer than two combinations of the others are left out: their effect is the comparison of two variants.
    """
    return corrected(list(_effects(run, counts, 1)))


def interactions(run: GridLike, counts: Mapping[str, BySeed]) -> list[Comparison]:
    """Return how much the effect of an option depends on another slot, for each two options of two slots.

    It is the effect of the first option together with the second one, minus its effect together with the reference's
    option of that slot, as the mean over all other options. The task is the mean over tasks, if there are several.
    """
    return corrected(list(_effects(run, counts, 2)))


def _effects(run: GridLike, counts: Mapping[str, BySeed], order: int) -> Iterator[Comparison]:
    """Yield the effects of options (order 1) or of pairs of options (order 2) on each task, without correction."""
    cells = [cell for cell in one_per_variant(run) if counts.get(cell.variant)]
    options = options_by_slot(cells)
    if len(options) < 2:
        return
    trained = {cell.variant: set(cell.trained_on) for cell in cells}
    sets = {one.key: one.data_set for one in run.scored}
    tasks: list[tuple[str, tuple[str, ...]]] = [(MEAN, tuple(run.mean_over))] if len(run.mean_over) > 1 else []
    if order == 1 or not tasks:
        tasks = [*((one.title, (one.key,)) for one in run.scored), *tasks]
    scores = cache(lambda keys: scores_of(counts, keys))
    base = _base(cells, run.compare_with).options
    bases = {slot: base.get(slot, own[0]) for slot, own in options.items()}
    others = {slot: [label for label in own if label != bases[slot]] for slot, own in options.items()}
    for slots in itertools.combinations(options, order):
        for labels in itertools.product(*(others[slot] for slot in slots)):
            weights = _weights(cells, dict(zip(slots, labels, strict=True)), bases)
            if weights is None:
                continue
            against = bases[slots[0]]
            names = f"{slots[0]}: {labels[0]}", f"{slots[0]}: {against}"
            if order == 2:
                with_, without = (f"with {slots[1]}: {label}" for label in (labels[1], bases[slots[1]]))
                names = f"{labels[0]} (over {against}), {with_}", without
            words = ("better", "worse") if order == 1 else ("larger", "smaller")
            for title, keys in tasks:
                if all(sets[key] in trained[variant] for key in keys for variant in weights):
                    yield from contrast(scores(keys), weights, (*names, title), words)


def _weights(cells: Sequence[CellLike], chosen: Mapping[str, str], bases: Mapping[str, str]) -> dict[str, float] | None:
    """Return the weight of each variant in the effect of the chosen options, or None if there is none to measure.

    An effect is the mean over groups of cells that differ only in the slots of the chosen options, and together have
    all combinations of the chosen and the base option of each.
    """
    corners = list(itertools.product(*((label, bases[slot]) for slot, label in chosen.items())))
    groups: list[tuple[CellLike, ...]] = [()]
    for corner in corners:
        fitting = [cell for cell in cells if tuple(map(cell.options.get, chosen)) == corner]
        extended = ((*group, cell) for group in groups for cell in fitting)
        groups = [group for group in extended if _agree_but(group, chosen)]
    if len(groups) < (2 if len(chosen) == 1 else 1):
        return None
    weights: dict[str, float] = {}
    for group in groups:
        for corner, cell in zip(corners, group, strict=True):
            sign = (-1) ** sum(label == bases[slot] for slot, label in zip(chosen, corner, strict=True))
            weights[cell.variant] = weights.get(cell.variant, 0.0) + sign / len(groups)
    return weights


def _agree_but(cells: Sequence[CellLike], slots: Iterable[str]) -> bool:
    """Return whether cells have the same option in all slots but some; one that does not use a slot agrees with all."""
    rest = {slot for cell in cells for slot in cell.options} - set(slots)
    return all(len({cell.options[slot] for cell in cells if slot in cell.options}) == 1 for slot in rest)


def _base(cells: Sequence[CellLike], compare_with: str | None) -> CellLike:
    """Return the cell that others are compared with: the named one, the first without image, or the first one."""
    blind = [cell for cell in cells if not cell.uses_image]
    return next((cell for cell in cells if cell.variant == compare_with), (blind or cells)[0])


def _pairs(cells: Sequence[CellLike], compare_with: str | None) -> Iterator[tuple[CellLike, CellLike]]:
    """Yield the variants to compare with their references, given one cell of each variant."""
    base = _base(cells, compare_with)
    is_chosen = base.variant == compare_with
    blind = [cell for cell in cells if not cell.uses_image]
    for cell in cells:
        reference = base
        if blind and len(blind) < len(cells) and not is_chosen:
            if cell in blind:
                continue
            reference = next((one for one in blind if _agree(one, cell)), base)
        if cell is not reference and not _is_control(reference, cell):
            yield cell, reference
    for cell in cells:
        if cell.uses_image:
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
