"""Data sets for training and evaluation: one or several, each checked and written once, with a label schema a task."""

from umie.corpus.config import CorpusConfig, Sampling, SetConfig, read_corpus_config
from umie.corpus.data_set import Corpus, DataSet, Scored
from umie.corpus.prepare import prepare_corpus

__all__ = [
    "Corpus",
    "CorpusConfig",
    "DataSet",
    "Sampling",
    "Scored",
    "SetConfig",
    "prepare_corpus",
    "read_corpus_config",
]
