"""`clip` by crops: what open_clip gives for every slot, weights from files and tags, saving, and the errors."""

import copy
import json
import pickle
import subprocess
import sys
import warnings

import pytest
import torch
from clip_samples import Holder
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedConfig

from umie.encoders import registry
from umie.errors import UmieError, UnknownNameError

LEFT, CORNER = (0.0, 0.0, 0.5, 1.0), (0.6, 0.7, 1.0, 1.0)
REGIONS = [[LEFT, CORNER], [CORNER], []]
TEXT = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
MODELS = {
    "umie-test-vit": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "umie-test-resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32},
    # rotary embeddings: buffers that timm leaves out of the state dict
    "umie-test-timm": {"image_size": 224, "timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token"},
    "umie-test-tokens": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16, "output_tokens": True},
}


@pytest.fixture(scope="session")
def open_clip(tmp_path_factory):
    """open_clip with small models, and a tag that asks for another activation and other constants."""
    import open_clip

    folder = tmp_path_factory.mktemp("models")
    for name, vision in MODELS.items():
        config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    tag = {"hf_hub": "nobody/none/", "quick_gelu": True, "mean": (0.5, 0.4, 0.3), "resize_mode": "squash"}
    open_clip.pretrained._PRETRAINED["umie-test-vit"] = {"some_tag": tag}
    return open_clip


@pytest.fixture(scope="session")
def encoders(open_clip):
    torch.manual_seed(0)
    return {name: registry.build("clip", model=name).eval() for name in MODELS}


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (6, 6, 3), generator=generator, dtype=torch.uint8)
    noise = Image.frombytes("RGB", (6, 6), coarse.numpy().tobytes())
    return [noise.resize((120, 80)), noise.transpose(Image.Transpose.ROTATE_90).resize((50, 90)), None]


@pytest.mark.parametrize("model", ["RN50", "ViT-B-32", "umie-test-vit", "umie-test-resnet", "umie-test-timm"])
def test_features_are_open_clips(open_clip, images, model):
    torch.manual_seed(0)
    whole = open_clip.create_model(model).eval()
    prepare = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**whole.visual.preprocess_cfg), is_train=False
    )
    encoder = registry.build("clip", model=model)
    encoder.load_tower(whole.visual.state_dict(), model)
    found = encoder.encode(images, [[], [CORNER], []]).features
    with torch.no_grad():
        for row, slot, crop in [
            (0, 0, images[0]),
            (1, 0, images[1]),
            (1, 1, images[1].crop((30, 63, 50, 90))),
        ]:
            expected = whole.encode_image(prepare(crop)[None])[0]
            assert expected.abs().mean() > 0.001
            torch.testing.assert_close(found[row, slot], expected, atol=1e-5, rtol=1e-5)


def test_output_tokens_are_left_out(encoders, images):
    assert encoders["umie-test-tokens"].encode(images).features.shape == (3, 1, 24)


@pytest.mark.parametrize(("model", "width"), [("RN101", 512), ("ViT-L-14", 768), ("coca_ViT-B-32", 512)])
def test_width_is_known_before_building(open_clip, model, width):
    assert registry.get("clip").Config(model=model).feature_dim == width


@pytest.mark.parametrize("model", ["umie-test-vit", "umie-test-resnet"])
def test_order_boxes_and_mask(encoders, images, model):
    found = encoders[model].encode(images, REGIONS)
    assert found.features.shape == (3, 3, 24)
    assert found.mask.tolist() == [[True] * 3, [True, True, False], [False] * 3]
    torch.testing.assert_close(found.boxes[1, 1], torch.tensor(CORNER))
    assert not found.features[~found.mask].any()
    swapped = encoders[model].encode(images[:1], [[CORNER, LEFT]]).features[0]
    torch.testing.assert_close(found.features[0], swapped[[0, 2, 1]], atol=1e-5, rtol=0)
    assert not torch.allclose(swapped[1], swapped[2], atol=1e-3)


@pytest.mark.parametrize("model", ["umie-test-vit", "umie-test-resnet"])
def test_batch_invariance(encoders, images, model):
    together = encoders[model].encode(images, REGIONS).features
    for row, (image, boxes) in enumerate(zip(images, REGIONS, strict=True)):
        single = encoders[model].encode([image], [boxes]).features[0]
        torch.testing.assert_close(together[row, : len(single)], single, atol=1e-5, rtol=0)


def test_no_image_and_too_many_regions(encoders, images):
    encoder = encoders["umie-test-vit"]
    assert encoder.encode([None, None]).features.shape == (2, 0, 24)
    assert encoder.encode(images[:1], [[LEFT] * 40]).mask.shape == (1, 37)


def test_frozen(encoders, images):
    encoder = copy.deepcopy(encoders["umie-test-resnet"])
    before = copy.deepcopy(encoder.state_dict())
    nn.Sequential(encoder).train()
    assert not any(module.training for module in encoder.tower.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder.encode(images).features.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize("model", ["umie-test-vit", "umie-test-resnet"])
def test_trainable(open_clip, images, model):
    encoder = registry.build("clip", model=model, trainable=True)
    encoder.train()
    assert encoder.tower.training
    assert not any(module.training for module in encoder.modules() if isinstance(module, nn.BatchNorm2d))
    encoder.encode(images, REGIONS).features.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())
    assert encoder.tower.conv1.weight.grad.any()


def test_preprocessor_pickles(encoders, images):
    preprocess = encoders["umie-test-vit"].preprocess
    again = pickle.loads(pickle.dumps(preprocess))  # noqa: S301 # what a data worker does
    assert torch.equal(again(images, REGIONS)["crops"], preprocess(images, REGIONS)["crops"])


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin"])
@pytest.mark.parametrize("part", ["model", "tower"])
@pytest.mark.parametrize("model", ["umie-test-resnet", "umie-test-timm"])
def test_weights_from_a_file(open_clip, images, tmp_path, suffix, part, model):
    whole = open_clip.create_model(model)
    state = (whole if part == "model" else whole.visual).state_dict()
    path = tmp_path / f"weights{suffix}"
    if suffix != ".safetensors":
        torch.save({"epoch": 1, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    else:
        save_file(state, path)
    encoder = registry.build("clip", model=model, pretrained=str(path))
    loaded = encoder.tower.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in whole.visual.state_dict().items())
    assert encoder.encode(images).features.isfinite().all()


def test_weights_that_do_not_fit(open_clip, encoders, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(encoders["umie-test-resnet"].tower.state_dict(), path)
    with pytest.raises(UmieError, match=r"weights.pt: weights do not fit VisionTransformer: \d+ missing"):
        registry.build("clip", model="umie-test-vit", pretrained=str(path))
    with pytest.raises(UmieError, match="no such weight file"):
        registry.build("clip", model="umie-test-vit", pretrained="weights/gone.pt")


def test_a_tag_decides_on_weights_activation_and_pixels(open_clip, images, tmp_path, monkeypatch):
    path = tmp_path / "downloaded.pt"
    torch.manual_seed(1)
    torch.save(open_clip.create_model("umie-test-vit").state_dict(), path)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda tag, **options: str(path))
    whole, prepare = open_clip.create_model_from_pretrained("umie-test-vit", "some_tag", force_quick_gelu=True)
    encoder = registry.build("clip", model="umie-test-vit", pretrained="some_tag")
    with torch.no_grad():
        expected = whole.eval().encode_image(prepare(images[0])[None])
    torch.testing.assert_close(encoder.encode(images[:1]).features[0], expected, atol=1e-5, rtol=0)
    plain = registry.build("clip", model="umie-test-vit", pretrained=str(path))
    assert not torch.allclose(plain.encode(images[:1]).features[0], expected, atol=1e-3)


def test_a_download_that_fails(open_clip, monkeypatch):
    def fail(tag, **options):
        raise OSError("no network")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", fail)
    with pytest.raises(UmieError, match=r"some_tag of umie-test-vit cannot be loaded: .*no network; .* path"):
        registry.build("clip", model="umie-test-vit", pretrained="some_tag")


def test_unknown_names(open_clip):
    with pytest.raises(UnknownNameError, match=r"Unknown open_clip model 'ViT-B-33'. Did you mean 'ViT-B-32'\?"):
        registry.build("clip", model="ViT-B-33")
    with pytest.raises(UnknownNameError, match="Unknown open_clip model 'hf-hub:nobody/none'"):
        registry.build("clip", model="hf-hub:nobody/none")
    with pytest.raises(UnknownNameError, match=r"weights of umie-test-vit: 'same_tag'. Did you mean 'some_tag'\?"):
        registry.build("clip", model="umie-test-vit", pretrained="same_tag")


def test_open_clip_is_imported_late_and_named_where_it_is_missing():
    code = """
import sys, umie.encoders.clip.encoder as clip
assert "open_clip" not in sys.modules
sys.modules["open_clip"] = None
try:
    clip.ClipEncoder(clip.ClipEncoderConfig())
except ValueError as error:
    assert "pip install 'umie[clip]'" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("model", ["umie-test-vit", "umie-test-resnet", "umie-test-timm"])
def test_saved_model_loads_again(encoders, images, tmp_path, model):
    holder = Holder(PreTrainedConfig(encoder={"model": model, "pretrained": "gone.pt"})).eval()
    holder.encoder.load_state_dict(encoders[model].state_dict())
    holder.save_pretrained(tmp_path)
    # a loader that leaves memory uninitialized may find the old values there
    dirt = [torch.full((1 << size,), torch.nan) for size in range(8, 20)]
    del dirt
    loaded = Holder.from_pretrained(tmp_path)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    expected = encoders[model].encode(images, REGIONS).features
    assert torch.equal(loaded.encoder.encode(images, REGIONS).features, expected)
    half = Holder.from_pretrained(tmp_path, dtype=torch.bfloat16).encoder.encode(images, REGIONS).features
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.05 * float(expected.abs().max()), rtol=0)


def test_no_python_warnings(open_clip, images):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.build("clip", model="umie-test-vit").encode(images, REGIONS)
