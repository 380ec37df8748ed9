"""Settings of the documentation site; `make docs` builds it."""

import hashlib
import os
import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]
os.environ["PYTHONPATH"] = str(ROOT)  # the kernel of the notebook, too, imports this checkout
os.environ["HF_HUB_OFFLINE"] = "1"

import reference  # noqa: E402
from docutils import nodes  # noqa: E402

import umie  # noqa: E402

project, release = "umie", umie.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
html_theme = "furo"
html_title = f"umie {release}"
html_static_path, html_css_files = ["static"], ["umie.css"]
html_show_copyright = html_show_sphinx = html_copy_source = False
smartquotes = False  # options begin with two hyphens
myst_heading_anchors = 4
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 88

_code = hashlib.sha256(b"".join(path.read_bytes() for path in sorted((ROOT / "umie").rglob("*.py"))))
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "build" / "notebooks" / _code.hexdigest()[:16])  # of the code that it ran
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_render_markdown_format = "gfm"  # tables


def _complete(app, docname, source):
    """Write the pages that are written from the code, and adapt links that lead to files on GitHub.

    A file outside of this directory is copied. A page that is linked by its file name is named by its title instead.
    """
    folder = (DOCS / docname).parent

    def adapted(link):
        text, path, anchor = link.groups("")
        if not (folder / path).resolve().is_relative_to(DOCS):
            return f"[{text}](path:{path})"
        return f"[{'' if text.endswith('.md') else text}]({path}{anchor})"

    if docname in reference.PAGES:
        source[0] += f"\n\n{reference.PAGES[docname]()}\n"
    source[0] = re.sub(r"(?<!!)\[([^\]]*)\]\(([\w./-]+)(#[^)]*)?\)", adapted, source[0])


def _skip_field_numbers(app, what, name, obj, skip, options):
    """Leave out the fields of named tuples, which the signature lists."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def _shorten_dashes(app, doctree):
    """Write a dash after the name of an argument; smartquotes would also change options."""
    for text in [one for one in doctree.findall(nodes.Text) if one == " -- "]:
        text.parent.replace(text, nodes.Text(" \N{EN DASH} "))


def setup(app):
    """Connect what happens while the site is built."""
    app.connect("source-read", _complete)
    app.connect("autodoc-skip-member", _skip_field_numbers)
    app.connect("doctree-read", _shorten_dashes)
