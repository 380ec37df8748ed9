"""Scoring of answers: every measure of every task, with intervals, baselines and the comparison of two systems."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from umie.errors import UmieError, UnknownNameError, check_whole
from umie.records import Record
from umie.scoring import mentions
from umie.scoring.baselines import baseline_of
from umie.scoring.counts import Tally
from umie.scoring.measures import EVENT_KINDS, MODALITIES, Measure, measures_of, modality_of
from umie.scoring.predictions import Prediction
from umie.scoring.released import Released, is_known_to_released, released_score
from umie.scoring.report import Line, Report, Versus
from umie.scoring.resampling import bootstrap_p, bootstrap_sums, interval, randomization_p, swapped_sums
from umie.scoring.score_sheet import Score, Sheet, f1_of_sums
from umie.tasks import ordered, registry, task_class

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALL = "all"
AVERAGES = ("micro", "macro")


def score_predictions(
    gold: Sequence[Record],
    answers: Sequence[Prediction],
    *,
    tasks: Sequence[str] | None = None,
    modality: str = ALL,
    other: Sequence[Prediction] | None = None,
    train: Sequence[Record] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Report:
    """Score answers to annotated records.

    Args:
        gold: the annotated records.
        answers: one answer for each of them, in their order.
        tasks: the tasks to score; None takes those that gold is annotated for.
        modality: ``all`` scores all records together and, where several modalities of M2E2 are mixed, each by itself;
            a modality scores only its own records.
        other: the answers of another system, to compare with.
        train: training records, for the baselines.
        resamples: how many resamples intervals and tests rest on.
        seed: what they are drawn from.

    Raises:
        UmieError: an unknown task or modality, or one that no record of gold is annotated for; a number of answers
            that differs from that of gold.
    """
    check_whole("resamples", resamples, 1)
    check_whole("seed", seed, 0)
    for side in (answers, *([] if other is None else [other])):
        if len(side) != len(gold):
            raise UmieError(f"{len(side)} answers for {len(gold)} records: give one for each, in their order")
    if modality not in (ALL, *MODALITIES):
        raise UnknownNameError("modality", modality, (ALL, *MODALITIES))
    for task in tasks or ():
        task_class(task)  # raises where there is none
    annotated = annotated_tasks(gold)
    chosen = tuple(tasks) if tasks else annotated
    if not chosen:
        raise UmieError("gold is annotated for no task: give --task, or a file with annotation")
    lines: list[Line] = []
    released: list[Released] = []
    left_out: dict[str, str] = {}
    for task in dict.fromkeys(chosen):
        rows = [
            row
            for row, record in enumerate(gold)
            if record.annotated_for(task) and (modality == ALL or modality_of(record) == modality)
        ]
        if not rows or task not in annotated:
            among = "" if modality == ALL else f" of the modality {modality!r}"
            raise UmieError(f"no record{among} of gold is annotated for {task!r}: choose another --task or --modality")
        found = list(_lines(task, modality, gold, answers, other, train, rows, resamples, seed))
        lines += found
        if not found:  # regions and events without a trigger are no strings
            left_out[task] = "some mentions are given without offsets, and there is no string of it to compare"
        if _is_loose(task, [answers[row] for row in rows]):
            left_out[f"released {task}"] = "it is not computed where mentions are given without offsets"
        elif is_known_to_released(task):
            records = [[side[row] for row in rows] for side in ([answer.record for answer in answers], gold)]
            released.append(released_score(task, *records))
    return Report(lines, released, resamples, seed, left_out)


def annotated_tasks(gold: Sequence[Record]) -> tuple[str, ...]:
    """Return the tasks that records are annotated for: those they name, or where they name none, have items of."""
    named = {task for record in gold for task in record.tasks or ()}
    for task in named:
        task_class(task)
    unnamed = [record for record in gold if record.tasks is None]
    used = (
        [name for name in registry.known() if any(map(registry.build(name).is_annotated, unnamed))] if unnamed else []
    )
    return ordered({*named, *used})


def _lines(
    task: str,
    modality: str,
    gold: Sequence[Record],
    answers: Sequence[Prediction],
    other: Sequence[Prediction] | None,
    train: Sequence[Record] | None,
    rows: Sequence[int],
    resamples: int,
    seed: int,
) -> Iterator[Line]:
    wanted = [gold[row] for row in rows]
    sides = [[side[row] for row in rows] for side in ([answers] if other is None else [answers, other])]
    groups = list(_groups(task, modality, wanted))
    guesses: dict[str, list[Record]] = {}
    for measure in measures_of(task):
        usable = [side for side in sides if measure.strings or not _is_loose(task, side)]
        if not usable or usable[0] is not sides[0]:  # without offsets, strings are all there is to compare
            continue
        tallies = [list(map(_tally, [measure] * len(rows), side, wanted)) for side in usable]
        baseline = baseline_of(task, measure.name, wanted, train)
        if baseline.name not in guesses:
            guesses[baseline.name] = [baseline.answer(record) for record in wanted]
        guessed = list(map(measure.count, guesses[baseline.name], wanted))
        for name, members in groups:
            if measure.modality not in (None, name):
                continue
            sheets = [Sheet.of([tally[row] for row in members]) for tally in tallies]
            if all(sheet.is_empty for sheet in sheets) and measure is not measures_of(task)[0]:
                continue
            guess = Sheet.of([guessed[row] for row in members])
            sums = [bootstrap_sums(_columns(sheet), resamples, seed) for sheet in sheets]
            for average in AVERAGES if sheets[0].has_labels else AVERAGES[:1]:
                values = [
                    f1_of_sums(total, len(sheet.labels), average) for total, sheet in zip(sums, sheets, strict=True)
                ]
                yield Line(
                    task=task,
                    measure=measure.name,
                    average=average,
                    modality=name,
                    definition=measure.definition,
                    records=len(members),
                    score=sheets[0].score(average),
                    interval=interval(values[0]),
                    baseline=baseline.name,
                    baseline_f1=guess.score(average).f1,
                    labels=_labels(sheets[0], sums[0]) if average == "micro" else {},
                    versus=_versus(sheets, values, average, resamples, seed) if len(sheets) == 2 else None,
                )


def _groups(task: str, modality: str, records: Sequence[Record]) -> Iterator[tuple[str, list[int]]]:
    """Yield the names and rows of what is scored together: all, and each of M2E2's modalities if there are several."""
    kinds = [modality_of(record) for record in records] if task_class(task).kind in EVENT_KINDS else []
    present = [name for name in MODALITIES if name in kinds]
    yield (present[0] if len(present) == 1 else modality), list(range(len(records)))
    for name in present if len(present) > 1 else ():
        yield name, [row for row, kind in enumerate(kinds) if kind == name]


def _is_loose(task: str, answers: Sequence[Prediction]) -> bool:
    kind = task_class(task).kind
    return any(kind in answer.strings for answer in answers)


def _tally(measure: Measure, answer: Prediction, record: Record) -> Tally:
    if measure.strings and measure.kind in answer.strings:
        return mentions.tally_strings(answer.strings[measure.kind], record, measure.kind)
    return measure.count(answer.record, record)


def _columns(sheet: Sheet) -> NDArray[np.float64]:
    return sheet.counts.reshape(len(sheet.counts), -1)


def _labels(sheet: Sheet, sums: NDArray[np.float64]) -> dict[str, tuple[Score, tuple[float, float]]]:
    if not sheet.has_labels:
        return {}
    by_label = sums.reshape(len(sums), len(sheet.labels), 3)
    return {
        label: (score, interval(f1_of_sums(by_label[:, index], 1, "micro")))
        for index, (label, score) in enumerate(sheet.by_label().items())
    }


def _versus(
    sheets: Sequence[Sheet], values: Sequence[NDArray[np.float64]], average: str, resamples: int, seed: int
) -> Versus:
    first, second = _aligned(*sheets)
    swapped = swapped_sums(_columns(first), _columns(second), resamples, seed)
    one, two = (
        np.nan_to_num(f1_of_sums(sums, len(first.labels), average)) for sums in swapped
    )  # as the score has it: 0
    mine, theirs = (sheet.score(average).f1 for sheet in sheets)
    differences = values[0] - values[1]
    return Versus(
        other=theirs,
        difference=mine - theirs,
        interval=interval(differences),
        p_bootstrap=bootstrap_p(differences),
        p_randomization=randomization_p(mine - theirs, one - two),
    )


def _aligned(first: Sheet, second: Sheet) -> tuple[Sheet, Sheet]:
    """Return two sheets with the same labels, so that their rows can change places."""
    labels = tuple(sorted({*first.labels, *second.labels}))

    def widened(sheet: Sheet) -> Sheet:
        counts = np.zeros((len(sheet.counts), len(labels), 3))
        counts[:, [labels.index(label) for label in sheet.labels]] = sheet.counts
        return replace(sheet, labels=labels, counts=counts)

    return widened(first), widened(second)
