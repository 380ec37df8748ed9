"""Weight files: read a state dict, and load it into a module with errors that say what does not fit."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from umie.checkpoints import check_file
from umie.errors import UmieError, one_line, shown

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
SHOWN = 3  # names listed in a message
_WRAPPER = "module."  # the prefix that torch's data-parallel wrappers add to every name


def is_file_name(weights: str) -> bool:
    """Return whether an option's value is a file name rather than the name of published weights."""
    path = Path(weights)
    return path.suffix in SUFFIXES or len(path.parts) > 1 or path.exists()


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a weight file by name, on the CPU, memory-mapped if the format allows it.

    Of a training checkpoint, the entry ``state_dict`` is returned, without the prefix ``module.``. Only tensors are
    unpickled from files written by ``torch.save``.

    Raises:
        UmieError: the file does not exist, cannot be read, or is not a state dict.
    """
    path = Path(path)
    if not path.exists():
        raise UmieError(f"{path}: no such weight file")
    check_file(path)
    if path.suffix not in SUFFIXES:
        raise UmieError(f"{path}: unknown type of weight file: use one of {', '.join(SUFFIXES)}")
    content = _content(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    advice = "save the model's state_dict()"
    if not isinstance(content, Mapping) or not content:
        raise UmieError(f"{path}: contains {shown(content)}, not a state dict: {advice}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UmieError(
                f"{path}: not a state dict: {shown(name)} is {type(value).__name__}, not a tensor: {advice}"
            )
    wrapped = all(name.startswith(_WRAPPER) for name in content)
    return {name.removeprefix(_WRAPPER) if wrapped else name: tensor for name, tensor in content.items()}


def load_state(module: nn.Module, state: Mapping[str, Tensor], source: object, optional: Collection[str] = ()) -> None:
    """Copy a state dict of any floating type into a module; ``optional`` names may be missing.

    Raises:
        UmieError: names are missing or unknown, or shapes differ; the message names ``source``.
    """
    own = module.state_dict()
    # counters of batch normalization: weights from before torch 0.4.1 have none, and nothing here reads them
    optional = {name for name in own if name.endswith("num_batches_tracked")} | set(optional)
    problems = {
        "missing": [name for name in own if name not in state and name not in optional],
        "unknown to the model": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {list(state[name].shape)} for {list(tensor.shape)}"
            for name, tensor in own.items()
            if name in state and state[name].shape != tensor.shape
        ],
    }
    found = [f"{len(names)} {problem} ({_first(names)})" for problem, names in problems.items() if names]
    if found:
        raise UmieError(f"{source}: weights do not fit {type(module).__name__}: {'; '.join(found)}")
    module.load_state_dict({**own, **state})
    check_finite(module, source)


def check_finite(module: nn.Module, source: object) -> None:
    """Raise UmieError if a parameter of a module, or a statistic of batch normalization, is NaN or infinite."""
    statistics = ((name, value) for name, value in module.named_buffers() if "running_" in name)
    for name, value in (*module.named_parameters(), *statistics):
        if value.is_meta or not value.is_floating_point() or not value.numel():
            continue
        value = value.detach()
        # one pass without a mask in memory; NaN is the least and the greatest
        least, most = torch.aminmax(value if value.element_size() > 1 else value.float())
        if not (torch.isfinite(least) and torch.isfinite(most)):
            number = int((~torch.isfinite(value.float())).sum())
            raise UmieError(
                f"{source}: {number:,} of {value.numel():,} values of {name} are NaN or infinite in {value.dtype}: use "
                "an earlier checkpoint, or train again with a lower learning rate"
            )


def reason_of(error: Exception) -> str:
    """Return why weights cannot be loaded, in one line, without advice of libraries to run code or to ignore sizes."""
    if "weights_only" in str(error):
        return "they contain more than tensors, which may be code and is not read: ask for them as .safetensors"
    if "trust_remote_code" in str(error):
        return "it needs code of its own, which is not run: use a model or tokenizer that transformers contains"
    if "ignore_mismatched_sizes" in str(error):
        return "its configuration describes weights of other shapes"
    return one_line(error) or type(error).__name__


def first_line(error: Exception) -> str:
    """Return an error's type and the first line of its message."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _content(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files from before torch 1.6 cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or foreign file makes the readers raise nearly anything
        if isinstance(error, pickle.UnpicklingError):  # torch's message advises to run the code in the file
            raise UmieError(
                f"{path}: cannot be read as weights (UnpicklingError): it is damaged, or contains more than tensors, "
                "which may be code and is not read: ask for the weights as .safetensors, or for the state_dict()"
            ) from error
        if "TorchScript" in str(error):
            raise UmieError(
                f"{path}: is a TorchScript archive, which contains code; if you trust it, save only its tensors: "
                "torch.save(torch.jit.load(PATH).state_dict(), 'weights.pt')"
            ) from error
        raise UmieError(
            f"{path}: cannot be read as weights ({first_line(error)}): download or export the file again"
        ) from error


def _first(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
