"""Which photos show one person: the source's labels, or average-linkage clustering of the face embeddings."""
import logging
from collections import Counter

import numpy as np
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import AgglomerativeClustering
from sklearn.neighbors import radius_neighbors_graph

from iy import params
from iy.curate.filters import reject
from iy.curate.strangers import strangers
from iy.faces.recognise import unit
from iy.records import ACCEPTED

log = logging.getLogger(__name__)


def group(rows: list[dict], curate: params.Curate, published: float) -> list[dict]:
    """Accepted rows get a `person`; persons with too few photos are rejected."""
    threshold = published if curate.group_threshold is None else curate.group_threshold
    rows = [row | {"person": label(row, curate)} if row["verdict"] == ACCEPTED else row for row in rows]
    if curate.wrong_names == "reject":
        rows = doubt(rows)
    unnamed = [i for i, row in enumerate(rows) if row["verdict"] == ACCEPTED and row["person"] is None]
    if curate.grouping == "label":
        for i in unnamed:
            rows[i] = reject(rows[i], "no person is named for it, and curate.grouping is label")
    elif unnamed:
        for i, name in zip(unnamed, persons([rows[i]["embedding"] for i in unnamed], threshold), strict=True):
            rows[i] = rows[i] | {"person": name}
        count = len({rows[i]["person"] for i in unnamed})
        log.info("curate: %d unlabelled photos show %d persons", len(unnamed), count)
    return few(rows, curate.minimum_per_person)


def doubt(rows: list[dict]) -> list[dict]:
    """Photos whose label is another person's than their face are rejected."""
    named = [i for i, row in enumerate(rows) if row["verdict"] == ACCEPTED and row["person"] is not None]
    if not named:
        return rows
    rows, people = list(rows), [rows[i]["person"] for i in named]
    for k, found in strangers(unit(np.array([rows[i]["embedding"] for i in named])), people).items():
        rows[named[k]] = reject(rows[named[k]], f"resembles {found.resembles} more ({found.other:.3f}) than the other photos "
                                f"of {people[k]} ({found.own:.3f}): under a wrong name? curate.wrong_names is reject")
    if count := sum(rows[i]["verdict"] != ACCEPTED for i in named):
        log.info("curate: %d of %d labelled photos resemble somebody else more", count, len(named))
    return rows


def label(row: dict, curate: params.Curate) -> str | None:
    return None if curate.grouping == "embedding" else row["label"]


def persons(embeddings: list, threshold: float) -> list[str]:
    """Names `group-0001`, ... in the order in which persons first appear."""
    clusters = cluster(unit(np.array(embeddings)), threshold)
    names: dict[int, str] = {}
    return [names.setdefault(number, f"group-{len(names) + 1:04d}") for number in clusters.tolist()]


def cluster(faces: np.ndarray, threshold: float) -> np.ndarray:
    """Cluster numbers (N,) of unit vectors (N, D): two clusters join while their mean similarity is `threshold` or
    more.

    A join needs one pair at the threshold, so no cluster crosses the components of the graph of such pairs: each
    component is clustered alone, which gives the same result and keeps memory to the largest component.
    """
    radius = np.sqrt(max(2 - 2 * threshold, 0))
    graph = radius_neighbors_graph(faces, radius + 1e-9, mode="connectivity")
    count, component = connected_components(graph, directed=False)
    numbers, used = np.zeros(len(faces), int), 0
    for k in range(count):
        here = np.flatnonzero(component == k)
        average = AgglomerativeClustering(n_clusters=None, metric="cosine", linkage="average",
                                          distance_threshold=1 - threshold)
        inside = np.zeros(1, int) if len(here) == 1 else average.fit_predict(faces[here])
        numbers[here] = used + inside
        used += int(inside.max()) + 1
    return numbers


def few(rows: list[dict], minimum: int) -> list[dict]:
    count = Counter(row["person"] for row in rows if row["verdict"] == ACCEPTED)
    return [reject(row, f"only {count[row['person']]} usable photo(s) of this person, curate.minimum_per_person is "
                        f"{minimum}") if row["verdict"] == ACCEPTED and count[row["person"]] < minimum else row
            for row in rows]
