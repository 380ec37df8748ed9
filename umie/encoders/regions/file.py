"""`file`: existing regions, from Pascal-VOC or JSON files, or from the records themselves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from PIL import Image

from umie.encoders.regions import base, registry
from umie.encoders.regions.base import AnnotationError, Candidates, Proposal, Proposer, ProposerConfig
from umie.encoders.regions.coco import coco_regions, id_in_name
from umie.errors import UmieError, at, check_choice, check_keys, check_text, shown
from umie.files import inside, read_json
from umie.images import ImageSource, open_image
from umie.records.voc import BoxError, Frame, frame_of, read_voc, turned

Format = Literal["voc", "json"]
Unit = Literal["absolute", "relative", "xywh", "relative_xywh"]

WITHOUT = "images without annotation"
SLACK = {"absolute": 2.0, "relative": 0.01}  # by which rounding may put an edge outside the image
_NO_UNIT = "boxes is None: JSON files need 'absolute' (pixels), 'relative' (0..1), 'xywh' or 'relative_xywh'"


@dataclass(frozen=True, kw_only=True)
class FileProposerConfig(ProposerConfig):
    """Options of regions from files.

    Args:
        path: a directory with one file per image, named like the image except for the suffix, or a JSON file for all
            images, COCO's among them; None uses the records' own regions.
        format: of the files in a directory: "voc" (.xml) or "json".
        boxes: the form of boxes in JSON files: x1, y1, x2, y2, "absolute" (pixels) or "relative" (0..1), or x, y, width
            and height, "xywh" (pixels) or "relative_xywh"; it is never guessed. COCO's files need none.
        nms: see ProposerConfig; by default no annotated region is suppressed.
    """

    path: str | None = None
    format: Format = "voc"
    boxes: Unit | None = None
    nms: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text("path", self.path)
        check_choice("format", self.format, get_args(Format))
        if self.boxes is not None:
            check_choice("boxes", self.boxes, get_args(Unit))
        if self.path is None:
            return
        path = Path(self.path)
        if not path.is_dir() and not (path.is_file() and path.suffix == ".json"):
            raise UmieError(f"path is {self.path!r}: use an existing directory of annotations, or a .json file")
        if self.boxes is None and path.is_dir() and self.format == "json":
            raise UmieError(_NO_UNIT)


@registry.register("file")
class FileProposer(Proposer):
    """Regions from annotation files, found by the name of the image; an image without annotation has no regions.

    A JSON file for all images is an object ``{"1.jpg": REGIONS, ...}`` with the images' file names, with or without
    suffix; a JSON file for one image is just REGIONS. REGIONS is a list of ``{"box": [x1, y1, x2, y2], "label": "cat",
    "score": 0.9}``, where label and score are optional (the score is then 1), or ``{"width": 640, "height": 480,
    "regions": [...]}``. Boxes in pixels need the image's size, from there or from the image as displayed. COCO's
    annotation files and detection results are read as they are; the latter only for images whose name is their id.

    An image is opened only for its size. If that is declared, it tells whether boxes are of the image as stored or as
    displayed; see ``umie.records.voc.frame_of``. Invalid boxes are dropped and counted. So is a VOC box that extends
    beyond the image by more than two pixels; in JSON this is an error, because the boxes may be in another unit than
    declared. An annotation that cannot be read is an AnnotationError; a file for all images is read at once.
    """

    Config = FileProposerConfig
    config: FileProposerConfig

    def __init__(self, config: FileProposerConfig) -> None:
        super().__init__(config)
        self._num_annotated = 0
        self._unit = config.boxes
        self._table = None
        if config.path is not None and Path(config.path).is_file():
            self._table, self._unit = _read_table(Path(config.path), config.boxes)

    def check(self) -> None:
        """Raise UmieError if there were images, and none of them has an annotation."""
        if self.counts[WITHOUT] and not self._num_annotated:
            raise UmieError(
                f"{self.config.path}: has no annotation of any of the {self.counts[WITHOUT]:,} images: it must name "
                "the images of these records"
            )

    def propose(self, images: Sequence[ImageSource], texts: Sequence[str | None] | None = None) -> list[list[Proposal]]:
        """Return the proposals of each image; see ``Proposer.propose``. Requires ``path``."""
        if self.config.path is None:
            raise UmieError("path is None, so only records can be filled: set path to propose regions for images")
        return super().propose(images, texts)

    def candidates(self, image: ImageSource, text: str | None, name: str | None) -> Candidates:
        """Return the boxes in the annotation of the image ``name``; see ``Proposer.candidates``."""
        if self.config.path is None:
            return Candidates()
        if name is None:
            raise UmieError("an image in memory has no name to find its annotation by: pass its path")
        is_image_unreadable = False

        def size() -> tuple[int, int]:
            nonlocal is_image_unreadable
            is_image_unreadable = True
            found = open_image(image).size
            is_image_unreadable = False
            return found

        try:
            found = self._found(Path(name), size, _path_of(image))
        except UmieError as error:
            self._num_annotated += 1
            if is_image_unreadable:
                raise
            raise AnnotationError(str(error)) from error
        if found is None:
            self.counts[WITHOUT] += 1
        self._num_annotated += found is not None
        return found or Candidates()

    def _found(self, name: Path, size: Callable[[], tuple[int, int]], image: Path | None) -> Candidates | None:
        folder = Path(self.config.path or "")
        if self._table is not None:
            keys = [key for key in (name.name, name.stem, id_in_name(name.stem)) if key in self._table]
            if not keys:
                return None
            with at(f"{folder}: {shown(keys[0])}"):
                return _read_regions(self._table[keys[0]], self._unit, size, image)
        path = inside(folder, f"{name.stem}.{'xml' if self.config.format == 'voc' else 'json'}")
        if self.config.format == "voc":
            bad: list[BoxError] = []
            regions = read_voc(path, bad.append, image=image)
            if regions is None:
                return None
            boxes = torch.tensor([region.box for region in regions], dtype=torch.float64).view(-1, 4)
            labels = [region.label for region in regions]
            return Candidates(boxes, torch.ones(len(regions)), labels, Counter(map(_reason, bad)))
        if not path.exists():
            return None
        content = read_json(path, allow_nan=True)
        with at(str(path)):
            return _read_regions(content, self._unit, size, image)


def _read_table(path: Path, unit: Unit | None) -> tuple[dict[str, Any], Unit]:
    """Return the regions of all images by name, and the unit of their boxes."""
    content = read_json(path, allow_nan=True)
    with at(str(path)):
        table = coco_regions(content)
        if table is not None:
            if unit not in (None, "xywh"):
                raise UmieError(f"boxes is {unit!r}, but COCO's are x, y, width and height in pixels: omit the option")
            return table, "xywh"
        if not isinstance(content, dict):
            raise UmieError(f"is {shown(content)}: expected a JSON object, regions by the image's file name")
        if unit is None:
            raise UmieError(_NO_UNIT)
    return content, unit


def _path_of(image: ImageSource) -> Path | None:
    path = getattr(image, "filename", None) if isinstance(image, Image.Image) else image
    return Path(path) if path and not isinstance(path, bytes) else None


def _reason(error: BoxError) -> str:
    if not all(map(math.isfinite, error.box)):
        return base.NOT_FINITE
    return base.OUTSIDE if error.leaves else base.NO_AREA


def _read_regions(
    value: object, form: Unit | None, size: Callable[[], tuple[int, int]], image: Path | None
) -> Candidates:
    """Return the boxes of one image from JSON; ``size`` is called if they need the image's size and do not have it."""
    declared: Frame | None = None
    unit: Unit = "relative" if form in ("relative", "relative_xywh") else "absolute"
    if isinstance(value, Mapping):
        check_keys("image key", value, ("width", "height", "regions"))
        if "width" in value or "height" in value:
            declared = frame_of((_side(value, "width"), _side(value, "height")), image)
        value = value.get("regions")
    if not isinstance(value, list):
        raise UmieError(f"regions is {shown(value)}: expected a list of regions, each with a box")
    if not value:
        return Candidates()
    limits: tuple[float, float] = (1.0, 1.0)
    if unit == "absolute":
        limits = size() if declared is None else (declared.width, declared.height)
    boxes, scores, labels = [], [], []
    for number, region in enumerate(value, start=1):
        with at(f"region {number}"):
            if not isinstance(region, Mapping):
                raise UmieError(f"region is {shown(region)}: expected a JSON object")
            check_keys("region key", region, ("box", "label", "score"))
            boxes.append(_edges(region.get("box"), limits, unit, is_xywh=form in ("xywh", "relative_xywh")))
            scores.append(1.0 if region.get("score") is None else _number(region["score"], "score"))
            label = region.get("label")
            if not isinstance(label, str | None):
                raise UmieError(f"label is {shown(label)}: use a string")
            labels.append(label)
    if unit == "absolute" and all(edge <= 1 for box in boxes for edge in box):
        raise UmieError("no edge is beyond 1 pixel: if the boxes are relative, set boxes='relative'")
    scale = torch.tensor([*limits, *limits], dtype=torch.float64)
    relative = torch.tensor(boxes, dtype=torch.float64) / scale
    if declared is not None and declared.orientation != 1:
        turns = [turned((x1, y1, x2, y2), declared.orientation) for x1, y1, x2, y2 in relative.tolist()]
        relative = torch.tensor(turns, dtype=torch.float64)
    return Candidates(relative, torch.tensor(scores, dtype=torch.float64), labels)


def _edges(box: object, limits: tuple[float, float], unit: Unit, *, is_xywh: bool) -> list[float]:
    if not isinstance(box, list) or len(box) != 4:
        raise UmieError(f"box is {shown(box)}: expected {'[x, y, width, height]' if is_xywh else '[x1, y1, x2, y2]'}")
    edges = [_number(edge, "box") for edge in box]
    if is_xywh:
        edges[2:] = edges[0] + edges[2], edges[1] + edges[3]
    slack = SLACK[unit]
    for edge, limit in zip(edges, limits * 2, strict=True):
        if math.isfinite(edge) and not -slack <= edge <= limit + slack:
            inside = f"{limits[0]:g} x {limits[1]:g} pixels" if unit == "absolute" else "0..1"
            raise UmieError(
                f"box {shown(box)} is outside the image ({inside}): fix the box, or the unit, which is set to {unit}"
            )
    return edges


def _side(data: Mapping[str, Any], key: str) -> float:
    side = _number(data.get(key), key)
    if not 0 < side < math.inf:
        raise UmieError(f"{key} is {side}: use the image's size in pixels")
    return side


def _number(value: object, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UmieError(f"{name} is {shown(value)}: expected a number")
    try:
        return float(value)
    except OverflowError as error:
        raise UmieError(f"{name} is {shown(value)}: too large a number") from error
