"""`faster_rcnn`: a torchvision detector, with published weights or weights from a file."""

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
from umie.encoders.regions.base import Candidates, PixelProposer, ProposerConfig, check_device, clamp_aspect_ratio
from umie.encoders.tower import published_weights
from umie.errors import UmieError, check_keys, check_text, check_whole, shown
from umie.versions import file_digest
from umie.weights import is_file_name, load_state, read_state_dict

MODELS = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
)
DETECTIONS = 1000  # candidates per image, far more than are kept
CLASSES = 91  # of COCO, including the background
WITHOUT_EPSILON = {("fasterrcnn_resnet50_fpn", "COCO_V1")}  # torchvision sets epsilon to 0 for these weights, too
_SCORES = "roi_heads.box_predictor.cls_score.weight"  # [classes, ...]


@dataclass(frozen=True, kw_only=True)
class FasterRcnnProposerConfig(ProposerConfig):
    """Options of the torchvision detectors.

    Args:
        model: the name of a torchvision Faster R-CNN.
        weights: a torchvision name (COCO_V1), a .safetensors, .pth, .pt or .bin file, or None for random weights.
        min_score: see ProposerConfig; the default is torchvision's.
        min_size: size in pixels to which an image's short side is scaled; None uses the model's default (800, or 320).
            Smaller sizes are faster and miss small objects.
        labels: class names by index, the background first; None uses those of published weights.
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
        check_keys("model", [self.model], MODELS)
        check_text("weights", self.weights)
        if self.min_size is not None:
            check_whole("min_size", self.min_size, 32)
        labels = self.labels
        if labels is not None and not (
            isinstance(labels, list | tuple) and labels and all(isinstance(label, str) for label in labels)
        ):
            raise UmieError(f"labels is {shown(labels)}: use a list of names, the background first")
        check_device(self.device)


@registry.register("faster_rcnn")
class FasterRcnnProposer(PixelProposer):
    """Faster R-CNN: boxes of the classes that the detector was trained on.

    Boxes are suppressed only once, by the selection that all proposers share, and not per class.

    Source: Ren et al. 2015, Faster R-CNN; the models are torchvision's.
    """

    Config = FasterRcnnProposerConfig
    config: FasterRcnnProposerConfig

    def load_weights(self) -> None:
        """Build the detector and load its weights; see ``read_state_dict`` and ``published_weights``."""
        _ = self._detector

    def _candidates(self, image: Image.Image, text: str | None) -> Candidates:
        from torchvision.transforms.functional import pil_to_tensor

        model, labels = self._detector
        image = clamp_aspect_ratio(image)
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
            raise UmieError(
                f"labels has {len(names)} names, but the detector has {num_classes} classes: use one name per class"
            )
        size = {} if config.min_size is None else {"min_size": config.min_size}
        model: nn.Module = get_model(
            config.model,
            weights=None,
            weights_backbone=None,  # otherwise torchvision downloads ImageNet weights
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
                    module.eps = torch.finfo(torch.float32).tiny  # torch 2.11 refuses 0
        return model.to(config.device).eval(), names


def _state(model: str, weights: str) -> tuple[Mapping[str, Tensor], Any]:
    """Return the state dict for ``weights``, and torchvision's entry for it if it is published."""
    from torchvision.models import get_model_weights

    published: Any = get_model_weights(model).__members__
    if is_file_name(weights):
        state = read_state_dict(weights)
        for member in published.values():
            name = Path(member.url).name  # it ends with the start of the file's hash
            if Path(weights).name == name and file_digest(weights).startswith(Path(name).stem.rpartition("-")[2]):
                return state, member
        return state, None
    return published_weights(model, weights, published), published[weights]
