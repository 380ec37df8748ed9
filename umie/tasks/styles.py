"""The output styles: ``structured`` (lossless, the default), ``reamo``, ``paper`` (Table 2 of UMIE), ``released``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import ClassVar

from umie.tasks.calls import Call
from umie.tasks.grammar import AnswerSchema, ParsedItem, Style

_MAX_NUMBER_DIGITS = 6
_SPACES = " \t\r\n"  # whitespace that decoders generate around words; other whitespace belongs to the span


class Structured(Style):
    """Lossless: ``[label: span]``, ``[label = O1]`` for a region, or ``[label]``, separated by spaces.

    ``[label = O1 O2: span]`` is a span and the regions that show it.

    ``|`` escapes brackets and itself, in labels also ``:`` and ``=``. A span that is not the first occurrence of its
    string has its number after the bracket: ``[location: NY]2``. All special characters are in the SentencePiece
    vocabulary of T5, which has no braces and no backslash.
    """

    name = "structured"
    closing = "]"
    escaped = "|[]"
    is_numbered = True
    span_opening = ":"

    def opening(self, label: str) -> str:
        """Return ``[label:``."""
        return f"[{self.escape(label, '|[]:=')}:"

    def place_opening(self, label: str) -> str:
        """Return ``[label =``."""
        return f"[{self.escape(label, '|[]:=')} ="

    def bare(self, label: str, pair: tuple[str, str] | None = None) -> str:
        """Return ``[label]``, also for a pair, because the query contains the pair."""
        return f"[{self.escape(label, '|[]:=')}]"

    def parse(self, output: str, schema: AnswerSchema | None = None) -> tuple[list[ParsedItem], int]:
        """Return the items of any string and the number of malformed parts; ``schema`` is not used."""
        items: list[ParsedItem] = []
        dropped = 0
        position = 0
        while position < len(output):
            start = output.find("[", position)
            between = output[position : start if start >= 0 else len(output)]
            dropped += bool(between.strip())
            if start < 0:
                break
            item, position = _parse_bracket(output, start + 1, self._read_places)
            if item is None:
                dropped += 1
            else:
                items.append(item)
        return items, dropped

    def _read_places(self, written: str) -> tuple[str, ...]:
        """Return the names of places as they are written between ``=`` and a span; empty if they are malformed."""
        return tuple(written.split())


class Reamo(Structured):
    """As ``structured``, but places are called for by phrases, which grounders look for after the answer is written.

    ``[person = <Module>ImageSegmentation</Module><Instruction>left man</Instruction>: kids]``. Not lossless: a phrase
    can fit several places.

    Source: REAMO (2024), the figures of its meta-response and the tags of its released code. Deviation: a call is
    inside its item, where REAMO lists the calls after all items and repeats the mention in each; so that a call cannot
    name a mention that was not extracted, nor another one with the same words. Labels precede mentions.
    """

    name = "reamo"
    calls = ("<Module>", "</Module><Instruction>", "</Instruction>")
    markers = ("<Module>", "</Module>", "<Instruction>", "</Instruction>")
    _call: ClassVar[re.Pattern[str]] = re.compile(
        r"\s*<Module>([^<>]*)</Module>\s*<Instruction>([^<>]*)</Instruction>\s*"
    )

    def _read_places(self, written: str) -> tuple[str, ...]:
        """Return the names of calls."""
        names: list[str] = []
        position = 0
        while position < len(written):
            match = self._call.match(written, position)
            call = None if match is None else Call.named(f"{match[1]}:{match[2]}")
            if match is None or call is None:
                return ()
            names.append(call.name)
            position = match.end()
        return tuple(names)


class Paper(Style):
    """The form of Table 2: ``Person, kids <spot> Organization, Salvation Army``.

    Source: UMIE, Table 2; ``Star Fox, member of, Starlink`` for a relation. The paper shows no event without a trigger;
    here it is the label only. Not lossless: the form does not preserve the choice between equal spans, whitespace
    around a span, a string that contains ``<spot>``, the difference between a span ``O1`` and a region O1, and labels
    that differ only in the case of their first letter, that extend another label by a comma, or (of relations) that
    differ only in whitespace.
    """

    name = "paper"
    separator = " <spot> "
    markers = ("<spot>",)

    def opening(self, label: str) -> str:
        """Return ``Label,``."""
        return f"{_capitalized(label)},"

    def bare(self, label: str, pair: tuple[str, str] | None = None) -> str:
        """Return ``Label``, or ``head, label, tail`` for a pair."""
        return _capitalized(label) if pair is None else f"{pair[0]}, {label}, {pair[1]}"

    def parse(self, output: str, schema: AnswerSchema) -> tuple[list[ParsedItem], int]:
        """Return the items of any string and the number of malformed parts."""
        if not output.strip():
            return [], 0
        if schema.pair is None:
            written = {_capitalized(label): label for label in schema.labels}
            items = [_labeled(part.strip(_SPACES), written, schema) for part in output.split("<spot>")]
        else:
            # head and tail may contain the separator, so the answer is split only between a tail and a head
            head, tail = (_collapse(end) for end in schema.pair)
            parts = re.split(rf"(?<={re.escape(tail[-1:])}) <spot> (?={re.escape(head[:1])})", _collapse(output))
            squeezed = {_collapse(label): label for label in schema.labels}
            items = [_between(part, head, tail, squeezed) for part in parts]
        found = [item for item in items if item is not None]
        return found, len(items) - len(found)


class Released(Style):
    """Brackets of T5 sentinel tokens, the structure language of UIE on which the released code trains.

    ``<extra_id_0>`` and ``<extra_id_1>`` are brackets, ``<extra_id_5>`` precedes a span, and ``<extra_id_6>`` replaces
    a missing span: ``<extra_id_0> <extra_id_0> person <extra_id_5> kids <extra_id_1> <extra_id_1>``.

    Source: Lu et al., Unified Structure Generation (ACL 2022), Section 3.1, and its released format. Deviation: the
    relation of a pair in the query is a label without a span; the released data nests the tail in the head. Not
    lossless: the form does not preserve the choice between equal spans, whitespace around a span, a string that
    contains a sentinel, and the difference between a span ``O1`` and a region O1.
    """

    name = "released"
    prefix = "<extra_id_0>"
    separator = ""
    suffix = " <extra_id_1>"
    closing = " <extra_id_1>"
    markers = ("<extra_id_0>", "<extra_id_1>", "<extra_id_5>", "<extra_id_6>")
    _marker: ClassVar[re.Pattern[str]] = re.compile("(<extra_id_[0156]>)")

    def opening(self, label: str) -> str:
        """Return the bracket, the label and the marker of a span."""
        return f" <extra_id_0> {label} <extra_id_5>"

    def bare(self, label: str, pair: tuple[str, str] | None = None) -> str:
        """Return brackets around the label and the marker of a missing span."""
        return f"{self.opening(label)} <extra_id_6>{self.closing}"

    def parse(self, output: str, schema: AnswerSchema) -> tuple[list[ParsedItem], int]:
        """Return the items of any string and the number of malformed parts; outer brackets may be missing."""
        parts = [part.strip(_SPACES) for part in self._marker.split(output)]
        items: list[ParsedItem] = []
        dropped = 0
        position = 0
        while position < len(parts):
            if (item := _bracketed(parts[position : position + 7], schema)) is not None:
                items.append(item)
                position += 5 if item.filler or item.places else 7
            else:
                dropped += bool(parts[position]) and not self._marker.fullmatch(parts[position])
                position += 1
        return items, dropped


STYLES: Mapping[str, Style] = {style.name: style for style in (Structured(), Paper(), Released(), Reamo())}


def _capitalized(label: str) -> str:
    return label[:1].upper() + label[1:]


def _collapse(string: str) -> str:
    return " ".join(string.split())


def _labeled(part: str, written: Mapping[str, str], schema: AnswerSchema) -> ParsedItem | None:
    """Parse ``Label, filler``; the label is the longest match of the schema, or else ends at the first comma."""
    if part in written:
        return ParsedItem(written[part])
    known = max((label for label in written if part.startswith(f"{label},")), key=len, default=None)
    label, comma, filler = part.partition(",") if known is None else (known, ",", part[len(known) + 1 :])
    label, filler = label.strip(), filler.strip(_SPACES)
    if not label or (comma and not filler):
        return None
    if not comma:
        return ParsedItem(label) if schema.bare else None
    return _filled(written.get(label, label), filler, schema)


def _between(part: str, head: str, tail: str, written: Mapping[str, str]) -> ParsedItem | None:
    """Parse ``head, label, tail``, where whitespace is collapsed."""
    if not (part.startswith(head) and part.endswith(tail)):
        return None
    inner = part[len(head) : max(len(part) - len(tail), len(head))].strip()
    label = inner[1:-1].strip()
    return ParsedItem(written.get(label, label)) if label and inner[0] == inner[-1] == "," else None


def _bracketed(parts: list[str], schema: AnswerSchema) -> ParsedItem | None:
    """Parse an item at the beginning of a list of alternating texts and markers."""
    if len(parts) < 5 or parts[0] != "<extra_id_0>" or not parts[1].strip() or parts[2] != "<extra_id_5>":
        return None
    label = parts[1].strip()
    if parts[4] == "<extra_id_1>" and parts[3]:
        return _filled(label, parts[3], schema)
    if parts[3:] == ["", "<extra_id_6>", "", "<extra_id_1>"]:
        return ParsedItem(label)
    return None


def _filled(label: str, filler: str, schema: AnswerSchema) -> ParsedItem:
    return ParsedItem(label, places=(filler,)) if filler in schema.places else ParsedItem(label, filler)


def _parse_bracket(
    output: str, position: int, read_places: Callable[[str], tuple[str, ...]]
) -> tuple[ParsedItem | None, int]:
    """Parse one item after its opening bracket; return it, or None, and the next position."""
    label: str | None = None
    written_places: str | None = None  # what is between `=` and the colon of a span
    names_places = False
    characters: list[str] = []
    while position < len(output):
        char = output[position]
        if char == "[":
            return None, position
        position += 1
        if char == "]":
            break
        if char == "|" and position < len(output):
            characters.append(output[position])
            position += 1
        elif label is None and char in ":=":
            label, characters = "".join(characters).strip(), []
            names_places = char == "="
        elif names_places and written_places is None and char == ":":
            written_places, characters = "".join(characters), []
        else:
            characters.append(char)
    else:
        return None, position
    end = position
    while end < len(output) and output[end].isascii() and output[end].isdigit():
        end += 1
    number = output[position:end]
    occurrence = int(number[:_MAX_NUMBER_DIGITS] or 1)
    content = "".join(characters)
    if label is None:
        item = ParsedItem(content.strip())
    elif names_places and written_places is None:
        item = ParsedItem(label, None, read_places(content), occurrence)
    else:
        item = ParsedItem(label, content.removeprefix(" "), read_places(written_places or ""), occurrence)
    is_valid = item.label and len(number) <= _MAX_NUMBER_DIGITS and occurrence > 0
    return (item if is_valid and (item.places or not names_places) else None), end
