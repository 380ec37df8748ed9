"""UmieProcessor: batches, decoding, truncation, missing images, saving."""

import dataclasses
import json
import pickle

import pytest
import torch
from PIL import Image

import umie
from umie.data.synthetic import LABELS
from umie.errors import UmieError
from umie.processor import UmieProcessor
from umie.records import Argument, Event, Record, Region, Relation
from umie.types import FEATURES

TASKS = tuple(LABELS)
EOS, PAD = 1, 0
# characters:  0         1         2
#              012345678901234567890123456
TEXT = "Ann met Bob, then Cid shot"
ANN, MET, BOB, CID, SHOT = (0, 3), (4, 7), (8, 11), (18, 21), (22, 26)
BOXES = (Region((0.0, 0.0, 0.5, 1.0)), Region((0.5, 0.0, 1.0, 1.0)))


@pytest.fixture
def processor(tokenizer):
    return UmieProcessor(
        tokenizer, {"name": "tiny", "crop_size": 4}, {task: {"labels": LABELS[task]} for task in TASKS}
    )


@pytest.fixture
def image():
    return Image.new("RGB", (20, 10), "red")


@pytest.fixture
def record(image):
    """Three pairs and two events."""
    return Record(
        TEXT,
        image=image,
        regions=BOXES,
        relations=(Relation("peer", ANN, BOB), Relation("none", ANN, CID), Relation("couple", BOB, CID)),
        events=(
            Event("meet", MET, (Argument("Agent", ANN), Argument("Target", BOB), Argument("Agent", regions=(1,)))),
            Event("attack", SHOT),
        ),
        id="r-1",
    )


def of_task(records, task):
    return [record for record in records if record.annotated_for(task)]


def key_set(task, record):
    """Return what the task answers about a record: for MED, events without arguments."""
    items = task.items(record)
    return {dataclasses.replace(item, arguments=()) for item in items} if task.name == "med" else set(items)


def filled(labels):
    """Return labels as a decoder would generate them, with padding in place of -100."""
    return labels.masked_fill(labels < 0, PAD)


@pytest.mark.parametrize("task", TASKS)
def test_keys_and_shapes(processor, embedded_records, task):
    records = of_task(embedded_records, task)[:4]
    batch = processor(records, task)
    assert set(batch) == {"input_ids", "attention_mask", "labels", "boxes", "visual_mask", "crops"}
    num_queries, num_tokens = batch["input_ids"].shape
    assert num_queries == 4
    assert batch["attention_mask"].shape == (4, num_tokens)
    assert batch["labels"].shape[0] == 4
    assert batch["boxes"].shape == (4, 5, 4)
    assert batch["crops"].shape == (4, 5, 3, 4, 4)
    assert batch["visual_mask"].tolist() == [[True] * 5] * 4
    for row, record in enumerate(records):
        (query,) = processor.task(task).queries(record)
        length = int(batch["attention_mask"][row].sum())
        ids = processor.tokenizer(f"{query.instruction} {record.text}").input_ids
        assert batch["input_ids"][row].tolist() == ids + [PAD] * (num_tokens - length)
        assert length == len(ids)
        target = processor.tokenizer(query.answer).input_ids
        labels = batch["labels"][row].tolist()
        assert labels == target + [-100] * (len(labels) - len(target))
        assert batch["boxes"][row].tolist() == torch.tensor([[0, 0, 1, 1], *(r.box for r in record.regions)]).tolist()


def test_one_query_for_each_pair_and_event(processor, record):
    other = dataclasses.replace(record, relations=(), events=(), image=None, regions=())
    pairs = processor([other, record, other], "mre")
    assert len(pairs["input_ids"]) == 3
    asked = processor.decode_text(pairs["input_ids"], "mre")
    for (head, tail), text in zip((("Ann", "Bob"), ("Ann", "Cid"), ("Bob", "Cid")), asked, strict=True):
        assert text.startswith(f"Please extract the following relation between {head} and {tail}:")
        assert text.endswith(TEXT)
    assert processor.decode_text(filled(pairs["labels"]), "mre") == ["[peer]", "[none]", "[couple]"]
    assert (pairs["crops"] == pairs["crops"][0]).all()
    events = processor(record, "meae")
    asked = processor.decode_text(events["input_ids"], "meae")
    assert [text.split(" event,")[0] for text in asked] == ["Given an meet", "Given an attack"]
    assert processor.decode_text(filled(events["labels"]), "meae") == ["[Agent: Ann] [Target: Bob] [Agent = O2]", ""]
    for task in ("mner", "med"):
        assert len(processor([other, record], task)["input_ids"]) == 2


def test_a_row_equals_the_batch_of_its_record(processor, embedded_records):
    records = of_task(embedded_records, "meae")[:5]
    records[1] = dataclasses.replace(records[1], regions=(), events=(Event("meet", records[1].events[0].trigger),))
    records[2] = Record("Nothing to see .", events=(Event("meet", (0, 7)),))
    batch = processor((record for record in records), "meae")
    for row, record in enumerate(records):
        for name, value in processor(record, "meae").items():
            padded = batch[name][row]
            assert torch.equal(padded[tuple(slice(size) for size in value.shape[1:])], value[0]), name
            assert padded.sum() == value[0].sum() + (-100 if name == "labels" else 0) * (padded.numel() - value.numel())


@pytest.mark.parametrize("task", TASKS)
def test_decoding_targets_restores_the_annotation(processor, embedded_records, task):
    records = of_task(embedded_records, task)
    built = processor.task(task)
    batch = processor(records, task)
    bare = [built.with_items(record, []) for record in records]
    found = processor.decode(filled(batch["labels"]), records, task)
    assert [key_set(built, record) for record in found] == [key_set(built, record) for record in records]
    assert sum(len(key_set(built, record)) for record in found) > 10
    assert processor.counts["dropped_items"] == 0
    for record, predicted, stripped in zip(records, found, bare, strict=True):
        assert (predicted.text, predicted.id, predicted.regions) == (record.text, record.id, record.regions)
        assert built.with_items(predicted, []) == stripped
    as_lists = processor.decode([[id for id in row if id >= 0] for row in batch["labels"].tolist()], records, task)
    assert as_lists == found


def test_labels_can_be_decoded_as_they_are(processor, embedded_records):
    """Labels are padded with -100, which is not a token id."""
    records = of_task(embedded_records, "meae")[:6]
    labels = processor(records, "meae")["labels"]
    assert (labels == -100).any()
    assert processor.decode(labels, records, "meae") == processor.decode(filled(labels), records, "meae")


def test_decode_replaces_only_the_annotation_of_its_task(processor, record):
    rows = processor.tokenizer(["[parent]", "[none]", "[peer] [couple]"], padding=True).input_ids
    (found,) = processor.decode(rows, record, "mre")
    types = [(relation.type, relation.head, relation.tail) for relation in found.relations]
    assert types == [("parent", ANN, BOB), ("none", ANN, CID), ("peer", BOB, CID), ("couple", BOB, CID)]
    assert found.events == record.events
    rows = processor.tokenizer(["[Agent: Zoe] [Target = O2] junk", "[Target: Cid]"], padding=True).input_ids
    (found,) = processor.decode(rows, record, "meae")
    assert found.events == (
        Event("meet", MET, (Argument("Target", regions=(1,)),)), Event("attack", SHOT, (Argument("Target", CID),))
    )  # fmt: skip
    assert found.relations == record.relations
    assert processor.counts["dropped_items"] == 2


@pytest.mark.parametrize(("rows", "task"), [(2, "mre"), (4, "mre"), (0, "mner"), (2, "mner")])
def test_the_number_of_rows_must_match_the_queries(processor, record, rows, task):
    queries = 3 if task == "mre" else 1
    with pytest.raises(UmieError, match=f"{rows} outputs for {queries} queries: pass the records that were encoded"):
        processor.decode([[5, 1]] * rows, record, task)


@pytest.mark.parametrize("task", ["mre", "meae"])
def test_no_queries(processor, image, task):
    bare = Record("Ann met Bob", image=image)
    with pytest.raises(UmieError, match=f"no queries for {task}: its queries are about the pairs"):
        processor([bare, bare], task)
    with pytest.raises(UmieError, match=f"no queries for {task}"):
        processor([], task)
    assert len(processor(bare, "mner")["input_ids"]) == 1


def test_truncation_is_counted(tokenizer, embedded_records):
    records = of_task(embedded_records, "mner")[:6]
    full = UmieProcessor(tokenizer, {"name": "tiny"})
    whole = full(records, "mner")
    assert not full.counts
    lengths = whole["attention_mask"].sum(1).tolist()
    limit = sorted(lengths)[2]
    cut = UmieProcessor(tokenizer, {"name": "tiny"}, max_input_tokens=limit, max_target_tokens=4)
    batch = cut(records, "mner")
    longer = [length > limit for length in lengths]
    targets = (whole["labels"] >= 0).sum(1)
    assert 0 < sum(longer) < 6
    assert cut.counts == {"truncated_inputs": sum(longer), "truncated_targets": int((targets > 4).sum())}
    assert batch["input_ids"].shape[1] == limit
    assert batch["labels"].shape[1] == 4
    for row, is_cut in enumerate(longer):
        length = min(lengths[row], limit)
        ids = batch["input_ids"][row]
        assert torch.equal(ids[: length - 1], whole["input_ids"][row, : length - 1])  # the end of the text is cut off
        assert ids[length - 1] == EOS
        assert is_cut == (lengths[row] > limit)
    assert (batch["labels"][:, -1] == EOS).all()
    cut(records[:1], "mner")
    assert cut.counts["truncated_targets"] == int((targets > 4).sum()) + int(targets[0] > 4)


@pytest.mark.parametrize("content", [None, b"no image"], ids=["not there", "not readable"])
def test_missing_images(tokenizer, tmp_path, content):
    if content is not None:
        (tmp_path / "lost.png").write_bytes(content)
    lost = Record(TEXT, image="lost.png", regions=BOXES, image_folder=str(tmp_path))
    named = dataclasses.replace(lost, id="r-7")
    strict = UmieProcessor(tokenizer, {"name": "tiny"})
    with pytest.raises(UmieError, match=r"record 'r-7': .*lost\.png.*set missing_images to 'text_only'"):
        strict([named], "mner")
    with pytest.raises(UmieError, match=f"record {TEXT!r}: "):
        strict([lost], "mner")
    assert not strict.counts
    lenient = UmieProcessor(tokenizer, {"name": "tiny"}, missing_images="text_only")
    batch = lenient([named, lost], "mner")
    assert lenient.counts == {"missing_images": 1}  # two records with the same image count once
    assert list(lenient.unreadable) == [str(tmp_path / "lost.png")]
    assert batch["visual_mask"].shape == (2, 0)
    without = lenient([dataclasses.replace(lost, image=None)] * 2, "mner")
    assert lenient.counts["missing_images"] == 1  # a record without an image is not counted
    assert all(torch.equal(batch[name], without[name]) for name in without)
    lenient.reset_counts()
    assert (lenient.counts, lenient.unreadable) == ({}, {})


def test_skipping_leaves_records_out(tokenizer, image, tmp_path):
    image.save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    good = Record(TEXT, image="good.png", image_folder=str(tmp_path))
    bad, outside = (dataclasses.replace(good, image=name, id=name) for name in ("bad.png", "../good.png"))
    plain = dataclasses.replace(good, image=None)
    processor = UmieProcessor(tokenizer, {"name": "tiny"}, missing_images="skip")
    assert processor.usable([good, bad, plain, outside, bad]) == [good, plain]
    assert processor.counts == {"missing_images": 2}
    assert "not a readable image" in processor.unreadable[str(tmp_path / "bad.png")]
    assert any("is outside the directory" in reason for reason in processor.unreadable.values())
    with pytest.raises(UmieError, match=r"record 'bad\.png': .*; pass processor\.usable\(records\)"):
        processor([bad], "mner")
    for policy in ("error", "text_only"):
        assert UmieProcessor(tokenizer, {"name": "tiny"}, missing_images=policy).usable([bad, good]) == [bad, good]


def test_images_in_memory_are_distinguished_by_identity(tokenizer, image):
    broken = Image.new("RGB", (0, 3))
    processor = UmieProcessor(tokenizer, {"name": "tiny"}, missing_images="skip")
    records = [Record(TEXT, image=broken), Record(TEXT, image=image), Record(TEXT, image=broken)]
    assert [record.image for record in processor.usable(records)] == [image]
    assert processor.usable(records[::-1]) == [records[1]]
    assert list(processor.unreadable) == [f"image 1 in memory, of record {TEXT!r}"]
    assert processor.counts == {"missing_images": 1}


def test_features_replace_images(tokenizer, record):
    """Errors of a source of features are treated like unreadable images."""

    class Source:
        def one(self, image, regions=()):
            if image is not None and not regions:
                raise UmieError("no features")
            slots = 0 if image is None else 1 + len(regions)
            mask = torch.ones(slots, dtype=torch.bool)
            return {"boxes": torch.zeros(slots, 4), "visual_mask": mask, FEATURES: torch.ones(slots, 5)}

    processor = UmieProcessor(tokenizer, {"name": "tiny"}, missing_images="text_only")
    processor.features["image"] = Source()
    bare = dataclasses.replace(record, regions=(), events=())
    batch = processor([record, dataclasses.replace(record, image=None), bare], "mner")
    assert batch[FEATURES].sum((1, 2)).tolist() == [5.0 * (1 + len(record.regions)), 0, 0]
    assert "crops" not in batch
    assert processor.counts == {"missing_images": 1}


def test_unknown_policy(tokenizer):
    with pytest.raises(UmieError, match="Unknown policy for missing images 'black'. Choices: error, skip, text_only."):
        UmieProcessor(tokenizer, {"name": "tiny"}, missing_images="black")


@pytest.mark.parametrize("kind", ["parent", "absolute", "link"])
def test_an_image_outside_its_folder_is_an_error(tokenizer, image, tmp_path, kind):
    folder = tmp_path / "images"
    folder.mkdir()
    image.save(tmp_path / "secret.png")
    image.save(folder / "own.png")
    if kind == "link":
        (folder / "link.png").symlink_to(tmp_path / "secret.png")
    name = {"parent": "../secret.png", "absolute": str(tmp_path / "secret.png"), "link": "link.png"}[kind]
    outside = Record(TEXT, image=name, id="r-9", image_folder=str(folder))
    with pytest.raises(UmieError, match="record 'r-9': .*: is outside the directory"):
        UmieProcessor(tokenizer, {"name": "tiny"})(outside, "mner")
    lenient = UmieProcessor(tokenizer, {"name": "tiny"}, missing_images="text_only")
    batch = lenient([outside, dataclasses.replace(outside, image="own.png")], "mner")
    assert batch["visual_mask"].tolist() == [[False], [True]]
    assert lenient.counts == {"missing_images": 1}


def test_images_in_memory_and_on_disk_are_the_same(processor, record, image, tmp_path):
    image.save(tmp_path / "photo.png")
    in_memory = processor(record, "mner")
    assert in_memory["visual_mask"].tolist() == [[True, True, True]]
    assert in_memory["crops"][0, :, 0].eq(1).all()  # red
    for source, folder in ((tmp_path / "photo.png", None), ("photo.png", str(tmp_path))):
        on_disk = processor(dataclasses.replace(record, image=source, image_folder=folder), "mner")
        assert all(torch.equal(on_disk[name], in_memory[name]) for name in in_memory)


def test_an_image_without_regions_is_one_slot(processor, image):
    batch = processor([Record(TEXT, image=image), Record(TEXT)], "mner")
    assert batch["visual_mask"].tolist() == [[True], [False]]
    assert batch["boxes"].tolist() == [[[0, 0, 1, 1]], [[0, 0, 0, 0]]]


def test_tasks_by_name_or_built(processor, record):
    from umie import tasks

    built = tasks.registry.build("mre", labels=("peer", "none"), variant="I2")
    assert processor.task(built) is built
    text = processor.decode_text(processor(record, built)["input_ids"], built)[0]
    assert text.startswith("Please extract the relation between Ann and Bob in the sentence. Option: peer, none.")
    assert processor.task("mre").labels == LABELS["mre"]
    assert processor.task("mre") is processor.task("mre")
    with pytest.raises(UmieError, match="Unknown task 'mrre'. Did you mean 'mre'"):
        processor(record, "mrre")


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"name": "tinny"}, "Unknown encoder 'tinny'. Did you mean 'tiny'?"),
        ({"name": "tiny", "size": 3}, "Unknown option of encoder 'tiny': 'size'."),
        ({"name": "tiny", "crop_size": 0}, "crop_size is 0: use a whole number of at least 1"),
    ],
)
def test_bad_encoder(tokenizer, encoder, message):
    with pytest.raises(UmieError) as error:
        UmieProcessor(tokenizer, encoder)
    assert message in str(error.value)


def test_saved_next_to_the_model(variant, aligned, record, tmp_path):
    from umie.model import UmieModel

    options = {"max_input_tokens": 60, "max_target_tokens": 7, "missing_images": "text_only"}
    model, processor = variant(
        encoder={"name": "tiny", "crop_size": 5},
        tasks={"mre": {"labels": ("peer", "none"), "variant": "I1"}},
        **options,
    )
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    expected = processor(record, "mre")
    loaded = UmieProcessor.from_pretrained(tmp_path)
    assert {name: getattr(loaded, name) for name in options} == options
    assert loaded.encoder == {"name": "tiny", "crop_size": 5}
    assert loaded.task("mre") == processor.task("mre")
    assert loaded.task("mner") == processor.task("mner")
    found = loaded(record, "mre")
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    text = "[Agent: Ann] =  \n déjà vu 12"
    assert loaded.decode_text([loaded.tokenizer(text).input_ids], "mner") == [text]
    again = aligned(UmieModel.from_pretrained(tmp_path))
    tokens = again.generate(**found, max_new_tokens=6)
    assert torch.equal(tokens, model.generate(**expected, max_new_tokens=6))
    assert loaded.decode(tokens, record, "mre") == processor.decode(tokens, record, "mre")


def test_a_directory_without_a_processor(tmp_path):
    with pytest.raises(UmieError, match=r"does not contain umie_processor\.json"):
        UmieProcessor.from_pretrained(tmp_path)
    (tmp_path / "umie_processor.json").write_text('{"encoder": ')
    with pytest.raises(UmieError, match=r"umie_processor\.json"):
        UmieProcessor.from_pretrained(tmp_path)


def test_an_unknown_option_in_the_saved_file(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    file = tmp_path / "umie_processor.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "max_tokens": 3}))
    with pytest.raises(UmieError, match="max_tokens"):
        UmieProcessor.from_pretrained(tmp_path)


def test_a_processor_without_images_can_be_sent_to_worker_processes(tokenizer):
    """Where processes do not fork, the workers that prepare batches get the processor as a pickle."""
    processor = UmieProcessor(tokenizer, {"name": "tiny"})
    processor.blind = frozenset({"image"})
    again = pickle.loads(pickle.dumps(processor))  # noqa: S301
    assert again.encode_media(Record("text", image="never-opened.png"))["boxes"].shape == (0, 4)


def test_a_file_is_checked_as_each_medium_that_it_is(tmp_path, noise):
    """A video without a sound track cannot be read as a sound, whatever was checked before."""
    path = tmp_path / "both.png"
    noise(20, 20).save(path)
    _, processor = umie.compose("tiny", video_encoder="tiny_video", audio_encoder="tiny_audio", missing_images="skip")
    assert processor.usable([Record("a dog", video=str(path))])
    assert not processor.usable([Record("a dog", video=str(path), audio=str(path))])
