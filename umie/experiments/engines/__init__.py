"""Engines: what runs the jobs of a grid; ``engine`` in its file or ``--engine`` chooses one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from umie.configs import Config, Natural, Options, Positive, PositiveNumber, as_mapping
from umie.errors import UmieError, UnknownNameError
from umie.experiments.engines.base import Engine
from umie.experiments.limits import Limits


class Processes(Config):
    """Processes on this machine; see ``umie.experiments.engines.processes``."""

    name: Literal["processes"] = "processes"


class Inline(Config):
    """This process; see ``umie.experiments.engines.inline``."""

    name: Literal["inline"] = "inline"


class Slurm(Config):
    """A Slurm cluster, or processes that submitit starts; see ``umie.experiments.engines.slurm``.

    Args:
        cluster: ``slurm``, or ``local``: submitit's own processes on this machine, to try a grid.
        cpus_per_task: processors of a cell, which has as many threads.
        gpus_per_node: GPUs of a cell.
        partition, account, qos, constraint: those of sbatch.
        setup: shell commands that each job runs first.
        additional_parameters: further options of sbatch, by name.
    """

    name: Literal["slurm"] = "slurm"
    cluster: Literal["slurm", "local"] = "slurm"
    cpus_per_task: Positive | None = None
    gpus_per_node: Natural | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    setup: tuple[str, ...] = ()
    additional_parameters: Options = Field(default_factory=dict)

    @property
    def slurm_options(self) -> dict[str, Any]:
        """The options of sbatch, as submitit names them."""
        values = self.model_dump(include={"partition", "account", "qos", "constraint", "additional_parameters"})
        return {f"slurm_{key}": value for key, value in {**values, "setup": list(self.setup)}.items() if value}


class Ray(Config):
    """Ray, here or on a cluster; see ``umie.experiments.engines.ray``.

    Args:
        address: of a cluster, e.g. ``auto``, ``192.168.1.2:6379`` or ``ray://head:10001``; None starts Ray here.
        num_cpus: processors of a cell, which has as many threads; here by default its share, and 1 on a cluster.
        num_gpus: GPUs of a cell; by default one if the cluster has any.
        retries: how often a cell runs again whose node was lost.
    """

    name: Literal["ray"] = "ray"
    address: str | None = None
    num_cpus: PositiveNumber | None = None
    num_gpus: Annotated[float, Field(ge=0)] | None = None
    retries: Natural = 3


EngineOptions = Processes | Inline | Slurm | Ray
ENGINES: dict[str, type[EngineOptions]] = {"processes": Processes, "inline": Inline, "slurm": Slurm, "ray": Ray}


def read_engine(value: Any) -> EngineOptions:
    """Return an engine from its value in a grid file, a name or a mapping; raise UmieError if there is none like it."""
    options = {"name": value} if isinstance(value, str) else as_mapping("engine", {} if value is None else value)
    name = options.get("name", "processes")
    if not isinstance(name, str) or name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    return ENGINES[name](**options)


def build_engine(options: EngineOptions, workers: int | None, limits: Limits, output: Path) -> Engine:
    """Return an engine.

    Args:
        options: its name and options.
        workers: number of jobs at the same time; None is what fits the engine.
        limits: of a job.
        output: the directory of the grid.

    Raises:
        UmieError: it has no limits, or its package is not installed.
    """
    if isinstance(options, Inline):
        from umie.experiments.engines.inline import InlineEngine

        if limits != Limits():
            raise UmieError("engine inline cannot end a cell: remove time_limit and memory_limit, or use processes")
        return InlineEngine()
    if isinstance(options, Slurm):
        from umie.experiments.engines.slurm import SlurmEngine

        return SlurmEngine(options, output / "slurm", workers, limits)
    if isinstance(options, Ray):
        from umie.experiments.engines.ray import RayEngine

        return RayEngine(options, workers, limits)
    from umie.experiments.engines.processes import ProcessEngine

    return ProcessEngine(workers, limits)
