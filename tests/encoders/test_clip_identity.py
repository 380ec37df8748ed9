"""`clip`: what the features depend on (fingerprint, activation, tag, precision, layout), and saving with a model."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from umie.composition import compose
from umie.encoders import build_preprocessor, registry
from umie.errors import UmieError
from umie.model import UmieModel

MODEL, QUICK, RESNET = "umie-identity-vit", "umie-identity-vit-quickgelu", "umie-identity-resnet"
CORNER = (0.6, 0.7, 1.0, 1.0)


@pytest.fixture(scope="session")
def open_clip(tmp_path_factory):
    """open_clip with small models, two tags that prepare images in their own ways, and one of another activation."""
    import json

    import open_clip

    folder = tmp_path_factory.mktemp("models")
    text = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
    vit = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    resnet = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32}
    for name, vision, more in [(MODEL, vit, {}), (QUICK, vit, {"quick_gelu": True}), (RESNET, resnet, {})]:
        config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, **more}
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    for name in (MODEL, RESNET):
        open_clip.pretrained._PRETRAINED[name] = {
            "grey": {"hf_hub": "nobody/none/", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
            "squash": {"hf_hub": "nobody/none/", "resize_mode": "squash"},
            "quick": {"hf_hub": "nobody/none/", "quick_gelu": True},
        }
    return open_clip


@pytest.fixture(scope="module")
def weights(open_clip, tmp_path_factory):
    """The same weights of the ViT in two files, and those of the ResNet in a third."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for model, names in [(MODEL, ("one", "two")), (RESNET, ("resnet",))]:
        tower = registry.build("clip", model=model).tower
        for parameter in tower.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        for name in names:
            save_file(tower.state_dict(), folder / f"{name}.safetensors")
    return folder


def build(weights, name="one", model=MODEL, **options):
    return registry.build("clip", model=model, pretrained=str(weights / f"{name}.safetensors"), **options).eval()


def test_same_weights_in_another_file_have_the_same_fingerprint(weights):
    one, two = build(weights), build(weights, "two", max_regions=3, channels_last=False, trainable=True)
    assert one.fingerprint() == two.fingerprint()
    random = registry.build("clip", model=MODEL)
    assert random.fingerprint() != one.fingerprint()
    random.tower.load_state_dict(one.tower.state_dict())
    assert random.fingerprint() == one.fingerprint()


def test_what_changes_features_changes_the_fingerprint(weights, noise):
    """Each of these encoders has the same weights, and other features of the image or its region."""
    encoders = {
        "file": build(weights),
        "mean": build(weights, tag="grey"),
        "resize": build(weights, tag="squash"),
        "activation": build(weights, tag="quick"),
        "pool": build(weights, mode="pool"),
        "size": build(weights, mode="pool", short_side=48),
        "precision": build(weights, precision="bfloat16"),
    }
    prints = {name: encoder.fingerprint() for name, encoder in encoders.items()}
    features = {name: each.encode([noise(60, 40)], [[CORNER]]).features.float() for name, each in encoders.items()}
    for name, found in prints.items():
        for other in prints:
            if name != other:
                assert found != prints[other], (name, other)
                assert not torch.equal(features[name], features[other])
    assert prints["activation"] == build(weights, model=MODEL, tag="quick").fingerprint()


def test_an_activation_that_the_tower_has_not_is_not_in_the_fingerprint(weights, noise):
    plain, quick = build(weights, "resnet", RESNET), build(weights, "resnet", RESNET, tag="quick")
    assert plain.fingerprint() == quick.fingerprint()
    assert torch.equal(plain.encode([noise(60, 40)]).features, quick.encode([noise(60, 40)]).features)


def test_the_name_of_a_model_says_its_activation(open_clip, weights, noise):
    """A file of OpenAI's weights needs the model's name with -quickgelu, or the tag; both are open_clip's own."""
    whole = open_clip.create_model(QUICK).eval()
    named, tagged = build(weights, model=QUICK), build(weights, tag="quick")
    whole.visual.load_state_dict(named.tower.state_dict())
    inputs = named.preprocess([noise(60, 40)])
    with torch.no_grad():
        expected = whole.encode_image(inputs["crops"][:, 0])
    for encoder in (named, tagged):
        torch.testing.assert_close(encoder(**inputs).features[0], expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(build(weights)(**inputs).features[0], expected, atol=1e-3)


def test_every_quickgelu_model_of_open_clip_has_it(open_clip):
    from umie.encoders.clip.models import has_quick_gelu

    names = [name for name in open_clip.list_models() if name.endswith("-quickgelu")]
    assert "ViT-B-32-quickgelu" in names
    assert all(has_quick_gelu(name, None) for name in names)
    assert not has_quick_gelu("ViT-B-32", None)
    assert has_quick_gelu("ViT-B-32", "openai")


def test_a_file_is_prepared_as_its_tag_says(open_clip, noise):
    """Real tags: a SigLIP file without its tag would be prepared with OpenAI's mean."""
    options = {"name": "clip", "model": "ViT-B-16-SigLIP", "pretrained": "weights/siglip.safetensors"}
    image = noise(30, 20)
    pixels = build_preprocessor({**options, "tag": "webli"})([image])["crops"]
    assert torch.equal(pixels, build_preprocessor({**options, "pretrained": "webli"})([image])["crops"])
    assert not torch.allclose(pixels, build_preprocessor(options)([image])["crops"], atol=1e-2)
    config = open_clip.get_pretrained_cfg("ViT-B-16-SigLIP", "webli")
    assert (config["mean"], config["resize_mode"]) == ((0.5, 0.5, 0.5), "squash")
    squashed = torch.tensor(bytearray(image.resize((224, 224), 3).tobytes())).view(224, 224, 3) / 255
    torch.testing.assert_close(pixels[0, 0], (squashed.permute(2, 0, 1) - 0.5) / 0.5)


def test_a_tag_that_open_clip_does_not_have(open_clip):
    with pytest.raises(UmieError, match=f"open_clip weights of {MODEL}: 'gray'. Did you mean 'grey'"):
        build_preprocessor({"name": "clip", "model": MODEL, "tag": "gray"})
    with pytest.raises(UmieError, match="tag is 'grey' and pretrained is the tag 'quick': set only one"):
        build_preprocessor({"name": "clip", "model": MODEL, "pretrained": "quick", "tag": "grey"})
    with pytest.raises(UmieError, match="tag is 3: use a string"):
        registry.build("clip", model=MODEL, tag=3)


@pytest.mark.parametrize("mode", ["crop", "pool"])
@pytest.mark.parametrize("model", [MODEL, RESNET])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_precision(open_clip, noise, mode, model, precision):
    torch.manual_seed(0)
    exact = registry.build("clip", model=model, mode=mode, channels_last=False)
    encoder = registry.build("clip", model=model, mode=mode, precision=precision)
    encoder.tower.load_state_dict(exact.tower.state_dict())
    found = encoder.encode([noise(60, 40), noise(40, 40)], [[CORNER], []]).features
    assert found.dtype == getattr(torch, precision)
    assert {parameter.dtype for parameter in encoder.parameters()} == {found.dtype}
    expected = exact.encode([noise(60, 40), noise(40, 40)], [[CORNER], []]).features
    torch.testing.assert_close(found.float(), expected, atol=0.03 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("model", [MODEL, RESNET])
@pytest.mark.parametrize("options", [{"mode": "crop"}, {"mode": "pool", "short_side": 96, "precision": "bfloat16"}])
def test_saved_with_a_model(weights, tokenizer, noise, tmp_path, model, options):
    name = "one" if model == MODEL else "resnet"
    encoder = {"name": "clip", "model": model, "pretrained": str(weights / f"{name}.safetensors"), **options}
    variant, _ = compose(encoder=encoder, tokenizer=tokenizer)
    expected = variant.eval().encoder.encode([noise(60, 40)], [[CORNER]]).features
    variant.save_pretrained(tmp_path)
    loaded = UmieModel.from_pretrained(tmp_path)
    named = dataclasses.replace(variant.encoder.config, pretrained=f"{name}.safetensors")  # without its directory
    assert loaded.encoder.config == named
    assert loaded.encoder.fingerprint() == variant.encoder.fingerprint()
    found = loaded.encoder.encode([noise(60, 40)], [[CORNER]]).features
    assert found.dtype == expected.dtype
    tolerance = 1e-5 if found.dtype == torch.float32 else 0.02
    torch.testing.assert_close(found, expected, atol=tolerance * float(expected.abs().max()), rtol=0)
    assert dataclasses.asdict(loaded.encoder.config)["mode"] == options["mode"]
