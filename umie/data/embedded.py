"""The embedded data sets by the name of their format: their records are drawn, not read from files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from umie.data import media_contents, synthetic, synthetic_media
from umie.records import Record
from umie.registry import first_sentence

ByCombination: TypeAlias = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class EmbeddedSet:
    """How an embedded data set is drawn.

    Args:
        config: the class of its options; ``train``, ``dev`` and ``test`` are numbers of records, or of records of each
            combination.
        labels: the label schema of each task.
        scenes: yields scenes, each with a ``record``, for a config and the name of a split.
        write: writes the splits to a folder.
        ceilings: returns the best F1 by task of a model that sees only the text, for a config and the tasks in which
            places count.
        ceilings_by_combination: returns, for the same, the best F1 by combination, task, and what of it is seen; empty
            if it is not known.
        smallest: the least number of records with one of each kind.
        unit: what the numbers of the config count.
        version: of what is drawn for the same config; results of other versions are results on other data.
        unseen: what a model that sees only the text is without.
    """

    config: type[Any]
    labels: Mapping[str, tuple[str, ...]]
    scenes: Callable[[Any, str], Iterator[Any]]
    write: Callable[[str | Path, Any], dict[str, Path]]
    ceilings: Callable[[Any, Collection[str]], Mapping[str, float]]
    smallest: int
    unit: str
    unseen: str
    version: int = 1
    ceilings_by_combination: Callable[[Any, Collection[str]], ByCombination] = lambda config, grounded: {}

    def records(self, config: Any, split: str) -> Iterator[Record]:
        """Yield the records of a split, without their media."""
        return (scene.record for scene in self.scenes(config, split))


def _image_ceilings(config: Any, grounded: Collection[str]) -> Mapping[str, float]:
    return synthetic.ceilings(config)  # where the text decides, no place counts; where it does not, guesses do not pay


def _media_ceilings(config: Any, grounded: Collection[str]) -> Mapping[str, float]:
    known = synthetic_media.text_only_ceilings(config)
    return {task: one.grounded if task in grounded else one.typed for task, one in known.items()}


def _media_ceilings_by_combination(config: Any, grounded: Collection[str]) -> ByCombination:
    return {
        combination: {
            task: {seen: one.grounded if task in grounded else one.typed for seen, one in known.items()}
            for task, known in tasks.items()
        }
        for combination, tasks in synthetic_media.ceilings(config).items()
    }


EMBEDDED: Mapping[str, EmbeddedSet] = {
    "synthetic": EmbeddedSet(
        config=synthetic.SyntheticConfig,
        labels=synthetic.LABELS,
        scenes=synthetic.scenes,
        write=synthetic.write_synthetic,
        ceilings=_image_ceilings,
        smallest=3,
        unit="records",
        unseen="images",
    ),
    "synthetic_media": EmbeddedSet(
        config=synthetic_media.SyntheticMediaConfig,
        labels=media_contents.LABELS,
        scenes=synthetic_media.scenes,
        write=synthetic_media.write_synthetic_media,
        ceilings=_media_ceilings,
        smallest=2,
        unit="records of each combination",
        unseen="media",
        version=2,  # one word for each type of event
        ceilings_by_combination=_media_ceilings_by_combination,
    ),
}


def names() -> list[str]:
    """Return the names of the embedded data sets, which are formats in run and grid files and in ``umie evaluate``."""
    return list(EMBEDDED)


def summary(name: str) -> str:
    """Return a one-line description of an embedded data set."""
    return first_sentence(sys.modules[EMBEDDED[name].config.__module__].__doc__ or "")
