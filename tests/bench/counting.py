"""The number of multiplications of a block, by formula."""

from umie.fusion.gate import GATE_HIDDEN, GATE_OUT


def multiplications(shape, block, *, backward=False):
    """Multiplications of the matrix products of a block, with projections; each has an addition."""
    d_model, num_heads, head_dim, d_ff = shape.widths.values()
    inner = num_heads * head_dim
    num_tokens, num_slots = shape.batch * shape.tokens, shape.batch * shape.slots
    if block == "gate":
        means = (num_tokens + num_slots) * d_model
        linears = 2 * shape.batch * (d_model * GATE_HIDDEN + GATE_HIDDEN * GATE_OUT)
        return means * (2 if backward else 1) + linears * (3 if backward else 1)
    count = 2 * (num_tokens + num_slots) * d_model * inner + 2 * num_tokens * shape.slots * inner
    if block == "released":
        count += 3 * num_tokens * d_model * d_ff
    return count * (3 if backward else 1)
