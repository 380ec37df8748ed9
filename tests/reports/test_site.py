"""The documentation site: it is built without a warning, needs nothing from the network, and fits on a phone."""

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import open_page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def build(folder, *options):
    """Build the site as `make docs` does, in which a warning is an error."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(folder / "trees")]
    done = subprocess.run(
        [*command, *options, str(DOCS), str(folder / "html")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, with the code of the notebook and without its results."""
    return build(tmp_path_factory.mktemp("site"), "-D", "nb_execution_mode=off")


class Page(HTMLParser):
    """What a page links to, what it loads, and the places that links can lead to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.ids = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids.add(given.get("id"))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "preload", "icon"):
            self.loaded.append(given["href"])
        elif given.get("src"):
            self.loaded.append(given["src"])


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}


def test_every_source_has_a_page(site, pages):
    sources = {path.relative_to(DOCS).with_suffix("") for path in DOCS.rglob("*.md")}
    assert sources <= {path.relative_to(site).with_suffix("") for path in pages}
    assert "umie data convert" in (site / "commands.html").read_text(encoding="utf-8")
    assert "umie.fusion.Fusion.initialize" in (site / "api" / "fusion.html").read_text(encoding="utf-8")


def test_links_lead_to_a_page_and_a_place(pages):
    for path, page in pages.items():
        for link in page.links:
            if link.startswith(("https:", "http:", "mailto:")):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            assert target.exists(), f"{path}: {link}"
            assert not anchor or target not in pages or anchor in pages[target].ids, f"{path}: {link}"


def test_nothing_is_loaded_from_the_network(site, pages):
    for path, page in pages.items():
        for source in page.loaded:
            assert source.startswith("data:") or (path.parent / source.partition("?")[0]).resolve().is_file(), source
    for path in site.rglob("*.css"):
        assert "url(http" not in path.read_text(encoding="utf-8").replace('"', "").replace("'", ""), path


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    notebook = build(tmp_path, "-D", "nb_execution_mode=force") / "notebook.html"
    assert "gate_cosine" in notebook.read_text(encoding="utf-8")


@pytest.mark.slow
def test_pages_fit_on_a_phone_and_have_no_errors(pages):
    with open_page() as page:
        for path in pages:
            page.open(path)
            for width in (390, 1280):
                page.resize(width)
                assert page.run("return document.documentElement.scrollWidth") <= width, path
            assert not page.problems(), path
