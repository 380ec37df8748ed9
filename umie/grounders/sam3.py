"""`sam3`, `sam3_video`: Segment Anything 3 finds everything that a phrase names, with masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from umie.grounders import registry
from umie.grounders.base import CheckpointGrounderConfig, ModelGrounder
from umie.grounders.sam2 import box_of, with_mask
from umie.images import ImageSource, open_image
from umie.media import ClipSource, open_clip
from umie.records import Box, Region, Track

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
MAX_TOKENS = 32  # of a phrase; the rest of a longer one is not read


@dataclass(frozen=True, kw_only=True)
class Sam3Config(CheckpointGrounderConfig):
    """Options of Segment Anything 3, whose weights have a license of their own and are given out on request.

    Args:
        checkpoint: the directory or hub name of the model with its processor.
        min_score: the probability that the phrase is in the image, times that of the object.
        device: where the model runs, e.g. "cuda".
    """

    kind = "Segment Anything 3"
    example = "facebook/sam3"

    min_score: float = 0.3


@registry.register("sam3")
class Sam3Grounder(ModelGrounder):
    """The regions of what a phrase names, with their masks, the most probable first; in the place of SEEM in REAMO.

    A phrase that nothing in the image shows has none. Source: Carion et al. 2025, SAM 3: Segment Anything with
    Concepts, as implemented in transformers.
    """

    Config = Sam3Config
    config: Sam3Config
    medium = "image"
    model_class = "Sam3Model"

    def find(self, source: ImageSource, phrases: Sequence[str], known: Sequence[Region] = ()) -> list[list[Region]]:
        """Return the regions that show each phrase; ``known`` is not used."""
        model, processor = self._model
        image = open_image(source).convert("RGB")
        found = []
        with torch.inference_mode():
            pixels = processor(images=image, return_tensors="pt").to(model.device)
            seen = model.get_vision_features(pixels["pixel_values"])
            for phrase in phrases:
                text = processor.tokenizer(
                    phrase, return_tensors="pt", padding="max_length", max_length=MAX_TOKENS, truncation=True
                ).to(model.device)
                output = model(vision_embeds=seen, input_ids=text.input_ids, attention_mask=text.attention_mask)
                (result,) = processor.post_process_instance_segmentation(
                    output, threshold=self.config.min_score, target_sizes=[image.size[::-1]]
                )
                ranked = torch.as_tensor(result["scores"]).argsort(descending=True).tolist()
                masks = [result["masks"][index].cpu().numpy().astype(bool) for index in ranked]
                regions = [with_mask(Region(WHOLE, phrase), mask) for mask in masks if mask.any()]
                found.append(regions[: self.config.top])
        return found


@registry.register("sam3_video")
class Sam3VideoGrounder(ModelGrounder):
    """The tracks of what a phrase names, those that are seen longest first. Source: as for ``sam3``."""

    Config = Sam3Config
    config: Sam3Config
    medium = "video"
    model_class = "Sam3VideoModel"
    num_frames = 32

    def find(self, source: ClipSource, phrases: Sequence[str], known: Sequence[Track] = ()) -> list[list[Track]]:
        """Return the tracks that show each phrase; ``known`` is not used."""
        model, processor = self._model
        clip = open_clip(source, self.num_frames)
        frames = [frame.convert("RGB") for frame in clip.frames]
        session = processor.init_video_session(video=frames, inference_device=model.device)
        prompts = {phrase: _shortened(processor.tokenizer, phrase) for phrase in phrases}
        processor.add_text_prompt(session, list(dict.fromkeys(prompts.values())))
        boxes: dict[tuple[str, int], dict[int, Box]] = {}
        with torch.inference_mode():
            for output in model.propagate_in_video_iterator(session):
                result = processor.postprocess_outputs(session, output)
                rows = {number: row for row, number in enumerate(result["object_ids"].tolist())}
                for phrase, numbers in result["prompt_to_obj_ids"].items():
                    for number in numbers:
                        is_sure = number in rows and result["scores"][rows[number]] >= self.config.min_score
                        box = box_of(result["masks"][rows[number]].cpu().numpy().astype(bool)) if is_sure else None
                        if box is not None:
                            boxes.setdefault((phrase, number), {})[output.frame_idx] = box
        found = []
        for phrase in phrases:
            own = sorted((seen for (name, _), seen in boxes.items() if name == prompts[phrase]), key=len, reverse=True)
            tracks = [
                Track(tuple(clip.times), tuple(seen.get(number) for number in range(len(frames))), phrase)
                for seen in own
            ]
            found.append(tracks[: self.config.top])
        return found


def _shortened(tokenizer: Any, phrase: str) -> str:
    """Return a phrase without the tokens that are too many for the model."""
    tokens = tokenizer(phrase, max_length=MAX_TOKENS, truncation=True).input_ids
    if len(tokenizer(phrase).input_ids) <= len(tokens):
        return phrase
    while len(tokens) > 2:  # words may be written with other tokens than they were read with
        shorter = str(tokenizer.decode(tokens, skip_special_tokens=True))
        if len(tokenizer(shorter).input_ids) <= MAX_TOKENS:
            return shorter
        tokens = tokens[:-1]
    return ""
