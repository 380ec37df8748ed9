"""The contract of every attention backend: the values and gradients of the reference, whatever form, mask, precision.

A backend is measured against `reference` in float64, which `tests/fusion/test_attention.py` holds against a loop.
"""

import dataclasses
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umie.fusion.kernels import Case, Projections, registry

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


LEARNS_WITHOUT_RESIDUAL = (
    "test_values_and_gradients_of_all_inputs",
    "test_any_shape_and_mask",
    "test_an_example_without_keys_is_exact_and_has_no_gradient",
    "test_what_stands_at_masked_places_never_matters",
    "test_batch_invariance",
    "test_strided_inputs_and_gradients",
    "test_one_picture_for_all_texts",
    "test_frozen_parts",
    "test_gradcheck",
)


@pytest.fixture(autouse=True)
def known_defect(request):
    """`absorbed` returns a gradient for the residual also where there is none."""
    options = getattr(request.node, "callspec", None) and request.node.callspec.params
    if (
        options
        and request.node.originalname in LEARNS_WITHOUT_RESIDUAL
        and options["name"] == "absorbed"
        and (options.get("form", "layer") == "layer" or request.node.originalname == "test_any_shape_and_mask")
        and not options.get("dropout")
        and options.get("form") != "attend"
    ):
        reason = "a gradient for the residual that is not there"
        request.node.add_marker(pytest.mark.xfail(strict=True, reason=reason))


def runnable(name, form, device, shape, dtype=torch.float32, dropout=0.0):
    """Return the backend, or skip with its reason."""
    kernel = registry.build(name)
    if form == "attend" and kernel.whole_layer_only:
        pytest.skip(f"{name} has no form without projections")
    reason = kernel.why_not(case_of(form, device, shape, dtype, dropout))
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    return kernel


def case_of(form, device, shape, dtype=torch.float32, dropout=0.0):
    return Case(
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
        inputs["queries"],
        inputs["keys"],
        Projections(*(inputs[name] for name in PROJECTIONS)),
        num_heads=shape.heads,
        key_mask=key_mask,
        query_mask=query_mask,
        scale=scale,
        dropout=dropout,
        gate=inputs.get("gate"),
        residual=inputs.get("residual"),
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


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("scaled", [False, True], ids=["scale 1", "1/sqrt(d)"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@every_form
@every_kernel
def test_values_and_gradients_of_all_inputs(name, device, form, shape, scaled, dtype):
    kernel = runnable(name, form, device, shape, dtype)
    inputs = draw(form, shape)
    narrowed = ("q",) if form == "attend" else ("query",)
    if not scaled:  # T5 starts with the factor in its weights
        inputs |= {label: inputs[label] * shape.width**-0.5 for label in narrowed}
    inputs = to(inputs, device, dtype)
    key_mask, query_mask = (mask.to(device) for mask in masks(shape))
    options = {"key_mask": key_mask, "query_mask": query_mask, "scale": shape.width**-0.5 if scaled else 1.0}
    found, expected = evaluate(kernel, inputs, shape, **options), exact(inputs, shape, **options)
    assert found[0].dtype == dtype
    assert all(grad.dtype == dtype for grad in found[1].values())
    few = FEW_TERMS if dtype == torch.bfloat16 and shape != SHAPES["flan-t5-small"] else None
    assert_equal_results(found, expected, TOLERANCES[dtype], gradients=few, elementwise=dtype == torch.float32)


@st.composite
def problems(draw):
    shape = Shape(*(draw(st.integers(1, most)) for most in (4, 6, 6, 3, 9, 20)))
    key_mask, query_mask = (
        torch.tensor(draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))).view(
            rows, columns
        )
        for rows, columns in ((shape.batch, shape.slots), (shape.batch, shape.tokens))
    )
    parts = {"gate": draw(st.booleans()), "residual": draw(st.booleans())}
    return (
        shape,
        key_mask,
        query_mask,
        draw(st.sampled_from([1.0, 0.3, -0.5])) * shape.width**-0.5,
        parts,
        draw(st.integers(0, 99)),
    )


@pytest.mark.parametrize("form", ["attend", FORMS[2]])
@every_kernel
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems())
def test_any_shape_and_mask(name, device, form, problem):
    runnable(name, form, device, SHAPES["small"])
    shape, key_mask, query_mask, scale, parts, seed = problem
    kernel = registry.build(name)
    if kernel.why_not(case_of(form, device, shape)) is not None:
        return
    inputs = to(draw(form, shape, seed, **parts), device, torch.float32)
    options = {"key_mask": key_mask.to(device), "query_mask": query_mask.to(device), "scale": scale}
    assert_equal_results(
        evaluate(kernel, inputs, shape, **options),
        exact(inputs, shape, **options),
        TOLERANCES[torch.float32],
        share=0.5,
    )


@every_form
@every_kernel
def test_an_example_without_keys_is_exact_and_has_no_gradient(name, device, form):
    shape = SHAPES["small"]
    kernel = runnable(name, form, device, shape)
    inputs = to(draw(form, shape), device, torch.float32)
    for key_mask in (masks(shape)[0], torch.zeros(shape.batch, shape.slots, dtype=torch.bool)):
        value, grads = evaluate(kernel, inputs, shape, key_mask=key_mask.to(device), scale=1.0)
        empty = ~key_mask.any(dim=1)
        assert empty.any()
        assert torch.equal(value[empty], inputs.get("residual", torch.zeros_like(value))[empty])
        for label, grad in grads.items():
            assert grad.isfinite().all(), label
            if label == "residual":
                assert grad.any(dim=-1).all()
            elif label not in PROJECTIONS:
                assert not grad[empty].any(), label
            elif empty.all():
                assert not grad.any(), label


@every_form
@every_kernel
def test_what_stands_at_masked_places_never_matters(name, device, form):
    shape = SHAPES["small"]
    kernel = runnable(name, form, device, shape)
    clean = draw(form, shape)
    key_mask, query_mask = masks(shape)
    options = {"key_mask": key_mask.to(device), "query_mask": query_mask.to(device), "scale": 0.4}
    expected = exact(to(clean, device, torch.float64), shape, **options)
    own = [label for label in clean if label not in PROJECTIONS]
    for garbage in (1e4, -1e4, 1e15):
        dirty = {label: value.clone() for label, value in clean.items()}
        for label in ("k", "v", "keys"):
            if label in dirty:
                dirty[label][~key_mask] = garbage
        if "queries" in dirty:
            dirty["queries"][~query_mask] = garbage
        found = evaluate(kernel, to(dirty, device, torch.float32), shape, **options)
        assert_equal_results(found, expected, 1e-5)
        for label in own:
            if label in ("k", "v", "keys"):
                assert not found[1][label][~key_mask.to(device)].any(), label


@every_kernel
def test_values_at_masked_slots_may_be_no_numbers(name, device):
    shape = SHAPES["small"]
    kernel = runnable(name, "attend", device, shape)
    inputs = to(draw("attend", shape), device, torch.float32)
    options = {"key_mask": masks(shape)[0].to(device), "scale": 0.4}
    expected = exact(inputs, shape, **options)
    for garbage in (torch.inf, torch.nan):
        inputs["v"][~options["key_mask"]] = garbage
        assert_equal_results(evaluate(kernel, inputs, shape, **options), expected, 1e-5)


@every_form
@every_kernel
def test_batch_invariance(name, device, form):
    """An example alone, without its padding, has the values and gradients that it has in a batch."""
    shape = SHAPES["small"]
    kernel = runnable(name, form, device, shape)
    inputs = to(draw(form, shape), device, torch.float32)
    key_mask, query_mask = (mask.to(device) for mask in masks(shape))
    value, grads = evaluate(kernel, inputs, shape, key_mask=key_mask, query_mask=query_mask, scale=0.4)
    upstream = torch.randn(value.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(device)
    for row in range(shape.batch):
        places = {"q": query_mask[row], "queries": query_mask[row], "residual": query_mask[row]}
        places |= dict.fromkeys(("k", "v", "keys"), key_mask[row])
        places = {label: real for label, real in places.items() if label in inputs}
        if not key_mask[row].any():  # a batch has one slot at least
            places = {label: real for label, real in places.items() if label not in ("k", "v", "keys")}
        alone = {
            label: (
                x if label in PROJECTIONS else x[row : row + 1, places[label]] if label in places else x[row : row + 1]
            )
            .detach()
            .requires_grad_()
            for label, x in inputs.items()
        }
        mask = key_mask[row : row + 1] if not key_mask[row].any() else key_mask.new_ones(1, int(key_mask[row].sum()))
        out = apply(kernel, alone, shape, key_mask=mask, scale=0.4)
        torch.testing.assert_close(out[0], value[row, query_mask[row]], atol=1e-5, rtol=1e-5)
        own = {label: x for label, x in alone.items() if label not in PROJECTIONS}
        loss = (out[0] * upstream[row, query_mask[row]].to(out.dtype)).sum()
        for (label, _), grad in zip(own.items(), torch.autograd.grad(loss, list(own.values())), strict=True):
            together = grads[label][row, places[label]] if label in places else grads[label][row]
            torch.testing.assert_close(grad[0], together, atol=1e-5, rtol=1e-5)


@every_form
@every_kernel
def test_strided_inputs_and_gradients(name, device, form):
    """Views of other tensors, and a gradient without memory of its own (as ``sum`` gives)."""
    shape = SHAPES["small"]
    kernel = runnable(name, form, device, shape)
    inputs = to(draw(form, shape), device, torch.float32)
    key_mask = masks(shape)[0].to(device)
    strided, dense = {}, {}
    for label, x in inputs.items():
        dense[label] = x.clone().requires_grad_()
        spread = torch.full((*x.shape, 2), torch.nan, device=device)
        spread[..., 0] = x
        view = spread.transpose(0, -2).contiguous().transpose(0, -2)[..., 0] if x.ndim > 1 else spread[..., 0]
        assert not view.is_contiguous()
        strided[label] = view.detach().requires_grad_()
    found, expected = (apply(kernel, each, shape, key_mask=key_mask, scale=0.4) for each in (strided, dense))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    grads = (torch.autograd.grad(out.sum(), list(each.values())) for out, each in ((found, strided), (expected, dense)))
    for mine, other in zip(*grads, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


@every_kernel
def test_one_picture_for_all_texts(name, device):
    """Keys that are one example expanded over the batch."""
    shape = SHAPES["small"]
    kernel = runnable(name, "layer", device, shape)
    inputs = to(draw("layer", shape), device, torch.float32)
    one = inputs["keys"][:1].clone().requires_grad_()
    key_mask = torch.ones(shape.batch, shape.slots, dtype=torch.bool, device=device)
    inputs["keys"] = one.expand(shape.batch, -1, -1)
    out = apply(kernel, inputs, shape, key_mask=key_mask.expand(shape.batch, -1), scale=0.4)
    (grad,) = torch.autograd.grad(out.sum(), one)
    inputs["keys"] = inputs["keys"].detach().contiguous().requires_grad_()
    again = apply(kernel, inputs, shape, key_mask=key_mask, scale=0.4)
    torch.testing.assert_close(out, again)
    torch.testing.assert_close(grad[0], torch.autograd.grad(again.sum(), inputs["keys"])[0].sum(0))


@every_form
@every_kernel
def test_frozen_parts(name, device, form):
    """Every input as the only one that learns, and as the only one that does not."""
    shape = SHAPES["small"]
    kernel = runnable(name, form, device, shape)
    inputs = to(draw(form, shape), device, torch.float32)
    options = {"key_mask": masks(shape)[0].to(device), "scale": 0.4}
    value, grads = evaluate(kernel, inputs, shape, **options)
    for label in inputs:
        for wanted in ([label], [other for other in inputs if other != label]):
            part, some = evaluate(kernel, inputs, shape, wanted=wanted, **options)
            torch.testing.assert_close(part, value, atol=1e-6, rtol=1e-6)
            for other in wanted:
                torch.testing.assert_close(some[other], grads[other], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@every_form
@every_kernel
def test_without_gradients(name, device, form, mode):
    shape = SHAPES["small"]
    kernel = runnable(name, form, device, shape)
    inputs = {label: x.requires_grad_() for label, x in to(draw(form, shape), device, torch.float32).items()}
    before = {label: x.detach().clone() for label, x in inputs.items()}
    options = {"key_mask": masks(shape)[0].to(device), "scale": 0.4}
    with mode():
        out = apply(kernel, inputs, shape, **options)
    assert not out.requires_grad
    torch.testing.assert_close(out.clone(), exact(inputs, shape, **options)[0].float(), atol=1e-5, rtol=1e-5)
    assert all(torch.equal(x, before[label]) for label, x in inputs.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("form", FORMS[1:])
@every_kernel
def test_autocast_over_weights_in_float32(name, device, form, dtype):
    shape = dataclasses.replace(SHAPES["flan-t5-small"], batch=3)
    kernel = runnable(name, form, device, shape, dtype)
    inputs = to(draw(form, shape), device, torch.float32)
    key_mask = masks(shape)[0].to(device)
    options = {"key_mask": key_mask, "scale": shape.width**-0.5}
    with torch.autocast(device, dtype):
        found = evaluate(kernel, inputs, shape, **options)
    assert_equal_results(found, exact(inputs, shape, **options), TOLERANCES[dtype], elementwise=False)
    assert all(grad.dtype == torch.float32 for grad in found[1].values())
    if "residual" in inputs:  # keeps its precision
        assert found[0].dtype == torch.float32
        empty = ~key_mask.any(dim=1)
        assert torch.equal(found[0][empty], inputs["residual"][empty])


@every_form
@every_kernel
def test_dropout_keeps_the_expectation(name, device, form):
    copies, share = 6000, 0.4
    shape = Shape(batch=copies, tokens=2, slots=3, heads=2, width=2, d_model=4)
    kernel = runnable(name, form, device, shape, dropout=share)
    small = dataclasses.replace(shape, batch=1)
    inputs = to(draw(form, small, seed=3), device, torch.float32)
    many = {
        label: x if label in PROJECTIONS else x.expand(copies, *x.shape[1:]).contiguous() for label, x in inputs.items()
    }
    key_mask = torch.tensor([[True, False, True]], device=device)
    torch.manual_seed(0)
    drawn = apply(kernel, many, shape, key_mask=key_mask.expand(copies, -1).contiguous(), scale=0.4, dropout=share)
    still = apply(kernel, inputs, small, key_mask=key_mask, scale=0.4)[0]
    error = (drawn.mean(0) - still).abs()
    assert (error < 5 * drawn.std(0) / math.sqrt(copies)).all()
    assert drawn.std(0).min() > 0.01  # it does drop
    flat = (drawn - drawn.mean(0)).flatten(1)
    rows = flat / flat.std(0)
    assert (rows[1:] * rows[:-1]).mean().abs() < 0.1  # each example draws for itself


@every_form
@every_kernel
def test_dropout_follows_the_seed_and_leaves_empty_rows_alone(name, device, form):
    shape = dataclasses.replace(SHAPES["small"], slots=9)
    kernel = runnable(name, form, device, shape, dropout=0.5)
    inputs = to(draw(form, shape), device, torch.float32)
    key_mask = masks(shape)[0].to(device)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(apply(kernel, inputs, shape, key_mask=key_mask, scale=0.4, dropout=0.5))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    empty = ~key_mask.any(dim=1)
    assert torch.equal(found[0][empty], inputs.get("residual", torch.zeros_like(found[0]))[empty])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@every_form
@every_kernel
def test_gradcheck(name, device, form, dropout):
    """Against finite differences; with dropout under one seed."""
    shape = Shape(batch=4, tokens=2, slots=3, heads=2, width=3, d_model=5)
    kernel = runnable(name, form, device, shape, torch.float64, dropout)
    inputs = {label: x.requires_grad_() for label, x in to(draw(form, shape), device, torch.float64).items()}
    key_mask = masks(shape)[0].to(device)

    def compute(*values):
        torch.manual_seed(5)
        return apply(
            kernel, dict(zip(inputs, values, strict=True)), shape, key_mask=key_mask, scale=0.4, dropout=dropout
        )

    assert torch.autograd.gradcheck(compute, list(inputs.values()))
