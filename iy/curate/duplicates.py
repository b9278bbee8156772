"""Copies: the same bytes twice, or nearly the same picture of the same face. The best one stays."""

from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from iy import params
from iy.curate.collection import Collection

BLOCK, SOME = 2**20, 2**14  # comparisons of hashes at a time, and of faces
BITS = 64  # of a perceptual hash


def reject_copies(photos: Collection, curate: params.Curate) -> dict[int, int]:
    """Reject exact copies and near duplicates, naming the photo that stays; copy's index -> its."""
    original = reject_same_bytes(photos)
    usable = np.flatnonzero(photos.accepted)
    for group in connected(photos.hashes[usable], photos.faces, usable, curate):
        best = max(group, key=lambda i: (photos.quality[i], -i))
        for i in group:
            if i != best:
                photos.reject(i, f"near duplicate of {photos.uri[best]}")
                original[i] = best
    return {copy: original.get(stays, stays) for copy, stays in original.items()}


def reject_same_bytes(photos: Collection) -> dict[int, int]:
    """The first of equal files stays; one that fails for another reason keeps that reason."""
    _, first, same = np.unique(photos.ids, return_index=True, return_inverse=True)
    stays = first[same]
    copies = np.flatnonzero(photos.accepted & (stays != np.arange(len(photos)))).tolist()
    for i in copies:
        photos.reject(i, f"the same file as {photos.uri[stays[i]]}")
    return {i: int(stays[i]) for i in copies}


def connected(hashes: np.ndarray, faces: np.ndarray, usable: np.ndarray, curate: params.Curate) -> list[list[int]]:
    """Groups of two or more of the photos `usable` (M,) that near-duplicate pairs connect.

    hashes (M,), faces (N, D).
    """
    label, waiting, count = np.arange(len(hashes)), [np.empty((0, 2), int)], 0
    for pairs in near_pairs(hashes, curate.duplicate_bits):
        waiting.append(pairs[alike(faces, usable[pairs]) >= curate.duplicate_similarity])
        count += len(waiting[-1])
        if (
            count > BLOCK
        ):  # a thousand frames of one video are half a million pairs: they are not kept, but what they say
            label, waiting, count = joined(label, np.concatenate(waiting)), [], 0
    label = joined(label, np.concatenate(waiting)) if waiting else label
    order = np.argsort(label, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
    return [usable[group].tolist() for group in groups if len(group) > 1]


def alike(faces: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Cosines (K,) of the faces of pairs (K, 2), few at a time: each is two vectors."""
    cut = range(0, max(1, len(pairs)), SOME)
    return np.concatenate([(faces[pairs[k : k + SOME, 0]] * faces[pairs[k : k + SOME, 1]]).sum(1) for k in cut])


def joined(label: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Components (M,) when pairs (K, 2) of nodes are joined too."""
    graph = coo_array((np.ones(len(pairs), bool), (label[pairs[:, 0]], label[pairs[:, 1]])), (len(label), len(label)))
    return connected_components(graph, directed=False)[1][label]


def near_pairs(hashes: np.ndarray, bits: int) -> Iterator[np.ndarray]:
    """Pairs (K, 2) of hashes uint64 (M,) that differ in at most `bits` bits, some of them several times.

    Cut into more pieces than bits may differ, two such hashes agree in a piece: only those that do are compared.
    """
    edges = np.linspace(0, BITS, bits + 2).astype(int).tolist() if bits < BITS else [0, 0]
    for low, high in zip(edges, edges[1:], strict=False):
        piece = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(piece, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(piece[order])) + 1):
            rows = max(1, BLOCK // max(1, len(group)))
            for start in range(0, len(group) if len(group) > 1 else 0, rows):
                some = group[start : start + rows]
                close = np.bitwise_count(hashes[some][:, None] ^ hashes[group]) <= bits
                i, j = np.nonzero(close & (some[:, None] < group))
                yield np.stack([some[i], group[j]], 1)
