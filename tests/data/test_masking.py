"""Masked mentions: heads, splits without common images, and captions that do not name the hidden type."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie import data
from umie.data.masking import head_of, mask_mentions
from umie.errors import UmieError
from umie.records import Entity, Record, Region, read_jsonl

CAPTIONS = Path(__file__).resolve().parents[3] / "shared" / "data" / "flickr8k_entities" / "records.jsonl"
BOX = Region((0.0, 0.0, 0.5, 1.0))
WORDS = ("a dog", "two dogs", "a man", "Men", "the red ball", "grass", "his shorts")


@pytest.mark.parametrize(
    ("mention", "head"),
    [
        ("A young child", "child"),
        ("two dogs", "dog"),
        ("three Men", "man"),
        ("a group of people", "people"),
        ("some boxes", "box"),
        ("two puppies", "puppy"),
        ("ties", "tie"),
        ("blue glasses", "glasses"),
        ("wet grass", "grass"),
        ("a bus", "bus"),
        ("the dog 's", "dog"),
        ("a man\u2019s (red) hat", "hat"),
        ("the girl's", "girl"),
        ("dog-", "dog"),
        ("...", ""),
        ("", ""),
    ],
)
def test_heads(mention, head):
    assert head_of(mention) == head


def caption(number, mentions):
    """Return a record with these mentions, each with a region, joined by a word."""
    text, entities = "", []
    for index, mention in enumerate(mentions):
        start = len(text)
        text += mention
        entities.append(Entity("mention", (start, len(text)), regions=(index,)))
        text += " near " if index < len(mentions) - 1 else " ."
    return Record(text, image=f"{number // 2}.jpg", regions=(BOX,) * len(mentions), entities=tuple(entities))


@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3), min_size=40, max_size=60), st.integers(0, 9))
def test_one_mention_is_hidden_and_nothing_names_it(mentions, seed):
    records = [caption(number, own) for number, own in enumerate(mentions)]
    try:
        masked = mask_mentions(records, num_types=4, seed=seed)
    except UmieError as error:
        assert "has no mention of these types" in str(error)
        return
    assert list(masked.splits) == ["train", "dev", "test"]
    images = [{record.image for record in own} for own in masked.splits.values()]
    assert not (images[0] & images[1] or images[0] & images[2] or images[1] & images[2])
    assert len(masked.types) <= 4
    by_image = {record.image: [] for record in records}
    for record in records:
        by_image[record.image].append(record)
    for record in (record for own in masked.splits.values() for record in own):
        (entity,) = record.entities
        assert (entity.text, record.text.count("something")) == ("something", 1)
        assert entity.type in masked.types
        assert record.labels == {"mner": tuple(masked.types)}
        assert entity.type not in map(head_of, record.text.split())
        start, end = entity.span
        before, after = record.text[:start], record.text[end:]
        originals = [
            (original, entity)
            for original in by_image[record.image]
            for entity in original.entities
            if original.text[: entity.span[0]] == before and original.text[entity.span[1] :] == after
        ]
        assert any(head_of(found.text) == entity.type and found.regions == entity.regions for _, found in originals)
    assert sum(map(len, masked.splits.values())) + masked.num_left_out == len(records)
    assert masked == mask_mentions(records, num_types=4, seed=seed)


def test_mentions_without_regions_are_not_types():
    with pytest.raises(UmieError, match="no entity of the training records has a region"):
        mask_mentions([Record("a dog", entities=(Entity("mention", (0, 5)),))] * 9)


def test_a_type_that_the_caption_names_elsewhere_is_not_hidden():
    both = [caption(2 * number, ["a dog", "two dogs", "a man"]) for number in range(20)]
    masked = mask_mentions(both, num_types=2)
    assert {record.entities[0].type for own in masked.splits.values() for record in own} == {"man"}


@pytest.mark.slow
@pytest.mark.skipif(not CAPTIONS.exists(), reason="the annotated captions are not there")
def test_the_command_on_real_captions(umie, tmp_path):
    code, out, err = umie("data", "mask", CAPTIONS, "--format", "flickr_entities", "--output", tmp_path, "--types", "8")
    assert code == 0, err
    numbers = [len(list(read_jsonl(tmp_path / f"{split}.jsonl"))) for split in ("train", "dev", "test")]
    for split, number in zip(("train", "dev", "test"), numbers, strict=True):
        assert f"{split}: {number:,} records in " in out
    assert sum(numbers) > 1500
    assert out.count("types: dog ") == 1
    assert f"left out: {len(list(data.read('flickr_entities', CAPTIONS))) - sum(numbers):,} records" in out


@pytest.mark.parametrize("other", ["a dog's tail", "the dog-house", '"dog"'])
def test_a_type_that_is_named_inside_other_words_is_not_hidden(other):
    both = [caption(2 * number, ["a dog", other, "a man"]) for number in range(20)]
    masked = mask_mentions(both, num_types=9)
    assert "dog" not in {record.entities[0].type for own in masked.splits.values() for record in own}


def test_bad_options(umie, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a dog"}\n')
    code, _, err = umie("data", "mask", tmp_path / "a.jsonl", "--output", tmp_path / "out", "--word", " ")
    assert (code, "--word is empty" in err) == (2, True)
    code, _, err = umie("data", "mask", tmp_path / "a.jsonl", "--output", tmp_path / "out")
    assert (code, "no entity of the training records has a region" in err) == (2, True)
    code, _, err = umie("data", "mask", tmp_path / "a.jsonl", "--output", tmp_path / "out", "--dev", 0.5, "--test", 0.5)
    assert (code, "leave no images for training" in err) == (2, True)
    assert not (tmp_path / "out").exists()
    (tmp_path / "train.jsonl").write_text('{"text": "a dog"}\n')
    code, _, err = umie("data", "mask", tmp_path / "train.jsonl", "--output", tmp_path)
    assert (code, "is the input" in err) == (2, True)
