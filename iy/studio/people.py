"""People who do not exist: face shape, skin, hair, eyes, beard and glasses, sampled by seed."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

import numpy as np

from iy.studio.labels import LOCAL_CHANGES

Colour = tuple[float, float, float]  # sRGB, 0..1

ANCESTRIES = ("african", "asian", "caucasian", "african-caucasian", "asian-caucasian", "african-asian")
AGE_RANGE = {
    "young": (0.63, 0.70),
    "middle-aged": (0.77, 0.84),
    "old": (0.90, 0.98),
}  # anny's age: 2/3 is 25, 1 is 90 years
TONES = {"fair": (0.0, 0.2), "light": (0.2, 0.4), "tan": (0.4, 0.6), "brown": (0.6, 0.8), "dark": (0.8, 1.0)}
TONE_OF = {
    "african": (0.62, 1.0),
    "asian": (0.12, 0.55),
    "caucasian": (0.0, 0.42),
    "african-caucasian": (0.38, 0.78),
    "asian-caucasian": (0.05, 0.5),
    "african-asian": (0.42, 0.85),
}
HAIRS: dict[str, list[Colour]] = {
    "black": [(0.085, 0.075, 0.072), (0.12, 0.095, 0.085)],
    "brown": [(0.24, 0.14, 0.08), (0.34, 0.20, 0.11), (0.43, 0.28, 0.17)],
    "blond": [(0.76, 0.61, 0.40), (0.84, 0.72, 0.52), (0.66, 0.50, 0.32)],
    "red": [(0.52, 0.23, 0.12), (0.62, 0.32, 0.17)],
    "grey": [(0.50, 0.50, 0.51), (0.60, 0.60, 0.62)],
    "white": [(0.86, 0.86, 0.87), (0.93, 0.92, 0.90)],
}
IRISES: dict[str, Colour] = {
    "brown": (0.30, 0.17, 0.08),
    "dark": (0.20, 0.12, 0.075),
    "blue": (0.30, 0.52, 0.78),
    "green": (0.30, 0.50, 0.28),
    "grey": (0.52, 0.58, 0.62),
    "hazel": (0.48, 0.34, 0.14),
}
STYLES = {
    "woman": ("short", "bob", "bob", "long", "long", "long", "bun", "bun", "afro", "quiff"),
    "man": ("bald", "receding", "short", "short", "short", "quiff", "quiff", "afro", "long", "bun"),
}
BEARDS = ("none", "none", "stubble", "moustache", "goatee", "full beard")
# Standard deviation of anny's local face changes (-1..1) by the start of their names; others stay 0.
SPREAD = {
    "head-scale-vert": 0.22,
    "nose": 0.36,
    "chin": 0.40,
    "head-": 0.36,
    "forehead": 0.28,
    "cheek": 0.46,
    "eyebrows": 0.42,
    "mouth": 0.31,
    "eye-": 0.46,
    "ear-": 0.36,
    "neck-scale": 0.22,
    "neck-double": 0.3,
}
UNUSED = (
    "nose-trans-out",
    "mouth-trans-out",
    "head-angle",
    "head-trans",
    "head-age",
    "mouth-scale-depth",
    "eye-push",
    "neck-trans",
    "mouth-angles",
)  # lopsided, or mistaken for age, expression or pose


@dataclass(frozen=True)
class Person:
    """One made-up person. Numbers without a note are 0..1; lexicon values are the strings of `iy.lexicon`."""

    seed: int
    gender: str
    age: str
    ancestry: str
    phenotype: dict[str, float] = field(hash=False)  # anny's, 0..1
    local: dict[str, float] = field(hash=False)  # anny's local changes, -1..1
    tone: float  # 0 fair .. 1 dark
    skin: Colour
    blush: float
    freckles: float
    moles: tuple[tuple[float, float, float], ...]  # x, z, radius on the average face, metres
    wrinkles: float
    lips: Colour
    hair: str
    hair_colour: str
    hair_rgb: Colour
    hairline: float  # metres above the average hairline
    volume: float  # hair thickness, 1 is average
    parting: float  # metres to the viewer's right
    beard: str
    brow_height: float  # metres above average
    brow_thickness: float  # 1 is average
    brow_arch: float  # metres
    brow_slant: float  # rise per metre outward
    brow_length: float  # metres
    brow_rgb: Colour
    iris: Colour
    glasses: str  # "none" or "glasses"
    frame_rgb: Colour
    frame_shape: tuple[float, float, float]  # half width, half height (metres), squareness 2 round .. 5 square

    def attributes(self) -> dict[str, str]:
        """The person's lexicon values, keyed by `iy.lexicon.PERSON`. Bald people have no hair colour."""
        skin = next(name for name, (_, high) in TONES.items() if self.tone <= high)
        found = {
            "gender": self.gender,
            "age": self.age,
            "skin": skin,
            "hair": self.hair,
            "hair_colour": self.hair_colour,
            "glasses": self.glasses,
            "beard": self.beard,
        }
        if self.hair == "bald":
            del found["hair_colour"]
        return found

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Person":
        fields: dict[str, Any] = json.loads(text)
        fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        fields["moles"] = tuple(tuple(mole) for mole in fields["moles"])
        return cls(**fields)


def sample_person(seed: int) -> Person:
    """The person of this seed; gender, age and ancestry are equally likely."""
    rng = np.random.default_rng([seed, 7])
    strata = list(product(("woman", "man"), AGE_RANGE, ANCESTRIES))
    return _person(seed, rng, *strata[rng.integers(len(strata))])


def sample_people(count: int, seed: int) -> list[Person]:
    """`count` people, balanced: every 36 in a row hold each gender x age x ancestry once, in an order set by seed."""
    strata = list(product(("woman", "man"), AGE_RANGE, ANCESTRIES))
    people: list[Person] = []
    for start in range(0, count, len(strata)):
        order = np.random.default_rng([seed, start, 11]).permutation(len(strata))
        for k in order[: count - start]:
            own = int(np.random.SeedSequence([seed, len(people), 13]).generate_state(1)[0])
            people.append(_person(own, np.random.default_rng([own, 7]), *strata[k]))
    return people


def _person(seed: int, rng: np.random.Generator, gender: str, age: str, ancestry: str) -> Person:
    tone = float(rng.uniform(*TONE_OF[ancestry]))
    hair_colour = _hair_colour(rng, age, ancestry)
    hair_rgb = _near(rng, HAIRS[hair_colour][rng.integers(len(HAIRS[hair_colour]))], 0.12)
    brow = hair_rgb if age == "old" and rng.random() < 0.6 else _colour(0.62 * c for c in hair_rgb)
    bare_brow = (
        "dark"
        if tone > 0.6 or ancestry.endswith("asian")
        else ("brown", "dark", "blue", "green", "grey", "hazel")[rng.integers(6)]
    )
    wrinkles = {"young": 0.0, "middle-aged": 0.45, "old": 1.0}[age] * rng.uniform(0.6, 1.2)
    skin = skin_colour(tone, float(rng.normal(0, 1)))
    painted = gender == "woman" and rng.random() < 0.4
    lips = (
        tuple(0.72 * a + 0.28 * b for a, b in zip(_near(rng, (0.64, 0.16, 0.19), 0.3), skin, strict=True))
        if painted
        else _colour(s * k for s, k in zip(skin, (0.86, 0.63, 0.62), strict=True))
    )
    return Person(
        seed=seed,
        gender=gender,
        age=age,
        ancestry=ancestry,
        phenotype=_phenotype(rng, gender, age, ancestry),
        local=_local(rng, gender),
        tone=tone,
        skin=skin,
        blush=float(rng.random() ** 2 * (1 - 0.6 * tone)),
        freckles=float(rng.uniform(0.3, 1)) if rng.random() < (0.35 if tone < 0.4 else 0.08) else 0.0,
        moles=_moles(rng),
        wrinkles=float(wrinkles),
        lips=lips,
        hair=_hair_style(rng, gender, age),
        hair_colour=hair_colour,
        hair_rgb=hair_rgb,
        hairline=float(rng.uniform(-0.010, 0.010)),
        volume=float(rng.uniform(0.7, 1.5)),
        parting=float(rng.choice([-0.03, 0, 0.03])),
        beard=BEARDS[rng.integers(len(BEARDS))] if gender == "man" else "none",
        brow_height=float(np.clip(rng.normal(0, 0.0035), -0.006, 0.007)),
        brow_thickness=float(rng.uniform(0.45, 1.25) * (1.25 if gender == "man" else 1.0)),
        brow_arch=float(rng.uniform(-0.001, 0.010)),
        brow_slant=float(np.clip(rng.normal(-0.04, 0.07), -0.14, 0.08)),
        brow_length=float(rng.uniform(0.030, 0.046)),
        brow_rgb=brow,
        iris=_near(rng, IRISES[bare_brow], 0.15),
        glasses="glasses" if rng.random() < 0.25 else "none",
        frame_rgb=((0.05, 0.05, 0.06), (0.30, 0.12, 0.06), (0.55, 0.08, 0.10), (0.70, 0.58, 0.25), (0.12, 0.18, 0.40))[
            rng.integers(5)
        ],
        frame_shape=(
            float(rng.uniform(0.023, 0.028)),
            float(rng.uniform(0.016, 0.024)),
            float(rng.choice([2.0, 3.0, 5.0])),
        ),
    )


def skin_colour(tone: float, warmth: float = 0.0) -> Colour:
    """sRGB of a skin tone 0 fair .. 1 dark; warmth moves it between pink and olive (standard deviations)."""
    steps = np.array(
        [[0.92, 0.76, 0.67], [0.88, 0.70, 0.58], [0.82, 0.62, 0.46], [0.60, 0.41, 0.29], [0.37, 0.24, 0.17]]
    )
    base = np.array([np.interp(tone, np.linspace(0, 1, 5), steps[:, k]) for k in range(3)])
    return _colour(np.clip(base * (1 + warmth * np.array([0.012, -0.005, -0.028])), 0, 1))


def _colour(channels: Iterable[float]) -> Colour:
    red, green, blue = (float(c) for c in channels)
    return red, green, blue


def _near(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    """A colour whose brightness and channels vary by about `spread`."""
    scale = 1 + spread * rng.normal(0, 0.6) + spread * rng.normal(0, 0.3, 3)
    return _colour(np.clip(np.array(colour) * scale, 0.01, 0.98))


def _phenotype(rng: np.random.Generator, gender: str, age: str, ancestry: str) -> dict[str, float]:
    share = np.array([name in ancestry.split("-") for name in ("african", "asian", "caucasian")], float)
    share = share * rng.uniform(0.8, 1.2, 3) + rng.uniform(0, 0.12, 3)
    african, asian, caucasian = share / share.sum()
    base = rng.uniform(0.02, 0.18) if gender == "woman" else rng.uniform(0.82, 0.98)
    return dict(
        gender=1 - float(base),
        age=float(rng.uniform(*AGE_RANGE[age])),
        weight=float(rng.uniform(0.05, 0.92)),
        muscle=float(rng.uniform(0.1, 0.9)),
        african=float(african),
        asian=float(asian),
        caucasian=float(caucasian),
    )


def _local(rng: np.random.Generator, gender: str) -> dict[str, float]:

    found = {}
    for name in LOCAL_CHANGES:
        spread = next((s for start, s in SPREAD.items() if name.startswith(start)), 0.0)
        if spread and not any(part in name for part in UNUSED):
            found[name] = round(float(rng.uniform(-1, 1) * 3**0.5 * spread), 4)
    return found


def _moles(rng: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    count = int(rng.choice([0, 0, 0, 1, 1, 2]))
    return tuple(
        (float(rng.uniform(-0.05, 0.05)), float(rng.uniform(0.63, 0.78)), float(rng.uniform(0.0012, 0.0020)))
        for _ in range(count)
    )


def _hair_colour(rng: np.random.Generator, age: str, ancestry: str) -> str:
    if age == "old":
        return str(rng.choice(["grey", "white", "grey", "white", "brown", "black"]))
    if age == "middle-aged" and rng.random() < 0.2:
        return "grey"
    options = {
        "caucasian": ["brown", "brown", "blond", "blond", "red", "black"],
        "african-caucasian": ["black", "brown", "red", "blond"],
        "asian-caucasian": ["black", "brown", "brown", "red"],
    }.get(ancestry, ["black"] * 4 + ["brown", "blond"])
    return str(rng.choice(options))


def _hair_style(rng: np.random.Generator, gender: str, age: str) -> str:
    style = str(rng.choice(STYLES[gender]))
    return str(rng.choice(["bald", "receding"])) if gender == "man" and age == "old" and rng.random() < 0.35 else style
