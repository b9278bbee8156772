"""What a sidecar, a sample's JSON or a row of a table says of its photo: one reading of names for every source.

A name counts without case, outer space, byte-order mark, spaces, hyphens and underscores: `Licence `, `LICENSE`. What
is said of licence or consent is never passed over: a name that is nearly one of these refuses the photo, two that say
different things are both kept, and a consent that was withdrawn ends it.
"""

import logging
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from iy import names, rights
from iy.pictures import Unreadable
from iy.spreadsheet import empty


class Withdrawn(Unreadable):
    """A photo is not used because its consent was taken back, in these words."""

    def __init__(self, where: str, consent: str):
        super().__init__(f"{where} says consent = {consent!r:.60}: the photo is not used")
        self.consent = consent


SPELLINGS = {
    "image": ("image",),
    "uri": ("uri", "file_name", "path"),
    "caption": ("caption", "text"),
    "label": ("person", "label", "person_name", "person_id", "identity"),
    "licence": ("licence", "license", "licences", "licenses", "licence_name", "license_name", "licence_type")
    + ("license_type", "licence_url", "license_url", "licensing", "licencing", "lizenz", "licencia", "licenza"),
    "consent": ("consent", "consents", "consent_status", "consent_basis", "einwilligung", "consentement"),
    "sha256": ("sha256",),
}
MEANING = {names.folded(spelling): ours for ours, several in SPELLINGS.items() for spelling in several}
RIGHTS = ("licence", "consent")
OTHERS = ("content", "contents", "silence", "science")  # words of their own, though nearly one of ours
OTHER_WORDS = dict.fromkeys("rights usagerights rightsholder usageterms termsofuse terms permission".split(), "licence")
OTHER_WORDS |= dict.fromkeys(
    "permissions optout optedout withdrawn revoked donotuse release modelrelease".split(), "consent"
)
WORDS = {"caption": "caption", "label": "person", "licence": "licence", "consent": "consent"}
LONGEST = 65536  # characters of what is said under one name
log = logging.getLogger(__name__)


@lru_cache(4096)
def meaning(name: str) -> str | None:
    """Our name for what stands under `name`; None for what is of no use here."""
    return MEANING.get(names.folded(name))


@lru_cache(4096)
def doubtful(name: str) -> str | None:
    """Which of our names `name` nearly is, without being it."""
    own = names.folded(name)
    if own in MEANING or own in OTHERS:
        return None
    for word, ours in (("licen", "licence"), ("consent", "consent")):
        if word in own:
            return ours
    if own in OTHER_WORDS:
        return OTHER_WORDS[own]
    close = names.near(name, MEANING) if len(own) > 4 else []
    return min((MEANING[one] for one in close), key=lambda ours: ours not in RIGHTS, default=None)


def understood(pairs: Iterable[tuple[str, Any]], where: str) -> dict[str, Any]:
    """What is said by our names, of what is filled in; of several spellings the first in `SPELLINGS` counts, and of
    licences and consents all. `where` names the sidecar or row in messages."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for name, value in pairs:
        if empty(value):
            continue
        if (ours := meaning(name)) is not None:
            found.setdefault(ours, []).append((rank(ours, name), value))
        elif (ours := doubtful(name)) is not None and value is not False:
            tell(name, ours, where)
        elif isinstance(value, dict | list):
            refuse_hidden(value, name, where)
    return {ours: together(ours, [value for _, value in sorted(several, key=first)]) for ours, several in found.items()}


def first(one: tuple[int, Any]) -> int:
    return one[0]


def rank(ours: str, name: str) -> int:
    return [names.folded(one) for one in SPELLINGS[ours]].index(names.folded(name))


def together(ours: str, values: list[Any]) -> Any:
    """One value of several. Those of licence and consent that differ all stand, so that the strictest is heard."""
    if ours not in RIGHTS or not all(isinstance(value, str) for value in values):
        return next((value for value in values if ours in RIGHTS and not isinstance(value, str)), values[0])
    return "; ".join(dict.fromkeys(names.clean(value) for value in values))


def tell(name: str, ours: str, where: str) -> None:
    """Refuse the photo when the name may speak of its licence or consent; say that another is passed over."""
    word = WORDS.get(ours, ours)
    if ours in RIGHTS:
        raise Unreadable(f"{where} says {name!r:.60}, which is nearly {word}: call it {word}, or take it out")
    warn_once(f"{name!r:.60} is not read ({where}): if it is the {word}, call it {word}")


@lru_cache(256)
def warn_once(text: str) -> None:
    log.warning("photos: %s", text)


def refuse_hidden(value: Any, outer: str, where: str) -> None:
    """Refuse what says a licence or consent further in, where it is not known of what it speaks."""
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, list):
            waiting += [one for one in inner if isinstance(one, dict | list)]
            continue
        for name, one in inner.items():
            if (meaning(name) or doubtful(name)) in RIGHTS and not empty(one):
                raise Unreadable(f"{where} says {name!r:.60} inside {outer!r:.60}: put it outside, beside the caption")
            if isinstance(one, dict | list):
                waiting.append(one)


def checked(said: dict[str, Any], where: str) -> dict[str, str]:
    """The photo's columns among what is said: text, in one spelling. A person may be a number."""
    stated = {ours: said[ours] for ours in WORDS if ours in said}
    if isinstance(number := stated.get("label"), int) and not isinstance(number, bool):
        stated["label"] = str(number)
    for ours, words in stated.items():
        if not isinstance(words, str):
            raise Unreadable(f"{where} says {WORDS[ours]} = {words!r:.40}: it must be text")
        if len(words) > LONGEST:
            raise Unreadable(f"{where} says {WORDS[ours]} in {len(words)} characters: more than {LONGEST}")
    if rights.withdrawn(stated.get("consent", "given")):
        raise Withdrawn(where, names.clean(stated["consent"]))
    return {ours: names.clean(words) for ours, words in stated.items()}


def joined(columns: dict[str, str], more: dict[str, str]) -> dict[str, str]:
    """`columns` with what another place says of the same photo: it goes before, but no licence or consent is lost."""
    both = {ours: together(ours, [columns[ours], more[ours]]) for ours in RIGHTS if ours in columns and ours in more}
    return {**columns, **more, **both}
