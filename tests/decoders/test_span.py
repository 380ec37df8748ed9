"""The shortcuts of `span` against the plain computation."""

import pytest
import torch
from torch import nn

from umie.decoders.span import SpanDecoder, SpanDecoderConfig, _at, _products


class Doubled(nn.Linear):
    """A layer that is more than its weight."""

    def forward(self, states):
        return 2 * super().forward(states)


@pytest.mark.parametrize("adapted", [False, True])
def test_labels_are_multiplied_by_the_last_layer_of_candidates(adapted):
    torch.manual_seed(0)
    decoder = SpanDecoder(SpanDecoderConfig(source="tiny")).double().eval()
    output = decoder.candidate_out
    if adapted:
        output[-1] = Doubled(96, 96).double()
    candidates = torch.randn(2, 30, 96, dtype=torch.double, requires_grad=True)
    named = torch.randn(2, 5, 96, dtype=torch.double, requires_grad=True)
    inputs = (candidates, named, *output.parameters())
    plain, found = output(candidates) @ named.transpose(1, 2), _products(output, candidates, named)
    torch.testing.assert_close(found, plain)
    weights = torch.randn_like(plain)
    gradients = [torch.autograd.grad((scores * weights).sum(), inputs) for scores in (plain, found)]
    torch.testing.assert_close(*gradients)


def test_states_at_positions():
    states, positions = torch.randn(3, 7, 4), torch.randint(0, 7, (3, 5, 2))
    expected = torch.stack([row[place] for row, place in zip(states, positions, strict=True)])
    assert torch.equal(_at(states, positions), expected)
