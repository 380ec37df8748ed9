"""Small checkpoints of transformers' audio and video models, with random weights, saved as their authors save them."""

import json

import torch
import transformers

LAYERS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 32}
WAVES = {
    **LAYERS, "conv_dim": [8, 8], "conv_kernel": [10, 8], "conv_stride": [10, 8], "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
DAC = {"encoder_hidden_size": 4, "downsampling_ratios": [8, 8, 10], "codebook_dim": 8}
PE_SOUND = {"sampling_rate": 16_000, "hop_length": 640}
PE_AUDIO = {**LAYERS, "head_dim": 8, "dac_config": DAC}
VISION = {"architecture": "test_vit", "num_classes": 12, "global_pool": "map", "model_args": {"img_size": 32}}
PE_VIDEO = {**LAYERS, "head_dim": 8, "vision_config": VISION}
MODERN_BERT = {**TEXT, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
CLAP = {
    "patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2],
    "num_mel_bins": 16, "spec_size": 64, "window_size": 4,
}  # fmt: skip
FRAMES = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}

MODELS = {
    "wav2vec2": ("Wav2Vec2ForCTC", {**WAVES, "vocab_size": 8}, "Wav2Vec2FeatureExtractor", {}),
    "wavlm": ("WavLMModel", {**WAVES, "feat_extract_norm": "layer"}, "Wav2Vec2FeatureExtractor", {}),
    "hubert": ("HubertModel", WAVES, "Wav2Vec2FeatureExtractor", {"do_normalize": False}),
    "audio-spectrogram-transformer": (
        "ASTForAudioClassification",
        {**LAYERS, "num_mel_bins": 16, "max_length": 64, "patch_size": 8, "frequency_stride": 8, "time_stride": 8},
        "ASTFeatureExtractor",
        {"num_mel_bins": 16, "max_length": 64, "mean": -1.0, "std": 2.0},
    ),
    "whisper": (
        "WhisperForConditionalGeneration",
        {
            "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "num_mel_bins": 16,
            "max_source_positions": 50, "vocab_size": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        "WhisperFeatureExtractor",
        {"feature_size": 16, "chunk_length": 1},
    ),
    "clap": (
        "ClapModel",
        {"audio_config": CLAP, "text_config": TEXT, "projection_dim": 8},
        "ClapFeatureExtractor",
        {"feature_size": 16, "max_length_s": 1, "truncation": "rand_trunc", "sampling_rate": 16_000, "hop_length": 160,
         "frequency_max": 8_000},
    ),
    "pe_audio": (
        "PeAudioFrameLevelModel",
        {"audio_config": PE_AUDIO, "text_config": MODERN_BERT},
        "PeAudioFeatureExtractor",
        PE_SOUND,
    ),
    "pe_audio_video": (
        "PeAudioVideoModel",
        {
            "audio_video_config": {**LAYERS, "head_dim": 8, "audio_config": PE_AUDIO, "video_config": PE_VIDEO},
            "text_config": MODERN_BERT,
        },
        "PeAudioFeatureExtractor",
        PE_SOUND,
    ),
    "videomae": (
        "VideoMAEForVideoClassification",
        {**LAYERS, "image_size": 32, "patch_size": 8, "num_frames": 4},
        "VideoMAEImageProcessor",
        {**FRAMES, "size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
    ),
    "vjepa2": (
        "VJEPA2Model",
        {
            **LAYERS, "hidden_size": 24, "mlp_ratio": 2, "crop_size": 32, "patch_size": 8, "frames_per_clip": 4,
            "pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 2, "num_pooler_layers": 1,
        },
        "VJEPA2VideoProcessor",
        {**FRAMES, "crop_size": 32},
    ),
}  # fmt: skip
"""By ``model_type``: a class with a part that is not used, its configuration, how inputs are prepared."""


def save(kind, folder):
    """Save a small checkpoint to a folder; return the folder as a string."""
    model, values, preparation, options = MODELS[kind]
    torch.manual_seed(0)
    built = getattr(transformers, model)(transformers.AutoConfig.for_model(kind, **values))
    for name, part in built.named_modules():
        if name.endswith("block2.project"):  # of PE-AV: random weights would mix five frames alike
            torch.nn.init.zeros_(part.weight)
        elif isinstance(part, torch.nn.Conv1d) and "dac_encoder" in name and "res_unit" not in name:
            torch.nn.init.kaiming_normal_(part.weight)  # its own are so small that every sound would be the same
    built.save_pretrained(folder)
    getattr(transformers, preparation)(**options).save_pretrained(folder)
    if kind == "pe_audio_video":
        options = {**FRAMES, "num_frames": 4, "size": {"height": 32, "width": 32}}
        (folder / "video_preprocessor_config.json").write_text(json.dumps(options))
    return str(folder)
