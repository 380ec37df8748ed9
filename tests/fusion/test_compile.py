"""`torch.compile` and `torch.export` of the fusions: one graph, equal to eager mode, for any batch.

The fast suite compiles the gated fusion, which has the most steps, with two backends; the rest is slow.
"""

import shutil

import pytest
import torch
from torch import nn

from umie.fusion import registry

FUSIONS = [
    pytest.param(name, options, id="-".join([name, *map(str, options.values())]))
    for name, options in [
        *(
            ("gated", {"residual": residual, "gate": gate})
            for residual in ("paper", "released")
            for gate in ("dynamic", 0.05)
        ),
        ("cross_attention", {}),
    ]
]
RELEASED = FUSIONS[2]
OTHERS = [pytest.param(name, {}, id=name) for name in ("concat", "text_only")]


def cases(*fast, slow=()):
    """Return the released fusion with each backend in ``fast`` and ``slow``, and every other fusion with `auto`."""

    def case(param, backend, *marks):
        return pytest.param(*param.values, backend, id=f"{param.id}-{backend}", marks=marks)

    others = [param for param in FUSIONS if param is not RELEASED]
    return [
        *(case(RELEASED, backend) for backend in fast),
        *(case(RELEASED, backend, pytest.mark.slow) for backend in slow),
        *(case(param, "auto", pytest.mark.slow) for param in others),
    ]


every_fusion = pytest.mark.parametrize(("name", "options"), FUSIONS)


class States(nn.Module):
    """A fusion that returns its states and their mask as a plain tuple."""

    def __init__(self, fusion):
        super().__init__()
        self.fusion = fusion

    def forward(self, text, text_mask, visual, visual_mask):
        fused = self.fusion(text, text_mask, visual, visual_mask)
        return fused.states, fused.mask


def build(name, options, **more):
    torch.manual_seed(0)
    return States(registry.build(name, d_model=24, num_heads=3, **options, **more))


def draw(batch=3, tokens=5, slots=4, seed=0):
    """Return a ragged batch whose last example has no image."""
    generator = torch.Generator().manual_seed(seed)
    text, visual = (torch.randn(batch, size, 24, generator=generator) for size in (tokens, slots))
    text_mask, visual_mask = (torch.ones(states.shape[:2], dtype=torch.bool) for states in (text, visual))
    text_mask[0, tokens // 2 :], visual_mask[0, slots // 2 :], visual_mask[-1] = False, False, False
    return text, text_mask, visual, visual_mask


def compiled(module, **options):
    torch.compiler.reset()
    return torch.compile(module, **{"backend": "aot_eager", "fullgraph": True, **options})


def results(run, module, arguments):
    """Return the states and the gradients of both inputs and all parameters."""
    text, text_mask, visual, visual_mask = arguments
    text, visual = text.clone().requires_grad_(), visual.clone().requires_grad_()
    states, mask = run(text, text_mask, visual, visual_mask)
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(1))
    parameters = dict(module.named_parameters())
    grads = torch.autograd.grad((states * weights)[mask].sum(), [text, visual, *parameters.values()], allow_unused=True)
    return {"states": states.detach()[mask], **dict(zip(["text", "visual", *parameters], grads, strict=True))}


def assert_equal_results(found, expected):
    for label, result in found.items():
        if expected[label] is None:
            assert result is None or not result.any(), label
        else:
            torch.testing.assert_close(result, expected[label], atol=2e-5, rtol=2e-5, msg=label)


@pytest.mark.parametrize(("name", "options", "backend"), cases("auto", "absorbed", slow=("sdpa", "reference")))
def test_compiles_to_one_graph_with_the_values_and_gradients_of_eager_mode(name, options, backend):
    module = build(name, options, backend=backend)
    assert_equal_results(results(compiled(module), module, draw()), results(module, module, draw()))


@pytest.mark.parametrize(("name", "options"), [RELEASED, *OTHERS])
def test_compiled_without_gradients(name, options):
    module = build(name, options).eval()
    with torch.no_grad():
        states, mask = compiled(module)(*draw())
        expected = module(*draw())
    assert torch.equal(mask, expected[1])
    torch.testing.assert_close(states[mask], expected[0][mask])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [RELEASED])
def test_one_graph_serves_all_shapes(name, options):
    module, graphs = build(name, options), []

    def count(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    run = compiled(module, backend=count, dynamic=True)
    for sizes in ((3, 5, 4), (4, 7, 6), (2, 9, 3)):
        arguments = draw(*sizes)
        torch.testing.assert_close(run(*arguments)[0], module(*arguments)[0], atol=1e-5, rtol=1e-5)
    assert len(graphs) == 1


@pytest.mark.parametrize(("name", "options", "backend"), cases("auto", slow=("sdpa",)))
def test_exports_for_any_batch_and_length(name, options, backend):
    module = build(name, options, backend=backend).eval()
    assert_exports(module)


@pytest.mark.parametrize(("name", "options"), OTHERS)
def test_fusions_without_attention_export_too(name, options):
    assert_exports(build(name, options).eval())


def assert_exports(module):
    batch, tokens, slots = (torch.export.Dim(label, min=2, max=512) for label in ("batch", "tokens", "slots"))
    text, visual = {0: batch, 1: tokens}, {0: batch, 1: slots}
    program = torch.export.export(module, draw(), dynamic_shapes=(text, text, visual, visual))
    for sizes in ((3, 5, 4), (2, 2, 2), (7, 64, 37)):
        arguments = draw(*sizes)
        (states, mask), expected = program.module()(*arguments), module(*arguments)
        assert torch.equal(mask, expected[1])
        torch.testing.assert_close(states[mask], expected[0][mask], atol=1e-5, rtol=1e-5)


def test_a_fusion_exports_as_it_is():
    fusion = registry.build("gated", d_model=24, num_heads=3).eval()
    fused = torch.export.export(fusion, draw()).module()(*draw())
    torch.testing.assert_close(fused.states[fused.mask], fusion(*draw()).states[fused.mask])
    torch.testing.assert_close(fused.gate, fusion(*draw()).gate)


def test_a_backend_that_cannot_be_compiled_raises():
    """If it is named; `auto` uses sdpa."""
    module = build("cross_attention", {}, backend="packed")
    with pytest.raises(Exception, match="packed"):
        compiled(module)(*draw())


@pytest.mark.slow
@every_fusion
def test_inductor(name, options):
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler here, which inductor needs")
    module = build(name, options)
    assert_equal_results(results(compiled(module, backend="inductor"), module, draw()), results(module, module, draw()))
