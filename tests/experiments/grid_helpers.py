"""What the tests of grid runs share: plugins, results, and cells that run in the process of the test."""

import json
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from umie.experiments import planning, scheduler
from umie.experiments.engines.inline import InlineEngine

TASKS = ("mner", "mre", "med", "meae")

PLUGIN = """
import os, signal, sys
from umie.fusion import FusedStates, Fusion, registry

class Passing(Fusion):
    def forward(self, text, text_mask, visual, visual_mask, *, output_attention=False):
        if text.requires_grad:  # while training, not when the grid file is checked
            {body}
        return FusedStates(text, text_mask)

registry.register({name!r})(type({name!r}, (Passing,), {{}}))
"""


def write_plugin(folder: Path, name: str, body: str) -> str:
    """Write a fusion whose forward runs ``body`` and returns the text; return the file name."""
    (folder / f"{name}.py").write_text(PLUGIN.format(name=name, body=body))
    return f"{name}.py"


def lines_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / scheduler.RESULTS).read_text(encoding="utf-8").splitlines()]


@contextmanager
def cells_in_process():
    """Let ``umie ablate`` run its cells in this process, which saves the seconds that a process needs for imports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler, "run_grid", partial(scheduler.run_grid, engine=InlineEngine()))
        patch.setattr(planning, "plan_grid", partial(planning.plan_grid, engine=InlineEngine()))
        yield
