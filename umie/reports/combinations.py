"""The table of a grid by combination of text and media, next to what is possible without the media that are hidden."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from umie.experiments.combine import uses_image
from umie.experiments.expand import Cell
from umie.experiments.grid_run import GridRun
from umie.records.places import LETTERS
from umie.reports.tables import markdown_table, markdown_text
from umie.scoring.groups import COMBINATIONS


class _Scores(NamedTuple):
    """The scores of a seed of a variant, as it is or with a medium hidden, by scored task and combination of media."""

    name: str
    seed: int
    hidden: tuple[str, ...]  # the letters of media that the variant does not see
    scores: Mapping[str, Mapping[str, Any]]


class Combinations(NamedTuple):
    """The table by combination of media, its last rows, and what it means."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    ceilings: Sequence[Sequence[str]]
    notes: Sequence[str]


def combinations_section(run: GridRun) -> str:
    """Return the scores of each variant by combination of media as Markdown; empty if all records have the same one."""
    found = combinations(run)
    if found is None:
        return ""
    given = [[f"*{name}*", *cells] for name, *cells in found.ceilings]
    first, *others = map(markdown_text, found.notes)
    return "\n\n".join([first, markdown_table(found.header, [*found.rows, *given]), *others])


def combinations(run: GridRun) -> Combinations | None:
    """Return the scores of each variant by combination of media; None if all records have the same one."""
    found = list(_found(run))
    names = [name for name in COMBINATIONS if any(name in own for one in found for own in one.scores.values())]
    if len(names) < 2:
        return None
    body, given = [], []
    for variant in dict.fromkeys(one.name for one in found):
        seeds = [one.scores.values() for one in found if one.name == variant]
        cells = []
        for name in names:
            means = [
                statistics.mean(own[name]["f1"] for own in tasks if name in own)
                for tasks in seeds
                if any(name in own for own in tasks)
            ]
            cells.append(f"{statistics.mean(means):.3f} ({min(means):.3f})" if means else "")
        body.append([variant, *cells])
    for letters in dict.fromkeys(one.hidden for one in found if one.hidden):
        known = [_ceilings(run, name, letters).values() if _is_hidden(name, letters) else () for name in names]
        if any(known):
            means = [f"{statistics.mean(own):.3f}" if own else "" for own in known]
            given.append([f"ceiling without {', '.join(letters)}", *means])
    notes = [
        "Text (T), image (I), sound (A), video (V): F1, averaged over the tasks of the combination, as the mean over "
        "seeds, and that of the lowest seed."
    ]
    if compared := list(_above_ceilings(run, found)):
        above = "; ".join(shown for shown, is_above in compared if is_above)
        count = sum(is_above for _, is_above in compared)
        notes.append(
            f"Scores without some of the media, by seed, task and combination: {count} of {len(compared)} are above "
            "what is possible without them by more than sampling error (the lower end of the 95% interval; "
            f"{0.025 * len(compared):.1f} are expected by chance){': ' + above if above else ''}."
        )
    return Combinations(["variant", *names], body, given, notes)


def _found(run: GridRun) -> Iterator[_Scores]:
    for cell in run.cells:
        line = run.results.get(cell.hash)
        if line is None or line["status"] != "ok":
            continue
        metrics, hidden = line["metrics"], _hidden(cell)
        yield _Scores(cell.variant, cell.seed, hidden, _by_combination(metrics))
        for medium, letter in LETTERS.items():
            without = {key: one["blind"][medium] for key, one in metrics.items() if medium in one.get("blind", {})}
            if without:
                name = f"{cell.variant}, {medium} hidden"
                yield _Scores(name, cell.seed, (*hidden, letter), _by_combination(without))


def _by_combination(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {key: one.get("by_combination", {}) for key, one in metrics.items()}


def _hidden(cell: Cell) -> tuple[str, ...]:
    """Return the letters of the media that a variant does not see."""
    if not uses_image(cell.config.fusion):
        return tuple(LETTERS.values())
    return tuple(letter for medium, letter in LETTERS.items() if medium in cell.config.blind)


def _is_hidden(combination: str, hidden: tuple[str, ...]) -> bool:
    return not set(combination.split("+")).isdisjoint(hidden)


def _ceilings(run: GridRun, combination: str, hidden: tuple[str, ...]) -> dict[str, float]:
    """Return the best F1 by scored task without the hidden media, if it is known."""
    seen = "+".join(letter for letter in combination.split("+") if letter not in hidden)
    found = {}
    for one in run.scored:
        known = run.data.sets[one.data_set].ceilings_by_combination.get(combination, {}).get(one.task)
        if known is not None:
            found[one.key] = known[seen]
    return found


def _above_ceilings(run: GridRun, found: list[_Scores]) -> Iterator[tuple[str, bool]]:
    """Yield each score without some of the media, and whether it is above what is possible."""
    for one in found:
        for key, parts in one.scores.items():
            for combination, scores in parts.items():
                best = _ceilings(run, combination, one.hidden).get(key)
                if best is not None and _is_hidden(combination, one.hidden):
                    shown = f"{one.name}, seed {one.seed}, {key}, {combination}: {scores['f1']:.3f} > {best:.3f}"
                    yield shown, scores["interval"][0] > best
