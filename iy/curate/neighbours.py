"""Who resembles whom: pairs of faces at least so similar, found through an index, not by comparing all with all."""

import logging
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

if TYPE_CHECKING:
    import faiss

logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it tells every build that it tries
EXACT = 20_000  # up to so many faces everything is compared: seconds
LISTS, PROBES = 4, 32  # lists of the index, times the root of N; lists that are searched for each face
SAMPLE = 64  # faces per list from which the index learns where its lists are
BLOCK = 10_000  # faces looked up at once
SLACK = 1e-6  # of single-precision products


def neighbours(faces: np.ndarray, threshold: float) -> csr_array:
    """The pairs (N, N) of unit vectors (N, D) whose cosine is `threshold` or more; each is its own neighbour.

    Beyond `EXACT` faces those in the `PROBES` lists nearest to each are compared (Sivic & Zisserman 2003, as faiss has
    it): time grows with N √N instead of N², and a pair at the very threshold can be missed.
    """
    faces = np.ascontiguousarray(faces, np.float32)
    index = built(faces)
    lengths, found = [], []
    for start in range(0, len(faces), BLOCK):
        limits, _, rows = index.range_search(faces[start : start + BLOCK], float(threshold) - SLACK)
        lengths.append(np.diff(limits.astype(np.int64)))
        found.append(rows)
    ends = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    rows = np.concatenate(found)
    return csr_array((np.ones(len(rows), bool), rows, ends), shape=(len(faces), len(faces)))


def built(faces: np.ndarray) -> "faiss.Index":
    import faiss

    size = faces.shape[1]
    if len(faces) <= EXACT:
        index = faiss.IndexFlatIP(size)
    else:
        lists = int(LISTS * len(faces) ** 0.5)
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(size), size, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.nprobe = 0, min(PROBES, lists)
        sample = np.random.default_rng(0).permutation(len(faces))[: SAMPLE * lists]
        index.train(faces[np.sort(sample)])
    index.add(faces)
    return index
