"""The default rewriter: the lexicon's own words. Works on any caption; what it does not find, it adds at the end."""

import random
import re
from collections.abc import Sequence

from iy import lexicon
from iy.synpairs.asking import Request
from iy.synpairs.shot import new_shot, words


class Grammar:
    """Replaces the caption's own shot words by others from the lexicon; the words about the person stay as they are."""

    name = "grammar"

    def answer(self, requests: Sequence[Request]) -> list[str]:
        return [rewrite_by_grammar(request.caption, random.Random(request.seed)) for request in requests]


def rewrite_by_grammar(caption: str, rng: random.Random) -> str:
    """The caption with another expression or head pose, often other gaze, light and backdrop; the person as before."""
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


def without(text: str, start: int, end: int) -> str:
    """The text without this span and without the comma that joined it."""
    left, right = re.sub(r"[,\s]+$", "", text[:start]), re.sub(r"^[,\s]+", "", text[end:])
    joint = ", " if left and right and right[0].isalnum() else ""
    return left + joint + right
