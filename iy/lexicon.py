"""The controlled vocabulary shared by captions, prompt rewriting, probes and evaluation.

`describe` turns exact attributes into a varied caption; `find` reads attributes back out of any text. Left and right
are the *viewer's*: "head turned left" faces the left edge of the picture. A `*` in a phrase is the place of a colour
word that belongs to a companion attribute ("a * t-shirt" + "red").
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Protocol


class Random(Protocol):
    """What `describe` asks of its generator: numpy's `Generator` has it."""

    def integers(self, high: int, /) -> int: ...
    def random(self) -> float: ...


Phrases = dict[str, list[str]]

EXPRESSIONS: Phrases = {
    "neutral": ["a neutral expression", "a calm expression", "a relaxed face"],
    "smiling": ["a warm smile", "a closed-mouth smile", "smiling"],
    "laughing": ["laughing out loud", "a big open laugh", "laughing"],
    "surprised": ["a surprised look", "raised eyebrows and an open mouth", "surprised"],
    "angry": ["an angry frown", "a furious look", "angry"],
    "sad": ["a sad expression", "an unhappy look", "sad"],
    "winking": ["winking at us", "one eye winking", "winking"],
    "kissing": ["lips puckered for a kiss", "blowing a kiss", "kissing"],
    "disgusted": ["a disgusted sneer", "a nose wrinkled in disgust", "disgusted"],
    "sleeping": ["both eyes closed", "a sleeping face", "eyes shut"],
    "shouting": ["shouting with an open mouth", "yelling", "shouting"],
    "tongue out": ["sticking the tongue out", "tongue out", "poking out the tongue"],
}
POSES: Phrases = {
    "frontal": ["facing the camera", "head straight on", "a frontal view"],
    "left": ["head turned left", "facing left", "turned to the left"],
    "right": ["head turned right", "facing right", "turned to the right"],
    "up": ["head raised", "chin lifted", "facing upward"],
    "down": ["head lowered", "chin down", "facing downward"],
    "up-left": ["head turned up and left", "facing the upper left", "raised and turned to the left side"],
    "up-right": ["head turned up and right", "facing the upper right", "raised and turned to the right side"],
    "tilt-left": ["head tilted left", "head leaning to the left shoulder", "tilted to the left"],
    "tilt-right": ["head tilted right", "head leaning to the right shoulder", "tilted to the right"],
}
GAZES: Phrases = {
    "camera": ["looking at the camera", "eyes on the viewer", "looking at us"],
    "left": ["looking left", "eyes to the left", "gaze to the left"],
    "right": ["looking right", "eyes to the right", "gaze to the right"],
    "up": ["looking up", "eyes upward", "gaze to the sky"],
    "down": ["looking down", "eyes downward", "gaze to the floor"],
}
LIGHTS: Phrases = {
    "soft": ["in soft light", "evenly lit", "in diffuse light"],
    "left": ["lit from the left", "in light from the left", "with a lamp on the left"],
    "right": ["lit from the right", "in light from the right", "with a lamp on the right"],
    "dim": ["in dim light", "in a dark room", "at low light"],
    "warm": ["in warm sunset light", "at golden hour", "in orange evening light"],
    "cold": ["in cold blue light", "under moonlight", "in neon blue light"],
}
BACKDROPS: Phrases = {
    "white": ["a white backdrop", "a white wall", "a white background"],
    "black": ["a black backdrop", "a black wall", "a black background"],
    "red": ["a red backdrop", "a red wall", "a red background"],
    "yellow": ["a yellow backdrop", "a yellow wall", "a yellow background"],
    "green": ["a green backdrop", "a green wall", "a green background"],
    "blue": ["a blue backdrop", "a blue wall", "a blue background"],
    "purple": ["a purple backdrop", "a purple wall", "a purple background"],
    "beach": ["a beach", "the sea and sand", "a sandy shore"],
    "forest": ["a forest", "green trees", "the woods"],
    "city": ["a city at night", "city lights", "a skyline at night"],
    "bricks": ["a brick wall", "bricks", "old brickwork"],
    "stripes": ["a striped backdrop", "striped wallpaper", "vertical stripes"],
}
GARMENTS: Phrases = {
    "t-shirt": ["a * t-shirt", "a * tee", "a * crew-neck top"],
    "shirt": ["a * shirt with a collar", "a * button-down shirt", "a * collared shirt"],
    "turtleneck": ["a * turtleneck", "a * roll-neck sweater", "a * polo-neck jumper"],
    "tank top": ["a * tank top", "a * sleeveless top", "a * vest top"],
    "hoodie": ["a * hoodie", "a * hooded sweatshirt", "a * hooded top"],
    "suit": ["a * suit with a white shirt", "a * suit jacket", "a * blazer"],
}
GARMENT_COLOURS: Phrases = {c: [c] for c in ("white", "black", "red", "yellow", "green", "blue", "pink")}

GENDERS: Phrases = {
    "woman": ["woman", "lady"],
    "man": ["man", "gentleman"],
}
AGES: Phrases = {
    "young": ["young", "youthful"],
    "middle-aged": ["middle-aged", "mature"],
    "old": ["old", "elderly"],
}
SKINS: Phrases = {
    "fair": ["fair skin", "pale skin"],
    "light": ["light skin", "lightly tanned skin"],
    "tan": ["tan skin", "olive skin"],
    "brown": ["brown skin", "medium-dark skin"],
    "dark": ["dark skin", "deep brown skin"],
}
HAIR_STYLES: Phrases = {
    "bald": ["a bald head", "no hair", "a shaved head"],
    "receding": ["receding * hair", "thinning * hair"],
    "short": ["short * hair", "cropped * hair"],
    "quiff": ["* hair in a quiff", "swept-up * hair"],
    "afro": ["* hair in an afro", "big curly * hair"],
    "bob": ["* hair in a bob", "chin-length * hair"],
    "long": ["long * hair", "* hair past the shoulders"],
    "bun": ["* hair in a bun", "* hair tied up on top"],
}
HAIR_COLOURS: Phrases = {
    "black": ["black"],
    "brown": ["brown", "chestnut"],
    "blond": ["blond", "golden"],
    "red": ["red", "ginger"],
    "grey": ["grey", "silver"],
    "white": ["white"],
}
GLASSES: Phrases = {
    "none": ["no glasses", "no spectacles"],
    "glasses": ["glasses", "spectacles", "eyeglasses"],
}
BEARDS: Phrases = {
    "none": ["no beard", "a clean-shaven face"],
    "stubble": ["stubble", "a stubbly chin"],
    "moustache": ["a moustache", "a mustache"],
    "goatee": ["a goatee", "a chin beard"],
    "full beard": ["a full beard", "a thick beard"],
}

# What a name badge may say: short, common, and no two alike to the eye.
WORDS = (
    "HELLO", "LOVE", "PARIS", "TOKYO", "ROME", "HOPE", "PEACE", "SMILE", "SUN", "SEA", "STAR", "MOON",
    "CAT", "DOG", "FOX", "BEAR", "JAZZ", "ROCK", "CHEF", "TEAM", "YES", "COOL", "KIND", "LUCKY",
)  # fmt: skip

SHOT = ("expression", "pose", "gaze", "light", "backdrop", "garment", "garment_colour")
PERSON = ("gender", "age", "skin", "hair", "hair_colour", "glasses", "beard")
LEXICON: dict[str, Phrases] = {
    "expression": EXPRESSIONS,
    "pose": POSES,
    "gaze": GAZES,
    "light": LIGHTS,
    "backdrop": BACKDROPS,
    "garment": GARMENTS,
    "garment_colour": GARMENT_COLOURS,
    "gender": GENDERS,
    "age": AGES,
    "skin": SKINS,
    "hair": HAIR_STYLES,
    "hair_colour": HAIR_COLOURS,
    "glasses": GLASSES,
    "beard": BEARDS,
}
COLOUR_OF = {"garment": "garment_colour", "hair": "hair_colour"}


def describe(attributes: Mapping[str, str], rng: Random, person: bool = True) -> str:
    """A caption of at most 40 words or so that names every given shot attribute.

    attributes: attribute -> value as in `LEXICON`; any subset. Person attributes vary in how many are said; with
    `person=False` none is: "a portrait of a person ...". Closed eyes have no gaze, so none is named for "sleeping".
    """
    subject = _subject(attributes, rng) if person else "a person"
    say = {
        name: _phrase(name, attributes, rng) for name in SHOT if name in attributes and name not in COLOUR_OF.values()
    }
    if attributes.get("expression") == "sleeping":
        say.pop("gaze", None)
    if "garment" not in say and "garment_colour" in attributes:
        say["garment"] = f"{attributes['garment_colour']} clothes"
    return _sentence(subject, say, rng)


def find(text: str) -> dict[str, tuple[str, int, int]]:
    """Lexicon phrases in `text`: attribute -> (value, start, end), `text[start:end]` being the words that say it.

    The longest phrase wins where two overlap, then the first one for each attribute. A garment's or hair's span holds
    the colour word only where the phrase goes around it ("long black hair").
    """
    hits = []
    for name, value, pattern in _patterns():
        for match in pattern.finditer(text):
            hits.append((match.start("span"), match.end("span"), name, value, match))
    hits.sort(key=lambda hit: (hit[0] - hit[1], hit[0]))
    taken: list[tuple[int, int]] = []
    found: dict[str, tuple[str, int, int]] = {}
    for start, end, name, value, match in hits:
        if any(start < stop and begin < end for begin, stop in taken):
            continue
        taken.append((start, end))
        if name not in found or start < found[name][1]:
            found[name] = (value, start, end)
            colour = match.groupdict().get("colour")
            if colour:
                found[COLOUR_OF[name]] = (_colour_value(name, colour), *match.span("colour"))
    return found


def _pick(options: list[str], rng: Random) -> str:
    return options[int(rng.integers(len(options)))]


def _phrase(name: str, attributes: Mapping[str, str], rng: Random) -> str:
    phrase = _pick(LEXICON[name][attributes[name]], rng)
    if name in COLOUR_OF:
        colour = attributes.get(COLOUR_OF[name])
        words = _pick(LEXICON[COLOUR_OF[name]][colour], rng) if colour else ""
        phrase = " ".join(phrase.replace("*", words).split())
    return phrase


def _subject(attributes: Mapping[str, str], rng: Random) -> str:
    """The person in a few words: "a young woman with fair skin, long black hair and glasses"."""
    noun = _phrase("gender", attributes, rng) if "gender" in attributes else "person"
    if "age" in attributes and rng.random() < 0.8:
        noun = f"{_phrase('age', attributes, rng)} {noun}"
    extra = [
        _phrase(name, attributes, rng)
        for name, chance in (("skin", 0.5), ("hair", 0.85))
        if name in attributes and rng.random() < chance
    ]
    extra += [
        _phrase(name, attributes, rng)
        for name in ("beard", "glasses")
        if attributes.get(name, "none") != "none" and rng.random() < 0.9
    ]
    article = "an" if noun[0] in "aeiou" else "a"
    return f"{article} {noun}" + (f" with {_join(extra)}" if extra else "")


def _join(parts: list[str]) -> str:
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)


def _sentence(subject: str, say: dict[str, str], rng: Random) -> str:
    face = [say[name] for name in ("expression", "pose", "gaze") if name in say]
    if rng.random() < 0.5:
        face.reverse()
    clothes, place, light = (say.get(name) for name in ("garment", "backdrop", "light"))
    place = place and _pick(["in front of ", "against "], rng) + place
    wearing = clothes and _pick(["wearing ", "dressed in ", "in "], rng) + clothes
    kind = int(rng.integers(4))
    opening = ("a portrait of ", "a photo of ", "", "a close-up of ")[kind]
    if kind == 2 and (place or light):
        words = [place or light, subject, wearing, *face, light if place else None]
    elif rng.random() < 0.5:
        words = [subject, *face, wearing, place, light]
    else:
        words = [subject, wearing, place, light, *face]
    text = opening + ", ".join(word for word in words if word)
    return text[0].upper() + text[1:] + "."


@cache
def _patterns() -> list[tuple[str, str, re.Pattern[str]]]:
    colours = {name: "|".join(w for words in LEXICON[of].values() for w in words) for name, of in COLOUR_OF.items()}
    found = []
    for name, values in LEXICON.items():
        if name in COLOUR_OF.values():
            continue
        for value, phrases in values.items():
            for phrase in phrases:
                found.append((name, value, _pattern(phrase, colours.get(name, ""))))
    for colour in GARMENT_COLOURS:
        found.append(
            ("garment_colour", colour, re.compile(rf"\b(?P<span>{colour}) (?:clothes|clothing|outfit)\b", re.I))
        )
    return found


def _pattern(phrase: str, colours: str) -> re.Pattern[str]:
    """ "long * hair" matches with and without a colour; a leading article and "* " stay outside the span."""
    words = phrase.removeprefix("a ").removeprefix("an ") if "*" in phrase else phrase
    if words.startswith("* "):
        return re.compile(rf"\b(?:(?P<colour>{colours}) )?(?P<span>{re.escape(words[2:])})\b", re.I)
    body = re.escape(words).replace(r"\*\ ", rf"(?:(?P<colour>{colours}) )?")
    return re.compile(rf"(?<![\w-])(?P<span>{body})(?![\w-])", re.I)


def _colour_value(name: str, word: str) -> str:
    return next(value for value, words in LEXICON[COLOUR_OF[name]].items() if word.lower() in words)
