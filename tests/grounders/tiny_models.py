"""Small checkpoints of the models that grounders use, with random weights."""

import torch
import transformers as hf
from media_checkpoints import MODERN_BERT, PE_AUDIO, PE_SOUND, WAVES

SIDE = 64
_HIERA = {
    "model_type": "sam2_hiera_det_model", "hidden_size": 8,
    "image_size": [SIDE, SIDE], "blocks_per_stage": [1, 2, 2, 1],
    "embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 1, 2, 2],
    "window_size_per_stage": [4, 4, 4, 4], "global_attention_blocks": [4], "mlp_ratio": 2.0,
    "window_positional_embedding_background_size": [4, 4],
}  # fmt: skip
_FEATURES = {"backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}


def _hiera(width):
    return {
        "model_type": "sam2_vision_model", "backbone_config": _HIERA, "backbone_channel_list": [64, 32, 16, 8],
        "fpn_hidden_size": width, **_FEATURES,
    }  # fmt: skip


def _prompts(width, side, patch):
    return {
        "prompt_encoder_config": {
            "hidden_size": width, "image_size": side, "patch_size": patch, "mask_input_channels": 8,
        },
        "mask_decoder_config": {
            "hidden_size": width, "mlp_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
    }  # fmt: skip


def _memory(width, side):
    """Return the options of the memory; its attention has a fixed width of 64 on one side."""
    return {
        "image_size": side, "memory_attention_hidden_size": width, "memory_attention_num_layers": 1,
        "memory_attention_num_attention_heads": 1, "memory_attention_feed_forward_hidden_size": 32,
        "memory_attention_rope_feat_sizes": [4, 4], "memory_encoder_hidden_size": width,
        "memory_encoder_output_channels": 64, "mask_downsampler_embed_dim": width, "memory_fuser_embed_dim": width,
        "memory_fuser_intermediate_dim": 32, "memory_fuser_num_layers": 1,
    }  # fmt: skip


def sam2(folder):
    """Save Segment Anything 2 for images."""
    vision = _hiera(32)
    hf.Sam2Model(hf.Sam2Config(vision_config=vision, **_prompts(32, SIDE, 16))).save_pretrained(folder)
    hf.Sam2Processor(_images(), target_size=SIDE).save_pretrained(folder)


def sam2_video(folder):
    """Save Segment Anything 2 for videos."""
    vision = _hiera(128)
    config = hf.Sam2VideoConfig(vision_config=vision, **_prompts(128, SIDE, 16), **_memory(128, SIDE))
    hf.Sam2VideoModel(config).save_pretrained(folder)
    videos = hf.Sam2VideoVideoProcessor(size={"height": SIDE, "width": SIDE})
    hf.Sam2VideoProcessor(_images(), videos, target_size=SIDE).save_pretrained(folder)


def _images():
    size = {"height": SIDE, "width": SIDE}
    return hf.Sam2ImageProcessor(size=size, mask_size=size)


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
    return {"model_type": "sam3_vision_model", "backbone_config": _VIT, "fpn_hidden_size": width, **_FEATURES}


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
        vision_config=_vit(128), **_prompts(128, 56, 14), **_memory(128, 56)
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
    text = {**MODERN_BERT, "model_type": "modernbert", "vocab_size": 64}
    config = hf.PeAudioConfig(audio_config=PE_AUDIO, text_config=text)
    hf.PeAudioFrameLevelModel(config).save_pretrained(folder)
    hf.PeAudioProcessor(hf.PeAudioFeatureExtractor(**PE_SOUND), _words()).save_pretrained(folder)


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
