"""The command line: `umie list`, `train`, `ablate`, `evaluate`, `extract`, ..., with one module per command."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from typing import Annotated, Any

import typer

from umie.cli import (
    ablate,
    bench,
    calibrate,
    convert,
    data,
    evaluate,
    example,
    explain,
    explore,
    extract,
    grid,
    list_parts,
    serve,
    train,
    view,
)
from umie.cli.console import out, print_note, print_notes, tolerate_encodings
from umie.errors import UmieError

app = typer.Typer(
    help="Multimodal information extraction from composable parts: encoders, fusion, decoders, tasks.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command("list")(list_parts.list_parts)
for command in (
    train.train, ablate.ablate, evaluate.evaluate, extract.extract, explain.explain, explore.explore, view.view,
    calibrate.calibrate, serve.serve, convert.convert, example.example,
):  # fmt: skip
    app.command()(command)
app.add_typer(data.app, name="data")
app.add_typer(bench.app, name="bench")
app.add_typer(grid.app, name="grid")


_UsageError: Any = typer.BadParameter.__mro__[1]  # from click, or from the copy in newer versions of typer


def main() -> None:
    """Run the command line. Bad input is reported on standard error with exit code 2."""
    tolerate_encodings()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for library in ("transformers", "huggingface_hub", "httpx"):
        logging.getLogger(library).setLevel(logging.ERROR)
    from umie.records.notes import collected_notes

    notes: Counter[str] = Counter()
    try:
        with collected_notes() as notes:  # those that a command does not collect and number itself
            # in standalone mode, typer would print its own errors, in boxes
            code = command_line()(prog_name="umie", standalone_mode=False)
    except BrokenPipeError:  # the reader stopped: `umie data stats FILE | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except typer.Abort:
        print_note("umie: interrupted")
        sys.exit(130)
    except (UmieError, OSError) as error:  # OSError: e.g. a full disk or a read-only directory
        message = str(error)
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # the help was already printed
            sys.exit(2)
        context = getattr(error, "ctx", None)
        more = "" if context is None else f" (see {context.command_path} --help)"
        message = f"{error.format_message()}{more}"
    else:
        print_notes(notes, with_numbers=False)  # a file may have been read several times
        sys.exit(code if isinstance(code, int) else 0)
    first, *lines = message.split("\n")
    print_note("\n".join([f"umie: {' '.join(first.split())}", *lines]), "red")
    sys.exit(2)


def command_line() -> Any:
    """Return the command ``umie`` with its subcommands, as click knows it, with readable help."""
    return _tidied(typer.main.get_command(app))


def _tidied(command: Any) -> Any:
    """Return a click command with a readable help.

    A paragraph of its text is one line, which the terminal wraps, unless it has an indented line, as examples have. Its
    flags show no type, and its lists show the type of one value.
    """
    paragraphs = (command.help or "").split("\n\n")
    command.help = "\n\n".join(text if "\n " in f"\n{text}" else " ".join(text.split()) for text in paragraphs)
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
        _tidied(inner)
    return command


@app.callback(invoke_without_command=True)
def _version(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        import umie

        out.print(umie.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        out.print(context.get_help())
