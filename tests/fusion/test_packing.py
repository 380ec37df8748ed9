"""Packing: the packed positions, the computed work, and the whole layer against the padded reference."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packed_layers import KEYS, QUERIES, REFERENCE, Plain, compare, draw, mask_of, run
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from umie.errors import UmieError
from umie.fusion import registry as fusions
from umie.fusion.attention import MultiHeadAttention, explain
from umie.fusion.kernels import KernelCase, registry
from umie.fusion.kernels.packing import Packing

KERNELS = [pytest.param(Plain(), id="plain"), pytest.param(registry.build("packed"), id="packed")]
every_kernel = pytest.mark.parametrize("kernel", KERNELS)


def test_packed_positions():
    """Examples without a slot (the second) or without a token (the third) are left out; holes are not tokens."""
    packing = Packing.of(QUERIES, KEYS)
    assert packing.tokens.tolist() == [0, 1, 2, 12, 14, 15, 16]
    assert packing.slots.tolist() == [0, 1, 7, 8]
    assert packing.num_tokens == (3, 3, 1)
    assert packing.num_slots == (2, 1, 1)
    assert [row.nonzero()[:, 0].tolist() for row in packing.block_mask()] == [[0, 1]] * 3 + [[2]] * 3 + [[3]]
    assert packing.per_slot(torch.arange(5.0)).tolist() == [0, 0, 3, 4]


masks = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 5)).flatmap(
    lambda sizes: st.tuples(
        *(
            st.lists(
                st.lists(st.booleans(), min_size=columns, max_size=columns), min_size=sizes[0], max_size=sizes[0]
            ).map(torch.tensor)
            for columns in sizes[1:]
        )
    )
)
WITHOUT_IMAGES = (torch.ones(3, 4, dtype=torch.bool), torch.zeros(3, 2, dtype=torch.bool))


@given(masks)
def test_round_trip(pair):
    queries, keys = pair
    packing = Packing.of(queries, keys)
    packed = queries.any(1) & keys.any(1)
    for mask, pack, unpack in (
        (queries & packed[:, None], packing.pack_tokens, packing.unpack_tokens),
        (keys & packed[:, None], packing.pack_slots, packing.unpack_slots),
    ):
        states, into = torch.randn(*mask.shape, 2), torch.randn(*mask.shape, 2)
        assert torch.equal(pack(states), states[mask])
        assert torch.equal(unpack(pack(states)), states * mask[..., None])
        assert torch.equal(unpack(pack(states), into), torch.where(mask[..., None], states, into))
    rows = torch.arange(len(queries))[:, None]
    of_token, of_slot = (
        pack(rows.expand_as(mask)) for mask, pack in ((queries, packing.pack_tokens), (keys, packing.pack_slots))
    )
    assert torch.equal(packing.block_mask(), of_token[:, None] == of_slot)
    assert packing.num_tokens == tuple(of_token.unique(return_counts=True)[1].tolist())
    assert packing.num_slots == tuple(of_slot.unique(return_counts=True)[1].tolist())


@every_kernel
@given(masks, st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9)), st.booleans(), st.booleans())
def test_the_layer_equals_the_padded_reference(kernel, pair, widths, gate, residual):
    query_mask, key_mask = pair
    shape = (*query_mask.shape, key_mask.shape[1], *widths)
    compare(kernel, draw(shape, gate=gate, residual=residual), widths[0], query_mask, key_mask)


@every_kernel
@pytest.mark.parametrize("residual", [True, False], ids=["residual", "none"])
@pytest.mark.parametrize(
    "pair",
    [(QUERIES, KEYS), (None, KEYS), WITHOUT_IMAGES, (QUERIES[:, :1], KEYS[:, :1]), (mask_of("xx"), mask_of("x"))],
    ids=["ragged", "all tokens", "no image", "one token, one slot", "dense"],
)
def test_the_layer_at_its_edges(kernel, pair, residual):
    query_mask, key_mask = pair
    tokens = 4 if query_mask is None else query_mask.shape[1]
    shape = (len(key_mask), tokens, key_mask.shape[1], 2, 3, 5)
    compare(kernel, draw(shape, residual=residual), 2, query_mask, key_mask)


@every_kernel
@pytest.mark.parametrize("key_mask", [KEYS, torch.zeros_like(KEYS), torch.ones_like(KEYS)], ids=["some", "none", "all"])
def test_attention_without_projections_equals_the_reference(kernel, key_mask):
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(5, n, 2, 3, dtype=torch.float64, generator=generator).requires_grad_()
        for n in (4, key_mask.shape[1], key_mask.shape[1])
    ]
    found = []
    for each in (kernel, REFERENCE):
        out = each.attend(*inputs, key_mask=key_mask, scale=0.7, dropout=0.0)
        found.append((out, *torch.autograd.grad(out.square().sum(), inputs)))
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-12, rtol=1e-12)
    assert torch.equal(found[0][0][~key_mask.any(1)], torch.zeros_like(inputs[0])[~key_mask.any(1)])


@every_kernel
def test_padding_is_not_read(kernel):
    """Every position that is not packed holds NaN."""
    inputs = draw((5, 4, 2, 2, 3, 6))
    expected = run(kernel, inputs, 2, QUERIES, KEYS)
    packed = (QUERIES.any(1) & KEYS.any(1))[:, None]
    inputs["queries"][~(QUERIES & packed)] = torch.nan
    inputs["keys"][~(KEYS & packed)] = torch.nan
    leaves = {name: value.requires_grad_() for name, value in inputs.items()}
    out = run(kernel, leaves, 2, QUERIES, KEYS)
    assert torch.equal(out, expected)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum(), list(leaves.values())))


def test_padding_is_not_computed():
    """The packed layer does the work of 7 tokens and 4 slots; the padded one that of 20 and 10."""
    heads, width, d_model = 2, 3, 6
    inputs = draw((5, 4, 2, heads, width, d_model))

    def operations(kernel):
        # the counter misses the CPU's flash attention in some releases of torch
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run(kernel, inputs, heads, QUERIES, KEYS)
        return counter.get_total_flops()

    def projections(tokens, slots):
        return 2 * (2 * tokens + 2 * slots) * d_model * heads * width

    assert operations(REFERENCE) == projections(20, 10) + 4 * 20 * 2 * heads * width
    assert operations(Plain()) == projections(7, 4) + 4 * 7 * 4 * heads * width
    assert operations(registry.build("packed")) == projections(7, 4) + 4 * 20 * 2 * heads * width


@every_kernel
def test_dropout(kernel):
    """With one slot each head of a token gets the scaled value or nothing; the residual is never dropped."""
    inputs = draw((2, 200, 1, 2, 3, 6), gate=False)
    inputs["output"] = torch.eye(6, dtype=torch.float64)
    every = torch.ones(2, 200, dtype=torch.bool)
    torch.manual_seed(0)
    out = run(kernel, inputs, 2, every, every[:, :1], dropout=0.25) - inputs["residual"]
    value = (inputs["keys"] @ inputs["value"].T / 0.75).view(2, 1, 2, 3)
    out = out.view(2, 200, 2, 3)
    kept = out.abs().amax(-1, keepdim=True) > 1e-9
    torch.testing.assert_close(out, kept * value)
    assert 0.65 < kept.double().mean() < 0.85


@every_kernel
def test_low_precision(kernel):
    inputs = draw((5, 4, 2, 2, 8, 16))
    exact = run(REFERENCE, {name: value.bfloat16().double() for name, value in inputs.items()}, 2, QUERIES, KEYS)
    out = run(kernel, {name: value.bfloat16() for name, value in inputs.items()}, 2, QUERIES, KEYS)
    assert out.dtype == torch.bfloat16
    assert (out.double() - exact)[QUERIES].norm() < 1e-2 * exact[QUERIES].norm()


@every_kernel
def test_autocast_keeps_the_precision_of_the_residual(kernel):
    inputs = {name: value.float().requires_grad_() for name, value in draw((5, 4, 2, 2, 8, 16)).items()}
    with torch.autocast("cpu", torch.bfloat16):
        out = run(kernel, inputs, 2, QUERIES, KEYS)
    assert out.dtype == torch.float32
    assert torch.equal(out[1], inputs["residual"][1])
    grads = torch.autograd.grad(out.sum(), list(inputs.values()))
    assert all(grad.dtype == torch.float32 and grad.isfinite().all() for grad in grads)


@every_kernel
def test_a_residual_of_lower_precision_is_raised(kernel):
    inputs = {name: value.float() for name, value in draw((5, 4, 2, 2, 8, 16)).items()}
    expected = run(REFERENCE, inputs | {"residual": inputs["residual"].bfloat16()}, 2, QUERIES, KEYS)
    out = run(kernel, inputs | {"residual": inputs["residual"].bfloat16()}, 2, QUERIES, KEYS)
    assert out.dtype == expected.dtype == torch.float32
    torch.testing.assert_close(out[QUERIES], expected[QUERIES])


@pytest.mark.parametrize(
    ("name", "options"),
    [("gated", {"residual": "paper"}), ("gated", {"residual": "released"}), ("cross_attention", {})],
)
def test_a_fusion_with_packed_attention(name, options):
    torch.manual_seed(0)
    packed = fusions.build(name, d_model=16, num_heads=2, backend="packed", **options).double()
    plain = fusions.build(name, d_model=16, num_heads=2, backend="reference", **options).double()
    plain.load_state_dict(packed.state_dict())
    text, visual = torch.randn(5, 4, 16).double(), torch.randn(5, 2, 16).double()
    found, expected = (fusion(text, QUERIES, visual, KEYS).states for fusion in (packed, plain))
    torch.testing.assert_close(found[QUERIES], expected[QUERIES])
    if options.get("residual") != "released":  # its feed-forward layer also runs on padding
        assert torch.equal(found[~QUERIES], text[~QUERIES])
    masks = []
    tokens = packed.attention(text, visual, KEYS, query_mask=QUERIES)
    whole = packed.attention(text, visual, KEYS)
    assert not tokens[~QUERIES].any()
    assert whole[~QUERIES & KEYS.any(1)[:, None]].any()
    layer = packed.attention.forward
    packed.attention.forward = lambda *args, **named: masks.append(named["query_mask"]) or layer(*args, **named)
    packed(text, QUERIES, visual, KEYS)
    assert [torch.equal(mask, QUERIES) for mask in masks] == [True]


def case(**changes):
    options = {"device": "cpu", "dtype": torch.float32, "batch": 2, "num_queries": 4, "num_keys": 3}
    return KernelCase(**{**options, "num_heads": 2, "head_dim": 8, "d_model": 16, **changes})


def test_packed_rejects_cases_with_a_reason():
    packed = registry.build("packed")
    assert packed.unsupported_reason(case()) is None
    assert packed.cost(case()) is None
    with pytest.raises(UmieError, match="cannot run here: it needs plain projections"):
        explain(case(d_model=None), "packed")
    with pytest.raises(UmieError, match="cannot run here: the number of packed tokens depends on the data"):
        explain(case(compiling=True), "packed")


@pytest.mark.parametrize("backend", ["packed", "xformers"])
def test_compiling_raises_with_the_reason(backend):
    layer = MultiHeadAttention(16, 2, 8, scaled=True, backend=backend)
    inputs = torch.randn(5, 4, 16), torch.randn(5, 2, 16), KEYS
    with pytest.raises(Exception, match="the number of packed tokens depends on the data") as caught:
        torch.compile(layer, backend="aot_eager", fullgraph=True)(*inputs)
    assert backend in str(caught.value)
