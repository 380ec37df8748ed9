"""Registries: names for interchangeable parts, so that a string in a configuration can build one."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from umie.errors import UmieError, UnknownNameError, check_keys

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])


class Registry(Generic[T]):
    """Names of the parts of one kind, found in three places.

    A part is a module of the package (it registers itself when imported), a class that a user registers
    with the decorator, or an entry point of an installed distribution in the group named like the package.

    Args:
        kind: what a part is called in messages, e.g. ``"fusion"``.
        package: the package whose modules hold the built-in parts, and the entry-point group of plugins.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._parts: dict[str, Callable[..., T]] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Return a decorator that registers a part under ``name``; a duplicate name raises UmieError."""

        def decorate(part: C) -> C:
            known = self._parts.get(name)
            if known is not None and _origin(known) != _origin(part):
                raise UmieError(
                    f"The {self.kind} {name!r} is already registered by {'.'.join(_origin(known))}; "
                    f"choose another name for {'.'.join(_origin(part))}."
                )
            self._parts[name] = part
            return part

        return decorate

    def names(self) -> list[str]:
        """Return every name, sorted: built in, registered, and offered by plugins (which are not loaded)."""
        for module in self._modules():
            importlib.import_module(f"{self.package}.{module}")
        return sorted({*self._parts, *self._plugins()})

    def get(self, name: str) -> Callable[..., T]:
        """Return the part registered under ``name``; load only the module or plugin that holds it.

        Raises:
            UnknownNameError: no part has this name.
            UmieError: the plugin that offers the name cannot be loaded.
        """
        if not isinstance(name, str):  # a list where a configuration should name a part
            raise UnknownNameError(self.kind, name, self.names())
        if name not in self._parts and name in self._modules():
            importlib.import_module(f"{self.package}.{name}")
        if name not in self._parts and name in (plugins := self._plugins()):
            self._load(name, plugins[name])
        if name not in self._parts and name not in self.names():
            raise UnknownNameError(self.kind, name, self.names())
        return self._parts[name]

    def check(self, name: str, options: dict[str, Any]) -> None:
        """Raise UmieError if ``name`` is unknown or has no such options; builds nothing."""
        config = getattr(self.get(name), "Config", None)
        if config is not None:
            fields = [field.name for field in dataclasses.fields(config)]
            check_keys(f"option of {self.kind} {name!r}:", options, fields)

    def build(self, name: str, **options: Any) -> T:
        """Build the part ``name`` and load the weights that its options name, if any.

        Raises:
            UmieError: the name or an option is unknown, a value is not allowed, weights cannot be loaded.
        """
        part = self.construct(name, options)
        load_weights = getattr(part, "load_weights", None)
        if load_weights is not None:
            load_weights()
        return part

    def construct(self, name: str, options: dict[str, Any]) -> T:
        """Build the part ``name`` without loading weights: their shapes only.

        A part with a ``Config`` dataclass is built from ``Config(**options)``, any other from the options.

        Raises:
            UmieError: the name or an option is unknown, or a value is not allowed.
        """
        part = self.get(name)
        self.check(name, options)
        config = getattr(part, "Config", None)
        try:
            return part(**options) if config is None else part(config(**options))
        except UmieError:
            raise
        except (TypeError, ValueError) as error:
            raise UmieError(f"Cannot build {self.kind} {name!r}: {error}") from error

    def _modules(self) -> list[str]:
        path = importlib.import_module(self.package).__path__
        return [module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_")]

    def _plugins(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {point.name: point for point in importlib.metadata.entry_points(group=self.package)}

    def _load(self, name: str, plugin: importlib.metadata.EntryPoint) -> None:
        try:
            part = plugin.load()
        except Exception as error:
            raise UmieError(
                f"The plugin {plugin.value!r}, which offers the {self.kind} {name!r}, cannot be loaded: "
                f"{type(error).__name__}: {error}. Mend or uninstall its distribution."
            ) from error
        self._parts.setdefault(name, part)


def _origin(part: Callable[..., Any]) -> tuple[str, str]:
    return part.__module__, part.__qualname__
