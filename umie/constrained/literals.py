"""The fixed parts of answers, mostly labels, as tries of symbols that also hold the tokens of each literal."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from umie.constrained.symbols import TokenSymbols
from umie.errors import UmieError
from umie.tasks.grammar import AnswerSchema, ParsedItem, Style

SPAN, PLACE, PHRASE, AFTER, FINAL = "span", "place", "phrase", "after", "final"
KEPT = 256  # number of compiled literals cached for a tokenizer


class Opened(NamedTuple):
    """The meaning of a completed literal: the label of an item, or a place that shows it."""

    label: str | None = None
    place: str | None = None  # or the module of a call
    names: Node | None = None  # the names of places that may follow, or what follows the phrase of a call


@dataclass(eq=False, repr=False)  # a trie would be printed whole, and shared nodes many times
class Node:
    """A place in a trie of literals."""

    children: dict[str, Node] = field(default_factory=dict)  # the place after each symbol
    tokens: dict[int, Node] = field(default_factory=dict)  # that the tokenizer writes from here; empty inside a token
    ends: dict[str, Opened] = field(default_factory=dict)  # what follows the literals that end here, and their meaning
    may_end: bool = False  # whether the answer may end here

    def add(self, spelling: list[tuple[int, str]], follows: str, says: Opened) -> None:
        """Add a literal, as tokens with their symbols.

        Raises:
            UmieError: the tokenizer spells two labels alike.
        """
        node = self
        for token, symbols in spelling:
            start = node
            for symbol in symbols:
                node = node.children.setdefault(symbol, Node())
            start.tokens[token] = node
        other = node.ends.setdefault(follows, says)
        if other != says:
            if says.place is not None:
                raise UmieError(
                    f"the tokenizer encodes {other.place} and {says.place}, the names of places, identically: use "
                    "another tokenizer"
                )
            raise UmieError(
                f"the tokenizer encodes the labels {other.label!r} and {says.label!r} identically: rename one label"
            )


@dataclass(frozen=True)
class Literals:
    """The literals of an output style for one answer schema."""

    first: Node  # begin an answer
    later: Node  # follow an item
    closing: str  # the symbols that close a span
    num_closing_tokens: int
    num_ending_tokens: int  # of the style's suffix
    number: tuple[str, str] | None  # the symbols around an occurrence's number; None if the style writes no numbers
    markers: tuple[str, ...] = ()  # the symbols of the style's markers around items, which no span may contain
    automata: dict[Any, Any] = field(default_factory=dict)  # constraints on answers without spans, shared by all texts
    phrases: dict[Any, Any] = field(default_factory=dict)  # the moves inside a phrase, shared by all texts


def without_pair(style: Style, schema: AnswerSchema) -> AnswerSchema:
    """Return the schema without the pair, if the style does not write it, so that all pairs share their answers."""
    return replace(schema, pair=None) if style.bare("", ("", "")) == style.bare("") else schema


def compile_literals(symbols: TokenSymbols, style: Style, schema: AnswerSchema) -> Literals:
    """Return the literals of answers of a schema, in the tokenizer's tokens; cached with the tokenizer.

    Raises:
        UmieError: a label contains a marker of the style, or the tokenizer spells two labels alike.
    """
    for label in schema.names:
        if any(marker in label for marker in style.markers):
            raise UmieError(f"the label {label!r} contains a marker of the style {style.name!r}: rename it")
    key = style.name, schema
    known: dict[Any, Literals] = symbols.compiled
    if key not in known:
        while len(known) >= KEPT:
            known.pop(next(iter(known)))
        known[key] = _compile(symbols, style, schema)
    return known[key]


def _compile(symbols: TokenSymbols, style: Style, schema: AnswerSchema) -> Literals:
    written = style.linearize([ParsedItem("x", "y")]).removesuffix(style.suffix)  # up to the end of an item

    def spell(context: str, string: str) -> list[tuple[int, str]]:
        tokens = symbols.continuation(context, string, style.markers)
        return [(token, symbols.symbols[token]) for token in tokens]

    first, later = Node(), Node()
    names = _place_names(symbols, style, schema)
    for root, context, before in ((first, "", style.prefix), (later, written, style.separator)):
        for label in schema.names:
            is_of_all = label in schema.labels
            takes_span = schema.spans and is_of_all
            if takes_span:
                root.add(spell(context, before + style.opening(label)), SPAN, Opened(label))
            takes_places = bool(schema.places) and (label in schema.placed_labels or (schema.grounded and takes_span))
            if takes_places and (is_of_all or root is later or not schema.at_least_one):
                root.add(spell(context, before + style.place_opening(label)), PLACE, Opened(label, names=names))
            if schema.bare and is_of_all:
                root.add(spell(context, before + style.bare(label, schema.pair)), AFTER, Opened(label))
    for root, context, before in ((first, "", style.prefix), (later, written, "")):
        if root is first and schema.at_least_one:
            continue
        if before + style.suffix:
            root.add(spell(context, before + style.suffix), FINAL, Opened())
        else:
            root.may_end = True
    closing = symbols.continuation(f"{style.prefix}{style.opening('x')} y", style.closing, style.markers)
    ending = symbols.continuation(written, style.suffix, style.markers)
    number = None
    if style.is_numbered:
        before, _, after = symbols.spell(symbols.continuation(written, "2", style.markers)).partition("2")
        number = before, after
    markers = tuple(symbols.spell(symbols.encode(marker)).strip(" ") for marker in style.markers)
    return Literals(first, later, symbols.spell(closing), len(closing), len(ending), number, markers)


def _place_names(symbols: TokenSymbols, style: Style, schema: AnswerSchema) -> Node:
    """Return the names of places that may follow the opening of an item; each leads only to names after it."""
    opening = style.prefix + style.place_opening(schema.names[0])

    def spell(string: str, context: str = opening) -> list[tuple[int, str]]:
        tokens = symbols.continuation(context, string, style.markers)
        return [(token, symbols.symbols[token]) for token in tokens]

    nodes = [Node() for _ in schema.places]  # the names from each place on
    if style.calls is not None:
        before, between, after = style.calls
        following = [Node() for _ in schema.places]  # what follows the phrase of each call
        for number, module in enumerate(schema.places):
            says = Opened(place=module, names=following[number])
            call = f" {before}{module}{between}"
            context = f"{opening}{call}x"
            for node in nodes[: number + 1]:
                node.add(spell(call), PHRASE, says)
            for node in following[:number]:  # each medium is called for once
                node.add(spell(f"{after}{call}", context), PHRASE, says)
            if schema.placed_labels:
                following[number].add(spell(f"{after}{style.closing}", context), AFTER, Opened())
            if schema.grounded and schema.spans:
                following[number].add(spell(f"{after}{style.span_opening}", context), SPAN, Opened())
        return nodes[0] if nodes else Node()
    for number, name in enumerate(schema.places):
        literals: list[tuple[str, str, Node | None]] = []
        if schema.placed_labels:
            literals.append((f" {name}{style.closing}", AFTER, None))
        if schema.grounded and schema.spans:
            literals.append((f" {name}{style.span_opening}", SPAN, None))
        if schema.grounded and number + 1 < len(nodes):
            literals.append((f" {name}", PLACE, nodes[number + 1]))
        for string, follows, names in literals:
            spelling = spell(string)
            for node in nodes[: number + 1]:
                node.add(spelling, follows, Opened(place=name, names=names))
    return nodes[0] if nodes else Node()
