"""A suffix automaton: all substrings of a text in linear space, with the number of occurrences of each."""

from __future__ import annotations

from collections.abc import Mapping


class SuffixAutomaton:
    """The smallest automaton of all substrings of a string; state 0 is the empty substring.

    Source: Blumer et al., The smallest automaton recognizing the subwords of a text (1985).

    Args:
        string: the string; time and space are linear in its length.

    Attributes:
        next: for each state, the state after each symbol that can follow.
        counts: for each state, the number of occurrences of its substrings, including overlapping ones.
    """

    def __init__(self, string: str) -> None:
        self.next: list[dict[str, int]] = [{}]
        links, lengths, counts = [-1], [0], [0]
        last = 0
        for symbol in string:
            current = len(self.next)
            self.next.append({})
            links.append(0)
            lengths.append(lengths[last] + 1)
            counts.append(1)
            state = last
            while state >= 0 and symbol not in self.next[state]:
                self.next[state][symbol] = current
                state = links[state]
            if state >= 0:
                target = self.next[state][symbol]
                if lengths[target] == lengths[state] + 1:
                    links[current] = target
                else:
                    clone = len(self.next)
                    self.next.append(dict(self.next[target]))
                    links.append(links[target])
                    lengths.append(lengths[state] + 1)
                    counts.append(0)
                    links[target] = links[current] = clone
                    while state >= 0 and self.next[state].get(symbol) == target:
                        self.next[state][symbol] = clone
                        state = links[state]
            last = current
        for state in sorted(range(1, len(lengths)), key=lengths.__getitem__, reverse=True):
            counts[links[state]] += counts[state]
        self.counts = counts


class SpelledAutomaton:
    """All substrings of a string by their spelling, if several symbols are spelled alike; state 0 is the empty one.

    It has the attributes of a ``SuffixAutomaton``, but ``counts`` is 0 for a spelling of several different substrings.
    A state is the set of the states of all substrings with its spelling, and is found when it is first reached.

    Args:
        string: the string.
        spelling: how symbols are spelled, where it differs from the symbol.
    """

    def __init__(self, string: str, spelling: Mapping[str, str]) -> None:
        self._exact, self._spelling = SuffixAutomaton(string), spelling
        self._known: dict[tuple[int, ...], int] = {(0,): 0}
        self._members: list[tuple[int, ...]] = [(0,)]
        self._following: dict[int, dict[str, int]] = {}
        self.counts = [0]

    @property
    def next(self) -> SpelledAutomaton:
        """For each state, the state after each symbol that can follow, by its spelling."""
        return self

    def __getitem__(self, state: int) -> dict[str, int]:
        if state not in self._following:
            members: dict[str, list[int]] = {}
            for member in self._members[state]:
                for symbol, reached in self._exact.next[member].items():
                    members.setdefault(self._spelling.get(symbol, symbol), []).append(reached)
            self._following[state] = {symbol: self._state(tuple(sorted(own))) for symbol, own in members.items()}
        return self._following[state]

    def _state(self, members: tuple[int, ...]) -> int:
        if members not in self._known:
            self._known[members] = len(self._members)
            self._members.append(members)
            self.counts.append(self._exact.counts[members[0]] if len(members) == 1 else 0)
        return self._known[members]
