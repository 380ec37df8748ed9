"""`pad_stack`, against a plain reference."""

import hypothesis
import pytest
import torch
from hypothesis import strategies

from umie.encoders.base import pad_stack


def reference(tensors, value):
    sizes = [max(tensor.shape[dim] for tensor in tensors) for dim in range(tensors[0].ndim)]
    stacked = torch.full((len(tensors), *sizes), value, dtype=tensors[0].dtype)
    for row, tensor in zip(stacked, tensors, strict=True):
        row[tuple(slice(size) for size in tensor.shape)] = tensor
    return stacked


@hypothesis.given(
    strategies.integers(0, 3).flatmap(
        lambda rank: strategies.lists(
            strategies.lists(strategies.integers(0, 3), min_size=rank, max_size=rank), min_size=1, max_size=4
        )
    ),
    strategies.sampled_from([(torch.float32, -1.0), (torch.long, -100), (torch.bool, 0), (torch.bfloat16, 0)]),
)
def test_every_shape_and_type(shapes, kind):
    dtype, value = kind
    tensors = [torch.randint(0, 2, shape).to(dtype) for shape in shapes]
    found = pad_stack(tensors, value)
    assert found.dtype == dtype
    assert torch.equal(found, reference(tensors, value))


def test_the_type_is_that_of_the_first():
    mixed = [torch.tensor([1, 2]), torch.tensor([1.5, 2.5])]
    assert pad_stack(mixed).dtype == torch.long
    with pytest.raises(ValueError):
        pad_stack([torch.tensor(1), torch.tensor([1])])
