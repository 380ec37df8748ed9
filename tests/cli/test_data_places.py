"""`umie data regions`, `segments`, `tracks` and `ground` as a user runs them on the embedded media set."""

import json
import shutil

import numpy as np
import pytest
import torch

from umie.composition import compose
from umie.data.media_contents import LABELS
from umie.data.sounds import save_sound
from umie.evaluation import evaluate
from umie.experiments.data_config import read_data_config
from umie.experiments.prepare_data import prepare_corpus
from umie.media import Sound
from umie.records import MEDIA, read_jsonl

COMMANDS = {"regions": ("-p", "blobs"), "segments": (), "tracks": ()}


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """The folder of a small set: train, dev and test."""
    from umie.data.synthetic_media import SyntheticMediaConfig, write_synthetic_media

    folder = tmp_path_factory.mktemp("set") / "media"
    config = SyntheticMediaConfig(train=2, dev=2, test=4, combinations=("T+I", "A", "A+V"))
    write_synthetic_media(folder, config)
    return folder


@pytest.fixture
def proposed(umie, media, tmp_path):
    """The set with proposed places, by one command for each medium."""
    given = media
    for command, options in COMMANDS.items():
        output = tmp_path / command
        code, out, err = umie("data", command, "-i", given, "-o", output, "--images", media, "--replace", *options)
        assert (code, err) == (0, "")
        assert f"Written: {output}" in out
        assert "annotated " + command + " found (IoU >= 0.5): " in out
        given = output
    return given


def test_a_set_gets_proposed_places(media, proposed):
    assert sorted(path.name for path in proposed.iterdir()) == ["dev.jsonl", "test.jsonl", "train.jsonl"]
    for split in ("train", "dev", "test"):
        given = list(read_jsonl(media / f"{split}.jsonl"))
        found = list(read_jsonl(proposed / f"{split}.jsonl", images=media))
        assert [record.gold for record in found] == given
        for before, after in zip(given, found, strict=True):
            for medium in MEDIA:
                assert len(after.places(medium)) == len(before.places(medium))
                assert (after.places(medium) != before.places(medium)) == bool(before.places(medium))
            assert after.path(before.media[0]).exists()


def test_a_variant_is_scored_against_the_annotated_places(media, proposed, tmp_path):
    """Untrained; an answer is right only if a proposed place overlaps the annotated one."""
    tasks = {name: {"grounded": True, "labels": list(labels)} for name, labels in LABELS.items()}
    files = {split: f"{proposed.name}/{split}.jsonl" for split in ("train", "dev", "test")}
    data = {"format": "jsonl", "images": str(media), **files}
    (one,) = prepare_corpus(read_data_config(data, tasks), root=tmp_path, output=tmp_path / "out").sets.values()
    records = one.read("test")
    assert all(record.gold is not None for record in records)
    torch.manual_seed(0)
    parts = {"audio_encoder": {"name": "tiny_audio", "rate": 4_000}, "video_encoder": "tiny_video"}
    model, processor = compose("tiny", "concat", "span", tasks=dict(one.tasks), **parts)
    for name in tasks:
        own = [record for record in records if record.annotated_for(name)]
        result = evaluate(model, processor, own, name, events="gold")
        built = processor.task(name)
        wanted = [built.items(record.gold) for record in own]
        counted = [item for items in wanted for item in items if getattr(item, "type", "") != "none"]
        assert result.scores["gold"] == len(counted) > 0
        assert all(record.gold is None for record in result.predictions)


def test_the_prediction_files_of_others_are_scored_against_the_annotated_places(umie, media, proposed, tmp_path):
    """Predictions are scored alike, whether gold is the annotated file or the one with proposed places."""
    answers = tmp_path / "answers.jsonl"
    lines = [json.loads(line) for line in (proposed / "test.jsonl").read_text().splitlines()]
    answers.write_text("".join(json.dumps({**line, "gold": None}) + "\n" for line in lines))
    scores = []
    for gold in (media / "test.jsonl", proposed / "test.jsonl"):
        files = ("--predictions", answers, "--gold", gold, "--json", tmp_path / "scores.json")
        assert umie("evaluate", *files, "--resamples", "100")[::2] == (0, "")
        lines = json.loads((tmp_path / "scores.json").read_text())["measures"]
        scores.append(
            {(line["task"], line["measure"], line["modality"], line["average"]): line["f1"] for line in lines}
        )
    assert scores[0] == scores[1]
    grounded = [f1 for (_, measure, *_), f1 in scores[0].items() if measure == "grounded"]
    assert len(grounded) > 4
    assert set(grounded) == {1.0}


def test_places_are_added_to_those_of_a_file(umie, media, tmp_path):
    output = tmp_path / "new.jsonl"
    arguments = ("-i", media / "test.jsonl", "-o", output, "--media", media, "--option", "nms=1")
    code, out, _ = umie("data", "segments", *arguments)
    assert code == 0
    assert out.startswith("records: 12; sounds: 8; proposals: 32\nsounds that cannot be read: 0\n")
    for before, after in zip(read_jsonl(media / "test.jsonl"), read_jsonl(output), strict=True):
        assert after.segments[: len(before.segments)] == before.segments
        assert after.gold is None
        assert after.entities == before.entities
    assert umie("data", "segments", *arguments[:-2])[1].startswith("records: 12; sounds: 8; proposals: 0\n")


def test_an_unreadable_sound(umie, media, tmp_path):
    folder = tmp_path / "media"
    shutil.copytree(media, folder)
    (folder / "test" / "test-A-0001.wav").write_bytes(b"RIFF")
    output = tmp_path / "new.jsonl"
    arguments = ("data", "segments", "-i", folder / "test.jsonl", "-o", output, "--media", folder)
    code, out, err = umie(*arguments)
    assert (code, out, output.exists()) == (2, "", False)
    assert "record test-A-0001: " in err
    assert len(err.splitlines()) == 1
    code, out, err = umie(*arguments, "--missing-media", "skip")
    assert code == 0
    assert "sounds that cannot be read: 1, their records left out: 1\n" in out
    assert "sound cannot be read: record test-A-0001: " in err
    assert len(list(read_jsonl(output))) == 11
    code, out, _ = umie(*arguments, "--missing-media", "text_only", "--replace")
    assert code == 0
    assert len(list(read_jsonl(output))) == 12
    assert "annotated segments found (IoU >= 0.5): 28 of 32 (87.5%)" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("segments", "-i", "{media}", "-o", "{media}"), "dev.jsonl: is the input file: choose another --output"),
        (
            ("tracks", "-i", "{media}/test", "-o", "{out}"),
            "has no JSONL files: use the file of a split",
        ),
        (("tracks", "-i", "{text}", "-o", "{out}"), "text.jsonl: no record has a video (field video)"),
        (("segments", "-i", "{text}", "-o", "{out}"), "text.jsonl: no record has a sound (field audio)"),
        (("segments", "-i", "{media}", "-o", "{out}", "-p", "energi"), "Did you mean 'energy'?"),
        (("segments", "-i", "{media}", "-o", "{out}", "-p", "words"), "path is not set: use a file or directory of"),
        (("segments", "-i", "{media}", "-o", "{out}", "--missing-media", "no"), "no"),
        (("segments", "-i", "{media}", "-o", "{out}", "--media", "{out}"), "no such directory"),
        (("segments", "-i", "{text}.gz", "-o", "{out}"), "cannot read"),
    ],
)
def test_what_cannot_be_done_is_one_line(umie, media, tmp_path, arguments, message):
    (tmp_path / "text.jsonl").write_text('{"text": "a"}\n')
    places = {"media": media, "out": tmp_path / "out", "text": tmp_path / "text.jsonl"}
    code, out, err = umie("data", *(argument.format(**places) for argument in arguments))
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_predictions_are_grounded_and_scored(umie, tmp_path, monkeypatch):
    """A system that only reads, with the places of its words, as a variant next to one that points."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    text, words = "Ann met Bob", ((0.0, 0.4, "ann"), (0.5, 0.9, "met"), (1.0, 1.4, "bob"))
    spoken = [{"interval": [start, end], "label": word} for start, end, word in words]
    line = {"id": "1", "text": text, "audio": "1.wav", "tasks": ["mner"], "segments": spoken}
    save_sound(Sound(np.zeros(16_000, np.float32), 8_000), tmp_path / "1.wav")
    gold = {**line, "entities": [{"type": "per", "span": [0, 3], "segments": [0]}]}
    predicted = {**line, "entities": [{"type": "per", "span": [0, 3]}, {"type": "per", "span": [4, 7]}]}
    for name, record in (("gold", gold), ("p", predicted)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record) + "\n")
    code, out, err = umie("data", "ground", "-i", "p.jsonl", "-o", "new.jsonl", "--grounder", "words")
    assert (code, err) == (0, "")
    assert "phrases: 2" in out
    assert "Written: new.jsonl" in out
    (found,) = read_jsonl("new.jsonl")
    assert [one.segments for one in found.entities] == [(0,), (1,)]
    for name, f1 in (("p", "0.000"), ("new", "0.667")):
        code, out, _ = umie("evaluate", "--predictions", f"{name}.jsonl", "--gold", "gold.jsonl")
        assert code == 0
        assert f"grounded        {f1}" in out or f"grounded {f1}" in " ".join(out.split())
    code, _, err = umie("data", "ground", "-i", "p.jsonl", "-o", "no.jsonl", "--grounder", "word")
    assert code == 2
    assert "Unknown grounder 'word'. Did you mean 'words'?" in err
