"""umie: multimodal information extraction from composable parts.

``import umie`` is cheap: what needs torch is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PACKAGES = (
    "audit", "constrained", "data", "decoders", "encoders", "evaluation", "experiments", "extraction", "fusion",
    "media", "records", "reports", "scoring", "tasks", "training",
)  # fmt: skip
_RECORDS = ("Argument", "Entity", "Event", "Places", "Record", "Region", "Relation", "Segment", "Track")
_NAMES = dict.fromkeys(_RECORDS, "umie.records") | {
    "Clip": "umie.media",
    "Sound": "umie.media",
    "Extractor": "umie.extraction",
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
    "Clip",
    "Entity",
    "Event",
    "Extractor",
    "Places",
    "Record",
    "Region",
    "Registry",
    "Relation",
    "Segment",
    "Sound",
    "Track",
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
    "media",
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
        media,
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
    from umie.media import Clip, Sound
    from umie.model import UmieConfig, UmieModel
    from umie.processor import UmieProcessor
    from umie.records import Argument, Entity, Event, Places, Record, Region, Relation, Segment, Track
    from umie.registry import Registry


# umie.list_fusions(), umie.create_fusion(...) and the like
_KINDS = (
    "encoder", "region_proposer", "segment_proposer", "track_proposer", "fusion", "attention_backend", "decoder",
    "task", "grounder", "data_format",
)  # fmt: skip
_FUNCTIONS = {f"list_{kind}s": (f"{kind}s", "names") for kind in _KINDS} | {
    f"create_{kind}": (f"{kind}s", "build") for kind in _KINDS
}


def __getattr__(name: str) -> Any:
    if name == "list_embedded_sets":
        return importlib.import_module("umie.data.embedded").names
    if name in _FUNCTIONS:
        registry, method = _FUNCTIONS[name]
        return getattr(getattr(importlib.import_module("umie.registries"), registry), method)
    if name in _PACKAGES:
        return importlib.import_module(f"umie.{name}")
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'umie' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_FUNCTIONS, "list_embedded_sets"})
