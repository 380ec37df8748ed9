"""`umie evaluate --predictions`: tables, files and errors."""

import dataclasses
import json
import re

import pytest
from PIL import Image

from umie.data.synthetic_media import SyntheticMediaConfig, scenes
from umie.records import Entity, Record, Region, Relation, write_jsonl

TEXT = "Ann [sic] met Bob in Rome"
ANN, BOB, ROME = (0, 3), (14, 17), (21, 25)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Gold entities and relations, predictions with half of them, and training records."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    gold, half = [], []
    for number in range(20):
        entities = (Entity("per[son]", ANN), Entity("location", ROME))
        relations = (Relation("peer", ANN, BOB), Relation("none", ANN, ROME))
        gold.append(Record(TEXT, entities=entities, relations=relations, id=str(number)))
        half.append(Record(TEXT, entities=entities[number % 2 :], relations=relations[number % 2 :], id=str(number)))
    write_jsonl("g.jsonl", gold)
    write_jsonl("p.jsonl", half)
    write_jsonl("t.jsonl", [Record("in Rome", entities=(Entity("location", (3, 7)),))])
    return tmp_path


def row(out, name, part=""):
    """Return the cells of the first line after ``part`` that starts with ``name``."""
    lines = out[out.index(part) :].splitlines()
    return next(line for line in lines if line.strip().startswith(f"{name} ")).split()


def test_scores_in_tables_that_fit_the_terminal(umie, files):
    code, out, err = umie("evaluate", "--predictions", "p.jsonl", "--gold", "g.jsonl", "--train", "t.jsonl")
    assert (code, err) == (0, "")
    strict = row(out, "strict", "mner, all, 20 records")
    assert strict[:2] == ["strict", "0.857"]  # 30 of 40: P 100, R 75
    assert strict[-6:] == ["1.000", "0.750", "30", "40", "0.667", "(1)"]
    low, high = float(strict[2]), float(strict[4])
    assert low < 0.857 < high
    assert "baseline (1) mner: mentions of train" in out
    assert row(out, "with none,", "mre, all, 20 records")
    tables = [line for line in out.splitlines() if not line.startswith(("baseline", "released"))]
    assert max(map(len, tables)) <= 80
    assert "intervals: 1000 resamples of the records, seed 0" in out


def test_groups_of_which_there_is_one(umie, files):
    code, out, _ = umie("evaluate", "--predictions", "p.jsonl", "--gold", "g.jsonl", "--group-by", "alignment")
    assert code == 0
    assert "show the same items: there are not two groups of records to show" in " ".join(out.split())


def test_combinations_of_media_are_one_table_below(umie, files):
    gold = [scene.record for scene in scenes(SyntheticMediaConfig(train=0, dev=0, test=4), "test")]
    write_jsonl("g.jsonl", gold)
    write_jsonl("p.jsonl", [dataclasses.replace(one, entities=one.entities[:1]) for one in gold])
    command = ("evaluate", "--predictions", "p.jsonl", "--gold", "g.jsonl", "--other", "g.jsonl", "--labels")
    code, out, _ = umie(*command)
    assert code == 0
    titles = [line.split(",")[:2] for line in out.splitlines() if re.match(r"m\w+, .* records", line)]
    assert titles == [["mner", " all"], ["mre", " all"], ["med", " all"], ["meae", " all"]] * 3  # scores, labels, tests
    scores, tests = out.split("by combination of media; for all measures of one: --modality")[1:]
    for table in (scores, tests):
        lines = table.partition("\nbaseline")[0].partition("\nreleased")[0].splitlines()
        groups = [line.split()[:3] for line in lines if re.match(r" m\w+ ", line)]
        names = {"mner": ["I", "A", "T+I", "T+A", "I+A", "T+I+A"], "med": ["V", "T+V", "A+V"]}
        names |= {"mre": names["mner"], "meae": names["med"]}
        assert groups == [
            [task, name, measure]
            for task in ("mner", "mre", "med", "meae")
            for name in names[task]
            for measure in ("strict", "grounded")
        ]
        assert max(map(len, lines)) <= 80
    assert row(scores, "mner")[:5] == ["mner", "I", "strict", "1.000", "1.000"]
    _, out, _ = umie(*command[:5], "--modality", "T+I")
    assert "mner, T+I, 2 records" in out
    assert "boundary" in out
    assert "by combination" not in out


@pytest.mark.parametrize(
    "outputs", [("--groundings", "p.jsonl"), ("--json", "g.jsonl"), ("--json", "a", "--groundings", "a")]
)
def test_no_input_and_no_output_is_overwritten(umie, files, outputs):
    write_jsonl("g.jsonl", [Record(TEXT, entities=(Entity("person", ANN),))])
    write_jsonl("p.jsonl", [Record(TEXT)])
    before = [(files / name).read_bytes() for name in ("p.jsonl", "g.jsonl")]
    code, out, err = umie("evaluate", "--predictions", "p.jsonl", "--gold", "g.jsonl", *outputs)
    assert (code, out) == (2, "")
    assert "is the same file as" in err
    assert [(files / name).read_bytes() for name in ("p.jsonl", "g.jsonl")] == before
    assert not (files / "a").exists()


def test_the_verdict_on_each_grounding_is_counted_and_written(umie, files):
    regions = (Region((0, 0, 0.4, 1)), Region((0.6, 0, 1, 1)))
    gold = Record(TEXT, id="7", image="1.jpg", regions=regions, entities=(Entity("person", ANN, regions=(0,)),))
    swapped = dataclasses.replace(gold, entities=(Entity("person", ANN, regions=(1,)),))
    write_jsonl("g.jsonl", [gold])
    write_jsonl("p.jsonl", [swapped])
    code, out, err = umie("evaluate", "--predictions", "p.jsonl", "--gold", "g.jsonl", "--groundings", "v.jsonl")
    assert (code, err) == (0, "")
    assert row(out, "wrong place", "mner, groundings")[2:] == ["1.000", "1.000", "to", "1.000", "1", "1"]
    assert row(out, "I-Seg", "mner, groundings")[1:] == ["0.000", "0.000", "to", "0.000", "0", "1"]
    assert "Written: v.jsonl (2 groundings)" in out
    lines = [json.loads(line) for line in (files / "v.jsonl").read_text(encoding="utf-8").splitlines()]
    shared = {"record": 1, "id": "7", "task": "mner", "medium": "image", "type": "person", "offsets": [list(ANN)]}
    assert lines == [
        {**shared, "side": "predicted", "verdict": "wrong place", "place": "O2"},
        {**shared, "side": "annotated", "verdict": "miss-grounding", "place": "O1"},
    ]


def test_labels_with_brackets_are_printed_as_they_are(umie, files):
    _, out, _ = umie("evaluate", "--predictions", "p.jsonl", "--gold", "g.jsonl", "--labels")
    assert row(out, "per[son]")[:2] == ["per[son]", "0.667"]
    assert row(out, "location")[:2] == ["location", "1.000"]
    _, out, _ = umie("evaluate", "--predictions", "p.jsonl", "--gold", "g.jsonl")
    assert "per[son]" not in out


def test_the_published_scorer_and_what_it_drops(umie, files):
    _, out, _ = umie("evaluate", "--predictions", "p.jsonl", "--gold", "g.jsonl", "--task", "mre")
    (line,) = (line for line in out.splitlines() if line.startswith("released"))
    assert "It drops 20 of 40 gold items (50.0%: 20 another relation of the same head) and 10 of 30" in line
    assert "a perfect prediction has F1 1.000, from 20 of 40 items" in line
    assert "mner" not in out


def test_two_systems_are_compared(umie, files):
    code, out, _ = umie("evaluate", "--predictions", "g.jsonl", "--gold", "g.jsonl", "--other", "p.jsonl")
    assert code == 0
    assert "A is g.jsonl, B is p.jsonl" in out
    strict = row(out, "strict", "A is g.jsonl")
    assert strict[1:4] == ["1.000", "0.857", "+0.143"]
    assert 0 < float(strict[-1]) < 0.01
    _, out, _ = umie("evaluate", "--predictions", "p.jsonl", "--gold", "g.jsonl", "--other", "p.jsonl")
    assert row(out, "strict", "A is p.jsonl")[-2:] == ["1.0000", "1.0000"]


def test_the_json_file_describes_files_and_settings(umie, files):
    arguments = ["--predictions", "p.jsonl", "--gold", "g.jsonl", "--seed", "7", "--resamples", "200"]
    code, out, _ = umie("evaluate", *arguments, "--json", "made/scores.json")
    assert code == 0
    assert "Written: made/scores.json" in out
    data = json.loads((files / "made" / "scores.json").read_text(encoding="utf-8"))
    assert (data["seed"], data["resamples"]) == (7, 200)
    assert set(data["files"]) == {"predictions", "gold"}
    assert len(data["files"]["gold"]["sha256"]) == 64
    assert set(data["versions"]) == {"umie", "python", "numpy", "scipy"}
    assert data["measures"][0]["f1"] == pytest.approx(6 / 7)
    again = umie("evaluate", *arguments, "--json", "again.json")
    assert again[0] == 0
    assert (files / "again.json").read_bytes() == (files / "made" / "scores.json").read_bytes()


def test_figures_of_scores_and_labels(umie, files):
    code, out, _ = umie("evaluate", "--predictions", "p.jsonl", "--gold", "g.jsonl", "--labels", "--figure", "f.png")
    assert code == 0
    for name in ("f.png", "f-labels.png"):
        assert f"Written: {name}" in out
        with Image.open(files / name) as image:
            assert image.format == "PNG"
    assert umie("evaluate", "--predictions", "p.jsonl", "--gold", "g.jsonl", "--figure", "f.pdf")[0] == 0
    assert (files / "f.pdf").read_bytes().startswith(b"%PDF")


def test_mentions_without_offsets_are_scored_only_as_strings(umie, files):
    lines = [
        {"id": str(number), "entities": [{"type": "location", "text": "Rome"}, {"type": "per[son]", "text": "Ann"}]}
        for number in range(20)
    ]
    (files / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, out, _ = umie("evaluate", "--predictions", "p.jsonl", "--gold", "g.jsonl", "--task", "mner")
    assert code == 0
    assert row(out, "string")[1] == "1.000"
    assert "strict" not in out
    assert not any(line.startswith("released") for line in out.splitlines())
    assert "omitted: released mner: it needs the offsets of all mentions\n" in out


def test_a_task_that_cannot_be_scored_is_named(umie, files):
    event = {"type": "meet", "trigger": [0, 3], "arguments": [{"role": "Entity", "region": 0}]}
    line = {"id": "1", "text": TEXT, "image": "1.jpg", "regions": [{"box": [0, 0, 1, 1]}]}
    (files / "g.jsonl").write_text(json.dumps({**line, "events": [event]}))
    (files / "p.jsonl").write_text(json.dumps({**line, "events": [{**event, "trigger": {"text": "Ann"}}]}))
    arguments = ("evaluate", "--predictions", "p.jsonl", "--gold", "g.jsonl", "--task", "meae")
    code, out, _ = umie(*arguments, "--json", "s.json")
    assert code == 0
    assert "omitted: meae: some mentions have no offsets" in out
    assert set(json.loads((files / "s.json").read_text())["left_out"]) == {"meae", "released meae"}
    code, _, err = umie(*arguments, "--figure", "f.png")
    assert (code, err.count("\n")) == (2, 1)
    assert "f.png: no scores to draw" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predictions", "none.jsonl", "--gold", "g.jsonl"], "none.jsonl: cannot read"),
        (["--predictions", "p.jsonl", "--gold", "none.jsonl"], "none.jsonl: cannot read"),
        (["--predictions", "t.jsonl", "--gold", "g.jsonl"], "t.jsonl: has 1 records, but g.jsonl has 20"),
        (["--predictions", "p.jsonl", "--gold", "g.jsonl", "--task", "ner"], "Unknown task 'ner'"),
        (["--predictions", "p.jsonl", "--gold", "g.jsonl", "--task", "med"], "annotated for 'med'"),
        (["--predictions", "p.jsonl", "--gold", "g.jsonl", "--figure", "f.txt"], "--figure f.txt: use a name that"),
        (["--predictions", "p.jsonl", "--gold", "g.jsonl", "--resamples", "100001"], "Invalid value for '--resamples'"),
        (["--predictions", "p.jsonl", "--gold", "g.jsonl", "--resamples", "0"], "(see umie evaluate --help)"),
        (["--predictions", "p.jsonl", "--gold", "g.jsonl", "--modality", "text"], "Unknown modality 'text'"),
        (["--predictions", "p.jsonl", "--gold", "g.jsonl", "--other", "t.jsonl"], "t.jsonl: has 1 records"),
        (["--predictions", "p.jsonl", "--gold", "g.jsonl", "--train", "none.jsonl"], "none.jsonl: cannot read"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(umie, files, arguments, message):
    code, out, err = umie("evaluate", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_help_has_examples(umie):
    code, out, _ = umie("evaluate", "--help")
    assert code == 0
    assert "umie evaluate --predictions p.jsonl --gold g.jsonl --labels" in out
    assert '"entities": [{"type": "location", "span": [3, 7]}]' in out
    for option in ("--other", "--train", "--task", "--modality", "--json", "--figure", "--seed", "--resamples"):
        assert option in out


def test_the_example_in_the_help_works(umie, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = '{"id": "7", "text": "In Rome", "entities": [{"type": "location", "span": [3, 7]}]}\n'
    for name in ("p.jsonl", "g.jsonl"):
        (tmp_path / name).write_text(line)
    code, out, _ = umie("evaluate", "--predictions", "p.jsonl", "--gold", "g.jsonl", "--labels")
    assert code == 0
    assert row(out, "location")[1] == "1.000"


def test_a_file_of_one_task_is_scored_with_that_task(umie, tmp_path):
    """Like the files of a grid: records that are annotated only for other tasks have no line."""
    entity = {"type": "location", "span": [0, 4]}
    gold = [
        {"id": "1", "text": "Rome", "entities": [entity], "tasks": ["mner"]},
        {"id": "2", "text": "Oslo meets", "events": [{"type": "meet", "trigger": {"span": [5, 10]}}], "tasks": ["med"]},
        {"id": "3", "text": "Bern", "entities": [entity], "tasks": ["mner"]},
    ]
    files = {}
    for name, records in {"gold": gold, "found": [gold[2], gold[0]], "unnamed": [gold[0], gold[2]]}.items():
        files[name] = tmp_path / f"{name}.jsonl"
        drop = ("id",) if name == "unnamed" else ()
        files[name].write_text(
            "".join(json.dumps({k: v for k, v in r.items() if k not in drop}) + "\n" for r in records)
        )
    for name in ("found", "unnamed"):
        code, out, _ = umie("evaluate", "--predictions", files[name], "--gold", files["gold"], "--task", "mner")
        assert code == 0
        assert "mner, all, 2 records" in out
        assert "1.000" in out
    code, _, err = umie("evaluate", "--predictions", files["found"], "--gold", files["gold"])
    assert code == 2
    assert "has no record with the id '2'" in err
    assert "for predictions of only some tasks, use --task" in err


def test_labels_that_do_not_occur_in_gold_are_named(umie, tmp_path):
    gold, found = tmp_path / "g.jsonl", tmp_path / "p.jsonl"
    line = {"id": "1", "text": "Ann in Rome", "entities": [{"type": "person", "span": [0, 3]}]}
    gold.write_text(json.dumps({**line, "labels": {"mner": ["person", "location"]}}) + "\n")
    entities = [{"type": "PER", "span": [0, 3]}, {"type": "location", "span": [7, 11]}]
    found.write_text(json.dumps({**line, "entities": entities}) + "\n")
    _, out, _ = umie("evaluate", "--predictions", found, "--gold", gold)
    assert "note: mner: 1 predictions have labels that do not occur in gold: PER (1)" in " ".join(out.split())
    _, out, _ = umie("evaluate", "--predictions", gold, "--gold", gold)
    assert "do not occur in gold" not in out
