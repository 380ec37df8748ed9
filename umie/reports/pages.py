"""HTML pages that need no other file: a template with its style and script, in which texts from data are escaped."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from umie.errors import printable

_TEMPLATES = Path(__file__).parent / "templates"


def render(name: str, **values: Any) -> str:
    """Return the page of ``templates/NAME.html``, with ``style`` from NAME.css and ``script`` from NAME.js.

    The page runs no script but its own, whose hash is ``script_hash``. Control characters are shown as escapes.

    Args:
        name: the name of the template.
        values: the values in it; a missing one is an error.
    """
    from markupsafe import Markup

    style, script, template = (_read(f"{name}.{kind}") for kind in ("css", "js", "html"))
    return rendered(
        template,
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **values,
    )


def rendered(template: str, **values: Any) -> str:
    """Return a template of HTML with values in it; a missing one is an error.

    Texts are escaped, and their control characters are shown as escapes.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
    )
    return environment.from_string(template).render(**values)


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")
