"""Texts from data never control the terminal, and output works in every locale."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

import umie as library
from umie.cli.console import SafeConsole
from umie.errors import UmieError, printable
from umie.reports.tables import csv_table, latex_table, markdown_table

HOSTILE = "\x1b[31mred\x1b]0;title\x07 \x9b2J \x08\x7f\r x \u202eabc \u2066"
CODES = ("\x1b", "\x07", "\x9b", "\x08", "\x7f", "\r", "\u202e", "\u2066")


def is_safe(text):
    return not any(code in text for code in CODES)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = {
        "id": HOSTILE, "text": f"Anna {HOSTILE}", "image": f"{HOSTILE}.jpg", "source": HOSTILE,
        "entities": [{"type": HOSTILE, "span": [0, 4]}, {"type": "人", "span": [5, 9]}], "tasks": ["mner"],
    }  # fmt: skip
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({**record, HOSTILE: 1}) + "\n")
    (tmp_path / f"{HOSTILE}.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "c.yaml").write_text(json.dumps({HOSTILE: HOSTILE}))
    return tmp_path


COMMANDS = [
    ("data", "stats", "a.jsonl", "--no-images"),
    ("data", "stats", f"{HOSTILE}.jsonl", "--json"),
    ("data", "sample", "a.jsonl"),
    ("data", "sample", "a.jsonl", "--json"),
    ("data", "validate", "a.jsonl"),
    ("data", "validate", "b.jsonl"),
    ("data", "validate", f"{HOSTILE}.jsonl"),
    ("evaluate", "--predictions", "a.jsonl", "--gold", "a.jsonl", "--labels"),
    ("evaluate", "--predictions", "b.jsonl", "--gold", f"{HOSTILE}.jsonl"),
    ("train", "c.yaml", "--plan"),
    ("ablate", "c.yaml", "--plan"),
    ("ablate", f"{HOSTILE}.yaml"),
    ("list", HOSTILE),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:3])[:30])
def test_commands_print_no_control_codes(umie, files, command):
    _, out, err = umie(*command)
    assert is_safe(out + err), out + err
    assert "Traceback" not in err


def test_extractions_print_no_control_codes(umie, tmp_path):
    label = "a\x1b[31mb"
    model, processor = library.compose(tasks={"mner": {"labels": ["person"]}})
    model.save_pretrained(tmp_path), processor.save_pretrained(tmp_path)
    for options in ((), ("--json",)):
        code, out, err = umie("extract", "-m", tmp_path, f"Anna {label}", "--task", "mner", "--label", label, *options)
        assert code == 0, err
        assert is_safe(out + err)
        if options:
            assert json.loads(out)["text"] == f"Anna {label}"


def test_a_console_keeps_its_own_codes_and_escapes_those_of_texts():
    console = SafeConsole(force_terminal=True, color_system="standard", width=200)
    table = Table("label", title=HOSTILE)
    table.add_row(f"[red]{HOSTILE}[/red]")
    with console.capture() as capture:
        console.print(table)
        console.print(HOSTILE)
    text = capture.get()
    assert "\x1b[31m" in text  # of rich
    assert "\x1b]0;" not in text and "\x1b[2J" not in text and "\x9b" not in text and "\x07" not in text


def test_messages_of_errors_are_printable():
    assert str(UmieError(f"label {HOSTILE}\nnext")) == f"label {printable(HOSTILE)}\nnext"
    assert is_safe(printable(HOSTILE))
    assert printable("plain 人名 é \u200d\n\t") == "plain 人名 é \u200d\n\t"


def test_tables_escape_their_formats():
    cells = [
        "a|b",
        "a\nb",
        "<script>x</script>",
        "<!-- x",
        "&lt;",
        "[x](javascript:1)",
        "\x1b[31m",
        "a\\b",
        "< 0.1",
    ]
    table = markdown_table(["x"], [[cell] for cell in cells])
    rows = [line.strip("| ").strip() for line in table.splitlines()[2:]]
    assert rows == [
        "a\\|b", "a b", "&lt;script>x&lt;/script>", "&lt;!-- x", "&amp;lt;", "[x]\\(javascript:1)", "\\\\x1b[31m",
        "a\\\\b", "< 0.1",
    ]  # fmt: skip
    formulas = ["=1+1", "+cmd", "-cmd", "@x", "\t=x", "-0.5", "+1e-3", "-", "-inf", "a=b", "", -0.5, "\x1b=1"]
    lines = csv_table(["x"], [[cell] for cell in formulas]).splitlines()
    assert lines[1:] == [
        "'=1+1", "'+cmd", "'-cmd", "'@x", "'\t=x", "-0.5", "+1e-3", "-", "-inf", "a=b", '""', "-0.5", "\\x1b=1"
    ]  # fmt: skip
    latex = latex_table(["x", "y"], [["a_b & 50% $x$ {z} ~ ^ \\input{x} #1 \x1b", "1"]])
    assert r"a\_b \& 50\% \$x\$ \{z\}" in latex and r"\input" not in latex and "\x1b" not in latex


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_in_other_encodings(files, encoding):
    """Python reads and writes another encoding than UTF-8, and a record and its file have Chinese names."""
    (files / "a.jsonl").rename(files / "人.jsonl")
    root = str(Path(library.__file__).parents[1])
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": encoding, "PATH": "", "PYTHONPATH": root}
    command = [sys.executable, "-m", "umie", "data", "stats", "人.jsonl", "--no-images"]
    done = subprocess.run(command, cwd=files, env=environment, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u4eba" in done.stdout
