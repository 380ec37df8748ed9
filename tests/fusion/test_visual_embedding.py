"""The visual embedding: equation, masks, order of slots, gradients, options."""

import dataclasses
import json

import pytest
import torch

from umie.fusion import VisualEmbedding, VisualEmbeddingConfig
from umie.types import VisualFeatures

FEATURE_DIM, D_MODEL = 10, 16
MASK = torch.tensor([[True] * 5, [True, True, False, False, False], [False] * 5, [True, False, True, False, True]])


def build(seed=0, **options):
    torch.manual_seed(seed)
    config = VisualEmbeddingConfig(**{"feature_dim": FEATURE_DIM, "d_model": D_MODEL, "num_heads": 4, **options})
    return VisualEmbedding(config).eval()


def draw(mask=MASK, seed=0):
    """Return features and boxes, with garbage where the mask is False."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(*mask.shape, FEATURE_DIM, generator=generator)
    corners = torch.rand(*mask.shape, 2, 2, generator=generator).sort(dim=2).values
    boxes = corners.flatten(2)
    features[~mask], boxes[~mask] = 1e3, -7.0
    return VisualFeatures(features, boxes, mask)


def select(visual, *index):
    return VisualFeatures(visual.features[index], visual.boxes[index], visual.mask[index])


RELEASED = {"layers": "t5", "normalize": True, "num_slot_embeddings": 5}
OPTIONS = [
    {},
    {"normalize": True},
    {"num_slot_embeddings": 3},
    {"num_slot_embeddings": 9, "num_layers": 1},
    {"layers": "t5"},
    RELEASED,
    {**RELEASED, "num_layers": 0},
]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


@pytest.mark.parametrize("normalize", [False, True])
def test_equation_without_layers(normalize):
    """FC(features) + FC([x1, y1, x2, y2, area]), each RMS-normalized if requested, and the final norm."""
    embedding = build(num_layers=0, normalize=normalize, num_slot_embeddings=2).double()
    with torch.no_grad():
        for name, parameter in embedding.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    visual = draw().to(torch.float64)
    with torch.no_grad():
        found = embedding(visual)

    def norm(state, layer):
        return state / (state.square().mean() + 1e-6).sqrt() * layer.weight

    for row, slot in MASK.nonzero().tolist():
        x1, y1, x2, y2 = visual.boxes[row, slot].tolist()
        box = torch.tensor([x1, y1, x2, y2, (x2 - x1) * (y2 - y1)], dtype=torch.float64)
        features = embedding.feature_projection.weight @ visual.features[row, slot] + embedding.feature_projection.bias
        place = embedding.box_projection.weight @ box + embedding.box_projection.bias
        if normalize:
            features, place = norm(features, embedding.feature_norm), norm(place, embedding.box_norm)
        state = features + place
        if slot < 2:
            state = state + embedding.slots.weight[slot]
        torch.testing.assert_close(found[row, slot], norm(state, embedding.norm))


@every_option
def test_masked_slots_are_zero_and_never_matter(options):
    embedding = build(**options)
    visual = draw()
    with torch.no_grad():
        found = embedding(visual)
        other = embedding(
            VisualFeatures(
                visual.features.masked_fill(~MASK[..., None], -5.0),
                visual.boxes.masked_fill(~MASK[..., None], 0.5),
                MASK,
            )
        )
    assert found.shape == (*MASK.shape, D_MODEL)
    assert found.isfinite().all()
    assert not found[~MASK].any()
    assert found[MASK].any(dim=-1).all()
    assert torch.equal(found, other)


@every_option
def test_padding_may_hold_anything(options):
    """Values and gradients have the same bits, whatever the masked slots hold."""
    embedding = build(**options)
    expected = None
    for padding in (0.0, torch.nan, torch.inf, 1e38):
        drawn = draw()
        features, boxes = (
            states.masked_fill(~MASK[..., None], padding).requires_grad_() for states in (drawn.features, drawn.boxes)
        )
        states = embedding(VisualFeatures(features, boxes, MASK))
        loss = (states * torch.randn(states.shape, generator=torch.Generator().manual_seed(1))).sum()
        found = [states, *torch.autograd.grad(loss, [features, boxes, *embedding.parameters()])]
        assert all(each.isfinite().all() for each in found)
        if expected is None:
            expected = found
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@every_option
def test_batch_invariance(options):
    embedding = build(**options)
    visual = draw()
    with torch.no_grad():
        together = embedding(visual)
        for row, num_slots in enumerate((5, 2, 1, 5)):
            single = embedding(select(visual, slice(row, row + 1), slice(num_slots)))
            torch.testing.assert_close(together[row, :num_slots], single[0], atol=1e-5, rtol=1e-5)


@every_option
def test_rows_without_slots_are_finite_in_value_and_gradient(options):
    embedding = build(**options)
    visual = draw(torch.tensor([[False] * 3, [False] * 3]))
    features = visual.features.clone().requires_grad_()
    found = embedding(dataclasses.replace(visual, features=features))
    assert torch.equal(found, torch.zeros(2, 3, D_MODEL))
    found.sum().backward()
    assert not features.grad.any()
    assert all(parameter.grad.isfinite().all() for parameter in embedding.parameters())


@pytest.mark.parametrize("normalize", [False, True])
def test_order_of_slots_without_slot_embeddings(normalize):
    embedding = build(normalize=normalize)
    visual = draw()
    order = torch.tensor([3, 0, 4, 2, 1])
    with torch.no_grad():
        expected, found = embedding(visual)[:, order], embedding(select(visual, slice(None), order))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_order_of_slots_with_slot_embeddings():
    """Order matters only among the first slots, which have embeddings."""
    embedding = build(num_slot_embeddings=3)
    visual = draw()
    with torch.no_grad():
        states = embedding(visual)
        named, unnamed = torch.tensor([1, 0, 2, 3, 4]), torch.tensor([0, 1, 2, 4, 3])
        swapped = embedding(select(visual, slice(None), named))
        assert not torch.allclose(swapped[0], states[0, named], atol=1e-3)
        torch.testing.assert_close(
            embedding(select(visual, slice(None), unnamed))[0], states[0, unnamed], atol=1e-5, rtol=1e-5
        )


def test_only_slot_embeddings_distinguish_equal_slots():
    visual = VisualFeatures(
        torch.ones(1, 3, FEATURE_DIM), torch.full((1, 3, 4), 0.5), torch.ones(1, 3, dtype=torch.bool)
    )
    with torch.no_grad():
        same, named = build()(visual)[0], build(num_slot_embeddings=3)(visual)[0]
    torch.testing.assert_close(same[1:], same[:1].expand(2, -1))
    assert (named[0] - named[1]).abs().max() > 1e-3
    assert (named[1] - named[2]).abs().max() > 1e-3


def test_t5_layers_know_slots_by_their_distance():
    """Also without names: equal slots far from an unlike one differ from those near it, by the buckets there are."""
    features = torch.zeros(1, 9, FEATURE_DIM)
    features[0, 0] = 1.0
    visual = VisualFeatures(features, torch.full((1, 9, 4), 0.5), torch.ones(1, 9, dtype=torch.bool))
    with torch.no_grad():
        plain = build()(visual)[0]
        torch.testing.assert_close(plain[2:], plain[1:2].expand(7, -1))
        embedding = build(layers="t5", num_layers=1, num_position_buckets=4, max_position_distance=2)
        embedding.layers.stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight.normal_()
        # 4 buckets tell the slot itself, those before and those after apart
        bucketed = embedding(visual)[0]
    assert (bucketed[1] - bucketed[4]).abs().max() > 1e-3


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_t5_layers_are_finite_in_half_precision(dtype, attention):
    """Also in rows without a slot, whose logits are the least number there is, plus the bias."""
    embedding = build(**RELEASED)
    embedding.layers.stack.config._attn_implementation = attention
    with torch.no_grad():
        embedding.layers.stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight.fill_(-40.0)
    embedding.to(dtype)
    found = embedding(draw())
    assert found.isfinite().all()
    assert not found[~MASK].any()
    found.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in embedding.parameters())


@pytest.mark.parametrize("options", [{}, RELEASED], ids=str)
def test_dropout_is_off_in_evaluation_and_on_in_training(options):
    embedding = build(**options, dropout=0.5)
    with torch.no_grad():
        assert torch.equal(embedding(draw()), embedding(draw()))
        embedding.train()
        assert not torch.equal(embedding(draw()), embedding(draw()))


@every_option
def test_gradients_reach_every_parameter(options):
    embedding = build(**options)
    visual = draw()
    features = visual.features.clone().requires_grad_()
    found = embedding(dataclasses.replace(visual, features=features))
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    (found * weights).sum().backward()
    for name, parameter in embedding.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    assert features.grad[MASK].any(dim=-1).all()
    assert not features.grad[~MASK].any()


@every_option
def test_config_build_save_load(options, tmp_path):
    embedding = build(**options)
    torch.save(embedding.state_dict(), tmp_path / "weights.pt")
    config = json.loads(json.dumps(dataclasses.asdict(embedding.config)))
    again = build(seed=9, **config)
    again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    with torch.no_grad():
        assert torch.equal(again(draw()), embedding(draw()))


def test_half_precision_features_are_taken_at_the_width_of_the_weights():
    """As of an encoder in bfloat16: only the features lose precision, not the boxes."""
    embedding = build()
    visual = draw()
    half = visual.features.to(torch.bfloat16)
    with torch.no_grad():
        found = embedding(dataclasses.replace(visual, features=half))
        expected = embedding(dataclasses.replace(visual, features=half.float()))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature_dim": 0}, "feature_dim is 0"),
        ({"d_model": -1}, "d_model is -1"),
        ({"num_layers": -1}, "num_layers is -1"),
        ({"num_slot_embeddings": -2}, "num_slot_embeddings is -2"),
        ({"num_heads": 5}, "num_heads=5 does not divide d_model=16"),
        ({"head_dim": 0}, "head_dim is 0"),
        ({"d_ff": 0}, "d_ff is 0"),
        ({"dropout": 1.5}, "dropout is 1.5"),
        ({"layers": "t6"}, "layers is 't6'"),
        ({"num_position_buckets": 3}, "num_position_buckets is 3"),
        ({"max_position_distance": 8}, "max_position_distance is 8"),
    ],
)
def test_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
