"""Scores of a run: the dev split at every checkpoint, and the best model on what the config evaluates."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umie.errors import UnknownNameError
from umie.experiments.data_sets import Corpus
from umie.experiments.plan import Cell
from umie.experiments.prepare_run import Display, asked_on
from umie.experiments.run_config import RunConfig
from umie.experiments.scored_tasks import Asked, averaged
from umie.experiments.variant import score_all
from umie.records import Record

if TYPE_CHECKING:
    from umie.model import UmieModel
    from umie.processor import UmieProcessor

MEAN = "mean_f1"


class Scorer:
    """Scores a model of a run, on any of its splits."""

    def __init__(
        self,
        config: RunConfig,
        cell: Cell,
        corpus: Corpus,
        processor: UmieProcessor,
        records: Mapping[str, Mapping[str, Sequence[Record]]],
        display: Display,
    ) -> None:
        self.config, self.cell, self.corpus, self.processor = config, cell, corpus, processor
        self.records, self.display = records, display

    def asked(self, split: str) -> list[Asked]:
        """Return all that the split is asked."""
        return asked_on(self.config, self.corpus, split)

    def check_metric(self, split: str = "dev") -> None:
        """Raise UnknownNameError where the checkpoints are compared by a score that the split does not have."""
        names = [MEAN, *(f"{_name(one)}_f1" for one in self.asked(split))]
        if self.config.checkpoints.metric not in names:
            raise UnknownNameError("checkpoints: metric", self.config.checkpoints.metric, names)

    def dev(self, model: UmieModel) -> dict[str, float]:
        """Return the F1 of everything asked on the dev split, their mean and the mean gate of each."""
        metrics, _ = self.score(model, "dev")
        names = {one.key: _name(one) for one in self.asked("dev")}
        found = {f"{names[key]}_f1": float(values["f1"]) for key, values in metrics.items()}
        found |= {f"{names[key]}_gate": values["gate_mean"] for key, values in metrics.items() if "gate_mean" in values}
        learned = {one.key for one in self.asked("dev") if one.data_set in self.records["train"]}
        keys = [key for key in self._averaged("dev") if key in metrics]
        keys = [key for key in keys if key in learned] or keys  # a set that is left out must not choose the checkpoint
        return {MEAN: statistics.mean(float(metrics[key]["f1"]) for key in keys), **found}

    def score(
        self, model: UmieModel, split: str, folder: Path | None = None
    ) -> tuple[dict[str, Any], dict[str, list[float]]]:
        """Return the metrics and the gates of a split by key; predictions are written where there is a folder."""
        evaluation = self.config.grid.evaluation
        was_training = model.training
        try:
            return score_all(
                model,
                self.processor,
                self.corpus,
                self.asked(split),
                self.records[split],
                self.cell.instruction,
                batch_size=evaluation.batch_size,
                constrained=evaluation.constrained,
                generation=evaluation.generation,
                on_progress=lambda done, total: None if folder is None else self.display.advance(done / total),
                folder=folder,
            )
        finally:
            model.train(was_training)

    def _averaged(self, split: str) -> list[str]:
        return averaged(self.config.grid, self.asked(split))


def _name(one: Asked) -> str:
    """Return a key as a name of a score: ``twitter17 mner`` as ``twitter17_mner``."""
    return one.key.replace(" ", "_")
