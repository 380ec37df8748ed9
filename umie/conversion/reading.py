"""State dicts from files, nothing unpickled but tensors, and mapped rather than read where the file allows it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from umie.errors import UmieError, shown
from umie.files import read_json

_WRAPPER = "module."  # what torch's data parallel puts before every name


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return a state dict whose tensors lie in the mapped file, by name.

    Args:
        path: a ``.safetensors`` file, or what ``torch.save`` wrote of a state dict; read with ``weights_only``.

    Raises:
        UmieError: the file cannot be read, holds more than tensors, or no state dict.
    """
    if not path.is_file():
        raise UmieError(f"{path}: no such file: give the state dict, a .pth or .safetensors file")
    found = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    if not isinstance(found, dict) or not found:
        raise UmieError(f"{path}: holds {shown(found)}, not a state dict: save the model's state_dict() alone")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UmieError(
                f"{path}: {shown(name)} is {type(value).__name__}, not a tensor: save the model's state_dict() alone"
            )
    if all(name.startswith(_WRAPPER) for name in found):
        found = {name.removeprefix(_WRAPPER): value for name, value in found.items()}
    return found


def _safetensors(path: Path) -> Any:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 # it is no mapping
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _pickled(path: Path) -> Any:
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # torch before 1.6 wrote files that cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UmieError(
            f"{path}: is no state dict that can be read safely ({_first_line(error)}): save the state_dict() alone, "
            "of tensors only"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UmieError:
    return UmieError(f"{path}: cannot be read as a state dict: {_first_line(error)}; is it complete?")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(" .:")


def read_config(path: Path) -> dict[str, Any]:
    """Return the values of a ``config.json``.

    Raises:
        UmieError: the file cannot be read, or is no JSON object.
    """
    values = read_json(path, "the checkpoint's config.json")
    if not isinstance(values, dict):
        raise UmieError(f"{path}: is {shown(values)}, not a JSON object: give the checkpoint's config.json")
    return values
