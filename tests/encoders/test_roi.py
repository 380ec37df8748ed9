"""Pooling under boxes against torchvision's RoIAlign, against brute sums, and at the edges."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torchvision.ops import roi_align

from umie.encoders.roi import box_weights, pool_boxes

WHOLE = (0.0, 0.0, 1.0, 1.0)
POOLINGS = ["precise", "roi_align"]
EDGES = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 0.999, 1e-4]), st.floats(0, 1, width=32))
SIZES = st.integers(1, 12)


@st.composite
def box(draw):
    x1, x2, y1, y2 = (draw(EDGES) for _ in range(4))
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def some_maps(num, height, width, channels=5):
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.randn(num, channels, height, width, generator=generator)


def torchvisions(maps, boxes, samples=2):
    """RoIAlign of torchvision, its 7 x 7 cells averaged."""
    height, width = maps.shape[2:]
    rois = list(boxes * boxes.new_tensor([width, height, width, height]))
    found = roi_align(maps, rois, 7, spatial_scale=1.0, sampling_ratio=samples, aligned=True)
    return found.mean((2, 3)).view(len(maps), -1, maps.shape[1])


@given(st.lists(box(), min_size=1, max_size=6), SIZES, SIZES)
@example([WHOLE, (0.5, 0.5, 0.5, 0.5), (0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0)], 1, 1)
@example([WHOLE, (0.0, 0.9, 0.01, 1.0), (0.9999, 0.0, 1.0, 1.0)], 10, 13)
def test_roi_align_is_torchvisions_in_values_and_gradients(boxes, height, width):
    maps = some_maps(2, height, width).requires_grad_()
    plain = maps.detach().clone().requires_grad_()
    tensor = torch.tensor([boxes, boxes[::-1]])
    found, expected = pool_boxes(maps, tensor, "roi_align"), torchvisions(plain, tensor)
    scale = float(maps.detach().abs().max())
    torch.testing.assert_close(found, expected, atol=1e-5 * scale, rtol=1e-5)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(maps.grad, plain.grad, atol=1e-5 * max(1, float(plain.grad.abs().max())), rtol=1e-5)


@given(box(), SIZES, SIZES)
def test_precise_is_what_roi_align_nears_with_more_samples(found_box, height, width):
    maps, boxes = some_maps(1, height, width), torch.tensor([[found_box]])
    dense = torchvisions(maps.double(), boxes.double(), samples=40)
    scale = float(maps.abs().max())
    torch.testing.assert_close(pool_boxes(maps, boxes).double(), dense, atol=2e-3 * scale, rtol=0)


@given(SIZES, SIZES)
def test_precise_pooling_of_the_whole_map_is_its_mean(height, width):
    maps = some_maps(2, height, width)
    found = pool_boxes(maps, torch.tensor(WHOLE).expand(2, 1, 4))[:, 0]
    torch.testing.assert_close(found, maps.mean((2, 3)), atol=1e-6, rtol=1e-6)
    assert len(box_weights(torch.tensor([WHOLE]), height, width).unique()) == 1


@given(st.lists(box(), min_size=1, max_size=6), SIZES, SIZES, st.sampled_from(POOLINGS))
def test_weights_are_a_mean(boxes, height, width, pooling):
    weights = box_weights(torch.tensor(boxes), height, width, pooling)
    assert weights.shape == (len(boxes), height * width)
    assert weights.min() >= -1e-7
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(boxes)), atol=1e-5, rtol=0)


@given(box(), SIZES, SIZES)
def test_boxes_add_up(found_box, height, width):
    """The mean under a box is that of its two halves, which samples only near."""
    x1, y1, x2, y2 = found_box
    x2, y2 = min(1.0, max(x2, x1 + 0.1)), min(1.0, max(y2, y1 + 0.1))
    x1, y1 = min(x1, x2 - 0.1), min(y1, y2 - 0.1)
    middle = (x1 + x2) / 2
    boxes = torch.tensor([(x1, y1, x2, y2), (x1, y1, middle, y2), (middle, y1, x2, y2)])
    whole, left, right = box_weights(boxes, height, width)
    torch.testing.assert_close(whole, (left + right) / 2, atol=2e-5, rtol=0)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("size", [1e-9, 1e-6, 1e-4, 1e-2])
def test_small_boxes_tell_their_place(pooling, size):
    """A map that holds the coordinates gives a box's centre, however small it is, and moves smoothly with it."""
    height, width = 6, 9
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    corners = torch.linspace(0.1, 0.89, 200)
    boxes = torch.stack([corners, corners, corners + size, corners + size], dim=-1)
    found = pool_boxes(torch.stack([x, y])[None], boxes[None], pooling)[0]
    torch.testing.assert_close(found, (boxes[:, :2] + boxes[:, 2:]) / 2, atol=2e-5, rtol=0)


@given(box(), st.floats(-1e-3, 1e-3), st.integers(0, 3), SIZES, SIZES)
def test_precise_moves_smoothly_with_every_edge(found_box, step, edge, height, width):
    before = torch.tensor([found_box])
    after = before.clone()
    after[0, edge] = (after[0, edge] + step).clamp(0, 1)
    if (after[0, 2:] < after[0, :2]).any():
        return
    change = box_weights(after, height, width) - box_weights(before, height, width)
    # the mean of what varies by at most 1 a cell moves by no more than the edge did, in cells
    assert change.abs().sum() <= 2 * abs(step) * max(height, width) + 1e-4


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_of_the_maps(pooling):
    maps = some_maps(2, 3, 4, channels=2).double().requires_grad_()
    boxes = torch.tensor([[WHOLE, (0.1, 0.2, 0.15, 0.9)], [(0.0, 0.0, 0.3, 0.3), (0.0, 0.0, 0.0, 0.0)]])
    assert gradcheck(lambda given_maps: pool_boxes(given_maps, boxes, pooling), (maps,))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_memory_format_precision_and_autocast(pooling):
    maps = some_maps(2, 5, 7)
    boxes = torch.tensor([[WHOLE, (0.1, 0.2, 0.15, 0.9)], [(0.0, 0.0, 0.3, 0.3), (0.6, 0.7, 1.0, 1.0)]])
    expected = pool_boxes(maps, boxes, pooling)
    last = pool_boxes(maps.contiguous(memory_format=torch.channels_last), boxes, pooling)
    torch.testing.assert_close(last, expected, atol=1e-6, rtol=1e-6)
    half = maps.bfloat16()
    found = pool_boxes(half, boxes, pooling)
    assert found.dtype == torch.bfloat16
    # nothing but the result is rounded to 8 bits
    assert torch.equal(found, pool_boxes(half.float(), boxes, pooling).bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pool_boxes(maps, boxes, pooling), expected)


def test_no_boxes():
    assert pool_boxes(some_maps(2, 3, 3), torch.zeros(2, 0, 4)).shape == (2, 0, 5)
