"""What the tests of fusion share: the bytes that an operation keeps for its gradient, and the most that it holds."""

import pytest
import torch


@pytest.fixture(scope="session")
def kept_bytes():
    """Count what is saved for backward: ``kept_bytes(run, given)``, storages that ``given`` tensors lie in left out."""

    def count(run, given):
        storages = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()  # once for all that lie in it
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = run()  # alive, so that no address is used again
        for tensor in given:
            storages.pop(tensor.untyped_storage().data_ptr(), None)
        del out
        return sum(storages.values())

    return count


@pytest.fixture(scope="session")
def peak_bytes():
    """Count what an operation allocates at its peak: ``peak_bytes(run)``, after a first run."""
    from umie.bench.memory import peak_bytes

    def count(run):
        run()
        return peak_bytes(run, "cpu")

    return count
