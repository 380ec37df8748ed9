"""Training runs: one variant from a config file to checkpoints, scores and a report; `umie train`."""

from umie.runs.config import RunConfig, read_run
from umie.runs.presets import PRESETS
from umie.runs.run import RunResult, run_training

__all__ = ["PRESETS", "RunConfig", "RunResult", "read_run", "run_training"]
