"""Times of every fusion with every backend, its peers, and its limit, through pytest-benchmark.

Operations are checked first, then timed one after another. Compare rows of one run on an idle machine. `umie bench`
measures the same operations in alternation, at any shape and dtype, and writes ratios, Markdown and a figure.
"""

from __future__ import annotations

import functools

import pytest
import torch

from umie.bench.check import Runner, compare, expect, place
from umie.bench.environment import LIBRARIES
from umie.bench.measure import peak_bytes
from umie.bench.operations import DIRECTIONS, DTYPES, backends, blocks, make_weights, operations
from umie.bench.shapes import Shape, draw
from umie.versions import versions

DEVICE, DTYPE = "cpu", "float32"
SHAPES = {
    "small-ragged": Shape(size="small", batch=8, tokens=64, ragged=True),
    "base-dense": Shape(size="base", batch=8, tokens=64),
}
weights = functools.cache(lambda name: make_weights(SHAPES[name]))
inputs = functools.cache(lambda name: draw(SHAPES[name], device=DEVICE, dtype=DTYPES[DTYPE]))


def rows():
    for name, shape in SHAPES.items():
        for operation in operations(shape, device=DEVICE, dtype=DTYPE, blocks=blocks(), backends=backends()):
            for direction in DIRECTIONS:
                words = (operation.block, operation.name.replace(",", "").replace(" ", "_"), direction, name)
                yield pytest.param(operation, direction, name, id="-".join(words))


@functools.cache
def expected(block, reference, name):
    """Return the results of a reference."""
    found = operations(SHAPES[name], device=DEVICE, dtype=DTYPE, blocks=[block], backends=backends())
    operation = next(each for each in found if each.reference == reference and each.build_reference)
    return expect(operation, inputs(name), weights(name), DTYPES[DTYPE])


@pytest.mark.parametrize(("operation", "direction", "name"), list(rows()))
def test_fusion(benchmark, operation, direction, name):
    if (reason := operation.unsupported_reason[direction]) is not None:
        pytest.skip(reason)
    runner = Runner(place(operation.build(weights(name)), weights(name), DEVICE, DTYPES[DTYPE]), inputs(name))
    assert operation.contract() is None
    if operation.build_reference is not None:
        errors = compare(runner, expected(operation.block, operation.reference, name), training=True)
        assert errors.wrong(DTYPES[DTYPE]) is None, errors.wrong(DTYPES[DTYPE])
    run = functools.partial(runner.run, direction)
    run()
    benchmark.extra_info |= {
        "device": DEVICE,
        "dtype": DTYPE,
        "threads": torch.get_num_threads(),
        "shape": str(SHAPES[name]),
        "peak_bytes": peak_bytes(run, DEVICE),
        **versions(*LIBRARIES),
    }
    benchmark.group = f"{operation.block}, {direction}, {SHAPES[name]}"
    benchmark.pedantic(run, setup=runner.clear, rounds=7, warmup_rounds=1)
