"""Properties of all readers, and the published files if they are available."""

import ast
import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from umie.data import registry
from umie.errors import UmieError
from umie.records import Record, read_jsonl, write_jsonl
from umie.records.voc import read_voc
from umie.tasks import Task
from umie.tasks import registry as tasks

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
# numbers of tweets, lines and pairs of the available splits
COUNTS = {
    ("twitter", "twitter2015/train.txt"): 4000,
    ("twitter", "twitter2015/valid.txt"): 1000,
    ("twitter", "twitter2017/train.txt"): 3373,
    ("twitter", "twitter2017/valid.txt"): 723,
    ("twitter", "twitter2017/test.txt"): 723,
    ("gmner", "gmner/txt/train.txt"): 7000,
    ("gmner", "gmner/txt/dev.txt"): 1500,
    ("mnre", "mnre_v1/ours_train.txt"): 7824,
    ("mnre", "mnre_v1/ours_val.txt"): 975,
    ("mnre", "mnre_v2/train.txt"): 12247,
    ("mnre", "mnre_v2/val.txt"): 1624,
    ("mnre", "mnre_v2/test.txt"): 1614,
    ("mnre", "mnre_images/annotations/ours_train.txt"): 5,
    ("mnre", "mnre_images/annotations/ours_val.txt"): 5,
    ("mnre", "mnre_images/annotations/ours_test.txt"): 5,
    ("m2e2", "m2e2/text_multimedia_event.json"): 309,
    ("m2e2", "m2e2/image_only_event.json"): 188,
    ("m2e2", "m2e2/image_multimedia_event.json"): 203,
}
FORMATS = ["ace", "fmnerg", "gmner", "jsonl", "m2e2", "mnre", "snap", "swig", "twitter"]
IMAGES = {
    "twitter": "twitter_images",
    "gmner": "twitter_images",
    "mnre": "mnre_images",
    "m2e2": "m2e2/images",
}
FILES = [pytest.param(format_name, file, id=file) for format_name, file in COUNTS]


@cache
def published(format_name: str, file: str) -> list[Record]:
    if not (DATA / file).exists():
        pytest.skip(reason=f"the published file {file} is not available")
    regions = DATA / "gmner/xml" if format_name == "gmner" else None
    options = {"regions": regions} if regions else {}
    return list(registry.build(format_name, path=DATA / file, images=DATA / IMAGES[format_name], **options))


def keys(task: Task[Any], items: Iterable[Any]) -> set[Any]:
    """Return the items without what is not asked: the regions of entities, and in MED the arguments of events."""
    left_out = {"entities": {"regions": ()}, "events": {"arguments": ()}}.get(task.kind, {})
    return {replace(item, **left_out) for item in items}


def test_every_format_has_a_reader() -> None:
    assert set(FORMATS) <= set(registry.names())


def test_an_unknown_format_is_named_with_the_nearest() -> None:
    with pytest.raises(UmieError, match=r"Unknown data format 'twiter'\. Did you mean 'twitter'\?"):
        registry.build("twiter", path="x")


@pytest.mark.parametrize("name", FORMATS)
def test_readers_load_no_torch(name: str) -> None:
    code = f"import sys, umie.data; umie.data.registry.get({name!r}); print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


@pytest.mark.slow
@pytest.mark.parametrize(("format_name", "file"), FILES)
def test_every_published_line_is_read(format_name: str, file: str) -> None:
    assert len(published(format_name, file)) == COUNTS[format_name, file]


@pytest.mark.slow
@pytest.mark.parametrize(("format_name", "file"), FILES)
def test_answers_of_published_records_are_preserved(format_name: str, file: str) -> None:
    for record in published(format_name, file):
        for name in record.tasks or ():
            task = tasks.build(name)
            found: set[object] = set()
            for query in task.queries(record):
                answer = task.parse(query.answer, record, query.target)
                assert answer.dropped == 0, (record.id, query.answer)
                found |= keys(task, answer)
            assert found == keys(task, task.items(record)), record.id


@pytest.mark.slow
@pytest.mark.parametrize(("format_name", "file"), FILES)
def test_published_records_survive_jsonl(format_name: str, file: str, tmp_path: Path) -> None:
    records = published(format_name, file)
    write_jsonl(tmp_path / "a.jsonl", records)
    assert list(read_jsonl(tmp_path / "a.jsonl")) == records


@pytest.mark.slow
@pytest.mark.parametrize(("format_name", "file"), FILES)
def test_published_records_have_unique_ids(format_name: str, file: str) -> None:
    identifiers = [record.id for record in published(format_name, file)]
    assert len(set(identifiers)) == len(identifiers)


@pytest.mark.parametrize(
    ("file", "tagged", "broken"),
    [
        ("twitter2015/train.txt", 6166, 186),
        ("twitter2015/valid.txt", 1541, 53),
        ("twitter2017/train.txt", 6049, 0),
        ("twitter2017/valid.txt", 1324, 0),
        ("twitter2017/test.txt", 1351, 0),
    ],
)
def test_entities_are_the_b_tags_and_the_i_tags_that_continue_nothing(file: str, tagged: int, broken: int) -> None:
    records = published("twitter", file)
    lines = (DATA / file).read_text(encoding="utf-8").split("\n")
    assert sum("\tB-" in line for line in lines) == tagged
    assert sum(len(record.entities) for record in records) == tagged + broken


def test_gmner_boxes() -> None:
    splits = [published("gmner", f"gmner/txt/{split}.txt") for split in ("train", "dev")]
    boxes = [[len(record.regions) for record in records] for records in splits]
    assert [sum(counts) for counts in boxes] == [5652, 1164]
    assert sum(map(sum, boxes)) == 6816
    assert sum(count > 0 for counts in boxes for count in counts) == 4757


def test_all_gmner_files_of_boxes() -> None:
    files = sorted((DATA / "gmner/xml").glob("*.xml"))
    if not files:
        pytest.skip(reason="the published files gmner/xml are not available")
    regions = [read_voc(file) or () for file in files]
    assert len(regions) == 5612
    assert sum(map(len, regions)) == 8058
    assert all(region.label for found in regions for region in found)


@pytest.mark.slow
def test_mnre_relations_have_distinct_labels() -> None:
    """No two relations have the same label, except the two spellings of none."""
    relations: dict[str, set[str]] = {}
    for format_name, file in COUNTS:
        if format_name == "mnre":
            records = published(format_name, file)
            lines = (DATA / file).read_text(encoding="utf-8").splitlines()
            for record, line in zip(records, lines, strict=True):
                relations.setdefault(record.relations[0].type, set()).add(ast.literal_eval(line)["relation"])
    assert relations.pop("none") == {"none", "None"}
    assert len(relations) == 30
    assert all(len(names) == 1 for names in relations.values())


@pytest.mark.parametrize(
    ("file", "size"), [(file, 31 if "mnre_v1" in file else 23) for name, file in COUNTS if name == "mnre"]
)
def test_mnre_schemas_hold_every_label(file: str, size: int) -> None:
    for record in published("mnre", file):
        assert record.labels and len(record.labels["mre"]) == size
        assert record.relations[0].type in record.labels["mre"]


def test_mnre1_names_that_differ_from_their_tokens_in_spaces() -> None:
    differing: Counter[str] = Counter()
    for file in ("mnre_v1/ours_train.txt", "mnre_v1/ours_val.txt"):
        records = published("mnre", file)
        lines = (DATA / file).read_text(encoding="utf-8").splitlines()
        for record, line in zip(records, lines, strict=True):
            data = ast.literal_eval(line)
            (relation,) = record.relations
            differing["head"] += record.surface(relation.head) != data["h"]["name"]
            differing["tail"] += record.surface(relation.tail) != data["t"]["name"]
    assert differing == {"head": 177, "tail": 302}


def test_m2e2_arguments_and_regions() -> None:
    records = published("m2e2", "m2e2/text_multimedia_event.json")
    sentences = json.loads((DATA / "m2e2/text_multimedia_event.json").read_text())
    spans = sum(len(event["arguments"]) for sentence in sentences for event in sentence["golden-event-mentions"])
    once = {record.id.split(":")[0]: record for record in records if record.id}
    assert len(once) == len(sentences) == 192
    arguments = [argument for record in once.values() for event in record.events for argument in event.arguments]
    assert sum(argument.span is not None for argument in arguments) == spans == 307
    regions = {record.image: len(record.regions) for record in records if record.regions}
    assert regions == {
        "VOA_EN_NW_2014.12.17.2562583_0.jpg": 1,
        "VOA_EN_NW_2015.11.26.3074855_1.jpg": 3,
        "VOA_EN_NW_2016.10.19.3557471_0.jpg": 6,
    }


def test_m2e2_uses_the_papers_labels() -> None:
    for record in published("m2e2", "m2e2/text_multimedia_event.json"):
        tasks.build("med").check(record)
        tasks.build("meae").check(record)


def test_m2e2_images_without_texts() -> None:
    records = [
        record
        for file in ("m2e2/image_only_event.json", "m2e2/image_multimedia_event.json")
        for record in published("m2e2", file)
    ]
    assert len(records) == 188 + 203 == 391
    placed = [record for record in records if record.annotated_for("meae")]
    paths = [record.image_path() for record in records]
    assert sum(path is not None and path.exists() for path in paths) == len(placed) == 6  # the images that are there
    assert {region.label for record in placed for region in record.regions} <= {"instance", "union"}
    assert sum(len(record.regions) for record in placed) == 19
    types = Counter(event.type for record in records for event in record.events)
    assert sum(types.values()) == 391
    assert types == {
        "meet": 79, "demonstrate": 69, "die": 64, "arrest jail": 56, "transport": 54, "phone write": 37, "attack": 26,
        "transfer": 6,
    }  # fmt: skip


def test_m2e2_boxes_of_all_images(tmp_path: Path) -> None:
    """Every box of the 391 images is read; blank images of sufficient size replace the originals."""
    flags: Counter[str | None] = Counter()
    for file, num_boxes in (("image_only_event.json", 688), ("image_multimedia_event.json", 741)):
        if not (DATA / "m2e2" / file).exists():
            pytest.skip(reason=f"the published file m2e2/{file} is not available")
        images = json.loads((DATA / "m2e2" / file).read_text())
        blank = io.BytesIO()
        Image.new("1", (9_000, 9_000)).save(blank, "ppm")  # only its header is read
        (tmp_path / "blank.jpg").write_bytes(blank.getvalue())
        for stem in images:
            (tmp_path / f"{stem}.jpg").symlink_to("blank.jpg")
        records = list(registry.build("m2e2", path=DATA / "m2e2" / file, images=tmp_path))
        assert sum(len(record.regions) for record in records) == num_boxes
        assert sum(len(event.arguments) for record in records for event in record.events) == num_boxes
        flags.update(region.label for record in records for region in record.regions)
    assert flags == {"instance": 1318, "union": 111}


def test_m2e2_flags_distinguish_instances_and_unions() -> None:
    """For most roles with both flags, the box of flag 0 is close to the hull of the others; see umie.data.m2e2."""
    overlaps = []
    num_unions_only = 0
    for file in ("image_only_event.json", "image_multimedia_event.json"):
        if not (DATA / "m2e2" / file).exists():
            pytest.skip(reason=f"the published file m2e2/{file} is not available")
        for image in json.loads((DATA / "m2e2" / file).read_text()).values():
            for boxes in image["role"].values():
                unions = [box[1:] for box in boxes if box[0] == "0"]
                instances = [box[1:] for box in boxes if box[0] == "1"]
                num_unions_only += bool(unions) and not instances
                if len(unions) == 1 and len(instances) > 1:
                    x1, y1, x2, y2 = zip(*instances, strict=True)
                    overlaps.append(overlap(unions[0], (min(x1), min(y1), max(x2), max(y2))))
    assert num_unions_only == 69
    assert len(overlaps) == 31
    assert sorted(overlaps)[len(overlaps) // 2] > 0.8


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


@pytest.mark.slow
@pytest.mark.parametrize(("format_name", "files"), [("twitter", 6), ("gmner", 1), ("mnre", 12), ("m2e2", 6)])
def test_images_at_hand_are_found(format_name: str, files: int) -> None:
    named = [record.image_path() for name, file in COUNTS if name == format_name for record in published(name, file)]
    assert len({path for path in named if path and path.exists()}) == files
