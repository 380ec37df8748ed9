"""Readers of published data formats: files to records.

A reader is a function ``read(path, *, images=None, regions=None, on_error=None) -> Iterator[Record]``,
registered under the format's name. It reads one record after the other, and every error is a UmieError that
begins with the place, ``file:line:`` or ``file: key:``.

``images`` is the folder of the images, ``regions`` what annotates their regions; a reader whose format has
no such thing says so. ``on_error`` is called with the error of each record that cannot be read, which is then
passed over; without it the first such error is raised. A plugin offers a reader under the entry-point group
``umie.data``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from umie import registries
from umie.data.reading import OnError
from umie.errors import UmieError
from umie.records import Record
from umie.registry import Registry

registry: Registry[Iterator[Record]] = registries.data_formats

__all__ = ["OnError", "read", "registry"]


def read(
    format_name: str,
    path: str | Path,
    *,
    images: str | Path | None = None,
    regions: str | Path | None = None,
    on_error: OnError | None = None,
    **options: Any,
) -> Iterator[Record]:
    """Return the records of a file in a format of the registry, read one after the other.

    Args:
        format_name: a name of ``umie.data.registry``.
        path: the file.
        images: the folder of the images; without it most formats name none.
        regions: what annotates the regions of the images, for formats that keep it apart.
        on_error: called with the error of each record that cannot be read; reading then goes on with the next
            one, so that records and errors together are all that the file holds. Without it the first error is
            raised. A plugin's reader that takes no ``on_error`` ends at its first error.
        options: what only this format takes.

    Raises:
        UmieError: an unknown format; while reading, a file that cannot be opened or is broken as a whole, and,
            without ``on_error``, a record that cannot be read.
    """
    reader = registry.get(format_name)
    if on_error is None:
        return reader(path, images=images, regions=regions, **options)
    if _takes_on_error(reader):
        return reader(path, images=images, regions=regions, on_error=on_error, **options)
    return _until_error(reader(path, images=images, regions=regions, **options), on_error)


def _takes_on_error(reader: Callable[..., Any]) -> bool:
    parameters = inspect.signature(reader).parameters.values()
    return any(item.name == "on_error" or item.kind is item.VAR_KEYWORD for item in parameters)


def _until_error(records: Iterator[Record], on_error: OnError) -> Iterator[Record]:
    try:
        yield from records
    except UmieError as error:
        on_error(error)
