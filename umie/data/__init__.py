"""Readers of published data formats: files to records.

A reader is a function ``read(path, *, images=None, regions=None, on_error=None) -> Iterator[Record]``, registered under
the name of the format. It yields one record at a time, and each of its errors is a UmieError that begins with the
place, ``file:line:`` or ``file: key:``.

``images`` is the directory of the images and ``regions`` the annotation of their regions; a reader of a format without
images or separate region files refuses them. ``on_error`` is called with the error of each malformed record, which is
then skipped; without it, the first such error is raised. Further keyword-only parameters are options of the format,
such as ``mapping`` of ``swig``; see ``format_options``. A plugin adds a reader through the entry-point group
``umie.data``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from umie import registries
from umie.data.reading import OnError
from umie.errors import UmieError, check_keys
from umie.records import Record
from umie.records.no_relation import is_chosen, is_no_relation, renamed
from umie.registry import Registry

registry: Registry[Iterator[Record]] = registries.data_formats

__all__ = ["OnError", "format_options", "read", "registry"]

_COMMON = ("images", "regions", "on_error")


def read(
    format_name: str,
    path: str | Path,
    *,
    images: str | Path | None = None,
    regions: str | Path | None = None,
    on_error: OnError | None = None,
    **options: Any,
) -> Iterator[Record]:
    """Return an iterator over the records of a file in a registered format; ``umie.data`` describes the parameters.

    Without ``images``, most formats yield records without images. With ``on_error``, records and errors together cover
    the whole file; a reader of a plugin without ``on_error`` stops at its first.

    Relations named NA, no_relation, ... become ``none``, except in JSONL; see ``umie.records.no_relation_names``.

    Raises:
        UmieError: the format or an option is unknown; during iteration, the file cannot be read or is malformed as a
            whole, or, without ``on_error``, a record is malformed.
    """
    reader = registry.get(format_name)
    parameters = inspect.signature(reader).parameters
    takes_any_option = any(item.kind is item.VAR_KEYWORD for item in parameters.values())
    if not takes_any_option:
        check_keys(f"{format_name} option", options, format_options(format_name))
    if on_error is None:
        records = reader(path, images=images, regions=regions, **options)
    elif "on_error" in parameters or takes_any_option:
        records = reader(path, images=images, regions=regions, on_error=on_error, **options)
    else:
        records = _until_error(reader(path, images=images, regions=regions, **options), on_error)
    return map(partial(renamed, is_name=is_chosen if format_name == "jsonl" else is_no_relation), records)


def format_options(format_name: str) -> dict[str, str]:
    """Return the options that a format takes in addition to ``images`` and ``regions``: names and type annotations.

    An option with ``Path`` in its annotation is a file or directory; run and grid files may give it relative to the
    data root, like ``images``.

    Raises:
        UnknownNameError: the format is unknown.
    """
    parameters = inspect.signature(registry.get(format_name)).parameters.values()
    own = [item for item in parameters if item.kind is item.KEYWORD_ONLY and item.name not in _COMMON]
    return {item.name: str(item.annotation) for item in own}


def _until_error(records: Iterator[Record], on_error: OnError) -> Iterator[Record]:
    try:
        yield from records
    except UmieError as error:
        on_error(error)
