"""What the contract of the attention backends is tried on: shapes, masks, inputs, and how results are compared."""

import dataclasses

import pytest
import torch

from umie.fusion.kernels import KernelCase, LayerInputs, Projections, registry

PROJECTIONS = ("query", "key", "value", "output")
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 3e-3}
FEW_TERMS = 3e-2  # what bfloat16's gradients are held to where few terms are summed and may cancel
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@dataclasses.dataclass(frozen=True)
class Shape:
    """B, T, V, H, d, D."""

    batch: int = 5
    tokens: int = 5
    slots: int = 4
    heads: int = 2
    width: int = 8
    d_model: int = 16


SHAPES = {
    "small": Shape(),
    "one token": Shape(tokens=1),
    "one slot": Shape(slots=1),
    "heads of 5": Shape(heads=3, width=5),  # 15 is not 16
    "heads of 7": Shape(heads=2, width=7, d_model=18),
    "flan-t5-small": Shape(batch=2, tokens=17, slots=37, heads=6, width=64, d_model=512),
}
FORMS = ("attend", "layer", "layer, gate and residual")
KERNELS = [pytest.param(name, device, id=f"{name}-{device}") for name in registry.names() for device in DEVICES]
every_kernel = pytest.mark.parametrize(("name", "device"), KERNELS)
every_form = pytest.mark.parametrize("form", FORMS)


def runnable(name, form, device, shape, dtype=torch.float32, dropout=0.0):
    """Return the backend, or skip with its reason."""
    kernel = registry.build(name)
    if form == "attend" and kernel.whole_layer_only:
        pytest.skip(f"{name} has no form without projections")
    reason = kernel.unsupported_reason(case_of(form, device, shape, dtype, dropout))
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    return kernel


def case_of(form, device, shape, dtype=torch.float32, dropout=0.0):
    return KernelCase(
        device=device,
        dtype=dtype,
        batch=shape.batch,
        num_queries=shape.tokens,
        num_keys=shape.slots,
        num_heads=shape.heads,
        head_dim=shape.width,
        d_model=None if form == "attend" else shape.d_model,
        needs_grad=True,
        dropout=dropout,
    )


def masks(shape):
    """Rows in turn: all real, holes, nothing, the last alone, ragged; and queries ragged in another way."""
    keys = torch.zeros(shape.batch, shape.slots, dtype=torch.bool)
    queries = torch.zeros(shape.batch, shape.tokens, dtype=torch.bool)
    for row in range(shape.batch):
        chosen = (slice(None), slice(0, None, 2), slice(0), slice(-1, None), slice(0, 1 + shape.slots // 2))[row % 5]
        keys[row, chosen] = True
        queries[row, : max(1, shape.tokens - 2 * (row % 3))] = True
    return keys, queries


def draw(form, shape, seed=0, gate=True, residual=True):
    """Return inputs in float64, logits of unit variance, by name; in the third form gates of either sign and 0."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*sizes, std=1.0):
        return std * torch.randn(sizes, generator=generator, dtype=torch.float64)

    if form == "attend":
        keys = (shape.batch, shape.slots, shape.heads, shape.width)
        return {"q": normal(shape.batch, shape.tokens, *keys[2:]), "k": normal(*keys), "v": normal(*keys)}
    inner = shape.heads * shape.width
    inputs = {
        "queries": normal(shape.batch, shape.tokens, shape.d_model),
        "keys": normal(shape.batch, shape.slots, shape.d_model),
        "query": normal(inner, shape.d_model, std=shape.d_model**-0.5),
        "key": normal(inner, shape.d_model, std=shape.d_model**-0.5),
        "value": normal(inner, shape.d_model, std=shape.d_model**-0.5),
        "output": normal(shape.d_model, inner, std=inner**-0.5),
    }
    if form == FORMS[2]:
        if gate:
            inputs["gate"] = torch.tensor([0.7, -0.01, 1.3, -2.0, 0.0], dtype=torch.float64).repeat(9)[: shape.batch]
        if residual:
            inputs["residual"] = normal(shape.batch, shape.tokens, shape.d_model)
    return inputs


def apply(kernel, inputs, shape, *, key_mask, scale, query_mask=None, dropout=0.0):
    if "q" in inputs:
        return kernel.attend(inputs["q"], inputs["k"], inputs["v"], key_mask=key_mask, scale=scale, dropout=dropout)
    return kernel.layer(
        LayerInputs(
            queries=inputs["queries"],
            keys=inputs["keys"],
            weights=Projections(*(inputs[name] for name in PROJECTIONS)),
            num_heads=shape.heads,
            key_mask=key_mask,
            query_mask=query_mask,
            scale=scale,
            dropout=dropout,
            gate=inputs.get("gate"),
            residual=inputs.get("residual"),
        )
    )


def evaluate(kernel, inputs, shape, *, wanted=None, **options):
    """Return the value and the gradients of ``wanted`` (all by default), from a loss that reads real queries alone."""
    wanted = list(inputs) if wanted is None else wanted
    leaves = {name: value.detach().clone().requires_grad_(name in wanted) for name, value in inputs.items()}
    out = apply(kernel, leaves, shape, **options)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out.device)
    if options.get("query_mask") is not None:
        real = options["query_mask"].unflatten(1, (-1,) + (1,) * (out.ndim - 2))
        upstream = upstream.masked_fill(~real, 0)
        assert out.isfinite().all()
        value = out.detach().masked_fill(~real, 0)
    else:
        value = out.detach()
    grads = torch.autograd.grad((out * upstream.to(out.dtype)).sum(), [leaves[name] for name in wanted])
    return value, dict(zip(wanted, grads, strict=True))


def exact(inputs, shape, **options):
    """Return what `reference` finds in float64 for the very same numbers."""
    return evaluate(registry.build("reference"), {name: x.double() for name, x in inputs.items()}, shape, **options)


def assert_equal_results(found, expected, tolerance, *, gradients=None, elementwise=True, share=0.1):
    """Hold the norm of each difference against the norm, and its largest element against the largest.

    A gradient that is 0 but for rounding (there is one slot, or all slots are alike) has no norm of its own: it is
    held against a part of the largest of all gradients.
    """
    results = {"value": found[0], **found[1]}
    exact_results = {"value": expected[0], **expected[1]}
    for measure, part in ((torch.linalg.vector_norm, share), (lambda x: x.abs().max(), 0.5)):
        sizes = {label: measure(x).item() for label, x in exact_results.items()}
        floor = part * max((size for label, size in sizes.items() if label != "value"), default=0.0)
        for label, result in results.items():
            bound = (sizes[label] if label == "value" else max(sizes[label], floor)) * (
                tolerance if label == "value" or gradients is None else gradients
            )
            assert measure(result.double() - exact_results[label]).item() <= bound, label
        if not elementwise:
            break


def to(inputs, device, dtype):
    return {name: value.to(device, dtype) for name, value in inputs.items()}
