"""frames: a slot is the mean of what the encoder of images makes of the frames that show it; options."""

import json

import pytest
import torch

from umie.encoders import registry
from umie.encoders.preprocessing import boxes_at
from umie.errors import UmieError
from umie.media import Clip
from umie.records import Track

BOX, OTHER = (0.0, 0.0, 0.6, 0.5), (0.4, 0.5, 1.0, 1.0)
TRACKS = [
    Track((0.0, 0.5, 1.4), (BOX, OTHER, BOX)),
    Track((0.25, 0.5, 0.9), (OTHER, None, BOX)),
    Track((0.1, 0.2), (OTHER, BOX)),  # between two frames
]
INNER = [
    {"name": "tiny", "trainable": False},
    {"name": "timm", "model": "test_resnet"},
    {"name": "timm", "model": "test_resnet", "mode": "align", "short_side": 64},
]


@pytest.fixture(scope="module")
def clip(noise):
    times = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
    return Clip(tuple(noise(60, 40, seed) for seed in range(6)), times, 1.5)


def build(inner, **options):
    torch.manual_seed(0)
    return registry.build("frames", encoder=inner, **options).eval()


def encode(encoder, clips, tracks=None):
    with torch.no_grad():
        return encoder.encode(clips, tracks).features


@pytest.mark.parametrize("inner", INNER, ids=str)
def test_a_slot_is_the_mean_over_the_frames_that_show_it(inner, clip):
    encoder = build(inner)
    found = encode(encoder, [clip], [TRACKS])[0]
    image_encoder = encoder.image_encoder
    for slot, track in zip(found, [None, *TRACKS], strict=True):
        boxes = [None] * 6 if track is None else boxes_at(track, clip.times)
        own = []
        for frame, box in zip(clip.frames, boxes, strict=True):
            if track is None:
                own.append(encode(image_encoder, [frame])[0, 0])
            elif box is not None:
                own.append(encode(image_encoder, [frame], [[box]])[0, 1])
        torch.testing.assert_close(slot, sum(own) / len(own), atol=1e-5, rtol=1e-4)
    assert encoder.feature_dim == image_encoder.feature_dim


def test_key_frames_are_evenly_spaced(clip):
    few = build("tiny", num_frames=2)
    shown = Clip((clip.frames[1], clip.frames[4]), (0.25, 1.0), 1.5)
    assert torch.equal(encode(few, [clip]), encode(few, [shown]))
    assert not torch.allclose(encode(few, [clip]), encode(build("tiny"), [clip]))


def test_options_are_those_of_the_encoder_of_images(clip):
    frozen, trained = build("tiny", trainable=False), build("tiny")
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert trained.config.trainable and all(parameter.requires_grad for parameter in trained.parameters())
    assert build({"name": "timm", "model": "test_resnet"}).config.trainable is False
    assert build({"name": "timm", "model": "test_resnet"}).config.has_random_weights
    assert not build("tiny").config.has_random_weights
    with pytest.raises(UmieError, match="crop_sise"):
        build({"name": "tiny", "crop_sise": 3})


def test_a_fingerprint_depends_on_the_encoder_of_images():
    prints = [build(inner).fingerprint() for inner in INNER]
    prints += [build("tiny", num_frames=3).fingerprint()]
    other = build(INNER[0])
    with torch.no_grad():
        next(other.image_encoder.parameters()).add_(1)
    assert len({*prints, other.fingerprint()}) == len(INNER) + 2
    assert build(INNER[0]).fingerprint() == prints[0] == build(INNER[0], max_regions=3).fingerprint()


def test_what_the_weights_determine_is_saved(tmp_path, clip):
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "model.safetensors")
    prepared = {"mean": [0.1] * 3, "std": [0.25] * 3, "input_size": [3, 64, 64], "interpolation": "bicubic"}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_resnet", "pretrained_cfg": prepared}))
    encoder = registry.build("frames", encoder={"name": "timm", "weights": str(tmp_path)}).eval()
    assert not encoder.config.has_random_weights
    assert encoder.config.weights_source == str(tmp_path)
    saved = json.loads(json.dumps(encoder.saved_options()))
    assert saved["encoder"]["preparation"]["mean"] == [0.1] * 3
    del saved["encoder"]["weights"]
    again = registry.construct("frames", saved).eval()
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(encode(again, [clip], [TRACKS]), encode(encoder, [clip], [TRACKS]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": 5}, "encoder is 5: use the name of an encoder of images, or name and options"),
        ({"encoder": {"mode": "crop"}}, "use the name of an encoder of images, or name and options"),
        ({"encoder": "tini"}, "Unknown encoder 'tini'"),
        ({"encoder": "tiny_audio"}, "encoder is 'tiny_audio': use one that sees images, such as clip or timm"),
        ({"encoder": "frames"}, "encoder is 'frames': use one that sees images"),
        ({"encoder": {"name": "precomputed", "path": "."}}, "use one that sees images"),
        ({"num_frames": 0}, "num_frames is 0: use a whole number"),
        ({"trainable": "no"}, "trainable is 'no'"),
    ],
)
def test_bad_options_are_one_line(options, message):
    with pytest.raises(UmieError, match=message):
        registry.build("frames", **options)
