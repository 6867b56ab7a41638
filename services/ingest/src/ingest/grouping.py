"""Which rows belong together: a split that knows one of them knows the answers of the others."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator

from schemas.artifacts import ChatRow


def question_key(row: ChatRow) -> str:
    """A digest of what a row asks, folded so that trivial variants meet in one split."""
    return list(_beginnings(row))[-2].hex()


def groups_of(rows: list[ChatRow]) -> list[list[ChatRow]]:
    """The rows in groups; each row is in one.

    Two rows are in one group if they ask the same, or if one begins with all of the other, its answer included, or if
    a chain of such rows joins them.
    """
    parent = list(range(len(rows)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    whole: dict[bytes, int] = {}
    asked: dict[bytes, int] = {}
    for index, row in enumerate(rows):
        beginnings = list(_beginnings(row))
        parent[index] = root(whole.setdefault(beginnings[-1], index))
        parent[root(index)] = root(asked.setdefault(beginnings[-2], index))
    for index, row in enumerate(rows):
        for beginning in list(_beginnings(row))[:-1]:
            if beginning in whole:
                parent[root(index)] = root(whole[beginning])
    groups: dict[int, list[ChatRow]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[root(index)].append(row)
    return list(groups.values())


def _beginnings(row: ChatRow) -> Iterator[bytes]:
    """A digest of nothing, of the first message, of the first two, and so on to the whole conversation."""
    digest = hashlib.sha256()
    yield digest.digest()[:16]
    for message in row["messages"]:
        words = message["content"].casefold().split()
        digest.update(f"{message['role']}\x1f{' '.join(words)}\x1e".encode())  # no word holds a separator
        yield digest.digest()[:16]
