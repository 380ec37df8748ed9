"""Cases for the contract of the attention backends: shapes, masks, inputs, and the comparison of results."""

import dataclasses

import pytest
import torch

from umie.fusion.kernels import KernelCase, LayerInputs, Projections, registry

PROJECTIONS = ("query", "key", "value", "output")
RESULT = "result"  # the label of a layer's output next to those of its gradients
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 3e-3}
FEW_TERMS = 3e-2  # tolerance of bfloat16 gradients where few terms are summed and may cancel
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


def runnable(name, form, device, shape, dtype=torch.float32, dropout=0.0):
    """Return the backend, or skip with its reason; only a backend on CUDA skips anything."""
    kernel = registry.build(name)
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


def combinations():
    """Return each name, device and form that can run here in float32."""
    return [
        (name, device, form)
        for name in registry.names()
        for device in DEVICES
        for form in FORMS
        if not (form == "attend" and registry.build(name).whole_layer_only)
        and registry.build(name).unsupported_reason(case_of(form, device, SHAPES["small"])) is None
    ]


def pairs():
    """Return cases that cover all pairs of kernel (with device and form), shape, dtype, and scale.

    They even cover all triples of kernel, dtype and scale, and of shape, dtype and scale.
    """
    settings = [(dtype, scaled) for scaled in (False, True) for dtype in TOLERANCES]
    return [
        (*kernel, shape, *settings[(row + column) % len(settings)])
        for row, kernel in enumerate(combinations())
        for column, shape in enumerate(SHAPES)
    ]


def every_kernel(*forms):
    """Return a decorator that runs a test for every backend that can run here, in some forms (all by default)."""
    chosen = [each for each in combinations() if each[2] in (forms or FORMS)]
    return pytest.mark.parametrize(("name", "device", "form"), chosen, ids=["-".join(each) for each in chosen])


def masks(shape):
    """Return key masks (all real, holes, none, only the last, ragged, in turn) and other ragged query masks."""
    keys = torch.zeros(shape.batch, shape.slots, dtype=torch.bool)
    queries = torch.zeros(shape.batch, shape.tokens, dtype=torch.bool)
    for row in range(shape.batch):
        chosen = (slice(None), slice(0, None, 2), slice(0), slice(-1, None), slice(0, 1 + shape.slots // 2))[row % 5]
        keys[row, chosen] = True
        queries[row, : max(1, shape.tokens - 2 * (row % 3))] = True
    return keys, queries


def draw(form, shape, seed=0, gate=True, residual=True):
    """Return inputs in float64 by name, with logits of unit variance; gates in the third form have both signs and 0."""
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
    """Return the value and the gradients of ``wanted`` (all by default), from a loss over real queries only."""
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
    """Return the result of `reference` in float64 for the same numbers."""
    return evaluate(registry.build("reference"), {name: x.double() for name, x in inputs.items()}, shape, **options)


def assert_equal_results(found, expected, tolerance, *, gradients=None, elementwise=True, any_shape=False):
    """Compare the norm of each difference with the norm, and its largest element with the largest.

    A gradient that is 0 except for rounding (one slot, or all slots equal) has no meaningful norm; it is compared with
    a share of the largest of all gradients. With ``any_shape`` this applies to the result too, since a few terms can
    cancel to a result of any size.
    """
    results = {RESULT: found[0], **found[1]}
    exact_results = {RESULT: expected[0], **expected[1]}
    for measure, share in ((torch.linalg.vector_norm, 0.5 if any_shape else 0.1), (lambda x: x.abs().max(), 0.5)):
        sizes = {label: measure(x).item() for label, x in exact_results.items()}
        floor = share * max((size for label, size in sizes.items() if label != RESULT), default=0.0)
        for label, result in results.items():
            is_result = label == RESULT
            size = sizes[label] if is_result and not any_shape else max(sizes[label], floor)
            bound = size * (tolerance if is_result or gradients is None else gradients)
            assert measure(result.double() - exact_results[label]).item() <= bound, label
        if not elementwise:
            break


def to(inputs, device, dtype):
    return {name: value.to(device, dtype) for name, value in inputs.items()}
