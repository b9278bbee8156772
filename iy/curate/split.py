"""Train, validation and test by person: nobody is in two of them."""

import logging
from collections import Counter

from iy import params
from iy.curate.collection import Collection
from iy.errors import UserError
from iy.records import SPLITS
from iy.storage import sha256

TESTED = 2  # persons at least, and photos of each: a reference, another to compare with, a stranger to be confused with
SMALLEST = 3 + TESTED  # persons: two to train on, one to validate with, and those
log = logging.getLogger(__name__)


def split(photos: Collection, curate: params.Curate, seed: int) -> None:
    """Give every accepted photo its `split`. Who goes where depends on `seed` and the persons' names only; somebody
    with a single photo is tested last."""
    kept = photos.kept()
    owned = Counter(photos.person[i] or "" for i in kept)
    test, validation = sizes(owned, curate)
    order = sorted(owned, key=lambda name: sha256(f"{seed}:{name}".encode()))
    order.sort(key=lambda name: owned[name] < TESTED)
    kinds = ["test"] * test + ["validation"] * validation + ["train"] * (len(order) - test - validation)
    where = dict(zip(order, kinds, strict=True))
    count = Counter(where.values())
    log.info("curate: persons in %s", ", ".join(f"{name}: {count[name]}" for name in SPLITS))
    for i in kept:
        photos.split[i] = where[photos.person[i] or ""]


def sizes(owned: Counter[str], curate: params.Curate) -> tuple[int, int]:
    """How many persons test and validate: as asked, but at most half of all, so that a small set still trains."""
    enough(owned, curate.minimum_per_person)
    people, test, validation = len(owned), curate.test_people, curate.validation_people
    held = max(people // 2, TESTED + 1)
    if test + validation > held:
        validation = min(max(1, held * validation // (test + validation)), held - TESTED)
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


def enough(owned: Counter[str], minimum: int) -> None:
    """Raises: UserError where the later stages could not do their work: said here, before anything is trained."""
    if len(owned) < SMALLEST:
        raise UserError(
            f"curate: {len(owned)} person(s) with {minimum} or more usable photos, at least {SMALLEST} are needed "
            f"(2 to train with, 1 to validate with, {TESTED} to test with): add photos of {SMALLEST - len(owned)} "
            "more person(s)"
        )
    testable = sum(number >= TESTED for number in owned.values())
    if testable < TESTED:
        raise UserError(
            f"curate: {testable} person(s) with {TESTED} or more usable photos, at least {TESTED} are needed to test "
            "with: add photos of the persons who are there"
        )
