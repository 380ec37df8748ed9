"""The layout of UMIE's published checkpoints: the names of weights there and here, and the variant they describe.

Source: the names in the state dict of UMIE's released code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor
from transformers import T5Config

from umie.errors import UmieError, check_whole, shown
from umie.model import UmieConfig

NUM_SLOTS = 37  # the whole image and 36 regions
EMBEDDING, HEAD = "shared.weight", "lm_head.weight"
EMBEDDING_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# A slot's order embedding is the sum of a row for its image, of which there is one, and a row of the vocabulary.
IMAGE_ORDER = "encoder.visual_embedding.img_order_embedding.weight"
SLOT_ORDER = "encoder.visual_embedding.obj_order_embedding.weight"
SLOTS = "visual_embedding.slots.weight"

_FEATURES = "encoder.visual_embedding.feat_embedding.0.weight"
_BLOCK = re.compile(r"encoder\.visual_embedding\.vstack\.block\.(\d+)\.")
_UNUSED = re.compile(r"encoder\.gate\.feat\.(weight|bias)|proj_[tv](_2)?\.(weight|bias)")
_PARTS = ("encoder.visual_embedding.", "encoder.gate.")
_T5 = ("shared.", "encoder.", "decoder.", "lm_head.")
_OURS = "decoder.seq2seq."
_NAMES = {  # prefixes of names, there and here
    "encoder.visual_embedding.vstack.block.": "visual_embedding.layers.stack.block.",
    "encoder.visual_embedding.vstack.final_layer_norm.": "visual_embedding.norm.",
    "encoder.visual_embedding.feat_embedding.0.": "visual_embedding.feature_projection.",
    "encoder.visual_embedding.feat_embedding.1.": "visual_embedding.feature_norm.",
    "encoder.visual_embedding.absolute_vis_pos_embedding.0.": "visual_embedding.box_projection.",
    "encoder.visual_embedding.absolute_vis_pos_embedding.1.": "visual_embedding.box_norm.",
    "encoder.gate.layer.0.EncDecAttention.q.": "fusion.attention.query.",
    "encoder.gate.layer.0.EncDecAttention.k.": "fusion.attention.key.",
    "encoder.gate.layer.0.EncDecAttention.v.": "fusion.attention.value.",
    "encoder.gate.layer.0.EncDecAttention.o.": "fusion.attention.output.",
    "encoder.gate.layer.0.layer_norm.": "fusion.norm.",
    "encoder.gate.layer.1.DenseReluDense.wi_0.": "fusion.feed_forward.gate.",
    "encoder.gate.layer.1.DenseReluDense.wi_1.": "fusion.feed_forward.up.",
    "encoder.gate.layer.1.DenseReluDense.wo.": "fusion.feed_forward.down.",
    "encoder.gate.layer.1.layer_norm.": "fusion.feed_forward_norm.",
    "encoder.gate.proj_t.": "fusion.gate_text.0.",
    "encoder.gate.proj_t_2.": "fusion.gate_text.1.",
    "encoder.gate.proj_v.": "fusion.gate_visual.0.",
    "encoder.gate.proj_v_2.": "fusion.gate_visual.1.",
}
_SHAPE = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
_OTHERS = ("feature_dim", "tie_word_embeddings", "model_type", "scale_decoder_outputs", "decoder_start_token_id")


def is_unused(name: str) -> bool:
    """Return whether the published model contains this weight but never uses it."""
    return _UNUSED.fullmatch(name) is not None


def our_name(name: str) -> str | None:
    """Return our name of a published weight, or None if it belongs neither to T5 nor to a part of UMIE."""
    for theirs, ours in _NAMES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return None if name.startswith(_PARTS) or not name.startswith(_T5) else _OURS + name


def their_name(name: str) -> str:
    """Return the published name of one of our weights."""
    for theirs, ours in _NAMES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name.removeprefix(_OURS)


def variant(
    values: Mapping[str, Any], state: Mapping[str, Tensor], encoder: Mapping[str, Any], source: str
) -> tuple[UmieConfig, list[str]]:
    """Return the configuration of a published model, and the names of its options that have no meaning here.

    Args:
        values: the content of its ``config.json``, which configures its T5.
        state: its state dict, which determines the width of the features and the number of visual layers.
        encoder: name and options of the encoder of its features, without their width.
        source: the origin, recorded in the configuration.

    Raises:
        UmieError: an option is missing or wrong, or belongs to another kind of model.
    """
    missing = [name for name in _SHAPE if name not in values]
    if missing:
        raise UmieError(f"{', '.join(missing)} missing: use the config.json of the checkpoint's T5")
    for name in _SHAPE:
        check_whole(name, values[name], 1)
    if _FEATURES not in state or state[_FEATURES].ndim != 2:
        raise UmieError(f"{source}: has no matrix {_FEATURES}: is it a state dict of UMIE's published code?")
    for name, needed in (("feed_forward_proj", "gated-gelu"), ("layer_norm_epsilon", 1e-6)):
        if values.get(name, needed) != needed:
            raise UmieError(f"{name} is {shown(values[name])}: a published UMIE model has {needed!r}")
    width = state[_FEATURES].shape[1]
    if values.get("feature_dim", width) != width:
        raise UmieError(
            f"feature_dim is {shown(values['feature_dim'])} but {_FEATURES} has width {width}: correct feature_dim"
        )
    known = {field.name for field in fields(T5Config)}
    t5 = {name: value for name, value in values.items() if name in known and name not in _OTHERS}
    t5 |= {"feed_forward_proj": "gated-gelu", "decoder_start_token_id": values.get("decoder_start_token_id", 0)}
    # As in FLAN-T5: the head is a separate matrix and logits are not scaled, whatever transformers 5 has written.
    t5 |= {"model_type": "t5", "tie_word_embeddings": False}
    visual = {
        "layers": "t5",
        "num_layers": 1 + max((int(found[1]) for found in map(_BLOCK.match, state) if found), default=-1),
        "normalize": True,
        "num_slot_embeddings": NUM_SLOTS,
        "num_position_buckets": t5.get("relative_attention_num_buckets", 32),
        "max_position_distance": t5.get("relative_attention_max_distance", 128),
        "dropout": t5.get("dropout_rate", 0.1),
    }
    config = UmieConfig(
        encoder={**encoder, "feature_dim": width},
        visual_embedding=visual,
        fusion={
            "name": "gated",
            "residual": "released",
            "dropout": visual["dropout"],
            "attention_dropout": visual["dropout"],
        },
        decoder={"name": "t5", "source": source, "config": t5},
    )
    return config, sorted(name for name in values if name not in known and name not in _OTHERS)


def slot_embeddings(state: Mapping[str, Tensor]) -> Tensor:
    """Return ``[37, D]``: for each slot, the sum of its image's row and its row of the vocabulary.

    Slot s has row ``rows - 1 - s`` of the vocabulary; the image has row 0.

    Raises:
        UmieError: there are fewer rows than slots.
    """
    rows = state.get(SLOT_ORDER, state[EMBEDDING])
    if len(rows) < NUM_SLOTS:
        raise UmieError(
            f"{SLOT_ORDER} has {len(rows)} rows, but needs at least {NUM_SLOTS}: use a state dict saved by UMIE's "
            "published code"
        )
    image = state[IMAGE_ORDER][0]
    return (rows[-NUM_SLOTS:].flip(0).float() + image.float()).to(image.dtype)
