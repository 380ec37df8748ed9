"""The proposer contract: images, and texts where they matter, to proposals; records to records with regions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from PIL import Image

from umie.encoders.regions.select import Candidates, Proposal, select
from umie.errors import UmieError, check_share, check_whole, shown
from umie.images import ImageSource, open_image
from umie.records import Box, Record, Region
from umie.weights import first_line

__all__ = ["AnnotationError", "Candidates", "PixelProposer", "Proposal", "Proposer", "ProposerConfig", "check_device"]

RECENT = 256  # images whose candidates are kept while records are filled; some sets name each in several records


class AnnotationError(UmieError):
    """What somebody has annotated cannot be read; the image may be sound."""


@dataclass(frozen=True, kw_only=True)
class ProposerConfig:
    """Options that every proposer has.

    Args:
        top: the most regions of one image (the paper takes 36).
        nms: intersection over union above which the worse of two boxes is left out; 1 keeps all but equal ones.
        min_score: boxes that score less are left out.
    """

    weights_option: ClassVar[str | None] = None

    top: int = 36
    nms: float = 0.5
    min_score: float = 0.0

    @property
    def has_random_weights(self) -> bool:
        """Whether the proposer can load pretrained weights and none are specified."""
        return self.weights_option is not None and getattr(self, self.weights_option) is None

    def __post_init__(self) -> None:
        check_whole("top", self.top, 1)
        check_share("nms", self.nms)
        check_share("min_score", self.min_score)


class Proposer(ABC):
    """Finds boxes in images; a subclass says in ``candidates`` what there is, the selection is here for all.

    Images are looked at one by one: in a batch they would be padded to one size, and a detector's boxes would
    depend on the neighbors.

    ``counts`` says how many boxes were dropped since the proposer was built, and why.
    """

    Config: ClassVar[type[ProposerConfig]] = ProposerConfig
    reads_text: ClassVar[bool] = False  # whether what is found depends on the text

    def __init__(self, config: ProposerConfig) -> None:
        self.config = config
        self.counts: Counter[str] = Counter()

    @abstractmethod
    def candidates(self, image: ImageSource, text: str | None, name: str | None) -> Candidates:
        """Return what there is in an image, before selection.

        Args:
            image: a PIL image or a path.
            text: what is said about it.
            name: the name of its file, if it has one.

        Raises:
            AnnotationError: what is looked up for the image cannot be read.
            UmieError: the image cannot be read.
        """

    def propose(self, images: Sequence[ImageSource], texts: Sequence[str | None] | None = None) -> list[list[Proposal]]:
        """Return the proposals of each image, best first, at most ``top``.

        Args:
            images: PIL images or paths.
            texts: what is said about each image; most proposers do without.

        Raises:
            UmieError: an image cannot be read, or there are not as many texts as images.
        """
        texts = [None] * len(images) if texts is None else texts
        if len(texts) != len(images):
            raise UmieError(f"{len(texts)} texts for {len(images)} images: give one for each")
        return [
            self._selected(self.candidates(image, text, _file_name(image)))
            for image, text in zip(images, texts, strict=True)
        ]

    def fill(self, records: Iterable[Record], on_error: Callable[[UmieError], None] | None = None) -> Iterator[Record]:
        """Yield the records, one by one, with the proposals behind the regions that they have.

        A record's own regions keep their indices, which arguments name. Proposals that overlap them are left out,
        and so are those beyond ``top`` in all; own regions beyond it are cut, but for those up to the last one that
        an argument names. A record without an image comes as it is.

        Args:
            records: the records; they are read one after the other.
            on_error: called with the error of each record whose image cannot be read, or whose annotation cannot
                (an AnnotationError); the record then comes as it is. Without it the first such error is raised.

        Raises:
            UmieError: an image or an annotation cannot be read or lies outside its folder, and there is no
                ``on_error``.
        """
        recent: dict[object, Candidates] = {}
        for number, record in enumerate(records, start=1):
            try:
                filled = self._filled(record, recent)
            except UmieError as error:
                kind = AnnotationError if isinstance(error, AnnotationError) else UmieError
                placed = kind(f"record {record.id or number}: {error}")
                if on_error is None:
                    raise placed from error
                on_error(placed)
                filled = record
            yield filled

    def _filled(self, record: Record, recent: dict[object, Candidates]) -> Record:
        """Return the record with proposals; ``recent`` keeps the last candidates, since images come repeatedly."""
        if record.image is None:
            return record
        named = [item.region for event in record.events for item in event.arguments if item.region is not None]
        own = record.regions[: max(self.config.top, *(index + 1 for index in named), 0)]
        found: list[Proposal] = []
        if len(own) < self.config.top:
            found = self._selected(self._recalled(record, recent), [region.box for region in own])
        return replace(record, regions=(*own, *(Region(item.box, item.label) for item in found)))

    def _recalled(self, record: Record, recent: dict[object, Candidates]) -> Candidates:
        """Return what there is in a record's image, from ``recent`` if it stands there."""
        if not isinstance(record.image, str):
            assert record.image is not None  # the caller has looked
            return self.candidates(record.image, record.text, _file_name(record.image))
        key = (record.image_folder, record.image, record.text if self.reads_text else None)
        found = recent.pop(key, None)
        if found is None:
            image = record.image_path()
            assert image is not None  # only a record without an image has no path
            found = self.candidates(image, record.text, Path(record.image).name)
        recent[key] = found  # the last one used is the last one to go
        if len(recent) > RECENT:
            del recent[next(iter(recent))]
        return found

    def _selected(self, candidates: Candidates, taken: Sequence[Box] = ()) -> list[Proposal]:
        config = self.config
        return select(
            candidates,
            top=config.top - len(taken),
            overlap=config.nms,
            min_score=config.min_score,
            taken=taken,
            counts=self.counts,
        )


class PixelProposer(Proposer):
    """A proposer that looks at the image itself; a subclass says in ``_candidates`` what it sees there."""

    def candidates(self, image: ImageSource, text: str | None, name: str | None) -> Candidates:
        """Open the image and return what there is in it; see ``Proposer.candidates``."""
        opened = open_image(image)
        try:
            return self._candidates(opened, text)
        except UmieError:
            raise
        except (RuntimeError, ValueError) as error:  # one image that a detector cannot take shall not end a run
            image_name = f"{name or 'image'} ({opened.width} x {opened.height})"
            raise UmieError(
                f"{image_name}: the detector fails on it ({first_line(error)}); "
                "leave it out, or take another detector or device"
            ) from error

    @abstractmethod
    def _candidates(self, image: Image.Image, text: str | None) -> Candidates:
        """Return what there is in one image, given as displayed and in RGB; boxes are relative to it."""


def check_device(device: object) -> None:
    """Raise UmieError unless tensors can be put on the device of this name."""
    try:
        torch.zeros(1).to(device)  # type: ignore[call-overload] # whatever it is
    except Exception as error:
        raise UmieError(f"device is {shown(device)}: cannot be used ({first_line(error)}); give e.g. cpu") from error


def _file_name(image: ImageSource) -> str | None:
    path = getattr(image, "filename", None) if isinstance(image, Image.Image) else image
    return Path(path).name if isinstance(path, str | Path) and str(path) else None
