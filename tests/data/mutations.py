"""Strategies for damaged files: changes in the bytes of a file, or in its JSON."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from samples import dumped

FRAGMENTS = [
    b"", b"\n", b"\n\n", b"\r\n", b"\t", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\\ud800", b"\\u0000", b'"', b"'", b"{",
    b"}", b"[", b"]", b",", b":", b"1e999", b"NaN", b"-1", b"9" * 5000, b"null", b"true", b'"\\n"', b"IMGID:",
    b"IMGID:..", b"O", b"B-PER", b"I-PER", b"\xe2\x80\xa8", b"\xc2\x85", b"<a>", b"</object>", b"<!DOCTYPE a>", b"&x;",
    b"[" * 2000, b"(" * 2000,
]  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(
        ["S_1", "P_1", "../x", "\ud800", "a\nb", "\u2028", "Justice:Arrest-Jail", "Arg-1", "E1", "1", "0"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw a variant of ``content``: truncated, with removed, doubled or inserted pieces, or with a changed value."""
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    if value is not None and draw(st.booleans()):
        return exchanged(draw, value)
    for _ in range(draw(st.integers(1, 3))):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(content))] * 2)))
        piece = draw(st.sampled_from([*FRAGMENTS, content[start:end] * 2]) | st.binary(max_size=8))
        content = content[:start] + piece + content[draw(st.sampled_from([start, end, len(content)])) :]
    return content


def exchanged(draw: st.DrawFn, value: Any) -> bytes:
    """Return JSON in which a random value is replaced, removed or added."""
    parent, key, node = None, None, value
    while isinstance(node, dict | list) and node and (parent is None or draw(st.integers(0, 4))):
        keys = list(node) if isinstance(node, dict) else range(len(node))
        parent, key = node, draw(st.sampled_from(keys))
        node = parent[key]
    new = draw(VALUES)
    if parent is None:
        return dumped(new)
    if isinstance(parent, dict) and draw(st.booleans()):
        del parent[key]
        parent[draw(st.text(max_size=3) | st.just("\ud800") | st.just("a\u2028b"))] = draw(st.just(node) | VALUES)
    else:
        parent[key] = new
    return dumped(value)
