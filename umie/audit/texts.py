"""Duplicates and near duplicates of texts: normalization, and an exact similarity join on character n-grams."""

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
    """Return a form of the text that is the same for copies from different tokenizers.

    Applies Unicode NFKC and case folding, and removes links (shortened links differ between retweets) and whitespace. A
    text that consists only of links keeps them.
    """
    tokens = unicodedata.normalize("NFKC", text).casefold().split()
    kept, previous = [], ""
    for token in tokens:
        # tokenizers split some links in two: 'http://t.' and 'co/RdsxE7efDz'
        if not _LINK.match(token) and not (previous.endswith("//t.") and token.startswith("co/")):
            kept.append(token)
        previous = token
    joined = "".join(kept)
    return joined if any(character.isalnum() for character in joined) else "".join(tokens)


def near_duplicates(texts: Sequence[str], threshold: float = THRESHOLD) -> Iterator[tuple[int, int, float]]:
    """Yield every pair of texts with similar sets of character 5-grams: ``(i, j, Jaccard similarity)``, ``i < j``.

    Source: prefix filtering for set similarity joins (Chaudhuri et al. 2006; Bayardo et al. 2007). Unlike MinHash, the
    result is exact: all pairs at or above the threshold, and no others, in no particular order. The texts are
    normalized and distinct. A threshold that is not above 0 and at most 1 raises UmieError.
    """
    if not 0 < threshold <= 1:
        raise UmieError(f"threshold is {threshold}: use a number above 0 and at most 1")
    sets = _ranked_shingles(texts)
    order = sorted(range(len(sets)), key=lambda index: len(sets[index]))
    index: dict[int, list[int]] = defaultdict(list)
    for current in order:  # by increasing size, so that earlier sets are not larger than the current one
        shingles = sets[current]
        size = len(shingles)
        min_size = math.ceil(threshold * size - 1e-9)
        candidates: set[int] = set()
        for shingle in shingles[: size - min_size + 1].tolist():
            candidates.update(other for other in index[shingle] if len(sets[other]) >= min_size)
            index[shingle].append(current)
        for other in candidates:
            shared = len(np.intersect1d(shingles, sets[other], assume_unique=True))
            similarity = shared / (size + len(sets[other]) - shared)
            if similarity >= threshold:
                yield min(current, other), max(current, other), similarity


def _ranked_shingles(texts: Sequence[str]) -> list[NDArray[np.int64]]:
    """Return the n-grams of every text as sorted ranks, where rank 0 is the rarest n-gram of all texts."""
    hashed = [_shingles(text) for text in texts]
    if not hashed:
        return []
    distinct, inverse, counts = np.unique(np.concatenate(hashed), return_inverse=True, return_counts=True)
    rank = np.empty(len(distinct), dtype=np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(distinct))
    ends = np.cumsum([len(shingles) for shingles in hashed])
    return [np.sort(part) for part in np.split(rank[inverse.ravel()], ends[:-1])]


def _shingles(text: str) -> NDArray[np.uint64]:
    """Return the distinct 64-bit hashes of the character 5-grams of a text; a shorter text is a single n-gram."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    width = min(SHINGLE, len(codes))
    if width == 0:
        return np.zeros(1, dtype=np.uint64)
    hashes = np.zeros(len(codes) - width + 1, dtype=np.uint64)
    for offset in range(width):
        hashes = (hashes * _FACTOR) ^ codes[offset : len(codes) - width + 1 + offset]
    return np.unique(hashes)
