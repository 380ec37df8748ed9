"""umie: multimodal information extraction from composable parts.

``import umie`` is cheap: what needs torch is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PACKAGES = (
    "audit", "constrained", "data", "decoders", "encoders", "evaluation", "experiments", "extraction", "fusion",
    "records", "reports", "scoring", "tasks", "training",
)  # fmt: skip
_NAMES = {
    "Argument": "umie.records",
    "Entity": "umie.records",
    "Event": "umie.records",
    "Extractor": "umie.extraction",
    "Record": "umie.records",
    "Region": "umie.records",
    "Relation": "umie.records",
    "Registry": "umie.registry",
    "UmieError": "umie.errors",
    "UmieConfig": "umie.model",
    "UmieModel": "umie.model",
    "UmieProcessor": "umie.processor",
    "compose": "umie.composition",
    "load": "umie.loading",
}

__all__ = [
    "Argument",
    "Entity",
    "Event",
    "Extractor",
    "Record",
    "Region",
    "Registry",
    "Relation",
    "UmieConfig",
    "UmieError",
    "UmieModel",
    "UmieProcessor",
    "audit",
    "compose",
    "constrained",
    "data",
    "decoders",
    "encoders",
    "evaluation",
    "experiments",
    "extraction",
    "fusion",
    "load",
    "records",
    "reports",
    "scoring",
    "tasks",
    "training",
]

if TYPE_CHECKING:
    from umie import (
        audit,
        constrained,
        data,
        decoders,
        encoders,
        evaluation,
        experiments,
        extraction,
        fusion,
        records,
        reports,
        scoring,
        tasks,
        training,
    )
    from umie.composition import compose
    from umie.errors import UmieError
    from umie.extraction import Extractor
    from umie.loading import load
    from umie.model import UmieConfig, UmieModel
    from umie.processor import UmieProcessor
    from umie.records import Argument, Entity, Event, Record, Region, Relation
    from umie.registry import Registry


_KINDS = {
    "encoder": "encoders",
    "region_proposer": "region_proposers",
    "fusion": "fusions",
    "attention_backend": "attention_backends",
    "decoder": "decoders",
    "task": "tasks",
    "data_format": "data_formats",
}


def _registry_function(name: str) -> Any:
    """Return ``list_fusions``, ``create_fusion`` and the like."""
    from umie import registries

    for kind, plural in _KINDS.items():
        registry = getattr(registries, plural)
        if name == f"list_{plural}":
            return registry.names
        if name == f"create_{kind}":
            return registry.build
    return None


def __getattr__(name: str) -> Any:
    if name.startswith(("list_", "create_")) and (function := _registry_function(name)) is not None:
        return function
    if name in _PACKAGES:
        return importlib.import_module(f"umie.{name}")
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'umie' has no attribute {name!r}")


def __dir__() -> list[str]:
    functions = [f"list_{plural}" for plural in _KINDS.values()] + [f"create_{kind}" for kind in _KINDS]
    return sorted({*globals(), *__all__, *functions})
