"""Zero-shot detectors of every family, a few thousand weights each, written as their checkpoints are."""

import torch
import transformers as hf

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
FAMILIES = ("grounding-dino", "mm-grounding-dino", "omdet-turbo", "owlv2", "owlvit")
TEXT = {"intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def write(family, folder):
    """Write a random detector of a family, and its processor, into a folder; return the folder."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, processor = BUILDERS[family](family)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def owl(family):
    tokenizer = clip_tokenizer(16)
    text = {**TEXT, **ids(tokenizer), "hidden_size": 16, "max_position_embeddings": 16}
    vision = {**TEXT, "hidden_size": 16, "image_size": 64, "patch_size": 16}
    name = {"owlvit": "OwlViT", "owlv2": "Owlv2"}[family]
    config = getattr(hf, f"{name}Config")(text_config=text, vision_config=vision, projection_dim=16)
    images = getattr(hf, f"{name}ImageProcessor")(size={"height": 64, "width": 64})
    model = getattr(hf, f"{name}ForObjectDetection")(config)
    for weight in model.box_head.parameters():  # random towers make boxes of no width; keep them near their patches
        weight.data *= 0.02
    return model, getattr(hf, f"{name}Processor")(image_processor=images, tokenizer=tokenizer)


def dino(family):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = hf.BertTokenizer(vocab={word: index for index, word in enumerate(words)})
    name = {"grounding-dino": "GroundingDino", "mm-grounding-dino": "MMGroundingDino"}[family]
    config = getattr(hf, f"{name}Config")(
        backbone_config=swin(),
        text_config=hf.BertConfig(vocab_size=len(words), hidden_size=16, **TEXT),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=20,
    )
    images = hf.GroundingDinoImageProcessor(size={"shortest_edge": 96, "longest_edge": 192})
    return getattr(hf, f"{name}ForObjectDetection")(config), hf.GroundingDinoProcessor(images, tokenizer)


def omdet(family):
    tokenizer = clip_tokenizer(77)
    text = {"model_type": "clip_text_model", **TEXT, **ids(tokenizer), "hidden_size": 32, "projection_dim": 32}
    config = hf.OmDetTurboConfig(
        text_config=text,
        backbone_config=swin(),
        use_timm_backbone=False,
        apply_layernorm_after_vision_backbone=False,
        encoder_in_channels=[16, 32, 64],
        vision_features_channels=[16, 16, 16],
        encoder_hidden_dim=16,
        decoder_hidden_dim=16,
        encoder_dim_feedforward=16,
        decoder_dim_feedforward=16,
        task_encoder_hidden_dim=16,
        class_embed_dim=32,
        text_projection_in_dim=32,
        text_projection_out_dim=32,
        num_queries=10,
        encoder_layers=1,
        decoder_num_layers=1,
        encoder_attention_heads=2,
        decoder_num_heads=2,
        image_size=64,
    )
    images = hf.DetrImageProcessor(size={"height": 64, "width": 64})
    model = hf.OmDetTurboForObjectDetection(config)
    for name, bias in model.decoder.named_parameters():
        if "bbox_head" in name and name.endswith("bias") and len(bias) == 4:
            bias.data[2:] = 3.0  # wide boxes, which overlap
    return model, hf.OmDetTurboProcessor(images, tokenizer)


def clip_tokenizer(length):
    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = hf.CLIPTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[])
    tokenizer.model_max_length = length
    return tokenizer


def ids(tokenizer):
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def swin():
    return hf.SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )


BUILDERS = {"grounding-dino": dino, "mm-grounding-dino": dino, "omdet-turbo": omdet, "owlv2": owl, "owlvit": owl}
