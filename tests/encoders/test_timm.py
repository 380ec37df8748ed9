"""timm: features equal timm's own, weights of files and folders, and models without a map."""

import json
import os
import shutil

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.transforms.functional import normalize, to_tensor

from umie import Record, compose, load
from umie.encoders import registry
from umie.errors import UmieError

BOX = (0.25, 0.0, 1.0, 0.5)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder in the layout of timm's hub repositories, with a classifier and a preparation of its own."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("timm")
    model = timm.create_model("test_resnet", num_classes=7)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    prepared = {"mean": [0.5] * 3, "std": [0.25] * 3, "input_size": [3, 64, 96], "interpolation": "bicubic"}
    (folder / "config.json").write_text(json.dumps({"architecture": "test_resnet", "pretrained_cfg": prepared}))
    return folder, model.eval()


def expected_pixels(image, box):
    width, height = image.size
    left, top, right, bottom = (round(edge * side) for edge, side in zip(box, (width, height) * 2, strict=True))
    return normalize(to_tensor(image.crop((left, top, right, bottom)).resize((96, 64), 3)), [0.5] * 3, [0.25] * 3)


def test_crops_have_timms_own_features(weights, noise):
    folder, model = weights
    encoder = registry.build("timm", weights=str(folder)).eval()
    image = noise(120, 80)
    with torch.no_grad():
        found = encoder.encode([image], [[BOX]]).features[0]
        pixels = torch.stack([expected_pixels(image, box) for box in ((0, 0, 1, 1), BOX)])
        expected = model.forward_head(model.forward_features(pixels), pre_logits=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert encoder.feature_dim == expected.shape[1]


def test_a_region_that_is_the_whole_image_has_its_features(weights, noise):
    encoder = registry.build("timm", weights=str(weights[0]), mode="align", short_side=64).eval()
    with torch.no_grad():
        found = encoder.encode([noise(120, 64)], [[(0.0, 0.0, 1.0, 1.0), BOX]]).features[0]
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found[2], found[0], atol=1e-3)


def test_weights_of_a_file_and_of_a_folder_are_equal(weights, noise):
    folder, _ = weights
    one = registry.build("timm", weights=str(folder)).tower.state_dict()
    other = registry.build("timm", model="test_resnet", weights=str(folder / "model.safetensors")).tower.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not any(name.startswith("fc.") for name in one)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "test_resnt"}, "Did you mean 'test_resnet'"),
        ({"model": "test_vit", "mode": "align"}, "test_vit has no map of the image: use mode 'crop'"),
        ({"model": "test_resnet", "mode": "pool"}, "Unknown mode 'pool'"),
        ({"model": "test_resnet", "weights": "imagenet"}, "Unknown weights 'imagenet'"),
        ({"model": "test_vit", "weights": "no/such.safetensors"}, "no such weight file"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UmieError, match=message):
        registry.build("timm", **options)


def test_weights_of_another_model_and_a_folder_without_a_configuration_are_errors(weights, tmp_path):
    folder, _ = weights
    with pytest.raises(UmieError, match="weights do not fit"):
        registry.build("timm", model="test_efficientnet", weights=str(folder / "model.safetensors"))
    with pytest.raises(UmieError, match=r"config\.json: cannot read"):
        registry.build("timm", weights=str(tmp_path))


@pytest.mark.parametrize(
    "prepared",
    [5, {"input_size": 5}, {"input_size": [3, 10**8, 8]}, {"mean": "x"}, {"std": [0, 0, 0]}, {"interpolation": 5}],
    ids=str,
)
def test_a_folder_of_others_is_not_trusted(weights, tmp_path, prepared):
    folder = shutil.copytree(weights[0], tmp_path / "timm")
    (folder / "config.json").write_text(json.dumps({"architecture": "test_resnet", "pretrained_cfg": prepared}))
    with pytest.raises(UmieError):
        registry.build("timm", weights=str(folder))
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(UmieError, match="a pipe"):
        registry.build("timm", weights=str(folder))


def test_a_saved_processor_does_not_need_the_folder_of_the_weights(weights, noise, tmp_path):
    folder = shutil.copytree(weights[0], tmp_path / "timm")
    record = Record("Ann", image=noise(120, 80))
    model, processor = compose({"name": "timm", "weights": str(folder)}, "concat", "tiny", tasks={"mner": {}})
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    shutil.rmtree(folder)
    _, again = load(tmp_path / "saved", device="cpu")
    assert torch.equal(again([record], "mner")["crops"], processor([record], "mner")["crops"])


def test_a_saved_encoder_does_not_need_the_folder_of_its_weights(weights, noise, tmp_path):
    folder, _ = weights
    encoder = registry.build("timm", weights=str(folder)).eval()
    saved = json.loads(json.dumps({**encoder.saved_options(), "weights": str(tmp_path / "moved")}))
    again = registry.construct("timm", saved).eval()
    again.load_state_dict(encoder.state_dict())
    assert again.fingerprint() == encoder.fingerprint()
    with torch.no_grad():
        found = [one.encode([noise(120, 80)], [[BOX]]).features for one in (encoder, again)]
    assert torch.equal(*found)
