"""examples/own_imagebind.py on a stand-in for the checkout: the same calls and layout of weights, a small model."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from umie import Record, compose
from umie.encoders import CachedEncoder, FeatureCache, registry
from umie.errors import UmieError
from umie.media import Clip, Sound
from umie.records import Segment, Track
from umie.registry import load_plugins

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_imagebind.py"
STAND_IN = """
import torch
from torch import nn

class Stem(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.project = nn.Linear(size, 8)

    def forward(self, vision=None, audio=None):
        value = vision if audio is None else audio
        pooled = nn.functional.adaptive_avg_pool2d(value.flatten(1, -3), 4).flatten(1)
        return {"trunk": {"tokens": self.project(pooled)}, "head": {}}

class Trunk(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, tokens):
        return self.drop(tokens)

class ImageBindModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.modality_preprocessors = nn.ModuleDict({"vision": Stem(6 * 16), "text": Stem(9), "audio": Stem(16)})
        self.modality_trunks = nn.ModuleDict({name: Trunk() for name in ("vision", "text", "audio")})
        self.modality_heads = nn.ModuleDict({name: nn.Linear(8, 1024) for name in ("vision", "text", "audio")})
        self.modality_postprocessors = nn.ModuleDict({name: nn.Identity() for name in ("vision", "text", "audio")})

    def forward(self, inputs):
        outputs = {}
        for name, value in inputs.items():
            clips = value.shape[:2] if value.ndim >= 5 else None
            if clips is not None:
                value = value.reshape(-1, *value.shape[2:])
            prepared = self.modality_preprocessors[name](**{name: value})
            value = self.modality_heads[name](self.modality_trunks[name](**prepared["trunk"]), **prepared["head"])
            value = 20 * nn.functional.normalize(self.modality_postprocessors[name](value), dim=-1)
            outputs[name] = value if clips is None else value.reshape(*clips, -1).mean(1)
        return outputs

def imagebind_huge(pretrained=False):
    assert not pretrained
    return ImageBindModel()
"""
BOX = (0.2, 0.0, 0.6, 0.5)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder like a checkout, and weights."""
    folder = tmp_path_factory.mktemp("ImageBind")
    (folder / "imagebind" / "models").mkdir(parents=True)
    for place in (folder / "imagebind", folder / "imagebind" / "models"):
        (place / "__init__.py").touch()
    (folder / "imagebind" / "models" / "imagebind_model.py").write_text(STAND_IN)
    names = {}
    exec(STAND_IN, names)
    torch.manual_seed(0)
    model = names["imagebind_huge"]()
    torch.save(model.state_dict(), folder / "imagebind_huge.pth")
    yield folder, model.eval()
    for name in [name for name in sys.modules if name.partition(".")[0] == "imagebind"]:
        del sys.modules[name]


@pytest.fixture
def encoders(checkout, forget_plugins):
    load_plugins([EXAMPLE])
    folder, _ = checkout
    options = {"checkout": str(folder), "weights": str(folder / "imagebind_huge.pth")}
    return {medium: registry.build(f"imagebind_{medium}", **options) for medium in ("audio", "video")}


@pytest.fixture(scope="module")
def sounds():
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 80_000).astype(np.float32)
    return [Sound(samples, 16_000), Sound(samples[:20_000], 16_000)]


@pytest.fixture(scope="module")
def clips(noise):
    frames = tuple(noise(50, 40, seed) for seed in range(4))
    return [Clip(frames, (0, 0.5, 1, 1.5), 2), Clip(frames[:1], (0,), 1)]


def unit(vectors):
    return torch.nn.functional.normalize(vectors, dim=-1)


def test_a_segment_is_the_mean_over_its_windows(encoders, checkout, sounds):
    encoder, (_, model) = encoders["audio"], checkout
    segments = [Segment((0.5, 4.5)), Segment((1.0, 1.05))]
    found = encoder.encode(sounds[:1], [segments]).features[0]
    windows = encoder.preprocess(sounds[:1], [segments])["windows"]
    assert windows.shape == (1, 3, 3, 1, 128, 204)
    samples = sounds[0].samples
    alone = [Sound(samples[begin : begin + 32_000], 16_000) for begin in (8_000, 24_000, 40_000)]
    for step, one in enumerate(alone):
        torch.testing.assert_close(encoder.preprocess([one])["windows"][0, 0, 0], windows[0, 1, step])
    with torch.no_grad():
        expected = unit(model({"audio": windows[0]})["audio"])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert found.norm(dim=1).tolist() == pytest.approx([1, 1, 1], rel=1e-5)


def test_a_track_is_the_mean_over_pairs_of_its_frames(encoders, checkout, clips):
    encoder, (_, model) = encoders["video"], checkout
    found = encoder.encode(clips[:1], [[Track((0.5, 1.0), (BOX, BOX))]]).features[0]
    pairs = []
    for frames in (clips[0].frames, [frame.crop((10, 0, 30, 20)) for frame in clips[0].frames[1:3]]):
        eight = [frames[step * len(frames) // 8].resize((224, 224), Image.Resampling.BICUBIC) for step in range(8)]
        pixels = torch.from_numpy(np.stack([np.asarray(one) for one in eight])).permute(0, 3, 1, 2) / 255
        colors = torch.tensor([[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]])
        pixels = (pixels - colors[0, :, None, None]) / colors[1, :, None, None]
        pairs.append(torch.stack([pixels[step : step + 2].transpose(0, 1) for step in range(0, 8, 2)]))
    with torch.no_grad():
        expected = unit(model({"vision": torch.stack(pairs)})["vision"])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_batches_padding_and_absent_media(encoders, sounds, clips):
    for encoder, sources in ((encoders["audio"], sounds), (encoders["video"], clips)):
        places = [[(0.2, 0.6), (0.1, 0.3)], []]
        if encoder.medium == "video":
            places = [[Track((0.0, 1.0), (BOX, BOX)), Track((0.5, 1.0), (BOX, BOX))], []]
        found = encoder.encode([*sources, None], [*places, []])
        for row, (source, own) in enumerate(zip(sources, places, strict=True)):
            alone = encoder.encode([source], [own]).features[0]
            torch.testing.assert_close(found.features[row, : len(alone)], alone, atol=1e-5, rtol=0)
        assert not found.features[~found.mask].any()
        assert not found.features[2].any()
        assert not encoder.encode([None]).features.numel()


def test_only_the_part_of_the_medium_is_kept_and_it_is_frozen(encoders):
    for encoder, kept in ((encoders["audio"], "audio"), (encoders["video"], "vision")):
        names = {name.split(".")[2] for name in encoder.state_dict()}
        assert names == {kept}
        encoder.train()
        assert not any(parameter.requires_grad for parameter in encoder.parameters())
        assert not any(module.training for module in encoder.tower.modules())


def test_a_variant_hears_and_sees_with_it_and_features_are_stored(encoders, sounds, clips, tokenizer, tmp_path):
    torch.manual_seed(0)
    tasks = {"mner": {"labels": ("person",)}}
    media = {f"{medium}_encoder": encoder for medium, encoder in encoders.items()}
    model, processor = compose("tiny", "gated", "t5", tasks=tasks, tokenizer=tokenizer, **media)
    records = [Record("Ann", audio=sounds[0], video=clips[0], segments=((Segment((0, 1))),)), Record("Bob")]
    batch = processor(records, "mner")
    logits = model(**batch).logits
    text = {name: value for name, value in processor(records[1:], "mner").items() if name in ("input_ids", "labels")}
    torch.testing.assert_close(logits[1:, : text["labels"].shape[1]], model(**text).logits, atol=1e-5, rtol=0)
    processor.features["audio"] = CachedEncoder(model.audio_encoder, FeatureCache(tmp_path / "cache"))
    stored = processor(records, "mner")
    assert "audio.windows" not in stored
    torch.testing.assert_close(model(**stored).logits, logits, atol=1e-5, rtol=0)


def test_it_is_listed_and_says_what_is_missing(encoders, checkout, umie, tmp_path):
    code, out, _ = umie("list", "imagebind_audio", "--plugin", EXAMPLE)
    assert code == 0
    assert "checkout" in out
    with pytest.raises(UmieError, match=r"checkout is '.*nowhere': no such file as .*imagebind_model\.py: clone"):
        registry.build("imagebind_audio", checkout=str(tmp_path / "nowhere"))
    shutil.copytree(checkout[0], tmp_path / "other")
    with pytest.raises(UmieError, match="but imagebind is imported from"):
        registry.build("imagebind_audio", checkout=str(tmp_path / "other"))
    broken = tmp_path / "broken.pth"
    torch.save({"modality_heads.audio.weight": torch.zeros(1024, 8)}, broken)
    with pytest.raises(UmieError, match="weights do not fit"):
        registry.build("imagebind_audio", checkout=str(checkout[0]), weights=str(broken))
