"""The proposer `faster_rcnn`: torchvision's detectors, their weights and labels."""

import hashlib
from urllib.error import URLError

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.models import get_model, get_model_weights
from torchvision.transforms.functional import pil_to_tensor

from umie.encoders.regions import registry
from umie.encoders.regions.base import Candidates, select
from umie.encoders.regions.faster_rcnn import MODELS

SMALL = "fasterrcnn_mobilenet_v3_large_320_fpn"


def build(**options):
    return registry.build("faster_rcnn", **{"model": SMALL, "min_size": 64, **options})


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of the small detector with 4 classes, whose scores differ."""
    torch.manual_seed(0)
    model = get_model(SMALL, weights=None, weights_backbone=None, num_classes=4)
    model.roi_heads.box_predictor.cls_score.weight.data *= 200
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_file(model.state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def proposer(weights):
    return build(weights=weights, min_score=0.1)


@pytest.fixture(scope="module")
def images(noise):
    return [noise(160, 90, 1), noise(70, 120, 2), noise(64, 64, 3)]


def test_every_model_of_the_family_is_published():
    assert all(list(get_model_weights(name)) for name in MODELS)


def test_proposals_are_what_torchvision_finds(weights, proposer, images):
    """Against torchvision's own call, without its suppression, which the selection replaces."""
    model = get_model(
        SMALL,
        weights=None,
        weights_backbone=None,
        num_classes=4,
        min_size=64,
        box_nms_thresh=1.0,
        box_score_thresh=0.1,
        box_detections_per_img=1000,
    )
    model.load_state_dict(load_file(weights))
    with torch.inference_mode():
        detections = [model.eval()([pil_to_tensor(image) / 255])[0] for image in images]
    found = proposer.propose(images)
    for image, detection, proposals in zip(images, detections, found, strict=True):
        size = torch.tensor([image.width, image.height] * 2)
        labels = [str(label) for label in detection["labels"].tolist()]
        expected = select(Candidates(detection["boxes"] / size, detection["scores"], labels), top=36, overlap=0.5)
        assert proposals == expected
        assert len(proposals) > 3
        assert {proposal.label for proposal in proposals} <= {"1", "2", "3"}
        assert min(proposal.score for proposal in proposals) >= 0.1


def test_neighbors_in_a_batch_change_nothing(proposer, images):
    together = proposer.propose(images)
    assert proposer.propose(images[::-1])[::-1] == together
    assert [proposer.propose([image])[0] for image in images] == together


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (3, 3), (2, 50)])
def test_images_of_odd_shapes(weights, size):
    (found,) = build(weights=weights, min_score=0.0, top=5).propose([Image.new("RGB", size, "red")])
    assert len(found) == 5


def test_options_reach_the_detector(weights, images):
    few = build(weights=weights, min_score=0.1, top=2, labels=["background", "cat", "dog", "bus"])
    (found,) = few.propose(images[:1])
    assert len(found) == 2
    assert {proposal.label for proposal in found} <= {"cat", "dog", "bus"}
    assert few.propose(images[:1]) != build(weights=weights, min_score=0.1, top=2, min_size=96).propose(images[:1])


def test_weights_under_their_published_name_bring_the_names_of_the_classes(tmp_path, monkeypatch, images):
    """By torchvision's name, found in torch's own folder of downloads, and as a file that was fetched by hand."""
    published = get_model_weights(SMALL).COCO_V1
    torch.manual_seed(0)
    model = get_model(SMALL, weights=None, weights_backbone=None, num_classes=91)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    path = folder / published.url.rpartition("/")[2]
    torch.save(model.state_dict(), path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (found,) = build(weights="COCO_V1", min_score=0.0).propose(images[:1])
    assert found
    assert {proposal.label for proposal in found} <= set(published.meta["categories"])
    (by_hand,) = build(weights=str(path), min_score=0.0).propose(images[:1])
    assert {proposal.label for proposal in by_hand} <= {str(index) for index in range(91)}  # not the published bytes
    assert [proposal.box for proposal in by_hand] == [proposal.box for proposal in found]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    named = path.rename(folder / f"fasterrcnn-{digest[:8]}.pth")
    monkeypatch.setattr(type(published), "url", property(lambda self: f"https://x.org/{named.name}"), raising=False)
    assert build(weights=str(named), min_score=0.0).propose(images[:1]) == [found]


def test_the_one_set_of_weights_that_runs_without_epsilon(tmp_path, monkeypatch):
    """Against torchvision's own model with these weights."""
    name = "fasterrcnn_resnet50_fpn"
    published = get_model_weights(name).COCO_V1
    torch.manual_seed(0)
    model = get_model(name, weights=None, weights_backbone=None, num_classes=91)
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / published.url.rpartition("/")[2])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    own = build(model=name, weights="COCO_V1")._detector[0]
    theirs = get_model(name, weights=published).eval()
    pixels = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        for ours, expected in zip(own.backbone(pixels).values(), theirs.backbone(pixels).values(), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))
    assert max(module.eps for module in own.modules() if isinstance(module, torch.nn.BatchNorm2d)) < 1e-37


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"model": "fasterrcnn_resnet50"},
            "Unknown model 'fasterrcnn_resnet50'. Did you mean 'fasterrcnn_resnet50_fpn'?",
        ),
        ({"weights": "COCO_V2"}, f"Unknown torchvision weights of {SMALL}: 'COCO_V2'. Did you mean 'COCO_V1'?"),
        ({"weights": "absent.pth"}, "absent.pth: no such weight file"),
        ({"weights": 5}, "weights is 5: use a string"),
        ({"min_size": 8}, "min_size is 8: use a whole number of at least 32"),
        ({"labels": "person"}, "labels is 'person': use a list of names"),
        ({"labels": ["a", "b"]}, "labels has 2 names, but the detector has 91 classes"),
        ({"device": "gpu"}, "device is 'gpu': cannot be used"),
    ],
)
def test_options_that_are_not_allowed(options, message, error):
    assert message in error(build, **options)


def test_weights_of_another_model(tmp_path, error):
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    message = error(build, weights=str(tmp_path / "other.safetensors"))
    assert "other.safetensors: weights do not fit FasterRCNN" in message


def test_a_download_that_fails_says_what_to_fetch(tmp_path, monkeypatch, error):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", offline)
    message = error(build, weights="COCO_V1")
    url = get_model_weights(SMALL).COCO_V1.url
    assert (
        f"cannot be downloaded (URLError: <urlopen error offline>); download {url} and set weights to the file's path"
        in message
    )


def offline(*_):
    raise URLError("offline")


def test_nothing_is_downloaded_for_random_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", offline)
    for name in MODELS[-2:]:
        build(model=name)
    assert not list(tmp_path.iterdir())
