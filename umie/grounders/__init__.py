"""Grounders: after extraction, find the places in a medium that show what was extracted from the text."""

from umie import registries
from umie.grounders.base import Grounder, GrounderConfig
from umie.registry import Registry

registry: Registry[Grounder] = registries.grounders

__all__ = ["Grounder", "GrounderConfig", "registry"]
