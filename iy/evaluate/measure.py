"""From looks at images to numbers per cell, and from those to metrics with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from iy.evaluate import identity
from iy.evaluate.bootstrap import Estimate, correlation, estimate, mean
from iy.evaluate.look import Look, Observer
from iy.evaluate.prompts import Subject
from iy.faces.face import reduced_image
from iy.metrics import COMPARED
from iy.params import Params
from iy.storage import read_image

RECOGNISERS = {"": "second", "_filter": "filter"}  # suffix of a name -> field of a look
Values = dict[str, np.ndarray]  # measure -> one number per cell, (N,) or (N, K)


@dataclass(frozen=True)
class Known:
    """What the photos say about one person. gallery: per recogniser the template of all photos but the reference."""

    reference: Look
    other: Look
    gallery: dict[str, np.ndarray]
    probes: list[Look]  # the gallery's photos at the model's size: what a perfect generator would draw


@dataclass(frozen=True)
class Gallery:
    """people: name -> Known; sharpness: median of real photos at the model's size, the unit of `sharpness`."""

    people: dict[str, Known]
    sharpness: float

    def templates(self, recogniser: str) -> dict[str, np.ndarray]:
        return {name: known.gallery[recogniser] for name, known in self.people.items()}


def know(subjects: Sequence[Subject], observer: Observer, settings: Params) -> Gallery:
    """Look at every photo of every subject once."""
    people = {}
    for subject in subjects:
        photos = [read_image(settings.photos_dir, row) for row in subject.gallery]
        looks = [observer.photo(image, row) for image, row in zip(photos, subject.gallery, strict=True)]
        gallery = {name: identity.template([getattr(look, name) for look in looks]) for name in RECOGNISERS.values()}
        reference = observer.photo(read_image(settings.photos_dir, subject.reference), subject.reference)
        small = observer.look_all([reduced_image(image, settings.base.image_size) for image in photos])
        people[subject.person] = Known(reference, looks[0], gallery, small)
    sharp = [look.sharpness for known in people.values() for look in known.probes if look.found]
    return Gallery(people, float(np.median(sharp)) if sharp else 1.0)


def face_values(looks: Sequence[Look], people: Sequence[str], gallery: Gallery) -> Values:
    """Per image: identity to reference and other photo, rank 1 and copy-paste by both recognisers, face, sharpness."""
    rows = []
    templates = {name: gallery.templates(name) for name in RECOGNISERS.values()}
    for look, person in zip(looks, people, strict=True):
        known = gallery.people[person]
        row = {"face_found": float(look.found), "sharpness": sharpness(look, gallery.sharpness)}
        for suffix, name in RECOGNISERS.items():
            g, r, t = (getattr(one, name) for one in (look, known.reference, known.other))
            row |= {
                "identity" + suffix: identity.cosine(g, r),
                "identity_other" + suffix: identity.cosine(g, t),
                "top1" + suffix: float(identity.identified(g, person, templates[name])),
                "copy_paste" + suffix: identity.copy_paste(g, r, t),
            }
        rows.append(row)
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def sharpness(look: Look, real: float) -> float:
    """0..1: the detector's score times sharpness relative to real photos, at most 1; 0 without a face."""
    return look.score * min(1.0, look.sharpness / max(real, 1e-9))


def real_values(subjects: Sequence[Subject], gallery: Gallery) -> list[Values]:
    """The same measures per person for their real photos: the ceiling. For copy-paste, t is then a third photo;
    for rank 1 the photo itself leaves the template."""
    found = []
    for subject in subjects:
        known = gallery.people[subject.person]
        if len(known.probes) < 2:
            continue
        rows = [real_photo(i, subject.person, gallery) for i in range(len(known.probes))]
        found.append({name: np.array([row[name] for row in rows]) for name in rows[0]})
    return found


def real_photo(i: int, person: str, gallery: Gallery) -> dict[str, float]:
    known = gallery.people[person]
    look, others = known.probes[i], [look for k, look in enumerate(known.probes) if k != i]
    row = {"face_found": float(look.found), "sharpness": sharpness(look, gallery.sharpness)}
    for suffix, name in RECOGNISERS.items():
        seen = [vector for other in others if (vector := getattr(other, name)) is not None]
        if not seen:
            return {}
        g, r, t = getattr(look, name), getattr(known.reference, name), seen[0]
        templates = gallery.templates(name) | {person: identity.template(seen)}
        row |= {
            "identity" + suffix: identity.cosine(g, r),
            "identity_other" + suffix: identity.cosine(g, t),
            "top1" + suffix: float(identity.identified(g, person, templates)),
            "copy_paste" + suffix: identity.copy_paste(g, r, t),
        }
    return row


def diversity(
    looks: Sequence[Look], people: Sequence[str], gallery: Gallery, seen: Mapping[str, Sequence[str]] | None
) -> dict[str, list[np.ndarray]]:
    """Per person, of images with a face. yaw_spread: standard deviation of the yaw over prompts and seeds, degrees;
    yaw_follows_reference: pairs (reference's yaw, output's); expression_spread: distinct expressions seen per image."""
    groups: dict[str, list[np.ndarray]] = {"yaw_spread": [], "yaw_follows_reference": []}
    if seen is not None and "expression" in seen:
        groups["expression_spread"] = []
    for person in gallery.people:
        own = [i for i, name in enumerate(people) if name == person]
        yaws = np.array([looks[i].yaw for i in own if looks[i].found])
        if len(yaws):
            groups["yaw_spread"].append(np.array([yaws.std()]))
            turned = gallery.people[person].reference.yaw
            groups["yaw_follows_reference"].append(np.stack([np.full(len(yaws), turned), yaws], 1))
        if seen is not None and "expression" in seen:
            groups["expression_spread"].append(np.array([len({seen["expression"][i] for i in own}) / len(own)]))
    return {name: values for name, values in groups.items() if values}


def metrics(
    values: Values, people: Sequence[str], spread: Mapping[str, list[np.ndarray]], rounds: int, seed: int
) -> dict[str, Estimate]:
    """Every measure with its interval."""
    found = {name: estimate(by_person(array, people), rounds, seed) for name, array in values.items()}
    for name, groups in spread.items():
        statistic = correlation if name == "yaw_follows_reference" else mean
        found[name] = estimate(groups, rounds, seed, statistic)
    return found


def gains(
    model: Values, other: Values, suffix: str, people: Sequence[str], rounds: int, seed: int
) -> dict[str, Estimate]:
    """One model minus another, cell by cell (same prompt, same noise)."""
    return {
        name + suffix: estimate(by_person(model[name] - other[name], people), rounds, seed)
        for name in COMPARED
        if name in model
    }


def by_person(values: np.ndarray, people: Sequence[str]) -> list[np.ndarray]:
    names = np.asarray(people)
    return [values[names == name] for name in dict.fromkeys(people)]
