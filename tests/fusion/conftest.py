"""Fixtures that measure memory: the bytes saved for a gradient, and the peak of an operation."""

import pytest
import torch


@pytest.fixture(scope="session")
def kept_bytes():
    """Count the bytes saved for backward: ``kept_bytes(run, given)`` excludes the storages of the tensors ``given``."""

    def count(run, given):
        storages = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()  # once per storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = run()  # keep it alive, so that no address is reused
        for tensor in given:
            storages.pop(tensor.untyped_storage().data_ptr(), None)
        del out
        return sum(storages.values())

    return count


@pytest.fixture(scope="session")
def peak_bytes():
    """Measure peak memory: ``peak_bytes(run)``, after a warm-up run."""
    from umie.bench.measure import peak_bytes

    def count(run):
        run()
        return peak_bytes(run, "cpu")

    return count
