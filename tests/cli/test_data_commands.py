"""`umie data convert`, `validate`, `stats` and `sample`."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from umie.data.source import Source, draw_records
from umie.data.synthetic_media import SyntheticMediaConfig, write_synthetic_media
from umie.records import Entity, Event, Record, Relation, read_jsonl, write_jsonl

TWEETS = """\
IMGID:1
Ann\tB-PER
Lee\tI-PER
in\tO
Rome\tB-LOC

IMGID:2
Hi\tO
"""
BAD_TWEETS = TWEETS + "\nIMGID:3\nBob\tB-XYZ\n\nIMGID:4\nNASA\tB-ORG\n\nIMGID:5\nno tab\n"
RECORDS = [
    Record(
        "Ann Lee met Bob", entities=(Entity("person", (0, 7)),), relations=(Relation("peer", (0, 7), (12, 15)),), id="1"
    ),
    Record("Rome [bold]", events=(Event("meet", (0, 4)),), id="2"),
    Record("", image="absent.jpg", events=(Event("attack"),), id="3"),
]
COMMANDS = [
    "convert",
    "validate",
    "stats",
    "sample",
    "audit",
    "clean",
    "fingerprint",
    "synthetic",
    "synthetic-media",
    "regions",
    "segments",
    "tracks",
    "ground",
    "features",
]


@pytest.fixture
def tweets(tmp_path):
    path = tmp_path / "tweets.txt"
    path.write_text(TWEETS)
    return path


@pytest.fixture
def records(tmp_path):
    path = tmp_path / "records.jsonl"
    write_jsonl(path, RECORDS)
    return path


def test_convert(umie, tmp_path, tweets):
    output = tmp_path / "new" / "out.jsonl"
    code, out, err = umie("data", "convert", "--format", "twitter", "--input", tweets, "--output", output)
    assert (code, err) == (0, "")
    assert out == f"records: 2; entities: 2; images: 0 (not checked)\nWritten: {output}\n"
    first, second = read_jsonl(output)
    assert (first.text, [entity.text for entity in first.entities]) == ("Ann Lee in Rome", ["Ann Lee", "Rome"])
    assert (second.text, second.image) == ("Hi", None)


def test_convert_with_images(umie, tmp_path, tweets):
    images = tmp_path / "images"
    images.mkdir()
    (images / "1.jpg").write_bytes(b"x")
    output = tmp_path / "out.jsonl"
    _, out, _ = umie("data", "convert", "-f", "twitter", "-i", tweets, "-o", output, "--images", images)
    assert "images: 1 found, 1 missing" in out
    assert [record.image for record in read_jsonl(output)] == ["1.jpg", "2.jpg"]


def test_nothing_is_written_after_a_bad_record(umie, tmp_path, tweets):
    tweets.write_text(BAD_TWEETS)
    output = tmp_path / "out.jsonl"
    code, out, err = umie("data", "convert", "-f", "twitter", "-i", tweets, "-o", output)
    assert (code, out) == (2, "")
    assert err.startswith(f"umie: {tweets}:11: Unknown tag 'B-XYZ'.")
    assert err.count("\n") == 1
    assert os.listdir(tmp_path) == ["tweets.txt"]


def test_bad_records_can_be_skipped(umie, tmp_path, tweets):
    tweets.write_text(BAD_TWEETS)
    output = tmp_path / "out.jsonl"
    code, out, err = umie("data", "convert", "-f", "twitter", "-i", tweets, "-o", output, "--skip-bad")
    assert code == 0
    assert [line.split(": ")[:2] for line in err.splitlines()] == [
        ["skipped", f"{tweets}:11"],
        ["skipped", f"{tweets}:17"],
    ]
    assert "records: 3; entities: 3" in out
    assert "skipped: 2" in out
    assert [record.id for record in read_jsonl(output)] == ["1", "2", "4"]


def test_a_line_with_two_errors_is_one_skipped_record(umie, tmp_path):
    path, output = tmp_path / "a.jsonl", tmp_path / "out.jsonl"
    path.write_text('{"text": "Ann", "x": 1, "y": 2}\n{"text": "Bob", "tasks": 5}\n{"text": "Cid"}\n')
    code, out, err = umie("data", "convert", "-i", path, "-o", output, "--skip-bad")
    assert (code, err.count("\n")) == (0, 3)
    assert "skipped: 2\n" in out
    assert [record.text for record in read_jsonl(output)] == ["Cid"]


def test_convert_swig_with_a_mapping(umie, tmp_path):
    image = {
        "verb": "arresting",
        "width": 100,
        "height": 50,
        "bb": {"agent": [10, 5, 50, 45], "place": [-1, -1, -1, -1]},
        "frames": [{"agent": "n10448983", "place": ""}],
    }
    (tmp_path / "swig.json").write_text(json.dumps({"arresting_1.jpg": image}))
    (tmp_path / "elsewhere.txt").write_text("arresting\tagent\tJustice||Arrest-Jail\tAgent\n")
    arguments = ("data", "convert", "-f", "swig", "-i", tmp_path / "swig.json", "-o", tmp_path / "out.jsonl")
    code, _, err = umie(*arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert "set the option `mapping`" in err
    code, out, _ = umie(*arguments, "--format-option", f"mapping={tmp_path / 'elsewhere.txt'}")
    assert (code, out.splitlines()[0]) == (0, "records: 1; events: 1; regions: 1; images: 1 (not checked)")
    (record,) = read_jsonl(tmp_path / "out.jsonl")
    assert [(event.type, event.arguments[0].role) for event in record.events] == [("arrest jail", "Agent")]
    for command in (["validate", "--no-images"], ["stats", "--no-images"], ["sample"]):
        arguments = ("data", *command, tmp_path / "swig.json", "-f", "swig")
        assert umie(*arguments)[0] == 2
        assert umie(*arguments, "--format-option", f"mapping={tmp_path / 'elsewhere.txt'}")[0] == 0


def test_convert_is_the_same_from_jsonl(umie, tmp_path, records):
    output = tmp_path / "out.jsonl"
    umie("data", "convert", "-i", records, "-o", output)
    assert output.read_text() == records.read_text()


def test_never_over_the_input(umie, records):
    before = records.read_text()
    code, _, err = umie("data", "convert", "-i", records, "-o", records.parent / "." / records.name)
    assert (code, records.read_text()) == (2, before)
    assert "is the input" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(umie, tmp_path, records):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    code, _, err = umie("data", "convert", "-i", records, "-o", locked / "out.jsonl")
    assert (code, err.count("\n")) == (2, 1)
    assert "Permission denied" in err


def test_a_disk_that_is_full_leaves_no_trace(tmp_path, records):
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); "
        "from umie.cli import main; sys.argv[0] = 'umie'; main()"
    )
    command = [sys.executable, "-c", program, "data", "convert", "-i", records, "-o", tmp_path / "out.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "umie: [Errno 27] File too large\n")
    assert os.listdir(tmp_path) == ["records.jsonl"]


@pytest.mark.parametrize("folder", ["records.jsonl", "/proc"])
def test_where_nothing_can_be_written(umie, tmp_path, records, folder):
    code, _, err = umie("data", "convert", "-i", records, "-o", tmp_path / folder / "out.jsonl")
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convert", "-i", "absent.jsonl", "-o", "o.jsonl"), "absent.jsonl: cannot read: No such file"),
        (("convert", "-i", ".", "-o", "o.jsonl"), ".: is a directory; use the file of one split"),
        (("convert", "-f", "twiter", "-i", "a.jsonl", "-o", "o.jsonl"), "Did you mean 'twitter'?"),
        (("convert", "-i", "a.jsonl", "-o", "o.jsonl", "--images", "absent"), "absent: no such directory"),
        (
            ("convert", "-i", "a.jsonl", "-o", "o.jsonl", "--format-option", "mapping=b"),
            "Unknown jsonl option 'mapping'",
        ),
        (("validate", "absent.jsonl"), "absent.jsonl: cannot read"),
        (("stats", "absent.jsonl"), "absent.jsonl: cannot read"),
        (("stats", "a.jsonl", "a.jsonl"), "use each file once"),
        (("stats", "a.jsonl", "--figure", "a.bmp"), "--figure a.bmp: use a name that ends in .png"),
        (("stats", "a.jsonl", "link.jsonl"), "link.jsonl: is the same file as a.jsonl"),
        (("convert", "-i", "empty.jsonl", "-o", "o.jsonl"), "empty.jsonl: contains no records"),
        (("convert", "-i", "bad.jsonl", "-o", "o.jsonl", "--skip-bad"), "bad.jsonl: contains no records that can be"),
        (("validate", "a.jsonl", "--format-option", "mapping=b"), "Unknown jsonl option 'mapping'"),
        (("sample", "absent.jsonl"), "absent.jsonl: cannot read"),
        (("sample", "empty.jsonl"), "empty.jsonl: contains no records"),
        (("audit",), "nothing to audit: use --train, --dev or --test"),
        (("audit", "--test", "a.jsonl", "--train", "link.jsonl"), "a.jsonl: is the same file as link.jsonl"),
        (("audit", "--test", "a.jsonl", "--against", "x/../a.jsonl"), "use each file once"),
        (("audit", "--test", "absent.jsonl"), "absent.jsonl: cannot read"),
        (("audit", "--test", "a.jsonl", "--threshold", "0"), "threshold is 0.0"),
        (("audit", "--test", "a.jsonl", "--versions", "a.jsonl"), "a.jsonl: is {"),
        (("clean", "a.jsonl", "--against", "b.jsonl", "-o", "b.jsonl"), "b.jsonl: is an input"),
        (("clean", "a.jsonl", "--against", "b.jsonl", "-o", "a.jsonl"), "a.jsonl: is an input"),
        (("clean", "a.jsonl", "--against", "a.jsonl", "-o", "o.jsonl"), "use each file once"),
        (("clean", "a.jsonl", "--against", "x/../a.jsonl", "-o", "o.jsonl"), "use each file once"),
        (("clean", "a.jsonl", "--against", "b.jsonl", "--against", "b.jsonl", "-o", "o.jsonl"), "use each file once"),
        (
            ("clean", "a.jsonl", "--against", "b.jsonl", "-o", "o.jsonl", "--match", "x"),
            "match is 'x'",
        ),
        (("fingerprint", "a.jsonl", "--name", "a", "--name", "b"), "2 names for 1 files"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line(umie, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": "Ann", "id": name}) + "\n")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "bad.jsonl").write_text("{")
    (tmp_path / "x").mkdir()
    (tmp_path / "link.jsonl").symlink_to("a.jsonl")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    code, _, err = umie("data", *arguments)
    lines = [line for line in err.splitlines() if not line.startswith("skipped: ")]
    assert (code, len(lines)) == (2, 1)
    assert message in lines[0]
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_validate_a_sound_file(umie, tmp_path, records):
    Image.new("RGB", (4, 4)).save(tmp_path / "absent.jpg")
    code, out, _ = umie("data", "validate", records)
    assert (code, out) == (0, f"{records}: 3 records read, 0 errors, 0 warnings\n")


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_validate_an_empty_file(umie, tmp_path, content):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    code, out, _ = umie("data", "validate", path)
    assert code == 2
    assert out == f"error: {path}: contains no records\n{path}: 0 records read, 1 errors, 0 warnings\n"


@pytest.fixture
def unsound(tmp_path):
    path = tmp_path / "unsound.jsonl"
    lines = [
        {"text": "Ann ", "entities": [{"type": "a", "span": [0, 4]}, {"type": "b", "span": [0, 2]}], "id": "1"},
        {"text": "Bob", "entities": [{"type": "a", "span": [0, 9]}, {"type": "", "span": [0, 1]}]},
        {"text": "[bold]Cid[/bold]", "id": "1"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_validate_lists_everything(umie, unsound):
    code, out, _ = umie("data", "validate", unsound)
    lines = out.splitlines()
    assert code == 2
    assert lines[0].startswith(f"warning: {unsound}:1: entity [0, 4] covers 'Ann ' with surrounding whitespace")
    assert lines[1].startswith(f"error: {unsound}:2: entity has type ''")
    assert lines[2].startswith(f"error: {unsound}:2: span [0, 9] is not inside the text of 3 characters")
    assert lines[3].startswith(f"error: {unsound}:3: id '1' is already used at {unsound}:1")
    assert lines[4:] == [f"{unsound}: 2 records read, 3 errors, 1 warnings"]


def test_validate_counts_unlisted_findings(umie, unsound):
    _, out, _ = umie("data", "validate", unsound, "--limit", 1, "--no-warnings")
    listed, total = out.splitlines()
    assert listed.startswith("error: ")
    assert total.endswith("3 errors, 1 warnings (2 not listed; use --limit 0 --warnings 0 to list all)")


def test_validate_accepts_warnings(umie, tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [Record("Ann ", entities=(Entity("a", (0, 4)),))])
    code, out, _ = umie("data", "validate", path)
    assert (code, out.count("warning: ")) == (0, 1)


def test_validate_images(umie, records):
    code, out, _ = umie("data", "validate", records)
    assert code == 2
    assert f"error: {records}:3: image 'absent.jpg' does not exist" in out
    assert umie("data", "validate", records, "--no-images")[0] == 0


def test_a_huge_line(umie, tmp_path):
    path = tmp_path / "huge.jsonl"
    text = "Ann met Bob . " * 200_000
    entities = [{"type": "person", "span": [start, start + 4]} for start in range(0, 280_000, 14)]
    path.write_text(json.dumps({"text": text, "entities": entities, "x": 1}) + '\n{"text": "Ann"}\n')
    code, out, _ = umie("data", "validate", path, "--no-warnings")
    assert code == 2
    assert out.splitlines()[0].startswith(f"error: {path}:1: the line has 3,")
    assert len(out) < 1000


def test_stats(umie, records, tmp_path):
    code, out, err = umie("data", "stats", records, "--figure", tmp_path / "figure.png")
    assert (code, err) == (0, "")
    rows = {tuple(line.split()) for line in out.splitlines()}
    assert {("records", "3"), ("entities", "1"), ("events", "2"), ("person", "1", "(100.0%)")} <= rows
    assert {("named", "1", "(33.3%)"), ("missing", "1", "(100.0%)")} <= rows
    assert (tmp_path / "figure.png").exists()


def test_stats_as_json(umie, records, tweets):
    code, out, _ = umie("data", "stats", records, "--json")
    summary = json.loads(out)["records"]
    assert code == 0
    assert summary["labels"] == {"med": {"meet": 1, "attack": 1}, "mner": {"person": 1}, "mre": {"peer": 1}}
    assert summary["images"]["missing"] == 1
    _, out, _ = umie("data", "stats", tweets, "-f", "twitter", "--json", "--no-images")
    assert json.loads(out)["tweets"]["records"] == 2


def test_stats_of_all_media(umie, tmp_path):
    path = write_synthetic_media(tmp_path / "set", SyntheticMediaConfig(train=2, dev=0, test=0))["train"]
    drawn = list(read_jsonl(path))
    next(one for one in drawn if one.audio).path("audio").unlink()
    _, out, _ = umie("data", "stats", path)
    rows = [tuple(line.split()) for line in out.splitlines()]
    places = {name: sum(len(getattr(one, name)) for one in drawn) for name in ("segments", "tracks", "regions")}
    assert {(name, str(number)) for name, number in places.items()} <= set(rows)
    assert {("T+I", "2", "(11.1%)"), ("A+V", "2", "(11.1%)"), ("V", "2", "(11.1%)")} <= set(rows)
    assert rows.index(("sounds",)) < rows.index(("videos",))
    assert {("named", "10", "(55.6%)"), ("named", "6", "(33.3%)"), ("named", "8", "(44.4%)")} <= set(rows)
    summary = json.loads(umie("data", "stats", path, "--json")[1])["train"]
    assert sum(summary["combinations"].values()) == summary["records"] == 18
    assert (summary["sounds"]["missing"], summary["videos"]["missing"]) == (1, 0)
    assert ("missing", "1", "(10.0%)") in rows
    assert summary["lengths"]["segments"]["max"] == 4


def test_stats_of_files_with_one_name(umie, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_jsonl(tmp_path / folder / "train.jsonl", RECORDS)
    files = [tmp_path / folder / "train.jsonl" for folder in ("a", "b")]
    _, out, _ = umie("data", "stats", *files, "--json")
    assert list(json.loads(out)) == [str(file) for file in files]


def test_sample_marks_spans(umie, records):
    code, out, err = umie("data", "sample", records, "-n", 10)
    assert (code, err) == (0, "")
    assert f"{records}:1  id 1, no image, 0 regions\n[Ann Lee|head] met [Bob|tail]\n" in out
    assert "person: 'Ann Lee' [0, 7]" in out
    assert "'Ann Lee' [0, 7] -- peer --> 'Bob' [12, 15]" in out
    assert "[Rome|meet] [bold]" in out  # markup in a text is text
    assert "event attack: (in the image)" in out


def test_sample_is_uniform_and_reproducible(umie, tmp_path):
    path = tmp_path / "many.jsonl"
    write_jsonl(path, [Record(f"text {number}", id=str(number)) for number in range(40)])

    def drawn(*options):
        return [json.loads(line)["id"] for line in umie("data", "sample", path, "--json", *options)[1].splitlines()]

    assert drawn("--seed", 3) == drawn("--seed", 3)
    assert len(set(drawn("--seed", 3))) == 5
    often = [0] * 40
    assert drawn("-n", 10, "--seed", 7) == [record.id for _, record in draw_records(Source(path), 10, 7)]
    for seed in range(40):
        for _, record in draw_records(Source(path), 10, seed):
            often[int(record.id)] += 1
    assert sum(often) == 400
    # each record is drawn in a quarter of 40 runs: mean 10, standard deviation 2.7
    assert 0 < min(often) <= max(often) < 24


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(umie, command):
    code, out, _ = umie("data", command, "--help")
    assert code == 0
    assert "Example:" in out
    assert f"umie data {command}" in out


def test_help_lists_every_command(umie):
    _, out, _ = umie("data", "--help")
    assert all(command in out for command in COMMANDS)


def test_validate_lists_every_error_and_the_first_warnings(umie, tmp_path):
    path = tmp_path / "many.jsonl"
    doubtful = {"text": "Ann ", "entities": [{"type": "person", "span": [0, 4]}]}
    unsound = {"text": "Ann", "entities": [{"type": "person", "span": [0, 9]}]}
    path.write_text("".join(json.dumps(line) + "\n" for line in [doubtful] * 30 + [unsound] * 30))
    _, out, _ = umie("data", "validate", path)
    assert (out.count("warning: "), out.count("error: ")) == (20, 30)
    assert "30 errors, 30 warnings (10 not listed" in out
    assert umie("data", "validate", path, "--warnings", 0)[1].count("warning: ") == 30


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_of_the_help_fit_80_columns(umie, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = umie("data", command, "--help")
    block = out.partition("Example:")[2].partition("╭")[0]
    examples = [line.strip() for line in block.splitlines() if line.strip()]
    assert examples
    assert all(line.startswith(f"umie data {command} ") for line in examples)
