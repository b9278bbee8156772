"""What another photo of the same person shows: attributes drawn from the lexicon, and the words that say them."""

import random

from iy import lexicon

# How often each is changed (choice).
CHANGE = {"expression": 0.9, "pose": 0.8, "gaze": 0.5, "light": 0.5, "backdrop": 0.6}


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
