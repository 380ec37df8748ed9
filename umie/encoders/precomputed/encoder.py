"""`precomputed`: existing features, looked up in files by the name of the image."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou

from umie.encoders import registry
from umie.encoders.base import WHOLE_IMAGE, EncoderConfig, Preprocessor, VisualEncoder, no_slots
from umie.encoders.precomputed.files import BOXES, LAYOUTS, ROLES, SIZED, WHOLE, ImageFeatures, image_features
from umie.encoders.precomputed.sources import FORMATS, FeatureFiles, feature_files, image_names
from umie.errors import UmieError, check_choice, check_keys, check_share, check_whole, shown
from umie.images import ImageSource
from umie.records import Box, Region

MIN_SUSPICIOUS = 2  # boxes that fit as x, y, width, height


@dataclass(frozen=True, kw_only=True)
class PrecomputedEncoderConfig(EncoderConfig):
    """Options of the encoder that looks features up.

    Args:
        path: a directory of .npz, .h5 or .safetensors files, one per image; a .tsv, .h5 or .safetensors file with many
            images; or a directory of .tsv files.
        format: ``npz``, ``tsv``, ``h5`` or ``safetensors``; by default determined by the suffix.
        boxes: what the boxes in the files are, required: corners x1, y1, x2, y2, ``absolute`` (pixels) or ``relative``
            (0..1); or x, y, width, height, ``xywh`` or ``relative_xywh``.
        keys: names in the files, if they differ from those of known releases: a mapping of ``features``, ``boxes``,
            ``width``, ``height``, ``count``, ``whole`` and ``id`` to names.
        columns: names of all columns of a .tsv file without a header whose layout is not LXMERT's.
        whole: the source of the whole image's features: the ``mean`` of the file's regions, its ``first`` row (which is
            then not a region), or the ``file``'s own vector (``fc_features`` in UMIE's files, ``whole`` in
            .safetensors, or the name in ``keys``), which must then exist. None uses the file's own vector if there is
            one, and the mean otherwise.
        feature_dim: width of the features; by default read from the files. If it is set, a model can be built without
            the files.
        min_overlap: minimum intersection over union of a record's region and the box whose features it gets.
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
            raise UmieError(f"path is {self.path!r}: set it to the file or directory with the features")
        object.__setattr__(self, "path", str(self.path))
        if self.format is not None:
            check_choice("format", self.format, FORMATS)
        if self.boxes not in BOXES:
            raise UmieError(
                f"boxes is {self.boxes!r}: use 'absolute' if the files' boxes are x1, y1, x2, y2 in pixels, 'relative' "
                "if they are divided by the image's width and height (0..1); 'xywh' or 'relative_xywh' for x, "
                "y, width, height"
            )
        if self.whole is not None:
            check_choice("whole", self.whole, WHOLE)
        if not isinstance(self.keys, Mapping) or not all(isinstance(name, str) for name in self.keys.values()):
            raise UmieError(f"keys is {shown(self.keys)}: use a mapping of {', '.join(ROLES)} to names")
        check_keys("role in keys:", self.keys, ROLES)
        object.__setattr__(self, "keys", dict(self.keys))
        if self.columns is not None:
            if isinstance(self.columns, str) or not all(isinstance(name, str) for name in self.columns):
                raise UmieError(f"columns is {shown(self.columns)}: use a list of names")
            object.__setattr__(self, "columns", tuple(self.columns))
        if self.feature_dim is not None:
            check_whole("feature_dim", self.feature_dim, 1)
        check_share("min_overlap", self.min_overlap)


class PrecomputedPreprocessor(Preprocessor):
    """Looks up the features of an image: ``features [V, Dv]``. Images are not opened and need not exist.

    Attributes:
        counts: totals over the distinct images looked up so far: their ``boxes``, and the boxes left out because they
            are ``outside`` the image (by more than two pixels), have ``no_area`` or are ``not_finite``.
    """

    config: PrecomputedEncoderConfig

    def __init__(self, config: PrecomputedEncoderConfig) -> None:
        super().__init__(config)
        self.counts: Counter[str] = Counter()
        self._counted: set[str] = set()
        self._fitting: int | None = 0  # boxes that may be sizes in place of corners; None: no suspicion
        self._feature_dim = config.feature_dim

    @cached_property
    def source(self) -> FeatureFiles:
        """The files with the features."""
        options = self.config
        return feature_files(Path(options.path), options.format, options.columns, options.keys)

    def one(self, image: ImageSource | None, regions: Sequence[Region | Box] = ()) -> dict[str, Tensor]:
        """Return the tensors of one image: ``boxes [V, 4]``, ``visual_mask [V]`` and ``features [V, Dv]``.

        Of an image's path only the last two parts matter (see ``image_names``); None gives no slots (V = 0). Each
        region gets the features of the file's box that overlaps it most. If there are none, the file's boxes are the
        regions, in their order, at most ``max_regions``.

        Raises:
            UmieError: the files do not have the image or are damaged, or a region overlaps no box.
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
        """Return the features of an image as the files have them, or raise UmieError if they are missing or damaged."""
        if isinstance(image, Image.Image):
            raise UmieError("features are found by file name, which an image in memory does not have: pass its path")
        if not isinstance(image, str | Path):
            raise UmieError(f"expected the path of an image, not {type(image).__name__}")
        names, options = image_names(image), self.config
        with self.source.entry(names) as entry:
            if entry is None:
                tried = " and ".join(filter(None, [", ".join(map(repr, names[:-1])), repr(names[-1])]))
                raise UmieError(
                    f"{image}: no such image in {options.path}, which was searched for {tried}: add its features or "
                    "remove it from the data"
                )
            found = image_features(entry, LAYOUTS[self.source.format], options.keys, options.boxes, options.whole)
        expected, width = self._feature_dim, len(found.whole)
        if expected is None:
            self._feature_dim = width
        elif width != expected:
            raise UmieError(f"{found.place}: features have width {width}, others {expected}: do not mix files")
        if found.place not in self._counted:
            self._counted.add(found.place)
            self.counts.update({"boxes": len(found.boxes) + sum(found.dropped.values()), **found.dropped})
            self._suspect_sizes(found)
        return found

    def _suspect_sizes(self, found: ImageFeatures) -> None:
        """Warn once if boxes that were declared to be corners all fit as x, y, width, height too.

        A box of corners does with a probability of about 1/4; one that does not ends the suspicion.
        """
        if self._fitting is None or self.config.boxes in SIZED.values():
            return
        fitting, others = found.fit_as_sizes
        self._fitting = None if others else self._fitting + fitting
        if self._fitting is not None and self._fitting >= MIN_SUSPICIOUS:
            warnings.warn(
                f"{found.place}: all {self._fitting} boxes so far fit as x, y, width, height, too: if they are not "
                f"corners, set boxes={SIZED[self.config.boxes]!r}",
                stacklevel=2,
            )
            self._fitting = None

    def fingerprint(self) -> str:
        """Return a hash of the options and of the files' names, sizes and times; their content is not read."""
        root = Path(self.config.path)
        try:
            folder = root if root.is_dir() else root.parent
            found = [(path.relative_to(folder).as_posix(), path.stat()) for path in self.source.files()]
        except OSError as error:
            raise UmieError(f"{self.config.path}: cannot read: {error.strerror}") from error
        files = [[name, status.st_size, status.st_mtime_ns] for name, status in found]
        content = json.dumps([PrecomputedEncoder.__qualname__, self.config.identity(), files], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    def tensors(self, image: Image.Image, boxes: Sequence[Box]) -> dict[str, Tensor]:
        """Raise UmieError: this encoder does not use pixels."""
        raise UmieError("features are looked up, not computed from pixels: pass the image's path")

    def no_tensors(self) -> dict[str, Tensor]:
        """Return zero features; their width may be 0, since files are not opened for it and padding widens it."""
        return {"features": torch.zeros(0, self._feature_dim or 0)}

    def _overlapping(self, found: ImageFeatures, regions: Sequence[Box]) -> list[int]:
        """Return, for each region, the number of the box that overlaps it most."""
        if not len(found.boxes):
            raise UmieError(f"{found.place}: no usable box for the record's {len(regions)} regions")
        overlaps = box_iou(torch.tensor(regions, dtype=torch.float64), torch.from_numpy(found.boxes).double())
        most, rows = overlaps.max(1)
        nearest: list[int] = rows.tolist()
        for region, overlap, row in zip(regions, most.tolist(), nearest, strict=True):
            if overlap < self.config.min_overlap:
                raise UmieError(
                    f"{found.place}: region {_shown(region)} overlaps no box by {self.config.min_overlap:g} (IoU); the "
                    f"best, {_shown(found.boxes[row])}, has {overlap:.2f}: add features of this region, lower "
                    "min_overlap, or remove the record's regions"
                )
        return nearest


@registry.register("precomputed")
class PrecomputedEncoder(VisualEncoder):
    """Returns features from files: VinVL and bottom-up attention, LXMERT, UMIE, or custom ones.

    Source: UMIE's released code reads CLIP features of the image (``fc_features``) and of its regions from files.

    If images in several directories have the same name, their features must be in directories or groups of the same
    names; otherwise they all get the same features. There are no weights, so ``trainable`` has no effect, and caching
    the features would only duplicate the files.

    The .safetensors layout: ``features [N, Dv]``, ``boxes [N, 4]``, ``image_w`` and ``image_h`` (one number each; not
    needed with relative boxes) and optionally ``whole [Dv]``; in a file with many images, each name is prefixed with
    ``<id>/``.
    """

    Config = PrecomputedEncoderConfig
    Preprocessor = PrecomputedPreprocessor
    reads_features = True

    config: PrecomputedEncoderConfig
    preprocess: PrecomputedPreprocessor

    def __init__(self, config: PrecomputedEncoderConfig) -> None:
        if config.feature_dim is None:
            reader = PrecomputedPreprocessor(config)
            reader._fitting = None  # the preprocessor that is used warns
            name = reader.source.first_name()
            if name is None:
                raise UmieError(f"{config.path}: contains no images: set `feature_dim`, or correct `path`")
            config = dataclasses.replace(config, feature_dim=len(reader.read(name).whole))
        super().__init__(config)
        # an empty tensor that follows the model's precision, to which features are cast
        self._like: Tensor
        self.register_buffer("_like", torch.empty(0), persistent=False)

    def load_weights(self) -> None:
        """Check that the files exist, so that a wrong path fails here and not once per image."""
        _ = self.preprocess.source

    def saved_options(self) -> dict[str, Any]:
        """Return the width, so that the encoder can be rebuilt without its files."""
        return {"feature_dim": self.feature_dim}

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``features [B, V, Dv]`` in the model's precision."""
        features = inputs["features"]
        if features.shape[-1] != self.feature_dim:
            raise UmieError(
                f"features have width {features.shape[-1]}, the model expects {self.feature_dim}: use the files that "
                "it was trained with"
            )
        return features.to(self._like.dtype)


def _shown(box: Any) -> str:
    return "[" + ", ".join(f"{edge:.3f}" for edge in box) + "]"
