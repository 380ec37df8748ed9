"""The names of "no relation" in published data; ``none`` is the name in this library."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import lru_cache

from umie.errors import UmieError, shown
from umie.records.model import NO_RELATION, Record
from umie.records.notes import take_note

# without case, spaces and punctuation
_USUAL = {
    "none", "na", "nil", "null", "norel", "norelation", "norelations", "norelationship", "unrelated", "notrelated",
    "nota", "noneoftheabove", "nan", "无关系", "無關係",
}  # fmt: skip
_LIKELY = frozenset(("other", "others"))  # SemEval-2010's task 8 and others score it so
_POSSIBLE = {
    "negative", "neg", "unknown", "undefined", "misc", "false", "no", "noedge", "nothing",
    "background", "-", "--", "_", "/", "o", "0", "无", "無", "其他",
}  # fmt: skip
_DIRECTION = re.compile(r"\(e[12], *e[12]\)$")
_chosen: ContextVar[frozenset[str]] = ContextVar("chosen", default=frozenset())


@contextmanager
def no_relation_names(names: Iterable[str]) -> Iterator[None]:
    """Treat relation labels as names of ``none`` inside the block, in scores too, in addition to NA and the like.

    Without names, Other is one. Case and punctuation do not count.

    Raises:
        UmieError: a name is empty.
    """
    names = list(names)
    if any(not isinstance(name, str) or not name.strip() for name in names):
        raise UmieError(f"the names of no relation are {shown(names)}: use labels of the data, such as Other")
    token = _chosen.set(frozenset(map(_bare, names)))
    try:
        yield
    finally:
        _chosen.reset(token)


def chosen_names() -> frozenset[str]:
    """Return the names of the innermost ``no_relation_names``, without case and punctuation."""
    return _chosen.get()


def is_chosen(label: str) -> bool:
    """Return whether a relation label is one of ``no_relation_names``."""
    names = _chosen.get()
    return bool(names) and _bare(label) in names


def is_no_relation(label: str) -> bool:
    """Return whether a relation label is ``none`` or a name of it: NA, no_relation, or of ``no_relation_names``."""
    bare = _bare(label)
    return bare in _USUAL or bare in (_chosen.get() or _LIKELY)


def renamed(record: Record, is_name: Callable[[str], bool] = is_no_relation) -> Record:
    """Return a record with ``none`` in place of its other names, which are noted; see ``umie.records.notes``."""
    found = [item.type for item in record.relations if item.type != NO_RELATION and is_name(item.type)]
    if not found:
        return record
    for name in found:
        note_no_relation(name)
    relations = tuple(replace(item, type=NO_RELATION) if item.type in found else item for item in record.relations)
    labels = record.labels and {
        task: tuple(dict.fromkeys(NO_RELATION if task == "mre" and label in found else label for label in own))
        for task, own in record.labels.items()
    }
    return replace(record, relations=relations, labels=labels)


def note_no_relation(name: str) -> None:
    """Note that a relation label was read as ``none``."""
    take_note(f"relations of the type {shown(name)}, read as {NO_RELATION!r}")


def doubtful_labels(labels: Iterable[str]) -> Counter[str]:
    """Return the relation labels that look like ``none`` under another name; empty if ``no_relation_names`` decides."""
    if _chosen.get():
        return Counter()
    return Counter(label for label in labels if label != NO_RELATION and _is_doubtful(label))


def doubt(label: str) -> str:
    """Return the warning about a label of ``doubtful_labels``."""
    if is_no_relation(label):
        otherwise = f"; if it is a relation, --no-relation {NO_RELATION}" if _bare(label) in _LIKELY else ""
        return (
            f"relation label {shown(label)} looks like {NO_RELATION!r}, and is scored as no relation: to read it so, "
            f"use --no-relation {shown(label)}{otherwise}"
        )
    return (
        f"relation label {shown(label)} may mean {NO_RELATION!r}, but is scored as a relation: if it means none, "
        f"use --no-relation {shown(label)}"
    )


@lru_cache(maxsize=4096)
def _is_doubtful(label: str) -> bool:
    return _bare(label) in _USUAL | _LIKELY | _POSSIBLE


@lru_cache(maxsize=4096)
def _bare(label: str) -> str:
    label = unicodedata.normalize("NFKC", label)
    last = _DIRECTION.sub("", label).split(":")[-1]  # Other(e1,e2), per:no_relation
    return "".join(filter(str.isalnum, last.casefold())) or label
