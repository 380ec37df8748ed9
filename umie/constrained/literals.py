"""The fixed parts of answers, labels above all, as tries of symbols that know how the tokenizer cuts them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from umie.constrained.symbols import TokenSymbols
from umie.errors import UmieError
from umie.tasks.grammar import AnswerSchema, ParsedItem, Style, region_name

SPAN, REGION, AFTER, FINAL = "span", "region", "after", "final"
KEPT = 256  # compiled literals that a tokenizer keeps


class Opened(NamedTuple):
    """What a completed literal says: the label of an item, or the region that fills it."""

    label: str | None = None
    region: int | None = None


@dataclass(eq=False)
class Node:
    """A place in a trie of literals.

    Attributes:
        children: the place behind each symbol.
        tokens: the tokens that the tokenizer writes from here, and the place behind each; empty where it never
            cuts here.
        ends: what follows the literals that end here, and what they say.
        may_end: whether the answer may end here.
    """

    children: dict[str, Node] = field(default_factory=dict)
    tokens: dict[int, Node] = field(default_factory=dict)
    ends: dict[str, Opened] = field(default_factory=dict)
    may_end: bool = False

    def add(self, spelling: list[tuple[int, str]], follows: str, says: Opened) -> None:
        """Add a literal, given as tokens with their symbols.

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
                f"the tokenizer spells the labels {node.ends[follows].label!r} and {says.label!r} alike: rename one"
            )


@dataclass(frozen=True)
class Literals:
    """The literals of an output style for some forms of items.

    Args:
        first: what an answer begins with.
        later: what stands behind an item.
        regions: what stands behind a role that a region fills.
        closing: the symbols that close a span.
        num_closing_tokens: how many tokens those take.
        num_ending_tokens: how many tokens the style's suffix takes.
        markers: the symbols of what the style writes around items, which no span may hold.
        automata: constraints on answers that hold no span, which every text shares.
        number: the symbols around an occurrence's number, or None where the style writes none.
    """

    first: Node
    later: Node
    regions: Node
    closing: str
    num_closing_tokens: int
    num_ending_tokens: int
    number: tuple[str, str] | None
    markers: tuple[str, ...] = ()
    automata: dict[Any, Any] = field(default_factory=dict)


def without_pair(style: Style, forms: AnswerSchema) -> AnswerSchema:
    """Return forms without the pair, where the style does not write it and all pairs are answered alike."""
    return replace(forms, pair=None) if style.bare("", ("", "")) == style.bare("") else forms


def compile_literals(symbols: TokenSymbols, style: Style, forms: AnswerSchema) -> Literals:
    """Return the literals that answers of these forms are made of, as the tokenizer writes them; kept with it."""
    for label in forms.labels:
        if any(marker in label for marker in style.markers):
            raise UmieError(f"the label {label!r} spells a sign of the style {style.name!r}: rename it")
    key = style.name, forms
    known: dict[Any, Literals] = symbols.compiled
    if key not in known:
        while len(known) >= KEPT:
            known.pop(next(iter(known)))
        known[key] = _compile(symbols, style, forms)
    return known[key]


def _compile(symbols: TokenSymbols, style: Style, forms: AnswerSchema) -> Literals:
    written = style.linearize([ParsedItem("x", "y")]).removesuffix(style.suffix)  # up to the end of an item

    def spell(context: str, string: str) -> list[tuple[int, str]]:
        tokens = symbols.continuation(context, string, style.markers)
        return [(token, symbols.symbols[token]) for token in tokens]

    first, later, regions = Node(), Node(), Node()
    for root, context, before in ((first, "", style.prefix), (later, written, style.separator)):
        for label in forms.labels:
            if forms.spans:
                root.add(spell(context, before + style.opening(label)), SPAN, Opened(label))
            if forms.num_regions:
                root.add(spell(context, before + style.region_opening(label)), REGION, Opened(label))
            if forms.bare:
                root.add(spell(context, before + style.bare(label, forms.pair)), AFTER, Opened(label))
    for root, context, before in ((first, "", style.prefix), (later, written, "")):
        if root is first and forms.at_least_one:
            continue
        if before + style.suffix:
            root.add(spell(context, before + style.suffix), FINAL, Opened())
        else:
            root.may_end = True
    for index in range(forms.num_regions):
        opening = style.prefix + style.region_opening(forms.labels[0])
        regions.add(spell(opening, f" {region_name(index)}{style.closing}"), AFTER, Opened(region=index))
    closing = symbols.continuation(f"{style.prefix}{style.opening('x')} y", style.closing, style.markers)
    ending = symbols.continuation(written, style.suffix, style.markers)
    number = None
    if style.is_numbered:
        before, _, behind = symbols.spell(symbols.continuation(written, "2", style.markers)).partition("2")
        number = before, behind
    markers = tuple(symbols.spell(symbols.encode(marker)).strip(" ") for marker in style.markers)
    return Literals(first, later, regions, symbols.spell(closing), len(closing), len(ending), number, markers)
