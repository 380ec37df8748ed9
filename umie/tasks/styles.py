"""The three output styles: `structured` (lossless, the default), `paper` (as Table 2 prints), `released`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from umie.tasks.grammar import AnswerSchema, ParsedItem, Style, region_index

_MAX_NUMBER_DIGITS = 6
_SPACES = " \t\r\n"  # what decoders put around words; other white space is the span's own


class Structured(Style):
    """Lossless: ``[label: span]``, ``[label = O1]`` for a region, ``[label]`` alone, parted by a space.

    ``|`` escapes brackets and itself, in labels also ``:`` and ``=``. A span that is not the first occurrence
    of its string carries its number behind the bracket: ``[location: NY]2``. The signs are ones that the
    SentencePiece vocabulary of T5 holds (it has no braces and no backslash).
    """

    name = "structured"
    closing = "]"
    escaped = "|[]"
    is_numbered = True

    def opening(self, label: str) -> str:
        """Return ``[label:``."""
        return f"[{self.escape(label, '|[]:=')}:"

    def region_opening(self, label: str) -> str:
        """Return ``[label =``."""
        return f"[{self.escape(label, '|[]:=')} ="

    def bare(self, label: str, pair: tuple[str, str] | None = None) -> str:
        """Return ``[label]``, also about a pair, which the query names."""
        return f"[{self.escape(label, '|[]:=')}]"

    def parse(self, output: str, forms: AnswerSchema | None = None) -> tuple[list[ParsedItem], int]:
        """Return the items of any string; this style needs no ``forms``."""
        items: list[ParsedItem] = []
        dropped = 0
        position = 0
        while position < len(output):
            start = output.find("[", position)
            between = output[position : start if start >= 0 else len(output)]
            dropped += bool(between.strip())
            if start < 0:
                break
            item, position = _parse_bracket(output, start + 1)
            if item is None:
                dropped += 1
            else:
                items.append(item)
        return items, dropped


class Paper(Style):
    """As the paper's Table 2 prints answers: ``Person, kids <spot> Organization, Salvation Army``.

    Source: UMIE, Table 2; ``Star Fox, member of, Starlink`` for a relation. It is not lossless: which of
    several equal spans is meant, white space around a span, a string that spells ``<spot>``, a span ``O1``
    beside a region O1; and labels that differ in their first letter's case alone, or of which one goes on
    behind another with a comma, or, of relations, that differ in white space alone. An event without a
    trigger, which the paper does not print, is its label alone.
    """

    name = "paper"
    separator = " <spot> "
    markers = ("<spot>",)

    def opening(self, label: str) -> str:
        """Return ``Label,``."""
        return f"{_capitalised(label)},"

    def bare(self, label: str, pair: tuple[str, str] | None = None) -> str:
        """Return ``Label``, or ``head, label, tail`` about a pair."""
        return _capitalised(label) if pair is None else f"{pair[0]}, {label}, {pair[1]}"

    def parse(self, output: str, forms: AnswerSchema) -> tuple[list[ParsedItem], int]:
        """Return the items of any string; see Style."""
        if not output.strip():
            return [], 0
        if forms.pair is None:
            written = {_capitalised(label): label for label in forms.labels}
            items = [_labeled(part.strip(_SPACES), written, forms) for part in output.split("<spot>")]
        else:
            # head and tail may spell the separator, so a pair's answer is split at the end of one item only
            head, tail = (_squeezed(end) for end in forms.pair)
            parts = re.split(rf"(?<={re.escape(tail[-1:])}) <spot> (?={re.escape(head[:1])})", _squeezed(output))
            squeezed = {_squeezed(label): label for label in forms.labels}
            items = [_between(part, head, tail, squeezed) for part in parts]
        found = [item for item in items if item is not None]
        return found, len(items) - len(found)


class Released(Style):
    """Brackets of T5's sentinel tokens, as in the structure language of UIE that the released code trains on.

    ``<extra_id_0>`` and ``<extra_id_1>`` are brackets, ``<extra_id_5>`` stands before a span,
    ``<extra_id_6>`` for a span that there is not: ``<extra_id_0> <extra_id_0> person <extra_id_5> kids
    <extra_id_1> <extra_id_1>``. Source: Lu et al., Unified Structure Generation (ACL 2022), Section 3.1 and
    its released format. Deviation: the relation of a pair that is asked about is a label with no span, where
    the released data nests the tail in the head. Not lossless: which of several equal spans is meant, white
    space around a span, a string that spells a sentinel, a span ``O1`` beside a region O1.
    """

    name = "released"
    prefix = "<extra_id_0>"
    separator = ""
    suffix = " <extra_id_1>"
    closing = " <extra_id_1>"
    markers = ("<extra_id_0>", "<extra_id_1>", "<extra_id_5>", "<extra_id_6>")
    _sign: ClassVar[re.Pattern[str]] = re.compile("(<extra_id_[0156]>)")

    def opening(self, label: str) -> str:
        """Return the bracket, the label and the sign of a span."""
        return f" <extra_id_0> {label} <extra_id_5>"

    def bare(self, label: str, pair: tuple[str, str] | None = None) -> str:
        """Return a bracket around the label and the sign of no span."""
        return f"{self.opening(label)} <extra_id_6>{self.closing}"

    def parse(self, output: str, forms: AnswerSchema) -> tuple[list[ParsedItem], int]:
        """Return the items of any string; the outer brackets may be missing."""
        parts = [part.strip(_SPACES) for part in self._sign.split(output)]
        items: list[ParsedItem] = []
        dropped = 0
        position = 0
        while position < len(parts):
            if (item := _bracketed(parts[position : position + 7], forms)) is not None:
                items.append(item)
                position += 7 if item.filler is None else 5
            else:
                dropped += bool(parts[position]) and not self._sign.fullmatch(parts[position])
                position += 1
        return items, dropped


STYLES: Mapping[str, Style] = {style.name: style for style in (Structured(), Paper(), Released())}


def _capitalised(label: str) -> str:
    return label[:1].upper() + label[1:]


def _squeezed(string: str) -> str:
    return " ".join(string.split())


def _labeled(part: str, written: Mapping[str, str], forms: AnswerSchema) -> ParsedItem | None:
    """Read ``Label, filler``: the longest label of the schema, or else what stands before the first comma."""
    if part in written:
        return ParsedItem(written[part])
    known = max((label for label in written if part.startswith(f"{label},")), key=len, default=None)
    label, comma, filler = part.partition(",") if known is None else (known, ",", part[len(known) + 1 :])
    label, filler = label.strip(), filler.strip(_SPACES)
    if not label or (comma and not filler):
        return None
    if not comma:
        return ParsedItem(label) if forms.bare else None
    return _filled(written.get(label, label), filler, forms)


def _between(part: str, head: str, tail: str, written: Mapping[str, str]) -> ParsedItem | None:
    """Read ``head, label, tail``; white space at the ends of head and tail is gone, but for one behind the head."""
    if not (part.startswith(head) and part.endswith(tail)):
        return None
    inner = part[len(head) : max(len(part) - len(tail), len(head))].strip()
    label = inner[1:-1].strip()
    return ParsedItem(written.get(label, label)) if label and inner[0] == inner[-1] == "," else None


def _bracketed(parts: list[str], forms: AnswerSchema) -> ParsedItem | None:
    """Read an item at the beginning of a list in which texts and signs take turns."""
    if len(parts) < 5 or parts[0] != "<extra_id_0>" or not parts[1].strip() or parts[2] != "<extra_id_5>":
        return None
    label = parts[1].strip()
    if parts[4] == "<extra_id_1>" and parts[3]:
        return _filled(label, parts[3], forms)
    if parts[3:] == ["", "<extra_id_6>", "", "<extra_id_1>"]:
        return ParsedItem(label)
    return None


def _filled(label: str, filler: str, forms: AnswerSchema) -> ParsedItem:
    index = region_index(filler)
    return ParsedItem(label, filler, is_region=index is not None and index < forms.num_regions)


def _parse_bracket(output: str, position: int) -> tuple[ParsedItem | None, int]:
    """Read one item behind its opening bracket; return it, or None, and where to go on."""
    label: str | None = None
    is_region = False
    characters: list[str] = []
    while position < len(output):
        sign = output[position]
        if sign == "[":
            return None, position
        position += 1
        if sign == "]":
            break
        if sign == "|" and position < len(output):
            characters.append(output[position])
            position += 1
        elif label is None and sign in ":=":
            label = "".join(characters).strip()
            is_region = sign == "="
            characters = []
        else:
            characters.append(sign)
    else:
        return None, position
    end = position
    while end < len(output) and output[end].isascii() and output[end].isdigit():
        end += 1
    number = output[position:end]
    content = "".join(characters)
    if label is None:
        item = ParsedItem(content.strip())
    else:
        item = ParsedItem(label, content.removeprefix(" "), is_region, int(number[:_MAX_NUMBER_DIGITS] or 1))
    sound = item.label and len(number) <= _MAX_NUMBER_DIGITS and item.occurrence > 0
    return (item if sound else None), end
