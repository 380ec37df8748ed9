"""What the encoder benchmarks time: one image of 640 x 480 pixels with 36 regions, read from a JPEG file.

Every row checks its values against a plain reference before it may be timed. ``python rows.py NAME THREADS`` runs one
row in a process of its own and prints the peak of its memory in MiB.
"""

from __future__ import annotations

import atexit
import functools
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torchvision.ops import roi_align

from umie.encoders import CachedEncoder, FeatureCache, registry
from umie.encoders.base import VisualEncoder
from umie.encoders.roi import pool_boxes
from umie.types import FEATURES

WIDTH, HEIGHT, NUM_REGIONS = 640, 480, 36
SLOTS = NUM_REGIONS + 1
DTYPES = {"float32": None, "bfloat16": "bfloat16"}
CLIPS = ("RN50", "ViT-B-32")
Build: TypeAlias = Callable[..., VisualEncoder]


@dataclass(frozen=True)
class Row:
    """One operation.

    Args:
        run: does it once for one image.
        check: raises AssertionError if what ``run`` gives is not right.
        num_pixels: tells how many pixels go into the network for the image; None where there is no network.
    """

    run: Callable[[], object]
    check: Callable[[], None]
    num_pixels: Callable[[], int] | None = None


@functools.cache
def folder() -> Path:
    """Return a folder that lasts as long as the process."""
    path = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return Path(path)


@functools.cache
def image() -> Path:
    """Return the image's file: coarse noise, which a JPEG decoder takes as long for as for a photograph."""
    coarse = torch.randint(0, 256, (60, 80, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    noise = Image.frombytes("RGB", (80, 60), coarse.numpy().tobytes()).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    noise.save(folder() / "image.jpg", quality=90)
    return folder() / "image.jpg"


@functools.cache
def regions() -> list[tuple[float, ...]]:
    """Return the regions, from 5 to 60 % of a side."""
    draws = torch.rand(NUM_REGIONS, 4, generator=torch.Generator().manual_seed(1))
    sides = 0.05 + 0.55 * draws[:, 2:] ** 2
    starts = draws[:, :2] * (1 - sides)
    return [tuple(box) for box in torch.cat([starts, starts + sides], dim=1).tolist()]


@functools.cache
def tower(dtype: str) -> nn.Module:
    """Return the ResNet-101 that the encoders of one dtype share, with statistics under which every layer counts."""
    if dtype != "float32":
        copy = registry.build("resnet101_roi", precision=DTYPES[dtype])
        copy.load_tower(tower("float32").state_dict(), "float32")
        return copy.tower
    torch.manual_seed(0)
    found: nn.Module = registry.build("resnet101_roi").tower
    for name, module in found.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.constant_(module.weight, 0.2 if name.endswith("bn3") else 1.0)
    return found


@functools.cache
def resnet(dtype: str, mode: str, short_side: int = 320) -> VisualEncoder:
    """Return the ResNet-101 encoder."""
    encoder = registry.build("resnet101_roi", mode=mode, short_side=short_side, precision=DTYPES[dtype])
    encoder.tower = tower(dtype)
    return encoder.eval()


@functools.cache
def clip(model: str, mode: str) -> VisualEncoder:
    """Return the CLIP encoder, with random weights."""
    torch.manual_seed(0)
    return registry.build("clip", model=model, **({} if mode == "crop" else {"mode": mode})).eval()


@torch.inference_mode()
def encode(build: Build, *options: object) -> Tensor:
    """Return the features ``[V, Dv]`` of the image, from its file, by the encoder that ``build`` returns."""
    return build(*options).encode([image()], [regions()]).features[0]


@torch.inference_mode()
def all_at_once(build: Build, *options: object) -> Tensor:
    """Return the features of the crops from one pass over all of them, as a plain loop over images has it."""
    encoder = build(*options)
    crops = encoder.preprocess.one(image(), regions())["crops"]
    dtype = next(encoder.parameters()).dtype
    return encoder.tower(crops.to(dtype, memory_format=torch.channels_last)).mean((2, 3))


@torch.inference_mode()
def bare(build: Build, *options: object) -> Tensor:
    """Return the backbone's map of the prepared image: what nothing that runs the backbone can be faster than."""
    return build(*options).tower(prepared(build, *options))


@functools.cache
def prepared(build: Build, *options: object) -> Tensor:
    """Return the pixels that the tower takes for the image, in its dtype and memory format."""
    encoder = build(*options)
    tensors = encoder.preprocess.one(image(), regions())
    pixels = tensors["crops"] if "crops" in tensors else tensors["pixels"][None]
    return pixels.to(next(encoder.parameters()).dtype, memory_format=torch.channels_last)


def num_pixels(build: Build, *options: object) -> int:
    """Return how many pixels that are."""
    return prepared(build, *options).numel() // 3


def prepare(build: Build, *options: object) -> object:
    """Read the image's file, and cut and resize it for the encoder."""
    return build(*options).preprocess.one(image(), regions())


def near(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Raise AssertionError unless two tensors are equal to rounding."""
    difference = float((found.float() - expected.float()).abs().max())
    scale = float(expected.abs().max())
    assert difference <= tolerance * scale, f"differs from its reference by {difference / scale:.1e} of its scale"


def like(found: Tensor, expected: Tensor) -> None:
    """Raise AssertionError unless features of lower precision are those of float32."""
    nearness = float(cosine_similarity(found.float(), expected.float(), dim=-1).min())
    assert nearness > 0.99, f"its cosine with float32 is {nearness:.3f}"


@torch.inference_mode()
def check_crop(run: Callable[..., Tensor], dtype: str) -> None:
    """Check crops against the tower run in float32 on a crop at a time."""
    crops = resnet("float32", "crop").preprocess.one(image(), regions())["crops"]
    slots = [0, 1, SLOTS - 1]
    expected = torch.cat([tower("float32")(crops[slot : slot + 1]).mean((2, 3)) for slot in slots])
    (near if dtype == "float32" else like)(run(resnet, dtype, "crop")[slots], expected)


@torch.inference_mode()
def check_align(dtype: str, short_side: int) -> None:
    """Check one pass against the plain map's mean and against torchvision's RoIAlign with many samples."""
    exact = resnet("float32", "align", short_side)
    maps = tower("float32")(exact.preprocess.one(image(), regions())["pixels"][None])
    rois = torch.tensor(regions()) * torch.tensor([maps.shape[3], maps.shape[2]] * 2)
    dense = roi_align(maps, [rois], 7, sampling_ratio=8, aligned=True).mean((2, 3))
    found = encode(resnet, dtype, "align", short_side)
    if dtype == "float32":
        near(found[:1], maps.mean((2, 3)))
        near(found[1:], dense, 2e-3)
    else:
        like(found, torch.cat([maps.mean((2, 3)), dense]))


@torch.inference_mode()
def check_clip(model: str, mode: str) -> None:
    """Check that the slot of a square image is what the tower gives for the image as open_clip prepares it."""
    square = Image.open(image()).crop((0, 0, HEIGHT, HEIGHT))
    crop = clip(model, "crop")
    encoder = clip(model, mode)
    encoder.tower.load_state_dict(crop.tower.state_dict())
    near(encoder.encode([square]).features[0], crop.tower(crop.preprocess([square])["crops"][0]), 1e-4)


@functools.cache
def some_map() -> Tensor:
    """Return the backbone's map of the image."""
    return bare(resnet, "float32", "align", 320)


def pooled(pooling: str = "precise") -> Tensor:
    """Return the means of the map under the regions."""
    return pool_boxes(some_map(), torch.tensor([regions()]), pooling)[0]


def torchvisions_pooled() -> Tensor:
    """Return them from the cells of torchvision's RoIAlign."""
    rois = torch.tensor(regions()) * torch.tensor([some_map().shape[3], some_map().shape[2]] * 2)
    return roi_align(some_map(), [rois], 7, sampling_ratio=2, aligned=True).mean((2, 3))


def check_pooled() -> None:
    """Check the two against each other."""
    near(pooled("roi_align"), torchvisions_pooled())


@functools.cache
def cached() -> CachedEncoder:
    """Return the encoder behind a cache that holds the image."""
    kept = CachedEncoder(resnet("float32", "align", 320), FeatureCache(folder() / "cache"))
    kept.one(image(), regions())
    return kept


def look_up() -> Tensor:
    """Return the features from the cache; the key is made from the image's bytes and the regions."""
    return cached().one(image(), regions())[FEATURES]


def check_cached() -> None:
    """Check that the cache gives what the encoder gives."""
    near(look_up(), encode(resnet, "float32", "align", 320))


def clip_modes() -> list[str]:
    """Return the modes that CLIP has: every region as a crop, or pooled from one pass."""
    return ["crop", "pool"] if any(field.name == "mode" for field in fields(registry.get("clip").Config)) else ["crop"]


def rows() -> dict[str, Row]:
    """Return every row by its name; nothing is built before it is run."""
    found: dict[str, Row] = {}
    for dtype in DTYPES:
        crop = (resnet, dtype, "crop")
        for name, run in (("crop, all at once", all_at_once), ("crop", encode)):
            found[f"{name}, {dtype}"] = Row(
                partial(run, *crop), partial(check_crop, run, dtype), partial(num_pixels, *crop)
            )
        for short_side in (320, HEIGHT):
            align = (resnet, dtype, "align", short_side)
            check, pixels = partial(check_align, dtype, short_side), partial(num_pixels, *align)
            found[f"align {short_side}, {dtype}"] = Row(partial(encode, *align), check, pixels)
            found[f"bare pass {short_side}, {dtype}"] = Row(partial(bare, *align), check, pixels)
    found["cached"] = Row(look_up, check_cached)
    found["read and prepare, crop"] = Row(
        partial(prepare, resnet, "float32", "crop"), partial(check_crop, encode, "float32")
    )
    found["read and prepare, align 320"] = Row(
        partial(prepare, resnet, "float32", "align", 320), partial(check_align, "float32", 320)
    )
    found["pooling"] = Row(pooled, check_pooled)
    found["pooling by torchvision's RoIAlign"] = Row(torchvisions_pooled, check_pooled)
    for model in CLIPS:
        for mode in clip_modes():
            options = (clip, model, mode)
            found[f"clip {model}, {mode}"] = Row(
                partial(encode, *options), partial(check_clip, model, mode), partial(num_pixels, *options)
            )
    return found


def peak_mib() -> float:
    """Return the most memory that this program has held."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would tell the most of the process that started this one, if that is more
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    rows()[sys.argv[1]].run()
    print(peak_mib())  # noqa: T201 # what the caller reads
