"""How a tokenizer spells text: each token as a string of symbols, so that a grammar can be checked token by token.

A symbol is a byte of UTF-8 (a character below 256), or a placeholder: for a marker token such as ``<spot>``, or for the
unknown token, which represents characters that are not in the vocabulary.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from umie.errors import UmieError
from umie.framing import Framing, framing_of, unknown_token_of
from umie.records import Span

UNKNOWN = "\u0100"  # the symbol of the unknown token
_FIRST_MARKER = 0x101
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE_MARK = "▁"  # SentencePiece writes a space as this character


@dataclass
class Trie:
    """A node of the trie of all tokens by their symbols."""

    children: dict[str, Trie] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class View:
    """A text as the tokenizer sees it."""

    symbols: str  # without surrounding white space
    starts: Sequence[int]  # for each symbol, the offset of its character in the text
    ends: Sequence[int]  # for each symbol, the end offset of its character

    def span(self, start: int, end: int) -> Span:
        """Return the span of the text that symbols ``start`` to ``end`` (exclusive) represent."""
        return self.starts[start], self.ends[end - 1]


class TokenSymbols:
    """The symbols of a tokenizer's tokens, and texts in these symbols.

    Supported are byte-level BPE, SentencePiece (Unigram or BPE, with or without byte fallback), WordPiece, BPE with
    end-of-word suffixes, and byte tokenizers: all kinds that transformers' language models use. ``lead`` is the symbol
    before each word if tokens begin with a space, and ``tail`` the one after it if they end with a space.

    Args:
        tokenizer: the decoder's tokenizer.
        framing: the tokens around answers.

    Raises:
        UmieError: the tokenizer is of an unsupported kind, or has no end token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, framing: Framing) -> None:
        self._tokenizer = weakref.ref(tokenizer)  # so that cached symbols do not keep their tokenizer alive
        pieces: list[str] = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        special = set(tokenizer.all_special_ids)
        self.markers = {
            pieces[token]: chr(_FIRST_MARKER + token)
            for token in sorted({*special, *tokenizer.added_tokens_decoder})
            if pieces[token] and not _BYTE.fullmatch(pieces[token])
        }
        ordinary = [piece for token, piece in enumerate(pieces) if piece and piece not in self.markers]
        spell, self.lead, self.tail = _spelling(ordinary, type(tokenizer).__name__)
        self.symbols = ["" if not piece else self.markers.get(piece) or spell(piece) for piece in pieces]
        backend = getattr(tokenizer, "backend_tokenizer", None)
        is_byte_level = any("Ġ" in piece for piece in ordinary)
        self._keeps_text = is_byte_level and backend is not None and backend.normalizer is None
        unknown = unknown_token_of(tokenizer)
        if unknown is not None:
            self.symbols[unknown] = spell("x").replace("x", UNKNOWN)  # WordPiece's is a whole word
        self.compiled: dict[Any, Any] = {}  # literals compiled for this tokenizer; see umie.constrained.literals
        self.trie = Trie()  # all tokens that have symbols
        for token, symbols in enumerate(self.symbols):
            if symbols:
                node = self.trie
                for symbol in symbols:
                    node = node.children.setdefault(symbol, Trie())
                node.tokens.append(token)
        self.prefix, self.end = list(framing.before_answer), framing.end
        if self.end is None:
            raise UmieError(f"the tokenizer {type(tokenizer).__name__} has no end token: set eos_token")

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer. The caller must keep a reference to it."""
        found = self._tokenizer()
        if found is None:
            raise RuntimeError("the tokenizer was deleted: keep a reference to it while its symbols are in use")
        return found

    def encode(self, string: str, markers: Iterable[str] = ()) -> list[int]:
        """Return the tokens of a string, without added special tokens; in it only ``markers`` are special tokens."""
        return encode(self.tokenizer, string, [marker for marker in markers if marker in self.markers])

    def spell(self, tokens: Iterable[int]) -> str:
        """Return the symbols of some tokens."""
        return "".join(map(self.of, tokens))

    def of(self, token: int) -> str:
        """Return the symbols of a token; empty for an id beyond the tokenizer, since the decoder may have more rows."""
        return self.symbols[token] if token < len(self.symbols) else ""

    def continuation(self, context: str, string: str, markers: Iterable[str] = ()) -> list[int]:
        """Return the tokens of ``string`` when it follows ``context``.

        If the string changes the tokens of the context, it is split greedily into the longest tokens, so that it can
        always be written.
        """
        before, both = self.encode(context, markers), self.encode(context + string, markers)
        if both[: len(before)] == before:
            return both[len(before) :]
        return self._longest(string.encode().decode("latin-1"))

    def view(self, text: str) -> View:
        """Return a text in this tokenizer's symbols."""
        is_fast = self.tokenizer.is_fast
        if self._keeps_text:
            return _same(text, self.tail)
        encoded = text.encode().decode("latin-1")
        found = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=is_fast, verbose=False
        )
        spelled = [self.symbols[token] for token in found.input_ids]
        if not is_fast or "".join(spelled).strip(" ") == encoded.strip(" "):
            return _same(text, self.tail)
        symbols: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        next_starts = itertools.chain((start for start, _ in found.offset_mapping[1:]), [len(text)])
        for piece, (start, end), next_start in zip(spelled, found.offset_mapping, next_starts, strict=False):
            while end < next_start and _is_mark(text[end]):  # that the tokenizer composes or drops
                end += 1
            covered = text[start:end]
            if covered.strip():
                start, end = start + len(covered) - len(covered.lstrip()), end - len(covered) + len(covered.rstrip())
            body = piece.strip(" ")
            before = piece[: len(piece) - len(piece.lstrip(" "))]
            after = piece[len(before) + len(body) :]  # empty for a token that is only spaces
            inner = _offsets(body, text[start:end], start, end)
            symbols += piece
            places = [*[(start, start)] * len(before), *inner, *[(end, end)] * len(after)]
            starts += [place[0] for place in places]
            ends += [place[1] for place in places]
        joined = "".join(symbols)
        skipped = len(joined) - len(joined.lstrip(" "))
        length = len(joined.rstrip(" ")) + len(self.tail)
        return View(joined[skipped:length], starts[skipped:length], ends[skipped:length])

    def _longest(self, symbols: str) -> list[int]:
        tokens = []
        position = 0
        while position < len(symbols):
            node, best = self.trie, None
            for end in range(position, len(symbols)):
                if symbols[end] not in node.children:
                    break
                node = node.children[symbols[end]]
                if node.tokens:
                    best = end + 1, node.tokens[0]
            if best is None:
                raise UmieError(
                    f"the tokenizer cannot write {symbols!r}, which is part of every answer: use another tokenizer"
                )
            position, token = best
            tokens.append(token)
        return tokens


_known: weakref.WeakKeyDictionary[Any, tuple[int, dict[Framing, TokenSymbols]]] = weakref.WeakKeyDictionary()


def symbols_of(tokenizer: PreTrainedTokenizerBase, framing: Framing | None = None) -> TokenSymbols:
    """Return the symbols of a tokenizer, with the framing of its answers; cached until tokens are added to it."""
    framing = framing_of(tokenizer) if framing is None else framing  # one entry for both ways to ask
    size, known = _known.get(tokenizer, (0, {}))
    if size != len(tokenizer):
        known = {}
        _known[tokenizer] = len(tokenizer), known
    if framing not in known:
        known[framing] = TokenSymbols(tokenizer, framing)
    return known[framing]


def encode(tokenizer: PreTrainedTokenizerBase, string: str, markers: Sequence[str] = ()) -> list[int]:
    """Return the tokens of a string, without the special tokens that the tokenizer adds around a text.

    Special tokens spelled out in the string are plain text, except ``markers``, tokens of the vocabulary.
    """
    parts = re.split(f"({'|'.join(map(re.escape, markers))})", string) if markers else [string]
    tokens: list[int] = []
    for part in parts:
        if part in markers:
            tokens.append(tokenizer.convert_tokens_to_ids(part))
        elif part:
            tokens += tokenizer(part, add_special_tokens=False, split_special_tokens=True, verbose=False).input_ids
    return tokens


def _spelling(pieces: Sequence[str], name: str) -> tuple[Any, str, str]:
    """Return a function from piece to symbols, and the symbols before and after a word."""
    if any("Ġ" in piece for piece in pieces):
        table = _byte_level_table()
        return (lambda piece: "".join(table.get(character, "") for character in piece)), " ", ""
    if any(_SPACE_MARK in piece for piece in pieces):
        return _sentence_piece, " ", ""
    if any(piece.startswith("##") for piece in pieces):
        return (lambda piece: _latin(piece[2:] if piece.startswith("##") else f" {piece}")), " ", ""
    if any(piece.endswith("</w>") for piece in pieces):
        return (lambda piece: _latin(piece[:-4] + " " if piece.endswith("</w>") else piece)), "", " "
    if {piece for piece in pieces if len(piece) == 1} >= {chr(code) for code in range(32, 127)}:
        if all(len(piece) == 1 and ord(piece) < 256 for piece in pieces):  # ByT5: a token is a byte
            return (lambda piece: piece), " ", ""
        return _latin, " ", ""
    raise UmieError(
        f"the tokenizer {name} cannot be constrained: its tokens are neither byte-level BPE, SentencePiece, WordPiece, "
        "BPE with </w>, nor bytes; decode without a constraint"
    )


def _sentence_piece(piece: str) -> str:
    byte = _BYTE.fullmatch(piece)
    return chr(int(byte.group(1), 16)) if byte else _latin(piece.replace(_SPACE_MARK, " "))


def _latin(string: str) -> str:
    return string.encode("utf-8", "surrogatepass").decode("latin-1")


def _byte_level_table() -> dict[str, str]:
    """Return the byte for each character of byte-level BPE; printable bytes are written as themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [code for code in range(256) if code not in set(printable)]
    return {chr(code): chr(code) for code in printable} | {
        chr(256 + rank): chr(code) for rank, code in enumerate(others)
    }


def _same(text: str, tail: str) -> View:
    """Return the view of a tokenizer that preserves the text; ``tail`` follows its last word."""
    if text.isascii() and not tail:
        return View(text, range(len(text)), range(1, len(text) + 1))
    starts: list[int] = []
    ends: list[int] = []
    symbols: list[str] = []
    for offset, character in enumerate(text):
        encoded = character.encode().decode("latin-1")
        symbols.append(encoded)
        starts += [offset] * len(encoded)
        ends += [offset + 1] * len(encoded)
    after = [len(text)] * len(tail)
    return View("".join(symbols) + tail, [*starts, *after], [*ends, *after])


def _offsets(body: str, covered: str, start: int, end: int) -> list[Span]:
    """Return the span of each symbol of a token: by character if their numbers agree, else the whole token.

    A character of the text may be followed by marks, which the tokenizer composes with it or drops.
    """
    try:
        characters = list(body.encode("latin-1").decode())
    except (UnicodeEncodeError, UnicodeDecodeError):  # an unknown token, or part of a character
        return [(start, end)] * len(body)
    firsts: Sequence[int] = range(len(covered))
    if len(characters) != len(covered):
        firsts = [place for place in firsts if not place or not _is_mark(covered[place])]
        if len(characters) != len(firsts):
            return [(start, end)] * len(body)
    spans = zip(firsts, [*firsts[1:], len(covered)], characters, strict=True)
    return [(start + first, start + last) for first, last, character in spans for _ in range(len(character.encode()))]


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")
