"""YAML 1.2 without surprises: ``1e-3`` is a number, ``yes`` a string, and repeated keys and huge files are errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from umie.errors import UmieError, at, shown
from umie.files import decode_utf8, read_data

MAX_CHARACTERS, MAX_VALUES = 500_000, 100_000  # an alias can stand for many values, so a short text can be huge


class _Loader(yaml.SafeLoader):
    """A loader for the core types of YAML 1.2: ``010`` is ten, ``yes`` and ``12:30:45`` are strings."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 # as in the base class


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN))$",
     "-+0123456789."),
    ("merge", r"^<<$", "<"),
):  # fmt: skip
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(str(node.value)))


def parse_yaml(text: str) -> Any:
    """Parse YAML text; raise UmieError if it is not valid YAML, a key is repeated, or it is huge."""
    if len(text) > MAX_CHARACTERS:
        raise UmieError(f"the YAML has {len(text):,} characters; the limit is {MAX_CHARACTERS:,}")
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(loader, node, {})
        return loader.construct_document(node)
    except UmieError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError, KeyError, AttributeError) as error:  # e.g. !!bool maybe
        raise UmieError(f"not valid YAML: {_reason(error)}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _reason(error: Exception) -> str:
    """Return what is wrong and where, in one line."""
    plain = " ".join(str(error).split())
    if isinstance(error, KeyError | AttributeError):  # from a tag such as !!bool before a value that is none
        return f"a value does not fit its tag (!!...): {plain}"
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return plain
    mark, began, context, problem = error.problem_mark, error.context_mark, error.context or "", error.problem or ""
    if not context.startswith("while"):
        problem = ", ".join(filter(None, (context, problem)))
    elif began is not None and began.line != mark.line:
        problem += f" ({context} that begins in line {began.line + 1})"
    else:
        problem += f" ({context})"
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def _check(loader: _Loader, node: Any, sizes: dict[int, int]) -> int:
    """Return the number of values of a node with all aliases written out.

    Raises:
        UmieError: a key is repeated or is no name, a value contains itself, or there are too many values.
    """
    line = node.start_mark.line + 1
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise UmieError(f"line {line}: an alias refers to the value that contains it: write out the value")
        return sizes[id(node)]
    sizes[id(node)] = 0  # not known yet
    parts = node.value if isinstance(node, yaml.SequenceNode) else ()
    if isinstance(node, yaml.MappingNode):
        _check_keys(loader, node)
        parts = [value for _, value in node.value]
    size = 1 + sum(_check(loader, part, sizes) for part in parts)
    if size > MAX_VALUES:
        raise UmieError(f"line {line}: there are more than {MAX_VALUES:,} values, with aliases written out: use fewer")
    sizes[id(node)] = size
    return size


def _check_keys(loader: _Loader, node: yaml.MappingNode) -> None:
    lines: dict[Any, int] = {}
    for key_node, _ in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UmieError(f"line {line}: a key is a list or a mapping: use a name")
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node)
        if key in lines:
            raise UmieError(f"line {line}: the key {shown(key)} is already set on line {lines[key]}: remove one")
        lines[key] = line


def read_yaml(path: Path, what: str) -> Any:
    """Read a YAML file.

    Args:
        path: the file.
        what: a description of the file for messages, e.g. ``"the config file"``.

    Raises:
        UmieError: the file cannot be read or is not valid YAML.
    """
    with at(str(path)):
        try:
            return parse_yaml(decode_utf8(read_data(path)))
        except OSError as error:
            raise UmieError(f"cannot read {what}: {error.strerror}") from error
