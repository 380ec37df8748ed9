"""Time of every registered fusion at FLAN-T5 widths: `make bench`. A fusion is timed only if it is right.

Compare rows within one run; the figures of two machines, or of two thread counts, say nothing together.
"""

from __future__ import annotations

import pytest
import torch

from umie.fusion import registry
from umie.fusion.attention import attention, attention_weights

WIDTHS = {  # d_model, num_heads, head_dim of FLAN-T5
    "small": {"d_model": 512, "num_heads": 6, "head_dim": 64},
    "base": {"d_model": 768, "num_heads": 12, "head_dim": 64},
}
BATCH, TOKENS, SLOTS = 8, 256, 37


@pytest.fixture(params=WIDTHS)
def widths(request: pytest.FixtureRequest) -> dict[str, int]:
    return WIDTHS[request.param]


@pytest.fixture
def states(widths: dict[str, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random text and visual states; the last example has no picture."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(BATCH, TOKENS, widths["d_model"], generator=generator)
    visual = torch.randn(BATCH, SLOTS, widths["d_model"], generator=generator)
    text_mask = torch.ones(BATCH, TOKENS, dtype=torch.bool)
    visual_mask = torch.ones(BATCH, SLOTS, dtype=torch.bool)
    visual_mask[-1] = False
    return text, text_mask, visual, visual_mask


def check(fusion: torch.nn.Module, states: tuple[torch.Tensor, ...]) -> None:
    """Refuse to time a fusion that changes a text without a picture, or whose attention is not the plain one."""
    text, text_mask, visual, visual_mask = states
    fused = fusion(text, text_mask, visual, visual_mask).states
    assert torch.allclose(fused[-1, :TOKENS], text[-1], atol=1e-6)
    q, k, v = (torch.randn(2, size, 3, 16) for size in (5, 7, 7))
    mask = torch.tensor([[True] * 7, [True] * 3 + [False] * 4])
    plain = torch.einsum("bhtv,bvhd->bthd", attention_weights(q, k, key_mask=mask, scale=0.25), v)
    assert torch.allclose(attention(q, k, v, key_mask=mask, scale=0.25), plain, atol=1e-5)


@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("name", registry.names())
def test_fusion(benchmark, name, direction, widths, states):
    torch.manual_seed(0)
    fusion = registry.build(name, **widths)
    check(fusion, states)
    text, text_mask, visual, visual_mask = states

    def forward() -> None:
        with torch.no_grad():
            fusion(text, text_mask, visual, visual_mask)

    leaf = text.clone().requires_grad_()

    def forward_backward() -> None:
        fusion(leaf, text_mask, visual, visual_mask).states.sum().backward()

    benchmark.extra_info.update(
        torch=torch.__version__, threads=torch.get_num_threads(), dtype="float32", device="cpu", **widths
    )
    benchmark.group = f"{direction}, B={BATCH} T={TOKENS} V={SLOTS} D={widths['d_model']}"
    benchmark.pedantic(forward if direction == "forward" else forward_backward, rounds=7, warmup_rounds=2)
