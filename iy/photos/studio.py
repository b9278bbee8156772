"""Portraits rendered in the studio: a stated number of people, each photographed several times; all is known."""

import json
from collections import Counter
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from iy import lexicon, params
from iy.photos.photo import Photo, readable
from iy.storage import png, sha256
from iy.studio import Person, Shot, render_many, sample_person, sample_shot

SHOTS_PER_PERSON = 1009  # shot seeds of one person start this far from the next one's
STRATA = 36  # gender x age x ancestry


def people(count: int, first: int) -> list[Person]:
    """`count` people with seeds from `first` up, skipping those whose gender, age and ancestry have their share."""
    chosen: list[Person] = []
    taken: Counter = Counter()
    seed = first
    while len(chosen) < count:
        person = sample_person(seed)
        stratum = person.gender, person.age, person.ancestry
        if taken[stratum] <= len(chosen) // STRATA:
            taken[stratum] += 1
            chosen.append(person)
        seed += 1
    return chosen


def shots(person: Person, count: int) -> list[Shot]:
    return [sample_shot(person.seed * SHOTS_PER_PERSON + k) for k in range(count)]


def photos(settings: params.Photos, workers: params.Workers) -> Iterator[Photo]:
    """The studio's photos in a stable order, person by person, with exact captions and attributes."""
    jobs = [
        (person, shot)
        for person in people(settings.people, settings.first_person)
        for shot in shots(person, settings.per_person)
    ]
    images = render_many(jobs, settings.size, workers)
    for (person, shot), image in zip(jobs, tqdm(images, "portraits", len(jobs), mininterval=1, delay=1), strict=True):
        yield portrait(person, shot, image, settings)


def portrait(person: Person, shot: Shot, image: np.ndarray, settings: params.Photos) -> Photo:
    """Half of the captions describe the person, half only say "a person": the reference must carry who it is."""
    attributes = person.attributes() | shot.attributes()
    rng = np.random.default_rng([person.seed, shot.seed])
    caption = lexicon.describe(attributes, rng, person=bool(rng.integers(2)))
    return readable(
        image,
        id=sha256(png(image)),
        uri=f"studio:{person.seed}/{shot.seed}",
        licence=settings.licence,
        consent=settings.consent,
        label=f"studio-{person.seed}",
        caption=caption,
        attributes=json.dumps(attributes, sort_keys=True),
    )
