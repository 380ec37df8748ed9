"""Probabilities: thresholds, and how well they fit what is right."""

import json
import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from umie.errors import UmieError
from umie.extraction import Extractor
from umie.extraction.calibration import Judged, calibrate, calibration_error, fit_temperature, judged_items
from umie.processor import UmieProcessor
from umie.records import write_jsonl
from umie.tasks import Items
from umie.tasks.base import tempered

TASKS = ["mner", "mre", "med", "meae"]


def found_by(model, processor, records, **options):
    """Return all items of the records with their probabilities."""
    extractor = Extractor(model, processor, **options)
    return [
        [
            (name, item, processor.task(name).probability_of(item))
            for name in TASKS
            for item in processor.task(name).items(one.record)
        ]
        for one in extractor.extract_many(records)
    ]


@pytest.fixture(scope="module")
def scored(variant):
    return variant(decoder={"name": "span", "threshold": 0.12, "max_width": 2}, fusion="gated")


@given(st.floats(0, 1), st.floats(0.05, 20))
def test_a_temperature_keeps_order_and_can_be_undone(value, temperature):
    changed = tempered(value, temperature)
    assert 0 <= changed <= 1
    assert (changed >= 0.5) == (value >= 0.5) or math.isclose(value, 0.5, abs_tol=1e-9)
    if 1e-4 < changed < 1 - 1e-4:
        assert tempered(changed, 1 / temperature) == pytest.approx(value, abs=1e-6)
    if 0 < value < 1 and temperature != 1:  # by the definition
        expected = 1 / (1 + math.exp(min(700, -(math.log(value) - math.log1p(-value)) / temperature)))
        assert changed == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.floats(0, 1), max_size=6), st.floats(0, 1))
def test_items_at_least_a_threshold(values, threshold):
    items = Items([f"item {place}" for place in range(len(values))], 3, values, values)
    kept = items.at_least(threshold)
    assert list(kept) == [item for item, value in zip(items, values, strict=True) if value >= threshold]
    assert kept.probabilities == [value for value in values if value >= threshold]
    assert kept.dropped == 3
    bare = Items(["one"], 1)
    assert bare.at_least(1.0) is bare


def test_a_threshold_leaves_out_items_and_what_depends_on_them(learned, learned_records):
    model, processor = learned
    everything = found_by(model, processor, learned_records)
    values = sorted(value for found in everything for _, _, value in found)
    middle = values[len(values) // 2]
    for found in found_by(model, processor, learned_records, threshold=middle):
        assert all(value >= middle for _, _, value in found)
    none = list(Extractor(model, processor, threshold=1.0).extract_many(learned_records[:6]))
    assert not any(one.entities or one.events for one in none)
    assert not any(answer.task == "meae" for one in none for answer in one.answers)  # no event, so no question
    of_mner = found_by(model, processor, learned_records, threshold={"mner": 1.0})
    assert not any(task == "mner" for found in of_mner for task, _, _ in found)
    before = [[one for one in found if one[0] == "med"] for found in everything]
    assert [[one for one in found if one[0] == "med"] for found in of_mner] == before


def test_a_threshold_may_be_below_that_of_the_decoder(scored, learned_records):
    model, processor = scored
    low, own = (found_by(model, processor, learned_records[:6], **one) for one in ({"threshold": 0.05}, {}))
    assert {value < 0.12 for found in low for task, _, value in found if task != "mre"} == {True, False}
    assert all(value >= 0.12 for found in own for task, _, value in found if task != "mre")


@pytest.mark.parametrize("kind", ["scored", "learned"])
def test_temperatures_change_probabilities_and_nothing_else(kind, request, learned_records, tmp_path):
    model, processor = request.getfixturevalue(kind)
    before = found_by(model, processor, learned_records[:8])
    processor.save_pretrained(tmp_path)
    options = json.loads((tmp_path / "umie_processor.json").read_text())
    assert "temperatures" not in options
    again = UmieProcessor.from_pretrained(tmp_path)
    again.temperatures = {"mner": 2.5, "med": 0.4}
    again.save_pretrained(tmp_path)
    loaded = UmieProcessor.from_pretrained(tmp_path)
    assert loaded.temperatures == again.temperatures
    threshold = {"threshold": {"mner": 0.32}} if kind == "scored" else {}
    after = found_by(model, loaded, learned_records[:8], **threshold)
    by_hand = {"mner": 2.5, "med": 0.4}
    for old, new in zip(before, after, strict=True):
        expected = [(task, item, tempered(value, by_hand.get(task, 1))) for task, item, value in old]
        if threshold:
            expected = [one for one in expected if one[0] != "mner" or one[2] >= 0.32]
        assert [one[:2] for one in new if one[0] != "mre"] == [one[:2] for one in expected if one[0] != "mre"]
        for one, wanted in zip(new, expected, strict=True) if not threshold else ():
            assert one[2] == pytest.approx(wanted[2], abs=1e-6)


def test_bad_thresholds_and_temperatures(learned):
    model, processor = learned
    with pytest.raises(UmieError, match=r"threshold is 1.5: use a number >= 0 and <= 1"):
        Extractor(model, processor, threshold=1.5)
    with pytest.raises(UmieError, match=r"threshold of mner is 'high'"):
        Extractor(model, processor, threshold={"mner": "high"})
    with pytest.raises(UmieError, match="Unknown task 'ner'"):
        Extractor(model, processor, threshold={"ner": 0.5})
    with pytest.raises(UmieError, match="threshold needs the probabilities"):
        Extractor(model, processor, threshold=0.5, probabilities=False)
    with pytest.raises(UmieError, match=r"temperatures.mner is 0: use a number greater than 0"):
        UmieProcessor(processor.tokenizer, processor.encoder, temperatures={"mner": 0})


def test_the_error_is_that_of_the_definition():
    values = np.array([0.95, 0.91, 0.55, 0.05])
    right = np.array([1.0, 0.0, 1.0, 0.0])
    assert calibration_error(values, right) == pytest.approx((2 * abs(0.93 - 0.5) + 0.45 + 0.05) / 4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.slow
def test_the_temperature_of_overconfident_probabilities_is_found(temperature):
    random = np.random.default_rng(0)
    true = random.uniform(0.02, 0.98, 20_000)
    right = (random.random(len(true)) < true).astype(float)
    said = np.array([tempered(value, 1 / temperature) for value in true])
    assert fit_temperature(said, right) == pytest.approx(temperature, rel=0.05)
    found = calibrate([Judged(*one, place) for place, one in enumerate(zip(said, right > 0, strict=True))])
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.error_after < 0.02
    assert (found.error > 0.05) == (temperature != 1)
    assert found.chance[0] <= found.chance[1] < 0.02
    assert temperature == 1 or found.helps
    assert sum(one.number for one in found.bins) == found.items == 20_000
    assert all(one.low <= one.share <= one.high for one in found.bins)


def test_items_are_judged_as_in_the_strict_f1(learned, learned_records):
    model, processor = learned
    extractor = Extractor(model, processor)
    records = learned_records[:12]
    judged = judged_items(extractor, records, TASKS)
    for name in ("mner", "med"):
        kind = {"mner": "entities", "med": "events"}[name]
        keys = {"mner": lambda one: (one.span, one.type), "med": lambda one: (one.trigger, one.type)}[name]
        right = total = 0
        for record, found in zip(records, extractor.extract_many(records, tasks=[name]), strict=True):
            own, gold = ({keys(one) for one in getattr(side, kind)} for side in (found.record, record))
            if not record.annotated_for(name):
                continue
            total += len(own)
            right += len(own & gold)
        assert (len(judged[name]), sum(one.is_right for one in judged[name])) == (total, right)
        assert right > 0
    assert judged_items(extractor, records, TASKS) == judged


def test_the_command_reports_draws_and_saves(umie, learned_checkpoint, learned_records, tmp_path):
    import shutil

    model = tmp_path / "model"
    shutil.copytree(learned_checkpoint, model)
    processor = UmieProcessor.from_pretrained(model)
    processor.missing_images = "text_only"
    processor.save_pretrained(model)
    plain = [record for record in learned_records if record.image is None] * 4
    write_jsonl(tmp_path / "dev.jsonl", plain)
    options = ["--model", model, "--data", tmp_path / "dev.jsonl", "--figure", tmp_path / "reliability.svg"]
    before = json.loads(umie("calibrate", *options[:4], "--json")[1])
    code, out, err = umie("calibrate", *options, "--save")
    assert code == 0, err
    assert "ECE" in out
    assert "<svg" in (tmp_path / "reliability.svg").read_text()
    loaded = UmieProcessor.from_pretrained(model)
    found = json.loads(umie("calibrate", *options[:4], "--json")[1])
    assert umie("calibrate", *options[:4], "--save")[0] == 0
    again = UmieProcessor.from_pretrained(model).temperatures
    other = json.loads((model / "umie_processor.json").read_text())
    assert other["missing_images"] == "text_only"
    for name, value in loaded.temperatures.items():  # what was saved counts the next time
        assert value == pytest.approx(before[name]["temperature"], rel=1e-3)
        if found[name]["error"] > found[name]["chance"][1] and found[name]["loss"][1] < found[name]["loss"][0]:
            assert again[name] == pytest.approx(value * found[name]["temperature"], rel=1e-2)
    clear = {name for name, one in before.items() if one["error"] > one["chance"][1] and one["share"] < 1}
    assert loaded.temperatures.keys() == {name for name in clear if before[name]["loss"][1] < before[name]["loss"][0]}
    assert umie("calibrate", "--model", "owner/model", "--data", tmp_path / "dev.jsonl", "--save")[0] == 2
    (tmp_path / "empty.jsonl").write_text('{"text": "Ann", "tasks": []}\n')
    assert "no record is annotated" in umie("calibrate", *options[:2], "--data", tmp_path / "empty.jsonl")[2]


def test_thresholds_on_the_command_line(umie, learned_checkpoint):
    text = ["extract", "--model", learned_checkpoint, "--json", "Saw Mijo Bazo this morning ."]
    everything = json.loads(umie(*text)[1])
    assert everything["entities"]
    assert not json.loads(umie(*text, "--threshold", "1")[1]).get("entities")
    assert json.loads(umie(*text, "--threshold", "med=1")[1])["entities"] == everything["entities"]
    assert "--threshold x: use a number" in umie(*text, "--threshold", "x")[2]
    assert "name the task of each" in umie(*text, "--threshold", "0.1", "--threshold", "0.2")[2]
