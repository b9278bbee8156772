"""Did a rewrite change what it should, and only that? Read with the lexicon, so only words it knows are seen."""

from typing import NamedTuple

from iy import lexicon

MUST_CHANGE = ("expression", "pose")
MAXIMUM_WORDS = 120


class Check(NamedTuple):
    changed: list[str]  # shot attributes whose value differs or is new, in the lexicon's order
    problem: str | None  # one clause, or None when the rewrite is good


def check_rewrite(source: str, rewritten: str) -> Check:
    """Expression or head pose must now have another value; what is said of the person must be neither changed nor
    added."""
    words = rewritten.split()
    if not words:
        return Check([], "it is empty")
    if len(words) > MAXIMUM_WORDS:
        return Check([], f"it has {len(words)} words, more than {MAXIMUM_WORDS}")
    before, after = values(source), values(rewritten)
    changed = [name for name in lexicon.SHOT if name in after and after[name] != before.get(name)]
    for name in lexicon.PERSON:
        if before.get(name) != after.get(name):
            return Check(
                changed,
                f"it changed the person: {name} {before.get(name, 'unsaid')} became {after.get(name, 'unsaid')}",
            )
    if not set(changed) & set(MUST_CHANGE):
        return Check(changed, "neither expression nor head pose changed")
    return Check(changed, None)


def values(text: str) -> dict[str, str]:
    """Lexicon attributes that the text names -> their values."""
    return {name: found[0] for name, found in lexicon.find(text).items()}
