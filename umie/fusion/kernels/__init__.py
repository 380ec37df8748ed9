"""Attention backends: one file each, found by name; `umie.fusion.attention` chooses among them."""

from __future__ import annotations

from umie import registries
from umie.fusion.kernels.base import Kernel, KernelCase, LayerInputs, Projections
from umie.registry import Registry

registry: Registry[Kernel] = registries.attention_backends

__all__ = ["Kernel", "KernelCase", "LayerInputs", "Projections", "registry"]
