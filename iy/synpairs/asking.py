"""What a language model is asked about a caption, and what is taken of its reply."""

import random
import re
from typing import NamedTuple

from iy import lexicon
from iy.synpairs.shot import new_shot, words

REPLY_TOKENS = 100
SYSTEM = (
    "You edit captions of portraits. Keep every word about the person (gender, age, skin, hair, beard, glasses) and "
    "the clothes. Change only what you are told. Answer with the new caption alone."
)


class Request(NamedTuple):
    caption: str
    seed: int


def instruction(request: Request) -> str:
    """The caption and the new shot, drawn as the grammar draws it, in the lexicon's words."""
    rng = random.Random(request.seed)
    shot = new_shot({name: found[0] for name, found in lexicon.find(request.caption).items()}, rng)
    wanted = "; ".join(f"{name}: {words(name, value, rng)}" for name, value in shot.items())
    return f"Caption: {request.caption}\nChange the {wanted}.\nNew caption:"


def clean(reply: str) -> str:
    """The caption in a model's reply: its first sentence-like line, without labels, quotes, fences and list marks."""
    for line in reply.replace("```", "\n").splitlines():
        line = re.sub(
            r"^\s*(?:[-*•]|\d+[.)])?\s*(?:(?:the )?(?:new|rewritten)?\s*caption\s*:)?\s*", "", line, flags=re.I
        )
        line = " ".join(line.strip("\"'“”* ").split())
        if len(line.split()) >= 4 and not line.endswith(":"):
            return line
    return ""
