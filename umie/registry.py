"""Registries map names to interchangeable parts, so that a config can name a part as a string."""

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
from html import escape
from pathlib import Path
from typing import Any, Generic, TypeVar

from umie.errors import UmieError, UnknownNameError, check_keys, one_line

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])


class Registry(Generic[T]):
    """The parts of one kind, by name.

    A part is built in (a module of the package registers it with ``@registry.register("name")``), registered by a
    user with the same decorator, or an entry point of an installed distribution whose group is the package name.
    The names of built-in parts are read from the source of their modules, so that listing names does not import them.

    Args:
        kind: the term for a part in messages, e.g. ``"fusion"``.
        package: the package that contains the built-in parts; also the entry-point group of plugins.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._parts: dict[str, Callable[..., T]] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Return a decorator that registers a part under ``name``; a duplicate name raises UmieError."""

        def decorate(part: C) -> C:
            origin, known = _origin(part), self._parts.get(name)
            owner = None if known is None else _origin(known)
            if known is None and not origin.startswith(self.package.partition(".")[0] + "."):
                owner = self._modules().get(name)  # a built-in part has its name even before it is imported
            if owner not in (None, origin):
                raise UmieError(
                    f"The {self.kind} {name!r} is already registered by {owner}; choose another name for {origin}."
                )
            self._parts[name] = part
            return part

        return decorate

    def names(self) -> list[str]:
        """Return all names, sorted, including those of plugins. Nothing is imported."""
        return sorted({*self._modules(), *self._parts, *self._plugins()})

    def known(self) -> list[str]:
        """Return the names of all built-in and registered parts, sorted, without plugins that are not loaded yet."""
        return sorted({*self._modules(), *self._parts})

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __repr__(self) -> str:
        return f"<registry of {len(self)} {self.kind} names: {', '.join(self)}>"

    def _repr_html_(self) -> str:
        """Return the names with the first sentence about each, for notebooks."""
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(self.summary(name))}</td></tr>" for name in self)
        return f"<table style='text-align: left'><caption>{escape(self.kind)}</caption><tbody>{rows}</tbody></table>"

    def get(self, name: str) -> Callable[..., T]:
        """Return the part registered under ``name``, importing only the module or plugin that defines it.

        Raises:
            UnknownNameError: no part has this name.
            UmieError: the plugin that provides the part cannot be loaded.
        """
        if not isinstance(name, str):  # e.g. a list in a config
            raise UnknownNameError(self.kind, name, self.names())
        if name not in self._parts and name in self._modules():
            importlib.import_module(self._modules()[name])
        if name not in self._parts and name in (plugins := self._plugins()):
            self._load(name, plugins[name])
        if name not in self._parts and name not in self.names():
            raise UnknownNameError(self.kind, name, self.names())
        return self._parts[name]

    def name_of(self, part: Callable[..., Any]) -> str | None:
        """Return the name under which a class or function is registered, or None."""
        value = f"{part.__module__}:{part.__qualname__}"
        registered = (name for name, known in self._parts.items() if known is part)
        plugins = (
            name for name, plugin in self._plugins().items() if plugin.value == value and name not in self.known()
        )
        return next(registered, None) or next(plugins, None)

    def summary(self, name: str) -> str:
        """Return a one-line description of a part: the first sentence of its docstring, without importing it."""
        if name in self._parts:
            return first_sentence(inspect.getdoc(self._parts[name]) or "")
        module = self._modules().get(name)
        return "" if module is None else _summaries(module).get(name, "")

    def check(self, name: str, options: dict[str, Any]) -> None:
        """Raise UmieError if ``name`` or an option is unknown, without building the part."""
        config = getattr(self.get(name), "Config", None)
        if config is not None:
            fields = [field.name for field in dataclasses.fields(config)]
            check_keys(f"option of {self.kind} {name!r}:", options, fields)

    def build(self, name: str, **options: Any) -> T:
        """Build the part ``name`` and load the weights that its options name, if any.

        Raises:
            UmieError: the name or an option is unknown, a value is not allowed, or the weights cannot be loaded.
        """
        part = self.construct(name, options)
        load_weights = getattr(part, "load_weights", None)
        if load_weights is not None:
            load_weights()
        return part

    def construct(self, name: str, options: dict[str, Any]) -> T:
        """Build the part ``name`` without loading weights.

        A part with a ``Config`` dataclass is built from ``Config(**options)``, any other part from the options.

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
            raise UmieError(f"Cannot build {self.kind} {name!r}: {' '.join(str(error).split())}") from error

    def _modules(self) -> dict[str, str]:
        """Return the module of each built-in part, by name."""
        return _built_in(self.package)

    def _plugins(self) -> dict[str, importlib.metadata.EntryPoint]:
        return _entry_points(self.package, tuple(sys.path))

    def _load(self, name: str, plugin: importlib.metadata.EntryPoint) -> None:
        try:
            part = plugin.load()
        except Exception as error:
            raise UmieError(
                f"The plugin {plugin.value!r}, which provides the {self.kind} {name!r}, cannot be loaded: "
                f"{type(error).__name__}: {error}. Fix or uninstall the package."
            ) from error
        self._parts.setdefault(name, part)


@cache
def _entry_points(group: str, path: tuple[str, ...]) -> dict[str, importlib.metadata.EntryPoint]:
    """Return the entry points of a group, by name; found once per search path, because it takes 20 ms."""
    return {point.name: point for point in importlib.metadata.entry_points(group=group)}


@cache
def _built_in(package: str) -> dict[str, str]:
    """Return the module of each part that a package registers, by name, without importing the modules.

    A module belongs to the registry that it imports: ``umie.encoders.regions`` has a separate one.
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
    """Return the first sentence of the docstring of each part that a module registers, from its source."""
    tree = ast.parse(Path(__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text("utf-8"))
    about = first_sentence(ast.get_docstring(tree) or "")
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
            found |= {name: first_sentence(text) or about for name in names if name not in found}
    return found


def first_sentence(docstring: str) -> str:
    """Return the first sentence of a docstring without its full stop; a dot after a space, as in ``c . l``, is none."""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    return re.split(r"(?<=\S)\. ", paragraph, maxsplit=1)[0].rstrip(".").replace("``", "")


_REGISTERED = re.compile(r"^(?:@|\w+ = )registry\.register\(\"([^\"]+)\"\)", re.MULTILINE)


def _folders(package: str) -> list[str]:
    """Return the directories of a package.

    Packages of umie are located by path, because ``find_spec`` of a subpackage imports its parent.
    """
    top, *below = package.split(".")
    if top == __name__.split(".")[0]:
        return [str(Path(__file__).parent.joinpath(*below))]
    spec = importlib.util.find_spec(package)
    return list(spec.submodule_search_locations or ()) if spec else []


_loaded: dict[str, bytes] = {}


def load_plugins(paths: Iterable[str | Path]) -> None:
    """Run Python files that register parts; unchanged files that were already run are skipped.

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
            raise UmieError(f"plugin {name}: not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            message = one_line(error)
            raise UmieError(f"plugin {name}: {type(error).__name__}: {message}") from error
        _loaded[str(path)] = code


def loaded_plugins() -> list[str]:
    """Return the paths of the plugin files that this process ran."""
    return list(_loaded)


def _origin(part: Callable[..., Any]) -> str:
    return f"{part.__module__}.{part.__qualname__}"
