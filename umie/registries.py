"""All registries. Importing them imports neither torch nor any part, so listing and checking names is fast.

Packages share these objects: ``umie.fusion.registry`` is ``umie.registries.fusions``.
"""

from __future__ import annotations

from typing import Any

from umie.registry import Registry

encoders: Registry[Any] = Registry("encoder", "umie.encoders")
region_proposers: Registry[Any] = Registry("region proposer", "umie.encoders.regions")
segment_proposers: Registry[Any] = Registry("segment proposer", "umie.encoders.segments")
track_proposers: Registry[Any] = Registry("track proposer", "umie.encoders.tracks")
fusions: Registry[Any] = Registry("fusion", "umie.fusion")
attention_backends: Registry[Any] = Registry("attention backend", "umie.fusion.kernels")
decoders: Registry[Any] = Registry("decoder", "umie.decoders")
tasks: Registry[Any] = Registry("task", "umie.tasks")
grounders: Registry[Any] = Registry("grounder", "umie.grounders")
data_formats: Registry[Any] = Registry("data format", "umie.data")

ALL: dict[str, Registry[Any]] = {
    "encoders": encoders,
    "region proposers": region_proposers,
    "segment proposers": segment_proposers,
    "track proposers": track_proposers,
    "fusions": fusions,
    "attention backends": attention_backends,
    "decoders": decoders,
    "tasks": tasks,
    "grounders": grounders,
    "data formats": data_formats,
}
