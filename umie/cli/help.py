"""Help texts that wrap once, at the width of the terminal."""

from __future__ import annotations


def reflowed(text: str) -> str:
    """Return a help text with one line per paragraph, which the terminal wraps.

    A paragraph with an indented line, such as an example, is kept as it is.
    """
    paragraphs = text.strip("\n").split("\n\n")
    return "\n\n".join(part if part.startswith(" ") or "\n " in part else " ".join(part.split()) for part in paragraphs)
