"""Train, validation and test by person: nobody is in two of them."""

import logging
from collections import Counter

from iy import params
from iy.curate.collection import Collection
from iy.errors import UserError
from iy.records import SPLITS
from iy.storage import sha256

SMALLEST = 4  # persons: two to train on, one each to validate and to test with
log = logging.getLogger(__name__)


def split(photos: Collection, curate: params.Curate, seed: int) -> None:
    """Give every accepted photo its `split`. Who goes where depends on `seed` and the person's name only."""
    kept = photos.kept()
    names = {photos.person[i] or "" for i in kept}
    order = sorted(names, key=lambda name: sha256(f"{seed}:{name}".encode()))
    test, validation = sizes(len(order), curate)
    kinds = ["test"] * test + ["validation"] * validation + ["train"] * (len(order) - test - validation)
    where = dict(zip(order, kinds, strict=True))
    count = Counter(where.values())
    log.info("curate: persons in %s", ", ".join(f"{name}: {count[name]}" for name in SPLITS))
    for i in kept:
        photos.split[i] = where[photos.person[i] or ""]


def sizes(people: int, curate: params.Curate) -> tuple[int, int]:
    """How many persons test and validate: as asked, but at most half of all, so that a small set still trains."""
    if people < SMALLEST:
        raise UserError(
            f"curate: {people} person(s) with {curate.minimum_per_person} or more usable photos, at "
            f"least {SMALLEST} are needed (2 to train, 1 to validate, 1 to test): add more people"
        )
    test, validation = curate.test_people, curate.validation_people
    if test + validation > people // 2:
        held = people // 2
        validation = max(1, held * validation // (test + validation))
        test = held - validation
        log.info(
            "curate: %d persons are too few for %d test and %d validation persons: %d and %d are held out",
            people,
            curate.test_people,
            curate.validation_people,
            test,
            validation,
        )
    return test, validation
