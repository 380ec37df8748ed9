"""The fixed parts of answers, mostly labels, as tries of symbols that also hold the tokens of each literal."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from umie.constrained.symbols import TokenSymbols
from umie.errors import UmieError
from umie.tasks.grammar import AnswerSchema, ParsedItem, Style, region_name

SPAN, REGION, AFTER, FINAL = "span", "region", "after", "final"
KEPT = 256  # number of compiled literals cached for a tokenizer


class Opened(NamedTuple):
    """The meaning of a completed literal: the label of an item, or the region that fills it."""

    label: str | None = None
    region: int | None = None


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
        if node.ends.setdefault(follows, says) != says:
            raise UmieError(
                f"the tokenizer encodes the labels {node.ends[follows].label!r} and {says.label!r} identically: "
                "rename one label"
            )


@dataclass(frozen=True)
class Literals:
    """The literals of an output style for one answer schema."""

    first: Node  # begin an answer
    later: Node  # follow an item
    regions: Node  # follow a role that a region fills
    closing: str  # the symbols that close a span
    num_closing_tokens: int
    num_ending_tokens: int  # of the style's suffix
    number: tuple[str, str] | None  # the symbols around an occurrence's number; None if the style writes no numbers
    markers: tuple[str, ...] = ()  # the symbols of the style's markers around items, which no span may contain
    automata: dict[Any, Any] = field(default_factory=dict)  # constraints on answers without spans, shared by all texts


def without_pair(style: Style, schema: AnswerSchema) -> AnswerSchema:
    """Return the schema without the pair, if the style does not write it, so that all pairs share their answers."""
    return replace(schema, pair=None) if style.bare("", ("", "")) == style.bare("") else schema


def compile_literals(symbols: TokenSymbols, style: Style, schema: AnswerSchema) -> Literals:
    """Return the literals of answers of a schema, in the tokenizer's tokens; cached with the tokenizer.

    Raises:
        UmieError: a label contains a marker of the style, or the tokenizer spells two labels alike.
    """
    for label in schema.labels:
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

    first, later, regions = Node(), Node(), Node()
    for root, context, before in ((first, "", style.prefix), (later, written, style.separator)):
        for label in schema.labels:
            if schema.spans:
                root.add(spell(context, before + style.opening(label)), SPAN, Opened(label))
            if schema.num_regions:
                root.add(spell(context, before + style.region_opening(label)), REGION, Opened(label))
            if schema.bare:
                root.add(spell(context, before + style.bare(label, schema.pair)), AFTER, Opened(label))
    for root, context, before in ((first, "", style.prefix), (later, written, "")):
        if root is first and schema.at_least_one:
            continue
        if before + style.suffix:
            root.add(spell(context, before + style.suffix), FINAL, Opened())
        else:
            root.may_end = True
    for index in range(schema.num_regions):
        opening = style.prefix + style.region_opening(schema.labels[0])
        regions.add(spell(opening, f" {region_name(index)}{style.closing}"), AFTER, Opened(region=index))
    closing = symbols.continuation(f"{style.prefix}{style.opening('x')} y", style.closing, style.markers)
    ending = symbols.continuation(written, style.suffix, style.markers)
    number = None
    if style.is_numbered:
        before, _, after = symbols.spell(symbols.continuation(written, "2", style.markers)).partition("2")
        number = before, after
    markers = tuple(symbols.spell(symbols.encode(marker)).strip(" ") for marker in style.markers)
    return Literals(first, later, regions, symbols.spell(closing), len(closing), len(ending), number, markers)
