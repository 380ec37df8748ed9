"""The proposer `grounding` on small random detectors of every family, and what it asks them for."""

import json
import shutil

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_detectors import FAMILIES, write

from umie.encoders.regions import registry
from umie.encoders.regions.base import Candidates, select
from umie.encoders.regions.grounding import FAMILIES as KNOWN
from umie.records import Record

PHRASES = ["cat", "red bus", "Ann Lee"]
TEXT = "a cat and the red bus with Ann Lee"


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(family, tmp_path_factory):
    return write(family, tmp_path_factory.mktemp(family))


@pytest.fixture(scope="module")
def proposer(checkpoint):
    return build(checkpoint)


@pytest.fixture(scope="module")
def owl(tmp_path_factory):
    """A checkpoint for what does not depend on the family."""
    return write("owlvit", tmp_path_factory.mktemp("owl"))


@pytest.fixture(scope="module")
def images(noise):
    return [noise(120, 80, 1), noise(50, 90, 2)]


def build(checkpoint, **options):
    return registry.build("grounding", **{"checkpoint": str(checkpoint), "min_score": 0.0, **options})


def test_every_family_that_transformers_maps_is_tried():
    from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES

    assert set(KNOWN) == set(FAMILIES) <= set(MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES)


def test_boxes_and_scores_are_those_of_transformers(family, checkpoint, proposer, images):
    """Against the processor's own post-processing; of Grounding DINO, where the points between phrases say less."""
    model = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(checkpoint).eval()
    processor = transformers.AutoProcessor.from_pretrained(checkpoint)
    options = {"nms_threshold": 1.0} if family == "omdet-turbo" else {}
    compared = 0
    for image, found in zip(images, proposer.propose(images, [TEXT] * 2), strict=True):
        inputs = processor(images=image, text=[PHRASES], return_tensors="pt")
        if "dino" in family:
            options = {"text_threshold": 0.0}
        with torch.inference_mode():
            (expected,) = processor.post_process_grounded_object_detection(
                model(**inputs),
                text_labels=[PHRASES],
                threshold=0.0,
                target_sizes=[(image.height, image.width)],
                **options,
            )
        boxes = expected["boxes"] / torch.tensor([image.width, image.height] * 2)
        if "dino" in family:
            by_box = {
                box.numpy().round(4).tobytes(): score for box, score in zip(boxes, expected["scores"], strict=True)
            }
            for item in found:
                score = by_box.get(torch.tensor(item.box).numpy().round(4).tobytes())
                if score is not None:
                    assert item.score <= float(score) + 1e-6
                    compared += abs(item.score - float(score)) < 1e-6
            assert {item.label for item in found} <= set(PHRASES)
        else:
            whole = Candidates(boxes, expected["scores"], expected["text_labels"])
            assert found == select(whole, top=36, overlap=0.5)
            compared += len(found)
    assert compared > 1


def test_neighbors_in_a_batch_change_nothing(proposer, images):
    texts = [TEXT, "a dog"]
    together = proposer.propose(images, texts)
    assert all(together)
    assert [proposer.propose([image], [text])[0] for image, text in zip(images, texts, strict=True)] == together


@pytest.mark.parametrize("size", [(1, 1), (1, 600), (600, 1), (3, 3)])
def test_images_of_odd_shapes(family, proposer, size):
    (found,) = proposer.propose([Image.new("RGB", size, "red")], [TEXT])
    if family != "owlv2":  # it pads to a square, and the boxes of random weights may lie in the padding
        assert found


def test_a_text_without_phrases_has_no_proposals(proposer, images):
    before = proposer.counts["texts without phrases"]
    assert proposer.propose(images, ["you and me", ""]) == [[], []]
    assert proposer.counts["texts without phrases"] == before + 2


@pytest.mark.parametrize("phrases", [["."], ["U.S. flag", "...", "x" * 3000], ["東京", "\u200b", "<|endoftext|>"]])
def test_odd_phrases(checkpoint, images, phrases):
    (found,) = build(checkpoint, phrases=phrases).propose(images[:1])
    assert {item.label for item in found} <= {phrase for phrase in phrases if any(map(str.isalnum, phrase))}
    assert bool(found) == (phrases != ["."])


def test_more_phrases_than_the_text_tower_takes(checkpoint, images):
    phrases = [f"thing {index}" for index in range(300)]
    (found,) = build(checkpoint, phrases=phrases, max_phrases=300).propose(images[:1])
    assert {item.label for item in found} <= set(phrases)


def test_each_phrase_has_the_tokens_between_two_points(tmp_path):
    from umie.encoders.regions.grounding import _spans

    tokenizer = transformers.AutoTokenizer.from_pretrained(write("grounding-dino", tmp_path))
    tokens = tokenizer("ab. c ü. . d.")["input_ids"]
    spelled = [[tokenizer.decode([tokens[index]]) for index in span] for span in _spans(tokens, tokenizer)]
    assert spelled == [["a", "##b"], ["c", "u"], [], ["d"], []]


def test_a_dino_box_is_named_by_the_phrase_of_its_best_token(tmp_path, images, monkeypatch):
    proposer = build(write("grounding-dino", tmp_path), phrases=["ab", "c d", "e"], nms=1.0)
    model = proposer._detector[0]
    forward = model.forward

    def rigged(**inputs):
        """The model's own output, but for logits that are known: query q prefers token q + 1."""
        output = forward(**inputs)
        output.logits = torch.full_like(output.logits, -4.0)
        for query in range(8):
            output.logits[0, query, query + 1] = query / 2
        output.pred_boxes = torch.tensor([[0.5, 0.5, 0.1 + query / 40, 1.0] for query in range(20)])[None]
        return output

    monkeypatch.setattr(model, "forward", rigged)
    (found,) = proposer.propose(images[:1])
    # [CLS] a ##b . c d . e . [SEP]: the tokens 1, 2 are of "ab", 4, 5 of "c d", 7 of "e"; a point names nothing
    named = {round(((item.box[2] - item.box[0]) - 0.1) * 40): (item.label, item.score) for item in found}
    expected = {0: "ab", 1: "ab", 3: "c d", 4: "c d", 6: "e"}
    assert {query: named[query][0] for query in expected} == expected
    for query in expected:
        assert named[query][1] == pytest.approx(float(torch.tensor(query / 2).sigmoid()), rel=1e-6)
    assert named[2][1] == named[7][1] == pytest.approx(float(torch.tensor(-4.0).sigmoid()), rel=1e-5)


def test_what_is_sought(owl, images, error):
    assert build(owl).phrases(TEXT) == PHRASES
    assert build(owl, max_phrases=2).phrases(TEXT) == PHRASES[:2]
    assert build(owl, phrases=["a  b", "a b", "!", "c"]).phrases(None) == ["a b", "c"]
    assert build(owl, phrases=str.split).phrases("x yz") == ["x", "yz"]
    fixed = build(owl, phrases=["cat"])
    assert fixed.propose(images) == fixed.propose(images, ["a", None])
    assert {item.label for item in fixed.propose(images)[0]} == {"cat"}
    assert "pass a text per image, or set phrases" in error(build(owl).propose, images)
    assert "phrases is 'X YZ': use a list" in error(build(owl, phrases=str.upper).phrases, "x yz")
    (filled,) = build(owl, top=3).fill([Record(TEXT, image=images[0])])
    assert len(filled.regions) == 3
    assert {region.label for region in filled.regions} <= set(PHRASES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": None}, "checkpoint is None: use the directory of a zero-shot detector"),
        ({"checkpoint": 5}, "checkpoint is 5: use"),
        ({"phrases": "person"}, "phrases is 'person': use a list of strings"),
        ({"phrases": ["a", 5]}, "phrases is ['a', 5]: use a list of strings"),
        ({"max_phrases": 0}, "max_phrases is 0: use a whole number of at least 1"),
        ({"checkpoint": "absent/folder"}, "checkpoint absent/folder: cannot be loaded"),
        ({"checkpoint": "some-hub/name"}, "checkpoint some-hub/name: cannot be loaded"),
    ],
)
def test_options_that_are_not_allowed(options, message, error):
    assert message in error(registry.build, "grounding", **{"checkpoint": "x", **options})


def test_checkpoints_that_are_none(tmp_path, owl, error):
    def copy(name):
        shutil.copytree(owl, tmp_path / name)
        return tmp_path / name

    other = copy("other")
    transformers.BertConfig().save_pretrained(other)
    assert "other: cannot be loaded" in error(build, other)
    damaged = copy("damaged")
    (damaged / "model.safetensors").write_bytes(b"x" * 50)
    assert "damaged: cannot be loaded" in error(build, damaged)
    lacking = copy("lacking")
    state = load_file(lacking / "model.safetensors")
    del state["class_head.dense0.weight"]
    save_file(state, lacking / "model.safetensors", metadata={"format": "pt"})
    assert "lacking: 1 weights are missing (class_head.dense0.weight" in error(build, lacking)
    config = json.loads((copy("without") / "config.json").read_text())
    (tmp_path / "without" / "processor_config.json").unlink()
    (tmp_path / "without" / "tokenizer.json").unlink()
    assert config["model_type"] == "owlvit"
    assert "without: cannot be loaded" in error(build, tmp_path / "without")
