"""The table of a grid by combination of text and media, next to what is possible without the media that are hidden."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from umie.experiments.expand import Cell, uses_image
from umie.experiments.scheduler import GridRun
from umie.experiments.summary import Row
from umie.reports.tables import markdown_table
from umie.scoring.measures import COMBINATIONS

LETTERS: Mapping[str, str] = {"image": "I", "audio": "A", "video": "V"}


def combinations_section(run: GridRun, table: list[Row]) -> str:
    """Return the scores of each variant by combination of media as Markdown; empty if all records have the same one."""
    lines = [line for row in table for line in row.lines]
    names = [name for name in COMBINATIONS if any(_scores(line, name) for line in lines)]
    if not names:
        return ""
    body = []
    for row in table:
        cells = []
        for name in names:
            means = [statistics.mean(own) for line in row.lines if (own := _scores(line, name))]
            cells.append(f"{statistics.mean(means):.3f} ({min(means):.3f})" if means else "-")
        body.append([row.variant, *cells])
    hidden = {_hidden(cell): cell for cell in run.cells if _hidden(cell)}
    for letters in hidden:
        known = [_ceilings(run, name, letters) for name in names]
        if any(known):
            cells = [f"{statistics.mean(one.values()):.3f}" if one else "-" for one in known]
            body.append([f"*ceiling without {', '.join(letters)}*", *cells])
    parts = [
        "Text (T), image (I), sound (A), video (V): F1, averaged over the tasks of the combination, as the mean over "
        "seeds, and that of the lowest seed.",
        markdown_table(["variant", *names], body),
    ]
    if found := list(_above_ceilings(run)):
        above = "; ".join(shown for shown, is_above in found if is_above)
        count = sum(is_above for _, is_above in found)
        parts.append(
            f"Scores of variants without some of the media, by seed, task and combination: {count} of {len(found)} are "
            "above what is possible without them by more than sampling error (the lower end of the 95% interval; "
            f"{0.025 * len(found):.1f} are expected by chance){': ' + above if above else ''}."
        )
    return "\n\n".join(parts)


def _scores(line: Mapping[str, Any], combination: str) -> list[float]:
    """Return the F1 of each scored task on the records of a combination."""
    parts = [metrics.get("by_combination", {}).get(combination) for metrics in line["metrics"].values()]
    return [part["f1"] for part in parts if part is not None]


def _hidden(cell: Cell) -> tuple[str, ...]:
    """Return the letters of the media that a variant does not see."""
    if not uses_image(cell.config.fusion):
        return tuple(LETTERS.values())
    return tuple(LETTERS[medium] for medium in LETTERS if medium in cell.config.blind)


def _ceilings(run: GridRun, combination: str, hidden: tuple[str, ...]) -> dict[str, float]:
    """Return the best F1 by scored task without the hidden media, if it is known."""
    seen = "+".join(letter for letter in combination.split("+") if letter not in hidden)
    found = {}
    for one in run.scored:
        known = run.data.sets[one.data_set].ceilings_by_combination.get(combination, {}).get(one.task)
        if known is not None:
            found[one.key] = known[seen]
    return found


def _above_ceilings(run: GridRun) -> Iterator[tuple[str, bool]]:
    """Yield each score of a variant that does not see all media, and whether it is above what is possible."""
    for cell in run.cells:
        line = run.results.get(cell.hash)
        if line is None or line["status"] != "ok" or not (letters := _hidden(cell)):
            continue
        for key, metrics in line["metrics"].items():
            for combination, scores in metrics.get("by_combination", {}).items():
                best = _ceilings(run, combination, letters).get(key)
                if best is not None and set(combination.split("+")) & set(letters):
                    shown = f"{cell.variant}, seed {cell.seed}, {key}, {combination}: {scores['f1']:.3f} > {best:.3f}"
                    yield shown, scores["interval"][0] > best
