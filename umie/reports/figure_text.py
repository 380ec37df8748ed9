"""The texts of a figure: fonts that have their characters, escapes for those that no font has, and no formulas."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FONT = "DejaVu Sans"  # matplotlib contains it
MAX_ESCAPED = 6  # characters of a line that are escaped; the rest of the line is left out


def prepare_texts(figure: Figure) -> None:
    """Make all texts of a figure readable as they are: ``$`` starts no formula, and no character is shown as a box.

    Characters that the default font lacks are taken from an installed font; if there is none, their code points are
    shown. So are those of control characters.
    """
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    named = [axis for axis in axes if isinstance(axis.get_major_formatter(), FixedFormatter | FuncFormatter)]
    # the texts of ticks are set when they are drawn, by the formatter
    ticks = {id(text) for axis in axes for text in axis.get_ticklabels()}
    texts: list[Any] = [text for text in figure.findobj(Text) if id(text) not in ticks]
    written = [text.get_text() for text in texts]
    for axis in named:
        written += map(axis.get_major_formatter(), axis.get_majorticklocs(), range(len(axis.get_majorticklocs())))
    fonts, characters = _fonts_for("".join(written))
    changed = set()
    for axis in named:
        formatter = axis.get_major_formatter()
        if id(formatter) not in changed:  # panels may share their axis
            changed.add(id(_set_formatter(axis, formatter, characters)))
    for text in texts:
        text.set_text(readable(text.get_text(), characters))
    if len(fonts) > 1:
        for text in figure.findobj(Text):
            text.set_fontfamily(fonts)


def _set_formatter(axis: Any, formatter: Any, characters: set[int]) -> Any:
    from matplotlib.ticker import FuncFormatter

    changed = FuncFormatter(lambda value, place: readable(str(formatter(value, place)), characters))
    axis.set_major_formatter(changed)
    return changed


def readable(text: str, characters: Iterable[int]) -> str:
    """Return a text for a figure, with escapes for control characters and for those that are not among the characters.

    Args:
        text: the text.
        characters: the code points that can be drawn.
    """
    lines = []
    for line in text.split("\n"):
        shown = [one if _is_drawn(one, characters) else _escaped(one) for one in line]
        escaped = [place for place, one in enumerate(shown) if len(one) > 1]
        if len(escaped) > MAX_ESCAPED:
            shown = [*shown[: escaped[MAX_ESCAPED]], "…"]
        lines.append("".join(shown).replace("$", r"\$"))
    return "\n".join(lines)


def _is_drawn(character: str, characters: Iterable[int]) -> bool:
    return ord(character) in characters and unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    if unicodedata.category(character) == "Cf" or unicodedata.combining(character):  # invisible, e.g. a joiner
        return ""
    return character.encode("unicode_escape").decode()


def _fonts_for(text: str) -> tuple[list[str], set[int]]:
    """Return the families that together have most characters of a text, and all characters that they have."""
    fonts, characters = [FONT], set(_characters(_path_of(FONT)))
    missing = {ord(one) for one in text if ord(one) not in characters and one.isprintable()}
    while missing:
        name, found = max(
            ((name, missing & _characters(path)) for name, path in _installed().items()), key=lambda one: len(one[1])
        )
        if not found:
            break
        fonts.append(name)
        characters |= found
        missing -= found
    return fonts, characters


def _installed() -> Mapping[str, str]:
    """Return the path of an upright, regular font of each installed family."""
    from matplotlib.font_manager import fontManager

    fonts = [font for font in fontManager.ttflist if font.style == "normal" and "lastresort" not in font.fname.lower()]
    return {
        font.name: font.fname for font in sorted(fonts, key=lambda font: abs(_weight(font.weight) - 400), reverse=True)
    }


def _weight(weight: Any) -> int:
    return weight if isinstance(weight, int) else 400


def _path_of(family: str) -> str:
    from matplotlib.font_manager import findfont

    return str(findfont(family))


@cache
def _characters(path: str) -> frozenset[int]:
    """Return the code points that a font file has; none if it cannot be read."""
    from matplotlib.font_manager import get_font

    try:
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError) as error:
        logging.getLogger(__name__).debug("%s: %s", path, error)
        return frozenset()
