"""The default rewriter: the lexicon's own words. Works on any caption; what it does not find, it adds at the end."""

import random
import re

from iy import lexicon

CHANGE = {
    "expression": 0.9,
    "pose": 0.8,
    "gaze": 0.5,
    "light": 0.5,
    "backdrop": 0.6,
}  # how often each is changed (choice)


def rewrite_by_grammar(caption: str, rng: random.Random) -> str:
    """The caption with another expression or head pose, often another gaze, light and backdrop; the person as
    before."""
    found = lexicon.find(caption)
    shot = new_shot({name: value for name, (value, _, _) in found.items()}, rng)
    text, added = caption.strip(), []
    offset = caption.find(text)
    spans = {name: (start - offset, end - offset) for name, (_, start, end) in found.items()}
    for name, (start, end) in sorted(spans.items(), key=lambda item: -item[1][0]):
        if name in shot:
            text = text[:start] + words(name, shot[name], rng) + text[end:]
        elif name == "gaze" and shot.get("expression") == "sleeping":
            text = without(text, start, end)  # closed eyes look nowhere
    for name, value in shot.items():
        if name not in spans:
            added.append(("in front of " if name == "backdrop" else "") + words(name, value, rng))
    text = text.rstrip(". ")
    return text[:1].upper() + text[1:] + "".join(f", {phrase}" for phrase in added) + "."


def new_shot(present: dict[str, str], rng: random.Random) -> dict[str, str]:
    """What to change: shot attribute -> another value than the present one; expression or pose is always among them."""
    chosen = [name for name, chance in CHANGE.items() if rng.random() < chance]
    if not {"expression", "pose"} & set(chosen):
        chosen.insert(0, rng.choice(["expression", "pose"]))
    shot = {
        name: rng.choice([value for value in lexicon.LEXICON[name] if value != present.get(name)]) for name in chosen
    }
    if shot.get("expression", present.get("expression")) == "sleeping":
        shot.pop("gaze", None)
    return shot


def words(name: str, value: str, rng: random.Random) -> str:
    """A phrase that says it, the clearest first: it must read back as the same value."""
    phrases = lexicon.LEXICON[name][value]
    good = [phrase for phrase in phrases if lexicon.find(phrase).get(name, ("",))[0] == value]
    return rng.choice(good or phrases[:1])


def without(text: str, start: int, end: int) -> str:
    """The text without this span and without the comma that joined it."""
    left, right = re.sub(r"[,\s]+$", "", text[:start]), re.sub(r"^[,\s]+", "", text[end:])
    joint = ", " if left and right and right[0].isalnum() else ""
    return left + joint + right
