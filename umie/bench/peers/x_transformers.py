"""x-transformers' cross-attender, configured as close to our released block as its options allow."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umie.bench.reference_layers import Equation, Parameters, multi_head_attention, rms_norm
from umie.bench.shapes import Shape


class _CrossAttender(nn.Module):
    """A cross-attender of depth 1 with the slots as its context."""

    def __init__(self, attender: nn.Module) -> None:
        super().__init__()
        self.attender = attender

    def forward(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        states: Tensor = self.attender(text, context=visual, context_mask=visual_mask)
        return states


def build(shape: Shape, weights: Mapping[str, Tensor], *, flash: bool, feed_forward: bool = True) -> nn.Module:
    """Return the cross-attender with our weights.

    With ``flash`` it computes attention with torch's sdpa, otherwise with einsum and a float32 softmax.
    """
    with warnings.catch_warnings():  # its import uses a deprecated function of torch
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        from x_transformers import CrossAttender

    d_model, num_heads, head_dim, d_ff = shape.widths.values()
    attender = CrossAttender(
        dim=d_model,
        heads=num_heads,
        attn_dim_head=head_dim,
        attn_flash=flash,
        use_rmsnorm=True,
        norm_add_unit_offset=False,
        pre_norm_has_final_norm=False,
        ff_glu=True,
        ff_no_bias=True,
        ff_mult=(d_ff + 0.5) / d_model,  # it truncates the product; rounding must not lose a column
        ff_custom_activation=nn.GELU(approximate="tanh"),
        **({"depth": 1} if feed_forward else {"custom_layers": ("c",)}),
    )
    state = {
        "layers.0.0.0.g": weights["norm.weight"],
        "layers.0.1.to_q.weight": weights["attention.query.weight"],
        "layers.0.1.to_k.weight": weights["attention.key.weight"],
        "layers.0.1.to_v.weight": weights["attention.value.weight"],
        "layers.0.1.to_out.weight": weights["attention.output.weight"],
    }
    if feed_forward:
        state |= {
            "layers.1.0.0.g": weights["feed_forward_norm.weight"],
            "layers.1.1.ff.0.proj.weight": torch.cat(
                [weights[f"feed_forward.{name}.weight"] for name in ("up", "gate")]
            ),
            "layers.1.1.ff.0.proj.bias": torch.linspace(-0.5, 0.5, 2 * d_ff),
            "layers.1.1.ff.2.weight": weights["feed_forward.down.weight"],
        }
    attender.load_state_dict(state)
    return _CrossAttender(attender)


def build_reference(
    shape: Shape, weights: Mapping[str, Tensor], *, flash: bool, feed_forward: bool = True
) -> nn.Module:
    """Return the cross-attender's equation; arguments as in ``build``.

    It is ``R = H + MHA(RMSNorm(H) -> V)``, where MHA is 0 without slots, or ``R + GLU(RMSNorm(R))``.
    """
    num_heads, head_dim = shape.widths["num_heads"], shape.widths["head_dim"]

    def equation(
        parameters: Parameters, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor
    ) -> Tensor:
        parameters = {name.removeprefix("attender.layers."): value for name, value in parameters.items()}
        projections = [parameters[f"0.1.to_{name}.weight"] for name in ("q", "k", "v", "out")]
        has_slots = visual_mask.any(1, keepdim=True)
        normed, mask = rms_norm(text, parameters["0.0.0.g"], 0.0), visual_mask | ~has_slots
        found = multi_head_attention(normed, visual, projections, num_heads=num_heads, scale=head_dim**-0.5, mask=mask)
        out = text + found * has_slots[..., None]
        if not feed_forward:
            return out
        normed = rms_norm(out, parameters["1.0.0.g"], 0.0)
        up, gate = (normed @ parameters["1.1.ff.0.proj.weight"].T + parameters["1.1.ff.0.proj.bias"]).chunk(2, -1)
        return out + (up * F.gelu(gate, approximate="tanh")) @ parameters["1.1.ff.2.weight"].T

    return Equation(build(shape, weights, flash=flash, feed_forward=feed_forward), equation)
