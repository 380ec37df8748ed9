"""The command line: `umie list`, `train`, `ablate`, `evaluate`, `extract`, ..., with one module per command."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from umie.cli import ablate, bench, convert, data, evaluate, extract, train
from umie.cli import list_parts as parts
from umie.cli.console import err, out
from umie.cli.help import tidied
from umie.errors import UmieError

app = typer.Typer(
    help="Multimodal information extraction from composable parts: encoders, fusion, decoders, tasks.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command("list")(parts.list_parts)
app.command("train")(train.train)
app.command("ablate")(ablate.ablate)
app.command("evaluate")(evaluate.evaluate)
app.command("extract")(extract.extract)
app.command("convert")(convert.convert)
app.add_typer(data.app, name="data")
app.add_typer(bench.app, name="bench")


_UsageError: Any = typer.BadParameter.__mro__[1]  # from click, or from the copy in newer versions of typer


def main() -> None:
    """Run the command line. Bad input is reported on standard error with exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for library in ("transformers", "huggingface_hub", "httpx"):
        logging.getLogger(library).setLevel(logging.ERROR)
    try:
        # in standalone mode, typer would print its own errors, in boxes
        code = tidied(typer.main.get_command(app))(prog_name="umie", standalone_mode=False)
    except BrokenPipeError:  # the reader stopped: `umie data stats FILE | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except typer.Abort:
        err.print("umie: interrupted")
        sys.exit(130)
    except (UmieError, OSError) as error:  # OSError: e.g. a full disk or a read-only directory
        _fail(str(error))
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # the help was already printed
            sys.exit(2)
        context = getattr(error, "ctx", None)
        more = "" if context is None else f" (see {context.command_path} --help)"
        _fail(f"{error.format_message()}{more}")
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> NoReturn:
    lines = "\n".join(
        " ".join(line.split()) if number == 0 else line for number, line in enumerate(message.splitlines())
    )
    err.print(f"umie: {lines}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)


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
