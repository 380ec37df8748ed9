"""Write grounders with random weights: what do calls reach if nothing is found on purpose?

    python examples/reamo/random_grounders.py runs/random-grounders

writes Segment Anything 3 for images (sam3) and videos (sam3_video) and PE-A-Frame (pe_a_frame), each with less than 5
million weights. Most of their answers are one and the same box, or the whole sound. examples/reamo/pipeline.yaml uses
them as its control.
"""

import argparse
from pathlib import Path

import torch
import transformers as hf

FEATURES = {"backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}


def prompts(width, side, patch):
    """Return the options of the decoder of masks."""
    return {
        "prompt_encoder_config": {
            "hidden_size": width, "image_size": side, "patch_size": patch, "mask_input_channels": 8,
        },
        "mask_decoder_config": {
            "hidden_size": width, "mlp_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
    }  # fmt: skip


def memory(width, side):
    """Return the options of the memory of a tracker; its attention has a fixed width of 64 on one side."""
    return {
        "image_size": side, "memory_attention_hidden_size": width, "memory_attention_num_layers": 1,
        "memory_attention_num_attention_heads": 1, "memory_attention_feed_forward_hidden_size": 32,
        "memory_attention_rope_feat_sizes": [4, 4], "memory_encoder_hidden_size": width,
        "memory_encoder_output_channels": 64, "mask_downsampler_embed_dim": width, "memory_fuser_embed_dim": width,
        "memory_fuser_intermediate_dim": 32, "memory_fuser_num_layers": 1,
    }  # fmt: skip


_VIT = {
    "model_type": "sam3_vit_model",
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56,
    "patch_size": 14, "window_size": 2, "global_attn_indexes": [1], "pretrain_image_size": 28,
}  # fmt: skip
_TEXT = {
    "model_type": "clip_text_model", "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24,
    "projection_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32,
    "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip


def _vit(width):
    return {"model_type": "sam3_vision_model", "backbone_config": _VIT, "fpn_hidden_size": width, **FEATURES}


def _detector(width):
    small = {"hidden_size": width, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    return hf.Sam3Config(
        vision_config=_vit(width),
        text_config=_TEXT,
        geometry_encoder_config=small,
        detr_encoder_config=small,
        detr_decoder_config={**small, "num_queries": 5},
        mask_decoder_config={"hidden_size": width, "num_attention_heads": 2},
    )


def _words():
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    return hf.CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[])


def _concepts():
    return hf.Sam3ImageProcessor(size={"height": 56, "width": 56}, mask_size={"height": 16, "width": 16})


def sam3(folder):
    """Save Segment Anything 3 for images."""
    hf.Sam3Model(_detector(16)).save_pretrained(folder)
    hf.Sam3Processor(_concepts(), _words(), target_size=56).save_pretrained(folder)


def sam3_video(folder):
    """Save Segment Anything 3 for videos; detector and tracker share the encoder of images, so their widths."""
    tracker = hf.Sam3TrackerVideoConfig(
        vision_config=_vit(128), **prompts(128, 56, 14), **memory(128, 56)
    )  # fmt: skip
    config = hf.Sam3VideoConfig(
        detector_config=_detector(128).to_dict(), tracker_config=tracker.to_dict(), low_res_mask_size=16,
        score_threshold_detection=0.0, new_det_thresh=0.0, hotstart_delay=0, hotstart_unmatch_thresh=0,
        hotstart_dup_thresh=0,
    )  # fmt: skip
    hf.Sam3VideoModel(config).save_pretrained(folder)
    videos = hf.Sam2VideoVideoProcessor(size={"height": 56, "width": 56})
    hf.Sam3VideoProcessor(_concepts(), videos, _words(), target_size=56).save_pretrained(folder)


def pe_a_frame(folder):
    """Save PE-A-Frame."""
    sound = {
        **SMALL,
        "head_dim": 8,
        "dac_config": {"encoder_hidden_size": 4, "downsampling_ratios": [8, 8, 10], "codebook_dim": 8},
    }
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    text = {**SMALL, **special, "model_type": "modernbert", "vocab_size": 64}
    hf.PeAudioFrameLevelModel(hf.PeAudioConfig(audio_config=sound, text_config=text)).save_pretrained(folder)
    hf.PeAudioProcessor(hf.PeAudioFeatureExtractor(hop_length=640, sampling_rate=16_000), _words()).save_pretrained(
        folder
    )


def write(folder):
    """Save each of them in a directory with its name."""
    for save in (sam3, sam3_video, pe_a_frame):
        torch.manual_seed(0)
        save(Path(folder) / save.__name__)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="the directory to write")
    write(parser.parse_args().folder)
