"""CachedEncoder: features bit for bit, modes, filling, errors."""

import importlib.util
import random
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from umie.encoders import registry
from umie.encoders.cache.cached_encoder import CachedEncoder, feature_key
from umie.encoders.cache.store import FeatureCache
from umie.errors import UmieError
from umie.images import image_digest
from umie.records import Region
from umie.types import FEATURES

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
LEFT, RIGHT, CORNER = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.6, 0.7, 1.0, 1.0)
REGIONS = [[LEFT, CORNER], [RIGHT], [], [Region(RIGHT, "dog")]]


def build(name="tiny", seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return registry.build(name, **{"trainable": False, **options})


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache", on_event=pytest.fail)


@pytest.fixture
def cached(cache):
    return CachedEncoder(build(), cache)


@pytest.fixture(scope="module")
def images(noise):
    return [noise(60, 40, seed) for seed in range(4)]


def same(found, expected):
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor) for name, tensor in expected.items()
    )


def counts(cached):
    stats = cached.cache.stats
    return cached.calls, stats.hits, stats.misses


# --- one


def test_features_are_what_the_encoder_gives(cached, images):
    plain = build().eval()
    for _ in range(2):
        for image, regions in zip(images, REGIONS, strict=True):
            found = cached.one(image, regions)
            expected = plain.encode([image], [regions])
            assert same(
                found,
                {
                    "boxes": expected.boxes[0],
                    "visual_mask": expected.mask[0],
                    "visual_features": expected.features[0].detach(),
                },
            )
            assert not found["visual_features"].requires_grad
    assert counts(cached) == (4, 4, 4)


def test_no_image_has_no_slot(cached):
    found = cached.one(None, [LEFT])
    assert {name: list(tensor.shape) for name, tensor in found.items()} == {
        "boxes": [0, 4],
        "visual_mask": [0],
        "visual_features": [0, 128],
    }
    assert found["visual_mask"].dtype == torch.bool
    assert counts(cached) == (0, 0, 0)


def test_the_dtype_is_the_encoders(cache, images):
    cached = CachedEncoder(build().to(torch.bfloat16), cache)
    for found in (cached.one(images[0], [LEFT]), cached.one(images[0], [LEFT]), cached.one(None)):
        assert found["visual_features"].dtype == torch.bfloat16
        assert found["boxes"].dtype == torch.float32
    assert counts(cached) == (1, 1, 1)


def test_regions_beyond_the_most_hit_the_same_entry(cache, images):
    cached = CachedEncoder(build(max_regions=2), cache)
    whole = cached.one(images[0], [LEFT, RIGHT])
    assert same(cached.one(images[0], [LEFT, RIGHT, CORNER]), whole)
    assert same(CachedEncoder(build(), cache).one(images[0], [LEFT, RIGHT]), whole)
    assert cached.calls == 1
    assert (cache.stats.hits, cache.size()[0]) == (2, 1)


@pytest.mark.parametrize(
    "other",
    [
        lambda cached, image: cached.one(image, [RIGHT, LEFT]),
        lambda cached, image: cached.one(image, [LEFT]),
        lambda cached, image: cached.one(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), [LEFT, RIGHT]),
        lambda cached, image: CachedEncoder(build(seed=1), cached.cache).one(image, [LEFT, RIGHT]),
        lambda cached, image: CachedEncoder(build(crop_size=5), cached.cache).one(image, [LEFT, RIGHT]),
    ],
    ids=["order of regions", "regions", "pixels", "weights", "options"],
)
def test_another_has_an_entry_of_its_own(cached, images, other):
    found = cached.one(images[0], [LEFT, RIGHT])
    assert not same(other(cached, images[0]), found)
    assert cached.cache.stats.hits == 0
    assert cached.cache.size()[0] == 2


def test_mode_and_graph_are_left_as_they_were(cached, images):
    dropout = torch.nn.Dropout(0.5)
    cached.encoder.layers.append(dropout)
    cached.encoder.train()
    dropout.eval()
    expected = build().encode([images[0]]).features[0]
    assert torch.equal(cached.one(images[0])["visual_features"], expected)
    assert cached.encoder.training
    assert cached.encoder.layers.training
    assert not dropout.training
    dropout.train()
    assert torch.equal(cached.one(images[1])["visual_features"], build().encode([images[1]]).features[0])
    assert dropout.training
    assert torch.is_grad_enabled()


def test_trainable_encoders_are_refused(cache):
    with pytest.raises(UmieError, match="TinyEncoder is trainable, .* build it with trainable=False"):
        CachedEncoder(build(trainable=True), cache)


def test_encoders_that_look_up_are_refused(cache):
    encoder = build()
    encoder.reads_features = True
    with pytest.raises(UmieError, match="reads features from files"):
        CachedEncoder(encoder, cache)


@pytest.mark.parametrize(
    ("content", "regions", "message"),
    [
        (b"", [], "bad.jpg: not a readable image"),
        (b"no image\n", [], "bad.jpg: not a readable image"),
        (None, [(0.5, 0.0, 0.4, 1.0)], "not inside the image"),
        (None, [(0.0, 0.0, float("nan"), 1.0)], "box"),
    ],
    ids=["empty", "text", "inverted box", "NaN"],
)
def test_nothing_is_cached_for_what_cannot_be_encoded(cached, tmp_path, images, content, regions, message):
    path = tmp_path / "bad.jpg"
    if content is None:
        images[0].save(path)
    else:
        path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(UmieError, match=message):
            cached.one(path, regions)
    assert cached.calls == cached.cache.size()[0] == cached.cache.stats.written_bytes == 0


def test_an_image_that_is_replaced_while_it_is_encoded(cached, tmp_path, images, monkeypatch):
    """The pixels come from the bytes that were hashed, so no key can get the features of another image."""
    path = tmp_path / "image.png"
    images[0].save(path)
    key = feature_key(cached.fingerprint, image_digest(path.read_bytes()), [(0.0, 0.0, 1.0, 1.0)])
    monkeypatch.setattr(cached.cache, "get", lambda key: images[1].save(path))  # after hashing, before encoding
    found = cached.one(path)["visual_features"]
    assert torch.equal(found, build().encode([images[0]]).features[0])
    assert key in cached.cache


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "nowhere.png", "nowhere.png: no such image"),
        (lambda folder: folder, "not a readable image"),
        (lambda folder: "nul\0.png", "not a readable image .*null"),
        (lambda folder: 5, "expected a PIL image or a path, not int"),
        (lambda folder: Image.new("RGB", (0, 3)), "not a readable image"),
    ],
    ids=["absent", "folder", "NUL", "number", "no pixels"],
)
def test_what_has_no_digest(tmp_path, cached, make, message):
    for call in (image_digest, cached.one):
        with pytest.raises(UmieError, match=message):
            call(make(tmp_path))
    assert cached.cache.size()[0] == 0


# --- fill


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_filling_encodes_each_image_with_its_regions_once(cached, images, batch_size):
    items = [(image, regions) for image in images for regions in REGIONS]
    done = []
    cached.fill(iter(items), batch_size=batch_size, on_item=done.append)
    assert counts(cached) == (12, 4, 12)  # two of the region lists are the same but for a label
    assert sorted(done) == list(range(len(items)))
    plain = build()
    for image, regions in items:
        expected = plain.encode([image], [regions])
        found = cached.one(image, regions)
        assert torch.equal(found["boxes"], expected.boxes[0])
        torch.testing.assert_close(found["visual_features"], expected.features[0], atol=1e-5, rtol=0)
    assert cached.calls == 12


def test_a_batch_is_bit_for_bit_the_encoders(cached, images):
    cached.fill(zip(images[:3], REGIONS, strict=False), batch_size=3)
    expected = build().encode(images[:3], REGIONS[:3])
    for row, (image, regions) in enumerate(zip(images[:3], REGIONS, strict=False)):
        found = cached.one(image, regions)
        num_slots = 1 + len(regions)
        assert torch.equal(found["visual_features"], expected.features[row, :num_slots])
        assert torch.equal(found["boxes"], expected.boxes[row, :num_slots])
        assert found["visual_mask"].tolist() == [True] * num_slots
    assert counts(cached) == (3, 3, 3)


def test_filling_again_encodes_nothing(cached, images):
    items = list(zip(images, REGIONS, strict=True))
    cached.fill(items[:2])
    cached.fill(items)
    cached.fill(items)
    assert counts(cached) == (4, 2 + 4, 2 + 2)


def test_an_interrupted_filling_keeps_what_was_encoded(cached, images):
    def interrupted():
        yield from zip(images[:3], REGIONS, strict=False)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached.fill(interrupted(), batch_size=2)
    assert cached.cache.size()[0] == 2
    assert not list(cached.cache.folder.glob("??/.*"))


def test_bad_items_are_told_by_number(cached, tmp_path, images):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    items = [(images[0], []), (bad, []), (None, []), (images[1], [(0, 0, 2, 1)]), (bad, []), (images[1], [])]
    for batch_size in (1, 2, 8):
        errors, done = {}, []
        cached.fill(items, batch_size=batch_size, on_item=done.append, on_error=errors.__setitem__)
        assert sorted(errors) == [1, 3, 4]
        assert "bad.jpg: not a readable image" in str(errors[1])
        assert "not inside the image" in str(errors[3])
        assert sorted(done) == list(range(len(items)))
    assert (cached.calls, cached.cache.size()[0]) == (2, 2)
    with pytest.raises(UmieError, match="bad.jpg"):
        cached.fill(items[:2])
    with pytest.raises(UmieError, match="batch_size is 0"):
        cached.fill(items, batch_size=0)


def test_a_filling_that_cannot_store_encodes_one_batch_and_checks_the_rest(cached, tmp_path, images, monkeypatch):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    errors, done = {}, []
    monkeypatch.setattr(cached.cache, "put", lambda key, tensors: False)
    cached.fill(
        [*zip(images, REGIONS, strict=True), (bad, [])], batch_size=2, on_item=done.append, on_error=errors.__setitem__
    )
    assert cached.calls == 2
    assert list(errors) == [4]
    assert sorted(done) == [0, 1, 2, 3, 4]
    assert torch.equal(cached.one(images[3])["visual_features"], build().encode(images[3:]).features[0])


def test_resnet_through_the_cache(cache, noise):
    """A real tower: the cached features are the batch's, bit for bit, in its dtype; options that do not matter hit."""
    options = {"mode": "align", "short_side": 64, "precision": "bfloat16"}
    cached = CachedEncoder(build("resnet101_roi", **options), cache)
    images = [noise(120, 80), noise(50, 90, 1)]
    cached.fill(zip(images, REGIONS, strict=False), batch_size=2)
    with torch.no_grad():
        expected = cached.encoder.encode(images, REGIONS[:2]).features
    assert expected.dtype == torch.bfloat16
    again = CachedEncoder(build("resnet101_roi", **options, channels_last=False, max_regions=5), cache)
    for row, (image, regions) in enumerate(zip(images, REGIONS, strict=False)):
        found = again.one(image, regions)["visual_features"]
        assert torch.equal(found, expected[row, : 1 + len(regions)])
    assert (again.calls, cache.stats.hits) == (0, 2)


def test_damaged_images_leave_nothing_wrong_behind(cached, tmp_path, noise):
    """Bytes flipped anywhere in a JPEG: what still decodes is cached as it decodes, the rest not at all."""
    plain, draw = build(), random.Random(0)
    path = tmp_path / "image.jpg"
    noise(90, 70).save(path, quality=90)
    whole = path.read_bytes()
    num_decoded = 0
    for _ in range(120):
        spoilt = bytearray(whole)
        for _ in range(draw.choice((1, 3, 30))):
            spoilt[draw.randrange(len(spoilt))] = draw.randrange(256)
        path.write_bytes(spoilt[: draw.choice((len(spoilt), len(spoilt), draw.randrange(len(spoilt))))])
        try:
            expected = plain.encode([path], [[LEFT]]).features[0]
        except UmieError:
            with pytest.raises(UmieError, match="image.jpg"):
                cached.one(path, [LEFT])
        else:
            num_decoded += 1
            assert torch.equal(cached.one(path, [LEFT])["visual_features"], expected)
            assert torch.equal(cached.one(path, [LEFT])["visual_features"], expected)
    assert 0 < num_decoded < 120
    assert cached.cache.size()[0] == cached.calls <= num_decoded


def test_real_images_are_encoded_once(cached):
    """Real files, two of which are PNGs called .jpg: the second reading comes from the cache, the same bit for bit."""
    if not DATA.exists():
        pytest.skip("needs ../shared/data, real images")
    files = sorted(path for path in DATA.rglob("*") if path.suffix in (".jpg", ".png"))[:30]
    assert files
    first = [cached.one(path, [LEFT]) for path in files]
    num_different = len({path.read_bytes() for path in files})
    assert cached.calls == num_different
    assert all(same(cached.one(path, [LEFT]), found) for path, found in zip(files, first, strict=True))
    assert cached.calls == num_different


def test_autocast_does_not_show_in_what_is_stored(noise, tmp_path):
    """Outside of it the same key is asked for."""
    encoder = registry.build("tiny", trainable=False)
    cache = FeatureCache(tmp_path)
    cached = CachedEncoder(encoder, cache)
    with torch.autocast("cpu", torch.bfloat16):
        found = cached.one(noise(20, 20))["visual_features"]
    assert torch.equal(found, encoder.encode([noise(20, 20)]).features[0])


@pytest.mark.parametrize("change", ["written", "loaded", "cast", "assigned"])
def test_weights_that_change_are_an_error_and_spoil_nothing(noise, tmp_path, change):
    encoder, other = (registry.build("tiny", trainable=False) for _ in range(2))
    cache = FeatureCache(tmp_path)
    cached = CachedEncoder(encoder, cache)
    cached.one(noise(20, 20))
    if change == "written":
        with torch.no_grad():
            next(encoder.parameters()).add_(1)
    elif change == "cast":
        encoder.to(torch.bfloat16)
    else:
        encoder.load_state_dict(other.state_dict(), assign=change == "assigned")
    with pytest.raises(UmieError, match="the weights of TinyEncoder have changed .* make a new CachedEncoder"):
        cached.one(noise(20, 20, 1))
    assert cache.size()[0] == 1
    CachedEncoder(encoder, cache).one(noise(20, 20, 1))


def test_an_encoder_of_inference_mode_can_be_cached(noise, tmp_path):
    with torch.inference_mode():
        encoder = registry.build("tiny", trainable=False)
    cache = FeatureCache(tmp_path)
    assert CachedEncoder(encoder, cache).one(noise(20, 20))["visual_features"].shape == (1, 128)


def test_weights_that_only_move_are_the_same(noise, tmp_path):
    encoder = registry.build("tiny", trainable=False)
    cache = FeatureCache(tmp_path)
    cached = CachedEncoder(encoder, cache)
    for parameter in encoder.parameters():
        parameter.data = parameter.data.clone()
    cached.one(noise(20, 20))
    assert cached.calls == 1


def test_own_code_is_in_the_fingerprint_of_a_plugin(tmp_path, monkeypatch):
    """An encoder of one's own that was edited must not read what it made before."""
    fingerprints = []
    for number, factor in enumerate((1, 2, 2)):
        path = tmp_path / str(number) / "plugin.py"
        path.parent.mkdir()
        path.write_text(
            "from umie.encoders.tiny import TinyEncoder\n"
            "class Mine(TinyEncoder):\n"
            "    def features(self, inputs):\n"
            f"        return super().features(inputs) * {factor}\n"
        )
        spec = importlib.util.spec_from_file_location("plugin", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "plugin", module)
        spec.loader.exec_module(module)
        torch.manual_seed(0)
        fingerprints.append(module.Mine(module.Mine.Config(trainable=False)).fingerprint())
    assert fingerprints[0] != fingerprints[1] == fingerprints[2]


def test_an_entry_that_is_damaged_after_a_hit_is_encoded_again(tmp_path, noise):
    """A hit is known by the file's time and size, without its bytes; they are read again if the entry is lost."""
    noise(20, 16).save(tmp_path / "photo.png")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = registry.build("tiny", trainable=False)
    cached = CachedEncoder(encoder, FeatureCache(tmp_path / "cache"))
    path = tmp_path / "photo.png"
    first = cached.one(path)
    (entry,) = cached.cache.folder.glob("??/*.safetensors")
    entry.write_bytes(entry.read_bytes()[:-4] + b"\0\0\0\1")
    again = cached.one(path)
    assert all(torch.equal(again[name], value) for name, value in first.items())
    noise(20, 16, seed=1).save(path)
    assert not torch.equal(cached.one(path)[FEATURES], first[FEATURES])
