"""Tasks registered by a file outside the package are scored and evaluated like built-in ones."""

import json

import pytest

from umie import registry as registries
from umie.evaluation.checkpoint import evaluate_checkpoint
from umie.evaluation.schema import choose_tasks
from umie.loading import load
from umie.records import Entity, Record, read_jsonl, write_jsonl
from umie.registry import load_plugins
from umie.scoring import Prediction, score_predictions, strict_score, strict_sheet
from umie.tasks import registry

PLUGIN = '''
from dataclasses import replace

from umie.records import Entity
from umie.tasks import Query, Task, registry
from umie.tasks.base import written
from umie.tasks.grammar import AnswerSchema, locate
from umie.tasks.mner import MNER


@registry.register("ner2")
class NER2(MNER):
    """Entities, asked for in other words."""

    name = "ner2"
    default_labels = ("person", "location")
    templates = {"paper": "Names of: {labels}"}


@registry.register("years")
class Years(Task[Entity]):
    """Years, stored as entities of the type ``year``."""

    name = "years"
    default_labels = ("year",)
    label_noun = "year"
    templates = {"paper": "Which years are mentioned: {labels}"}

    def queries(self, record):
        items = [written(item.type, record, item.span) for item in self.items(record)]
        return [self._query(items)]

    def answer_schema(self, record, target=None):
        return AnswerSchema(labels=self.labels, spans=True)

    def items(self, record):
        return [entity for entity in record.entities if entity.type == "year"]

    def with_items(self, record, items):
        others = [entity for entity in record.entities if entity.type != "year"]
        return replace(record, entities=(*others, *items))

    def used_labels(self, record):
        return (item.type for item in self.items(record))

    def _read(self, raw, record, target):
        span = locate(record.text, raw.filler, raw.occurrence) if raw.filler else None
        return Entity(raw.label, span, record.text[slice(*span)]) if span else None
'''
TEXT = "Ann left Rome in 1984"
ANN, ROME, YEAR = Entity("person", (0, 3)), Entity("location", (9, 13)), Entity("year", (17, 21))
GOLD = [
    Record(TEXT, entities=(ANN, ROME), tasks=("ner2",), id="1"),
    Record(TEXT, entities=(YEAR,), tasks=("years",), id="2"),
]


@pytest.fixture
def plugin(tmp_path, tokenizer):
    """A plugin file; its tasks are removed after the test. The tokenizer is trained before, without their words."""
    path = tmp_path / "my_tasks.py"
    path.write_text(PLUGIN, encoding="utf-8")
    yield path
    unload()


def unload():
    registries._loaded.clear()
    for name in ("ner2", "years"):
        registry._parts.pop(name, None)


def test_predictions_of_registered_tasks_are_scored(plugin):
    load_plugins([plugin])
    half = [Record(TEXT, entities=(ANN,)), Record(TEXT)]
    report = score_predictions(GOLD, [Prediction(record) for record in half], resamples=100)
    assert report.line("ner2", "strict").score[3:] == (1, 1, 2)
    assert report.line("ner2", "boundary").score.f1 == pytest.approx(2 / 3)
    assert report.line("years", "strict").score[3:] == (0, 0, 1)
    assert report.line("years", "strict").baseline == "nothing"
    assert [one.task for one in report.released] == ["ner2"]
    assert strict_score("years", GOLD[1:], GOLD[1:])["f1"] == 1
    assert strict_sheet("years", GOLD[1:], GOLD[1:], "grounded").score().f1 == 1  # its only measure compares all
    assert strict_score("ner2", half[:1], GOLD[:1])["f1"] == pytest.approx(2 / 3)


def test_a_checkpoint_is_evaluated_on_registered_tasks(plugin, variant):
    load_plugins([plugin])
    model, processor = variant(tasks={"ner2": {}, "years": {"labels": ["year", "decade"]}})
    selection = choose_tasks(processor, GOLD)
    assert set(selection.scored) == {"ner2", "years"}
    (result,) = evaluate_checkpoint(model, processor, GOLD, selection, resamples=100, max_new_tokens=8)
    assert {line.task for line in result.report.lines} == {"ner2", "years"}
    assert {task: len(found) for task, found in result.predictions.items()} == {"ner2": 1, "years": 1}


def test_the_command_evaluates_registered_tasks(plugin, variant, umie, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load_plugins([plugin])
    for part in variant(tasks={"ner2": {}, "years": {}}, max_target_tokens=8):
        part.save_pretrained("checkpoint")
    write_jsonl("gold.jsonl", GOLD)
    arguments = ("evaluate", "--model", "checkpoint", "--data", "gold.jsonl", "--output", "report")
    unload()
    code, _, err = umie(*arguments)
    assert code == 2
    assert "Unknown task 'ner2'" in err
    assert "--plugin" in err
    code, out, err = umie(*arguments, "--plugin", plugin)
    assert code == 0, err
    assert "ner2, all, 1 records" in out
    found = json.loads((tmp_path / "report" / "scores.json").read_text(encoding="utf-8"))
    assert set(found["decodings"]["constrained"]["seconds"]) == {"ner2", "years"}
    assert [record.id for record in read_jsonl("report/predictions-constrained/years.jsonl")] == ["2"]
    unload()
    files = ("--predictions", "gold.jsonl", "--gold", "gold.jsonl", "--task", "ner2")
    assert umie("evaluate", *files)[0] == 2
    code, out, _ = umie("evaluate", *files, "--plugin", plugin)
    assert code == 0
    assert "1.000" in out


def test_loading_a_checkpoint_names_the_missing_task(plugin, variant, tmp_path):
    load_plugins([plugin])
    for part in variant(tasks={"years": {}}):
        part.save_pretrained(tmp_path / "checkpoint")
    unload()
    with pytest.raises(ValueError, match=r"checkpoint.*: Unknown task 'years'.*--plugin"):
        load(tmp_path / "checkpoint")
