"""Weight files: reading a state dict, and loading it into a module with errors that a user can act on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from umie.errors import UmieError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
SHOWN = 3  # keys listed in a message


def is_file_name(weights: str) -> bool:
    """Whether the value of an option names a file rather than published weights; it need not exist."""
    path = Path(weights)
    return path.suffix in SUFFIXES or len(path.parts) > 1 or path.exists()


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a weight file by name, on the CPU.

    A training checkpoint is looked into: its ``state_dict``, without the ``module.`` of a parallel wrapper.

    Args:
        path: a ``.safetensors`` file, or a ``.pth``, ``.pt`` or ``.bin`` file that holds tensors only.

    Raises:
        UmieError: there is no such file, it cannot be read, or it is not a state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise UmieError(f"{path}: no such weight file")
    if path.suffix not in SUFFIXES:
        raise UmieError(f"{path}: weight files end in {', '.join(SUFFIXES)}")
    content = _content(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content or not all(map(_is_entry, content.items())):
        raise UmieError(f"{path}: not a state dict, which names tensors; torch.save(module.state_dict(), ...)")
    wrapped = all(name.startswith("module.") for name in content)
    return {name.removeprefix("module.") if wrapped else name: tensor for name, tensor in content.items()}


def load_state(module: nn.Module, state: Mapping[str, Tensor], source: object, may_lack: Collection[str] = ()) -> None:
    """Copy a state dict into a module; every name and shape must fit.

    Args:
        module: takes the weights.
        state: names to tensors of any floating type.
        source: where the state comes from, for the message.
        may_lack: names that keep the module's own value where the state does not have them.

    Raises:
        UmieError: names are missing or left over, or shapes differ; the first few are listed.
    """
    own = module.state_dict()
    # counters of batch normalization: weights from before torch 0.4.1 have none, and nothing reads them here
    optional = {name for name in own if name.endswith("num_batches_tracked")} | set(may_lack)
    problems = {
        "missing": [name for name in own if name not in state and name not in optional],
        "not known to the model": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {list(state[name].shape)} for {list(tensor.shape)}"
            for name, tensor in own.items()
            if name in state and state[name].shape != tensor.shape
        ],
    }
    found = [f"{len(names)} {what} ({_first(names)})" for what, names in problems.items() if names]
    if found:
        raise UmieError(f"{source}: weights do not fit {type(module).__name__}: {'; '.join(found)}")
    module.load_state_dict({**own, **state})


def first_line(error: Exception) -> str:
    """Return an error's kind and the first line of its message."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _content(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or foreign file can make the readers raise nearly anything
        if "TorchScript" in str(error):
            raise UmieError(
                f"{path}: is a TorchScript archive, which holds code; if you trust it, save its tensors alone: "
                "torch.save(torch.jit.load(PATH).state_dict(), 'weights.pt')"
            ) from error
        raise UmieError(f"{path}: cannot be read as weights ({first_line(error)})") from error


def _is_entry(entry: tuple[object, object]) -> bool:
    return isinstance(entry[0], str) and isinstance(entry[1], Tensor)


def _first(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
