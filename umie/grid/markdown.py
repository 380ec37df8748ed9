"""A table of Markdown that reads well as plain text too."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return rows as a table of Markdown, its columns aligned."""
    body = [[value.replace("|", "\\|") for value in line] for line in body]
    columns = [max(len(str(line[index])) for line in [header, *body]) for index in range(len(header))]
    lines = [header, ["-" * width for width in columns], *body]
    return "\n".join(
        "| " + " | ".join(str(value).ljust(width) for value, width in zip(line, columns, strict=True)) + " |"
        for line in lines
    )
