"""Options of the ResNet-101 encoder: precision, memory format, saving, and what the features depend on."""

import copy
import dataclasses

import pytest
import torch
from roi_samples import encoder_of, reference_model
from safetensors.torch import save_file
from torch import nn

import umie
from umie.encoders import registry
from umie.errors import UmieError

LEFT, CORNER = (0.0, 0.0, 0.5, 1.0), (0.6, 0.7, 1.0, 1.0)
MODES = [{"mode": "crop"}, {"mode": "align", "short_side": 96}]
ids = pytest.mark.parametrize("options", MODES, ids=["crop", "align"])


@pytest.fixture(scope="module")
def reference():
    return reference_model()


@pytest.fixture(scope="module")
def images(noise):
    return [noise(120, 80), noise(50, 90, 1)]


@pytest.fixture(autouse=True)
def small_crops(monkeypatch):
    """Crops of 64 pixels: a pass costs a twelfth, and no test here is about their size."""
    monkeypatch.setattr("umie.encoders.resnet101_roi.ResNet101RoiPreprocessor.own_size", (64, 64))


REGIONS = [[LEFT, CORNER], [CORNER]]


def dtypes(module):
    return {value.dtype for value in module.state_dict().values() if value.is_floating_point()}


@ids
@pytest.mark.slow
def test_bfloat16_features_are_near_float32(reference, images, options):
    exact = encoder_of(reference, **options).encode(images, REGIONS)
    encoder = encoder_of(reference, precision="bfloat16", **options)
    assert dtypes(encoder) == {torch.bfloat16}
    found = encoder.encode(images, REGIONS)
    assert found.features.dtype == torch.bfloat16
    assert torch.equal(found.boxes, exact.boxes)
    nearness = nn.functional.cosine_similarity(found.features.float(), exact.features, dim=-1)[exact.mask]
    assert nearness.min() > 0.99
    other = nn.functional.cosine_similarity(exact.features[0, 1], exact.features[0, 2], dim=0)
    assert nearness.min() > other + 0.001  # nearer to itself than to another region


@ids
@pytest.mark.slow
def test_the_memory_format_changes_no_more_than_rounding(reference, images, options):
    formats = []
    encoders = [encoder_of(reference, channels_last=last, **options) for last in (True, False)]
    for encoder in encoders:
        encoder.tower.register_forward_pre_hook(
            lambda _, given: formats.append(given[0].is_contiguous(memory_format=torch.channels_last))
        )
    last, first = (encoder.encode(images, REGIONS).features for encoder in encoders)
    assert formats == [True] * (len(formats) // 2) + [False] * (len(formats) // 2)
    torch.testing.assert_close(last, first, atol=1e-5 * float(first.abs().max()), rtol=1e-5)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.slow
def test_a_saved_model_keeps_precision_and_stays_frozen(reference, images, tokenizer, tmp_path, channels_last):
    options = {"mode": "align", "short_side": 64, "precision": "bfloat16", "channels_last": channels_last}
    weights = tmp_path / "resnet101.safetensors"
    save_file(reference.state_dict(), weights)
    encoder = {"name": "resnet101_roi", "weights": str(weights), **options}
    model, _ = umie.compose(encoder=encoder, tokenizer=tokenizer)
    weights.unlink()
    expected = model.encoder.encode(images, REGIONS).features
    model.save_pretrained(tmp_path / "model")
    loaded = umie.UmieModel.from_pretrained(tmp_path / "model")
    for stage in (loaded, loaded.train(), loaded.eval()):
        assert stage.encoder.config == model.encoder.config
        assert dtypes(stage.encoder) == {torch.bfloat16}
        assert dtypes(stage.decoder) == {torch.float32}
        assert not any(parameter.requires_grad for parameter in stage.encoder.parameters())
        assert not any(module.training for module in stage.encoder.tower.modules())
        assert torch.equal(stage.encoder.encode(images, REGIONS).features, expected)
    assert loaded.encoder.fingerprint() == model.encoder.fingerprint()
    (tmp_path / "model" / "model.safetensors").unlink()


def test_a_trainable_encoder_learns_after_loading(images, tokenizer, tmp_path):
    encoder = {"name": "resnet101_roi", "mode": "align", "short_side": 32, "trainable": True}
    model, _ = umie.compose(encoder=encoder, tokenizer=tokenizer)
    model.save_pretrained(tmp_path / "model")
    loaded = umie.UmieModel.from_pretrained(tmp_path / "model").train().encoder
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert not any(module.training for module in loaded.modules() if isinstance(module, nn.BatchNorm2d))
    loaded.encode(images[:1], REGIONS[:1]).features.square().sum().backward()
    assert loaded.tower.conv1.weight.grad.any()
    (tmp_path / "model" / "model.safetensors").unlink()


def test_fingerprint(reference, tmp_path):
    """It tells apart what gives other features, and nothing else."""
    paths = [tmp_path / name for name in ("one.safetensors", "two.safetensors", "other.safetensors")]
    state = reference.state_dict()
    for path in paths[:2]:
        save_file(state, path)
    state["conv1.weight"] = state["conv1.weight"].clone()
    state["conv1.weight"][0, 0, 0, 0] += 1e-3
    save_file(state, paths[2])

    encoders = [registry.build("resnet101_roi", weights=str(path), mode="align") for path in paths]

    def fingerprint(**options):
        encoder = copy.copy(encoders[0])
        encoder.config = dataclasses.replace(encoder.config, **options)
        return encoder.fingerprint()

    expected = fingerprint()
    assert encoders[1].fingerprint() == expected
    assert fingerprint(max_regions=4, trainable=True, channels_last=False, short_side=320) == expected
    unlike = [{"mode": "crop"}, {"short_side": 96}, {"precision": "bfloat16"}, {"pooling": "roi_align"}]
    others = [encoders[2].fingerprint(), *(fingerprint(**options) for options in unlike)]
    assert len({expected, *others}) == 6
    for path in paths:
        path.unlink()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "precision is 'int8': use one of bfloat16, float16, float32"),
        ({"channels_last": "yes"}, "channels_last is 'yes'"),
        ({"pooling": "mean"}, "pooling is 'mean': use one of precise, roi_align"),
        ({"short_side": 320.5}, "short_side is 320.5: use a whole number of at least 32"),
        ({"short_side": True}, "short_side is True"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(UmieError, match=message):
        registry.construct("resnet101_roi", options)
