"""flamingo-pytorch's gated cross-attention block; its feed-forward width costs as many multiplications as ours."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umie.bench.reference_layers import Equation, Parameters, multi_head_attention
from umie.bench.shapes import Shape


class _FlamingoBlock(nn.Module):
    """The block with all slots as the latents of one medium. It has no mask for slots.

    Without ``media_locations`` every token attends to the medium, as if they marked the first token, and three passes
    over the attention weights are saved.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        states: Tensor = self.block(text, visual[:, None])
        return states


def build(shape: Shape, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return the block with our weights; the biases of its layer norms and its tanh gates are not 0."""
    from flamingo_pytorch import GatedCrossAttentionBlock

    d_model, num_heads, head_dim, d_ff = shape.widths.values()
    inner = 3 * d_ff // 2  # two products of this width cost as much as our three of d_ff: 4 D for FLAN-T5 base
    block = GatedCrossAttentionBlock(dim=d_model, dim_head=head_dim, heads=num_heads, ff_mult=(inner + 0.5) / d_model)
    biases = torch.linspace(-0.5, 0.5, d_model)
    block.load_state_dict(
        {
            "attn_gate": torch.tensor([0.5]),
            "attn.norm.weight": weights["norm.weight"],
            "attn.norm.bias": biases,
            "attn.to_q.weight": weights["attention.query.weight"],
            "attn.to_kv.weight": torch.cat([weights["attention.key.weight"], weights["attention.value.weight"]]),
            "attn.to_out.weight": weights["attention.output.weight"],
            "ff_gate": torch.tensor([-0.7]),
            "ff.0.weight": weights["feed_forward_norm.weight"],
            "ff.0.bias": biases.flip(0),
            "ff.1.weight": torch.cat([weights["feed_forward.gate.weight"], weights["feed_forward.up.weight"]])[:inner],
            "ff.3.weight": torch.cat([weights["feed_forward.down.weight"]] * 2, 1)[:, :inner],
        }
    )
    return _FlamingoBlock(block)


def build_reference(shape: Shape, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return the block's equation: ``R = H + tanh(a) MHA(LN(H) -> V)``, then ``R + tanh(b) W2 gelu(W1 LN(R))``."""
    num_heads, head_dim = shape.widths["num_heads"], shape.widths["head_dim"]

    def equation(
        parameters: Parameters, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor
    ) -> Tensor:
        parameters = {name.removeprefix("block."): value for name, value in parameters.items()}
        query, output = parameters["attn.to_q.weight"], parameters["attn.to_out.weight"]
        projections = [query, *parameters["attn.to_kv.weight"].chunk(2), output]
        normed = _layer_norm(text, parameters["attn.norm.weight"], parameters["attn.norm.bias"])
        found = multi_head_attention(normed, visual, projections, num_heads=num_heads, scale=head_dim**-0.5)
        out = text + parameters["attn_gate"].tanh() * found
        normed = _layer_norm(out, parameters["ff.0.weight"], parameters["ff.0.bias"])
        hidden = F.gelu(normed @ parameters["ff.1.weight"].T)
        return out + parameters["ff_gate"].tanh() * (hidden @ parameters["ff.3.weight"].T)

    return Equation(build(shape, weights), equation)


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias
