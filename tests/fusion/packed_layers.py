"""A packed backend that runs everywhere, batches for it, and a comparison with the padded reference."""

import torch

from umie.fusion.kernels import LayerInputs, Projections, registry
from umie.fusion.kernels.packing import PackedKernel, blocks_reference

REFERENCE = registry.build("reference")


class Plain(PackedKernel):
    """Packed, with attention from an explicit mask."""

    name = "plain"

    def unsupported_reason(self, case):
        return None

    def blocks(self, *arguments):
        return blocks_reference(*arguments)


def mask_of(*rows):
    return torch.tensor([[mark == "x" for mark in row] for row in rows])


QUERIES = mask_of("xxx.", "xx..", "....", "x.xx", "x...")
KEYS = mask_of("xx", "..", "xx", ".x", "x.")


def draw(shape, seed=0, *, gate=True, residual=True):
    """Return the inputs of a layer in float64 by name; shape is B, T, V, H, d, D."""
    batch, tokens, slots, heads, width, d_model = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*sizes):
        return torch.randn(sizes, generator=generator, dtype=torch.float64) * sizes[-1] ** -0.25

    inner = heads * width
    inputs = {"queries": normal(batch, tokens, d_model), "keys": normal(batch, slots, d_model)}
    inputs |= {name: normal(inner, d_model) for name in ("query", "key", "value")} | {"output": normal(d_model, inner)}
    if gate:
        inputs["gate"] = normal(batch, 1)[:, 0]
    if residual:
        inputs["residual"] = normal(batch, tokens, d_model)
    return inputs


def run(kernel, inputs, heads, query_mask, key_mask, dropout=0.0):
    weights = Projections(*(inputs[name] for name in ("query", "key", "value", "output")))
    return kernel.layer(
        LayerInputs(
            queries=inputs["queries"],
            keys=inputs["keys"],
            weights=weights,
            num_heads=heads,
            key_mask=key_mask,
            query_mask=query_mask,
            scale=1.0,
            dropout=dropout,
            gate=inputs.get("gate"),
            residual=inputs.get("residual"),
        )
    )


def compare(kernel, inputs, heads, query_mask, key_mask):
    """Compare values and gradients at real tokens with the reference, and the other values with the residual."""
    real = torch.ones_like(inputs["queries"][..., 0], dtype=torch.bool) if query_mask is None else query_mask
    found = []
    for each in (kernel, REFERENCE):
        leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
        out = run(each, leaves, heads, query_mask, key_mask)
        upstream = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1)) * real[..., None]
        found.append((out.detach(), torch.autograd.grad((out * upstream).sum(), list(leaves.values()))))
    (out, grads), (expected, exact_grads) = found
    torch.testing.assert_close(out[real], expected[real], atol=1e-10, rtol=1e-10)
    still = ~(real & key_mask.any(1, keepdim=True))
    assert torch.equal(out[still], inputs.get("residual", torch.zeros_like(out))[still])
    for name, grad, exact in zip(inputs, grads, exact_grads, strict=True):
        torch.testing.assert_close(grad, exact, atol=1e-10, rtol=1e-10, msg=lambda text, name=name: f"{name}: {text}")
