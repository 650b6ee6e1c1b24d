"""Near-duplicate groups of messages, assigned so that later messages never change them.

Messages are processed in the order in which they were received. Each joins the group of the earliest message that it
resembles, or starts a group of its own. Later messages can therefore never move an earlier one, so a split by the group's
hash is the same in every snapshot. A message that resembles groups of two different splits would leak from one into the
other: it is a *bridge*, and belongs to no split.

Resemblance is the Jaccard similarity of word shingles, estimated by MinHash and found by locality-sensitive hashing (Broder
1997; Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

from datasketch import MinHash, MinHashLSH

_WORD = re.compile(r"\w+")


def shingles(text: str, words: int) -> set[bytes]:
    """All n-grams of ``words`` words of the lowercased text; a shorter text is one shingle."""
    tokens = _WORD.findall(text.lower())
    return {" ".join(tokens[start : start + words]).encode() for start in range(max(1, len(tokens) - words + 1))}


def group_of_each(
    ids: Sequence[str],
    texts: Iterable[str],
    *,
    shingle_words: int,
    permutations: int,
    similarity: float,
    shares: Mapping[str, float],
) -> list[str | None]:
    """The group of each message, in the order given (oldest first): its first member's id, or None for a bridge."""
    signatures = list(MinHash.generator((shingles(text, shingle_words) for text in texts), num_perm=permutations, seed=1))
    # Weighted for recall, as candidates are checked below: a missed copy would be a leak.
    index = MinHashLSH(threshold=similarity, num_perm=permutations, weights=(0.05, 0.95))
    groups: list[str | None] = []
    for position, signature in enumerate(signatures):
        similar = sorted(
            candidate for candidate in index.query(signature) if signatures[candidate].jaccard(signature) >= similarity
        )
        similar_groups = dict.fromkeys(group for candidate in similar if (group := groups[candidate]) is not None)
        if len({split_of(group, shares) for group in similar_groups}) > 1:
            groups.append(None)
            continue  # not indexed: it must not link later messages to two splits
        groups.append(next(iter(similar_groups), ids[position]))
        index.insert(position, signature)
    return groups


def split_of(group: str, shares: Mapping[str, float], rest: str = "train") -> str:
    """The split of a group: the SHA-256 of its name as a number in [0, 1), compared with cumulated ``shares`` in order."""
    number = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    for name, share in shares.items():
        if number < share:
            return name
        number -= share
    return rest
