"""T5's norm and gated feed-forward layer, used by fusions and by the visual embedding."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from umie.fusion.kernels.conditions import may_fuse
from umie.fusion.kernels.cpu.feed_forward import gated_feed_forward
from umie.fusion.kernels.cpu.norm import rms_norm
from umie.linear import are_plain


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm in the precision of its weights, which under autocast differs from that of its input."""

    eps: float

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        return rms_norm(x.to(self.weight.dtype), self.weight, self.eps).to(x.dtype)


class GatedFeedForward(nn.Module):
    """The feed-forward layer of T5 v1.1: ``Wo (gelu_tanh(W0 x) * W1 x)``, without biases."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, d_ff, bias=False)
        self.up = nn.Linear(d_model, d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)
        for layer in (self.gate, self.up, self.down):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    def forward(self, states: Tensor, residual: Tensor | None = None, *, reuse_residual: bool = False) -> Tensor:
        """Return the layer's output plus ``residual``, both ``[..., D]`` like ``states``.

        With ``reuse_residual`` the result may overwrite ``residual``; this happens only when gradients are disabled.
        """
        if may_fuse(states) and are_plain(self.gate, self.up, self.down):
            weights = self.gate.weight, self.up.weight, self.down.weight
            return gated_feed_forward(states, *weights, residual=residual, reuse_residual=reuse_residual)
        out: Tensor = self.down(F.gelu(self.gate(states), approximate="tanh") * self.up(states))
        return out if residual is None else residual + out
