"""The states of one constrained answer: which tokens may come next, built only where decoding arrives.

A state is a set of configurations. Each is a place in a literal, in a span of the text, in the closing of a span, in
an occurrence's number, or in the phrase of a call. A state is built when it is first reached, and kept for the other
beams and steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, TypeAlias

from umie.constrained.answer_reader import DONE, Configuration, Reader, Said, Step, items_of
from umie.constrained.literals import AFTER, FINAL, PHRASE, PLACE, SPAN, Literals, Node
from umie.constrained.suffix_automaton import SpelledAutomaton, SuffixAutomaton
from umie.constrained.symbols import UNKNOWN, TokenSymbols, Trie, View
from umie.tasks.calls import MAX_PHRASE, RESERVED
from umie.tasks.grammar import Style

Moves: TypeAlias = dict[int, list[Configuration]]  # the configurations after each token

_LITERAL, _LEAD, _SPAN, _CLOSE, _NUMBER, _FINAL, _PHRASE = range(7)
_NEVER = 1 << 30
_NO_SYMBOL = "\U0010ffff"  # a symbol that no token spells
_FIRST_OWN = 0xE0000  # symbols from here on are spelled as the unknown token
_SPACES = " \t\r\n"


class State:
    """One set of configurations, and the tokens that may come next."""

    __slots__ = ("configs", "distances", "is_complete", "moves", "slack", "tokens")

    def __init__(self, configs: frozenset[Configuration]) -> None:
        self.configs = configs
        self.moves: Moves = {}
        self.tokens: list[int] = []
        self.distances: list[int] = []  # the fewest tokens that end the answer from each token on, including it
        self.is_complete = False  # whether tokens and distances are known
        self.slack = 0  # with at least this many tokens left, all of the tokens may come next


class AnswerAutomaton:
    """The constraint on the answer to one query; ``pair`` has the strings of head and tail if it asks about a pair."""

    def __init__(
        self,
        symbols: TokenSymbols,
        literals: Literals,
        style: Style,
        text: str,
        pair: tuple[str, str] | None = None,
    ) -> None:
        self._symbols, self._literals, self._style = symbols, literals, style
        self._text, self._pair = text, pair
        self._escaped = style.escaped
        # whether a space precedes every punctuation mark
        self._splits_punctuation = literals.closing[:1] == " " or bool(symbols.tail)
        self._after = self._closure((_LITERAL, literals.later))
        self._breaks = {"|", *literals.closing[:1]} if self._escaped else set(literals.closing[:1])
        if not literals.closing:
            self._breaks.update(literals.later.children)
        self._states: dict[frozenset[Configuration], State] = {}
        self._rest = literals.num_ending_tokens + 1  # tokens that end an answer after an item
        self._distances: dict[Configuration, int] = {(_LITERAL, literals.later): self._rest}
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
    def _automaton(self) -> SuffixAutomaton | SpelledAutomaton:
        view, symbols = self._view, self._view.symbols
        for marker in self._literals.markers:  # a span that contains one could not be read back
            symbols = symbols.replace(marker, _NO_SYMBOL + marker[1:])
        if UNKNOWN not in symbols:
            return SuffixAutomaton(symbols)
        # the unknown token is spelled alike for all that is not in the vocabulary
        own: dict[str, str] = {}  # a symbol of its own for each of them
        exact = [
            own.setdefault(self._text[slice(*view.span(place, place + 1))], chr(_FIRST_OWN + len(own)))
            if symbol == UNKNOWN
            else symbol
            for place, symbol in enumerate(symbols)
        ]
        return SpelledAutomaton("".join(exact), dict.fromkeys(own.values(), UNKNOWN))

    def tokens(self, state: State, remaining: int) -> list[int]:
        """Return the tokens that may come next, if ``remaining`` tokens may still come, including this one."""
        if remaining >= state.slack:
            return state.tokens
        limit = max(remaining, min(state.distances))
        return [token for token, needed in zip(state.tokens, state.distances, strict=True) if needed <= limit]

    def next(self, state: State, token: int) -> State:
        """Return the state after a token; the end state for a token that may not come."""
        if token == self.end:
            return self._ended
        configs = state.moves.get(token)
        return self._ended if configs is None else self._state(frozenset(configs))

    def read(self, tokens: Iterable[int]) -> str:
        """Return the answer that tokens spell, in its output style, without an item that was cut off.

        Unlike the tokenizer's own decoding, this restores characters that are not in the vocabulary, and upper case
        that the tokenizer drops: spans are copied from the text.
        """
        return self.read_strictly(tokens)[0]

    def read_strictly(self, tokens: Iterable[int]) -> tuple[str, list[int]]:
        """Return the answer up to the first token that does not fit, and the tokens after its last complete item.

        For tokens that were generated without a constraint: nothing is corrected.
        """
        events, rest = self._reader.read(tokens)
        return self._written(events), rest

    def _written(self, events: Iterable[Any]) -> str:
        return self._style.linearize(items_of(events, self._view, self._text), self._pair)

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

    def _state(self, configs: frozenset[Configuration]) -> State:
        """Return the state of some configurations, with its tokens and their distances.

        The distances of a state follow from those of the states that its tokens lead to. These are found on a stack and
        not by recursion, because a label can have thousands of tokens.
        """
        found = self._with_moves(configs)
        unfinished = [found]
        while unfinished:
            state = unfinished[-1]
            following = [] if state.is_complete else list(self._unknown_distances(state))
            if following:
                unfinished += following
                continue
            if not state.is_complete:
                self._complete(state)
            unfinished.pop()
        return found

    def _with_moves(self, configs: frozenset[Configuration]) -> State:
        state = self._states.get(configs)
        if state is None:
            state = self._states[configs] = State(configs)
            for config in configs:
                self._add_moves(config, state.moves)
        return state

    def _unknown_distances(self, state: State) -> Iterator[State]:
        """Yield the states to complete before the distances after all tokens of a state are known."""
        for config in {config for configs in state.moves.values() for config in configs}:
            if config not in self._distances:
                # a phrase can end at once, unless it is empty
                nearest = (_LITERAL, config[1]) if config[0] == _PHRASE else config
                needed = self._distances.get(nearest, self._known_distance(nearest))
                if needed is None:
                    single = self._with_moves(frozenset((nearest,)))
                    if not single.is_complete:
                        yield single
                        continue
                    needed = min(single.distances, default=_NEVER)
                self._distances[config] = needed + (config[0] == _PHRASE and not config[2])

    def _complete(self, state: State) -> None:
        """Find the tokens that may come next, and the distance of each to the end."""
        for token, configs in list(state.moves.items()):
            needed = min(self._distances[config] for config in configs)
            if needed < _NEVER:
                state.tokens.append(token)
                state.distances.append(needed + 1)
            else:
                del state.moves[token]
        if not state.configs or any(self._may_end(config) for config in state.configs):
            state.tokens.append(self.end)
            state.distances.append(1)
        state.slack = max(state.distances, default=0)
        state.is_complete = True

    def _add_moves(self, config: Configuration, moves: Moves) -> None:
        """Add the tokens that may come after a configuration, and the configurations they lead to."""
        trie = self._symbols.trie
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
        elif config[0] == _PHRASE:
            known = self._literals.phrases
            if config not in known:
                known[config] = {}
                self._add(trie, config, known[config])
            for token, configs in known[config].items():
                moves.setdefault(token, []).extend(configs)
        else:
            self._add(trie, config, moves)

    def _add(self, node: Trie, config: Configuration, moves: Moves) -> None:
        """Add every token below a node of the trie that fits after a configuration."""
        for symbol, child in node.children.items():
            for reached, _ in self._steps(config, symbol):
                self._add_child(child, reached, moves)

    def _add_child(self, child: Trie, reached: Configuration, moves: Moves) -> None:
        for token in child.tokens:
            moves.setdefault(token, []).append(reached)
        if child.children:
            self._add(child, reached, moves)

    def _add_span(self, node: Trie, place: int, missing: int, at_space: bool, moves: Moves) -> None:
        """Do the same as ``_add`` inside a span, over the smaller set: continuations of the text, or of the tokens."""
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

    def _steps(self, config: Configuration, symbol: str) -> list[Step]:
        """Return where a symbol leads from a configuration; an empty list if it may not come."""
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
        if kind == _PHRASE:
            return self._phrase_steps(config[1], config[2], symbol)
        return []

    def _phrase_steps(self, after: Node, length: int, symbol: str) -> list[Step]:
        """Step in a phrase of ``length`` symbols without spaces before it, or to what comes ``after`` it."""
        steps: list[Step] = []
        if length and symbol in after.children:
            steps += self._closure_steps((_LITERAL, after.children[symbol]))
        if symbol < UNKNOWN and symbol not in RESERVED and length < MAX_PHRASE:
            longer = length + 1 if length or symbol not in _SPACES else 0
            steps.append(((_PHRASE, after, longer), (Said(symbol),)))
        return steps

    def _span_steps(self, place: int, missing: int, escaped: bool, at_space: bool, symbol: str) -> list[Step]:
        """Step inside a span, from a state of the suffix automaton (``place``).

        ``missing`` bytes of a character are still to come; the previous character is the escape ``|`` (``escaped``);
        the previous symbol is white space, or there is none (``at_space``).
        """
        steps: list[Step] = []
        following = self._automaton.next[place]
        count = self._automaton.counts[place]
        if place and count and not missing and not escaped and at_space == bool(self._symbols.tail):
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
            return [((_SPAN, place, 0, True, at_space), ())] if symbol == " " and self._splits_punctuation else steps
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
        """Step in the number of an occurrence, 2 to ``count``, and in the symbols that the tokenizer adds around it."""
        before, after = self._literals.number or ("", "")
        if position < len(before):
            return [((_NUMBER, position + 1, 0, count), ())] if symbol == before[position] else []
        is_complete = 2 <= value <= count
        if symbol.isascii() and symbol.isdigit():
            value = value * 10 + int(symbol)
            smallest = value if value > 1 else 10 * value  # 1 is not written: it begins 10, 11, ...
            if not 0 < smallest <= count:
                return []
            steps: list[Step] = [((_NUMBER, position, value, count), (int(symbol),))]
            if not after and value >= 2:
                steps += [(config, (int(symbol),)) for config in self._after]
            return steps
        if is_complete and after and symbol == after:
            return [(config, ()) for config in self._after]
        return []

    def _closure(self, config: Configuration) -> list[Configuration]:
        return [reached for reached, _ in self._closure_steps(config)]

    def _closure_steps(self, config: Configuration) -> list[Step]:
        """Return a place in a literal, and the places that follow the literals that end there."""
        node: Node = config[1]
        steps: list[Step] = [(config, ())] if node.children or node.tokens or node.may_end else []
        for follows, says in node.ends.items():
            if follows == SPAN:
                steps.append(((_LEAD,), (says,)))
            elif follows == PLACE and says.names is not None:
                steps.append(((_LITERAL, says.names), (says,)))
            elif follows == PHRASE and says.names is not None:
                steps.append(((_PHRASE, says.names, 0), (says,)))
            elif follows == AFTER:
                steps += [(after, (says, DONE)) for after in self._closure((_LITERAL, self._literals.later))]
            elif follows == FINAL:
                steps.append(((_FINAL,), ()))
        return steps

    def _may_end(self, config: Configuration) -> bool:
        if config[0] == _LITERAL:
            return bool(config[1].may_end)
        if config[0] == _SPAN and not self._literals.closing:
            return self._is_whole(config) and any(self._may_end(after) for after in self._after)
        return bool(config[0] == _FINAL)

    def _is_whole(self, config: Configuration) -> bool:
        """Return whether a span may be closed here: after a whole character, and where the tokenizer ends a word.

        It may not if it contains unknown tokens and several strings of the text are spelled alike.
        """
        _, place, missing, escaped, at_space = config
        is_single = place and self._automaton.counts[place]
        return bool(is_single and not missing and not escaped and at_space == bool(self._symbols.tail))

    def _known_distance(self, config: Configuration) -> int | None:
        """Return the fewest tokens needed to end the answer, including the end token; None if it has to be found."""
        if self._may_end(config):
            return 1
        if config[0] == _SPAN and self._is_whole(config):
            return self._literals.num_closing_tokens + self._rest
        _, after = self._literals.number or ("", "")
        if config[0] == _NUMBER and config[2] > 1 and not after:
            return self._rest  # a complete number; longer ones do not shorten the distance
        return None


def _num_following(symbol: str) -> int:
    """Return the number of bytes that follow the first byte of a character."""
    return 1 + (symbol >= "\xe0") + (symbol >= "\xf0") if "\xc0" <= symbol < "\u0100" else 0
