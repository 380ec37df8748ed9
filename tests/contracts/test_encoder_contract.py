"""The contract of every registered encoder of every medium: shapes, nothing to see, batches, gradients, saving."""

import dataclasses
import json
import pickle
import wave

import numpy as np
import pytest
import torch
from media_checkpoints import save
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from umie.encoders import registry
from umie.encoders.base import no_slots
from umie.errors import UmieError
from umie.media import Clip, Sound
from umie.records import Segment, Track

OPTIONS = {
    "captions": [{}],
    "clip": [
        {"model": "umie-contract-resnet"},
        {"model": "umie-contract-resnet", "mode": "pool"},
        {"model": "ViT-S-32-alt", "mode": "pool", "short_side": 160},
    ],
    "frames": [
        {"encoder": "tiny", "num_frames": 5},
        {"encoder": {"name": "timm", "model": "test_resnet", "mode": "align", "short_side": 96}, "num_frames": 5},
    ],
    "precomputed": [{"boxes": "relative", "whole": "mean"}, {"boxes": "relative", "whole": "file"}],
    "resnet101_roi": [{"mode": "crop"}, {"mode": "align", "short_side": 96}],
    "timm": [
        {"model": "test_resnet"},
        {"model": "test_vit"},
        {"model": "test_resnet", "mode": "align", "short_side": 96},
    ],
    "tiny": [{}, {"crop_size": 3, "feature_dim": 8}],
    "transformers_audio": [
        {"source": kind} for kind in ("wav2vec2", "audio-spectrogram-transformer", "whisper", "clap", "pe_audio_video")
    ],
    "transformers_video": [{"source": "videomae"}, {"source": "vjepa2"}, {"source": "pe_audio_video"}],
}
ENCODERS = [
    pytest.param((name, options), id="-".join([name, *map(str, options.values())]))
    for name in registry.names()
    for options in OPTIONS.get(name, [{}])
]

LEFT, RIGHT, CORNER = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.6, 0.7, 1.0, 1.0)
PLACES = {
    "image": (LEFT, RIGHT, CORNER),
    "audio": (Segment((0.0, 0.5)), Segment((0.5, 1.0)), Segment((0.6, 0.9))),
    "video": (
        Track((0, 0.5, 1), (LEFT, (0.2, 0, 0.7, 1), CORNER)),
        Track((0.5, 1), (RIGHT, RIGHT)),
        Track((0.25, 0.5), (CORNER, None)),
    ),
}
"""Three places of each medium: left, right, corner."""
EXACT = (0.5019, 0.5019, 0.5621, 0.5621)
ROUNDED = tuple(torch.tensor(EXACT).to(torch.bfloat16).tolist())


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A folder with the features of two images, which an encoder that looks features up reads."""
    folder = tmp_path_factory.mktemp("features")
    generator = torch.Generator().manual_seed(0)
    for name in ("one", "two"):
        boxes = torch.tensor([CORNER, LEFT, ROUNDED, EXACT, RIGHT])
        rows, whole = torch.randn(6, 16, generator=generator).split([5, 1])
        save_file({"features": rows, "boxes": boxes, "whole": whole[0]}, folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def text_encoder(tmp_path_factory):
    """Folder of a small BERT that knows four words, and captions of the two images."""
    folder = tmp_path_factory.mktemp("bert")
    words = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "on", "mat"])}
    tokenizer = Tokenizer(models.WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    (folder / "captions.txt").write_text("one.png: a cat\ntwo.png: on a mat\n")
    return folder


@pytest.fixture(scope="module", autouse=True)
def small_clip(tmp_path_factory):
    """CLIP's ResNet with few layers; tests/encoders/test_clip_real.py has it in full size."""
    import open_clip

    folder = tmp_path_factory.mktemp("models")
    tower = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32}
    text = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
    config = {"embed_dim": 24, "vision_cfg": tower, "text_cfg": text}
    (folder / "umie-contract-resnet.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


@pytest.fixture(scope="module", autouse=True)
def small_crops():
    """Crops of 64 pixels: a pass costs a twelfth, and no test here depends on their size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("umie.encoders.resnet101_roi.ResNet101RoiPreprocessor.own_size", (64, 64))
        yield


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Folder of a small model of transformers, by its kind."""
    kinds = {options["source"] for name in OPTIONS for options in OPTIONS[name] if name.startswith("transformers")}
    return {kind: save(kind, tmp_path_factory.mktemp(kind)) for kind in kinds}


@pytest.fixture(scope="module", params=ENCODERS)
def case(request, features, text_encoder, checkpoints, small_clip):
    """Name and options of an encoder; module-scoped, so that one encoder at a time is held."""
    name, options = request.param
    if name == "captions":
        return name, {"path": str(text_encoder / "captions.txt"), "source": str(text_encoder)}
    if name.startswith("transformers"):
        return name, {**options, "source": checkpoints[options["source"]]}
    return name, {**options, "path": str(features)} if registry.get(name).reads_features else options


@pytest.fixture(scope="module")
def encoder(case):
    return build(*case)


@pytest.fixture(scope="module")
def places(encoder):
    """A place on the left (at the beginning), on the right (at the end) and in a corner."""
    return PLACES[encoder.medium]


@pytest.fixture(scope="module")
def regions(places):
    left, right, corner = places
    return [[left, corner], [right], []]


@pytest.fixture(scope="module")
def images(encoder, noise, features):
    """Two images, sounds or videos, and none."""
    if encoder.medium == "audio":
        samples = np.random.default_rng(0).uniform(-0.5, 0.5, 24_000).astype(np.float32)
        samples[:8_000] *= np.sin(np.arange(8_000, dtype=np.float32) / 9)
        return [Sound(samples, 16_000), Sound(samples[::-1][:18_000].copy(), 16_000), None]
    if encoder.medium == "video":
        frames = tuple(noise(60, 40, seed) for seed in range(6))
        return [Clip(frames, (0, 0.25, 0.5, 0.75, 1, 1.25), 1.5), Clip(frames[3:], (0, 0.4, 0.8), 1.2), None]
    if encoder.reads_features:
        return [features / "one.png", features / "two.png", None]
    return [noise(120, 80), noise(50, 90, 1), None]


@pytest.fixture(scope="module")
def encoded(encoder, images, regions):
    """What the encoder makes of the images with their regions."""
    with torch.no_grad():
        return encoder.encode(images, regions)


@pytest.fixture(scope="module")
def num_more(encoder):
    """Slots of each record after those of the image and its regions: the words of a caption."""
    return [4, 5, 0] if "caption_ids" in encoder.preprocess.no_tensors() else [0, 0, 0]  # [CLS] a cat [SEP]


def build(name, options):
    """Build the encoder with random weights; those that start at 0, and would hide others, are set apart from it."""
    torch.manual_seed(0)
    encoder = registry.build(name, **options)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if not parameter.any():
                parameter.fill_(0.1)
    return encoder.eval()


def relative(actual, expected):
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual, expected, atol=1e-5 * scale, rtol=0)


def test_shapes_boxes_and_mask(encoder, encoded, num_more):
    num_real = [own + more for own, more in zip((3, 2, 0), num_more, strict=True)]
    assert encoded.features.shape == (3, max(num_real), encoder.feature_dim)
    assert encoded.features.dtype == torch.float32
    assert encoded.features.isfinite().all()
    assert encoded.mask.tolist() == [[slot < real for slot in range(max(num_real))] for real in num_real]
    expected = torch.zeros(3, max(num_real), 4)
    for row, own in enumerate(([LEFT, CORNER], [RIGHT])):
        expected[row, : num_real[row]] = torch.tensor([0.0, 0.0, 1.0, 1.0])
        if encoder.medium == "image":
            expected[row, 1 : 1 + len(own)] = torch.tensor(own)
    if encoder.medium != "video":  # the box of a track is the one in the middle
        assert torch.equal(encoded.boxes, expected)
    if encoder.medium == "audio":
        assert encoded.spans[0].flatten().tolist() == pytest.approx([0, 1, 0, 0.5 / 1.5, 0.6 / 1.5, 0.9 / 1.5])
    if encoder.medium == "video":
        assert encoded.spans[0].flatten().tolist() == pytest.approx([0, 1, 0, 1 / 1.5, 0.25 / 1.5, 0.25 / 1.5])
        assert encoded.paths.shape == (3, 3, 8, 4)
        assert encoded.paths[0, 1, -1].tolist() == pytest.approx([1.2, 0.7, 1, 0])  # in widths and heights of LEFT


def test_no_image_and_padding_are_zero(encoded):
    assert not encoded.features[~encoded.mask].any()
    assert encoded.features[encoded.mask].any(dim=-1).all()
    assert not encoded.mask[2].any()


def test_slots_differ(encoded, num_more):
    """A region has features of its own (or the words of a caption have), and so has another image."""
    whole, left, corner = encoded.features[0, [0, 3, 4] if num_more[0] else [0, 1, 2]]
    assert not torch.allclose(whole, left)
    assert not torch.allclose(left, corner)
    assert not torch.allclose(whole, encoded.features[1, 0])


def test_without_any_image(encoder):
    with torch.no_grad():
        found = encoder.encode([None, None])
    assert found.features.shape == (2, 0, encoder.feature_dim)
    assert found.boxes.shape == (2, 0, 4)
    assert found.mask.shape == (2, 0)


def test_batch_invariance(encoder, encoded, images, regions):
    with torch.no_grad():
        for row, (image, boxes) in enumerate(zip(images[:2], regions, strict=False)):
            single = encoder.encode([image], [boxes])
            num_slots = single.mask.shape[1]
            relative(encoded.features[row, :num_slots], single.features[0])
            assert torch.equal(encoded.boxes[row, :num_slots], single.boxes[0])
            assert num_slots == encoded.mask[row].sum()


def test_what_stands_in_padding_slots_never_matters(encoder, encoded, images, regions):
    inputs = encoder.preprocess(images, regions)
    spoilt = {key: value.clone() for key, value in inputs.items()}
    mask = inputs["visual_mask"]
    for key, nothing in encoder.preprocess.no_tensors().items():
        if key.startswith("caption"):
            spoilt["caption_ids"][~inputs["caption_mask"]] = 1
        elif not len(nothing) and spoilt[key].shape[:2] == mask.shape:  # one entry for each slot
            spoilt[key][~mask] = 1
    with torch.no_grad():
        found = encoder(**spoilt)
    relative(found.features, encoded.features)
    assert not found.features[~mask].any()


def test_encode_is_forward_of_preprocess(encoder, encoded, images, regions):
    inputs = encoder.preprocess(images, regions)
    assert inputs["boxes"].shape == encoded.boxes.shape
    assert inputs["visual_mask"].dtype == torch.bool
    assert {*no_slots(encoder.medium), *encoder.preprocess.no_tensors()} == set(inputs)
    with torch.no_grad():
        found = encoder(**inputs)
    for field in ("features", "boxes", "mask", "spans", "paths"):
        if getattr(found, field) is not None:
            assert torch.equal(getattr(found, field), getattr(encoded, field))


def test_a_file_and_an_image_in_memory_are_the_same(encoder, images, places, tmp_path, noise):
    if encoder.reads_features:
        with pytest.raises(UmieError, match="an image in memory does not have"):
            encoder.encode([noise(120, 80)])
        return
    path = tmp_path / "file"
    if encoder.medium == "audio":
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, images[0].rate, 0, "NONE", ""))
            file.writeframes((images[0].samples * 32_767).round().astype("<i2").tobytes())
    elif encoder.medium == "video":
        first, *others = images[0].frames
        first.save(path, format="PNG", save_all=True, append_images=others, duration=250)
    else:
        images[0].save(path, format="PNG")
    in_memory = encoder.preprocess(images[:1], [[places[0]]])
    from_file = encoder.preprocess([path], [[places[0]]])
    if encoder.medium == "audio":  # 16 bits are not exact
        assert all(torch.allclose(in_memory[key], from_file[key], atol=1e-2) for key in in_memory)
        return
    assert all(torch.equal(in_memory[key], from_file[key]) for key in in_memory)


def test_data_workers_can_preprocess(encoder, images, regions):
    copy = pickle.loads(pickle.dumps(encoder.preprocess))  # noqa: S301 # what a data worker does
    expected = encoder.preprocess(images, regions)
    found = copy(images, regions)
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_regions_beyond_the_most_are_left_out(case, encoder, images, places, num_more):
    left, _, corner = places
    assert encoder.preprocess(images[:1], [[left] * 40])["visual_mask"].shape == (1, 37 + num_more[0])
    config = dataclasses.replace(encoder.config, max_regions=1)
    cut = type(encoder).Preprocessor(config)(images[:1], [[left, corner]])
    kept = encoder.preprocess(images[:1], [[left]])
    assert all(torch.equal(cut[key], kept[key]) for key in kept)
    with pytest.raises(UmieError, match="max_regions is -1"):
        registry.construct(case[0], {**case[1], "max_regions": -1})


def test_gradients_reach_trainable_parameters(case, images, places):
    encoder = build(case[0], {**case[1], "trainable": True})
    found = encoder.encode(images, [[places[0]], [places[1]], []])
    if not list(encoder.parameters()):  # there is nothing to learn
        assert encoder.reads_features
        assert not found.features.requires_grad
        return
    weights = torch.randn(found.features.shape, generator=torch.Generator().manual_seed(1))
    (found.features * weights).sum().backward()
    constant = tuple(f"tower.{name}" for name in getattr(getattr(encoder.config, "family", None), "frozen", ()))
    for label, parameter in encoder.named_parameters():
        if label.startswith(constant):
            assert not parameter.requires_grad, label
            continue
        assert parameter.requires_grad, label
        assert parameter.grad is not None, label
        assert parameter.grad.isfinite().all(), label
        assert parameter.grad.any(), label


def test_frozen_encoders_take_no_gradient(case, encoder, images):
    frozen = build(case[0], {**case[1], "trainable": False})
    for mode in (True, False):
        frozen.train(mode)
        assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert not frozen.encode(images[:1]).features.requires_grad


def test_config_build_save_load(case, encoder, encoded, images, regions, tmp_path):
    save_file(encoder.state_dict(), tmp_path / "encoder.safetensors")
    config = json.loads(json.dumps(dataclasses.asdict(encoder.config)))
    torch.manual_seed(9)
    again = registry.construct(case[0], config).eval()
    assert again.config == encoder.config
    assert again.feature_dim == encoder.feature_dim
    again.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    (tmp_path / "encoder.safetensors").unlink()
    with torch.no_grad():
        assert torch.equal(again.encode(images, regions).features, encoded.features)


OUTSIDE = {
    "image": ((0.5, 0.0, 0.4, 1.0), "not inside the image"),
    "audio": ((9.0, 9.5), "after the end of the sound"),
    "video": (Track((9,), (LEFT,)), "after the end of the video"),
}


def test_bad_input_is_named(encoder, images, tmp_path):
    nouns = {"image": ("images", "regions"), "audio": ("sounds", "segments"), "video": ("videos", "tracks")}
    noun, kind = nouns[encoder.medium]
    with pytest.raises(UmieError, match=r"nowhere\.png: (no such|.* has no caption)"):
        encoder.encode([tmp_path / "nowhere.png"])
    place, problem = OUTSIDE[encoder.medium]
    with pytest.raises(UmieError, match=problem):
        encoder.encode(images[:1], [[place]])
    with pytest.raises(UmieError, match=f"1 lists of {kind} for 3 {noun}"):
        encoder.encode(images, [[]])


def test_half_precision_weights(case, images, num_more):
    """A model loaded in bfloat16 is given images and boxes in float32 all the same; the boxes stay exact."""
    encoder = build(*case).to(torch.bfloat16)
    exact, rounded = EXACT, ROUNDED
    if encoder.medium == "audio":
        exact, rounded = EXACT[::2], ROUNDED[::2]
    if encoder.medium == "video":
        exact, rounded = (Track((0.1,), (box,)) for box in (EXACT, ROUNDED))
    with torch.no_grad():
        found = encoder.encode(images[:1], [[exact, rounded]])
    assert found.features.dtype == torch.bfloat16
    assert found.features.isfinite().all()
    assert found.features[0].any(dim=-1).all()
    if encoder.medium == "audio":
        assert found.spans[0, 1].tolist() == (torch.tensor(exact) / 1.5).tolist()
        return  # a frame of the spectrogram is longer than the difference
    assert found.boxes[0, 1].tolist() == torch.tensor(EXACT).tolist()
    if encoder.medium == "image":
        assert torch.equal(found.features[0, 1], found.features[0, 2]) == (num_more[0] > 0)  # words describe no region
