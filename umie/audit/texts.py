"""When two texts are the same, or nearly: normalization, and an exact join on shared character sequences."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from umie.errors import UmieError

SHINGLE = 5  # characters
THRESHOLD = 0.8
_LINK = re.compile(r"(https?(:|…|\.\.|$)|//t\.co|t\.co/|www\.)")
_FACTOR = np.uint64(0x100000001B3)


def normalize(text: str) -> str:
    """Return what two copies of a text have in common whatever tokenizer they went through.

    Unicode NFKC, case folded, without links (a shortened link differs from one retweet to the next) and without
    white space. A text that is nothing else keeps its links.
    """
    tokens = unicodedata.normalize("NFKC", text).casefold().split()
    kept, before = [], ""
    for token in tokens:
        # a tokenizer may have cut the link in two, 'http://t.' and 'co/RdsxE7efDz'
        if not _LINK.match(token) and not (before.endswith("//t.") and token.startswith("co/")):
            kept.append(token)
        before = token
    joined = "".join(kept)
    return joined if any(sign.isalnum() for sign in joined) else "".join(tokens)


def near_duplicates(texts: Sequence[str], threshold: float = THRESHOLD) -> Iterator[tuple[int, int, float]]:
    """Yield every pair of texts whose sets of character 5-grams are alike, with the Jaccard similarity.

    Source: prefix filtering for set-similarity joins (Chaudhuri et al. 2006; Bayardo et al. 2007). The result is
    exact, unlike that of MinHash: no pair at or above the threshold is missed, and none below it is given.

    Args:
        texts: normalized texts, each of them once.
        threshold: the least similarity, above 0, at most 1.

    Returns:
        ``(i, j, similarity)`` with ``i < j``, ordered by neither.
    """
    if not 0 < threshold <= 1:
        raise UmieError(f"threshold is {threshold}: give a number above 0, at most 1")
    sets = _ranked_shingles(texts)
    order = sorted(range(len(sets)), key=lambda index: len(sets[index]))
    index: dict[int, list[int]] = defaultdict(list)
    for current in order:  # from the shortest: a partner is never longer than the set at hand
        shingles = sets[current]
        size = len(shingles)
        least = math.ceil(threshold * size - 1e-9)
        candidates: set[int] = set()
        for shingle in shingles[: size - least + 1].tolist():
            candidates.update(other for other in index[shingle] if len(sets[other]) >= least)
            index[shingle].append(current)
        for other in candidates:
            shared = len(np.intersect1d(shingles, sets[other], assume_unique=True))
            similarity = shared / (size + len(sets[other]) - shared)
            if similarity >= threshold:
                yield min(current, other), max(current, other), similarity


def _ranked_shingles(texts: Sequence[str]) -> list[NDArray[np.int64]]:
    """Return the shingles of every text as sorted ranks, the rarest shingle of all texts first."""
    hashed = [_shingles(text) for text in texts]
    if not hashed:
        return []
    every, inverse, counts = np.unique(np.concatenate(hashed), return_inverse=True, return_counts=True)
    rank = np.empty(len(every), dtype=np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(every))
    ends = np.cumsum([len(shingles) for shingles in hashed])
    return [np.sort(part) for part in np.split(rank[inverse.ravel()], ends[:-1])]


def _shingles(text: str) -> NDArray[np.uint64]:
    """Return the 64-bit hashes of the text's character 5-grams, each once; a shorter text is one shingle."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    width = min(SHINGLE, len(codes))
    if width == 0:
        return np.zeros(1, dtype=np.uint64)
    hashes = np.zeros(len(codes) - width + 1, dtype=np.uint64)
    for offset in range(width):
        hashes = (hashes * _FACTOR) ^ codes[offset : len(codes) - width + 1 + offset]
    return np.unique(hashes)
