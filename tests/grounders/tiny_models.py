"""Small checkpoints of the models that grounders use, with random weights."""

import sys
from pathlib import Path

import torch
import transformers as hf
from media_checkpoints import WAVES

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "reamo"))
from random_grounders import FEATURES, memory, pe_a_frame, prompts, sam3, sam3_video

SIDE = 64
_HIERA = {
    "model_type": "sam2_hiera_det_model", "hidden_size": 8,
    "image_size": [SIDE, SIDE], "blocks_per_stage": [1, 2, 2, 1],
    "embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 1, 2, 2],
    "window_size_per_stage": [4, 4, 4, 4], "global_attention_blocks": [4], "mlp_ratio": 2.0,
    "window_positional_embedding_background_size": [4, 4],
}  # fmt: skip


def _hiera(width):
    return {
        "model_type": "sam2_vision_model", "backbone_config": _HIERA, "backbone_channel_list": [64, 32, 16, 8],
        "fpn_hidden_size": width, **FEATURES,
    }  # fmt: skip


def sam2(folder):
    """Save Segment Anything 2 for images."""
    vision = _hiera(32)
    hf.Sam2Model(hf.Sam2Config(vision_config=vision, **prompts(32, SIDE, 16))).save_pretrained(folder)
    hf.Sam2Processor(_images(), target_size=SIDE).save_pretrained(folder)


def sam2_video(folder):
    """Save Segment Anything 2 for videos."""
    vision = _hiera(128)
    config = hf.Sam2VideoConfig(vision_config=vision, **prompts(128, SIDE, 16), **memory(128, SIDE))
    hf.Sam2VideoModel(config).save_pretrained(folder)
    videos = hf.Sam2VideoVideoProcessor(size={"height": SIDE, "width": SIDE})
    hf.Sam2VideoProcessor(_images(), videos, target_size=SIDE).save_pretrained(folder)


def _images():
    size = {"height": SIDE, "width": SIDE}
    return hf.Sam2ImageProcessor(size=size, mask_size=size)


def frames(folder):
    """Save a classifier of the frames of a sound."""
    hf.Wav2Vec2ForAudioFrameClassification(hf.Wav2Vec2Config(**WAVES, num_labels=2)).save_pretrained(folder)
    hf.Wav2Vec2FeatureExtractor().save_pretrained(folder)


ALL = {one.__name__: one for one in (sam2, sam2_video, sam3, sam3_video, pe_a_frame, frames)}


def saved(name, folder):
    """Save a small checkpoint and return its directory."""
    torch.manual_seed(0)
    ALL[name](folder)
    return str(folder)
