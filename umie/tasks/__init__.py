"""Tasks: records to instructions and targets, generated strings back to items, items to scores."""

from typing import Any

from umie.registry import Registry
from umie.tasks.base import Items, Query, Task, TaskConfig

registry: Registry[Task[Any]] = Registry("task", __name__)

__all__ = ["Items", "Query", "Task", "TaskConfig", "registry"]
