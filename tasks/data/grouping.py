"""Near-duplicate groups of rows, assigned so that later rows never change them.

Rows are processed in the order in which they were received. Each joins the group of the earliest row that it resembles, or
starts a group of its own. Later rows can therefore never move an earlier one, so a split by the group's hash is the same in
every snapshot. A row that resembles groups of two different splits would leak from one into the other: it is a *bridge*, and
belongs to no split.

Resemblance is the Jaccard similarity of fingerprints (sets, made by the kind), estimated by MinHash and found by locality-
sensitive hashing (Broder 1997; Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence

from datasketch import MinHash, MinHashLSH

from tasks.data.settings import NearDuplicates


def group_of_each(
    ids: Sequence[str],
    fingerprints: Iterable[Collection[bytes]],
    near_duplicates: NearDuplicates,
    shares: Mapping[str, float],
) -> list[str | None]:
    """The group of each row, in the order given (oldest first): its first member's id, or None for a bridge."""
    similarity, permutations = near_duplicates.similarity, near_duplicates.permutations
    signatures = list(MinHash.generator(fingerprints, num_perm=permutations, seed=1))
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
            continue  # not indexed: it must not link later rows to two splits
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
