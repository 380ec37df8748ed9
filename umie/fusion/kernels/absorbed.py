"""`absorbed`: fold the query and output projections into the keys and values, which are few, once per image.

``q k^T = x (Wq^T k)^T`` and ``(p v) Wo^T = p (v Wo^T)``. With V slots and H heads the folded keys and values are
``[H * V, D]``. If H * V < D (FLAN-T5 base: 12 * 37 = 444 < 768), a token needs two products with them instead of two
with the projections and two with the slots. Folding costs as much as projecting the slots once more, so it pays only
for long texts.

Shapes: B batch, T queries, V slots, D model width, H heads, d head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from umie.fusion.kernels import registry
from umie.fusion.kernels.base import Kernel, KernelCase, LayerInputs, split_heads
from umie.fusion.kernels.conditions import autocast_dtype, may_fuse, needs_gradient

FOLD_COST = 1.5  # per multiply-add while folding, relative to a large product: the inner dimension is only d


@registry.register("absorbed")
class Absorbed(Kernel):
    """The whole layer in folded form; on a CPU image by image, so that the folded tensors stay in the caches."""

    whole_layer_only = True

    def cost(self, case: KernelCase) -> float | None:
        """Return the multiply-adds, weighted by FOLD_COST for folding."""
        if case.d_model is None or case.device != "cpu" or case.compiling:
            return None  # measured only on CPUs
        slots = case.num_heads * case.num_keys
        project = 2.0 * case.num_keys * case.d_model * case.num_heads * case.head_dim
        return case.batch * (2.0 * case.num_queries * slots * case.d_model + project * (1 + FOLD_COST))

    def layer(self, inputs: LayerInputs) -> Tensor:
        """Return attention with its projections, as described in ``Kernel.layer``."""
        out: Tensor
        queries, keys, residual, norm = inputs.queries, inputs.keys, inputs.residual, inputs.norm
        weights, num_heads, key_mask = inputs.weights, inputs.num_heads, inputs.key_mask
        k, v = (
            split_heads(F.linear(keys, weight), num_heads).transpose(1, 2) for weight in (weights.key, weights.value)
        )
        has_keys = key_mask.any(dim=1)
        real = key_mask[:, None, :, None]
        # Without a real key all attention weights are equal and the values are zeros.
        k, v = (k * inputs.scale).masked_fill(~real, 0), v.masked_fill(~real, 0)
        if inputs.gate is not None:
            v = v * inputs.gate[:, None, None, None].to(v.dtype)
        bias = torch.zeros_like(key_mask, dtype=k.dtype).masked_fill(~key_mask & has_keys[:, None], -torch.inf)
        query = weights.query.view(num_heads, -1, queries.shape[-1])  # [H, d, D]
        output = weights.output.T.reshape(num_heads, -1, queries.shape[-1])
        on_cpu = queries.device.type == "cpu" and autocast_dtype(queries) is None
        image_by_image = on_cpu and not inputs.dropout and may_fuse(queries) and queries.numel() and keys.numel()
        if norm is not None and (torch.is_grad_enabled() or not image_by_image):
            queries, norm = norm(queries), None
        if not image_by_image:
            out = _whole_batch(queries, k, v, query, output, bias, inputs.dropout)
            return out if residual is None else residual + out
        added = residual if residual is not None and residual.dtype == queries.dtype else None
        save = needs_gradient(queries, k, v, query, output)
        out = _ImageByImage.apply(queries, k, v, query, output, bias, added, save, norm)
        return out if residual is None or added is not None else residual + out


def _whole_batch(
    queries: Tensor, k: Tensor, v: Tensor, query: Tensor, output: Tensor, bias: Tensor, dropout: float
) -> Tensor:
    """Return the layer for all images at once; `_ImageByImage` is tested against it."""
    folded_keys = torch.einsum("bhvi,hid->bhvd", k, query)
    folded_values = torch.einsum("bhvi,hid->bhvd", v, output)
    logits = torch.einsum("btd,bhvd->bthv", queries.to(folded_keys.dtype), folded_keys) + bias[:, None, None]
    weights = F.dropout(logits.softmax(-1), dropout).to(folded_values.dtype)
    return torch.einsum("bthv,bhvd->btd", weights, folded_values)


class _ImageByImage(torch.autograd.Function):
    """Saves only the attention weights; the backward pass folds the keys and values again."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        k: Tensor,
        v: Tensor,
        query: Tensor,
        output: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        save: bool,
        norm: Callable[[Tensor], Tensor] | None,
    ) -> Tensor:
        (batch, num_tokens, d_model), (num_heads, num_slots) = queries.shape, k.shape[1:3]
        rows = bias[:, None, None].expand(-1, 1, num_heads, -1).reshape(batch, 1, -1)
        folded = k.new_empty(num_heads, num_slots, d_model)
        flat = folded.view(-1, d_model)
        weights = queries.new_empty(batch if save else 1, num_tokens, num_heads, num_slots)
        logits = queries.new_empty(num_tokens, num_heads * num_slots)
        out = torch.empty_like(queries)
        for image in range(batch):
            normed = queries[image] if norm is None else norm(queries[image])
            torch.bmm(k[image], query, out=folded)
            torch.addmm(rows[image], normed, flat.T, out=logits)
            mixed = weights[image if save else 0]
            torch.softmax(logits.view(num_tokens, num_heads, num_slots), -1, out=mixed)
            torch.bmm(v[image], output, out=folded)
            if residual is None:
                torch.mm(mixed.view(num_tokens, -1), flat, out=out[image])
            else:
                torch.addmm(residual[image], mixed.view(num_tokens, -1), flat, out=out[image])
        if save:
            ctx.save_for_backward(queries, k, v, query, output, weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read once: checkpointing recomputes them at each access
        if not saved:  # only the residual has a gradient
            return None, None, None, None, None, None, grad, None, None
        with torch.autocast("cpu", enabled=False):
            grads = _gradients(grad, *saved)
        return *grads, None, grad if ctx.needs_input_grad[6] else None, None, None


def _gradients(
    grad: Tensor, queries: Tensor, k: Tensor, v: Tensor, query: Tensor, output: Tensor, all_weights: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients of the five tensors after ``grad``, image by image."""
    num_heads, num_slots = k.shape[1:3]
    folded = k.new_empty(num_heads, num_slots, queries.shape[-1])
    flat = folded.view(-1, queries.shape[-1])
    grads = [torch.empty_like(queries), torch.empty_like(k), torch.empty_like(v)]
    grad_queries, grad_k, grad_v = grads
    grad_query, grad_output = torch.zeros_like(query), torch.zeros_like(output)
    for image, weights in enumerate(all_weights):
        mixed = weights.flatten(1)
        torch.bmm(v[image], output, out=folded)
        grad_logits = (grad[image] @ flat.T).view_as(weights).mul_(weights)
        grad_logits.addcmul_(weights, grad_logits.sum(-1, keepdim=True), value=-1)
        torch.mm(mixed.T, grad[image], out=flat)  # of the folded values
        torch.bmm(folded, output.transpose(1, 2), out=grad_v[image])
        grad_output.baddbmm_(v[image].transpose(1, 2), folded)
        torch.bmm(k[image], query, out=folded)
        grad_logits = grad_logits.flatten(1)
        torch.mm(grad_logits, flat, out=grad_queries[image])
        torch.mm(grad_logits.T, queries[image], out=flat)  # of the folded keys
        torch.bmm(folded, query.transpose(1, 2), out=grad_k[image])
        grad_query.baddbmm_(k[image].transpose(1, 2), folded)
    return *grads, grad_query, grad_output
