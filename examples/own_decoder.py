"""A custom decoder outside the package: `span`, which also learns how many words an answer has."""

from torch import nn
from torch.nn import functional as F

from umie.decoders import DecoderOutput, registry
from umie.decoders.span import SpanDecoder


@registry.register("length_prior")
class LengthPriorDecoder(SpanDecoder):
    """The scores of ``span`` plus a learned number for each width in words."""

    def __init__(self, config):
        super().__init__(config)
        self.prior = nn.Embedding(config.max_width, 1)
        nn.init.zeros_(self.prior.weight)

    def forward(self, fused, *, spans, labels=None, **inputs):
        logits = super().forward(fused, spans=spans, **inputs).logits
        others = logits.shape[1] - spans.shape[1]  # places and the whole query, which have no width
        logits = logits + F.pad(self.prior(spans[..., 2]), (0, 0, 0, others))
        return DecoderOutput(None if labels is None else self.loss(logits, labels), logits)
