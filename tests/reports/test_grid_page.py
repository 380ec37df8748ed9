"""The page of a grid: what it says, that texts from data cannot do anything in it, and that it works in a browser."""

import base64
import csv
import hashlib
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from browser import open_page
from PIL import Image
from test_grid_report import grid_run as grid_run  # a fixture

from umie.experiments.grid_file import describe
from umie.experiments.grid_results import GridResults
from umie.experiments.results import COUNTS, CURVES, GATES
from umie.reports.grid import write_report
from umie.reports.grid_export import export, page
from umie.reports.grid_html import html_page
from umie.reports.grid_plots import pareto_front
from umie.reports.tables import csv_table, latex_table, markdown_table, narrow_tables

HOSTILE = [
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    "=cmd|'/C calc'!A0",
    "+1 @SUM(A1)",
    "\t=1",
    "＝1",
    r"$x_1^2$ & \input{/etc/passwd} % # ~ {",
    "[a](javascript:alert(1)) | `b`",
    "a\x1b[31m\x07\u202eb",
    "人名 \U0001f600 ł «ö» ± λ≤2",
    "*[x]",
    "&lt;b&gt; &amp;",
    "{{ 7 * 7 }} {% raw %}",
    "]]> --> <!-- \"'",
    "x" * 300,
]
VOID = {"meta", "path", "use", "img", "br", "input", "link"}


def filled(grid_run, folder, labels=("gated", "text_only"), seeds=3, **changes):
    """Return a grid of two fusions and two trainings with counts, gates and curves; one cell crashed."""
    fusion = [{"name": name, "label": label} for name, label in zip(("gated", "text_only"), labels, strict=True)]
    training = [{"label": "short", "max_steps": 5}, {"label": "long", "max_steps": 9}]
    given = {"fusion": fusion, "training": training, "question": "Which is best?", "notes": ["A note."], **changes}
    names = [f"{label} + {one['label']}" for label in labels for one in given["training"]]
    crashed = [(names[-1], seeds - 1)]
    f1 = {name: 0.5 + 0.1 * number for number, name in enumerate(names)}
    cells = {(name, seed): {"mner": f1[name] + seed / 100, "mre": 0.5} for name in names for seed in range(seeds)}
    run = grid_run({key: cell for key, cell in cells.items() if key not in crashed}, crashed=crashed, **given)
    for cell in run.cells:
        line = run.results[cell.hash]
        if line["status"] == "ok":
            line["seconds"]["train"] = 10.0 + 5 * names.index(cell.variant)
        place = folder / "cells" / cell.hash
        place.mkdir(parents=True)
        right = round(100 * f1[cell.variant]) // 10
        counts = [[min(2, (number + cell.seed) % 10 // (11 - right) * 2), 2, 2] for number in range(60)]
        (place / COUNTS).write_text(json.dumps({"mner": counts, "mre": [[1, 2, 2]] * 60}))
        (place / CURVES).write_text(json.dumps({"loss": [[1, 2.0], [5, 1.0 + cell.seed / 10]], "dev": [[5, 0.4]]}))
        if cell.variant == names[0]:
            (place / GATES).write_text(json.dumps({"mner": [0.1, 0.3, -0.1]}))
    return run


class Outline(HTMLParser):
    """The elements, texts and attributes of a page; it fails where they are not well nested."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.texts.append(data)


PAGES = []  # written once, because drawing its figures takes seconds


@pytest.fixture
def folder(grid_run, tmp_path_factory):
    """The directory of a grid whose first label is a script, with its report."""
    if not PAGES:
        PAGES.append(tmp_path_factory.mktemp("page"))
        write_report(filled(grid_run, PAGES[0], (HOSTILE[0], "text_only")), PAGES[0])
    return PAGES[0]


def test_the_page_has_everything_in_one_file(folder):
    html = (folder / "report.html").read_text(encoding="utf-8")
    outline = Outline(html)
    text = "\n".join(outline.texts)
    shown_texts = (
        "by hand", "Which is best?", "A note.", "0.510 ± ", "Pareto front", "no luck", "umie 0.1.0",
        "fusion: <script>alert(1)</script>", "training: long", "with training: long", "Training loss",
        "gate: weight of the image", "test: 12 records", "Cells: 11 finished, 1 failed",
    )  # fmt: skip
    for shown in shown_texts:
        assert shown in text, shown
    assert "nan" not in text.casefold()
    # bars, differences, effects, an interaction, cost, curves, gates
    assert outline.tags.count("svg") == 3 + 2 + 3 + 1 + 1 + 2 + 1
    # nothing is loaded, and the policy allows only the script of the page
    loaded = [(name, value) for name, value in outline.attributes if name in ("src", "href", "xlink:href", "data")]
    assert all(value.startswith("#") for _, value in loaded)
    assert outline.tags.count("script") == 1
    script = html.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    ids = [value for name, value in outline.attributes if name == "id" and not value.startswith(("m", "p"))]
    assert len(set(ids)) == len(ids)


def test_two_seeds_have_no_interval_in_any_output(grid_run, tmp_path):
    run = filled(grid_run, tmp_path, seeds=2)
    write_report(run, tmp_path)
    results = GridResults(tmp_path, describe(run), run.results)
    export(results, tmp_path / "again.md")
    for name in ("report.html", "table.md", "table.tex", "again.md"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        text = text.replace("over seeds ± half", "")
        assert "±" not in text, name
        # intervals of cells are over records; those of differences have signs
        assert not re.search(r"\[[+-]\d", text), name
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text(encoding="utf-8"))))
    assert {row["f1_t95_half_width"] for row in rows} == {""}
    assert "95% interval" not in (tmp_path / "figure.svg").read_text(encoding="utf-8")


def test_no_text_from_data_does_anything_in_any_output(grid_run, tmp_path):
    training = [{"label": label, "max_steps": number + 1} for number, label in enumerate(HOSTILE)]
    f1 = {(label, 0): {"mner": 0.5, "mre": 0.4} for label in HOSTILE[1:]}
    everything = " ".join(HOSTILE)
    run = grid_run(
        f1,
        crashed=[(HOSTILE[0], 0)],
        fusion="gated",
        training=training,
        question=everything,
        notes=HOSTILE,
        name=everything.replace("/", "")[:100],
    )
    for cell in run.cells:
        if cell in run.crashed:
            run.results[cell.hash] |= {"error": everything, "traceback": f"{everything}\n```\n{everything}"}
        folder = tmp_path / "cells" / cell.hash
        folder.mkdir(parents=True)
        (folder / COUNTS).write_text(json.dumps({"mner": [[1, 2, 2], [2, 2, 2]] * 30, "mre": [[1, 2, 2]] * 60}))
        (folder / CURVES).write_text(json.dumps({"loss": [[1, 2.0], [5, 1.0]]}))
    (folder / GATES).write_text(json.dumps({"mner": [0.1, 0.3, -0.1]}))
    write_report(run, tmp_path)
    texts = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.*") if path.suffix in SUFFIXES}
    assert len(texts) == len(SUFFIXES)
    for name, text in texts.items():
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", text), name
    for name in ("report.html", "figure.svg"):
        outline = Outline(texts[name][texts[name].index("<svg") if name == "figure.svg" else 0 :])
        assert outline.tags.count("script") == (name == "report.html")
        assert "img" not in outline.tags and "b" not in outline.tags
        assert not [one for one, _ in outline.attributes if one.startswith("on")]
        shown = "\n".join(outline.texts)
        for label in HOSTILE[:5]:
            assert label.strip()[:15] in shown, label
        assert "{{ 7 * 7 }}" in shown
    outside = texts["table.md"].split("```")[0]
    assert not re.search(r"<(script|img|/style)|\]\(javascript", outside)
    for row in csv.reader(io.StringIO(texts["table.csv"])):
        for cell in row:
            assert not cell.lstrip().startswith(("=", "+", "-", "@", "＝")) or re.fullmatch(r"-?[\d.]+", cell)
    with Image.open(tmp_path / "figure.png") as figure:
        figure.load()
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


SUFFIXES = (".html", ".md", ".csv", ".tex", ".svg")


def test_latex_shows_each_label_in_one_cell():
    table = latex_table(["variant", "F1"], [[label, "0.5"] for label in HOSTILE]).splitlines()[4:-2]
    assert len(table) == len(HOSTILE)
    for row in table:
        bare = re.sub(r"\\text[a-z]+\{\}|\\ensuremath\{\\[a-z]+\}|\\[&%$#_{}]", "", row)
        assert bare.count("&") == 1 and bare.endswith(r"& 0.5 \\")
        assert not re.search(r"[$#%{}~^_]", bare.removeprefix("{}"))
        assert "\\" not in bare[:-2]
        assert not bare.startswith(("[", "*"))


def test_csv_cells_are_no_formulas_but_numbers_stay_numbers():
    rows = csv.reader(io.StringIO(csv_table(["a"], [[label] for label in HOSTILE] + [["-0.5"], ["+2"], ["-"]])))
    cells = [row[0] for row in rows]
    assert cells[3:7] == ["'=cmd|'/C calc'!A0", "'+1 @SUM(A1)", "'\t=1", "'＝1"]
    assert cells[-3:] == ["-0.5", "+2", "-"]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["OT1", "T1"])
def test_the_table_compiles_in_a_latex_document(folder, tmp_path, encoding):
    program = shutil.which("pdflatex")
    if program is None:
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-recommended)")
    hostile = latex_table(["variant", *HOSTILE[:3]], [[label, "0.5", "±", "–"] for label in HOSTILE])
    every = latex_table(["a"], [["".join(map(chr, range(start, start + 16)))] for start in range(0x20, 0x400, 16)])
    tables = "\n\n".join([(folder / "table.tex").read_text(encoding="utf-8"), hostile, every])
    document = rf"""\documentclass{{article}}
\usepackage[{encoding}]{{fontenc}}
\usepackage{{lmodern,booktabs}}
\begin{{document}}
{tables}
\end{{document}}"""
    (tmp_path / "paper.tex").write_text(document, encoding="utf-8")
    command = [program, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 1000


def test_the_pareto_front():
    points = {"a": (1.0, 0.5), "b": (2.0, 0.4), "c": (3.0, 0.7), "d": (3.0, 0.6), "e": (0.5, 0.1), "f": (4.0, 0.7)}
    assert pareto_front(points) == ["e", "a", "c"]
    assert pareto_front({}) == []


def test_a_page_without_results_and_from_an_archive(grid_run, tmp_path):
    run = grid_run({}, crashed=[("gated", 0), ("text_only", 0)])
    html = html_page(GridResults(tmp_path, describe(run), run.results))
    assert "no luck" in html and "<svg" not in html
    run = filled(grid_run, tmp_path)
    results = GridResults(tmp_path, describe(run), run.results, archived={})
    assert "Training loss" not in html_page(results)
    assert "<h1>" not in page(results)


WIDE = ["variant", "seeds", "MNER", "MRE", "train s"]


def test_wide_tables_are_split_by_columns_and_nothing_is_lost():
    rows = [[name, "3", "0.443 ± 0.215", "0.1 ± 0.2", "10"] for name in ("a|b", "c\\\\d")]
    page_ = f"# x\n\n{markdown_table(WIDE, rows)}\n\ntext | no table"
    assert narrow_tables(page_, 100) == page_
    narrow = narrow_tables(page_, 40)
    assert (
        max(map(len, narrow.splitlines())) <= 44
    )  # the lines of Markdown have borders, which a terminal does not show
    tables = [part.splitlines() for part in narrow.split("\n\n") if part.startswith("|")]
    assert [line[0].count("|") - 1 for line in tables] == [3, 3]
    assert [cell.strip() for table in tables for cell in table[0].split("|")[1:-1]] == [
        "variant", "seeds", "MNER", "variant", "MRE", "train s",
    ]  # fmt: skip
    assert narrow.count("a\\|b") == 2 and narrow.count("c\\\\\\\\d") == 2
    assert narrow.endswith("text | no table")
    code = "```\n| a | b\n```"
    assert narrow_tables(code, 5) == code


# --- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    with open_page() as driver:
        yield driver


def test_in_a_browser_a_click_sorts_the_table_and_figures_can_be_read(folder, browser):
    browser.open(folder / "report.html")
    column = "return [...document.querySelectorAll('table')[0].tBodies[0].rows].map(row => row.cells[{}].textContent)"
    click = "document.querySelectorAll('table')[0].tHead.rows[0].cells[{}].firstElementChild.click()"
    assert [float(one.split()[0]) for one in browser.run(column.format(2))] == [0.51, 0.61, 0.71, 0.805]
    browser.run(click.format(2))
    browser.run(click.format(2))
    assert [float(one.split()[0]) for one in browser.run(column.format(2))] == [0.805, 0.71, 0.61, 0.51]
    browser.run(click.format(0))
    names = browser.run(column.format(0))
    assert names == sorted(names)
    fixed = browser.run("return document.querySelector('.fixed').textContent")
    assert "text-only ceiling" in fixed
    texts = browser.run("return [...document.querySelectorAll('figure svg text')].map(one => one.textContent)")
    assert "0.510" in texts and any("<script>alert(1)</script>" in one for one in texts)
    for width in (1280, 390):
        browser.resize(width)
        wide = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, width  # only tables scroll
        small = "return Math.min(...[...document.querySelectorAll('figure svg')].map(one => one.clientWidth))"
        assert browser.run(small) > 250
    assert browser.problems() == []
