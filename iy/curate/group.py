"""Which photos show one person: the source's labels, or average-linkage clustering of the face embeddings."""

import logging
from collections import Counter
from typing import Any

import numpy as np
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import AgglomerativeClustering

from iy import params
from iy.curate.collection import Collection
from iy.curate.neighbours import neighbours
from iy.curate.strangers import strangers

log = logging.getLogger(__name__)


def group(photos: Collection, curate: params.Curate, published: float) -> None:
    """Give every accepted photo its `person`; those of persons with too few photos are rejected."""
    threshold = published if curate.group_threshold is None else curate.group_threshold
    if curate.grouping != "embedding":
        for i in photos.kept():
            photos.person[i] = photos.label[i]
    if curate.wrong_names == "reject":
        doubt(photos)
    unnamed = [i for i in photos.kept() if photos.person[i] is None]
    if curate.grouping == "label":
        for i in unnamed:
            photos.reject(i, "no person is named for it, and curate.grouping is label")
    elif unnamed:
        for i, name in zip(unnamed, persons(photos.faces[unnamed], threshold), strict=True):
            photos.person[i] = name
        count = len({photos.person[i] for i in unnamed})
        log.info("curate: %d unlabelled photos show %d persons", len(unnamed), count)
    few(photos, curate.minimum_per_person)


def doubt(photos: Collection) -> None:
    """Reject the photos whose label is another person's than their face."""
    named = [i for i in photos.kept() if photos.person[i] is not None]
    people = [photos.person[i] or "" for i in named]
    accused = strangers(photos.faces[named], people)
    for k, found in accused.items():
        photos.reject(
            named[k],
            f"resembles {found.resembles} more ({found.other:.3f}) than the other photos of {people[k]} "
            f"({found.own:.3f}): under a wrong name? curate.wrong_names is reject",
        )
    if accused:
        log.info("curate: %d of %d labelled photos resemble somebody else more", len(accused), len(named))


def persons(faces: np.ndarray, threshold: float) -> list[str]:
    """Names `group-0001`, ... of faces (N, D) in the order in which persons first appear."""
    names: dict[int, str] = {}
    return [names.setdefault(number, f"group-{len(names) + 1:04d}") for number in cluster(faces, threshold).tolist()]


def cluster(faces: np.ndarray, threshold: float) -> np.ndarray:
    """Cluster numbers (N,) of unit vectors (N, D): two clusters join while their mean similarity reaches `threshold`.

    A join needs one pair at the threshold, so no cluster crosses the components of the graph of such pairs: each
    component is clustered alone, which gives the same result and keeps memory to the largest component.
    """
    count, component = connected_components(neighbours(faces, threshold), directed=False)
    numbers, used = np.zeros(len(faces), int), 0
    for k in range(count):
        here = np.flatnonzero(component == k)
        by_distance: dict[str, Any] = {"n_clusters": None, "distance_threshold": 1 - threshold}
        average = AgglomerativeClustering(metric="cosine", linkage="average", **by_distance)
        inside = np.zeros(1, int) if len(here) == 1 else average.fit_predict(faces[here])
        numbers[here] = used + inside
        used += int(inside.max()) + 1
    return numbers


def few(photos: Collection, minimum: int) -> None:
    kept = photos.kept()
    count = Counter(photos.person[i] for i in kept)
    for i in kept:
        if (usable := count[photos.person[i]]) < minimum:
            photos.reject(i, f"only {usable} usable photo(s) of this person, curate.minimum_per_person is {minimum}")
