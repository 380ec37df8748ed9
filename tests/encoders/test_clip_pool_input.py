"""`clip`, mode "pool": sizes and pixels of what goes into the tower, and the options and towers that are refused."""

import json

import pytest
import torch
from PIL import Image

from umie.encoders import build_preprocessor, registry
from umie.encoders.clip import pool as _clip_pool
from umie.errors import UmieError


@pytest.fixture(scope="session")
def open_clip(tmp_path_factory):
    """open_clip with one small model of 32 x 32 pixels in patches of 8."""
    import open_clip

    folder = tmp_path_factory.mktemp("models")
    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    (folder / "umie-input-vit.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return open_clip


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((500, 500), None, (32, 32)),
        ((640, 480), None, (32, 40)),  # 42.7 wide: the nearest multiple of 8
        ((480, 640), 64, (88, 64)),
        ((4000, 1), None, (32, 128)),
        ((1, 4000), 100, (400, 96)),
        ((500, 500), 35, (32, 32)),
        ((50, 50), 9, (8, 8)),
    ],
)
def test_size_in_pixels(open_clip, noise, size, short_side, expected):
    preprocess = build_preprocessor(
        {"name": "clip", "model": "umie-input-vit", "mode": "pool", "short_side": short_side}
    )
    found = preprocess([Image.new("RGB", size)])
    assert found["pixels"].shape[2:] == expected
    assert found["image_size"].tolist() == [list(expected)]


def test_the_tower_is_looked_at_once(open_clip, monkeypatch):
    """Every command and every data worker builds preprocessors; each tower would cost it tenths of a second."""
    built = []

    def build_tower(model, *arguments, **options):
        built.append(model)
        return original(model, *arguments, **options)

    original = _clip_pool.build_tower
    monkeypatch.setattr(_clip_pool, "build_tower", build_tower)
    _clip_pool.geometry.cache_clear()
    options = {"name": "clip", "model": "umie-input-vit", "mode": "pool"}
    first, second = build_preprocessor(options), build_preprocessor({**options, "short_side": 64})
    assert (first.own_size, first.stride) == (second.own_size, second.stride) == ((32, 32), (8, 8))
    assert built == ["umie-input-vit"]


def test_an_own_size_that_is_no_multiple_of_the_patch_stays(open_clip, noise):
    """ViT-SO400M-14-SigLIP-384 takes 384 pixels in 27 patches of 14."""
    preprocess = build_preprocessor({"name": "clip", "model": "ViT-SO400M-14-SigLIP-384", "mode": "pool"})
    assert preprocess([noise(50, 50)])["pixels"].shape[2:] == (384, 384)
    assert preprocess([noise(50, 60)])["pixels"].shape[2:] == (462, 378)


def test_pixels_are_open_clips_and_nothing_is_cut_off(open_clip, monkeypatch):
    tag = {"hf_hub": "nobody/none/", "mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3), "interpolation": "bilinear"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "umie-input-vit", {"some_tag": tag})
    options = {"name": "clip", "model": "umie-input-vit", "pretrained": "some_tag"}
    pooling, cropping = build_preprocessor({**options, "mode": "pool"}), build_preprocessor(options)
    image = Image.effect_noise((90, 90), 80).convert("RGB")
    assert torch.equal(pooling([image])["pixels"], cropping([image])["crops"][:, 0])
    wide = Image.effect_noise((400, 50), 80).convert("RGB")  # longer than 4 : 1, and squeezed
    expected = wide.resize((128, 32), Image.Resampling.BILINEAR)
    expected = torch.tensor(bytearray(expected.tobytes())).view(32, 128, 3) / 255
    expected = (expected - torch.tensor(tag["mean"])) / torch.tensor(tag["std"])
    torch.testing.assert_close(pooling([wide])["pixels"][0], expected.permute(2, 0, 1))


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("swin_base_patch4_window7_224", r"Input height \(96\) doesn't match model \(224\)"),
        ("vit_relpos_medium_patch16_cls_224", "it does not pool its map by the mean"),
    ],
)
def test_towers_that_cannot_be_pooled_say_so(open_clip, model, why):
    with pytest.raises(UmieError, match=f"^{model}: regions cannot be pooled from its map: .*{why}.*use mode='crop'$"):
        build_preprocessor({"name": "clip", "model": model, "mode": "pool"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "roi"}, r"Unknown mode 'roi'\. Choices: crop, pool\."),
        ({"short_side": 64}, "short_side is 64: it applies only to mode 'pool'"),
        ({"mode": "pool", "short_side": 0}, "short_side is 0: use a whole number of at least 1"),
        ({"mode": "pool", "short_side": 4}, "short_side is 4: use at least 8, a patch of umie-input-vit"),
    ],
)
def test_options_that_make_no_sense(open_clip, options, message):
    with pytest.raises(UmieError, match=message):
        registry.build("clip", model="umie-input-vit", **options)
