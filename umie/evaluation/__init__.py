"""Answers and scores of a variant on records."""

from umie.evaluation.answers import Answer, OnBatch, answer_queries
from umie.evaluation.evaluate_task import SUBJECTS, SourcePredictions, TaskResult, evaluate
from umie.evaluation.queries import QueryDataset

__all__ = [
    "SUBJECTS",
    "Answer",
    "OnBatch",
    "QueryDataset",
    "SourcePredictions",
    "TaskResult",
    "answer_queries",
    "evaluate",
]
