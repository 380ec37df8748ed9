"""A suffix automaton: all substrings of a text in linear space, with the number of occurrences of each."""

from __future__ import annotations


class SuffixAutomaton:
    """The smallest automaton of all substrings of a string; state 0 is the empty substring.

    Source: Blumer et al., The smallest automaton recognizing the subwords of a text (1985).

    Args:
        string: the string; time and space are linear in its length.

    Attributes:
        next: for each state, the state after each symbol that can follow.
        counts: for each state, the number of occurrences of its substrings, including overlapping ones.
        lengths: for each state, the length of its longest substring; the states that follow it have longer ones.
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
        self.lengths = lengths
