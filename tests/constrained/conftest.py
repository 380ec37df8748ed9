"""Make the records of tests/tasks importable here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tasks"))  # for random_records.py and published.py
