"""What the words of a licence or of a consent mean, however they are spelt."""

import re
import unicodedata

# The letters nc by themselves or after "by", and words that say: not for business, or nobody knows.
NOT_COMMERCIAL = re.compile(
    r"(?<![a-z])nc(?![a-z])|by[^a-z]*nc|(non|not?)( for| any)?[^a-z0-9]*commercial"
    r"|research|academic|educational|personal|evaluation only|unknown|unstated|not stated",
    re.IGNORECASE,
)
NOTHING = re.compile(r"[\s?.\-/]*|none|null|nan|n/?a|tbd|todo|undefined", re.IGNORECASE)
NOT_BEFORE = r"(?<!\bnot )(?<!\bnever )(?<!\bnot been )"  # "not withdrawn", "has never been revoked"
WITHDRAWN = re.compile(
    NOT_BEFORE + r"(?<!\bnever been )\b(withdr[ae]wn?|withdrawal|revoked?|revocation|rescinded|cancell?ed|retracted|"
    r"refused|denied|declined|rejected|objected|expired|pending|opt(ed|s)?[ -]?out)\b"
    r"|\b(not (yet )?(given|granted|obtained|signed|consented)|(no|without|missing) consent|"
    r"do(es)? not (use|consent)|don't use)\b",
    re.IGNORECASE,
)
NO = re.compile(r"no|none|false|never|0|n|nein|non|widerrufen|zurückgezogen|retiré|retirado|revocado", re.IGNORECASE)


def plain(words: str) -> str:
    """One spelling of each letter, hyphen and space: full-width letters, underscores and typographic dashes go."""
    letters = unicodedata.normalize("NFKC", words)
    dashes = "".join("-" if unicodedata.category(one) == "Pd" else one for one in letters)
    return " ".join(dashes.replace("_", " ").split())


def commercial(licence: str | None) -> bool:
    """Whether a licence allows business; one that nobody states, or that says nothing, does not."""
    words = plain(licence or "")
    return not (NOTHING.fullmatch(words) or NOT_COMMERCIAL.search(words))


def withdrawn(consent: str) -> bool:
    """Whether the words take the consent back, or say that there is none."""
    words = plain(consent)
    return any(NO.fullmatch(part.strip(" .!")) for part in words.split(";")) or bool(WITHDRAWN.search(words))
