"""A state dict with the published names and random weights, and the model's values by plain equations in float64.

The equations share no code with the project or with transformers.
"""

import math

import torch
from torch.nn.functional import gelu

NUM_SLOTS = 37
CONFIG = {
    "vocab_size": 61, "d_model": 24, "d_kv": 5, "d_ff": 20, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 3,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20, "dropout_rate": 0.1,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "model_type": "t5",
}  # fmt: skip
OTHER = {**CONFIG, "d_model": 16, "d_kv": 8, "d_ff": 33, "num_layers": 1, "num_decoder_layers": 2, "num_heads": 4,
         "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128}  # fmt: skip


def state_dict(config=CONFIG, feature_dim=7, seed=2):
    """Draw weights large enough that attention is not flat; with this seed some gates are open and some are closed."""
    generator = torch.Generator().manual_seed(seed)
    width, inner, wide = config["d_model"], config["num_heads"] * config["d_kv"], config["d_ff"]
    state = {}

    def draw(name, *shape, scale=None):
        state[name] = torch.randn(*shape, generator=generator) * (scale or shape[-1] ** -0.5)

    def norm(name):
        state[f"{name}.weight"] = 0.5 + torch.rand(width, generator=generator)

    def attention(name, biased=False):
        for part in "qkv":
            draw(f"{name}.{part}.weight", inner, width, scale=width**-0.5 * (0.4 if part == "q" else 1))
        draw(f"{name}.o.weight", width, inner)
        if biased:
            draw(
                f"{name}.relative_attention_bias.weight",
                config["relative_attention_num_buckets"],
                config["num_heads"],
                scale=1,
            )

    def feed_forward(name):
        for part in ("wi_0", "wi_1"):
            draw(f"{name}.{part}.weight", wide, width)
        draw(f"{name}.wo.weight", width, wide)

    def stack(name, num_layers, crossed=False):
        for index in range(num_layers):
            layer = f"{name}.block.{index}.layer"
            attention(f"{layer}.0.SelfAttention", biased=index == 0)
            norm(f"{layer}.0.layer_norm")
            if crossed:
                attention(f"{layer}.1.EncDecAttention")
                norm(f"{layer}.1.layer_norm")
            feed_forward(f"{layer}.{1 + crossed}.DenseReluDense")
            norm(f"{layer}.{1 + crossed}.layer_norm")
        norm(f"{name}.final_layer_norm")

    draw("shared.weight", config["vocab_size"], width, scale=1)
    state["encoder.embed_tokens.weight"] = state["decoder.embed_tokens.weight"] = state["shared.weight"]
    stack("encoder", config["num_layers"])
    visual = "encoder.visual_embedding"
    stack(f"{visual}.vstack", 2)
    for part, width_in in (("feat_embedding", feature_dim), ("absolute_vis_pos_embedding", 5)):
        draw(f"{visual}.{part}.0.weight", width, width_in)
        draw(f"{visual}.{part}.0.bias", width, scale=0.3)
        norm(f"{visual}.{part}.1")
    state[f"{visual}.obj_order_embedding.weight"] = state["shared.weight"]
    draw(f"{visual}.img_order_embedding.weight", 2, width, scale=1)
    attention("encoder.gate.layer.0.EncDecAttention")
    norm("encoder.gate.layer.0.layer_norm")
    feed_forward("encoder.gate.layer.1.DenseReluDense")
    norm("encoder.gate.layer.1.layer_norm")
    draw("encoder.gate.feat.weight", width, 512)
    for place in ("encoder.gate.", ""):
        for side in "tv":
            draw(f"{place}proj_{side}.weight", 384, width)
            draw(f"{place}proj_{side}_2.weight", 128, 384)
    stack("decoder", config["num_decoder_layers"], crossed=True)
    draw("lm_head.weight", config["vocab_size"], width, scale=1)
    return state


def inputs(config=CONFIG, feature_dim=7, batch=4, seed=1):
    """Draw text, features, boxes and the decoder's input."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(batch, NUM_SLOTS, 2, 2, generator=generator).sort(dim=2).values
    return {
        "input_ids": torch.randint(2, config["vocab_size"], (batch, 26), generator=generator),
        "features": torch.randn(batch, NUM_SLOTS, feature_dim, generator=generator),
        "boxes": corners.flatten(2),
        "decoder_input_ids": torch.randint(2, config["vocab_size"], (batch, 11), generator=generator),
    }


def values(state, config, given):
    """Return text states, visual states, gate, fused states and logits."""
    weights = {name: value.double() for name, value in state.items()}
    heads = config["num_heads"]

    def norm(x, name):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weights[f"{name}.weight"]

    def feed_forward(x, name):
        inner = gelu(x @ weights[f"{name}.wi_0.weight"].T, approximate="tanh") * (x @ weights[f"{name}.wi_1.weight"].T)
        return inner @ weights[f"{name}.wo.weight"].T

    def attend(queries, keys, name, bias=0.0):
        def part(x, letter):
            return (x @ weights[f"{name}.{letter}.weight"].T).unflatten(-1, (heads, -1)).transpose(1, 2)

        scores = part(queries, "q") @ part(keys, "k").transpose(-1, -2) + bias
        mixed = (scores.softmax(-1) @ part(keys, "v")).transpose(1, 2).flatten(2)
        return mixed @ weights[f"{name}.o.weight"].T

    def bias(name, length, causal):
        table = weights[f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        found = torch.full((heads, length, length), -math.inf, dtype=torch.float64)
        for query in range(length):
            for key in range(query + 1 if causal else length):
                found[:, query, key] = table[bucket(key - query, causal, config)]
        return found

    def stack(x, name, num_layers, memory=None):
        places = bias(name, x.shape[1], causal=memory is not None)
        for index in range(num_layers):
            layer = f"{name}.block.{index}.layer"
            normed = norm(x, f"{layer}.0.layer_norm")
            x = x + attend(normed, normed, f"{layer}.0.SelfAttention", places)
            last = 1
            if memory is not None:
                x = x + attend(norm(x, f"{layer}.1.layer_norm"), memory, f"{layer}.1.EncDecAttention")
                last = 2
            x = x + feed_forward(norm(x, f"{layer}.{last}.layer_norm"), f"{layer}.{last}.DenseReluDense")
        return norm(x, f"{name}.final_layer_norm")

    text = stack(weights["shared.weight"][given["input_ids"]], "encoder", config["num_layers"])

    part = "encoder.visual_embedding"
    boxes = given["boxes"].double()
    area = (boxes[..., 3] - boxes[..., 1]) * (boxes[..., 2] - boxes[..., 0])
    start = 0.0
    for name, x in (
        ("feat_embedding", given["features"].double()),
        ("absolute_vis_pos_embedding", torch.cat([boxes, area[..., None]], -1)),
    ):
        projected = x @ weights[f"{part}.{name}.0.weight"].T + weights[f"{part}.{name}.0.bias"]
        start = start + norm(projected, f"{part}.{name}.1")
    start = start + weights[f"{part}.img_order_embedding.weight"][0]
    vocabulary = weights[f"{part}.obj_order_embedding.weight"]
    start = start + torch.stack([vocabulary[len(vocabulary) - 1 - slot] for slot in range(NUM_SLOTS)])
    visual = stack(start, f"{part}.vstack", 2)

    def side(x, letter):
        mean = x.mean(1)
        return (
            mean @ weights[f"encoder.gate.proj_{letter}.weight"].T @ weights[f"encoder.gate.proj_{letter}_2.weight"].T
        )

    one, other = side(text, "t"), side(visual, "v")
    gate = math.exp(0.5) * (one * other).sum(-1) / (one.norm(dim=-1) * other.norm(dim=-1))
    for _ in range(2):
        gate = torch.where(gate < 0, 0.01 * gate, gate)
    layer = "encoder.gate.layer"
    found = text + attend(norm(text, f"{layer}.0.layer_norm"), visual, f"{layer}.0.EncDecAttention")
    found = found + feed_forward(norm(found, f"{layer}.1.layer_norm"), f"{layer}.1.DenseReluDense")
    fused = text + gate[:, None, None] * found

    decoded = stack(
        weights["shared.weight"][given["decoder_input_ids"]], "decoder", config["num_decoder_layers"], memory=fused
    )
    logits = decoded @ weights["lm_head.weight"].T
    return {"text_states": text, "visual_states": visual, "gate": gate, "fused_states": fused, "logits": logits}


def bucket(distance, causal, config):
    """Return T5's bucket of a distance: exact ones, then as many on a logarithmic scale."""
    num_buckets, most = config["relative_attention_num_buckets"], config["relative_attention_max_distance"]
    found = 0
    if not causal:
        num_buckets //= 2
        found = num_buckets if distance > 0 else 0
    size = abs(distance)
    exact = num_buckets // 2
    if size < exact:
        return found + size
    share = math.log(size / exact) / math.log(most / exact)
    return found + min(num_buckets - 1, exact + int(share * (num_buckets - exact)))
