"""Constrained decoding: well-formed answers whose spans occur in the text and whose regions exist.

``umie.tasks`` writes and reads answers; this package compiles the same output styles into automata over a
tokenizer's tokens. ``Constraint`` is a logits processor of transformers.
"""

from umie.constrained.constraint import Constraint
from umie.constrained.lossy_tokenizers import keeps_answers, numbered_as_spelled, read_answers
from umie.constrained.probabilities import item_probabilities
from umie.constrained.symbols import encode, symbols_of

__all__ = [
    "Constraint",
    "encode",
    "item_probabilities",
    "keeps_answers",
    "numbered_as_spelled",
    "read_answers",
    "symbols_of",
]
