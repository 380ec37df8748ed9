"""Tasks: records to instructions and answers, generated strings to items."""

from collections.abc import Iterable
from typing import Any

from umie import registries
from umie.registry import Registry
from umie.tasks.base import Items, Query, Task, TaskConfig, merged

registry: Registry[Task[Any]] = registries.tasks


def ordered(names: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return distinct task names in the order of queries and tables; a task comes after its source.

    By default, all tasks but those that are only for training (``is_auxiliary``).
    """
    if names is None:
        names = [name for name in registry.known() if not task_class(name).is_auxiliary]
    wanted = set(names)
    found: dict[str, None] = {}

    def add(name: str) -> None:
        source = task_class(name).source
        if source in wanted and source not in found:
            add(str(source))
        found[name] = None

    for name in sorted(wanted, key=lambda name: (task_class(name).rank, name)):
        if name not in found:
            add(name)
    return tuple(found)


def with_sources(names: Iterable[str]) -> tuple[str, ...]:
    """Return task names together with their source tasks, in the order of ``ordered``."""
    names = list(names)
    return ordered([*names, *filter(None, (task_class(name).source for name in names))])


def task_class(name: str) -> Any:
    """Return the class of a task; raise UnknownNameError if the name is not registered."""
    return registry.get(name)


__all__ = ["Items", "Query", "Task", "TaskConfig", "merged", "ordered", "registry", "task_class", "with_sources"]
