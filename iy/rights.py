"""What the words of a licence or of a consent mean, however they are spelt. They are read in English, and a few words
in other tongues; what is doubtful counts as refused, and the reason is told."""

import re
import unicodedata

NOT_COMMERCIAL = re.compile(
    r"(?<![a-z])nc(?![a-z])|by[^a-z]*n[^a-z]*c(?![a-z])|bync"
    r"|(non|not?)( for| any)?[^a-z0-9]*com+erc|noncom|nicht[^a-z]*kom+erz|(pas|sans|sin)\b.{0,20}com+erc"
    r"|research|academi|educat|student|evaluation|\btrial\b|personal|\bprivate|\binternal\b|editorial|fair use"
    r"|(non|not)[^a-z]*(for )?[^a-z]*profit|all rights reserved|(?<!un)restricted|prohibit|forbid"
    r"|(do|must) not|don't use|\bno (known )?(licen|permission)|not licen|unlicen[cs]ed|without (a )?(licen|permission)"
    r"|unknown|unstated|unclear|unspecified|not (stated|known|specified|given)",
    re.IGNORECASE,
)
NOTHING = re.compile(
    r"[\s?.\-/\d]*|none|null|nan|n\W?/?a\W?|tbd|tbc|todo|undefined|other|custom|various|mixed|yes|no|true|false"
    r"|see\b.*|copyright(ed)?|©",
    re.IGNORECASE,
)
NOT_BEFORE = r"(?<!\bnot )(?<!\bnever )(?<!\bnot been )"  # "not withdrawn", "has never been revoked"
WITHDRAWN = re.compile(
    NOT_BEFORE + r"(?<!\bnever been )\b(withdr[ae]wn?s?|withdrawal|revoke[ds]?|revocation|rescind(ed|s)?|cancell?ed"
    r"|retract(ed|s)?|refuse[ds]?|den(ied|ies)|decline[ds]?|reject(ed|s)?|object(ed|s|ions?)|taken? back|expired|lapsed"
    r"|void(ed)?|invalid|terminated|ended|stopped|blocked|forbidden|prohibited|pending|unsigned|opt(ed|s)?[ -]?out"
    r"|(erase|delete|remove)d?|erasure|deletion)\b"
    r"|\b(not (yet )?(given|granted|obtained|signed|consent(ed|ing)?|valid|permitted|allowed)|non[ -]?consen\w*"
    r"|(no|without|missing) (consent|permission|release|basis)|no longer"
    r"|do(es)? not (use|consent)|don't use|(can|must|may|should) ?not be used)\b",
    re.IGNORECASE,
)
NO = re.compile(
    r"no|nope|none|false|never|0|n|nein|non|widerrufen|zurückgezogen|retiré|retirado|ritirato|revocado|revocato",
    re.IGNORECASE,
)
WORDS_OF_ONE = re.compile(r"(?<=[a-z])(?=[A-Z])")  # WithdrawnBySubject


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
    words = WORDS_OF_ONE.sub(" ", plain(consent))
    parts = re.split("[;:=]", words)
    return any(NO.fullmatch(part.strip(" .!")) for part in parts) or bool(WITHDRAWN.search(words))


def barred(row: dict, usage: str) -> str | None:
    """Why a photo, or a pair made of one, must not be used for `usage`, whoever wants it."""
    if usage == "commercial" and not commercial(row["licence"]):
        return f"licence {row['licence']} does not allow usage: commercial"
    if not row["consent"]:
        return "no consent or other basis for using this face is stated"
    if withdrawn(row["consent"]):
        return f"consent {row['consent']}: the photo is not used"
    return None
