"""Score predictions: every measure of every task, with intervals, baselines and the comparison of two systems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from umie.errors import UmieError, check_keys, check_whole
from umie.records import Record
from umie.scoring import mentions
from umie.scoring.baselines import baseline_of
from umie.scoring.counts import Tally
from umie.scoring.grounding_errors import Groundings, diagnose
from umie.scoring.groundings import KINDS, has_places
from umie.scoring.groups import COMBINATIONS, MODALITIES, check_grouping, groups_of, modality_of
from umie.scoring.measures import Measure, measures_of
from umie.scoring.predictions import Prediction
from umie.scoring.released import Released, has_released_scorer, released_score
from umie.scoring.report import Line, Report, Versus
from umie.scoring.resampling import bootstrap_p, bootstrap_sums, interval, randomization_p, swapped_sums
from umie.scoring.score_sheet import Score, Sheet, f1_of_sums
from umie.tasks import ordered, registry, task_class
from umie.tasks.labels import declared_labels, used_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALL = "all"
AVERAGES = ("micro", "macro")


def score_predictions(
    gold: Sequence[Record],
    predictions: Sequence[Prediction],
    *,
    tasks: Sequence[str] | None = None,
    modality: str = ALL,
    group_by: str = "combination",
    main: Mapping[str, str | None] | None = None,
    other: Sequence[Prediction] | None = None,
    train: Sequence[Record] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Report:
    """Score predictions against annotated records.

    Args:
        gold: the annotated records; those with proposed places are compared by their ``gold``.
        predictions: one for each record, in the same order.
        tasks: the registered tasks to score; None scores those that records of the modality are annotated for.
        modality: ``all`` scores all records; the name of a combination of text and media, such as ``T+A``, or of a
            modality of M2E2 only its own.
        group_by: the groups of records that are also scored by themselves, if there are several: see ``groups_of``.
        main: the measure of ``Task.measure`` that each task is judged by, reported first; by default, and for tasks
            without one, the strict measure. A system that a task is not judged by ``grounded`` for was not asked for
            places: if it names none, the measures of places are left out. By default, it was asked.
        other: the predictions of another system to compare with.
        train: training records, from which the baselines learn.
        resamples: the number of resamples for intervals and tests.
        seed: the seed of the resamples.

    Raises:
        UmieError: a task or modality is unknown, or no record of gold is annotated for it; the number of predictions
            differs from the number of records.
    """
    check_whole("resamples", resamples, 1)
    check_whole("seed", seed, 0)
    sides = [predictions] if other is None else [predictions, other]
    for side in sides:
        if len(side) != len(gold):
            raise UmieError(f"{len(side)} predictions for {len(gold)} records: pass one for each, in the same order")
    check_modality(modality)
    check_grouping(group_by)
    for task in tasks or ():
        task_class(task)  # raises if it is unknown
    asked, gold = gold, [record.annotated for record in gold]
    annotated = annotated_tasks([record for record in gold if has_modality(record, modality)])
    chosen = tuple(tasks or annotated or annotated_tasks(gold))
    if not chosen:
        raise UmieError("gold is not annotated for any task: use records with entities, relations, events or 'tasks'")
    lines: list[Line] = []
    released: list[Released] = []
    left_out: dict[str, str] = {}
    groundings: dict[str, Groundings] = {}
    for task in dict.fromkeys(chosen):
        rows = [row for row, record in enumerate(gold) if record.annotated_for(task) and has_modality(record, modality)]
        if not rows or task not in annotated:
            among = "" if modality == ALL else f" of the modality {modality!r}"
            raise UmieError(f"no record{among} of gold is annotated for {task!r}: choose another task or modality")
        wanted = [gold[row] for row in rows]
        found = [[side[row] for row in rows] for side in sides]
        own = [asked[row] for row in rows]
        judged_by = None if main is None else main.get(task)
        points = main is None or judged_by is not None
        groups = list(_groups(task, modality, group_by, wanted, found))
        new = list(_lines(task, groups, judged_by, points, wanted, own, found, train, resamples, seed))
        lines += new
        kind, answers = task_class(task).kind, [one.record for one in found[0]]
        if kind in KINDS and not _has_strings(task, found[0]):
            shows = [any(map(has_places(kind), side)) for side in (wanted, answers)]
            if shows[0] and (points or shows[1]):
                pairs = zip(answers, wanted, strict=True)
                groundings[task] = Groundings(rows, [diagnose(kind, *pair) for pair in pairs])
        if not new:  # a region, or an event without a trigger, has no string
            left_out[task] = "some mentions have no offsets, and no item of this task can be compared as a string"
        if _has_strings(task, found[0]):
            left_out[f"released {task}"] = "it needs the offsets of all mentions"
        elif has_released_scorer(task):
            released.append(released_score(task, answers, wanted))
    return Report(lines, released, resamples, seed, left_out, groundings, group_by)


def check_modality(name: str) -> None:
    """Raise UmieError unless a name is ``all``, a modality of M2E2, or a combination of text and media."""
    check_keys("modality", [name], (ALL, *MODALITIES, *COMBINATIONS))


def has_modality(record: Record, name: str) -> bool:
    """Return whether a record belongs to a modality of M2E2 or to a combination of text and media, or if it is all."""
    return name in (ALL, modality_of(record), record.combination)


def annotated_tasks(gold: Sequence[Record]) -> tuple[str, ...]:
    """Return the tasks that records are annotated for: those they name; without names, those they have items of."""
    named = {task for record in gold for task in record.tasks or ()}
    for task in named:
        task_class(task)
    unnamed = [record for record in gold if record.tasks is None]
    if unnamed:
        named |= {name for name in registry.known() if any(map(registry.build(name).is_annotated, unnamed))}
    return ordered(named)


def unknown_labels(task: str, predictions: Sequence[Record], gold: Sequence[Record]) -> Counter[str]:
    """Return the number of uses of each predicted label that is neither in gold's schema nor used by gold."""
    built = registry.build(task)
    known = {*declared_labels(task, gold), *used_labels(built, gold)}
    return Counter({label: count for label, count in used_labels(built, predictions).items() if label not in known})


def _lines(
    task: str,
    groups: Sequence[tuple[str, Sequence[int]]],
    main: str | None,
    points: bool,
    gold: Sequence[Record],
    asked: Sequence[Record],
    sides: Sequence[Sequence[Prediction]],
    train: Sequence[Record] | None,
    resamples: int,
    seed: int,
) -> Iterator[Line]:
    """Yield a line for each measure, group of records and average of a task.

    ``asked`` are the records of ``gold`` with the places that systems can name; ``sides`` are one or two systems, and
    ``points`` whether they were asked for places.
    """
    measures = sorted(measures_of(task), key=lambda measure: measure.name != main)  # the main one first
    guesses: dict[str, list[Record]] = {}
    for measure in measures:
        if not measure.strings and _has_strings(task, sides[0]):
            continue  # without offsets, only strings can be compared
        condition = None if measure.name == main else measure.only_if
        needed = [gold] if points else [gold, [one.record for side in sides for one in side]]
        if condition is not None and not all(any(map(condition, some)) for some in needed):
            continue
        comparable = [side for side in sides if measure.strings or not _has_strings(task, side)]
        tallies = [[_tally(measure, *pair) for pair in zip(side, gold, strict=True)] for side in comparable]
        baseline = baseline_of(task, measure.name, asked, train)
        if baseline.name not in guesses:
            guesses[baseline.name] = [baseline.answer(record) for record in asked]
        guessed = list(map(measure.count, guesses[baseline.name], gold))
        for number, (name, members) in enumerate(groups):
            rows = [row for row in members if measure.covers(gold[row])]
            if not rows or (measure.modality and {modality_of(gold[row]) for row in rows} != {measure.modality}):
                continue
            sheets = [Sheet.of([tally[row] for row in rows]) for tally in tallies]
            if all(sheet.is_empty for sheet in sheets) and (number or measure is not measures[0]):
                continue  # nothing to score; the main line of all records is kept
            guess = Sheet.of([guessed[row] for row in rows])
            sums = [bootstrap_sums(sheet.counts, resamples, seed) for sheet in sheets]
            for average in AVERAGES if sheets[0].has_labels else AVERAGES[:1]:
                values = [f1_of_sums(total, average) for total in sums]
                yield Line(
                    task=task,
                    measure=measure.name,
                    average=average,
                    modality=name,
                    definition=measure.definition,
                    records=len(rows),
                    score=sheets[0].score(average),
                    interval=interval(values[0]),
                    baseline=baseline.name,
                    baseline_f1=guess.score(average).f1,
                    labels=_labels(sheets[0], sums[0]) if average == "micro" else {},
                    versus=_versus(sheets, values, average, resamples, seed) if len(sheets) == 2 else None,
                )


def _groups(
    task: str, modality: str, group_by: str, gold: Sequence[Record], sides: Sequence[Sequence[Prediction]]
) -> Iterator[tuple[str, list[int]]]:
    """Yield names and rows of records to score together: all, and each group if there are several.

    Those without items are left out. If all records belong to one modality of M2E2, ``all`` has its name.
    """
    of_each, names = groups_of(task, gold, group_by)
    only = of_each[0] if len(set(of_each)) == 1 else None
    yield (only if only is not None and only in MODALITIES else modality), list(range(len(gold)))
    for name in names if only is None else ():
        rows = [row for row, group in enumerate(of_each) if group == name]
        if any(_has_items(task, gold[row], [side[row] for side in sides]) for row in rows):
            yield name, rows


def _has_items(task: str, gold: Record, predictions: Sequence[Prediction]) -> bool:
    """Return whether gold or a prediction has an item of a task."""
    built = registry.build(task)
    return any(map(built.items, (gold, *(one.record for one in predictions)))) or any(
        one.strings.get(built.kind) for one in predictions
    )


def _versus(
    sheets: Sequence[Sheet], values: Sequence[NDArray[np.float64]], average: str, resamples: int, seed: int
) -> Versus:
    labels = sorted({label for sheet in sheets for label in sheet.labels})
    aligned = [np.zeros((len(sheet.counts), len(labels), 3)) for sheet in sheets]  # so that rows can be swapped
    for counts, sheet in zip(aligned, sheets, strict=True):
        counts[:, [labels.index(label) for label in sheet.labels]] = sheet.counts
    swapped = swapped_sums(aligned[0], aligned[1], resamples, seed)
    one, two = (np.nan_to_num(f1_of_sums(sums, average)) for sums in swapped)  # 0, as in the score itself
    mine, theirs = (sheet.score(average).f1 for sheet in sheets)
    differences = values[0] - values[1]
    return Versus(
        other=theirs,
        difference=mine - theirs,
        interval=interval(differences),
        p_bootstrap=bootstrap_p(differences),
        p_randomization=randomization_p(mine - theirs, one - two),
    )


def _has_strings(task: str, predictions: Sequence[Prediction]) -> bool:
    """Return whether some mentions of a task have no offsets, so that only strings can be compared."""
    kind = task_class(task).kind
    return any(kind in prediction.strings for prediction in predictions)


def _tally(measure: Measure, prediction: Prediction, record: Record) -> Tally:
    if measure.strings and measure.kind in prediction.strings:
        return mentions.tally_strings(prediction.strings[measure.kind], record, measure.kind)
    return measure.count(prediction.record, record)


def _labels(sheet: Sheet, sums: NDArray[np.float64]) -> dict[str, tuple[Score, tuple[float, float]]]:
    if not sheet.has_labels:
        return {}
    scores = sheet.by_label().items()
    return {label: (score, interval(f1_of_sums(sums[:, [place]]))) for place, (label, score) in enumerate(scores)}
