"""What readers changed or had to assume, counted for the command that reports it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

BOXES = "boxes"
CLIPPED = "boxes moved to the border of the image"
_MAX_NOTES = 100  # different ones; labels are part of some
_notes: ContextVar[Counter[str] | None] = ContextVar("notes", default=None)


@contextmanager
def collected_notes() -> Iterator[Counter[str]]:
    """Yield the notes that are taken inside the block, with their numbers."""
    notes: Counter[str] = Counter()
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def take_note(text: str) -> None:
    """Count a note; without ``collected_notes`` it is dropped."""
    notes = _notes.get()
    if notes is not None and (text in notes or len(notes) < _MAX_NOTES):
        notes[text] += 1


def note_lines(notes: Counter[str], *, with_numbers: bool = True) -> Iterator[str]:
    """Yield a line for each note, with its number; that of moved boxes is also shown as their share."""
    for text, number in notes.items():
        if text != BOXES:
            share = f" of {notes[BOXES]:,} ({number / notes[BOXES]:.1%})" if text == CLIPPED and notes[BOXES] else ""
            yield f"{text}: {number:,}{share}" if with_numbers else text
