"""Scores that can be believed: strict figures with intervals, baselines and tests, and the published scorer's."""

from umie.scoring.answers import Answer, GoldLine, read_answers, read_gold
from umie.scoring.figures import FIGURES, SPLITS, TASKS, Figure, split_of
from umie.scoring.labels import unknown_labels
from umie.scoring.released import Released, released_score
from umie.scoring.report import Line, Report, Versus, to_json
from umie.scoring.scorer import score_answers
from umie.scoring.sheet import Score, Sheet

__all__ = [
    "FIGURES",
    "SPLITS",
    "TASKS",
    "Answer",
    "Figure",
    "GoldLine",
    "Line",
    "Released",
    "Report",
    "Score",
    "Sheet",
    "Versus",
    "read_answers",
    "read_gold",
    "released_score",
    "score_answers",
    "split_of",
    "to_json",
    "unknown_labels",
]
