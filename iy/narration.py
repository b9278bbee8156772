"""Captions as people and captioners write them: other words, other orders, incomplete, wrong, long, misspelt.

`iy.lexicon.describe` says everything in the lexicon's own words. Here a `Style` decides what is left out, what is said
wrongly, from which phrases, in how many words. Every caption comes with what it says, so that nobody must read it back.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from iy import lexicon
from iy.phrases import FILLER, HELD, SECOND

FACE = ("expression", "pose", "gaze", "light")  # what a captioner often leaves out
HEAD_WORDS = 62  # a long caption's tail begins after so many: beyond the 77 tokens that CLIP reads
LONG_WORDS = (60, 100)


@dataclass(frozen=True, kw_only=True)
class Style:
    """lists: phrases of these are used, at random; face: share of the captions that name each of `FACE`; wrong: share
    of these that are named wrongly; tail: the face is described beyond CLIP's reach, after sentences that say nothing;
    typos: share of the words with a mistake; person: whether the person is described.
    """

    lists: tuple[Mapping[str, lexicon.Phrases], ...]
    face: float
    wrong: float
    tail: bool
    typos: float
    person: bool


ALL = (lexicon.LEXICON, SECOND)
EXACT = Style(lists=ALL, face=1.0, wrong=0.0, tail=False, typos=0.0, person=True)
CAPTIONER = Style(lists=ALL, face=1 / 3, wrong=0.05, tail=False, typos=0.0, person=True)
LONG = Style(lists=ALL, face=1.0, wrong=0.0, tail=True, typos=0.0, person=True)
SLOPPY = Style(lists=ALL, face=1.0, wrong=0.0, tail=False, typos=0.08, person=False)
PARAPHRASED = Style(lists=(HELD,), face=1.0, wrong=0.0, tail=False, typos=0.0, person=False)


class Caption(NamedTuple):
    """said: attribute -> value as the words have it, right or wrong; late: those that only the tail names."""

    text: str
    said: dict[str, str]
    late: tuple[str, ...]


def narrate(attributes: Mapping[str, str], rng: np.random.Generator, style: Style, word: str | None = "") -> Caption:
    """A caption of these attributes (any subset of the lexicon's). word: what is written on the clothes, "" = nothing,
    None = something, but the caption does not say what.

    Attributes that none of the style's lists can say are left out.
    """
    said = told(attributes, rng, style)
    clause = {name: phrase(name, said, rng, style) for name in said if name in lexicon.SHOT}
    clause = {name: words for name, words in clause.items() if words}
    clause.pop("garment_colour", None)
    if "garment" in clause:
        clause["garment"] = str(rng.choice(["wearing ", "dressed in ", "in "])) + clause["garment"]
        clause["garment"] += lettering(word, rng)
    if "backdrop" in clause:
        clause["backdrop"] = str(rng.choice(["in front of ", "against ", "with "])) + clause["backdrop"]
    who = subject(said, rng, style) if style.person else "a person"
    if style.tail:
        text, late = long_text(who, clause, rng)
    else:
        text, late = short_text(who, clause, rng), ()
    return Caption(misspelt(text, rng, style.typos), said, late)


def lettering(word: str | None, rng: np.random.Generator) -> str:
    if word is None:
        return str(rng.choice([" with lettering on it", " with some writing", " and a lettered badge"]))
    return (
        str(rng.choice([' with the word "{}"', ' printed "{}"', ' and a badge saying "{}"'])).format(word)
        if word
        else ""
    )


def told(attributes: Mapping[str, str], rng: np.random.Generator, style: Style) -> dict[str, str]:
    """What the caption says: not all of the face, and now and then something else than the truth."""
    said = dict(attributes)
    for name in FACE:
        if name not in said:
            continue
        if rng.random() >= style.face:
            del said[name]
        elif rng.random() < style.wrong:
            said[name] = str(rng.choice([value for value in lexicon.LEXICON[name] if value != said[name]]))
    if said.get("expression") == "sleeping":
        said.pop("gaze", None)
    return said


def phrase(name: str, said: Mapping[str, str], rng: np.random.Generator, style: Style) -> str:
    """One way to say it; "" where the style has none."""
    options = [words for one in style.lists for words in one.get(name, {}).get(said[name], ())]
    if not options:
        return ""
    words = str(rng.choice(options))
    colour = said.get(lexicon.COLOUR_OF.get(name, ""), "")
    return " ".join(words.replace("*", colour).split())


def subject(said: Mapping[str, str], rng: np.random.Generator, style: Style) -> str:
    """The person in a few words; nothing, some or all of what is known is said."""
    if "gender" not in said or rng.random() < 0.3:
        return "a person"
    noun = phrase("gender", said, rng, style) or "person"
    if "age" in said and rng.random() < 0.7:
        noun = f"{phrase('age', said, rng, style)} {noun}" if said["age"] in lexicon.AGES else noun
    extra = [
        phrase(name, said, rng, style)
        for name, chance in (("skin", 0.4), ("hair", 0.7), ("beard", 0.7), ("glasses", 0.8))
        if said.get(name, "none") != "none" and rng.random() < chance
    ]
    extra = [words for words in extra if words]
    article = "an" if noun[0] in "aeiou" else "a"
    joined = " and ".join(part for part in (", ".join(extra[:-1]), *extra[-1:]) if part)
    return f"{article} {noun}" + (f" with {joined}" if joined else "")


def short_text(who: str, clause: Mapping[str, str], rng: np.random.Generator) -> str:
    """One sentence, the clauses in any order."""
    opening = str(rng.choice(["a portrait of ", "a photo of ", "", "a close-up of ", "picture of ", "we see "]))
    names = [str(name) for name in rng.permutation(list(clause))] if clause else []
    parts = [clause[name] for name in names]
    place = int(rng.integers(2)) if parts and not opening else 0  # "in front of a wall, a woman, smiling"
    return sentence(opening + ", ".join([*parts[:place], who, *parts[place:]]))


def long_text(who: str, clause: Mapping[str, str], rng: np.random.Generator) -> tuple[str, tuple[str, ...]]:
    """60 to 100 words: who, clothes and place first, sentences that say nothing, and the face only then."""
    late = [str(name) for name in rng.permutation([name for name in FACE if name in clause])]
    early = {name: words for name, words in clause.items() if name not in late}
    text, tail = short_text(who, early, rng), sentence(", ".join(clause[name] for name in late)) if late else ""
    for filler in rng.permutation(FILLER):
        if len(text.split()) >= HEAD_WORDS or len(f"{text} {filler} {tail}".split()) > LONG_WORDS[1]:
            break
        text += f" {filler}."
    return " ".join(part for part in (text, tail) if part), tuple(late)


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def misspelt(text: str, rng: np.random.Generator, share: float) -> str:
    """The text with two inner letters of some of its words swapped, or one left out. Quoted words stay."""
    if not share:
        return text

    def change(found: re.Match[str]) -> str:
        word = found.group()
        if len(word) < 5 or rng.random() >= share:
            return word
        at = int(rng.integers(1, len(word) - 2))
        if rng.random() < 0.5:
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        return word[:at] + word[at + 1 :]

    return re.sub(r"(?<![\"\w])[a-z]+(?![\"\w])", change, text)
