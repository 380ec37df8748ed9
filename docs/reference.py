"""Pages that are written from the code when the site is built: the commands, the parts, and the changelog."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from umie import registries
from umie.cli import command_line
from umie.cli.list_parts import description_of, options_of
from umie.data.embedded import EMBEDDED

ROOT = Path(__file__).resolve().parents[1]


def commands() -> str:
    """Return each command with its help and its options."""
    root = command_line()
    context = root.make_context("umie", ["list"], resilient_parsing=True)
    return "\n\n".join(_command("umie", root, context))


def parts() -> str:
    """Return each registered part with its options."""
    pages = []
    for kind, registry in registries.ALL.items():
        pages.append(f"## {kind.capitalize()}")
        found = {name: registry.get(name) for name in registry.known()}
        if kind == "data formats":
            found |= {name: one.config for name, one in EMBEDDED.items()}
        for name, part in found.items():
            rows = [
                (f"`{option}`", f"`{default}`" if default else "", _text(about))
                for option, default, about in options_of(part)
            ]
            pages += [f"### {name}", _text(description_of(part)), _table(("option", "default", "meaning"), rows)]
    return "\n\n".join(pages)


def changelog() -> str:
    """Return the changelog without its title, with links that lead from here."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("\n")[2]
    return re.sub(r"\]\((?!https?:|docs/)", "](../", text).replace("](docs/", "](")


PAGES = {"commands": commands, "parts": parts, "changelog": changelog}


def _command(name: str, command: Any, context: Any) -> Iterator[str]:
    """Yield the paragraphs about a command and its subcommands."""
    inner = getattr(command, "commands", {})
    if name != "umie":  # the title of the page
        yield f"## {name}"
        yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```"
    yield from _help(command.help or "")
    records = [(one.get_help_record(context), one) for one in command.get_params(context)]
    rows = [(f"`{record[0]}`", _text(record[1])) for record, one in records if record and one.name != "help"]
    if rows:
        yield _table(("argument or option", "meaning"), rows)
    for own, one in inner.items():
        yield from _command(f"{name} {own}", one, one.context_class(one, info_name=own, parent=context))


def _help(text: str) -> Iterator[str]:
    """Yield the paragraphs of a help text; indented lines are commands."""
    for paragraph in text.split("\n\n"):
        lines = paragraph.split("\n")
        code = [line[4:] for line in lines if line.startswith("    ")]
        if len(code) < len(lines):
            yield _text("\n".join(line for line in lines if not line.startswith("    ")))
        if code:
            yield "```sh\n" + "\n".join(code) + "\n```"


def _text(plain: str) -> str:
    """Return a plain text as Markdown: code in backticks stays as it is, and the names of pages are links."""
    pieces = re.split(r"(`[^`]+`|docs/\w+\.md)", plain)
    for number, piece in enumerate(pieces):
        if not number % 2:
            pieces[number] = re.sub(r"([\\*_<\[\]`])", r"\\\1", piece)
        elif not piece.startswith("`"):
            pieces[number] = f"[{piece}]({piece.removeprefix('docs/')})"
    return "".join(pieces)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""
