"""`umie extract`: tables, JSON, files, resuming an interrupted run, and one-line errors."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import umie as library
from umie.data.sounds import save_sound
from umie.media import Sound
from umie.records import Event, Record, Region, read_jsonl, write_jsonl
from umie.resumable import ResumableLines
from umie.tasks import registry


@pytest.fixture(scope="module")
def checkpoint(variant, embedded_records, tmp_path_factory):
    """A variant with random weights; its constrained answers are well-formed, and short."""
    folder = tmp_path_factory.mktemp("checkpoint")
    for part in variant(missing_images="error", max_target_tokens=24):
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def files(tmp_path, monkeypatch, embedded_records):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "photos").mkdir()
    records = []
    for record in embedded_records[:9]:
        record.image.save(tmp_path / "photos" / f"{record.id}.png")
        records.append(dataclasses.replace(record, image=f"{record.id}.png"))
    write_jsonl("in.jsonl", records)
    return tmp_path


def of_file(checkpoint, *more):
    base = ("extract", "--model", checkpoint, "--input", "in.jsonl", "--output", "out.jsonl", "--images", "photos")
    return (*base, "--batch-size", "1", *more)


def test_a_table_with_offsets_and_boxes(umie, files, checkpoint, embedded_records):
    record = embedded_records[2]
    boxes = [",".join(map(str, region.box)) for region in record.regions]
    given = [part for box in boxes for part in ("--region", box)]
    image = f"photos/{record.id}.png"
    code, out, _ = umie("extract", "--model", checkpoint, record.text, "--image", image, *given)
    assert code == 0
    expected = library.Extractor.from_pretrained(checkpoint).extract(record.text, image, regions=record.regions)
    for entity in expected.entities:
        (line,) = [
            line for line in out.splitlines() if f" {entity.span[0]}-{entity.span[1]} " in line and entity.type in line
        ]
        assert entity.text in line
    assert "gate: mner" in out
    code, out, _ = umie("extract", "--model", checkpoint, record.text, "--image", image, *given, "--json")
    printed, wanted = json.loads(out), expected.to_json()
    assert printed.pop("gate") == pytest.approx(wanted.pop("gate"), abs=1e-5)
    assert printed == wanted
    other = f"photos/{embedded_records[3].id}.png"
    arguments = ("--image", image, "--image", other, "--region", "0,0,1,1,1", "--json")
    code, out, _ = umie("extract", "--model", checkpoint, record.text, *arguments)
    printed = json.loads(out)
    assert (code, printed["images"]) == (0, [image, other])
    assert printed["regions"] == [{"box": [0, 0, 1, 1], "image": 1}]


def test_regions_and_events_in_the_table(capsys):
    from umie.cli.extract import show_extraction
    from umie.extraction import Extraction
    from umie.records import Argument, Entity, Relation

    record = Record(
        "Ann met [Bob]",
        "x.png",
        (Region((0.1, 0.2, 0.5, 0.9), "man"),),
        entities=(Entity("per[son]", (0, 3)),),
        relations=(Relation("peer", (0, 3), (9, 12)), Relation("none", (9, 12), (0, 3))),
        events=(Event("meet", None, (Argument("Agent", regions=(0,)), Argument("Entity", (9, 12)))),),
    )
    show_extraction(Extraction(record, image_size=(100, 50)))
    out = " ".join(capsys.readouterr().out.split())
    assert "per[son] Ann 0-3" in out
    assert "Ann peer Bob 0-3, 9-12" in out
    assert "none" not in out
    assert "meet (in the image)" in out
    assert "Agent region 0 (man) box 0.10, 0.20, 0.50, 0.90 10, 10, 50, 45" in out
    assert "Entity Bob 9-12" in out
    show_extraction(Extraction(Record("Ann")))
    assert capsys.readouterr().out == "Nothing was found.\n"


def shown_by_all(folder):
    """Return what is found in a sound and a video of 40 x 20 pixels, whose places show everything."""
    from umie.extraction import Extraction
    from umie.records import Argument, Entity, Places, Relation, Segment, Track

    track = Track((0, 0.5, 0.75), ((0, 0, 0.5, 0.5), None, (0.5, 0.5, 1, 1)))
    media = {"image": "a.png", "regions": (Region((0, 0, 0.5, 0.5)),), "audio": "a.wav", "video": "b.png"}
    places = Places((0,), (0,), (1,))
    record = Record(
        "Ann spoke",
        **media,
        segments=(Segment((0.2, 0.7)), Segment((0.9, 1.4))),
        tracks=(track,),
        entities=(Entity("person", (0, 3), "", *places),),
        relations=(Relation("peer", (0, 3), None, tail_places=Places(segments=(0,))),),
        events=(Event("speak", None, (Argument("Agent", (0, 3), tracks=(0,)),), segments=(1,)),),
        image_folder=str(folder),
    )
    return Extraction(record, image_size=(100, 50), video_size=(40, 20))


def test_places_are_shown_in_seconds_and_pixels(files, capsys):
    from umie.cli.extract import show_extraction

    found = shown_by_all(files)
    data = json.loads(json.dumps(found.to_json()))
    path = {"times": [0, 0.5, 0.75], "pixels": [[0, 0, 20, 10], None, [20, 10, 40, 20]]}
    (entity,), (relation,), (event,) = data["entities"], data["relations"], data["events"]
    assert {key: entity[key] for key in ("boxes", "pixels", "seconds", "paths")} == {
        "boxes": [[0, 0, 0.5, 0.5]], "pixels": [[0, 0, 50, 25]], "seconds": [[0.9, 1.4]], "paths": [path]
    }  # fmt: skip
    assert relation["tail"] == {"segments": [0], "seconds": [[0.2, 0.7]]}
    assert event["trigger"] == {"segments": [1], "seconds": [[0.9, 1.4]]}
    assert event["arguments"][0]["paths"] == [path]
    assert found.segments(found.entities[0]) == found.record.segments[1:]
    assert found.tracks(found.entities[0]) == found.record.tracks
    show_extraction(found)
    words = " ".join(capsys.readouterr().out.split())
    seen = "0.00-0.75 s: 0, 0, 20, 10 to 20, 10, 40, 20"
    assert f"person Ann (O1 V1 S2) 0-3 0, 0, 50, 25; {seen}; 0.90-1.40 s" in words
    assert "Ann peer S1 0-3 0.20-0.70 s" in words
    assert f"speak S2 0.90-1.40 s Agent Ann (V1) 0-3 {seen}" in words


def test_a_sound_and_a_video_from_the_command_line(umie, files, tmp_path):
    decoder = {"name": "span", "threshold": 0.01}  # random weights: everything is found, everywhere
    model, processor = library.compose(
        "tiny", "concat", decoder, audio_encoder={"name": "tiny_audio", "rate": 4_000}, video_encoder="tiny_video",
        tasks={"mner": {"labels": ["person", "place"], "grounded": True}},
    )  # fmt: skip
    for part in (model, processor):
        part.save_pretrained(tmp_path / "heard")
    save_sound(Sound(np.zeros(6_000, np.float32), 4_000), tmp_path / "a.wav")
    frames = [Image.new("RGB", (40, 20), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "b.png", save_all=True, append_images=frames[1:], duration=500)
    extractor = library.Extractor.from_pretrained(tmp_path / "heard", device="cpu")
    segments = [(0.2, 0.7), (0.9, 1.4)]
    track = library.Track((0, 0.5, 0.75), ((0, 0, 0.5, 0.5), None, (0.5, 0.5, 1, 1)))
    for text in (["Ann spoke"], []):
        places = ("--segment", "0.2,0.7", "--segment", "0.9,1.4", "--track", "0,0,0,.5,.5 0.5 0.75,.5,.5,1,1")
        arguments = (*text, "--audio", "a.wav", "--video", "b.png", *places, "--json", "--device", "cpu")
        code, out, err = umie("extract", "--model", "heard", *arguments)
        printed = json.loads(out)
        assert (code, err) == (0, "")
        found = extractor.extract("".join(text), audio="a.wav", video="b.png", segments=segments, tracks=[track])
        assert printed["segments"] == [{"interval": [0.2, 0.7]}, {"interval": [0.9, 1.4]}]
        assert printed["entities"][0]["seconds"] == [list(one) for one in segments]
        assert printed["entities"][0]["paths"][0]["pixels"] == [[0, 0, 20, 10], None, [20, 10, 40, 20]]
        assert printed["tracks"][0]["boxes"] == [[0, 0, 0.5, 0.5], None, [0.5, 0.5, 1, 1]]
        printed.pop("gate"), (wanted := found.to_json()).pop("gate")
        assert printed == wanted
        own = {"segments": [library.Segment(one) for one in segments], "tracks": [track]}
        record = library.Record("".join(text), audio="a.wav", video="b.png", **own)
        assert extractor.extract(record) == found
    record = library.Record("Ann", audio="a.wav", image_folder=str(tmp_path))  # its own media stay where they are
    assert extractor.extract(record, video="b.png").record.audio == str(tmp_path / "a.wav")
    assert library.Extractor(model, processor, missing_images="skip").extract("Ann", audio="no.wav").entities == ()
    for wrong in (["--segment", "1"], ["--segment", "2,1"], ["--track", "0,1"], ["--track", ""], ["--audio", "no.wav"]):
        code, out, err = umie("extract", "--model", "heard", "Ann", *wrong)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert wrong[1] in err


def test_the_name_of_a_file_is_read_as_a_text_with_a_warning(umie, files, checkpoint):
    Image.new("RGB", (8, 8)).save("kids.jpg")
    code, out, err = umie("extract", "-m", checkpoint, "kids.jpg", "--task", "mner", "--json", "--device", "cpu")
    assert (code, json.loads(out)["text"]) == (0, "kids.jpg")
    assert "it is also a file: --image FILE, or --input FILE" in err


def test_labels_and_tasks(umie, files, checkpoint):
    arguments = ("extract", "--model", checkpoint, "HMS Belfast in London", "--json")
    code, out, err = umie(*arguments, "--task", "mner", "--label", "ship", "--label", "mner=person")
    assert code == 0
    assert {entity["type"] for entity in json.loads(out).get("entities", ())} <= {"ship", "person"}
    assert "warning: mner: the checkpoint was not trained on the labels 'ship'\n" in err
    code, out, _ = umie(*arguments, "--label", "med=meet", "--task", "mner", "--task", "med")
    assert {event["type"] for event in json.loads(out).get("events", ())} <= {"meet"}


def test_a_task_of_a_plugin(umie, files, checkpoint, request):
    request.addfinalizer(lambda: registry._parts.pop("cli_ner2", None))
    (files / "plugin.py").write_text(
        "from umie.tasks import registry\n"
        "from umie.tasks.mner import MNER\n\n\n"
        '@registry.register("cli_ner2")\n'
        "class Ner2(MNER):\n"
        '    name = "cli_ner2"\n'
        '    default_labels = ("person", "ship")\n'
    )
    plugin = ("--plugin", "plugin.py", "--task", "cli_ner2", "--task", "med")
    code, out, _ = umie("extract", "--model", checkpoint, "Ann met Bob", "--json", *plugin)
    assert code == 0
    assert set(json.loads(out)["gate"]) == {"cli_ner2", "med"}
    assert umie(*of_file(checkpoint, *plugin))[0] == 0
    found = list(read_jsonl("out.jsonl"))
    assert all(set(record.tasks) == {"cli_ner2", "med"} for record in found)
    code, _, err = umie("extract", "--model", checkpoint, "Ann", "--plugin", "gone.py")
    assert (code, err.count("\n")) == (2, 1)
    assert "plugin gone.py" in err


def test_the_output_file_can_be_scored(umie, files, checkpoint):
    code, out, _ = umie(*of_file(checkpoint, "--details", "details.jsonl"))
    assert code == 0
    assert "records: 9\nWritten: out.jsonl\nWritten: details.jsonl" in out
    found, given = list(read_jsonl("out.jsonl")), list(read_jsonl("in.jsonl"))
    assert [record.id for record in found] == [record.id for record in given]
    extractor = library.Extractor.from_pretrained(checkpoint)
    assert found == [one.record for one in extractor.extract(read_jsonl("in.jsonl", "photos"))]
    details = [json.loads(line) for line in (files / "details.jsonl").read_text().splitlines()]
    assert [line["line"] for line in details] == list(range(1, 10))
    assert all(line["gate"]["mner"] is not None for line in details)
    for task in ("mner", "med"):
        assert umie("evaluate", "--predictions", "out.jsonl", "--gold", "in.jsonl", "--task", task)[0] == 0
    for file in ("out.jsonl", "details.jsonl"):
        assert umie("view", file, "--images", "photos", "-o", "../page.html")[0] == 0
    assert "p = " in (files.parent / "page.html").read_text(encoding="utf-8")
    names = ["details.jsonl", "details.jsonl.sha256", "in.jsonl", "out.jsonl", "out.jsonl.sha256", "photos"]
    assert sorted(path.name for path in files.iterdir()) == names
    (files / "out.jsonl").write_text((files / "out.jsonl").read_text() + "\n")
    _, _, err = umie("evaluate", "--predictions", "out.jsonl", "--gold", "in.jsonl", "--task", "mner")
    assert "out.jsonl is not as it was written: its digest in out.jsonl.sha256 differs" in err


class Killed(BaseException):
    """An interruption that no handler catches."""


def test_a_killed_run_resumes(umie, files, checkpoint, monkeypatch):
    whole = of_file(checkpoint, "--details", "details.jsonl")
    assert umie(*whole)[0] == 0
    expected = {name: (files / name).read_bytes() for name in ("out.jsonl", "details.jsonl")}
    for name in expected:
        (files / name).unlink()
    real, written = ResumableLines.write, []

    def write(self, *lines):
        if len(written) == 5:
            raise Killed
        written.append(lines)
        real(self, *lines)

    monkeypatch.setattr(ResumableLines, "write", write)
    with pytest.raises(Killed):
        umie(*whole)
    assert not (files / "out.jsonl").exists()
    part = files / "out.jsonl.part"
    with part.open("ab") as file:
        file.write(b'{"text": "half a li')  # as if killed in the middle of a write
    code, _, err = umie(*of_file(checkpoint, "--details", "details.jsonl", "--num-beams", "2"))
    assert (code, err.count("\n")) == (2, 1)
    assert "out.jsonl.part: belongs to an unfinished run with other input, options or weights" in err
    written.clear()
    monkeypatch.setattr(ResumableLines, "write", lambda self, *lines: written.append(lines) or real(self, *lines))
    code, _, err = umie(*whole)
    assert code == 0
    assert "resuming: 5 of 9 records are finished" in err
    assert len(written) == 4
    assert {name: (files / name).read_bytes() for name in expected} == expected
    assert not list(files.glob("*.part*"))


def test_an_interrupt_says_what_is_done_and_the_same_command_goes_on(umie, files, checkpoint, monkeypatch):
    """Counts add up, and a resumed run repeats what was rejected."""
    with (files / "in.jsonl").open("a") as file:
        file.write('{"text": " "}\nno JSON\n')
    lines = (files / "in.jsonl").read_text().splitlines()
    (files / "in.jsonl").write_text("\n".join([lines[-1], lines[-2], *lines[:3]]) + "\n")
    real, left = ResumableLines.write, [3]

    def write(self, *written):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        real(self, *written)

    monkeypatch.setattr(ResumableLines, "write", write)
    command = of_file(checkpoint, "--task", "mner", "--skip-bad")
    code, out, err = umie(*command)
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == (
        "umie: interrupted: 3 of 5 records are finished, in out.jsonl.part; run the same command again to go on"
    )
    left[0] = -1
    code, out, err = umie(*command)
    rejected = "out.jsonl.rejected.jsonl"
    summary = "records: 5 (3 written, 1 rejected, 1 without text)\n"
    assert (code, out) == (0, f"{summary}Written: out.jsonl\nWritten: {rejected}\n")
    warnings = [f"warning: 1 of 5 lines {what}; see {rejected}" for what in (
        "are invalid or have a medium that cannot be read", "have neither a text nor media")]  # fmt: skip
    assert all(line in err.splitlines() for line in warnings)
    code, out, err = umie(*command)
    assert (code, out) == (0, f"{summary}Complete: out.jsonl\nComplete: {rejected}\n")
    assert all(line in err.splitlines() for line in warnings)
    assert "note: out.jsonl was complete: the same command wrote it earlier; --overwrite extracts again" in err
    code, _, err = umie(*of_file(checkpoint, "--task", "med", "--skip-bad"))
    assert (code, err.count("\n")) == (2, 1)
    assert "out.jsonl: already exists" in err
    code, out, _ = umie(*command, "--overwrite")
    assert (code, out) == (0, f"{summary}Written: out.jsonl\nWritten: {rejected}\n")


def test_two_processes_do_not_write_one_file(umie, files, checkpoint):
    with ResumableLines([files / "out.jsonl"], "run").open():
        code, _, err = umie(*of_file(checkpoint))
    assert code == 2
    assert "out.jsonl: another process is writing this file" in err


def test_a_run_that_fails_before_the_first_record_leaves_no_files(umie, files, checkpoint):
    """Otherwise the corrected command would be refused."""
    code, _, err = umie(*of_file(checkpoint, "--task", "ner"))
    assert (code, err.count("\n")) == (2, 1)
    assert sorted(path.name for path in files.iterdir()) == ["in.jsonl", "photos"]
    assert umie(*of_file(checkpoint, "--task", "mner"))[0] == 0


def test_warnings_are_counted(umie, files, checkpoint):
    with (files / "in.jsonl").open("a") as file:
        file.write('{"text": "Ann", "image": "gone.png"}\n')
    code, _, err = umie(*of_file(checkpoint, "--missing-images", "text_only", "--task", "mner"))
    assert code == 0
    assert "warning: the image was not used: 1 of 10 records; use --details FILE to see which" in err
    (files / "out.jsonl").unlink()
    code, _, err = umie(*of_file(checkpoint, "--task", "mner"))
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("umie: in.jsonl:10: record 'Ann': ")
    assert "gone.png: no such image" in err
    assert len((files / "out.jsonl.part").read_text().splitlines()) == 8  # two windows of four; the third has it


def test_unused_sounds_and_videos_are_counted(umie, files, checkpoint):
    heard = {"text": "a dog", "audio": "s.wav", "segments": [{"interval": [0, 1]}]}
    lines = [json.dumps(heard), json.dumps({"text": "a", "video": "v.gif"})]
    (files / "in.jsonl").write_text("\n".join(lines) + "\n")
    code, _, err = umie(*of_file(checkpoint, "--task", "mner", "--details", "details.jsonl"))
    assert code == 0
    assert "warning: the sound was not used: 1 of 2 records" in err
    assert "warning: the video was not used: 1 of 2 records" in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"text": "Ann", "image": "../secret.png"}',
            "in.jsonl:10: photos/../secret.png: is outside the directory photos",
        ),
        ('{"text": 7}', "in.jsonl:10: text is 7"),
        ('{"text": "Ann", "regions": [{"box": [0, 0, 30, 40]}]}', "in.jsonl:10: box [0, 0, 30, 40]"),
        ("{", "in.jsonl:10: not valid JSON"),
    ],
)
def test_bad_lines_are_reported_before_the_model_is_loaded(umie, files, checkpoint, line, message):
    with (files / "in.jsonl").open("a") as file:
        file.write(line + "\n")
    code, _, err = umie(*of_file(checkpoint))
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not list(files.glob("out*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Ann"], "--model is missing"),
        (["Ann", "--model", "none"], "'none' is neither an existing directory"),
        (["--model", "CKPT"], "pass either a text or a file with --input"),
        (["Ann", "--model", "CKPT", "--input", "in.jsonl"], "pass either a text or a file with --input"),
        (["--model", "CKPT", "--input", "in.jsonl"], "--output is missing"),
        (["--model", "CKPT", "--input", "in.jsonl", "--output", "in.jsonl"], "in.jsonl: is the same file as in.jsonl"),
        (["--model", "CKPT", "--input", "no.jsonl", "--output", "o.jsonl"], "no.jsonl: cannot read"),
        (["--model", "CKPT", "--input", "empty.jsonl", "--output", "o.jsonl"], "empty.jsonl: contains no records"),
        (["--model", "CKPT", "--input", "in.jsonl", "--output", "photos"], "photos: is a directory"),
        (
            ["--model", "CKPT", "--input", "in.jsonl", "--output", "o.jsonl", "--images", "no"],
            "no is not a directory",
        ),
        (["--model", "CKPT", "--input", "in.jsonl", "--output", "o.jsonl", "--json"], "cannot be used with --input"),
        (["Ann", "--model", "CKPT", "--output", "o.jsonl"], "require --input"),
        (["Ann", "--model", "CKPT", "--label", "ship"], "--label 'ship': name its task, e.g. mner=ship"),
        (["Ann", "--model", "CKPT", "--task", "ner"], "Unknown task 'ner'"),
        (["Ann", "--model", "CKPT", "--region", "1,2"], "--region '1,2': use four numbers"),
        (["Ann", "--model", "CKPT", "--image", "no.png"], "no.png: no such image"),
        (["Ann", "--model", "CKPT", "--device", "warp"], "device 'warp' cannot be used"),
        (["Ann", "--model", "CKPT", "--batch-size", "0"], "Invalid value for '--batch-size'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(umie, files, checkpoint, arguments, message):
    (files / "empty.jsonl").write_text("\n")
    code, out, err = umie("extract", *[checkpoint if part == "CKPT" else part for part in arguments])
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (files / "o.jsonl").exists()


def test_help_has_examples(umie):
    code, out, _ = umie("extract", "--help")
    assert code == 0
    assert 'umie extract --model best "Kids at the Salvation Army" --image kids.jpg' in out
    assert "umie extract --model best -i in.jsonl -o out.jsonl --images photos" in out
