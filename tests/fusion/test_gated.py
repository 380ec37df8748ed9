"""GatedFusion against its equations, implemented again in NumPy for one example at a time."""

import copy
import math

import numpy as np
import pytest
import torch

from umie.errors import UmieError
from umie.fusion import registry
from umie.fusion.gated import fixed_gate, largest_gate

D_MODEL, NUM_HEADS = 24, 3
ROWS = [(5, 3), (1, 1), (4, 0), (7, 2), (2, 6)]  # real tokens and slots


def build(**options):
    torch.manual_seed(0)
    fusion = registry.build("gated", **{"d_model": D_MODEL, "num_heads": NUM_HEADS, **options}).double().eval()
    with torch.no_grad():
        for name, parameter in fusion.named_parameters():
            if "norm" in name:  # they start at 1, which would hide a missing norm
                parameter.uniform_(0.5, 1.5)
    return fusion


@pytest.fixture(scope="module")
def examples():
    """Text and visual states with nonzero means, as real ones have, from few tokens to many."""
    generator = torch.Generator().manual_seed(0)

    def states(num, centre):
        noise = torch.randn(num, D_MODEL, generator=generator, dtype=torch.float64)
        return noise + torch.linspace(-1, 1, D_MODEL, dtype=torch.float64) * centre

    return [(states(tokens, 1), states(slots, -0.7)) for tokens, slots in ROWS]


def batch(examples):
    """Stack with holes: text at even positions, slots from the right, garbage elsewhere."""
    num_tokens = 2 * max(len(text) for text, _ in examples)
    num_slots = 1 + max(len(visual) for _, visual in examples)
    text = torch.full((len(examples), num_tokens, D_MODEL), 77.0, dtype=torch.float64)
    visual = torch.full((len(examples), num_slots, D_MODEL), -55.0, dtype=torch.float64)
    text_mask = torch.zeros(text.shape[:2], dtype=torch.bool)
    visual_mask = torch.zeros(visual.shape[:2], dtype=torch.bool)
    for row, (tokens, slots) in enumerate(examples):
        text[row, : 2 * len(tokens) : 2], text_mask[row, : 2 * len(tokens) : 2] = tokens, True
        if len(slots):
            visual[row, -len(slots) :], visual_mask[row, -len(slots) :] = slots, True
    return text, text_mask, visual, visual_mask


def leaky_relu(x):
    return x if x > 0 else 0.01 * x


def rms_norm(x, weight):
    return x / np.sqrt(np.mean(x * x) + 1e-6) * weight


def gelu_new(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def reference(weights, text, visual, *, residual, gate, scaled, head_dim):
    """Return the fused states, the gate and the attention of one example; REFERENCE.md, "The model"."""
    weights = {name: value.numpy() for name, value in weights.items()}
    text, visual = text.numpy(), visual.numpy()
    if not len(visual):
        return text, 0.0, None
    keys, values = visual @ weights["attention.key.weight"].T, visual @ weights["attention.value.weight"].T
    attention = np.zeros((NUM_HEADS, len(text), len(visual)))
    found = np.zeros_like(text)
    for token, state in enumerate(text):
        query = weights["attention.query.weight"] @ rms_norm(state, weights["norm.weight"])
        mixed = []
        for head in range(NUM_HEADS):
            part = slice(head * head_dim, (head + 1) * head_dim)
            logits = keys[:, part] @ query[part] / (math.sqrt(head_dim) if scaled else 1)
            shares = np.exp(logits - logits.max())
            attention[head, token] = shares / shares.sum()
            mixed.append(attention[head, token] @ values[:, part])
        found[token] = weights["attention.output.weight"] @ np.concatenate(mixed)
    if gate == "dynamic":
        left = weights["gate_text.1.weight"] @ (weights["gate_text.0.weight"] @ text.mean(0))
        right = weights["gate_visual.1.weight"] @ (weights["gate_visual.0.weight"] @ visual.mean(0))
        cosine = left @ right / math.sqrt(left @ left) / math.sqrt(right @ right)
        gate = leaky_relu(math.exp(0.5) * cosine)
        if residual == "released":
            gate = leaky_relu(gate)
    if residual == "released":
        found = found + text
        up, inner, down = (weights[f"feed_forward.{name}.weight"] for name in ("up", "gate", "down"))
        for token, state in enumerate(found.copy()):
            normed = rms_norm(state, weights["feed_forward_norm.weight"])
            found[token] = state + down @ (gelu_new(inner @ normed) * (up @ normed))
    return text + gate * found, gate, attention


def check(fusion, examples, **equation):
    """Compare the batch with the reference row by row; return the reference's gates."""
    text, text_mask, visual, visual_mask = batch(examples)
    with torch.no_grad():
        fused = fusion(text, text_mask, visual, visual_mask, output_attention=True)
    gates = []
    for row, (tokens, slots) in enumerate(examples):
        states, gate, attention = reference(fusion.state_dict(), tokens, slots, **equation)
        np.testing.assert_allclose(fused.states[row][text_mask[row]].numpy(), states, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(float(fused.gate[row]), gate, rtol=1e-9, atol=1e-12)
        if attention is not None:
            real = fused.attention[row][:, text_mask[row]][:, :, visual_mask[row]]
            np.testing.assert_allclose(real.numpy(), attention, rtol=0, atol=1e-6)
        gates.append(gate)
    return gates


@pytest.mark.parametrize("head_dim", [None, 5])
@pytest.mark.parametrize("scaled", [None, True, False])
@pytest.mark.parametrize("gate", ["dynamic", 0.05, 0, 1])
@pytest.mark.parametrize("residual", ["paper", "released"])
def test_equals_the_equations(examples, residual, gate, scaled, head_dim):
    fusion = build(residual=residual, gate=gate, scaled=scaled, head_dim=head_dim)
    check(
        fusion,
        examples,
        residual=residual,
        gate=gate,
        scaled=(residual == "paper") if scaled is None else scaled,
        head_dim=head_dim or D_MODEL // NUM_HEADS,
    )


@pytest.mark.parametrize("residual", ["paper", "released"])
def test_gates_of_either_sign(examples, residual):
    """With random weights some gates are positive and others are on the slope of 0.01."""
    equation = {"residual": residual, "gate": "dynamic", "scaled": residual == "paper", "head_dim": 8}
    gates = []
    for seed in range(6):
        torch.manual_seed(seed)
        fusion = registry.build("gated", d_model=D_MODEL, num_heads=NUM_HEADS, residual=residual).double().eval()
        gates += check(fusion, examples, **equation)
    least = -math.exp(0.5) * (0.01 if residual == "paper" else 0.0001)
    assert least <= min(gates) < 0 < max(gates) <= math.exp(0.5)


def test_inner_width_of_the_feed_forward(examples):
    fusion = build(residual="released", d_ff=7)
    assert fusion.feed_forward.up.weight.shape == (7, D_MODEL)
    check(fusion, examples, residual="released", gate="dynamic", scaled=False, head_dim=8)


def test_dropout_applies_to_the_added_states(examples):
    text, text_mask, visual, visual_mask = batch(examples)
    text = text * text_mask[..., None]
    fusion = build(dropout=0.5, gate=1).train()
    torch.manual_seed(0)
    with torch.no_grad():
        dropped = fusion(text, text_mask, visual, visual_mask).states - text
        whole = fusion.eval()(text, text_mask, visual, visual_mask).states - text
    kept = dropped != 0
    assert 0.3 < kept[text_mask & visual_mask.any(1)[:, None]].double().mean() < 0.7
    torch.testing.assert_close(dropped[kept], 2 * whole[kept])
    assert torch.equal(dropped[~visual_mask.any(1)], torch.zeros_like(dropped[~visual_mask.any(1)]))


def mean_cosine(fusion, examples):
    """Return the mean cosine over the examples with an image, from the reference's gates."""
    equation = {"residual": fusion.config.residual, "gate": "dynamic", "scaled": True, "head_dim": 8}
    state = fusion.state_dict()
    gates = [reference(state, text, visual, **equation)[1] for text, visual in examples if len(visual)]
    assert min(gates) > 0  # where LeakyReLU is the identity
    return sum(gates) / len(gates) / math.exp(0.5)


@pytest.mark.parametrize("detach_gate", [False, True])
@pytest.mark.parametrize("residual", ["paper", "released"])
def test_initialize_opens_the_gate(examples, residual, detach_gate):
    fusion = build(residual=residual, detach_gate=detach_gate)
    before = copy.deepcopy(fusion.state_dict())
    measured = fusion.initialize(*batch(examples))
    assert set(measured) == {"gate_cosine"}
    assert measured["gate_cosine"] == pytest.approx(0.75, abs=1e-6)
    assert mean_cosine(fusion, examples) == pytest.approx(0.75, abs=1e-6)
    changed = {name for name, value in fusion.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"gate_text.0.weight", "gate_text.1.weight", "gate_visual.0.weight", "gate_visual.1.weight"}
    assert all(parameter.requires_grad for parameter in fusion.parameters())
    gates = check(fusion, examples, residual=residual, gate="dynamic", scaled=residual == "paper", head_dim=8)
    assert min(gate for gate, (_, visual) in zip(gates, examples, strict=True) if len(visual)) > 0


@pytest.mark.parametrize("cosine", [0.5, 0.9])
def test_initialize_to_another_cosine(examples, cosine):
    fusion = build()
    assert fusion.initialize(*batch(examples), cosine=cosine)["gate_cosine"] == pytest.approx(cosine, abs=1e-6)
    assert mean_cosine(fusion, examples) == pytest.approx(cosine, abs=1e-6)


def test_initialize_adds_a_component_of_rank_one(examples):
    """So the random part, which distinguishes examples, is preserved."""
    fusion = build()
    before = copy.deepcopy(fusion.state_dict())
    fusion.initialize(*batch(examples))
    for name in ("gate_text.0.weight", "gate_text.1.weight", "gate_visual.0.weight", "gate_visual.1.weight"):
        assert torch.linalg.matrix_rank(fusion.state_dict()[name] - before[name], rtol=1e-6) == 1


def test_forward_never_initializes(examples):
    fusion = build().train()
    before = copy.deepcopy(fusion.state_dict())
    fusion(*batch(examples)).states.sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in fusion.state_dict().items())


@pytest.mark.parametrize("gate", [0, 0.05])
def test_initialize_leaves_a_fixed_gate_unchanged(examples, gate):
    fusion = build(gate=gate)
    before = copy.deepcopy(fusion.state_dict())
    assert fusion.initialize(*batch(examples)) == {}
    assert all(torch.equal(value, before[name]) for name, value in fusion.state_dict().items())
    assert not any("gate_" in name for name in before)


def test_initialize_without_any_image(examples):
    fusion = build()
    before = copy.deepcopy(fusion.state_dict())
    assert fusion.initialize(*batch([(text, visual[:0]) for text, visual in examples])) == {}
    assert all(torch.equal(value, before[name]) for name, value in fusion.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"residual": "publshed"}, "residual is 'publshed'"),
        ({"detach_gate": "half"}, "detach_gate is 'half'"),
        ({"gate": "fixed"}, "gate is 'fixed': use 'dynamic' or a number"),
        ({"gate": True}, "gate is True"),
        ({"gate": float("nan")}, "gate is nan"),
        ({"gate": None}, "gate is None"),
        ({"d_model": 0}, "d_model is 0"),
        ({"num_heads": -1}, "num_heads is -1"),
        ({"dropout": 1}, "dropout is 1"),
        ({"num_heads": 5}, "num_heads=5 does not divide d_model=24: set head_dim"),
        ({"head_dim": 0}, "head_dim is 0"),
        ({"head_dim": -8}, "head_dim is -8"),
        ({"d_ff": 0}, "d_ff is 0"),
        ({"d_ff": -1}, "d_ff is -1"),
        ({"scaled": "no"}, "scaled is 'no'"),
        ({"num_heads": "four"}, "num_heads is 'four'"),
    ],
)
def test_invalid_options(options, message):
    with pytest.raises(UmieError) as error:
        registry.build("gated", **{"d_model": D_MODEL, "num_heads": NUM_HEADS, **options})
    assert message in str(error.value)


def test_cross_attention_equals_a_gate_of_one(examples):
    fusion = build(gate=1)
    plain = registry.build("cross_attention", d_model=D_MODEL, num_heads=NUM_HEADS).double().eval()
    plain.load_state_dict(fusion.state_dict())
    inputs = batch(examples)
    with torch.no_grad():
        assert torch.equal(plain(*inputs).states, fusion(*inputs).states)


@pytest.mark.parametrize("residual", ["paper", "released"])
@pytest.mark.parametrize("gate", [0.0, 0.3, 1.2])
def test_a_gate_that_is_fixed_for_a_while(examples, residual, gate):
    """Fixing the gate of a trained model equals the equations with this gate; afterwards it is computed again."""
    fusion = build(residual=residual)
    equation = {"residual": residual, "scaled": residual == "paper", "head_dim": 8}
    before = check(fusion, examples, gate="dynamic", **equation)
    with fixed_gate(torch.nn.ModuleList([fusion]), gate):
        check(fusion, examples, gate=gate, **equation)
        with fixed_gate(fusion, 0.5):
            check(fusion, examples, gate=0.5, **equation)
        check(fusion, examples, gate=gate, **equation)
    assert check(fusion, examples, gate="dynamic", **equation) == before


def test_a_fixed_gate_is_released_after_an_error(examples):
    fusion = build(gate=0.05)
    with pytest.raises(RuntimeError), fixed_gate(fusion, 0):
        raise RuntimeError
    check(fusion, examples, residual="paper", gate=0.05, scaled=True, head_dim=8)


def test_only_a_gate_can_be_fixed():
    with (
        pytest.raises(UmieError, match="the model has none; use one with the fusion gated"),
        fixed_gate(registry.build("concat", d_model=D_MODEL, num_heads=NUM_HEADS), 0.5),
    ):
        pass
    for gate in (True, "0.5", math.nan, None):
        with pytest.raises(UmieError, match="gate is"), fixed_gate(build(), gate):
            pass


def test_the_largest_gate():
    assert largest_gate(build()) == largest_gate(build(gate=0.05)) == pytest.approx(math.exp(0.5))
    assert largest_gate(build(gate=3)) == 3
    assert largest_gate(registry.build("text_only", d_model=D_MODEL, num_heads=NUM_HEADS)) is None
