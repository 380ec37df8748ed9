"""The states of one constrained answer: which tokens may come next, built only where decoding goes.

A state is a set of configurations, each a place in a literal, in a span of the text, in what closes a span, or in
an occurrence's number. States are made when they are first reached, and kept for the other beams and steps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from typing import Any, TypeAlias

from umie.constrained.answer_reader import DONE, Config, Reader, Step, items_told
from umie.constrained.literals import AFTER, FINAL, REGION, SPAN, Literals, Node
from umie.constrained.suffix_automaton import SuffixAutomaton
from umie.constrained.symbols import TokenSymbols, Trie, View
from umie.tasks.grammar import Style

Moves: TypeAlias = dict[int, list[Config]]  # the configurations behind each token

_LITERAL, _LEAD, _SPAN, _CLOSE, _NUMBER, _FINAL = range(6)
_NEVER = 1 << 30
_NO_SYMBOL = "\U0010ffff"  # what no token spells
_DEEP = 40  # symbols: what is found by recursion is not deeper
_SPACES = " \t\r\n"


class State:
    """One set of configurations.

    Attributes:
        moves: the configurations behind each token that may come next.
        slack: with at least this many tokens left, all of them may.
        distances: for each of the tokens, how many are needed from it on to end the answer, itself included.
    """

    __slots__ = ("configs", "distances", "moves", "slack", "tokens")

    def __init__(self, configs: frozenset[Config]) -> None:
        self.configs = configs
        self.moves: dict[int, list[Config]] = {}
        self.tokens: list[int] = []
        self.distances: list[int] = []
        self.slack = 0


class AnswerAutomaton:
    """The constraint on the answer to one query.

    Args:
        symbols: of the tokenizer.
        literals: of the task's output style.
        style: the output style.
        text: the record's text.
        pair: the strings of the head and the tail, where the query asks about a pair.
    """

    def __init__(
        self,
        symbols: TokenSymbols,
        literals: Literals,
        style: Style,
        text: str,
        pair: tuple[str, str] | None = None,
    ) -> None:
        self._symbols = symbols
        self._literals = literals
        self._style = style
        self._text = text
        self._pair = pair
        self._escaped = style.escaped
        self._parts_signs = literals.closing[:1] == " " or bool(symbols.tail)  # whether a space stands before any sign
        self._after = self._closure((_LITERAL, literals.later))
        self._breaks = {"|", *literals.closing[:1]} if self._escaped else set(literals.closing[:1])
        if not literals.closing:
            self._breaks.update(literals.later.children)
        self._states: dict[frozenset[Config], State] = {}
        self._rest = literals.num_ending_tokens + 1  # tokens that end an answer behind an item
        self._distances: dict[Config, int] = {(_LITERAL, literals.later): self._rest}
        self.end: int = symbols.end if symbols.end is not None else -1
        self._ended = self._state(frozenset())
        prefix = Node()
        node = prefix
        for token in symbols.prefix:
            node.tokens[token] = node = Node()
        if symbols.prefix:
            node.tokens, node.children = literals.first.tokens, literals.first.children
            node.ends, node.may_end = literals.first.ends, literals.first.may_end
        self.start = self._state(frozenset([(_LITERAL, prefix if symbols.prefix else literals.first)]))

    @cached_property
    def _view(self) -> View:
        return self._symbols.view(self._text)

    @cached_property
    def _automaton(self) -> SuffixAutomaton:
        symbols = self._view.symbols
        for marker in self._literals.markers:  # a span that held one could not be read back
            symbols = symbols.replace(marker, _NO_SYMBOL + marker[1:])
        return SuffixAutomaton(symbols)

    @cached_property
    def _deep_distances(self) -> None:
        """Find the distances in spans from the longest on, where they may not be closed for a long way."""
        symbols = self._view.symbols
        longest = max(
            map(len, symbols.split(" ") if self._symbols.tail else re.findall(f"[{_SPACES}]+", symbols)), default=0
        )
        if longest < _DEEP:
            return
        configs = [(_SPAN, 0, 0, False, True)]
        seen = set(configs)
        for config in configs:
            for symbol in {*self._automaton.next[config[1]], *self._escaped[:1]}:
                for reached, _ in self._span_steps(*config[1:], symbol):
                    if reached[0] == _SPAN and reached not in seen:
                        seen.add(reached)
                        configs.append(reached)
        lengths = self._automaton.lengths
        for config in sorted(configs[1:], key=lambda config: (lengths[config[1]], config[3]), reverse=True):
            self._distance(config)

    def tokens(self, state: State, remaining: int) -> list[int]:
        """Return the tokens that may come next.

        Args:
            state: where the answer is.
            remaining: how many tokens may still come, this one included.
        """
        if remaining >= state.slack:
            return state.tokens
        limit = max(remaining, min(state.distances))
        return [token for token, needed in zip(state.tokens, state.distances, strict=True) if needed <= limit]

    def next(self, state: State, token: int) -> State:
        """Return where a token leads; the end, for one that may not come."""
        if token == self.end:
            return self._ended
        configs = state.moves.get(token)
        return self._ended if configs is None else self._state(frozenset(configs))

    def read(self, tokens: Iterable[int]) -> str:
        """Return the answer that some tokens spell, as its style writes it; an item that was cut off is left out.

        Unlike the tokenizer's own decoding, this gives back characters that the vocabulary lacks, and upper case
        that the tokenizer does not keep: they are the text's.
        """
        return self._written(self._reader.read(tokens))

    def read_strictly(self, tokens: Iterable[int]) -> tuple[str, list[int]]:
        """Return the answer up to the first token that does not fit, and the tokens behind its last whole item.

        For tokens that no constraint held to an answer's form: nothing is mended.
        """
        told, rest = self._reader.read_strictly(tokens)
        return self._written(told), rest

    def _written(self, told: Iterable[Any]) -> str:
        return self._style.linearize(items_told(told, self._view, self._text), self._pair)

    @cached_property
    def _reader(self) -> Reader:
        return Reader(
            self._symbols,
            (_LITERAL, self._literals.first),
            (_LITERAL, self._literals.later),
            steps=self._steps,
            may_end=self._may_end,
            is_open=lambda config: config[0] == _SPAN,
            end=self.end,
        )

    def _state(self, configs: frozenset[Config]) -> State:
        state = self._states.get(configs)
        if state is None:
            state = self._states[configs] = State(configs)
            self._expand(state)
        return state

    def _expand(self, state: State) -> None:
        """Find the tokens that may come next and how far each is from the end."""
        moves: Moves = {}
        for config in state.configs:
            self._add_moves(config, moves)
        for token, configs in moves.items():
            needed = min(map(self._distance, configs))
            if needed < _NEVER:
                state.moves[token] = configs
                state.tokens.append(token)
                state.distances.append(needed + 1)
        if not state.configs or any(self._may_end(config) for config in state.configs):
            state.tokens.append(self.end)
            state.distances.append(1)
        state.slack = max(state.distances, default=0)

    def _add_moves(self, config: Config, moves: Moves) -> None:
        """Add the tokens that may come behind a configuration, and where they lead."""
        trie = self._symbols.trie
        if config[0] == _LEAD:
            self._deep_distances  # noqa: B018 - found once, before any of them is asked for
        if config[0] == _LITERAL and config[1].tokens:
            for token, node in config[1].tokens.items():
                moves.setdefault(token, []).extend(self._closure((_LITERAL, node)))
        elif config[0] == _LEAD and self._symbols.lead:
            child = trie.children.get(self._symbols.lead)
            if child is not None:
                for token in child.tokens:
                    moves.setdefault(token, []).append((_SPAN, 0, 0, False, True))
                self._add_span(child, 0, 0, True, moves)
        elif config[0] == _LEAD:
            self._add_span(trie, 0, 0, True, moves)
        elif config[0] == _SPAN and not config[3]:
            self._add_span(trie, config[1], config[2], config[4], moves)
        else:
            self._add(trie, config, moves)

    def _add(self, node: Trie, config: Config, moves: Moves) -> None:
        """Add every token below a node of the tree that fits behind a configuration."""
        for symbol, child in node.children.items():
            for reached, _ in self._steps(config, symbol):
                self._add_child(child, reached, moves)

    def _add_child(self, child: Trie, reached: Config, moves: Moves) -> None:
        for token in child.tokens:
            moves.setdefault(token, []).append(reached)
        if child.children:
            self._add(child, reached, moves)

    def _add_span(self, node: Trie, place: int, missing: int, at_space: bool, moves: Moves) -> None:
        """As ``_add`` in a span, from the smaller side: what the text goes on with, or what the tokens do."""
        following, children = self._automaton.next[place], node.children
        fewer = following if len(following) < len(children) else children
        for symbol in fewer:
            child, reached = children.get(symbol), following.get(symbol)
            if child is None or reached is None or symbol in self._escaped:
                continue
            is_inner = "\x80" <= symbol < "\xc0"
            if is_inner != bool(missing) or (not place and symbol.isspace()):
                continue
            left = missing - 1 if is_inner else _num_following(symbol)
            is_space = symbol in _SPACES
            if child.tokens:
                config = (_SPAN, reached, left, False, is_space)
                for token in child.tokens:
                    known = moves.get(token)
                    if known is None:
                        moves[token] = [config]
                    else:
                        known.append(config)
            if child.children:
                self._add_span(child, reached, left, is_space, moves)
        for symbol in self._breaks:
            broken = children.get(symbol)
            if broken is not None:
                for config, _ in self._span_steps(place, missing, False, at_space, symbol):
                    if config[0] != _SPAN or config[3]:
                        self._add_child(broken, config, moves)

    def _steps(self, config: Config, symbol: str) -> list[Step]:
        """Return where a symbol leads from a configuration; nowhere, where it may not come."""
        kind = config[0]
        if kind == _LITERAL:
            node = config[1].children.get(symbol)
            return [] if node is None else self._closure_steps((_LITERAL, node))
        if kind == _LEAD:
            if self._symbols.lead:
                return [((_SPAN, 0, 0, False, True), ())] if symbol == self._symbols.lead else []
            return self._span_steps(0, 0, False, True, symbol)
        if kind == _SPAN:
            return self._span_steps(config[1], config[2], config[3], config[4], symbol)
        if kind == _CLOSE:
            return self._close_steps(config[1], config[2], symbol)
        if kind == _NUMBER:
            return self._number_steps(config[1], config[2], config[3], symbol)
        return []

    def _span_steps(self, place: int, missing: int, escaped: bool, at_space: bool, symbol: str) -> list[Step]:
        """Step in a span: ``missing`` bytes of a character are to come; ``escaped``: the sign behind ``|``."""
        steps: list[Step] = []
        following = self._automaton.next[place]
        if place and not missing and not escaped and at_space == bool(self._symbols.tail):
            count = self._automaton.counts[place]
            if self._literals.closing:
                steps += self._close_steps(0, count, symbol)
            else:
                steps += [
                    (reached, (DONE, *events))
                    for config in self._after
                    for reached, events in self._steps(config, symbol)
                ]
        if symbol in self._escaped and not escaped:
            if symbol == "|" and not missing and any(sign in following for sign in self._escaped):
                steps.append(((_SPAN, place, 0, True, at_space), ()))
            return steps
        if escaped and symbol not in self._escaped:
            return [((_SPAN, place, 0, True, at_space), ())] if symbol == " " and self._parts_signs else steps
        is_inner = "\x80" <= symbol < "\xc0"
        reached = following.get(symbol)
        if reached is None or is_inner != bool(missing) or (not place and symbol.isspace()):
            return steps
        if is_inner:
            missing -= 1
        else:
            missing = _num_following(symbol)
        steps.append(((_SPAN, reached, missing, False, symbol in _SPACES), (symbol,)))
        return steps

    def _close_steps(self, position: int, count: int, symbol: str) -> list[Step]:
        closing = self._literals.closing
        if symbol != closing[position]:
            return []
        if position + 1 < len(closing):
            return [((_CLOSE, position + 1, count), ())]
        steps: list[Step] = [(config, (DONE,)) for config in self._after]
        if self._literals.number is not None and count > 1:
            steps.append(((_NUMBER, 0, 0, count), (DONE,)))
        return steps

    def _number_steps(self, position: int, value: int, count: int, symbol: str) -> list[Step]:
        """Step in the number of an occurrence, 2 to ``count``, and what the tokenizer puts around it."""
        before, behind = self._literals.number or ("", "")
        if position < len(before):
            return [((_NUMBER, position + 1, 0, count), ())] if symbol == before[position] else []
        is_complete = 2 <= value <= count
        if symbol.isascii() and symbol.isdigit():
            value = value * 10 + int(symbol)
            smallest = value if value > 1 else 10 * value  # 1 is not written: it begins 10, 11, ...
            if not 0 < smallest <= count:
                return []
            steps: list[Step] = [((_NUMBER, position, value, count), (int(symbol),))]
            if not behind and value >= 2:
                steps += [(config, (int(symbol),)) for config in self._after]
            return steps
        if is_complete and behind and symbol == behind:
            return [(config, ()) for config in self._after]
        return []

    def _closure(self, config: Config) -> list[Config]:
        return [reached for reached, _ in self._closure_steps(config)]

    def _closure_steps(self, config: Config) -> list[Step]:
        """Return a place in a literal, and what follows the literals that end there."""
        node: Node = config[1]
        steps: list[Step] = [(config, ())] if node.children or node.tokens or node.may_end else []
        for follows, says in node.ends.items():
            if follows == SPAN:
                steps.append(((_LEAD,), (says,)))
            elif follows == REGION:
                steps.append(((_LITERAL, self._literals.regions), (says,)))
            elif follows == AFTER:
                steps += [(after, (says, DONE)) for after in self._closure((_LITERAL, self._literals.later))]
            elif follows == FINAL:
                steps.append(((_FINAL,), ()))
        return steps

    def _may_end(self, config: Config) -> bool:
        if config[0] == _LITERAL:
            return bool(config[1].may_end)
        if config[0] == _SPAN and not self._literals.closing:
            return self._is_whole(config) and any(self._may_end(after) for after in self._after)
        return bool(config[0] == _FINAL)

    def _is_whole(self, config: Config) -> bool:
        """Say whether a span may be closed here: behind a whole character, as the tokenizer ends words."""
        _, place, missing, escaped, at_space = config
        return bool(place and not missing and not escaped and at_space == bool(self._symbols.tail))

    def _distance(self, config: Config) -> int:
        """Return how many tokens at least are needed to end the answer, the end token included."""
        known = self._distances.get(config)
        if known is None:
            known = self._distances[config] = self._find_distance(config)
        return known

    def _find_distance(self, config: Config) -> int:
        if self._may_end(config):
            return 1
        if config[0] == _SPAN and self._is_whole(config):
            return self._literals.num_closing_tokens + self._rest
        _, behind = self._literals.number or ("", "")
        if config[0] == _NUMBER and config[2] > 1 and not behind:
            return self._rest  # a whole number: longer ones need not be looked at
        return min(self._state(frozenset((config,))).distances, default=_NEVER)


def _num_following(symbol: str) -> int:
    """Return how many bytes follow the first byte of a character."""
    return 1 + (symbol >= "\xe0") + (symbol >= "\xf0") if "\xc0" <= symbol < "\u0100" else 0
