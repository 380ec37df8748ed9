"""`umie evaluate --model`: the report, its predictions, and errors."""

import dataclasses
import inspect
import json
import re

import pytest

from umie.cli.evaluate import evaluate as evaluate_command
from umie.evaluation import evaluate
from umie.loading import load
from umie.records import Entity, Event, Record, read_jsonl, write_jsonl
from umie.reports.checkpoint import EvaluationOptions

TASKS = ("mner", "mre", "med", "meae")

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def checkpoint(learned_checkpoint, tmp_path_factory):
    """The shared learned variant with shorter answers."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model, processor = load(learned_checkpoint, "cpu")
    processor.max_target_tokens = 48
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path, monkeypatch, embedded_records):
    """9 records with images in a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    records = []
    for record in embedded_records[:9]:
        record.image.save(tmp_path / "photos" / f"{record.id}.png")
        records.append(dataclasses.replace(record, image=f"{record.id}.png"))
    write_jsonl("test.jsonl", records)
    return tmp_path


def of(checkpoint, *more, data="test.jsonl", overwrite=True):
    more += ("--overwrite",) if overwrite else ()
    more += () if "--resamples" in more else ("--resamples", 100)
    return ("evaluate", "--model", checkpoint, "--data", data, "--images", "photos", "--output", "report", *more)


def page_of(folder):
    """Return the page of the report, without the padding of its tables."""
    return re.sub(" +", " ", (folder / "report" / "report.md").read_text(encoding="utf-8"))


def scores(folder, decoding="constrained"):
    content = json.loads((folder / "report" / "scores.json").read_text(encoding="utf-8"))
    return content, {
        (line["task"], line["measure"], line["average"]): line for line in content["decodings"][decoding]["measures"]
    }


@pytest.mark.slow
def test_the_scores_equal_those_of_evaluate_and_of_the_predictions_file(umie, data, checkpoint):
    code, out, _ = umie(*of(checkpoint))
    assert code == 0
    assert "Written: report/report.md" in out
    model, processor = load(checkpoint)
    records = list(read_jsonl("test.jsonl", "photos"))
    content, lines = scores(data)
    some = 0
    for task in TASKS:
        expected = evaluate(model, processor, records, task, constrained=True)
        found = list(read_jsonl(f"report/predictions-constrained/{task}.jsonl"))
        built = processor.task(task)
        assert [built.items(one) for one in found] == [built.items(one) for one in expected.predictions]
        assert [one.id for one in found] == [one.id for one in expected.predictions]
        line = lines[task, "strict", "micro"]
        if task != "meae":  # `evaluate` compares regions of other records
            assert line["f1"] == pytest.approx(expected.scores["f1"])
        some += line["true_positives"]
        again = umie(
            *("evaluate", "--predictions", f"report/predictions-constrained/{task}.jsonl"),
            *("--gold", "report/gold.jsonl", "--task", task, "--json", "again.json", "--resamples", 100),
        )
        assert again[0] == 0
        measures = json.loads((data / "again.json").read_text())["measures"]
        assert [one for one in content["decodings"]["constrained"]["measures"] if one["task"] == task] == measures
        gates = content["decodings"]["constrained"]["gates"][task]
        assert gates["mean"] == pytest.approx(sum(expected.gates) / len(expected.gates), abs=1e-5)
    assert some > 5


def test_the_report_describes_the_setup(umie, data, checkpoint):
    assert umie(*of(checkpoint, "--title", "dev|split", "--train", "test.jsonl", "--labels"))[0] == 0
    page = page_of(data)
    content, _ = scores(data)
    assert page.startswith(f"# {checkpoint} on test.jsonl, dev|split\n")
    for part in (
        "| MNER | constrained | **",
        "(mentions of train)",
        "![F1 with intervals](scores-constrained.png)",
        "![F1 of each label](labels-constrained.png)",
        "![histogram of the gate for each task](gates.png)",
        "| fusion | gated |",
        "| records | 9 |",
        "| events of MEAE | predicted |",
    ):
        assert part in page
    assert content["weights"]["sha256"]["model.safetensors"] in page
    assert content["data"]["sha256"] in page
    assert set(content["versions"]) == {"umie", "python", "torch", "transformers", "numpy", "scipy"}
    for name in ("scores-constrained", "labels-constrained", "gates"):
        assert (data / "report" / f"{name}.png").exists()
    assert sorted(path.name for path in data.iterdir()) == ["photos", "report", "test.jsonl"]


def test_both_decodings_are_compared(umie, data, checkpoint):
    code, out, _ = umie(*of(checkpoint, "--decoding", "both", "--task", "mner", "--task", "med"))
    assert code == 0
    assert "A is constrained, B is free" in out
    page = page_of(data)
    assert "| task | constrained - free |" in page
    assert "## All measures, free" in page
    content, lines = scores(data)
    _, free = scores(data, "free")
    line = lines["mner", "strict", "micro"]
    assert line["versus"]["other"] == free["mner", "strict", "micro"]["f1"]
    model, processor = load(checkpoint)
    records = list(read_jsonl("test.jsonl", "photos"))
    assert free["mner", "strict", "micro"]["f1"] == pytest.approx(
        evaluate(model, processor, records, "mner").scores["f1"]
    )
    assert content["decodings"]["constrained"]["counts"]["mner"] == {"dropped_items": 0}


def test_gold_events_are_reported_as_an_oracle(umie, data, checkpoint):
    code, out, _ = umie(*of(checkpoint, "--task", "meae", "--events", "gold"))
    assert code == 0
    assert "meae: Arguments were extracted for the annotated events" in out
    page = page_of(data)
    assert "MEAE (oracle events)" in page
    assert scores(data)[0]["decodings"]["constrained"]["oracles"] == ["meae"]


def test_events_are_detected_even_if_they_are_not_scored(umie, data, checkpoint):
    """MEAE asks about the events that MED finds, even if MED is not scored."""
    assert umie(*of(checkpoint))[0] == 0
    expected = scores(data)[1]["meae", "strict", "micro"]
    records = [
        dataclasses.replace(record, tasks=("meae",)) for record in read_jsonl("test.jsonl", "photos") if record.events
    ]
    write_jsonl("meae.jsonl", records)
    assert umie(*of(checkpoint, data="meae.jsonl"))[0] == 0
    content, lines = scores(data)
    assert content["settings"]["tasks"] == ["meae"]
    assert lines["meae", "strict", "micro"]["f1"] == expected["f1"]


def test_the_embedded_data_set(umie, data, checkpoint):
    arguments = (
        "evaluate",
        "--model",
        checkpoint,
        "--format",
        "synthetic",
        "--output",
        "report",
        "--overwrite",
        "--resamples",
        "100",
        "--data",
    )
    code, _, err = umie(*arguments, "dev", "--limit", "9", "--train", "train", "--task", "mner")
    assert code == 0
    assert "upper bounds of F1 for a system without images: mner 0.551" in err
    content, lines = scores(data)
    assert content["data"]["records"] == content["data"]["with an image"] == 9
    assert lines["mner", "strict", "micro"]["baseline"]["name"] == "mentions of train"
    assert len(list(read_jsonl("report/gold.jsonl"))) == 9
    code, _, err = umie(*arguments, "tset")
    assert code == 2
    assert "--data is 'tset': use one of train, dev, test" in err


def test_the_embedded_media_set(umie, data, checkpoint):
    of_media = ("--format", "synthetic_media", "--data", "test", "--limit", "12", "--task", "mner", "--resamples", 100)
    code, _, err = umie("evaluate", "--model", checkpoint, *of_media, "--output", "report")
    assert code == 0
    assert "upper bounds of F1 for a system without media: mner 0.451" in err
    content, _ = scores(data)
    assert content["data"]["combinations"] == ["T+I", "T+A", "T+I+A", "I", "A", "I+A", "V", "T+V", "A+V"]
    assert len(list(read_jsonl("report/gold.jsonl"))) == content["data"]["records"]


def test_the_places_of_a_checkpoint_are_judged(umie, data, checkpoint):
    model, processor = load(checkpoint, "cpu")
    processor.task_options["mner"] = {**processor.task_options.get("mner", {}), "grounded": True}
    model.save_pretrained(data / "grounded")
    processor.save_pretrained(data / "grounded")
    of_media = ("--format", "synthetic_media", "--data", "test", "--limit", "12", "--task", "mner")
    options = ("--group-by", "alignment", "--resamples", "100")
    code, out, _ = umie("evaluate", "--model", data / "grounded", *of_media, *options, "--output", "report")
    assert code == 0
    assert "mner, groundings: the places that show items" in out
    assert "by whether text and media show the same items" in out
    assert "## Groundings" in page_of(data)
    found = scores(data)[0]["decodings"]["constrained"]
    assert {line["name"] for line in found["groundings"]["mner"]} >= {"right", "miss-grounding"}
    assert {line["modality"] for line in found["measures"]} >= {"all", "unaligned"}


def entities(*labels):
    text = " ".join(labels)
    return Record(
        text, entities=[Entity(label, (text.index(label), text.index(label) + len(label))) for label in labels]
    )


def test_labels_unknown_to_the_checkpoint(umie, data, checkpoint):
    records = [dataclasses.replace(entities("person", "ship", "city"), tasks=("mner",)), entities("ship", "location")]
    write_jsonl("other.jsonl", [dataclasses.replace(record, tasks=("mner",)) for record in records])
    code, _, err = umie(*of(checkpoint, data="other.jsonl"))
    assert code == 0
    said = "mner: 3 of 5 entity labels of the data are not in the checkpoint's schema and cannot be found: "
    said += "ship (2), city (1)"
    assert f"note: {said}; schema 'data' asks for them" in err
    assert said in page_of(data)
    code, _, err = umie(*of(checkpoint, "--schema", "data", data="other.jsonl"))
    assert code == 0
    assert "note: mner: labels unknown to the checkpoint: city, ship" in err
    assert scores(data)[0]["settings"]["labels"] == {"mner": ["city", "location", "person", "ship"]}
    predicted = [
        entity.type for one in read_jsonl("report/predictions-constrained/mner.jsonl") for entity in one.entities
    ]
    assert set(predicted) <= {"city", "location", "person", "ship"}
    write_jsonl("other.jsonl", [dataclasses.replace(entities("ship", "city"), tasks=("mner",))])
    code, _, err = umie(*of(checkpoint, data="other.jsonl"))
    assert (code, err.count("\n")) == (2, 1)
    assert "other.jsonl: mner: none of its labels are in the checkpoint's schema (person, location, organization" in err


def test_truncated_inputs_and_unreadable_images_are_counted(umie, data, checkpoint):
    long = Record("Rome " * 400, entities=[Entity("location", (0, 4))], tasks=("mner",))
    gone = Record("Oslo", "gone.png", entities=[Entity("location", (0, 4))], tasks=("mner",))
    meeting = Record("they meet", events=[Event("meet", (5, 9))], tasks=("med",))
    write_jsonl("hard.jsonl", [long, gone, meeting])
    code, out, err = umie(*of(checkpoint, data="hard.jsonl"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "gone.png: no such image" in err
    assert not (data / "report").exists()
    code, out, _ = umie(*of(checkpoint, "--missing-images", "text_only", data="hard.jsonl"))
    assert code == 0
    assert "note: mner, constrained: inputs truncated to the longest that the model accepts: 1\n" in out
    assert "note: constrained: unreadable images, whose records were evaluated without an image: 1; the first:" in out
    counts = scores(data)[0]["decodings"]["constrained"]["counts"]
    assert counts["mner"]["truncated_inputs"] == 1
    assert "truncated_inputs" not in counts["med"]
    code, _, err = umie(*of(checkpoint, "--missing-images", "skip", data="hard.jsonl"))
    assert code == 0
    assert "note: records skipped because of unreadable images: 1; first:" in err
    assert len(list(read_jsonl("report/gold.jsonl"))) == 2


def test_missing_images_are_noted(umie, data, checkpoint):
    write_jsonl("text.jsonl", [Record("Rome", entities=[Entity("location", (0, 4))], tasks=("mner",))])
    _, _, err = umie(*of(checkpoint, data="text.jsonl"))
    assert "note: no record has an image, so the model used only the text" in err
    assert "None: the fusion has no gate" in page_of(data)


def test_only_an_earlier_report_is_replaced_and_only_on_request(umie, data, checkpoint):
    assert umie(*of(checkpoint, "--task", "mner"))[0] == 0
    code, out, err = umie(*of(checkpoint, "--task", "med", overwrite=False))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "report: already contains an evaluation" in err
    assert umie(*of(checkpoint, "--task", "med"))[0] == 0
    assert [path.name for path in (data / "report" / "predictions-constrained").iterdir()] == ["med.jsonl"]
    code, _, err = umie(*of(checkpoint, "--task", "mre", "--device", "warp"))
    assert (code, err.count("\n")) == (2, 1)
    assert (data / "report" / "report.md").exists()
    code, _, err = umie("evaluate", "--model", checkpoint, "--data", "test.jsonl", "-o", "photos", "--overwrite")
    assert code == 2
    assert "photos: contains files that do not belong to an evaluation" in err
    assert len(list((data / "photos").iterdir())) == 9
    (data / "report" / "checkpoints").mkdir()  # a training run has a report.md and scores.json too
    code, _, err = umie(*of(checkpoint, "--task", "mre"))
    assert code == 2
    assert "files that do not belong to an evaluation, e.g. checkpoints" in err
    assert not list(data.glob(".*.part"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "use --model and --data for a checkpoint, or --predictions and --gold"),
        (["--predictions", "p.jsonl"], "use --model and --data for a checkpoint, or --predictions and --gold"),
        (["--model", "CKPT"], "--data is missing"),
        (["--model", "CKPT", "--data", "test.jsonl"], "--output is missing"),
        (["--model", "CKPT", "--data", "no.jsonl", "--output", "r"], "no.jsonl: cannot read"),
        (["--model", "CKPT", "--data", "empty.jsonl", "--output", "r"], "empty.jsonl: has no records"),
        (["--model", "no", "--data", "test.jsonl", "--output", "r"], "'no' is neither an existing directory"),
        (["--model", "CKPT", "--data", "test.jsonl", "--output", "test.jsonl"], "test.jsonl: is a file"),
        (["--model", "CKPT", "--data", "bare.jsonl", "--output", "r"], "bare.jsonl: is annotated for no task"),
        (["--model", "CKPT", "--data", "bare.jsonl", "--task", "mre", "--output", "r"], "annotated for 'mre'"),
        (["--model", "CKPT", "--data", "test.jsonl", "--task", "ner", "--output", "r"], "Unknown task 'ner'"),
        (["--model", "CKPT", "--data", "test.jsonl", "--schema", "mine", "--output", "r"], "schema is 'mine'"),
        (["--model", "CKPT", "--data", "test.jsonl", "--events", "all", "--output", "r"], "events is 'all'"),
        (["--model", "CKPT", "--data", "test.jsonl", "--modality", "text", "--output", "r"], "Unknown modality 'text'"),
        (
            ["--model", "CKPT", "--data", "test.jsonl", "--format", "cnoll", "--output", "r"],
            "Unknown data format 'cnoll'",
        ),
        (["--data", "test.jsonl", "--output", "r"], "--data requires --model, the checkpoint to evaluate"),
        (["--model", "CKPT", "--gold", "g.jsonl"], "--gold has no effect with --model: omit --gold, or --model"),
        (
            ["--predictions", "p", "--gold", "g", "--num-beams", "2"],
            "--num-beams has no effect with --predictions and --gold: omit --num-beams, or",
        ),
        (["--predictions", "p", "--gold", "g", "--format", "mrne"], "Unknown data format 'mrne'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(umie, data, checkpoint, arguments, message):
    (data / "empty.jsonl").write_text("")
    (data / "bare.jsonl").write_text('{"text": "Ann"}\n')
    more = ["--images", "photos"] if "test.jsonl" in arguments and "--gold" not in arguments else []
    code, out, err = umie("evaluate", *[checkpoint if part == "CKPT" else part for part in arguments], *more)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (data / "r").exists()


def test_help_has_examples(umie):
    code, out, _ = umie("evaluate", "--help")
    assert code == 0
    for part in ("umie evaluate --model best --data test.jsonl --output report", "--schema", "--decoding", "--events"):
        assert part in out


def test_command_and_library_have_the_same_defaults():
    parameters = inspect.signature(evaluate_command).parameters
    names = {"format": "format_name", "tasks": "task"}
    for field in dataclasses.fields(EvaluationOptions):
        if field.default is not dataclasses.MISSING and field.name != "decodings":
            assert parameters[names.get(field.name, field.name)].default == field.default, field.name
    assert (parameters["decoding"].default,) == EvaluationOptions.decodings
