"""Registries: names for interchangeable parts, so that a string in a configuration can build one."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from umie.errors import UmieError, UnknownNameError, check_keys

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])


class Registry(Generic[T]):
    """Names of the parts of one kind, found in three places.

    A part is built in (a module of the package registers it with ``@registry.register("name")``), registered by a
    user with the same decorator, or an entry point of an installed distribution in the group named like the package.
    The source of built-in modules is read for the names they register, so that listing names imports none of them.

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
        """Return every name, sorted: built in, registered, and offered by plugins; none is imported."""
        return sorted({*self._modules(), *self._parts, *self._plugins()})

    def known(self) -> list[str]:
        """Return the names that are built in or registered by now, sorted; plugins count once they are loaded."""
        return sorted({*self._modules(), *self._parts})

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __repr__(self) -> str:
        return f"<registry of {len(self)} {self.kind} names: {', '.join(self)}>"

    def get(self, name: str) -> Callable[..., T]:
        """Return the part registered under ``name``; load only the module or plugin that holds it.

        Raises:
            UnknownNameError: no part has this name.
            UmieError: the plugin that offers the name cannot be loaded.
        """
        if not isinstance(name, str):  # a list where a configuration should name a part
            raise UnknownNameError(self.kind, name, self.names())
        if name not in self._parts and name in self._modules():
            importlib.import_module(self._modules()[name])
        if name not in self._parts and name in (plugins := self._plugins()):
            self._load(name, plugins[name])
        if name not in self._parts and name not in self.names():
            raise UnknownNameError(self.kind, name, self.names())
        return self._parts[name]

    def name_of(self, part: Callable[..., Any]) -> str | None:
        """Return the name that a class or function is registered under, or None."""
        value = f"{part.__module__}:{part.__qualname__}"
        registered = (name for name, known in self._parts.items() if known is part)
        plugins = (
            name for name, plugin in self._plugins().items() if plugin.value == value and name not in self.known()
        )
        return next(registered, None) or next(plugins, None)

    def summary(self, name: str) -> str:
        """Return what a part is in one line: of a built-in one the first line of its class, read from the source."""
        if name in self._parts:
            return _first_line(inspect.getdoc(self._parts[name]) or "")
        module = self._modules().get(name)
        return "" if module is None else _summaries(module).get(name, "")

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

    def _modules(self) -> dict[str, str]:
        """Return the module of each built-in part, by its name."""
        return _built_in(self.package)

    def _plugins(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {point.name: point for point in importlib.metadata.entry_points(group=self.package)}

    def _load(self, name: str, plugin: importlib.metadata.EntryPoint) -> None:
        try:
            part = plugin.load()
        except Exception as error:
            raise UmieError(
                f"The plugin {plugin.value!r}, which offers the {self.kind} {name!r}, cannot be loaded: "
                f"{type(error).__name__}: {error}. Fix or uninstall the package."
            ) from error
        self._parts.setdefault(name, part)


@cache
def _built_in(package: str) -> dict[str, str]:
    """Return name and module of the parts that the modules of a package register, without importing them.

    A module belongs to the registry that it imports: ``umie.encoders.regions`` has its own.
    """
    imports = re.compile(rf"^from {re.escape(package)} import [^\n]*\bregistry\b", re.MULTILINE)
    found: dict[str, str] = {}
    for folder in _folders(package):
        for path in sorted(Path(folder).rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            if imports.search(source):
                module = ".".join([package, *path.relative_to(folder).with_suffix("").parts])
                found |= dict.fromkeys(_REGISTERED.findall(source), module)
    return found


@cache
def _summaries(module: str) -> dict[str, str]:
    """Return the first line about each part that a module registers, from its source."""
    tree = ast.parse(Path(__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text("utf-8"))
    about = _first_line(ast.get_docstring(tree) or "")
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        names = [
            str(call.args[0].value)
            for call in ast.walk(node)
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "registry.register" and call.args
            if isinstance(call.args[0], ast.Constant)
        ]
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.Assign):
            text = "" if isinstance(node, ast.Assign) else ast.get_docstring(node) or ""
            found |= {name: _first_line(text) or about for name in names if name not in found}
    return found


def _first_line(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".").replace("``", "")


_REGISTERED = re.compile(r"^(?:@|\w+ = )registry\.register\(\"([^\"]+)\"\)", re.MULTILINE)


def _folders(package: str) -> list[str]:
    """Return where a package lies; one of ours is found by its path, since finding a subpackage imports its parent."""
    top, *below = package.split(".")
    if top == __name__.split(".")[0]:
        return [str(Path(__file__).parent.joinpath(*below))]
    spec = importlib.util.find_spec(package)
    return list(spec.submodule_search_locations or ()) if spec else []


_loaded: dict[str, bytes] = {}


def load_plugins(paths: Iterable[str | Path]) -> None:
    """Run Python files that register parts; a file that was run before, and has not changed, is skipped.

    Args:
        paths: the files.

    Raises:
        UmieError: a file does not exist or fails.
    """
    for name in paths:
        path = Path(name).resolve()
        code = path.read_bytes() if path.is_file() else b""
        if code and _loaded.get(str(path)) == code:
            continue
        spec = importlib.util.spec_from_file_location(f"umie_plugin_{path.stem}", path)
        if spec is None or spec.loader is None or not path.is_file():
            raise UmieError(f"plugin {name}: no such Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            message = " ".join(str(error).split())
            raise UmieError(f"plugin {name}: {type(error).__name__}: {message}") from error
        _loaded[str(path)] = code


def loaded_plugins() -> list[str]:
    """Return the paths of the plugin files that this process has run."""
    return list(_loaded)


def _origin(part: Callable[..., Any]) -> tuple[str, str]:
    return part.__module__, part.__qualname__
