"""The documentation: its code runs, configs are valid, commands have their options, and links lead somewhere."""

import json
import re
import shlex
import shutil
import sys
import threading
import time
import wave
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image

from umie.cli import command_line
from umie.data.synthetic import SyntheticConfig, write_synthetic
from umie.experiments import read_grid, run_grid
from umie.experiments.expand import plan
from umie.experiments.parts import check_parts
from umie.extraction import Extractor
from umie.records import record_from_json, write_jsonl
from umie.serving import Batcher, bind, create_app
from umie.yaml_files import parse_yaml

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LINKED = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]


class Block(NamedTuple):
    """Code in a page: its language, its text, and the number of its first line."""

    page: Path
    language: str
    text: str
    line: int

    def __str__(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page, *languages):
    text = page.read_text(encoding="utf-8")
    fences = re.finditer(r"^```(\S*)[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    every = [Block(page, found[1], found[2], text[: found.start(2)].count("\n") + 1) for found in fences]
    return [block for block in every if block.language in languages]


def of_all(*languages):
    return [pytest.param(block, id=str(block)) for page in PAGES for block in blocks_of(page, *languages)]


# --- Python ----------------------------------------------------------------------------------------------------------


def make_data(folder, _):
    with wave.open("speech.wav", "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(np.zeros(8000, np.int16).tobytes())
    frames = [Image.new("RGB", (32, 24), color) for color in ("red", "green")]
    frames[0].save("news.mp4", "PNG", save_all=True, append_images=frames[1:], duration=100)


def make_encoders(folder, _):
    from torchvision.models import resnet101

    Image.new("RGB", (64, 48), "gray").save("photo.jpg")
    torch.save(resnet101().state_dict(), "resnet101.pth")
    (folder / "vinvl").mkdir()
    shape = {"image_w": 64, "image_h": 48, "bounding_boxes": np.array([[0, 0, 32, 24]], np.float32)}
    np.savez("vinvl/photo.npz", box_features=np.ones((1, 16), np.float32), **shape)


def make_five_minutes(folder, request):
    run = folder / "runs/train/embedded-seed0"
    shutil.copytree(request.getfixturevalue("learned_checkpoint"), run / "best")
    write_synthetic(run / "data-1", SyntheticConfig(train=0, dev=0, test=31))


def make_grids(folder, _):
    values = {
        "engine": "inline", "data": {"format": "synthetic", "train": 6, "dev": 3, "test": 6}, "tasks": ["mner"],
        "fusion": ["gated"], "training": {"max_steps": 1, "batch_size": 2},
        "evaluation": {"generation": {"max_new_tokens": 4}},
    }  # fmt: skip
    Path("x.yaml").write_text(json.dumps(values))
    assert not run_grid(read_grid("x.yaml"), folder, folder / "runs/x").crashed


def make_own_parts(folder, _):
    for path in (ROOT / "examples").glob("own_*.py"):
        shutil.copy(path, folder)


def make_scores(folder, request):
    records = request.getfixturevalue("learned_records")[:6]
    for name in ("g.jsonl", "p.jsonl", "test.jsonl"):
        write_jsonl(name, [replace(record, image=None) for record in records])
    shutil.copytree(request.getfixturevalue("learned_checkpoint"), "best")


def make_index(folder, _):
    Image.new("RGB", (64, 48), "gray").save("kids.jpg")


def make_serving(folder, request):
    """Start a server, and return its address."""
    make_workflow(folder, request)
    batcher = Batcher(Extractor.from_pretrained("best", device="cpu")).start()
    bound = bind("localhost", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(batcher), log_level="error", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()

    def stop():
        server.should_exit = True
        thread.join(20)
        assert batcher.close(20)

    request.addfinalizer(stop)
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    return f"localhost:{bound.getsockname()[1]}"


def make_workflow(folder, request):
    shutil.copytree(request.getfixturevalue("learned_checkpoint"), "best")
    Image.new("RGB", (64, 48), "gray").save("kids.jpg")


make_gate = make_workflow


WITH_PYTHON = [page for page in PAGES if blocks_of(page, "python")]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_python_runs(page, tmp_path, monkeypatch, request, forget_plugins):
    """All blocks of a page run one after the other, in one namespace and in a directory with what they read."""
    monkeypatch.chdir(tmp_path)
    make = getattr(sys.modules[__name__], f"make_{page.stem}", None)
    address = None if make is None else make(tmp_path, request)
    namespace = {"__name__": "page"}
    for block in blocks_of(page, "python"):
        code = "\n" * (block.line - 1) + block.text  # so that a traceback has the line of the page
        exec(compile(code.replace("localhost:8000", address or "localhost:8000"), str(page), "exec"), namespace)
    if "batcher" in namespace:
        assert namespace["batcher"].close(20)


# --- JSON and YAML ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", of_all("json"))
def test_json_is_valid_records(block):
    """A block is one value, or has one per line: records, or what was extracted, which has more keys."""
    try:
        values = [json.loads(block.text)]
    except ValueError:
        values = [json.loads(line) for line in block.text.splitlines()]
    for value in values:
        if "warnings" in value:
            continue
        assert record_from_json(json.dumps(value)).text == value["text"]


@pytest.mark.parametrize("block", of_all("yaml"))
def test_yaml_is_a_valid_grid(block, tmp_path):
    """What an excerpt leaves out is added."""
    values = {"data": {"format": "synthetic"}, "tasks": ["mner"], **parse_yaml(block.text)}
    (tmp_path / "grid.yaml").write_text(json.dumps(values), encoding="utf-8")
    cells = plan(read_grid(tmp_path / "grid.yaml"), "", read_files=False)
    check_parts([cell.config for cell in cells], read_files=False)


# --- commands --------------------------------------------------------------------------------------------------------


COMMAND = command_line()


def commands_in(script):
    """Yield the arguments of each call of umie in a shell script."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = []
        for word in [*lexer, ";"]:
            if not set(word) <= set(";&|<>()"):
                words.append(word)
                continue
            if "umie" in words and words[0] not in ("docker", "curl"):
                yield words[words.index("umie") + 1 :]
            words = []


def check_command(words, *, is_complete):
    """Parse a call without running it; raise what the command line would report."""
    command = COMMAND
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    assert command.name != "umie" or words == ["--version"], words
    assert not hasattr(command, "commands") or not words or words[0].startswith("-"), words
    if "--help" not in words:
        command.make_context("umie", list(words), resilient_parsing=not is_complete)


def scripts():
    return [
        pytest.param(words, id=f"{block}:{number}")
        for page in PAGES
        for block in blocks_of(page, "sh", "bash")
        for number, words in enumerate(commands_in(block.text))
    ]


@pytest.mark.parametrize("words", scripts())
def test_commands_can_be_parsed(words):
    check_command(words, is_complete=True)


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.stem)
def test_commands_in_the_text_exist(page):
    """Commands in the text may leave out arguments."""
    text = re.sub(r"^(`{3,}).*?^\1$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`(umie [^`]+)`", text):
        for words in commands_in(" ".join(code.split())):
            if "COMMAND" not in words:
                check_command([word for word in words if word != "..."], is_complete=False)


def test_a_wrong_command_is_found():
    for words in (
        ["trian", "x.yaml"],
        ["train"],
        ["train", "x.yaml", "--sets", "a=1"],
        ["data", "converts"],
        ["bench", "x"],
    ):
        with pytest.raises(Exception):  # noqa: B017 # of click, or of the copy in newer versions of typer
            check_command(words, is_complete=True)
    script = "for a in b; do [ -e $a ] && X=1 umie list \\\n gated --json # no umie here\ndone > umie.txt"
    script += "\ncat a | umie view -"
    assert list(commands_in(script)) == [["list", "gated", "--json"], ["view", "-"]]


# --- links -----------------------------------------------------------------------------------------------------------


def anchors_of(page):
    """Return the anchors of the headings of a page, as GitHub and the site name them."""
    text = re.sub(r"^(`{3,}).*?^\1$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    text = re.sub(r"^(`{3,}).*?^\1$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "", text)  # a link in code is none
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert target.is_relative_to(ROOT), path
        assert not anchor or anchor in anchors_of(target), f"{path}#{anchor}"


def test_documents_contain_no_placeholders():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"^[A-Z_]+_TABLE$|TODO|FIXME", text, re.MULTILINE), page


# --- the site --------------------------------------------------------------------------------------------------------


def test_every_page_is_in_the_navigation():
    listed = set()
    for index in (DOCS / "index.md", DOCS / "api" / "index.md"):
        for tree in re.findall(
            r"^```{toctree}\n(.*?)^```$", index.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            names = [line for line in tree.splitlines() if line and not line.startswith(":")]
            listed |= {(index.parent / re.sub(r".*<(.*)>", r"\1", name)).with_suffix(".md") for name in names}
    assert listed == {*DOCS.rglob("*.md")} - {DOCS / "index.md"}


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    import reference

    yield reference
    del sys.modules["reference"]


def test_the_reference_has_every_command_and_part(reference):
    commands, parts = reference.commands(), reference.parts()

    def check(name, command):
        inner = getattr(command, "commands", {})
        assert name == "umie" or f"\n## {name}\n" in commands
        for own, one in inner.items():
            check(f"{name} {own}", one)

    check("umie", command_line())
    assert "`--missing-images <" in commands and "### gated" in parts and "| `gate` | `'dynamic'` |" in parts
    assert "[docs/grids.md](grids.md" in reference.changelog() and "](../CONTRIBUTING.md)" in reference.changelog()
