"""The contract of every attention backend: the reference's values and gradients for every form, mask and precision.

Backends are compared with `reference` in float64, which `tests/fusion/test_attention.py` compares with a loop. Only
what can run here is collected; a GPU adds its device.
"""

import dataclasses
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cases import (
    FEW_TERMS,
    FORMS,
    PROJECTIONS,
    SHAPES,
    TOLERANCES,
    Shape,
    apply,
    assert_equal_results,
    case_of,
    draw,
    evaluate,
    every_kernel,
    exact,
    masks,
    pairs,
    runnable,
    to,
)

from umie.fusion.kernels import registry


@pytest.mark.parametrize(("name", "device", "form", "shape", "dtype", "scaled"), pairs(), ids=str)
def test_values_and_gradients_of_all_inputs(name, device, form, shape, dtype, scaled):
    shape = SHAPES[shape]
    kernel = runnable(name, form, device, shape, dtype)
    inputs = draw(form, shape)
    narrowed = ("q",) if form == "attend" else ("query",)
    if not scaled:  # T5 has the factor in its initial weights
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


@every_kernel("attend", FORMS[2])
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems())
def test_any_shape_and_mask(name, device, form, problem):
    runnable(name, form, device, SHAPES["small"])
    shape, key_mask, query_mask, scale, parts, seed = problem
    kernel = registry.build(name)
    if kernel.unsupported_reason(case_of(form, device, shape)) is not None:
        return
    inputs = to(draw(form, shape, seed, **parts), device, torch.float32)
    options = {"key_mask": key_mask.to(device), "query_mask": query_mask.to(device), "scale": scale}
    assert_equal_results(
        evaluate(kernel, inputs, shape, **options),
        exact(inputs, shape, **options),
        TOLERANCES[torch.float32],
        any_shape=True,
    )


@every_kernel()
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


@every_kernel()
def test_masked_positions_never_matter(name, device, form):
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


@every_kernel("attend")
def test_values_at_masked_slots_may_be_nan(name, device, form):
    shape = SHAPES["small"]
    kernel = runnable(name, form, device, shape)
    inputs = to(draw(form, shape), device, torch.float32)
    options = {"key_mask": masks(shape)[0].to(device), "scale": 0.4}
    expected = exact(inputs, shape, **options)
    for garbage in (torch.inf, torch.nan):
        inputs["v"][~options["key_mask"]] = garbage
        assert_equal_results(evaluate(kernel, inputs, shape, **options), expected, 1e-5)


@every_kernel()
def test_batch_invariance(name, device, form):
    """An example by itself, without padding, has the same values and gradients as in a batch."""
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
        if not key_mask[row].any():  # a batch has at least one slot
            places = {label: real for label, real in places.items() if label not in ("k", "v", "keys")}
        single = {
            label: (
                x if label in PROJECTIONS else x[row : row + 1, places[label]] if label in places else x[row : row + 1]
            )
            .detach()
            .requires_grad_()
            for label, x in inputs.items()
        }
        mask = key_mask[row : row + 1] if not key_mask[row].any() else key_mask.new_ones(1, int(key_mask[row].sum()))
        out = apply(kernel, single, shape, key_mask=mask, scale=0.4)
        torch.testing.assert_close(out[0], value[row, query_mask[row]], atol=1e-5, rtol=1e-5)
        own = {label: x for label, x in single.items() if label not in PROJECTIONS}
        loss = (out[0] * upstream[row, query_mask[row]].to(out.dtype)).sum()
        for (label, _), grad in zip(own.items(), torch.autograd.grad(loss, list(own.values())), strict=True):
            together = grads[label][row, places[label]] if label in places else grads[label][row]
            torch.testing.assert_close(grad[0], together, atol=1e-5, rtol=1e-5)


@every_kernel()
def test_strided_inputs_and_gradients(name, device, form):
    """Views of other tensors, and an expanded gradient (as from ``sum``)."""
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


@every_kernel("layer")
def test_one_image_for_all_texts(name, device, form):
    """Keys of one example expanded over the batch."""
    shape = SHAPES["small"]
    kernel = runnable(name, form, device, shape)
    inputs = to(draw(form, shape), device, torch.float32)
    one = inputs["keys"][:1].clone().requires_grad_()
    key_mask = torch.ones(shape.batch, shape.slots, dtype=torch.bool, device=device)
    inputs["keys"] = one.expand(shape.batch, -1, -1)
    out = apply(kernel, inputs, shape, key_mask=key_mask.expand(shape.batch, -1), scale=0.4)
    (grad,) = torch.autograd.grad(out.sum(), one)
    inputs["keys"] = inputs["keys"].detach().contiguous().requires_grad_()
    again = apply(kernel, inputs, shape, key_mask=key_mask, scale=0.4)
    torch.testing.assert_close(out, again)
    torch.testing.assert_close(grad[0], torch.autograd.grad(again.sum(), inputs["keys"])[0].sum(0))


@every_kernel()
def test_frozen_parts(name, device, form):
    """Each input as the only trainable one, and as the only frozen one."""
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
@every_kernel()
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
@every_kernel(*FORMS[1:])
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
    if "residual" in inputs:  # the residual keeps its precision
        assert found[0].dtype == torch.float32
        empty = ~key_mask.any(dim=1)
        assert torch.equal(found[0][empty], inputs["residual"][empty])


@every_kernel()
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
    assert drawn.std(0).min() > 0.01  # dropout is active
    flat = (drawn - drawn.mean(0)).flatten(1)
    rows = flat / flat.std(0)
    assert (rows[1:] * rows[:-1]).mean().abs() < 0.1  # examples draw independently


@every_kernel()
def test_dropout_follows_the_seed_and_leaves_empty_rows_unchanged(name, device, form):
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
@every_kernel()
def test_gradcheck(name, device, form, dropout):
    """Against finite differences along random directions; with dropout under one seed."""
    shape = Shape(batch=4, tokens=2, slots=3, heads=2, width=3, d_model=5)
    kernel = runnable(name, form, device, shape, torch.float64, dropout)
    inputs = {label: x.requires_grad_() for label, x in to(draw(form, shape), device, torch.float64).items()}
    key_mask = masks(shape)[0].to(device)

    def compute(*values):
        torch.manual_seed(5)
        return apply(
            kernel, dict(zip(inputs, values, strict=True)), shape, key_mask=key_mask, scale=0.4, dropout=dropout
        )

    assert torch.autograd.gradcheck(compute, list(inputs.values()), fast_mode=True)
