"""Copies: the same bytes twice, or nearly the same picture of the same face. The best one stays."""
from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from iy import params
from iy.curate.filters import reject
from iy.faces import similarity
from iy.records import ACCEPTED, REJECTED

BLOCK = 1024     # rows compared with all others at a time


def reject_copies(rows: list[dict], curate: params.Curate) -> tuple[list[dict], dict[int, int]]:
    """Exact copies and near duplicates rejected, naming the photo that stays; and copy's index -> its."""
    rows, original = reject_same_bytes(rows)
    usable = [i for i, row in enumerate(rows) if row["verdict"] == ACCEPTED]
    groups = connected([rows[i] for i in usable], curate)
    rows = list(rows)
    for group in groups:
        best = max(group, key=lambda k: (rows[usable[k]]["quality"], -k))
        for k in group:
            if k != best:
                rows[usable[k]] = reject(rows[usable[k]], f"near duplicate of {rows[usable[best]]['uri']}")
                original[usable[k]] = usable[best]
    return rows, {copy: original.get(stays, stays) for copy, stays in original.items()}


def reject_same_bytes(rows: list[dict]) -> tuple[list[dict], dict[int, int]]:
    """The first of equal files stays; one that fails for another reason keeps that reason."""
    first: dict[str, int] = {}
    rows, original = list(rows), {}
    for i, row in enumerate(rows):
        stays = first.setdefault(row["id"], i)
        if stays != i and row["verdict"] != REJECTED:
            rows[i] = reject(row, f"the same file as {rows[stays]['uri']}")
            original[i] = stays
    return rows, original


def connected(rows: list[dict], curate: params.Curate) -> list[list[int]]:
    """Groups of two or more rows that near-duplicate pairs connect."""
    if len(rows) < 2:
        return []
    pairs = np.array(list(near_pairs(rows, curate)) or np.empty((0, 2)), int)
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (len(rows), len(rows)))
    _, label = connected_components(graph, directed=False)
    order = np.argsort(label, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
    return [group.tolist() for group in groups if len(group) > 1]


def near_pairs(rows: list[dict], curate: params.Curate) -> Iterator[tuple[int, int]]:
    """Pairs (i < j) whose perceptual hashes differ in few bits and whose faces are very similar."""
    hashes = np.array([int(row["phash"], 16) for row in rows], np.uint64)
    faces = np.array([row["embedding"] for row in rows])
    for start in range(0, len(rows), BLOCK):
        block = hashes[start:start + BLOCK]
        close = np.bitwise_count(block[:, None] ^ hashes[None]) <= curate.duplicate_bits
        for i, j in zip(*np.nonzero(close), strict=True):
            if start + i < j and similarity(faces[start + i], faces[j]) >= curate.duplicate_similarity:
                yield int(start + i), int(j)
