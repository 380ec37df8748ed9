import copy
import pickle
from urllib.error import URLError

import pytest
import torch
from PIL import Image
from roi_samples import reference_model
from safetensors.torch import save_file
from torch import nn
from torchvision.models import ResNet101_Weights
from torchvision.ops import roi_align

from umie.encoders import registry
from umie.encoders.tower import cut
from umie.errors import UmieError, UnknownNameError

WHOLE, LEFT, CORNER = (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0), (0.6, 0.7, 1.0, 1.0)
MODES = ["crop", "align"]


@pytest.fixture(scope="module")
def reference():
    """torchvision's own model, its head included."""
    return reference_model(head=True)


@pytest.fixture(scope="module", params=[".safetensors", ".pth"])
def weight_file(request, reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / f"resnet101{request.param}"
    if request.param == ".pth":
        torch.save(reference.state_dict(), path)
    else:
        save_file(reference.state_dict(), path)
    yield str(path)
    path.unlink()


@pytest.fixture(scope="module")
def backbone(reference):
    without_head = copy.deepcopy(reference)
    without_head.fc = nn.Identity()
    return without_head


@pytest.fixture(scope="module")
def encoders(reference):
    state = {name: value for name, value in reference.state_dict().items() if not name.startswith("fc.")}
    built = {
        "crop": registry.build("resnet101_roi"),
        "align": registry.build("resnet101_roi", mode="align", short_side=96),
    }
    for encoder in built.values():
        encoder.load_tower(state, "reference")
    return built


def noise(width, height, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (6, 6, 3), generator=generator, dtype=torch.uint8)
    return Image.frombytes("RGB", (6, 6), coarse.numpy().tobytes()).resize((width, height))


@pytest.fixture(scope="module")
def images():
    return [noise(120, 80), noise(50, 90, 1), None]


@pytest.fixture
def small_crops(monkeypatch):
    """Crops of 64 pixels, where a test is not about their size: a pass then costs a twelfth."""
    monkeypatch.setattr("umie.encoders.resnet101_roi.ResNet101RoiPreprocessor.own_size", (64, 64))


REGIONS = [[LEFT, CORNER], [CORNER], []]


@pytest.mark.parametrize(
    ("box", "size"),
    [
        (WHOLE, (10, 6)),
        (LEFT, (5, 6)),
        ((0.1, 0.0, 0.3, 1.0), (2, 6)),
        ((0.5, 0.5, 0.501, 0.501), (1, 1)),
        ((0.999, 0.999, 1.0, 1.0), (1, 1)),
    ],
)
def test_cut(box, size):
    assert cut(Image.new("RGB", (10, 6)), box).size == size
    assert cut(Image.new("RGB", (1, 1)), box).size == (1, 1)


def test_crop_is_torchvisions_resnet_crop_by_crop(encoders, backbone, images):
    found = encoders["crop"].encode(images, REGIONS).features
    pixel_boxes = [
        [(0, 0, 120, 80), (0, 0, 60, 80), (72, 56, 120, 80)],
        [(0, 0, 50, 90), (30, 63, 50, 90)],
    ]
    mean, std = ResNet101_Weights.DEFAULT.transforms().mean, ResNet101_Weights.DEFAULT.transforms().std
    for row, boxes in enumerate(pixel_boxes):
        for slot, box in enumerate(boxes):
            crop = images[row].crop(box).resize((224, 224), Image.Resampling.BILINEAR)
            pixels = torch.tensor(list(crop.tobytes()), dtype=torch.float).view(224, 224, 3) / 255
            pixels = (pixels - torch.tensor(mean)) / torch.tensor(std)
            with torch.no_grad():
                expected = backbone(pixels.permute(2, 0, 1)[None])[0]
            assert expected.abs().mean() > 0.05
            torch.testing.assert_close(found[row, slot], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("small_crops")
@pytest.mark.parametrize("mode", MODES)
def test_order_boxes_and_mask(encoders, images, mode):
    found = encoders[mode].encode(images, REGIONS)
    assert found.features.shape == (3, 3, 2048)
    assert found.mask.tolist() == [[True] * 3, [True, True, False], [False] * 3]
    torch.testing.assert_close(found.boxes[0], torch.tensor([WHOLE, LEFT, CORNER]))
    torch.testing.assert_close(found.boxes[1, 1], torch.tensor(CORNER))
    assert not found.features[~found.mask].any()
    assert found.features[found.mask].abs().amax(1).min() > 0
    swapped = encoders[mode].encode(images[:1], [[CORNER, LEFT]]).features[0]
    torch.testing.assert_close(found.features[0], swapped[[0, 2, 1]], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(swapped[1], swapped[2], atol=1e-2)


@pytest.mark.usefixtures("small_crops")
@pytest.mark.parametrize("mode", MODES)
def test_batch_invariance(encoders, images, mode):
    batch, regions = [*images, noise(60, 40, 2), images[0]], [*REGIONS, [], [CORNER]]
    together = encoders[mode].encode(batch, regions).features
    for row, (image, boxes) in enumerate(zip(batch, regions, strict=True)):
        single = encoders[mode].encode([image], [boxes]).features[0]
        torch.testing.assert_close(together[row, : len(single)], single, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_no_image_at_all(encoders, mode):
    assert encoders[mode].encode([None, None]).features.shape == (2, 0, 2048)
    padded = encoders[mode].preprocess([noise(40, 40), None])
    nothing = {name: value[1:] for name, value in padded.items()}
    found = encoders[mode](**nothing)
    assert found.features.shape == (1, 1, 2048)
    assert not found.features.any()
    assert not found.mask.any()


@pytest.mark.parametrize("mode", MODES)
def test_regions_beyond_36_are_left_out(encoders, mode):
    inputs = encoders[mode].preprocess([noise(40, 40)], [[LEFT] * 40])
    assert inputs["boxes"].shape == (1, 37, 4)
    assert inputs["visual_mask"].sum() == 37


@pytest.mark.parametrize(
    ("size", "at_once"), [((224, 224), 8), ((320, 427), 2), ((480, 640), 1), ((320, 1280), 1), ((1, 1), 8 * 224 * 224)]
)
def test_images_in_one_pass(encoders, size, at_once):
    assert encoders["align"].num_at_once(*size) == at_once
    on_no_device = copy.copy(encoders["align"])
    on_no_device._modules = {"tower": CallModule(None).to("meta")}
    assert on_no_device.num_at_once(*size) == max(1, 64 * 224 * 224 // (size[0] * size[1]))


def test_crops_run_in_chunks(encoders, monkeypatch):
    monkeypatch.setattr("umie.encoders.tower.CPU_PIXELS", 2)
    sizes = []

    def tower(images):
        sizes.append(len(images))
        return images[:, :1, :1, :1]

    encoder = copy.copy(encoders["crop"])
    encoder._modules = {**encoder._modules, "tower": CallModule(tower)}
    crops, mask = torch.arange(8.0).view(2, 4, 1, 1, 1), torch.tensor([[1, 1, 1, 0], [0, 1, 0, 1]]).bool()
    found = encoder.run_real(crops, mask)
    assert sizes == [2, 2, 1]
    assert found.flatten().tolist() == [0, 1, 2, 0, 0, 5, 0, 7]


class CallModule(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images):
        return self.call(images)


@pytest.mark.parametrize(("width", "height"), [(70, 70), (90, 60), (31, 100)])
def test_align_of_the_whole_image_is_global_pooling(encoders, backbone, width, height):
    inputs = encoders["align"].preprocess([noise(width, height)], [[WHOLE, LEFT]])
    whole, region, left = encoders["align"](**inputs).features[0]
    with torch.no_grad():
        expected = backbone(inputs["pixels"])[0]
    torch.testing.assert_close(whole, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(region, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(left, expected, atol=1e-2)


@pytest.mark.parametrize("short_side", [96, 224])
def test_roi_align_is_torchvisions(encoders, reference, short_side):
    """Pooling by samples: the region around the whole image is then only near the image's mean."""
    config = type(encoders["align"].config)(mode="align", short_side=short_side, pooling="roi_align")
    encoder = copy.copy(encoders["align"])
    encoder.config, encoder.preprocess = config, encoder.Preprocessor(config)
    inputs = encoder.preprocess([noise(90, 60)], [[WHOLE, LEFT, CORNER]])
    found = encoder(**inputs).features[0]
    with torch.no_grad():
        maps = nn.Sequential(*list(reference.children())[:-2])(inputs["pixels"])
    rois = inputs["boxes"][0] * torch.tensor([maps.shape[3], maps.shape[2]] * 2)
    aligned = roi_align(maps, [rois], 7, sampling_ratio=2, aligned=True).mean((2, 3))
    torch.testing.assert_close(found, torch.cat([maps.mean((2, 3)), aligned[1:]]), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[1], found[0], atol=1e-3)


def test_align_reads_the_place_of_a_region(encoders, monkeypatch):
    height, width = 12, 20
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    boxes = torch.tensor([[WHOLE, (0.2, 0.3, 0.6, 0.5), (0.5, 0.25, 0.55, 0.75)]])
    monkeypatch.setattr(encoders["align"], "run", lambda maps: maps)
    found = encoders["align"].slots(torch.stack([x, y])[None], boxes)
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    torch.testing.assert_close(found, centres, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((200, 100), (64, 128)), ((100, 150), (96, 64)), ((1000, 10), (64, 256)), ((1, 1), (64, 64))],
)
def test_align_keeps_the_aspect_ratio_up_to_4(encoders, size, expected):
    config = type(encoders["align"].config)(mode="align", short_side=64)
    inputs = encoders["align"].Preprocessor(config)([Image.new("RGB", size)])
    assert tuple(inputs["pixels"].shape[2:]) == expected
    assert tuple(inputs["image_size"][0].tolist()) == expected


def norms(encoder):
    return [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]


def test_frozen(encoders):
    encoder = encoders["align"]
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    assert not any(module.training for module in encoder.tower.modules())  # before any call of train or eval
    encoder.train()
    assert encoder.training
    assert not any(module.training for module in encoder.tower.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder.encode([noise(30, 30)], [[LEFT]]).features.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_trainable():
    torch.manual_seed(0)
    encoder = registry.build("resnet101_roi", mode="align", short_side=32, trainable=True)
    nn.Sequential(encoder).train()
    assert encoder.tower.training
    assert len(norms(encoder)) == 104
    assert not any(norm.training for norm in norms(encoder))
    statistics = norms(encoder)[0].running_mean.clone()
    encoder.encode([noise(30, 30), None], [[LEFT], []]).features.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())
    assert encoder.tower.conv1.weight.grad.any()
    assert torch.equal(norms(encoder)[0].running_mean, statistics)
    encoder.zero_grad()
    with torch.no_grad():
        assert not encoder.encode([noise(30, 30)]).features.requires_grad


def test_weights_from_a_file(reference, weight_file):
    encoder = registry.build("resnet101_roi", weights=weight_file)
    expected = reference.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in encoder.tower.state_dict().items())


def test_weights_from_a_training_checkpoint(reference, encoders, tmp_path):
    state = {f"module.{name}": value for name, value in reference.state_dict().items() if "tracked" not in name}
    path = tmp_path / "checkpoint.pt"
    torch.save({"epoch": 3, "state_dict": state}, path)
    registry.build("resnet101_roi", weights=str(path))
    path.unlink()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such weight file"),
        (b"no weights", "cannot be read as weights"),
        ([1, 2], "not a state dict"),
        ({}, "not a state dict"),
        ({"a": 1}, "not a state dict"),
        (
            {"a": torch.zeros(2)},
            r"520 missing \(conv1.weight, bn1.weight, bn1.bias, ...\); 1 unknown to .* \(a\)",
        ),
        ({"conv1.weight": torch.zeros(2)}, r"1 of another shape \(conv1.weight \[2\] for \[64, 3, 7, 7\]\)"),
    ],
)
def test_weight_files_that_do_not_fit(encoders, tmp_path, content, message):
    path = tmp_path / "some.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    encoder = copy.copy(encoders["crop"])
    encoder.config = type(encoder.config)(weights=str(path))
    with pytest.raises(UmieError, match=message) as raised:
        encoder.load_weights()
    assert str(path) in str(raised.value)


def test_weight_file_of_another_kind(encoders, tmp_path):
    for name, message in [("some.npz", "use one of .safetensors"), ("some.safetensors", "cannot be read")]:
        (tmp_path / name).write_bytes(b"12345678910")
        encoder = copy.copy(encoders["crop"])
        encoder.config = type(encoder.config)(weights=str(tmp_path / name))
        with pytest.raises(UmieError, match=message):
            encoder.load_weights()


def test_published_weights(encoders, reference, monkeypatch):
    encoder = copy.deepcopy(encoders["crop"])
    encoder.config = type(encoder.config)(weights="IMAGENET1K_V2")
    nn.init.zeros_(encoder.tower.conv1.weight)
    urls = []

    def download(url, **options):
        urls.append(url)
        return reference.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    encoder.load_weights()
    assert urls == [ResNet101_Weights.IMAGENET1K_V2.url]
    assert torch.equal(encoder.tower.conv1.weight, reference.conv1.weight)

    def fail(url, **options):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(UmieError, match=r"IMAGENET1K_V2: cannot be downloaded .*no network.* the file's path"):
        encoder.load_weights()


def test_unknown_names(encoders):
    encoder = copy.copy(encoders["crop"])
    encoder.config = type(encoder.config)(weights="IMAGENET1K_V3")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'IMAGENET1K_V\d'\? Choices: DEFAULT, IMAGENET1K_V1"):
        encoder.load_weights()
    with pytest.raises(UnknownNameError, match=r"Unknown mode 'allign'. Did you mean 'align'"):
        registry.build("resnet101_roi", mode="allign")
    with pytest.raises(UmieError, match="short_side is 16: use a whole number of at least 32"):
        registry.build("resnet101_roi", short_side=16)
    with pytest.raises(UmieError, match="pooling is 'max': use one of precise, roi_align"):
        registry.build("resnet101_roi", pooling="max")


@pytest.mark.parametrize("mode", MODES)
def test_preprocessor_pickles(encoders, images, mode):
    preprocess = pickle.loads(pickle.dumps(encoders[mode].preprocess))  # noqa: S301 # what a data worker does
    for name, value in encoders[mode].preprocess(images, REGIONS).items():
        assert torch.equal(preprocess(images, REGIONS)[name], value)
