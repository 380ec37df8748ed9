"""Texts of figures: no boxes, no formulas, and no warnings about glyphs, whatever the labels are."""

import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager
from matplotlib.image import imread
from matplotlib.text import Text

from umie.audit.statistics import Statistics
from umie.records import Entity, Record
from umie.reports import figure_text
from umie.reports.data_figure import write_figure
from umie.reports.figure_text import readable
from umie.reports.style import add_legend, clean_axes, new_figure, save_figure

LABELS = (
    "人名",
    "地名",
    "شخص",
    "$$",
    "$x$ and $y$",
    "역",
    "a\x1b[31mred",
    "\U0001f600",
    "Person",
    "100 $",
    r"\$",
    "a\u202eb",
)


def figure_of(labels, title="$$ 人"):
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for place, label in enumerate(labels):
        axes.barh(place, place + 1, label=label)
        axes.text(1, place, label)
    axes.set_yticks(range(len(labels)), labels)
    clean_axes(axes, title=title, x="$F_1$", y="مكان")
    add_legend(figure)
    figure.suptitle("\n".join(labels[:3]))
    return figure


def texts_of(figure):
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_any_label_is_drawn_without_warnings(tmp_path, suffix):
    figure = figure_of(LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(figure, tmp_path / f"a{suffix}")
        texts = texts_of(figure)
    for label in ("شخص", r"\$\$", r"\$x\$ and \$y\$", "Person", r"100 \$", "a\\x1b[31mred", "ab"):
        assert texts.count(label) >= 3, label  # tick, legend, bar
    assert not any("\x1b" in text or "\u202e" in text for text in texts)


def test_characters_that_no_font_has_are_escaped():
    drawn = set(map(ord, "Person $…"))
    assert readable("人名 $", drawn) == r"\u4eba\u540d \$"
    assert readable("人" * 4000, drawn) == "\\u4eba" * 6 + "…"
    assert readable("Pe\nrs", drawn) == "Pe\nrs"
    assert readable("\ud800", drawn) == "\\ud800"


def test_a_font_with_the_characters_is_used(tmp_path, monkeypatch):
    """A font with one Chinese character is installed."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0)), pen.lineTo((0, 900)), pen.lineTo((900, 900)), pen.lineTo((900, 0)), pen.closePath()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "one"])
    font.setupCharacterMap({ord("𠀀"): "one"})
    font.setupGlyf({".notdef": pen.glyph(), "one": pen.glyph()})
    font.setupHorizontalMetrics(dict.fromkeys((".notdef", "one"), (1000, 0)))
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": "Rare Han", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "rare.ttf")
    monkeypatch.setattr(fontManager, "ttflist", list(fontManager.ttflist))
    fontManager.addfont(tmp_path / "rare.ttf")
    figure = figure_of(["𠀀", "a"], title="𠀀")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(figure, tmp_path / "a.png")
        assert "𠀀" in texts_of(figure)
    assert all(text.get_fontfamily() == [figure_text.FONT, "Rare Han"] for text in figure.findobj(Text))


def test_the_figure_of_data_statistics(tmp_path):
    statistics = Statistics()
    for number in range(3):
        text = "今天小明很好"
        statistics.add(Record(text, id=str(number), entities=(Entity(LABELS[number], (2, 4)),), tasks=("mner",)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_figure(tmp_path / "a.png", {"训练.jsonl": statistics, "$$": statistics})
    assert np.asarray(imread(tmp_path / "a.png")).std() > 0
