"""`reference`: attention as in its equation, with the softmax in float32; every other backend is tested against it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from umie.fusion.kernels import registry
from umie.fusion.kernels.base import Kernel


@registry.register("reference")
class Reference(Kernel):
    """``softmax(scale * q k^T) v`` by einsum, one intermediate result after another."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor, scale: float, dropout: float) -> Tensor:
        """Return attention, as described in ``Kernel.attend``."""
        weights = F.dropout(attention_weights(q, k, key_mask=key_mask, scale=scale), dropout)
        # Padding may hold any value, and 0 * inf is not 0.
        v = v.masked_fill(~key_mask[:, :, None, None], 0)
        return torch.einsum("bhtv,bvhd->bthd", weights, v)


def attention_weights(q: Tensor, k: Tensor, *, key_mask: Tensor, scale: float) -> Tensor:
    """Return the attention weights ``[B, H, T, V]``; zeros for an example without a key."""
    logits = torch.einsum("bthd,bvhd->bhtv", q, k) * scale
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logits = logits.masked_fill(~key_mask[:, None, None, :], torch.finfo(logits.dtype).min)
    return (logits.softmax(dim=-1) * key_mask[:, None, None, :]).to(q.dtype)
