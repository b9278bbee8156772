"""What the card reports: how well the studio's people can be told apart, and how well the foundation draws.

It is asked for combinations of attributes that no render had, and the probes read what it drew.
"""

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from iy import lexicon, params
from iy.diffusion import load_base
from iy.evaluate.probes import READS, Probes
from iy.generate import Cell, draw
from iy.model import ImagineYourselfPipeline

ASKED = ("expression", "pose", "backdrop", "garment", "garment_colour", "light")
IMAGES, STEPS, GUIDANCE, BATCH = 500, 16, 3.0, 50
PEOPLE, GALLERY = 600, 50  # compared all with all; and as the candidates of one search


def told_apart(box: np.ndarray, embedding: np.ndarray, shots: int) -> dict[str, float]:
    """Of photos in the order of their persons, `shots` each: box (N, 4), NaN where no face was found; embedding (N, D).

    A photo's rank is its person's among the `GALLERY` next ones, each standing for the mean of their (other) photos.
    """
    seen = np.isfinite(box[:, 0])
    person = np.repeat(np.arange(len(box) // shots), shots)
    some = seen & (person < PEOPLE)
    far = cdist(embedding[some], embedding[some])
    first, second = np.triu_indices(len(far), 1)
    same, distance = (person[some][first] == person[some][second]), far[first, second]
    ranks = [
        first_of_gallery(embedding[part], person[part])
        for start in range(0, person.max() + 1, GALLERY)
        if (part := seen & (person >= start) & (person < start + GALLERY)).any()
    ]
    return {
        "faces_found": round(float(seen.mean()), 4),
        "auc": round(float(roc_auc_score(same, -distance)), 4),
        "median_distance_same": round(float(np.median(distance[same])), 3),
        "median_distance_different": round(float(np.median(distance[~same])), 3),
        f"rank1_of_{GALLERY}": round(float(np.concatenate(ranks).mean()), 4),
    }


def first_of_gallery(embedding: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Whether each photo (N, D) is nearest to the mean of its person's other photos; people with one are left out."""
    _, who, count = np.unique(person, return_inverse=True, return_counts=True)
    total = np.stack([embedding[who == k].sum(0) for k in range(len(count))])
    far = cdist(embedding, total / count[:, None])
    rows = np.flatnonzero(count[who] > 1)
    others = (total[who[rows]] - embedding[rows]) / (count[who[rows]] - 1)[:, None]
    far[rows, who[rows]] = np.linalg.norm(embedding[rows] - others, axis=1)
    return far[rows].argmin(1) == who[rows]


def combinations(rendered: list[dict[str, str]], seed: int = 9) -> list[dict[str, str]]:
    """`IMAGES` random combinations of `ASKED` that none of the `rendered` pictures has."""
    known = {tuple(row[name] for name in ASKED) for row in rendered}
    rng, found = np.random.default_rng(seed), []
    while len(found) < IMAGES:
        row = {name: str(rng.choice(list(lexicon.LEXICON[name]))) for name in ASKED}
        if tuple(row.values()) not in known:
            found.append(row)
    return found


def measure(probes: Probes, rendered: list[dict[str, str]]) -> dict:
    """Share of the drawn images in which the probes read each attribute as asked, for the card."""
    settings = params.load("studio")
    base = load_base(settings.base)
    pipeline = ImagineYourselfPipeline.from_base(base, settings.model)
    asked, rng = combinations(rendered), np.random.default_rng(10)
    cells = [Cell(lexicon.describe(row, rng, person=False), None, seed) for seed, row in enumerate(asked)]
    images = []
    for start in tqdm(range(0, IMAGES, BATCH), "drawing"):
        images += draw(
            pipeline,
            cells[start : start + BATCH],
            steps=STEPS,
            guidance=GUIDANCE,
            identity_guidance=GUIDANCE,
            batch=BATCH,
        )
    seen = probes.read(images)
    share = {
        name: round(float(np.mean([a == row[name] for a, row in zip(seen[name], asked, strict=True)])), 4)
        for name in READS
    }
    return {
        "drawn_as_asked": share,
        "drawn_as_asked_how": f"{IMAGES} combinations no render had, {STEPS} steps, guidance {GUIDANCE}",
    }
