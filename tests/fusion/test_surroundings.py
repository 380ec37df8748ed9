"""Fusions under checkpointing, autocast, offloading, transforms, the meta device, and with empty batches."""

import itertools

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from umie.fusion import registry

VARIANTS = [
    ("gated", {"residual": residual, "backend": backend})
    for residual, backend in itertools.product(("paper", "released"), ("auto", "absorbed", "sdpa", "packed"))
] + [("cross_attention", {"backend": "absorbed"})]
every_variant = pytest.mark.parametrize(
    ("name", "options"), VARIANTS, ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else value
)
CPU = torch.device("cpu")


def build(name, options, **more):
    torch.manual_seed(0)
    return registry.build(name, d_model=24, num_heads=3, **options, **more)


def draw(batch=3, tokens=7, slots=5):
    torch.manual_seed(1)
    text, visual = torch.randn(batch, tokens, 24), torch.randn(batch, slots, 24)
    visual_mask = torch.ones(batch, slots, dtype=torch.bool)
    visual_mask[-1:] = False
    return text, torch.ones(batch, tokens, dtype=torch.bool), visual, visual_mask


def gradients(fusion, states):
    fusion.zero_grad()
    states.square().sum().backward()
    return {name: parameter.grad for name, parameter in fusion.named_parameters()}


def assert_same(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **tolerance)


@pytest.mark.parametrize("reentrant", [False, True])
@every_variant
def test_checkpointing(name, options, reentrant):
    fusion, (text, *others) = build(name, options), draw()
    text.requires_grad_()
    expected = gradients(fusion, fusion(text, *others).states)
    states = checkpoint(lambda *inputs: fusion(*inputs).states, text, *others, use_reentrant=reentrant)
    assert_same(gradients(fusion, states), expected)


def test_checkpointing_draws_the_same_dropout(monkeypatch):
    """The forward pass runs without gradients and is repeated with them: both must draw the same masks."""
    monkeypatch.setattr("umie.fusion.kernels.cpu.slices.NUM_TOKENS", 8)
    fusion, (text, *others) = build("cross_attention", {}, dropout=0.3, attention_dropout=0.3).train(), draw()
    text.requires_grad_()
    torch.manual_seed(2)
    expected = gradients(fusion, fusion(text, *others).states)
    torch.manual_seed(2)
    states = checkpoint(lambda *inputs: fusion(*inputs).states, text, *others, use_reentrant=True)
    assert_same(gradients(fusion, states), expected)


@every_variant
def test_backward_under_autocast_of_a_forward_without(name, options):
    fusion, inputs = build(name, options), draw()
    expected = gradients(fusion, fusion(*inputs).states)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.autocast("cpu", enabled=False):
            states = fusion(*inputs).states
        found = gradients(fusion, states)
    assert_same(found, expected, rtol=5e-2, atol=5e-2)


@every_variant
def test_offloaded_weights(name, options):
    """Offloading replaces each layer's forward; its weights are elsewhere until then."""
    from accelerate import cpu_offload

    fusion, inputs = build(name, {**options, "backend": "sdpa"}).eval(), draw()
    with torch.no_grad():
        expected = fusion(*inputs).states
        cpu_offload(fusion, execution_device=CPU)
        torch.testing.assert_close(fusion(*inputs).states, expected)


def test_a_replaced_forward_is_called():
    fusion, inputs = build("gated", {"residual": "released"}).eval(), draw()
    fusion.feed_forward.down.forward = lambda states: states.new_zeros(*states.shape[:-1], 24)
    fusion.attention.output.forward = torch.zeros_like
    gate = fusion(*inputs).gate
    torch.testing.assert_close(fusion(*inputs).states, inputs[0] * (1 + gate[:, None, None]))


@every_variant
def test_transforms_of_torch_func(name, options):
    if options["backend"] == "packed":
        pytest.skip("packed: the number of tokens depends on the data, which a transform cannot read")
    fusion, (text, *others) = build(name, options), draw()

    def loss(parameters):
        return torch.func.functional_call(fusion, parameters, (text, *others)).states.square().sum()

    found = torch.func.grad(loss)(dict(fusion.named_parameters()))
    assert_same(found, gradients(fusion, fusion(text, *others).states), rtol=1e-4, atol=1e-4)


@every_variant
def test_on_the_meta_device(name, options):
    if options["backend"] == "packed":
        pytest.skip("packed: the number of tokens depends on the data, which the meta device does not have")
    inputs = draw()
    with torch.device("meta"):
        fusion = build(name, options)
    assert fusion(*(value.to("meta") for value in inputs)).states.shape == inputs[0].shape


@pytest.mark.parametrize("sizes", [(0, 7, 5), (3, 0, 5), (3, 7, 0)], ids=["no examples", "no tokens", "no slots"])
@every_variant
def test_empty_batches(name, options, sizes):
    fusion, inputs = build(name, options), draw(*sizes)
    for fuse in (fusion.eval(), fusion.train()):
        states = fuse(*inputs).states
        assert states.shape == inputs[0].shape
        if not sizes[2]:
            assert torch.equal(states, inputs[0])
    fusion(*inputs).states.sum().backward()
