"""Readers of published data formats: files to records.

A reader is a function ``read(path, *, images=None, regions=None) -> Iterator[Record]``, registered under the
format's name. It reads one record after the other, and every error is a UmieError that begins with the place,
``file:line:`` or ``file: key:``.

``images`` is the folder of the pictures, ``regions`` what annotates their regions; a reader whose format has
no such thing says so. A plugin offers a reader under the entry-point group ``umie.data``.
"""

from collections.abc import Iterator

from umie.records import Record
from umie.registry import Registry

registry: Registry[Iterator[Record]] = Registry("data format", __name__)

__all__ = ["registry"]
