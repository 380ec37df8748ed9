"""`sdpa`: torch's scaled dot-product attention; it runs on every device and under every compiler."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from umie.fusion.kernels import registry
from umie.fusion.kernels.base import Kernel, KernelCase


@registry.register("sdpa")
class Sdpa(Kernel):
    """``torch.nn.functional.scaled_dot_product_attention``."""

    def cost(self, case: KernelCase) -> float | None:
        """Return the multiply-adds of the matrix products."""
        inner = case.num_heads * case.head_dim
        cost = 2.0 * case.num_queries * case.num_keys * inner
        if case.d_model is not None:
            cost += 2.0 * (case.num_queries + case.num_keys) * case.d_model * inner
        return case.batch * cost

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor, scale: float, dropout: float) -> Tensor:
        """Return attention, as described in ``Kernel.attend``."""
        has_keys = key_mask.any(dim=1)
        # A fully masked row yields 0 or NaN depending on the kernel, so unmask it and zero its keys and values.
        mask = (key_mask | ~has_keys[:, None])[:, None, None, :]
        v = v.masked_fill(~key_mask[:, :, None, None], 0)
        k = k.masked_fill(~has_keys[:, None, None, None], 0)
        mixed = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, dropout_p=dropout, scale=scale
        )
        return mixed.transpose(1, 2)
