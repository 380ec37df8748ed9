"""What the options of `umie bench` mean: lists of names and numbers to a plan, and where results go."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from umie.errors import UmieError, UnknownNameError

if TYPE_CHECKING:
    from umie.bench.shapes import Shape

FOLDER = Path("runs/bench")
SUFFIXES = (".json", ".md", ".png")


def names(kind: str, given: str, choices: Iterable[str]) -> list[str]:
    """Return the names of a list with commas, each once, or all choices for ``all``.

    Raises:
        UnknownNameError: one is not among the choices.
        UmieError: there is none.
    """
    choices = list(choices)
    if given.strip() == "all":
        return choices
    found = list(dict.fromkeys(part for part in (part.strip() for part in given.split(",")) if part))
    for name in found:
        if name not in choices:
            raise UnknownNameError(kind, name, [*choices, "all"])
    if not found:
        raise UmieError(f"no {kind} is given: give some of {', '.join(choices)}, or all")
    return found


def numbers(option: str, given: str) -> list[int]:
    """Return the whole numbers of a list with commas, each once.

    Raises:
        UmieError: one is no whole number above 0, or there is none.
    """
    parts = [part.strip() for part in given.split(",") if part.strip()]
    found = {int(part): None for part in parts if part.isascii() and part.isdigit() and int(part) > 0}
    if not parts or len(found) != len(dict.fromkeys(parts)):
        raise UmieError(f"{option} is {given!r}: give whole numbers above 0, such as 8 or 8,64")
    return list(found)


def shapes(sizes: str, batch: str, tokens: str, slots: str, *, dense: bool, ragged: bool) -> list[Shape]:
    """Return every shape of the lists; dense where neither kind is asked for."""
    from umie.bench.shapes import SIZES, Shape

    kinds = [False] * (dense or not ragged) + [True] * ragged
    every = product(
        names("size", sizes, SIZES),
        numbers("--batch", batch),
        numbers("--tokens", tokens),
        numbers("--slots", slots),
        kinds,
    )
    return [
        Shape(size=size, batch=num_examples, tokens=num_tokens, slots=num_slots, ragged=kind)
        for size, num_examples, num_tokens, num_slots, kind in every
    ]


def place(output: Path | None, name: str) -> Path:
    """Return where results go, without a suffix; what is there already is never overwritten.

    Args:
        output: as given: a name with or without one of the suffixes; None takes ``name`` in FOLDER, with a number
            behind it where that is taken.
        name: by default.

    Raises:
        UmieError: results stand at ``output``.
    """
    if output is None:
        number, found = 1, FOLDER / name
        while _taken(found):
            number += 1
            found = FOLDER / f"{name}_{number}"
        return found
    stem = output.with_suffix("") if output.suffix in SUFFIXES else output
    if not stem.name or output.is_dir():
        raise UmieError(f"--output {output}: is a folder: give the name of a file")
    if _taken(stem):
        taken = next(file for file in files(stem) if file.exists())
        raise UmieError(f"--output {output}: {taken} is there already: give another name, or remove it")
    return stem


def files(stem: Path) -> list[Path]:
    """Return the files of a result."""
    return [stem.with_name(stem.name + suffix) for suffix in SUFFIXES]


def _taken(stem: Path) -> bool:
    return any(file.exists() for file in files(stem))
