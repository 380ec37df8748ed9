"""Microbenchmarks of fusion modules: each is checked, then timed next to other libraries and its matrix products."""

import os

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler, which measures memory, logs to standard error
