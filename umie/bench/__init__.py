"""Microbenchmarks of the fusion: shapes, operations, peers and limits, measured in turn in one run."""

import os

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler, which counts memory, greets on standard error
