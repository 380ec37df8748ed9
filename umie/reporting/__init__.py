"""Reports: a checkpoint scored on a data set, as numbers, pages and figures."""

from umie.reporting.checkpoint import DECODINGS, Evaluated, evaluate_checkpoint
from umie.reporting.schema import SCHEMAS, Asked, choose_tasks

__all__ = ["DECODINGS", "SCHEMAS", "Asked", "Evaluated", "choose_tasks", "evaluate_checkpoint"]
