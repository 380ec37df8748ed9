"""Scores: strict and diagnostic F1 with intervals, baselines, tests between systems, and the published scorer."""

from umie.scoring.baselines import baseline_score
from umie.scoring.groups import GROUPINGS, MODALITIES, modality_of
from umie.scoring.measures import MEASURES, Measure
from umie.scoring.predictions import GoldLine, Prediction, read_gold, read_predictions
from umie.scoring.released import Released, released_score
from umie.scoring.report import Line, Report, Versus, to_json
from umie.scoring.score_sheet import Score, Sheet
from umie.scoring.scorer import annotated_tasks, check_modality, has_modality, score_predictions, unknown_labels
from umie.scoring.strict import score_of_sheet, scores_by_combination, strict_score, strict_sheet

__all__ = [
    "GROUPINGS",
    "MEASURES",
    "MODALITIES",
    "GoldLine",
    "Line",
    "Measure",
    "Prediction",
    "Released",
    "Report",
    "Score",
    "Sheet",
    "Versus",
    "annotated_tasks",
    "baseline_score",
    "check_modality",
    "has_modality",
    "modality_of",
    "read_gold",
    "read_predictions",
    "released_score",
    "score_of_sheet",
    "score_predictions",
    "scores_by_combination",
    "strict_score",
    "strict_sheet",
    "to_json",
    "unknown_labels",
]
