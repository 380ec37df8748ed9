"""load: a processor and a model that do not belong together are one error, whichever file was changed."""

import json
import shutil

import pytest

from umie.checkpoints import MANIFEST
from umie.composition import compose
from umie.errors import UmieError
from umie.loading import load

TASKS = {"mner": {"labels": ["person", "place"]}}
ENCODERS = (
    {"name": "tiny", "crop_size": 12},
    {"name": "tiny", "feature_dim": 64},
    {"name": "tiny", "max_regions": 3},
    {"name": "captions", "path": "captions.txt", "source": "someone/model"},
    {"name": "precomputed", "path": "features", "boxes": "absolute"},
    {"name": "resnet101_roi"},
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Saved variants: one scores candidates, one generates."""
    folders = {}
    for decoder in ("span", "t5"):
        folders[decoder] = tmp_path_factory.mktemp(decoder)
        for part in compose(decoder={"name": decoder}, tasks=TASKS):
            part.save_pretrained(folders[decoder])
    return folders


def edited(folder, target, **values):
    """Copy a folder without its manifest, with other values in the file of the processor or the model."""
    copied = shutil.copytree(folder, target)
    (copied / MANIFEST).unlink()
    for name, change in values.items():
        path = copied / ("umie_processor.json" if name == "processor" else "config.json")
        content = json.loads(path.read_text())
        for key, value in change.items():
            content[key] = {**content[key], **value} if key in ("decoder", "candidates") and value else value
        path.write_text(json.dumps(content))
    return copied


def message_of(folder):
    with pytest.raises(UmieError) as caught:
        load(folder, "cpu")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
@pytest.mark.parametrize("file", ["processor", "model"])
def test_another_encoder_in_one_file(saved, tmp_path, file, encoder):
    message = message_of(edited(saved["t5"], tmp_path / "edited", **{file: {"encoder": encoder}}))
    assert "umie_processor.json and config.json disagree: encoder." in message
    assert ("name" if encoder["name"] != "tiny" else list(encoder)[1]) in message


@pytest.mark.parametrize("change", [{"max_width": 9}, {"max_width": 3}, {"threshold": 0.25}, {"nested": True}], ids=str)
def test_other_candidates_in_one_file(saved, tmp_path, change):
    message = message_of(edited(saved["span"], tmp_path / "processor", processor={"candidates": change}))
    assert f"disagree: candidates.{next(iter(change))} is {next(iter(change.values()))} and" in message
    assert message_of(edited(saved["span"], tmp_path / "model", model={"decoder": change}))


def test_a_decoder_of_another_kind_and_longer_texts(saved, tmp_path):
    message = message_of(edited(saved["span"], tmp_path / "span", processor={"candidates": None}))
    assert "is for a decoder that generates answers, but that of config.json scores candidates" in message
    options = {"candidates": {"max_width": 12, "threshold": 0.5, "nested": False}}
    copied = edited(saved["t5"], tmp_path / "scores", processor={})
    path = copied / "umie_processor.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | options))
    assert "is for a decoder that scores candidates, but that of config.json generates answers" in message_of(copied)
    message = message_of(edited(saved["span"], tmp_path / "long", processor={"max_input_tokens": 5000}))
    assert "max_input_tokens is 5000: the decoder has only 512 positions" in message


def test_what_changes_no_tensor_may_differ(saved, tmp_path):
    for number, options in enumerate(({"name": "tiny"}, {"name": "tiny", "trainable": False}, {})):
        load(edited(saved["t5"], tmp_path / str(number), model={"encoder": options}), "cpu")
    load(edited(saved["t5"], tmp_path / "whole", processor={"encoder": {"name": "tiny", "crop_size": 10}}), "cpu")
