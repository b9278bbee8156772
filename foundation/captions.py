"""Several captions of every render, for the parts that learn from words."""

import dataclasses
import os

import numpy as np
from tqdm import tqdm

from foundation.renders import Renders
from iy import lexicon, narration, params
from iy.narration import Caption
from iy.workers import each

STYLES = (None, None, narration.EXACT, narration.EXACT, narration.LONG, narration.SLOPPY)  # None: the lexicon's own


def caption(attributes: dict[str, str], word: str, style: narration.Style | None, seed: tuple[int, ...]) -> Caption:
    """Of the foundation's: there is lettering, but what it says is for later training to learn."""
    rng = np.random.default_rng(seed)
    if style is None:
        text = lexicon.describe(attributes, rng, person=bool(rng.integers(4)))
        return Caption(text, {name: value for name, (value, _, _) in lexicon.find(text).items()}, ())
    return narration.narrate(attributes, rng, style, None if word else "")


def captions(renders: Renders, mirror: bool = False) -> list[list[Caption]]:
    """One per style of every render; `mirror`: of what it shows in a mirror."""
    rows = renders.turned if mirror else renders.attributes
    jobs = [
        (row, word, (int(renders.person[i]), i, int(mirror)))
        for i, (row, word) in enumerate(zip(rows, renders.words, strict=True))
    ]
    return list(tqdm(each(styled, jobs, workers(), chunk=200), "captions", len(jobs)))


def styled(job: tuple[dict[str, str], str, tuple[int, ...]]) -> list[Caption]:
    row, word, seed = job
    return [caption(row, word, style, (*seed, k)) for k, style in enumerate(STYLES)]


def workers() -> params.Workers:
    return params.Workers(map="processes", count=os.cpu_count() or 1, address=None)


READ_STYLES = (narration.EXACT, narration.CAPTIONER, narration.LONG, narration.LONG, narration.SLOPPY)
SPOKEN = 4  # captions of a render that text encoders learn to read, beside the U-Net's


def read(renders: Renders) -> list[Caption]:
    """What the T5 and ByT5 kinds learn to read: incomplete, long and misspelt too, with words in quotes."""
    jobs = [(row, word, i) for i, (row, word) in enumerate(zip(renders.attributes, renders.words, strict=True))]
    return [one for some in tqdm(each(spoken, jobs, workers(), chunk=200), "captions", len(jobs)) for one in some]


def spoken(job: tuple[dict[str, str], str, int]) -> list[Caption]:
    row, word, i = job
    made = []
    for k in range(SPOKEN):
        rng = np.random.default_rng((i, k, 17))
        style = READ_STYLES[int(rng.integers(len(READ_STYLES)))]
        made.append(narration.narrate(row, rng, style, word or some_word(rng)))
    return made


def some_word(rng: np.random.Generator) -> str:
    """A word to be spelt: half of the time one of the studio's, else letters that nobody has put in this order."""
    if rng.random() < 0.5:
        return str(rng.choice(lexicon.WORDS))
    return "".join(str(letter) for letter in rng.choice(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), int(rng.integers(3, 6))))


PHOTO_STYLES = (
    narration.CAPTIONER,
    narration.CAPTIONER,
    dataclasses.replace(narration.CAPTIONER, lists=narration.ALL, person=False),
    dataclasses.replace(narration.LONG, face=0.5, wrong=0.05),
)
CAPTIONS_OF_PHOTOS = len(PHOTO_STYLES)


def of_photos(renders: Renders, rows: np.ndarray, mirror: bool) -> list[str]:
    """`CAPTIONS_OF_PHOTOS` of each row, as a captioner would write them."""
    shown = renders.turned if mirror else renders.attributes
    jobs = [(shown[row], renders.words[row], (int(renders.person[row]), int(mirror))) for row in rows]
    return [text for some in each(photographed, jobs, workers(), chunk=200) for text in some]


def photographed(job: tuple[dict[str, str], str | None, tuple[int, ...]]) -> list[str]:
    row, word, seed = job
    return [
        narration.narrate(row, np.random.default_rng((*seed, k)), style, word).text
        for k, style in enumerate(PHOTO_STYLES)
    ]
