"""`precomputed`: features that others have made, looked up in files by the name of the image."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou

from umie.encoders import registry
from umie.encoders.base import WHOLE_IMAGE, EncoderConfig, Preprocessor, VisualEncoder, no_slots
from umie.encoders.precomputed.files import BOXES, LAYOUTS, ROLES, WHOLE, ImageFeatures, image_features
from umie.encoders.precomputed.sources import FORMATS, FeatureSource, image_names, open_source
from umie.errors import UmieError, check_choice, check_keys, check_share, check_whole, shown
from umie.images import ImageSource
from umie.records import Box, Region


@dataclass(frozen=True, kw_only=True)
class PrecomputedEncoderConfig(EncoderConfig):
    """Options of the encoder that looks features up.

    Args:
        path: a folder of .npz, .h5 or .safetensors files, one for each image; or a .tsv, .h5 or .safetensors file
            that holds many images; or a folder of .tsv files.
        format: ``npz``, ``tsv``, ``h5`` or ``safetensors``; by the suffix if left out.
        boxes: what the boxes in the files are: ``absolute``, in pixels, or ``relative``, 0..1. It must be said.
        keys: what the files call things, where it is not what a known release does: from ``features``, ``boxes``,
            ``width``, ``height``, ``count``, ``whole`` and ``id`` to the name.
        columns: names of all columns of a .tsv file that has no line of names and is not laid out as LXMERT's.
        whole: what the slot of the whole image is: the ``mean`` of the features of the file's regions, its
            ``first`` row (which then is no region), or the ``file``'s own vector (``fc_features`` in UMIE's files,
            ``whole`` in .safetensors, else what ``keys`` calls it), without which a file is an error. None takes the
            file's own vector where it has one, and the mean where it has none.
        feature_dim: width of the features; read from the files if left out. Where it is given, a model can be built
            without them.
        min_overlap: least intersection over union of a record's region and the box whose features it takes.
    """

    FINGERPRINT_EXCLUDE: ClassVar[frozenset[str]] = EncoderConfig.FINGERPRINT_EXCLUDE | {"path", "feature_dim"}

    path: str = ""
    format: str | None = None
    boxes: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    columns: Sequence[str] | None = None
    whole: str | None = None
    feature_dim: int | None = None
    min_overlap: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.path, str | Path) or not str(self.path):
            raise UmieError(f"path is {self.path!r}: give the file or folder that holds the features")
        object.__setattr__(self, "path", str(self.path))
        if self.format is not None:
            check_choice("format", self.format, FORMATS)
        if self.boxes not in BOXES:
            raise UmieError(
                f"boxes is {self.boxes!r}: say what the files' boxes are, 'absolute' (x1, y1, x2, y2 in pixels) or "
                "'relative' (the same divided by the image's width and height, 0..1)"
            )
        if self.whole is not None:
            check_choice("whole", self.whole, WHOLE)
        if not isinstance(self.keys, Mapping) or not all(isinstance(name, str) for name in self.keys.values()):
            raise UmieError(f"keys is {shown(self.keys)}: give a mapping of {', '.join(ROLES)} to names")
        check_keys("role in keys:", self.keys, ROLES)
        object.__setattr__(self, "keys", dict(self.keys))
        if self.columns is not None:
            if isinstance(self.columns, str) or not all(isinstance(name, str) for name in self.columns):
                raise UmieError(f"columns is {shown(self.columns)}: give a list of names")
            object.__setattr__(self, "columns", tuple(self.columns))
        if self.feature_dim is not None:
            check_whole("feature_dim", self.feature_dim, 1)
        check_share("min_overlap", self.min_overlap)


class PrecomputedPreprocessor(Preprocessor):
    """Looks the features of an image up: ``features [V, Dv]``. No image is opened; it need not be there.

    Attributes:
        counts: of the images looked up so far, each once: their ``boxes``, and those left out for being
            ``outside`` the image (by more than two pixels), without area (``no_area``) or ``not_finite``.
    """

    def __init__(self, config: PrecomputedEncoderConfig) -> None:
        super().__init__(config)
        self.config: PrecomputedEncoderConfig = config
        self.counts: Counter[str] = Counter()
        self._counted: set[str] = set()
        self._source: FeatureSource | None = None
        self._feature_dim = config.feature_dim

    @property
    def source(self) -> FeatureSource:
        """Where the features lie; nothing is opened before it is asked for."""
        if self._source is None:
            options = self.config
            self._source = open_source(Path(options.path), options.format, options.columns, options.keys)
        return self._source

    def one(self, image: ImageSource | None, regions: Sequence[Region | Box] = ()) -> dict[str, Tensor]:
        """Return the tensors of one image: ``boxes [V, 4]``, ``visual_mask [V]`` and ``features [V, Dv]``.

        Args:
            image: a path, of which the last two parts count: features of ``train/1.jpg`` are looked for under
                this name, ``train/1``, ``1.jpg`` and ``1``, in this order; None gives no slot at all (V = 0).
            regions: relative boxes: each takes the features of the file's box that overlaps it most. Without any,
                the file's boxes are the regions, in their order, at most ``max_regions``.

        Raises:
            UmieError: the files do not have the image, what they have is damaged, or a region overlaps no box.
        """
        if image is None:
            return {**no_slots(), **self.no_tensors()}
        found = self.read(image)
        given = self.slots(regions)[1:]
        if given:
            rows, boxes = self._overlapping(found, given), torch.tensor(given)
        else:
            rows = list(range(min(len(found.boxes), self.config.max_regions)))
            boxes = torch.from_numpy(found.boxes)[rows]
        return {
            "boxes": torch.cat([torch.tensor([WHOLE_IMAGE]), boxes]),
            "visual_mask": torch.ones(1 + len(rows), dtype=torch.bool),
            "features": torch.cat([torch.from_numpy(found.whole)[None], torch.from_numpy(found.features)[rows]]),
        }

    def check(self, image: ImageSource, regions: Sequence[Region | Box] = ()) -> None:
        """Raise UmieError where ``one`` would."""
        self.one(image, regions)

    def read(self, image: ImageSource) -> ImageFeatures:
        """Return all that the files hold about an image.

        Raises:
            UmieError: the files do not have the image, or what they have is damaged.
        """
        if isinstance(image, Image.Image):
            raise UmieError("an image in memory has no name to look features up by: give its path")
        if not isinstance(image, str | Path):
            raise UmieError(f"an image is a path here, not {type(image).__name__}")
        names = image_names(image)
        options = self.config
        with self.source.entry(names) as entry:
            if entry is None:
                tried = " and ".join(filter(None, [", ".join(map(repr, names[:-1])), repr(names[-1])]))
                raise UmieError(
                    f"{image}: no such image in the features of {options.path}, which were searched for {tried}: "
                    "make its features, or take it out of the data"
                )
            layouts = LAYOUTS[self.source.format]
            found = image_features(entry, layouts, options.keys, options.boxes, options.whole)
        expected, width = self._feature_dim, len(found.whole)
        if expected is None:
            self._feature_dim = width
        elif width != expected:
            raise UmieError(f"{found.place}: features are {width} wide, and {expected} elsewhere: do not mix files")
        if found.place not in self._counted:
            self._counted.add(found.place)
            self.counts.update({"boxes": len(found.boxes) + sum(found.dropped.values()), **found.dropped})
        return found

    def read_feature_dim(self) -> int:
        """Return the width of the first image's features.

        Raises:
            UmieError: there is none, or it cannot be read.
        """
        name = next(self.source.some_names(), None)
        if name is None:
            raise UmieError(f"{self.config.path}: holds no image: give `feature_dim`, or the right `path`")
        return len(self.read(name).whole)

    def tensors(self, image: Image.Image, boxes: Sequence[Box]) -> dict[str, Tensor]:
        """Raise UmieError: nothing is made from pixels here."""
        raise UmieError("features that are looked up are not made from pixels: give the image's path")

    def no_tensors(self) -> dict[str, Tensor]:
        """Return no features, also of no width: the files are not opened to tell it, and padding widens it."""
        return {"features": torch.zeros(0, self._feature_dim or 0)}

    def _overlapping(self, found: ImageFeatures, regions: Sequence[Box]) -> list[int]:
        if not len(found.boxes):
            raise UmieError(f"{found.place}: no usable box, and the record has {len(regions)} regions")
        overlaps = box_iou(torch.tensor(regions, dtype=torch.float64), torch.from_numpy(found.boxes).double())
        most, rows = overlaps.max(1)
        for region, overlap, row in zip(regions, most.tolist(), rows.tolist(), strict=True):
            if overlap < self.config.min_overlap:
                raise UmieError(
                    f"{found.place}: region {_shown(region)} overlaps no box by {self.config.min_overlap:g}; the "
                    f"nearest, {_shown(found.boxes[row])}, does by {overlap:.2f}: make features of this region, lower "
                    "min_overlap, or leave the record's regions out"
                )
        return [int(row) for row in rows]


@registry.register("precomputed")
class PrecomputedEncoder(VisualEncoder):
    """Passes features through that files hold: VinVL and bottom-up attention, LXMERT, UMIE, or your own.

    Source: UMIE's released code reads CLIP features of the image (``fc_features``) and of its regions from files.

    An image is found by its folder's name and its own (``train/1.jpg``), each with and without the suffix, and where
    there is no such file, group or line, by its own name alone. So where images in several folders are called alike,
    their features must stand below folders or groups of these names: if not, all of one name take the same.

    There are no weights, so ``trainable`` changes nothing, and a cache of the features would only repeat the files.

    Layout of the project's own .safetensors: ``features [N, Dv]``, ``boxes [N, 4]``, ``image_w`` and ``image_h`` (one
    number each; not needed with relative boxes) and, if there is one, ``whole [Dv]``; in a file with many images
    each name stands behind ``<id>/``.
    """

    Config = PrecomputedEncoderConfig
    Preprocessor = PrecomputedPreprocessor
    reads_features = True

    preprocess: PrecomputedPreprocessor

    def __init__(self, config: PrecomputedEncoderConfig) -> None:
        if config.feature_dim is None:
            width = PrecomputedPreprocessor(config).read_feature_dim()
            config = dataclasses.replace(config, feature_dim=width)
        super().__init__(config)
        self.config: PrecomputedEncoderConfig = config
        # of no size: it follows the model's precision, which features take
        self.register_buffer("_like", torch.empty(0), persistent=False)

    @property
    def feature_dim(self) -> int:
        """Width Dv of the features."""
        assert self.config.feature_dim is not None
        return self.config.feature_dim

    def load_weights(self) -> None:
        """Look whether there are files: a new model shall not find out image by image that its path is wrong."""
        _ = self.preprocess.source

    def saved_options(self) -> dict[str, Any]:
        """Return the options that rebuild this encoder without its files: they tell the width."""
        return {"feature_dim": self.feature_dim}

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``features [B, V, Dv]`` in the model's precision."""
        features = inputs["features"]
        if features.shape[-1] != self.feature_dim:
            raise UmieError(
                f"features are {features.shape[-1]} wide and the model takes {self.feature_dim}: give it the files "
                "that it was trained with"
            )
        like = self._like
        assert isinstance(like, Tensor)
        return features.to(like.dtype)

    def fingerprint(self) -> str:
        """Return a hash of the options and of the files' names, sizes and times; nothing of them is read.

        Raises:
            UmieError: there are no files.
        """
        options = dataclasses.asdict(self.config)
        kept: dict[str, Any] = {
            name: value for name, value in options.items() if name not in self.config.FINGERPRINT_EXCLUDE
        }
        files = []
        root = Path(self.config.path)
        try:
            folder = root if root.is_dir() else root.parent
            for path in self.preprocess.source.files():
                status = path.stat()
                files.append([path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns])
        except OSError as error:
            raise UmieError(f"{self.config.path}: cannot read: {error.strerror}") from error
        content = json.dumps([type(self).__qualname__, kept, files], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]


def _shown(box: Any) -> str:
    return "[" + ", ".join(f"{edge:.3f}" for edge in box) + "]"
