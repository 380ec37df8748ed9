"""`umie data regions` as a user runs it, on small images and, where they are, on real ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from umie.encoders.regions import registry
from umie.records import Argument, Event, Record, Region, read_jsonl, write_jsonl

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the published files are not here")


@pytest.fixture
def records(tmp_path, noise):
    """Three records: with an image, with an image and a region, without an image."""
    for name in ("1.jpg", "2.jpg"):
        noise(60, 40, int(name[0])).save(tmp_path / name)
    own = {"regions": (Region((0.0, 0.0, 0.5, 0.5), "dog"),)}
    events = (Event("attack", arguments=(Argument("target", regions=(0,)),)),)
    path = tmp_path / "records.jsonl"
    write_jsonl(
        path,
        [
            Record("a", image="1.jpg", id="1"),
            Record("b", image="2.jpg", id="2", events=events, **own),
            Record("c", id="3"),
        ],
    )
    return path


@pytest.fixture
def run(umie, tmp_path, records):
    """Run the command on the records: exit code, output, errors, and what was written."""

    def call(*arguments, name=records):
        output = tmp_path / "out.jsonl"
        code, out, err = umie("data", "regions", "-i", name, "-o", output, *arguments)
        return code, out, err, list(read_jsonl(output)) if output.exists() else None

    return call


def test_regions_are_added_behind_those_that_are_there(run, tmp_path, records):
    code, out, err, written = run("-p", "grid", "--option", "scales=[2]")
    assert (code, err) == (0, "")
    assert out == (
        f"records: 3; images: 2; proposals: 7\nimages that cannot be read: 0\nWritten: {tmp_path / 'out.jsonl'}\n"
    )
    given = list(read_jsonl(records))
    assert [len(record.regions) for record in written] == [4, 4, 0]
    assert written[1].regions[0] == given[1].regions[0]
    assert (written[1].events, written[2], written[0].image) == (given[1].events, given[2], "1.jpg")
    assert written == list(registry.build("grid", scales=[2]).fill(given))


def test_options_are_yaml(run):
    assert [len(item.regions) for item in run("-p", "grid", "--option", "top=3", "--option", "nms=1.0")[3]] == [3, 3, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-p", "grit"), "Unknown region proposer 'grit'. Did you mean 'grid'?"),
        (("-p", "grid", "--option", "tops=3"), "Unknown option of region proposer 'grid': 'tops'. Did you mean 'top'?"),
        (("-p", "grid", "--option", "top=x"), "top is 'x': use a whole number of at least 1"),
        (("-p", "grid", "--option", "top"), "--option 'top': expected NAME=VALUE"),
        (("-p", "grid", "--option", "top=1", "--option", "top=2"), "--option top is repeated"),
        (("-p", "grid", "--option", "scales=[1"), "is not valid YAML"),
        (("-p", "grounding"), "checkpoint is None: use the directory"),
        (("-p", "file", "--option", "path=absent"), "path is 'absent': use an existing directory"),
        (("-p", "grid", "--images", "absent"), "absent: no such directory"),
        (("-p", "grid", "--missing-images", "never"), "Unknown policy for missing images 'never'"),
        (("-p", "grid", "--draw-number", "0"), "'--draw-number'"),
        ((), "Missing option '--proposer'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_errors_are_one_line_and_nothing_is_written(run, tmp_path, arguments, message):
    before = sorted(os.listdir(tmp_path))
    code, out, err, written = run(*arguments)
    assert (code, out, written) == (2, "", None)
    assert message in err
    assert err.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == before


def test_files_that_are_not_taken(umie, tmp_path, records):
    code, _, err = umie("data", "regions", "-i", records, "-o", records, "-p", "grid")
    assert (code, "is the input file" in err) == (2, True)
    (tmp_path / "none.jsonl").write_text('{"text": "a"}\n')
    code, _, err = umie("data", "regions", "-i", tmp_path / "none.jsonl", "-o", tmp_path / "o.jsonl", "-p", "grid")
    assert (code, "no record has an image" in err, err.count("\n")) == (2, True, 1)
    (tmp_path / "bad.jsonl").write_text('{"text": "a", "image": "1.jpg"}\n{"text": 5}\n')
    code, _, err = umie("data", "regions", "-i", tmp_path / "bad.jsonl", "-o", tmp_path / "o.jsonl", "-p", "grid")
    assert (code, "bad.jsonl:2: text is 5" in err, err.count("\n")) == (2, True, 1)
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize(
    ("policy", "kept"), [("text_only", {"1": 4, "2": 1, "3": 0}), ("skip", {"1": 4, "3": 0}), ("error", None)]
)
def test_images_that_cannot_be_read(run, tmp_path, policy, kept):
    (tmp_path / "2.jpg").write_bytes(b"no image")
    code, out, err, written = run("-p", "grid", "--option", "scales=[2]", "--missing-images", policy)
    assert err.count("\n") == 1
    assert "record 2: " in err
    assert "2.jpg: not a readable image" in err
    if kept is None:
        assert (code, written) == (2, None)
        return
    assert code == 0
    assert {record.id: len(record.regions) for record in written} == kept
    left_out = ", their records left out: 1" if policy == "skip" else ""
    images = 1 if policy == "skip" else 2  # of the records that are written
    assert f"records: {len(kept)}; images: {images}; proposals: 4\nimages that cannot be read: 1{left_out}\n" in out


def test_an_image_that_cannot_be_read_is_told_once(run, tmp_path):
    records = tmp_path / "many.jsonl"
    names = ["absent.jpg", "1.jpg", "absent.jpg", "gone.jpg"]
    records.write_text("".join(json.dumps({"text": "a", "image": name}) + "\n" for name in names))
    code, out, err, written = run("-p", "grid", "--missing-images", "skip", name=records)
    assert (code, len(written), err.count("\n")) == (0, 1, 2)
    assert "images that cannot be read: 2, their records left out: 3\n" in out


def test_nothing_is_written_where_no_image_can_be_read(run, tmp_path):
    records = tmp_path / "one.jsonl"
    records.write_text('{"text": "a", "image": "absent.jpg"}\n')
    code, _, err, written = run("-p", "grid", "--missing-images", "skip", name=records)
    assert (code, written) == (2, None)
    assert "no record has an image that can be read" in err


def test_boxes_from_a_file_and_what_was_dropped(run, tmp_path):
    boxes = {"1.jpg": [{"box": [0, 0, 30, 40]}, {"box": [30, 0, 20, 40]}]}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    options = ("--option", f"path={tmp_path / 'boxes.json'}", "--option", "boxes=absolute")
    code, out, err, written = run("-p", "file", *options)
    assert (code, err) == (
        0,
        "warning: if boxes are x, y, width and height, set --option boxes=xywh (JSON files)\n",
    )
    assert "proposals: 1; boxes without area: 1 of 2 (50.0%); images without annotation: 1\n" in out
    assert written[0].regions == (Region((0.0, 0.0, 0.5, 1.0)),)


VOC = "<annotation><size><width>60</width><height>40</height></size>{}</annotation>"
OBJECT = "<object><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


@pytest.mark.parametrize("policy", ["error", "text_only", "skip"])
def test_a_bad_box_of_voc_costs_no_record(run, tmp_path, policy):
    (tmp_path / "xml").mkdir()
    objects = "".join(OBJECT.format(*box) for box in ((30, 0, 20, 40), (0, 0, 30, 40), (0, 0, 70, 40)))
    (tmp_path / "xml" / "1.xml").write_text(VOC.format(objects))
    code, out, err, written = run("-p", "file", "--option", f"path={tmp_path / 'xml'}", "--missing-images", policy)
    assert (code, "warning: if boxes are x, y" in err) == (0, True)
    assert written[0].regions == (Region((0.0, 0.0, 0.5, 1.0)),)
    dropped = (
        "boxes outside the image: 1 of 3 (33.3%); boxes without area: 1 of 3 (33.3%); images without annotation: 1"
    )
    assert f"records: 3; images: 2; proposals: 1; {dropped}\nimages that cannot be read: 0\nWritten" in out


@pytest.mark.parametrize(
    ("policy", "kept", "left_out"),
    [("text_only", ["1", "2", "3"], ""), ("skip", ["2", "3"], ", their records left out: 1")],
)
def test_annotation_that_cannot_be_read_is_no_unreadable_image(run, tmp_path, policy, kept, left_out):
    (tmp_path / "xml").mkdir()
    (tmp_path / "xml" / "1.xml").write_text("no annotation")
    arguments = ("-p", "file", "--option", f"path={tmp_path / 'xml'}", "--missing-images")
    code, out, err, written = run(*arguments, policy)
    assert (code, [record.id for record in written]) == (0, kept)
    assert err.startswith(f"annotation cannot be read: record 1: {tmp_path / 'xml' / '1.xml'}: not valid XML")
    assert err.count("\n") == 1
    assert f"\nimages that cannot be read: 0\nannotations that cannot be read: 1{left_out}\nWritten" in out
    (tmp_path / "out.jsonl").unlink()
    assert run(*arguments, "error")[0::3] == (2, None)


def test_own_regions_that_are_cut_are_counted(run, tmp_path):
    records = tmp_path / "many.jsonl"
    own = [{"box": [0, 0, (index + 1) / 9, 1]} for index in range(5)]
    records.write_text(json.dumps({"text": "a", "image": "1.jpg", "regions": own}) + "\n")
    _, out, _, written = run("-p", "file", "--option", "top=2", name=records)
    assert "proposals: 0; regions cut: 3\n" in out
    assert len(written[0].regions) == 2


def test_random_weights_are_reported_and_are_the_same_every_time(run):
    options = ("--option", "model=fasterrcnn_mobilenet_v3_large_320_fpn", "--option", "min_score=0")
    arguments = ("-p", "faster_rcnn", *options, "--option", "min_size=32", "--option", "top=4")
    code, _, err, first = run(*arguments)
    assert (code, [len(record.regions) for record in first]) == (0, [4, 4, 0])
    assert err == "faster_rcnn has random weights: use --option weights=... to load pretrained ones\n"
    assert run(*arguments)[3] == first


def test_images_with_their_regions_drawn_in(run, tmp_path):
    Image.new("RGB", (200, 100), "black").save(tmp_path / "1.jpg")
    code, out, _, _ = run("-p", "grid", "--option", "scales=[2]", "--draw", tmp_path / "look", "--draw-number", "1")
    assert (code, f"Drawn: 1 images in {tmp_path / 'look'}\n" in out) == (0, True)
    assert os.listdir(tmp_path / "look") == ["0001_1.png"]
    with Image.open(tmp_path / "look" / "0001_1.png") as drawn:
        assert drawn.size == (200, 100)
        frame = [drawn.getpixel((x, 49)) for x in range(25, 75)]
        inside = [drawn.getpixel((x, 35)) for x in range(25, 75)]
    assert len(set(frame)) == 1
    assert set(inside) == {(0, 0, 0)} != set(frame)


def test_help_loads_no_torch():
    program = (
        "import sys\nfrom umie.cli import main\nsys.argv = ['umie', 'data', 'regions', '--help']\n"
        "try:\n    main()\nfinally:\n    heavy = {'torch', 'torchvision', 'transformers', 'PIL'} & set(sys.modules)\n"
        "    print('loaded', heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert "loaded set()" in done.stdout
    assert "Example:" in done.stdout
    assert "umie data regions" in done.stdout


@real
def test_real_images_with_the_boxes_of_gmner(umie, tmp_path):
    """Five of the six tweets' images have a VOC file; two images are PNG by their bytes."""
    images = sorted((DATA / "twitter_images").glob("*.jpg"))
    records = tmp_path / "records.jsonl"
    write_jsonl(records, [Record("a text", image=path.name, id=path.stem) for path in images])
    output = tmp_path / "out.jsonl"
    common = ("data", "regions", "-i", records, "-o", output, "--images", DATA / "twitter_images")
    code, out, err = umie(*common, "-p", "file", "--option", f"path={DATA / 'gmner' / 'xml'}")
    assert (code, err) == (0, "")
    assert "records: 6; images: 6; proposals: 6; images without annotation: 1\n" in out
    found = {record.id: [region.label for region in record.regions] for record in read_jsonl(output)}
    assert found["1953977"] == ["Angelina Jolie", "Angelina Jolie"]
    assert found["70560"] == []


@real
@pytest.mark.slow
def test_every_real_image(umie, tmp_path):
    images = [path for name in ("twitter_images", "mnre_images", "m2e2/images") for path in (DATA / name).glob("*.jpg")]
    assert len(images) == 27
    records = tmp_path / "records.jsonl"
    write_jsonl(records, [Record("a", image=str(path.relative_to(DATA))) for path in images])
    output = tmp_path / "out.jsonl"
    common = ("data", "regions", "-i", records, "-o", output, "--images", DATA)
    code, out, _ = umie(*common, "-p", "grid")
    assert (code, "records: 27; images: 27; proposals: 783\n" in out) == (0, True)
    options = ("model=fasterrcnn_mobilenet_v3_large_320_fpn", "min_score=0", "min_size=64", "top=10")
    code, out, _ = umie(*common, "-p", "faster_rcnn", *(part for option in options for part in ("--option", option)))
    assert (code, "records: 27; images: 27; proposals: 270" in out) == (0, True)


def test_a_file_for_other_images_is_an_error_and_nothing_is_written(run, tmp_path):
    (tmp_path / "boxes.json").write_text(json.dumps({"other.jpg": [{"box": [0, 0, 30, 40]}]}))
    options = ("--option", f"path={tmp_path / 'boxes.json'}", "--option", "boxes=absolute", "--missing-images", "skip")
    code, _, err, written = run("-p", "file", *options)
    assert (code, written) == (2, None)
    assert err == (
        f"umie: {tmp_path / 'boxes.json'}: has no annotation of any of the 2 images: it must name the images of these "
        "records\n"
    )


def test_boxes_of_coco_and_the_share_of_clipped_ones(run, tmp_path):
    boxes = [[0, 0, 30, 40], [30, 0, 31, 40], [0, 0, 10, 10], [5, 5, 0, 5]]
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 60, "height": 40}],
        "annotations": [{"image_id": 1, "bbox": box, "category_id": 1} for box in boxes],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    code, out, _, written = run("-p", "file", "--option", f"path={tmp_path / 'coco.json'}")
    assert code == 0
    assert "proposals: 3; boxes clipped to the image: 1 of 4 (25.0%); boxes without area: 1 of 4 (25.0%); images" in out
    assert Region((0.5, 0.0, 1.0, 1.0), "cat") in written[0].regions
