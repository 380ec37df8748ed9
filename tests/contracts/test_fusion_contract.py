"""The contract of every registered fusion: masks, batches, no image, gradients, saving."""

import dataclasses
import functools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from umie.errors import UmieError
from umie.fusion import registry
from umie.fusion.kernels import registry as kernels

WIDTHS = {
    "64": {"d_model": 64, "num_heads": 4},
    "flan-t5-small": {"d_model": 512, "num_heads": 6, "head_dim": 64},  # 6 does not divide 512
}
OPTIONS = {  # every pair of values
    "gated": [
        {"residual": residual, "gate": gate, "detach_gate": detach_gate}
        for residual, gate, detach_gate in (
            ("paper", "dynamic", False),
            ("released", "dynamic", True),
            ("paper", 0.05, True),
            ("released", 0.05, False),
            ("paper", 0, False),
            ("released", 0, True),
        )
    ]
}
FUSIONS = [
    pytest.param(name, options, id="-".join([name, *map(str, options.values())]))
    for name in registry.names()
    for options in OPTIONS.get(name, [{}])
]

every_fusion = pytest.mark.parametrize(("name", "options"), FUSIONS)
every_width = pytest.mark.parametrize("width", WIDTHS)

# real text tokens and visual slots of each example in a batch; the second has no image
ROWS = [(5, 3), (4, 0), (1, 1), (7, 2), (2, 9)]


@functools.cache
def frozen(name, options, width="64"):
    """Return a module shared by all tests that do not change it; ``options`` as items, to be hashable."""
    return build(name, dict(options), width)


def build(name, options, width="64"):
    torch.manual_seed(0)
    return registry.build(name, **WIDTHS[width], **options).eval()


def shared(name, options, width="64"):
    return frozen(name, tuple(options.items()), width)


def width_of(fusion):
    return fusion.config.d_model


def draw(rows, d_model, seed=0):
    """Return the real text and visual states of each row."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(tokens, d_model, generator=generator), torch.randn(slots, d_model, generator=generator))
        for tokens, slots in rows
    ]


def padded(states, size, garbage):
    generator = torch.Generator().manual_seed(size)
    out = garbage * torch.randn(len(states), size, states[0].shape[1], generator=generator)
    mask = torch.zeros(len(states), size, dtype=torch.bool)
    for row, real in enumerate(states):
        out[row, : len(real)] = real
        mask[row, : len(real)] = True
    return out, mask


def batch(examples, more_tokens=0, more_slots=0, garbage=100.0):
    """Stack examples with garbage as padding; as in the model, a batch has at least one slot."""
    texts, visuals = zip(*examples, strict=True)
    text = padded(texts, max(map(len, texts)) + more_tokens, garbage)
    visual = padded(visuals, max(1, *map(len, visuals)) + more_slots, garbage)
    return *text, *visual


def rows_of(fused):
    """Return the real states of each row, whatever the length of the batch."""
    return [states[mask] for states, mask in zip(fused.states, fused.mask, strict=True)]


def close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@every_width
@every_fusion
def test_batch_invariance(name, options, width):
    fusion = shared(name, options, width)
    examples = draw(ROWS, width_of(fusion))
    with torch.no_grad():
        one_by_one = [fusion(*batch([example]), output_attention=True) for example in examples]
        for order in ([0, 1, 2, 3, 4], [3, 1, 4], [4, 2, 2, 0]):
            for extra in ({}, {"more_tokens": 6, "more_slots": 5}):
                chosen = [examples[index] for index in order]
                together = fusion(*batch(chosen, **extra), output_attention=True)
                for row, (index, states) in enumerate(zip(order, rows_of(together), strict=True)):
                    single = one_by_one[index]
                    close(states, rows_of(single)[0])
                    assert (together.gate is None) == (single.gate is None)
                    assert (together.attention is None) == (single.attention is None)
                    if together.gate is not None:
                        close(together.gate[row], single.gate[0])
                    if together.attention is not None:
                        tokens, slots = ROWS[index]
                        found, expected = together.attention[row], single.attention[0]
                        close(found[:, :tokens, :slots], expected[:, :tokens, :slots])
                        assert not found[:, :, slots:].any()


@every_width
@every_fusion
def test_shapes_and_masks(name, options, width):
    fusion = shared(name, options, width)
    text, text_mask, visual, visual_mask = batch(draw(ROWS, width_of(fusion)))
    with torch.no_grad():
        fused = fusion(text, text_mask, visual, visual_mask)
    assert fused.states.shape == (*fused.mask.shape, width_of(fusion))
    assert fused.mask.dtype == torch.bool
    assert torch.equal(fused.mask[:, : text.shape[1]], text_mask)
    if fused.mask.shape != text_mask.shape:
        assert torch.equal(fused.mask[:, text.shape[1] :], visual_mask)
    assert fused.states.isfinite().all()
    assert fused.attention is None  # not requested


@every_width
@every_fusion
def test_no_image_is_text_only_exactly(name, options, width):
    fusion = shared(name, options, width)
    examples = draw([(5, 0), (1, 0), (3, 0)], width_of(fusion))
    text, text_mask, visual, visual_mask = batch(examples, more_slots=3)
    assert not visual_mask.any()
    assert visual.abs().max() > 1
    with torch.no_grad():
        fused = fusion(text, text_mask, visual, visual_mask, output_attention=True)
    assert torch.equal(fused.states[text_mask], text[text_mask])
    assert torch.equal(fused.mask, text_mask)
    assert fused.gate is None or not fused.gate.any()
    assert fused.attention is None or not fused.attention.any()


@every_width
@every_fusion
def test_no_image_in_a_mixed_batch(name, options, width):
    fusion = shared(name, options, width)
    examples = draw(ROWS, width_of(fusion))
    with torch.no_grad():
        fused = fusion(*batch(examples))
    for (text, visual), states in zip(examples, rows_of(fused), strict=True):
        if not len(visual):
            close(states, text)


@every_fusion
def test_an_image_changes_the_states_unless_the_fusion_ignores_it(name, options):
    fusion = shared(name, options)
    examples = draw([(4, 3)], width_of(fusion))
    others = [(examples[0][0], examples[0][1].flip(-1))]
    with torch.no_grad():
        first, second = fusion(*batch(examples)), fusion(*batch(others))
    blind = not fusion.uses_image or options.get("gate") == 0
    assert torch.equal(first.states, second.states) == blind


def gradients(fusion, examples):
    """Return the inputs with their gradients, from a loss that weights every real state differently."""
    text, text_mask, visual, visual_mask = batch(examples, more_tokens=2, more_slots=2)
    text.requires_grad_()
    visual.requires_grad_()
    fused = fusion(text, text_mask, visual, visual_mask)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(fused.states.shape, generator=generator)
    (fused.states * weights)[fused.mask].sum().backward()
    return text, text_mask, visual, visual_mask


@every_width
@every_fusion
def test_finite_gradients_reach_every_parameter_and_input(name, options, width):
    fusion = build(name, options, width)
    text, text_mask, visual, visual_mask = gradients(fusion, draw(ROWS, width_of(fusion)))
    shut = options.get("gate") == 0  # a gate of 0 passes no gradient
    for label, parameter in fusion.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.isfinite().all(), label
        assert shut or parameter.grad.any(), label
    assert text.grad.isfinite().all()
    assert text.grad[text_mask].any(dim=-1).all()
    assert not text.grad[~text_mask].any()
    if fusion.uses_image:
        assert visual.grad.isfinite().all()
        assert shut or visual.grad[visual_mask].any(dim=-1).all()
        assert not visual.grad[~visual_mask].any()
    else:
        assert visual.grad is None


@every_fusion
def test_gradients_of_a_batch_without_images_are_finite(name, options):
    fusion = build(name, options)
    text, text_mask, visual, _ = gradients(fusion, draw([(3, 0), (1, 0)], width_of(fusion)))
    assert text.grad.isfinite().all()
    assert text.grad[text_mask].any(dim=-1).all()
    assert visual.grad is None or not visual.grad.any()
    for label, parameter in fusion.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), label


@pytest.mark.parametrize("detach_gate", [False, True])
@pytest.mark.parametrize("residual", ["paper", "released"])
def test_gradient_of_the_gate(residual, detach_gate):
    """A detached gate trains only its own weights; otherwise the gradient also reaches text and image."""
    fusion = build("gated", {"residual": residual, "detach_gate": detach_gate})
    text, text_mask, visual, visual_mask = batch(draw(ROWS, width_of(fusion)))
    text.requires_grad_()
    visual.requires_grad_()
    gate = fusion(text, text_mask, visual, visual_mask).gate
    own = list(fusion.gate_text.parameters()) + list(fusion.gate_visual.parameters())
    by_text, by_visual, *by_own = torch.autograd.grad(gate.sum(), [text, visual, *own], allow_unused=True)
    assert all(gradient.isfinite().all() and gradient.any() for gradient in by_own)
    if detach_gate:
        assert by_text is None
        assert by_visual is None
        return
    with_image = visual_mask.any(dim=1)
    for gradient, mask in ((by_text, text_mask), (by_visual, visual_mask)):
        assert gradient.isfinite().all()
        assert gradient[mask & with_image[:, None]].any(dim=-1).all()
        assert not gradient[~(mask & with_image[:, None])].any()


@pytest.mark.parametrize("residual", ["paper", "released"])
def test_the_detached_gate_has_the_same_values_and_own_gradients(residual):
    found = []
    for detach_gate in (False, True):
        fusion = build("gated", {"residual": residual, "detach_gate": detach_gate})
        text, *rest = batch(draw(ROWS, width_of(fusion)), garbage=0.0)
        text.requires_grad_()
        fused = fusion(text, *rest)
        weights = torch.randn(fused.states.shape, generator=torch.Generator().manual_seed(1))
        (fused.states * weights).sum().backward()
        own = [parameter.grad for parameter in fusion.parameters()]
        found.append((fused.states.detach(), own, text.grad))
    (full_states, full_own, full_text), (cut_states, cut_own, cut_text) = found
    assert torch.equal(full_states, cut_states)
    assert all(torch.equal(*pair) for pair in zip(full_own, cut_own, strict=True))
    assert not torch.allclose(full_text, cut_text)


@every_width
@every_fusion
def test_config_build_save_load(name, options, width, tmp_path):
    fusion = build(name, options, width)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    save_file(fusion.state_dict(), tmp_path / "fusion.safetensors")
    config = json.loads(json.dumps(dataclasses.asdict(fusion.config)))
    torch.manual_seed(9)
    again = registry.build(name, **config).eval()
    assert again.config == fusion.config
    inputs = batch(draw(ROWS, width_of(fusion)))
    with torch.no_grad():
        expected = fusion(*inputs).states
        before = again(*inputs).states
        again.load_state_dict(load_file(tmp_path / "fusion.safetensors"))
        assert torch.equal(again(*inputs).states, expected)
    if list(fusion.parameters()) and options.get("gate") != 0:
        assert not torch.equal(before, expected)


@st.composite
def ragged(draw):
    """Draw masks of a batch, with holes and at least one real text token per row."""
    rows, tokens, slots = draw(st.integers(1, 4)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    text_mask = draw(st.lists(st.lists(st.booleans(), min_size=tokens, max_size=tokens), min_size=rows, max_size=rows))
    for row in text_mask:
        row[draw(st.integers(0, tokens - 1))] = True
    visual_mask = draw(st.lists(st.lists(st.booleans(), min_size=slots, max_size=slots), min_size=rows, max_size=rows))
    return torch.tensor(text_mask), torch.tensor(visual_mask)


@every_fusion
@settings(max_examples=25)
@given(masks=ragged(), seed=st.integers(0, 99))
def test_masked_positions_never_matter(name, options, masks, seed):
    fusion = shared(name, options)
    text_mask, visual_mask = masks
    generator = torch.Generator().manual_seed(seed)
    d_model = width_of(fusion)
    text = torch.randn(*text_mask.shape, d_model, generator=generator)
    visual = torch.randn(*visual_mask.shape, d_model, generator=generator)
    other_text = torch.where(text_mask[..., None], text, 50 * text.roll(1, -1) + 7)
    other_visual = torch.where(visual_mask[..., None], visual, 50 * visual.roll(1, -1) + 7)
    with torch.no_grad():
        first = rows_of(fusion(text, text_mask, visual, visual_mask))
        second = rows_of(fusion(other_text, text_mask, other_visual, visual_mask))
        for row, (states, others) in enumerate(zip(first, second, strict=True)):
            close(states, others)
            one = slice(row, row + 1)
            close(states, rows_of(fusion(text[one], text_mask[one], visual[one], visual_mask[one]))[0])
            if not visual_mask[row].any():
                close(states, text[row][text_mask[row]])


BACKENDS = [
    pytest.param(name, {**options, **backend}, id="-".join([name, *map(str, options.values()), *backend.values()]))
    for name in registry.names()
    for options in OPTIONS.get(name, [{}])[:2]
    for backend in (
        [{"backend": kernel} for kernel in kernels.names()] if hasattr(registry.get(name).Config, "backend") else [{}]
    )
]


@pytest.mark.parametrize(("name", "options"), BACKENDS)
def test_padding_may_hold_anything(name, options):
    """NaN, infinities and huge numbers in masked text and slots: the same bits, in values and in all gradients."""
    fusion = build(name, options)
    examples = draw(ROWS, width_of(fusion))
    expected = None
    for padding in (0.0, torch.nan, torch.inf, -torch.inf, 1e38):
        text, text_mask, visual, visual_mask = batch(examples, more_tokens=2, more_slots=2)
        text = text.masked_fill(~text_mask[..., None], padding).requires_grad_()
        visual = visual.masked_fill(~visual_mask[..., None], padding).requires_grad_()
        try:
            fused = fusion(text, text_mask, visual, visual_mask)
        except UmieError as error:  # the backend's library is not installed, or needs a GPU
            pytest.skip(str(error))
        weights = torch.randn(fused.states.shape, generator=torch.Generator().manual_seed(1))
        leaves = [text, visual, *fusion.parameters()]
        loss = (fused.states * weights)[fused.mask].sum()
        found = [fused.states, fused.gate, *torch.autograd.grad(loss, leaves, allow_unused=True)]
        found = [each for each in found if each is not None]
        assert all(each.isfinite().all() for each in found)
        if expected is None:
            expected = found
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@every_fusion
def test_masks_are_converted_or_refused(name, options):
    fusion = shared(name, options)
    text, text_mask, visual, visual_mask = batch(draw(ROWS, width_of(fusion)))
    with torch.no_grad():
        expected = fusion(text, text_mask, visual, visual_mask)
        for dtype in (torch.long, torch.uint8, torch.float32, torch.bfloat16):
            fused = fusion(text, text_mask.to(dtype), visual, visual_mask.to(dtype))
            assert fused.mask.dtype == torch.bool
            assert torch.equal(fused.states, expected.states)
        additive = torch.zeros(visual_mask.shape).masked_fill(~visual_mask, -torch.inf)
        wrong = [
            ((text, text_mask, visual, additive), "visual_mask has values other than 0 and 1"),
            ((text, text_mask, visual, visual_mask[:, None]), "visual_mask is"),
            ((text, text_mask, visual[:1], visual_mask[:1]), "text has 5 examples, and visual has 1"),
            ((text, text_mask, visual[..., :8], visual_mask), "visual is"),
            ((text, text_mask, None, visual_mask), "visual is NoneType"),
        ]
        for inputs, message in wrong:
            with pytest.raises(UmieError, match=message):
                fusion(*inputs)
