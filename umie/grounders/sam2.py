"""`sam2`, `sam2_video`: Segment Anything 2 turns the box of a region into a mask, and that of a track into a track."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from umie.grounders import registry
from umie.grounders.base import CheckpointGrounderConfig, ModelGrounder
from umie.images import ImageSource, open_image
from umie.media import ClipSource, open_clip
from umie.records import Box, Mask, Region, Track

Pixels = NDArray[np.bool_]  # [height, width]


@dataclass(frozen=True, kw_only=True)
class Sam2Config(CheckpointGrounderConfig):
    """Options of Segment Anything 2; ``top`` and ``min_score`` have no effect.

    Args:
        checkpoint: the directory or hub name of the model with its processor.
        device: where the model runs, e.g. "cuda".
    """

    kind = "Segment Anything 2"
    example = "facebook/sam2.1-hiera-small"


@registry.register("sam2")
class Sam2Grounder(ModelGrounder):
    """The mask of each region; the box is then that of the mask. A region in which nothing is seen stays as it is.

    Source: Ravi et al. 2024, SAM 2: Segment Anything in Images and Videos, as implemented in transformers.
    """

    Config = Sam2Config
    config: Sam2Config
    medium = "image"
    model_class = "Sam2Model"

    def refine(self, source: ImageSource, places: Sequence[Region]) -> list[Region]:
        """Return the regions with their masks."""
        if not places:
            return []
        model, processor = self._model
        image = open_image(source).convert("RGB")
        boxes = [[edge * image.size[index % 2] for index, edge in enumerate(place.box)] for place in places]
        inputs = processor(images=image, input_boxes=[boxes], return_tensors="pt").to(model.device)
        with torch.inference_mode():
            output = model(**inputs, multimask_output=False)
        (masks,) = processor.post_process_masks(output.pred_masks.float().cpu(), inputs["original_sizes"].cpu())
        return [with_mask(place, mask[0].numpy().astype(bool)) for place, mask in zip(places, masks, strict=True)]


@registry.register("sam2_video")
class Sam2VideoGrounder(ModelGrounder):
    """The track of what is in the first box of each track, through all later frames.

    Source: as for ``sam2``. A track whose object is seen nowhere stays as it is.
    """

    Config = Sam2Config
    config: Sam2Config
    medium = "video"
    model_class = "Sam2VideoModel"
    num_frames = 32

    def refine(self, source: ClipSource, places: Sequence[Track]) -> list[Track]:
        """Return the tracks, each with a box in every frame in which the object is seen."""
        clip = open_clip(source, self.num_frames)
        frames = [frame.convert("RGB") for frame in clip.frames]
        return [self._tracked(frames, clip.times, place) for place in places]

    def _tracked(self, frames: Sequence[Any], times: Sequence[float], place: Track) -> Track:
        model, processor = self._model
        start = place.interval[0]
        first = min(range(len(times)), key=lambda number: abs(times[number] - start))
        begin = next(box for box in place.boxes if box is not None)
        width, height = frames[0].size
        session = processor.init_video_session(video=list(frames), inference_device=model.device)
        box = [edge * (width, height)[index % 2] for index, edge in enumerate(begin)]
        processor.add_inputs_to_inference_session(
            inference_session=session, frame_idx=first, obj_ids=1, input_boxes=[[box]]
        )
        boxes: dict[int, Box | None] = {}
        with torch.inference_mode():
            for output in model.propagate_in_video_iterator(session, start_frame_idx=first):
                (masks,) = processor.post_process_masks([output.pred_masks.float().cpu()], [[height, width]])
                boxes[output.frame_idx] = box_of(masks[0, 0].numpy().astype(bool))
        found = tuple(boxes.get(number) for number in range(len(frames)))
        return place if not any(found) else Track(tuple(times), found)


def box_of(pixels: Pixels) -> Box | None:
    """Return the box around the pixels that are True ``[height, width]``, relative to the image; None without any."""
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    if not len(rows):
        return None
    height, width = pixels.shape
    left, right, top, bottom = (int(edge) for edge in (columns[0], columns[-1] + 1, rows[0], rows[-1] + 1))
    return left / width, top / height, right / width, bottom / height


def with_mask(place: Region, pixels: Pixels) -> Region:
    """Return a region with a mask and the box around it; as it is if the mask is empty."""
    box = box_of(pixels)
    return place if box is None else replace(place, box=box, mask=Mask.of(pixels))
