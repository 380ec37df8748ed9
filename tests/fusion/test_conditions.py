"""Projections that are more than a weight: adapters and hooks are never skipped."""

import pytest
import torch
from torch import nn

from umie.errors import UmieError
from umie.fusion.attention import MultiHeadAttention
from umie.fusion.kernels import KernelCase, registry
from umie.fusion.layers import GatedFeedForward
from umie.linear import are_plain


class Adapted(nn.Module):
    """A linear layer plus a low-rank adapter that, like real ones, also has a ``weight``."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear
        self.weight = linear.weight
        self.low = nn.Linear(linear.in_features, 2, bias=False)
        self.high = nn.Linear(2, linear.out_features, bias=False)

    @property
    def in_features(self):
        return self.linear.in_features

    def forward(self, states):
        return self.linear(states) + self.high(self.low(states))

    def merged(self):
        linear = nn.Linear(self.linear.in_features, self.linear.out_features, bias=False).double()
        linear.weight = nn.Parameter(self.weight + self.high.weight @ self.low.weight)
        return linear


PROJECTIONS = ("query", "key", "value", "output")
BACKENDS = ["auto", *(name for name in registry.names() if not registry.build(name).whole_layer_only)]


def draw():
    torch.manual_seed(0)
    mask = torch.tensor([[True, True, False, True], [False] * 4])
    return torch.randn(2, 5, 12).double(), torch.randn(2, 4, 12).double(), mask


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PROJECTIONS)
def test_attention_uses_the_adapter(name, backend):
    queries, keys, mask = draw()
    case = KernelCase(device="cpu", dtype=queries.dtype, batch=2, num_queries=5, num_keys=4, num_heads=3, head_dim=4)
    if backend != "auto" and (reason := registry.build(backend).unsupported_reason(case)):
        pytest.skip(reason)
    layer = MultiHeadAttention(12, 3, None, scaled=True, backend=backend).double()
    adapted = Adapted(getattr(layer, name)).double()
    gate, residual = torch.tensor([0.5, 0.0]).double(), torch.randn(2, 5, 12).double()
    setattr(layer, name, adapted)
    out, weights = layer(queries, keys, mask, gate=gate, residual=residual), layer.weights(queries, keys, mask)
    setattr(layer, name, adapted.merged())
    expected, expected_weights = (
        layer(queries, keys, mask, gate=gate, residual=residual),
        layer.weights(queries, keys, mask),
    )
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(weights, expected_weights)
    assert torch.equal(out[1], residual[1])


@pytest.mark.parametrize("name", ("gate", "up", "down"))
def test_feed_forward_uses_the_adapter(name):
    layer = GatedFeedForward(12, 20).double()
    adapted = Adapted(getattr(layer, name)).double()
    setattr(layer, name, adapted)
    states = draw()[0]
    out = layer(states)
    setattr(layer, name, adapted.merged())
    torch.testing.assert_close(out, layer(states))


HOOKS = {
    "forward": lambda module, seen: module.register_forward_hook(lambda *_: seen.append(1)),
    "before forward": lambda module, seen: module.register_forward_pre_hook(lambda *_: seen.append(1)),
    "backward": lambda module, seen: module.register_full_backward_hook(lambda *_: seen.append(1)),
    "before backward": lambda module, seen: module.register_full_backward_pre_hook(lambda *_: seen.append(1)),
}


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("name", PROJECTIONS)
def test_hooks_are_called(name, kind):
    queries, keys, mask = draw()
    layer = MultiHeadAttention(12, 3, None, scaled=True).double()
    seen = []
    handle = HOOKS[kind](getattr(layer, name), seen)
    hooked = layer(queries.requires_grad_(), keys.requires_grad_(), mask)
    hooked.sum().backward()
    assert seen == [1]
    handle.remove()
    torch.testing.assert_close(layer(queries, keys, mask), hooked)
    assert seen == [1]


def test_absorbed_rejects_an_adapter():
    queries, keys, mask = draw()
    layer = MultiHeadAttention(12, 3, None, scaled=True, backend="absorbed").double()
    layer.query = Adapted(layer.query).double()
    with pytest.raises(UmieError, match="'absorbed' cannot run here: it needs plain projections"):
        layer(queries, keys, mask)


def test_a_bias_is_not_plain():
    assert are_plain(nn.Linear(2, 3, bias=False))
    assert not are_plain(nn.Linear(2, 3, bias=False), nn.Linear(2, 3))
    assert are_plain(nn.Linear(2, 3), may_have_bias=True)
