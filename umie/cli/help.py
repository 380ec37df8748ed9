"""Help texts that wrap once, at the width of the terminal."""

from __future__ import annotations

from typing import Any


def reflowed(text: str) -> str:
    """Return a help text with one line per paragraph, which the terminal wraps.

    A paragraph with an indented line, such as an example, is kept as it is.
    """
    paragraphs = text.strip("\n").split("\n\n")
    return "\n\n".join(part if part.startswith(" ") or "\n " in part else " ".join(part.split()) for part in paragraphs)


def tidied(command: Any) -> Any:
    """Return a click command whose flags show no type in the help, and whose lists show that of one value."""
    for parameter in command.params:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
        elif getattr(parameter, "multiple", False) and parameter.metavar is None:
            parameter.metavar = "<value>"
    help_option = command.get_help_option

    def tidied_help_option(context: Any) -> Any:
        option = help_option(context)
        if option is not None:
            option.metavar = ""
        return option

    command.get_help_option = tidied_help_option
    for inner in getattr(command, "commands", {}).values():
        tidied(inner)
    return command
