"""Bad images all the way: each is refused with its reason or read as displayed, under every policy and encoder."""

import dataclasses
import random
import struct
from pathlib import Path

import pytest
import torch
from PIL import Image

from umie.encoders import CachedEncoder, FeatureCache, build_preprocessor, registry
from umie.errors import UmieError
from umie.evaluation import evaluate
from umie.evaluation.queries import QueryDataset
from umie.images import open_image
from umie.records import Entity, Record, Region
from umie.training import TrainingConfig, train

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
IMAGES = [path for folder in ("twitter_images", "mnre_images", "m2e2/images") for path in (DATA / folder).glob("*.jpg")]
LEFT = Region((0.0, 0.0, 0.5, 1.0))

REFUSED = {
    "zero bytes.jpg": "not a readable image",
    "truncated.jpg": "not a readable image .*truncated",
    "text.jpg": "not a readable image",
    "folder.jpg": "not a readable image",
    "absent.jpg": "no such image",
    "bomb.png": "refused",
    "../outside.png": "is outside the directory",
    "link.png": "is outside the directory",
}
READ = {  # what is seen of it: its size and the color of the left half
    "rgba named.jpg": ((8, 4), (255, 255, 255)),
    "cmyk.jpg": ((8, 4), None),
    "palette with transparency.png": ((8, 4), (255, 255, 255)),
    "grey of 16 bits.png": ((8, 4), (128, 128, 128)),
    "animated.gif": ((8, 4), (255, 0, 0)),
    "rotated by exif.png": ((8, 4), (255, 0, 0)),
    "1 x 1.png": ((1, 1), (255, 0, 0)),
    "1 x 4000.png": ((1, 4000), (255, 0, 0)),
    "4000 x 1.png": ((4000, 1), (255, 0, 0)),
}
ENCODERS = {
    "clip": {"model": "ViT-S-32-alt", "mode": "pool", "short_side": 64},
    "tiny": {},
    "resnet101_roi": {"mode": "align", "short_side": 32},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, noise):
    """The folder of all bad images, and one good one."""
    place = tmp_path_factory.mktemp("bad") / "images"
    place.mkdir()
    halves = Image.new("RGB", (8, 4), "red")
    halves.paste((0, 0, 255), (4, 0, 8, 4))
    halves.save(place / "good.png")
    (place / "zero bytes.jpg").touch()
    noise(90, 60).save(place / "truncated.jpg")
    (place / "truncated.jpg").write_bytes((place / "truncated.jpg").read_bytes()[:900])
    (place / "text.jpg").write_text("<html>404</html>")
    (place / "folder.jpg").mkdir()
    _bomb(place / "bomb.png")
    halves.save(place.parent / "outside.png")
    (place / "link.png").symlink_to(place.parent / "outside.png")
    Image.new("RGBA", (8, 4), (0, 0, 0, 0)).save(place / "rgba named.jpg", format="PNG")
    halves.convert("CMYK").save(place / "cmyk.jpg")
    Image.new("P", (8, 4), 0).save(place / "palette with transparency.png", transparency=0)
    Image.frombytes("I;16", (8, 4), struct.pack("<32H", *[128 * 257] * 32)).save(place / "grey of 16 bits.png")
    halves.save(place / "animated.gif", save_all=True, append_images=[Image.new("RGB", (8, 4), "lime")], duration=9)
    exif = Image.Exif()
    exif[0x0112] = 6
    halves.transpose(Image.Transpose.ROTATE_90).save(place / "rotated by exif.png", exif=exif)
    for size in ((1, 1), (1, 4000), (4000, 1)):
        Image.new("RGB", size, "red").save(place / f"{size[0]} x {size[1]}.png")
    return place


def _bomb(path):
    """A PNG of 40,000 x 40,000 black pixels in a few kilobytes, which would be 4.8 GB in memory."""
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(5001) * 40, 9)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def of(folder, name, **changes):
    record = Record("Ann is in Rome", image=name, regions=(LEFT,), entities=(Entity("person", (0, 3)),), id=name)
    return dataclasses.replace(record, image_folder=str(folder), **changes)


@pytest.mark.parametrize("name", READ)
def test_what_can_be_shown_is_read_as_displayed(folder, name):
    size, left = READ[name]
    opened = open_image(folder / name)
    assert (opened.mode, opened.size) == ("RGB", size)
    if left is not None:
        assert opened.getpixel((0, 0)) == left


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request):
    torch.manual_seed(0)
    return registry.build(request.param, **ENCODERS[request.param]).eval()


@pytest.mark.parametrize("name", READ)
def test_every_encoder_takes_it(folder, encoder, name):
    with torch.no_grad():
        found = encoder.encode([folder / name, folder / "good.png"], [[LEFT], [LEFT, (0.5, 0.0, 0.51, 0.01)]])
    assert found.features.isfinite().all()
    assert found.mask.tolist() == [[True, True, False], [True, True, True]]


def test_boxes_follow_the_displayed_orientation(folder, encoder):
    with torch.no_grad():
        turned, upright = encoder.encode(
            [folder / "rotated by exif.png", folder / "good.png"], [[LEFT], [LEFT]]
        ).features
    torch.testing.assert_close(turned, upright)


def test_a_very_long_image_is_seen_as_open_clip_sees_it_but_for_memory(noise):
    preprocess = build_preprocessor({"name": "clip", "model": "RN50"})
    for size in ((400, 20), (20, 401)):
        image = noise(*size)
        torch.testing.assert_close(preprocess.one(image)["crops"][0], preprocess.transform(image), atol=1e-4, rtol=0)


@pytest.mark.parametrize("box", [(float("nan"), 0, 1, 1), (0.5, 0, 0.4, 1), (0.5, 0, 0.5, 1), (0, 0, 1.01, 1)])
def test_a_bad_box_is_refused(folder, encoder, box):
    with pytest.raises(UmieError, match="box"):
        encoder.encode([folder / "good.png"], [[box]])


@pytest.mark.parametrize("name", REFUSED)
def test_the_policy_error_names_record_and_reason(variant, folder, name):
    _, processor = variant()
    with pytest.raises(UmieError, match=f"record '{name}': .*{REFUSED[name]}") as caught:
        processor([of(folder, name)], "mner")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_other_policies_train_and_evaluate_all_the_same(variant, folder):
    """Of one bad image of each kind, none ends a run; each is counted once, and none is seen as a black image."""
    records = [of(folder, name) for name in ["good.png", *READ, *REFUSED]]
    sizes = {}
    for policy in ("text_only", "skip"):
        model, processor = variant(missing_images=policy)
        dataset = QueryDataset(records, ["mner"], processor)
        train(model, processor, dataset, TrainingConfig(max_steps=2, batch_size=len(dataset)))
        sizes[policy] = len(dataset)
        assert set(processor.unreadable) == {str(folder / name) for name in REFUSED}
        assert processor.counts["missing_images"] == len(REFUSED)
        result = evaluate(model, processor, records, "mner")
        assert len(result.predictions) == result.scores["gold"] == len(dataset)
        assert processor.counts["missing_images"] == len(REFUSED)
    assert sizes == {"text_only": len(records), "skip": len(records) - len(REFUSED)}
    _, lenient = variant(missing_images="text_only")
    mask = lenient(records, "mner")["visual_mask"]
    assert mask.any(1).tolist() == [True] * (1 + len(READ)) + [False] * len(REFUSED)


def damaged(content, seed):
    """Return bytes of an image with some of them changed, cut out or cut off."""
    draw = random.Random(seed)
    spoilt = bytearray(content)
    for _ in range(draw.choice([1, 8, 64])):
        spoilt[draw.randrange(len(spoilt))] = draw.randrange(256)
    if draw.random() < 0.3:
        del spoilt[draw.randrange(len(spoilt)) :]
    if draw.random() < 0.2:
        start = draw.randrange(len(spoilt) or 1)
        del spoilt[start : start + draw.randrange(1, 500)]
    return bytes(spoilt)


@pytest.mark.slow
@pytest.mark.skipif(not IMAGES, reason="no real images next to this checkout (../shared/data)")
def test_200_damaged_real_images_end_no_run(variant, tmp_path):
    small = sorted(IMAGES, key=lambda path: path.stat().st_size)[:20]  # the others cost seconds to decode
    check_damaged(variant, tmp_path, [damaged(path.read_bytes(), seed) for seed, path in enumerate(small * 10)])


def test_damaged_drawn_images_end_no_run(variant, noise, tmp_path):
    contents = []
    for seed, suffix in enumerate(["jpg", "png", "gif", "bmp", "webp", "tiff"] * 10):
        path = tmp_path / f"drawn.{suffix}"
        noise(40, 30, seed).save(path)
        contents.append(damaged(path.read_bytes(), seed))
    check_damaged(variant, tmp_path, contents)


def check_damaged(variant, folder, contents):
    """Every image is either read, the same each time, or refused and counted; nothing else is raised."""
    _, processor = variant(missing_images="text_only")
    records = []
    for number, content in enumerate(contents):
        (folder / f"{number}.jpg").write_bytes(content)
        records.append(of(folder, f"{number}.jpg"))
    batch, again = processor(records, "mner"), processor(records, "mner")
    assert torch.equal(batch["crops"], again["crops"])
    seen = batch["visual_mask"].any(1)
    for number, is_seen in enumerate(seen.tolist()):
        assert is_seen == (str(folder / f"{number}.jpg") not in processor.unreadable)
    assert 0 < len(processor.unreadable) < len(contents)
    assert processor.counts["missing_images"] == len(processor.unreadable)
    assert all("\n" not in reason for reason in processor.unreadable.values())
    encoder = registry.build("tiny", trainable=False)
    refused = {}
    cache = FeatureCache(folder / "cache")
    cached = CachedEncoder(encoder, cache)
    paths = [folder / f"{number}.jpg" for number in range(len(contents))]
    cached.fill([(path, ()) for path in paths], on_error=lambda index, error: refused.update({index: error}))
    assert sorted(refused) == [number for number, is_seen in enumerate(seen.tolist()) if not is_seen]
    for number, path in enumerate(paths):
        if number not in refused:
            found = cached.one(path)["visual_features"]
            torch.testing.assert_close(found, encoder.encode([path]).features[0], atol=1e-5, rtol=1e-5)
    assert (
        cached.calls
        == cache.size()[0]
        == len({path.read_bytes() for path in paths}) - len({paths[number].read_bytes() for number in refused})
    )


@pytest.mark.parametrize("name", ["tiny", "resnet101_roi"])
def test_of_bad_images_nothing_is_cached_and_of_the_others_what_is_right(folder, name, noise, tmp_path):
    """Each image is either refused with its reason, or the cache has the features of what it shows."""
    encoder = registry.build(name, trainable=False, **ENCODERS[name]).eval()
    paths = [folder / file for file in [*READ, *REFUSED] if (folder / file).parent == folder and file != "link.png"]
    for seed in range(20):
        noise(40, 30, seed).save(tmp_path / "drawn.jpg")
        paths.append(tmp_path / f"{seed}.jpg")
        paths[-1].write_bytes(damaged((tmp_path / "drawn.jpg").read_bytes(), seed))
    refused = {}
    cache = FeatureCache(tmp_path / "cache")
    cached = CachedEncoder(encoder, cache)
    cached.fill([(path, [LEFT]) for path in paths], on_error=lambda index, error: refused.update({paths[index]: error}))
    assert cached.calls == cache.size()[0] == len(paths) - len(refused)
    for path in paths:
        if path in refused:
            with pytest.raises(UmieError):
                open_image(path)
            continue
        expected = encoder.encode([path], [[LEFT]]).features[0]
        scale = float(expected.abs().max())
        torch.testing.assert_close(cached.one(path, [LEFT])["visual_features"], expected, atol=1e-5 * scale, rtol=0)
    assert cached.calls == len(paths) - len(refused)
