"""GMNER's own files as gold of `umie evaluate --predictions`: MNER (strict), EEG and GMNER in one table."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from umie import data
from umie.records import Region, write_jsonl

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "gmner"
TWEETS = """IMGID:17
Ann\tB-PER
Lee\tI-PER
visits\tO
NASA\tB-ORG
in\tO
Rome\tB-LOC

IMGID:18
Bob\tB-PER
"""
BOX = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>10</ymin><xmax>{}</xmax><ymax>90</ymax></bndbox></object>"
BOXES = BOX.format("Ann Lee", 0, 40) + BOX.format("Ann Lee", 100, 140) + BOX.format("NASA", 50, 90)
VOC = f"<annotation><size><width>200</width><height>100</height></size>{BOXES}</annotation>"


def measured(out: str) -> dict[str, tuple[float, int, int]]:
    """Return F1, predicted and annotated items of the three tasks in a table."""
    rows = [line.split() for line in out.splitlines() if line.split()[:1] in (["strict"], ["EEG"], ["GMNER"])]
    return {row[0]: (float(row[1]), int(row[-4]), int(row[-3])) for row in rows}


def test_one_command_scores_the_three_tasks(umie, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test.txt").write_text(TWEETS)
    (tmp_path / "xml").mkdir()
    (tmp_path / "xml" / "17.xml").write_text(VOC)
    predicted = [
        {
            "id": "17",
            "regions": [{"box": [0.5, 0.1, 0.7, 0.8]}, {"box": [0.6, 0.1, 1, 0.9]}],
            "entities": [
                {"type": "person", "span": [0, 7], "regions": [0]},  # IoU 0.875 with the second box
                {"type": "person", "span": [15, 19], "regions": [1]},  # the type and the box are wrong
                {"type": "person", "span": [23, 27]},  # the type is wrong, and it is not visible: right in EEG
            ],
        },
        {"id": "18", "entities": [{"type": "person", "span": [0, 3]}]},  # right in all
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in predicted))
    gold = ["--gold", "test.txt", "--format", "gmner", "--regions", "xml"]
    code, out, err = umie("evaluate", "--predictions", "p.jsonl", *gold, "--resamples", "100")
    assert (code, err) == (0, "")
    found = measured(out)
    assert found["strict"] == (0.5, 4, 4)
    assert found["EEG"] == (0.75, 4, 4)
    assert found["GMNER"] == (0.5, 4, 4)
    code, out, _ = umie("evaluate", "--predictions", "p.jsonl", *gold, "--train", "test.txt", "--json", "s.json")
    assert code == 0
    assert "mner: mentions of train" in out
    assert set(json.loads((tmp_path / "s.json").read_text())["files"]) == {"predictions", "gold", "train"}
    (tmp_path / "p.jsonl").write_text('{"text": "Ann"}\n{"text": "Bob"}\n')
    code, _, err = umie("evaluate", "--predictions", "p.jsonl", *gold)
    assert (code, err.count("\n")) == (2, 1)
    assert "p.jsonl:1: text is 'Ann', but test.txt: record 1 says" in err


@pytest.mark.skipif(not SHARED.is_dir(), reason="GMNER's published files are not there")
def test_published_files_are_scored_by_the_published_rule(umie, tmp_path):
    """Entities are joined by their span; a box is right if it matches any box, and none if there is none."""
    rng = random.Random(0)
    records = list(data.read("gmner", SHARED / "txt" / "dev.txt", regions=SHARED / "xml"))
    changed = [disturbed(record, rng) for record in records]
    write_jsonl(tmp_path / "p.jsonl", changed)
    gold = ["--gold", SHARED / "txt" / "dev.txt", "--format", "gmner", "--regions", SHARED / "xml"]
    code, out, _ = umie("evaluate", "--predictions", tmp_path / "p.jsonl", *map(str, gold), "--resamples", "100")
    assert code == 0
    found = measured(out)
    right = [published(*pair) for pair in zip(changed, records, strict=True)]
    numbers = [sum(len(record.entities) for record in side) for side in (changed, records)]
    for name, correct in zip(("strict", "EEG", "GMNER"), map(sum, zip(*right, strict=True)), strict=True):
        assert found[name] == (pytest.approx(2 * correct / sum(numbers), abs=5e-4), *numbers), name
        assert 0.3 < found[name][0] < 0.9, name


def disturbed(record, rng):
    """Return a record with at most one box for each entity, moved boxes, and wrong types, spans and groundings."""
    entities = []
    for entity in record.entities:
        regions = entity.regions and (rng.choice(entity.regions),)
        chance = rng.random()
        if chance < 0.1:
            continue
        if chance < 0.2:
            entity = replace(entity, type=rng.choice(("person", "location")))
        elif chance < 0.3 and entity.text[:-1].strip():
            entity = replace(entity, span=(entity.span[0], entity.span[1] - 1), text="")
        elif chance < 0.4:
            regions = () if regions else (0,) * bool(record.regions)
        entities.append(replace(entity, regions=regions))
    return replace(record, entities=entities, regions=[Region(moved(region.box, rng)) for region in record.regions])


def moved(box, rng):
    x1, y1, x2, y2 = box
    return (x1 + (x2 - x1) * rng.uniform(0, 0.6), y1, x2, y2 - (y2 - y1) * rng.uniform(0, 0.3))


def published(predicted, gold):
    """Return how many entities are right in MNER, EEG and GMNER."""
    known = {
        entity.span: (entity.type, [gold.regions[index].box for index in entity.regions]) for entity in gold.entities
    }
    counts = [0, 0, 0]
    for entity in predicted.entities:
        if entity.span not in known:
            continue
        kind, boxes = known[entity.span]
        own = [predicted.regions[index].box for index in entity.regions]
        shown = any(iou(one, other) >= 0.5 for one in own for other in boxes) if own and boxes else own == boxes
        for task, correct in enumerate((entity.type == kind, shown, entity.type == kind and shown)):
            counts[task] += correct
    return counts


def iou(one, other):
    def area(x1, y1, x2, y2):
        return max(0, x2 - x1) * max(0, y2 - y1)

    shared = area(*map(max, one[:2], other[:2]), *map(min, one[2:], other[2:]))
    return shared / (area(*one) + area(*other) - shared)
