"""What the server of the engine ``processes`` imports once, before cells are forked from it.

Importing these modules takes seconds, and starts neither threads of torch nor a GPU, which a fork would not have.
"""

import gc
import importlib

for _module in (
    "torch",
    "transformers",
    "accelerate",
    "umie.composition",
    "umie.evaluation",
    "umie.experiments.engines.processes",
    "umie.experiments.run_job",
    "umie.model",
    "umie.processor",
    "umie.training",
):
    importlib.import_module(_module)
importlib.import_module("umie.versions").versions("torch", "transformers")  # which lists the installed packages once
gc.collect()
gc.freeze()  # the cells share what is here: collecting garbage does not touch, and thereby copy, it
