"""seqeval, an independent scorer, agrees on the published Twitter-17 for the measures that both define."""

import random
from dataclasses import replace

import pytest

from umie.records import Entity
from umie.scoring import Sheet
from umie.scoring.measures import measures_of

metrics = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed: pip install umie[dev]")
STRICT = measures_of("mner")[0]


def corrupted(record, random, rate):
    """Return the record with entities dropped, renamed, shortened by a word, and invented, at random."""
    words = [(start, start + len(word)) for start, word in _words(record.text)]
    entities = []
    for entity in record.entities:
        start, end = entity.span
        kind = random.choices(["keep", "drop", "rename", "shorten"], [1 - rate, rate / 3, rate / 3, rate / 3])[0]
        if kind == "rename":
            entities.append(Entity(random.choice(["person", "location", "organization", "planet"]), entity.span))
        elif kind == "shorten" and " " in record.text[start:end]:
            entities.append(Entity(entity.type, (start, record.text.rindex(" ", start, end))))
        elif kind == "keep":
            entities.append(Entity(entity.type, entity.span))
    for span in words:
        free = all(span[1] <= entity.span[0] or span[0] >= entity.span[1] for entity in entities)
        if free and random.random() < rate / 10:
            entities.append(Entity(random.choice(["person", "miscellaneous"]), span))
    return replace(record, entities=tuple(entities))


def bio(record):
    tags = []
    for start, _ in _words(record.text):
        inside = [entity for entity in record.entities if entity.span[0] <= start < entity.span[1]]
        tags.append(f"{'B' if inside[0].span[0] == start else 'I'}-{inside[0].type}" if inside else "O")
    return tags


def _words(text):
    start = 0
    for word in text.split(" "):
        yield start, word
        start += len(word) + 1


@pytest.mark.parametrize(("seed", "rate"), [(0, 0.0), (1, 0.1), (2, 0.4), (3, 0.9)])
def test_micro_macro_and_every_label_agree(published, seed, rate):
    gold = published("twitter", "twitter2017/test.txt")
    assert all(len(record.text.split()) == len(record.text.split(" ")) for record in gold)
    draw = random.Random(seed)
    predicted = [corrupted(record, draw, rate) for record in gold]
    report = metrics.classification_report(
        list(map(bio, gold)), list(map(bio, predicted)), output_dict=True, zero_division=0
    )
    sheet = Sheet.of(list(map(STRICT.count, predicted, gold)))
    assert 0.05 < sheet.score().f1 <= 1
    assert (sheet.score().f1 == 1) == (rate == 0)
    expected = {"micro": report.pop("micro avg"), "macro": report.pop("macro avg")}
    for average, theirs in expected.items():
        assert sheet.score(average)[:3] == pytest.approx((theirs["precision"], theirs["recall"], theirs["f1-score"]))
    report.pop("weighted avg")
    labels = sheet.by_label()
    assert set(labels) == set(report)
    for label, theirs in report.items():
        mine = labels[label]
        assert mine[:3] == pytest.approx((theirs["precision"], theirs["recall"], theirs["f1-score"]))
        assert mine.gold == theirs["support"]
