"""Statistics of a file of records, computed in one pass and in constant memory."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

from umie.audit.checks import all_tasks
from umie.audit.images import Presence, presence
from umie.records import MEDIA, Medium, Record
from umie.records.model import annotated_spans
from umie.records.places import PLACES, PLURALS
from umie.scoring.groups import COMBINATIONS

PERCENTILES = (5, 25, 50, 75, 95, 99)
MAX_LABELS = 10_000  # distinct labels per task that are counted separately; bounds memory for malformed files
OTHER = "(other labels)"
_COUNTED = ("entities", "relations", "events", *PLACES.values())


class Statistics:
    """Counts over records: ``add`` each record, then get the ``summary``.

    Lengths are stored as histograms, so percentiles are exact, and memory depends only on the number of distinct
    lengths and labels. ``images`` is whether to check that the files of images, sounds and videos exist.
    """

    def __init__(self, *, images: bool = True) -> None:
        self.checks_images = images
        self.records = 0
        self.labels: dict[str, Counter[str]] = defaultdict(Counter)
        self.annotated: Counter[str] = Counter()
        self.items: Counter[str] = Counter()
        self.lengths: dict[str, Counter[int]] = {
            name: Counter() for name in ("characters", "words", *_COUNTED, "words of a span")
        }
        self.media: dict[Medium, Counter[str]] = {medium: Counter() for medium in MEDIA}
        self.combinations: Counter[str] = Counter()
        self.spans = 0
        self.multi_word = 0

    def add(self, record: Record) -> None:
        """Count one record."""
        self.records += 1
        lengths = self.lengths
        lengths["characters"][len(record.text)] += 1
        lengths["words"][len(record.text.split())] += 1
        self.combinations[record.combination] += 1
        for name in _COUNTED:
            number = len(getattr(record, name))
            lengths[name][number] += 1
            self.items[name] += number
        for event in record.events:
            for argument in event.arguments:
                media = [PLURALS[medium][:-1] for medium in MEDIA if argument.places.of(medium)]
                self.items[f"arguments in the {'text' if argument.span is not None else ' and '.join(media)}"] += 1
        for _, span in annotated_spans(record.entities, record.relations, record.events):
            words = len(record.text[slice(*span)].split())
            self.spans += 1
            self.multi_word += words > 1
            lengths["words of a span"][words] += 1
        for name, task in all_tasks().items():
            if record.annotated_for(name):
                self.annotated[name] += 1
                for label in task.used_labels(record):
                    counter = self.labels[name]
                    counter[label if label in counter or len(counter) < MAX_LABELS else OTHER] += 1
        for medium, counts in self.media.items():
            numbers = range(len(record.of(medium)))
            counts["named"] += bool(numbers)
            counts["several"] += len(numbers) > 1
            if numbers and self.checks_images:
                counts["found"] += all(presence(record, medium, number) is Presence.FOUND for number in numbers)

    def summary(self) -> dict[str, Any]:
        """Return all statistics in JSON form."""
        return {
            "records": self.records,
            "annotated_for": dict(sorted(self.annotated.items())),
            "items": {name: count for name, count in self.items.items() if count},
            "labels": {name: dict(counter.most_common()) for name, counter in sorted(self.labels.items())},
            "lengths": {name: _describe(counter) for name, counter in self.lengths.items() if counter},
            "spans": {
                "total": self.spans,
                "multi_word": self.multi_word,
                "multi_word_share": _share(self.multi_word, self.spans),
            },
            "combinations": {name: self.combinations[name] for name in COMBINATIONS if self.combinations[name]},
            **{PLURALS[medium]: self._of_medium(counts) for medium, counts in self.media.items()},
        }

    def _of_medium(self, counts: Counter[str]) -> dict[str, Any]:
        named, several, found = (counts[name] for name in ("named", "several", "found"))
        return {
            "named": named,
            "named_share": _share(named, self.records),
            **({"several": several} if several else {}),
            "checked": self.checks_images,
            "found": found if self.checks_images else None,
            "missing": named - found if self.checks_images else None,
            "missing_share": _share(named - found, named) if self.checks_images else None,
        }


def gather(
    records: Iterable[Record], *, images: bool = True, progress: Callable[[], None] = lambda: None
) -> Statistics:
    """Return the statistics of records; ``progress`` is called once per record."""
    statistics = Statistics(images=images)
    for record in records:
        statistics.add(record)
        progress()
    return statistics


def _describe(histogram: Counter[int]) -> dict[str, float]:
    """Return minimum, mean, maximum and percentiles (nearest rank) of a histogram."""
    values = sorted(histogram)
    totals = list(accumulate(histogram[value] for value in values))  # the numbers of items up to each value
    total = totals[-1]
    mean = sum(value * count for value, count in histogram.items()) / total
    ranks = {f"p{percentile}": max(1, -(-percentile * total // 100)) for percentile in PERCENTILES}
    percentiles = {name: values[bisect_left(totals, rank)] for name, rank in ranks.items()}
    return {"min": values[0], "mean": mean, "max": values[-1], **percentiles}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
