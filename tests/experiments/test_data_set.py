"""Data sets, from files or drawn: errors are found before training and reported with their place."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from umie.checkpoints import MANIFEST
from umie.data.synthetic import LABELS, SyntheticConfig, ceilings, write_synthetic
from umie.errors import UmieError
from umie.experiments.data_config import read_data_config, read_tasks
from umie.experiments.prepare_data import prepare_corpus
from umie.images import open_image

SPLITS = ("train", "dev", "test")


@pytest.fixture
def own(tmp_path, noise):
    """Three files of two tweets each, and a directory with their images."""
    return Own(tmp_path, noise)


class Own:
    """Records of three splits, which tests can change before they are written."""

    def __init__(self, folder, noise):
        self.folder = folder / "mine"
        (self.folder / "images").mkdir(parents=True)
        self.output = folder / "run"
        self.records = {}
        for number, split in enumerate(SPLITS):
            noise(20, 16, number).save(self.folder / "images" / f"{split}.jpg")
            self.records[split] = [
                {
                    "id": f"{split}-0",
                    "text": f"Ann is in {split.title()} .",
                    "image": f"{split}.jpg",
                    "regions": [{"box": [0, 0.25, 0.5, 1], "label": "Ann"}],
                    "entities": [{"type": "person", "span": [0, 3]}],
                },
                {
                    "id": f"{split}-1",
                    "text": f"{split.title()} , again .",
                    "entities": [{"type": "place", "span": [0, len(split)]}],
                },
            ]

    def write(self):
        for split, records in self.records.items():
            lines = [line if isinstance(line, str) else json.dumps(line) for line in records]
            (self.folder / f"{split}.jsonl").write_text("".join(line + "\n" for line in lines))

    def prepare(self, *, tasks=("mner",), missing_images="error", steps=None, **changes):
        self.write()
        data = {"format": "jsonl", **{split: f"{split}.jsonl" for split in self.records}, "images": "images"}
        data = {key: value for key, value in {**data, **changes}.items() if value is not ...}
        (one,) = prepare_corpus(
            read_data_config(data, read_tasks(list(tasks) if isinstance(tasks, tuple) else tasks)),
            root=self.folder,
            output=self.output,
            missing_images=missing_images,
            on_item=(lambda what: None) if steps is None else steps.append,
        ).sets.values()
        return one

    def error(self, **changes):
        with pytest.raises(UmieError) as caught:
            self.prepare(**changes)
        assert "\n" not in str(caught.value)
        return str(caught.value)


def test_files_are_read_checked_and_written(own):
    steps = []
    data = own.prepare(steps=steps)
    assert data.num_records == {"train": 2, "dev": 2, "test": 2}
    assert data.num_images == {"train": 1, "dev": 1, "test": 1}
    assert data.ceilings == {}
    assert steps == ["checking train", "checking dev", "checking test"]
    for split in SPLITS:
        first, second = data.read(split)
        assert (first.id, first.text) == (f"{split}-0", f"Ann is in {split.title()} .")
        assert first.image_path() == (own.folder / "images" / f"{split}.jpg").resolve()
        assert first.regions[0].label == "Ann"
        assert second.image_path() is None
    assert json.loads(json.dumps(dataclasses.asdict(data))) == dataclasses.asdict(data)


def test_labels_come_from_the_training_records_most_frequent_first(own):
    own.records["train"].append(
        {
            "text": "Rome and Ann",
            "entities": [{"type": t, "span": s} for t, s in [("place", [0, 4]), ("place", [5, 8])]],
        }
    )
    assert own.prepare().tasks == {"mner": {"labels": ["place", "person"]}}


def test_labels_listed_in_the_grid_are_kept(own):
    tasks = {"mner": {"labels": ["person", "place", "thing"], "variant": "I1"}}
    assert own.prepare(tasks=tasks).tasks == tasks


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_label_missing_in_training_is_reported_with_its_record(own, split):
    own.records[split][1]["entities"][0]["type"] = "plaice"
    message = own.error()
    assert f"record '{split}-1'" in message
    assert "Unknown mner label 'plaice'. Did you mean 'place'?" in message
    assert "list the label under `tasks`" in message


def test_an_unlisted_label_is_reported_with_its_record(own):
    message = own.error(tasks={"mner": {"labels": ["person"]}})
    assert "record 'train-1': Unknown mner label 'place'. Choices: person" in message


def test_a_record_without_an_id_is_identified_by_its_place(own):
    del own.records["train"][1]["id"]
    own.records["train"][1]["entities"][0]["type"] = "plaice"
    tasks = {"mner": {"labels": ["person", "place"]}}
    assert re.search(r"train\.jsonl\W.*2'", own.error(tasks=tasks))
    own.records["train"].insert(0, "")  # a blank line is not a record, but it counts as a line
    assert "train.jsonl:2'" not in own.error(tasks=tasks)


def test_a_missing_image_is_reported_with_its_record(own):
    (own.folder / "images" / "dev.jpg").unlink()
    message = own.error()
    assert f"record 'dev-0': {own.folder / 'images' / 'dev.jpg'}: no such image" in message
    assert "set `missing_images` to `text_only` or `skip`" in message


def test_an_unreadable_image_is_reported_with_its_record(own):
    (own.folder / "images" / "test.jpg").write_text("<html>not found</html>")
    message = own.error()
    assert f"record 'test-0': {own.folder / 'images' / 'test.jpg'}: not a readable image" in message


@pytest.mark.parametrize("damage", ["missing", "text", "empty", "folder", "cut off"])
def test_text_only_and_skip_count_unreadable_images(own, damage):
    path = own.folder / "images" / "dev.jpg"
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"text": b"<html>", "empty": b"", "cut off": content[: len(content) // 2]}[damage])
    data = own.prepare(missing_images="text_only")
    assert data.num_images == {"train": 1, "dev": 0, "test": 1}
    assert data.num_records == {"train": 2, "dev": 2, "test": 2}
    assert list(data.unreadable["dev"]) == ["dev.jpg"]
    assert not data.unreadable["train"]
    skipped = own.prepare(missing_images="skip")
    assert skipped.num_images == {"train": 1, "dev": 0, "test": 1}
    assert skipped.num_records == {"train": 2, "dev": 1, "test": 2}
    assert [record.image for record in skipped.read("dev")] == [None]
    assert skipped.unreadable == data.unreadable
    assert skipped.fingerprint != data.fingerprint


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param('{"text": "a", ', "not valid JSON", id="cut off"),
        pytest.param("[]", "expected a JSON object", id="list"),
        pytest.param('{"text": "  "}', "text is '  ': every record needs a", id="empty text"),
        pytest.param('{"image": "a.jpg"}', "text is None", id="no text"),
        pytest.param('{"text": "a", "entites": []}', "Did you mean 'entities'?", id="key"),
        pytest.param('{"text": "a", "regions": [{"box": [0, 0, 1.5, 1]}]}', "not inside the image", id="box outside"),
        pytest.param('{"text": "a", "regions": [{"box": [0, 0, 640, 480]}]}', "(0..1)", id="box in pixels"),
        pytest.param('{"text": "a", "entities": [{"type": "x", "span": [0, 2]}]}', "not inside the text", id="span"),
    ],
)
def test_an_invalid_line_is_reported_with_file_and_line(own, line, expected):
    own.records["dev"].append(line)
    message = own.error()
    assert message.startswith(f"{own.folder / 'dev.jsonl'}:3: ")
    assert expected in message


@pytest.mark.parametrize("how", ["..", "absolute", "symlink"])
def test_an_image_outside_the_directory_is_rejected(own, how):
    secret = own.folder / "secret.jpg"
    shutil.copy(own.folder / "images" / "dev.jpg", secret)
    names = {"..": "../secret.jpg", "absolute": str(secret), "symlink": "link.jpg"}
    (own.folder / "images" / "link.jpg").symlink_to(secret)
    own.records["dev"][0]["image"] = names[how]
    message = own.error()
    assert (
        f"record 'dev-0': {own.folder / 'images' / names[how]}: is outside the directory {own.folder / 'images'}"
        in message
    )
    assert own.prepare(missing_images="text_only").num_images["dev"] == 0


def test_the_image_directory_can_be_a_link(own):
    (own.folder / "elsewhere").symlink_to(own.folder / "images")
    assert own.prepare(images="elsewhere").num_images["dev"] == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"images": "pictuers"}, "images is {folder}/pictuers: no such directory (paths are relative to {folder})"),
        ({"images": "train.jsonl"}, "images is {folder}/train.jsonl: no such directory"),
        ({"regions": "xml"}, "regions is {folder}/xml: no such directory"),
        ({"regions": "images"}, "regions"),
        ({"train": "trian.jsonl"}, "{folder}/trian.jsonl: cannot read: No such file or directory"),
        ({"train": "images"}, "{folder}/images: cannot read: Is a directory"),
        ({"train": ...}, "data has no records for 'train': set train"),
        ({"test": ...}, "data has no records for 'test': set test"),
        ({"max_records": 0}, "max_records is 0: use a whole number"),
        ({"max_records": {"train": "x"}}, "max_records is {{'train': 'x'}}: use a whole number"),
        ({"max_records": {"tran": 1}}, "Did you mean 'train'?"),
    ],
    ids=lambda value: next(iter(f"{key}={value[key]}" for key in value)) if isinstance(value, dict) else "",
)
def test_invalid_paths_and_limits_are_reported(own, changes, expected):
    assert expected.format(folder=own.folder) in own.error(**changes)


def test_a_file_without_records_is_reported(own):
    own.records["test"] = [""]
    assert own.error().startswith("data has no records for 'test'")


def test_scoring_on_test_does_not_need_a_dev_file(own):
    assert own.prepare(dev=...).num_records == {"train": 2, "test": 2}


def test_max_records_limits_all_or_some_splits(own):
    assert own.prepare(max_records=1, tasks={"mner": {"labels": ["person"]}}).num_records == dict.fromkeys(SPLITS, 1)
    assert own.prepare(max_records={"dev": 1}).num_records == {"train": 2, "dev": 1, "test": 2}


def test_lines_after_max_records_are_not_read(own):
    own.records["dev"].append("{broken")
    assert own.prepare(max_records={"dev": 2}).num_records["dev"] == 2


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_task_without_annotation_is_reported(own, split):
    for record in own.records[split]:
        record["tasks"] = ["mre"]
    message = own.error(tasks={"mner": {"labels": ["person", "place"]}})
    assert f"no record of '{split}' is annotated for the task 'mner': remove it" in message


def test_a_task_without_labels_is_reported(own):
    assert own.error(tasks=["mner", "mre"]) == "no training record has a relation for the task 'mre'"


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_task_without_queries_is_reported(own, split):
    """MRE asks about pairs. Without pairs, a cell would learn nothing about it, or scoring would fail."""
    for other in SPLITS:
        if other != split:
            own.records[other][0]["relations"] = [{"type": "in", "head": [0, 3], "tail": [10, 10 + len(other)]}]
    message = own.error(tasks={"mner": {}, "mre": {"labels": ["in"]}})
    assert "'mre'" in message
    assert f"'{split}'" in message


def test_splits_in_separate_directories_keep_their_images(own):
    """Without ``images``, image paths are relative to the file."""
    for split in SPLITS:
        (own.folder / split).mkdir()
        shutil.move(own.folder / "images" / f"{split}.jpg", own.folder / split / f"{split}.jpg")
        own.write()
        shutil.move(own.folder / f"{split}.jsonl", own.folder / split / f"{split}.jsonl")
    data = own.prepare(images=..., **{split: f"{split}/{split}.jsonl" for split in SPLITS})
    assert data.num_images == {"train": 1, "dev": 1, "test": 1}
    for split in SPLITS:
        assert data.read(split)[0].image_path() == (own.folder / split / f"{split}.jpg").resolve()


def test_texts_that_also_occur_in_training_are_counted(own):
    own.records["test"][0]["text"] = own.records["train"][0]["text"]
    assert own.prepare().num_seen == {"dev": 0, "test": 1}


def test_the_fingerprint_does_not_depend_on_the_directory(own, tmp_path):
    one = own.prepare()
    again = own.prepare()
    shutil.copytree(own.folder, tmp_path / "moved")
    own.folder, own.output = tmp_path / "moved", tmp_path / "other-run"
    assert one.fingerprint == again.fingerprint == own.prepare().fingerprint


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("what", ["text", "label", "image", "box", "name of the image", "one more"])
def test_the_fingerprint_changes_with_everything(own, split, what):
    tasks = {"mner": {"labels": ["person", "place"]}}
    before = own.prepare(tasks=tasks).fingerprint
    first = own.records[split][0]
    if what == "text":
        first["text"] = first["text"].replace(".", "!")
    elif what == "label":
        first["entities"][0]["type"] = "place"
    elif what == "box":
        first["regions"][0]["box"][2] = 0.5001
    elif what == "name of the image":
        shutil.copy(own.folder / "images" / f"{split}.jpg", own.folder / "images" / "other.jpg")
        first["image"] = "other.jpg"
    elif what == "one more":
        own.records[split].append({"text": "More"})
    else:
        path = own.folder / "images" / f"{split}.jpg"
        content = path.read_bytes()
        path.write_bytes(content + b"\0")  # after the end of the image, which stays readable
        assert open_image(path).size == (20, 16)
    assert own.prepare(tasks=tasks).fingerprint != before


def test_the_fingerprint_changes_when_a_missing_image_appears(own):
    path = own.folder / "images" / "dev.jpg"
    content = path.read_bytes()
    path.unlink()
    before = own.prepare(missing_images="text_only").fingerprint
    path.write_bytes(content)
    assert own.prepare(missing_images="text_only").fingerprint != before


def synthetic(output, steps=None, *, tasks=("mner", "mre", "med", "meae"), split="test", **options):
    (one,) = prepare_corpus(
        read_data_config({"format": "synthetic", "train": 6, "dev": 3, "test": 3, **options}, read_tasks(list(tasks))),
        root=output,
        output=output,
        splits=("train", split),
        on_item=(lambda what: None) if steps is None else steps.append,
    ).sets.values()
    return one


def test_the_embedded_data_is_written_once_and_reused(tmp_path):
    steps = []
    data = synthetic(tmp_path / "run", steps)
    assert steps == ["drawing the embedded data set"]
    files = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.glob("run/**/*.*")}
    assert synthetic(tmp_path / "run", steps) == data
    assert steps == ["drawing the embedded data set"]
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files} == files
    assert data.num_records == data.num_images == {"train": 6, "dev": 3, "test": 3}
    assert data.ceilings == ceilings(SyntheticConfig(train=6, dev=3, test=3))
    assert {task: tuple(options["labels"]) for task, options in data.tasks.items()} == LABELS
    for split in SPLITS:
        for record in data.read(split):
            assert min(open_image(record.image_path()).size) > 0


def test_incomplete_embedded_data_is_drawn_again(tmp_path):
    data = synthetic(tmp_path / "run")
    (folder,) = (tmp_path / "run").glob("data-*")
    (folder / MANIFEST).unlink()
    (folder / "train.jsonl").unlink()
    steps = []
    assert synthetic(tmp_path / "run", steps) == data
    assert steps == ["drawing the embedded data set"]
    assert len(data.read("train")) == 6


def test_the_embedded_data_equals_that_of_the_command(tmp_path):
    files = write_synthetic(tmp_path / "command", SyntheticConfig(seed=4, train=6, dev=3, test=3))
    data = synthetic(tmp_path / "run", seed=4)
    for split in SPLITS:
        assert Path(data.files[split]).read_bytes() == Path(files[split]).read_bytes()


def test_the_fingerprint_of_embedded_data_changes_with_its_options(tmp_path):
    prints = [
        synthetic(tmp_path / "run", **options).fingerprint
        for options in ({}, {"seed": 1}, {"train": 9}, {"test": 6}, {"image_share": 0.5})
    ]
    assert len(set(prints)) == 5


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"trian": 6}, "Unknown data key 'trian'. Did you mean 'train'?"),
        ({"train": "many"}, "train is 'many': "),
        ({"train": -1}, "train is -1: "),
        ({"train": 2}, "each split that is used needs at least 3 records"),
        ({"test": 0}, "each split that is used needs at least 3 records"),
        ({"image_share": 1.5}, "image_share is 1.5"),
        ({"image_share": "half"}, "image_share is 'half'"),
    ],
    ids=str,
)
def test_invalid_options_of_embedded_data_are_reported(tmp_path, options, expected):
    with pytest.raises(UmieError) as caught:
        synthetic(tmp_path / "run", **options)
    assert expected in str(caught.value)


def test_an_unused_split_of_embedded_data_may_be_empty(tmp_path):
    data = synthetic(tmp_path / "run", test=0, split="dev")
    assert data.num_records["test"] == 0
