"""`faster_rcnn`: a detector of torchvision, with published weights or those of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from umie.encoders.regions import registry
from umie.encoders.regions.base import Candidates, PixelProposer, ProposerConfig, check_device
from umie.encoders.regions.shape import tamed
from umie.errors import UmieError, UnknownNameError, check_text, check_whole, shown
from umie.versions import file_digest
from umie.weights import first_line, is_file_name, load_state, read_state_dict

MODELS = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
)
DETECTIONS = 1000  # candidates of one image; far more than are kept
CLASSES = 91  # of COCO, the background among them
WITHOUT_EPSILON = {("fasterrcnn_resnet50_fpn", "COCO_V1")}  # torchvision runs these weights without one, too
_SCORES = "roi_heads.box_predictor.cls_score.weight"  # [classes, ...]


@dataclass(frozen=True, kw_only=True)
class FasterRcnnProposerConfig(ProposerConfig):
    """Options of the torchvision detectors.

    Args:
        model: one of torchvision's Faster R-CNNs.
        weights: torchvision's name (COCO_V1), a .safetensors, .pth, .pt or .bin file, or None for random.
        min_score: as everywhere; torchvision's own default.
        min_size: pixels to which the short side of an image is scaled; None is the model's own (800, or 320).
            Less is faster and loses small things.
        labels: names of the classes by index, the background first; None takes those of published weights.
        device: where the detector runs, e.g. "cuda".
    """

    weights_option: ClassVar[str | None] = "weights"

    model: str = "fasterrcnn_resnet50_fpn_v2"
    weights: str | None = None
    min_score: float = 0.05
    min_size: int | None = None
    labels: Sequence[str] | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model not in MODELS:
            raise UnknownNameError("model", self.model, MODELS)
        check_text("weights", self.weights)
        if self.min_size is not None:
            check_whole("min_size", self.min_size, 32)
        labels = self.labels
        if labels is not None and not (
            isinstance(labels, list | tuple) and labels and all(isinstance(label, str) for label in labels)
        ):
            raise UmieError(f"labels is {shown(labels)}: give a list of names, the background's first")
        check_device(self.device)


@registry.register("faster_rcnn")
class FasterRcnnProposer(PixelProposer):
    """Faster R-CNN: boxes of the things that the detector was trained on.

    Boxes are suppressed once, by the selection that all proposers share, and not by class before that.

    Source: Ren et al. 2015, Faster R-CNN; the models are torchvision's.
    """

    Config = FasterRcnnProposerConfig

    def __init__(self, config: FasterRcnnProposerConfig) -> None:
        super().__init__(config)
        self.config: FasterRcnnProposerConfig = config

    def load_weights(self) -> None:
        """Build the detector and load the weights that the configuration names.

        Raises:
            UmieError: the file is missing or does not fit, or published weights cannot be downloaded.
            UnknownNameError: torchvision publishes no weights of this name for the model.
        """
        _ = self._detector

    def _candidates(self, image: Image.Image, text: str | None) -> Candidates:
        from torchvision.transforms.functional import pil_to_tensor

        del text
        model, labels = self._detector
        image = tamed(image)
        pixels = pil_to_tensor(image).to(self.config.device).float() / 255
        with torch.inference_mode():
            (found,) = model([pixels])
        width, height = image.size
        boxes = found["boxes"].cpu() / torch.tensor([width, height, width, height])
        return Candidates(boxes, found["scores"].cpu(), [labels[index] for index in found["labels"].tolist()])

    @cached_property
    def _detector(self) -> tuple[nn.Module, Sequence[str]]:
        """The model, and the name of each class."""
        from torchvision.models import get_model

        config = self.config
        state, published = _state(config.model, config.weights) if config.weights is not None else ({}, None)
        num_classes = len(state[_SCORES]) if _SCORES in state else CLASSES
        known = None if published is None else published.meta["categories"]
        names = config.labels or known or [str(index) for index in range(num_classes)]
        if len(names) != num_classes:
            raise UmieError(f"labels has {len(names)} names, and the detector {num_classes} classes: name each")
        size = {} if config.min_size is None else {"min_size": config.min_size}
        model: nn.Module = get_model(
            config.model,
            weights=None,
            weights_backbone=None,  # else torchvision downloads ImageNet's
            num_classes=num_classes,
            box_score_thresh=config.min_score,
            box_nms_thresh=1.0,  # the selection suppresses
            box_detections_per_img=DETECTIONS,
            **size,
        )
        if state:
            load_state(model, state, config.weights)
        if published is not None and (config.model, published.name) in WITHOUT_EPSILON:
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = 0.0
        return model.to(config.device).eval(), names


def _state(model: str, weights: str) -> tuple[Mapping[str, Tensor], Any]:
    """Return the state dict that ``weights`` names, and torchvision's entry for it if it is a published one."""
    from torchvision.models import get_model_weights

    published: Any = get_model_weights(model).__members__
    if is_file_name(weights):
        state = read_state_dict(weights)
        known = [member for member in published.values() if _is_published(weights, member.url)]
        return state, known[0] if known else None
    if weights not in published:
        raise UnknownNameError(f"torchvision weights of {model}:", weights, published)
    try:
        state = published[weights].get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise UmieError(
            f"weights {weights}: cannot be downloaded ({first_line(error)}); "
            f"fetch {published[weights].url} and give the file's path as weights"
        ) from error
    return state, published[weights]


def _is_published(path: str, url: str) -> bool:
    """Whether a file is the one at ``url``: by its name and by the hash that torch's files carry in theirs."""
    name = url.rpartition("/")[2]
    if Path(path).name != name:
        return False
    return file_digest(path).startswith(Path(name).stem.rpartition("-")[2])
