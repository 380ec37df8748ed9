"""`file`: existing regions, from Pascal-VOC or JSON files, or from the records themselves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from umie.encoders.regions import registry
from umie.encoders.regions.base import AnnotationError, Candidates, Proposal, Proposer, ProposerConfig
from umie.encoders.regions.boxes import Unit, read_regions
from umie.encoders.regions.select import NO_AREA, NOT_FINITE, OUTSIDE
from umie.errors import UmieError, at, check_choice, check_text, shown
from umie.files import read_json
from umie.images import ImageSource, open_image
from umie.records.voc import BoxError, read_voc

Format = Literal["voc", "json"]

WITHOUT = "images without annotation"


@dataclass(frozen=True, kw_only=True)
class FileProposerConfig(ProposerConfig):
    """Options of regions from files.

    Args:
        path: a directory with one file per image, named like the image except for the suffix, or a JSON file for all
            images; None uses the records' own regions.
        format: of the files in a directory: "voc" (.xml) or "json".
        boxes: the unit of boxes in JSON files: "absolute" (pixels) or "relative" (0..1); it is never guessed.
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
        if self.boxes is None and (path.is_file() or self.format == "json"):
            raise UmieError("boxes is None: JSON files need 'absolute' (pixels) or 'relative' (0..1)")


@registry.register("file")
class FileProposer(Proposer):
    """Regions from annotation files, found by the name of the image; an image without annotation has no regions.

    A JSON file for all images is an object ``{"1.jpg": REGIONS, ...}`` with the images' file names, with or without
    suffix; a JSON file for one image is just REGIONS. REGIONS is a list of ``{"box": [x1, y1, x2, y2], "label": "cat",
    "score": 0.9}``, where label and score are optional (the score is then 1), or ``{"width": 640, "height": 480,
    "regions": [...]}``. Boxes in pixels need the image's size, from there or from the image as displayed.

    An image is opened only for its size. Invalid boxes are dropped and counted. So is a VOC box that extends beyond the
    image by more than two pixels; in JSON this is an error, because the boxes may be in another unit than declared. An
    annotation that cannot be read is an AnnotationError.
    """

    Config = FileProposerConfig

    def __init__(self, config: FileProposerConfig) -> None:
        super().__init__(config)
        self.config: FileProposerConfig = config

    def propose(self, images: Sequence[ImageSource], texts: Sequence[str | None] | None = None) -> list[list[Proposal]]:
        """Return the proposals of each image; see ``Proposer.propose``. Requires ``path``."""
        if self.config.path is None:
            raise UmieError("path is None, so only records can be filled: set path to propose regions for images")
        return super().propose(images, texts)

    def candidates(self, image: ImageSource, text: str | None, name: str | None) -> Candidates:
        """Return the boxes in the annotation of the image ``name``; see ``Proposer.candidates``."""
        del text
        if self.config.path is None:
            return Candidates()
        if name is None:
            raise UmieError("an image in memory has no name to find its annotation by: pass its path")
        size = _Size(image)
        try:
            found = self._found(Path(name), size)
        except UmieError as error:
            if size.failed:
                raise
            raise AnnotationError(str(error)) from error
        if found is None:
            self.counts[WITHOUT] += 1
            return Candidates()
        return found

    def _found(self, name: Path, size: _Size) -> Candidates | None:
        unit = self.config.boxes
        folder = Path(self.config.path or "")
        if self._table is not None:
            assert unit is not None  # checked by the configuration
            key = name.name if name.name in self._table else name.stem
            if key not in self._table:
                return None
            with at(f"{folder}: {shown(key)}"):
                return read_regions(self._table[key], unit, size)
        path = _inside(folder, f"{name.stem}.{'xml' if self.config.format == 'voc' else 'json'}")
        if self.config.format == "voc":
            bad: list[BoxError] = []
            regions = read_voc(path, bad.append)
            if regions is None:
                return None
            boxes = torch.tensor([region.box for region in regions], dtype=torch.float64).view(-1, 4)
            labels = [region.label for region in regions]
            return Candidates(boxes, torch.ones(len(regions)), labels, Counter(map(_reason, bad)))
        if not path.exists():
            return None
        assert unit is not None  # checked by the configuration
        content = read_json(path)
        with at(str(path)):
            return read_regions(content, unit, size)

    @cached_property
    def _table(self) -> dict[str, Any] | None:
        """The regions of all images by name, if ``path`` is a file."""
        path = Path(self.config.path or "")
        if not path.is_file():
            return None
        table = read_json(path)
        if not isinstance(table, dict):
            raise UmieError(f"{path}: is {shown(table)}: expected a JSON object, regions by the image's file name")
        return table


class _Size:
    """Returns width and height of an image when called, and remembers whether that failed."""

    def __init__(self, image: ImageSource) -> None:
        self.image = image
        self.failed = False

    def __call__(self) -> tuple[int, int]:
        self.failed = True
        size = open_image(self.image).size
        self.failed = False
        return size


def _reason(error: BoxError) -> str:
    """Return the reason for leaving a box out, as ``select`` counts it."""
    if not all(map(math.isfinite, error.box)):
        return NOT_FINITE
    return OUTSIDE if error.leaves else NO_AREA


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a file in a directory; raise UmieError if a link leads outside."""
    try:
        path = (folder / name).resolve()
    except (ValueError, OSError, RuntimeError) as error:  # a NUL character, a loop of links
        raise UmieError(f"{folder}: {name!r} is not a file name: {error}") from error
    if not path.is_relative_to(folder.resolve()):
        raise UmieError(f"{folder / name}: is outside the directory {folder}; copy the file into it")
    return path
