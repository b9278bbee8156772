"""What lies beside a photo: `me.txt` or `me.jpg.txt`: its caption; `me.json`: caption, person, licence, consent.

Names are compared without case and Unicode's ways of writing a letter. A sidecar that may speak of a photo, but is not
called so that it is known, refuses the photo: it may have said that the photo must not be used.
"""

import codecs
import json
import logging
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

from iy import names
from iy.photos import kinds, said
from iy.pictures import Unreadable
from iy.spreadsheet import Pairs

MAXIMUM_BYTES = 65536
LONGEST = 2**26  # bytes of a table or JSON of many photos that is searched for words of licence
TOO_LARGE = f"its sidecar {{}} is larger than {MAXIMUM_BYTES} bytes"
BETWEEN = " _-(~+."  # what may stand between a photo's name and more: "me (1).json", "me_info.json"
SEVERAL = "metadata info dataset datasetinfo datasetinfos annotations index data images photos captions people".split()
SEVERAL += "persons labels files manifest list readme about".split()  # what is called so speaks of more than one photo
NUMBERED = re.compile(r"(.+)(\(\d+\))")
CUT = 40  # letters from which on a sidecar's name may be its photo's, cut off: Google Takeout's is at 46
# How copies that programs changed are called beside what they were made of, which alone has a sidecar.
EDITED = re.compile(
    r"(.+?)[-_ ](edited|effects|smile|mix|bearbeitet|modifié|modificato|edytowane|bewerkt|ha editado|editado|editat"
    r"|編集済み)(\(\d+\))?"
)
log = logging.getLogger(__name__)


class Sidecars:
    """Of a collection's files the sidecars, and whose they are; all by their paths in it. `speaks`: whether a file that
    is of no single photo says something of licences or consents."""

    def __init__(self, photos: Iterable[str], others: Iterable[str], speaks: Callable[[str], bool]):
        photos, others = list(photos), list(others)
        self.names: dict[str, list[str]] = {}  # of photos, with their suffix, by what they are without
        for photo in photos:
            self.names.setdefault(folded(stem(photo)), []).append(folded(photo))
        stems = set(self.names)
        known = stems | {folded(photo) for photo in photos}
        self.own: dict[str, list[str]] = {}
        self.doubts: dict[str, str] = {}  # a photo's stem -> what may speak of it
        pictures = (photo for photo in photos if not kinds.is_table(photo))
        self.folders = {folder for photo in pictures for folder in PurePosixPath(photo).parents}
        self.tables = {PurePosixPath(one).parent: one for one in sorted(others) if kinds.is_metadata(one)}
        orphans = []
        for file in sorted(one for one in others if one.casefold().endswith((*kinds.SIDECARS, *kinds.UNREAD))):
            owner = owned(file, known) or cut_off(file, stems)
            self.own.setdefault(owner, []).append(file) if owner else orphans.append(file)
        self.doubt(orphans, stems)
        wide = set(orphans).difference(self.doubts.values())
        wide |= {one for one in (*photos, *others) if kinds.is_table(one) and not kinds.is_metadata(one)}
        self.wide = {scope: one for one in sorted(wide) if (scope := self.scope(one)) in self.folders and speaks(one)}

    def scope(self, file: str) -> PurePosixPath | None:
        """Of which folder's photos a file may speak that is of no single one: ada.json of those in ada, a table or
        info.json of those that lie beside and below it, 7.json of none."""
        path = PurePosixPath(file)
        if not kinds.is_table(file) and path.suffix.casefold() != ".json":
            return None
        if path.with_suffix("") in self.folders:
            return path.with_suffix("")
        name = names.folded(path.stem)
        several = kinds.is_table(file) or name in (*SEVERAL, names.folded(path.parent.name))
        return path.parent if several or speaks_of_rights(name.encode()) else None

    def doubt(self, orphans: list[str], stems: set[str]) -> None:
        """Note what may speak of photos, and tell what speaks of none."""
        folders = {one.rpartition("/")[0] for one in stems}
        several: dict[str, list[str]] = {}
        for one in stems:
            several.setdefault(one.rpartition("/")[2], []).append(one)
        lone = {folded(stem(one)): one for one in orphans if one.casefold().endswith(".json")}
        for path, file in lone.items():
            folder, _, name = path.rpartition("/")
            apart = several.get(name, []) if folder not in folders else []
            for photo in apart or beginnings(path, stems) or begun(path, stems):
                self.doubts[photo] = file
        for photo in stems if lone else ():  # me_crop.jpg, where me.json is of no photo
            for path in beginnings(photo, lone):
                self.doubts[photo] = lone[path]
        doubtful = set(self.doubts.values())
        if unsure := [one for one in orphans if one not in doubtful]:
            log.warning("photos: %d sidecars are of no photo, such as %s", len(unsure), ", ".join(unsure[:3]))

    def of(self, photo: str) -> list[str]:
        """The photo's sidecars, text before JSON; one that may be, but is not known to be, refuses it."""
        for folder in PurePosixPath(photo).parents:
            if (file := self.wide.get(folder)) is not None:
                raise Unreadable(
                    f"{file} speaks of licences or consents, maybe of its own: say it in {stem(photo)}.json, or by "
                    f"photos.licence and photos.consent, or choose photos.source: table; then move {file} away"
                )
            if (table := self.tables.get(folder)) is not None:
                raise Unreadable(
                    f"{table} may speak of it: choose photos.source: table, or move {table} away if it is of no use"
                )
        if (file := self.doubts.get(folded(stem(photo)))) is not None:
            right = PurePosixPath(photo).with_suffix(".json")
            raise Unreadable(f"{file} may speak of it: call it {right} if it does, or move it away")
        first = original(folded(stem(photo))) or ""  # an edited copy has no sidecar itself
        called = [folded(stem(photo)), folded(photo), first, *self.names.get(first, [])]
        found = {file for name in called for file in self.own.get(name, [])}
        return sorted(found, key=lambda file: (file.casefold().endswith(".json"), len(file), file))


def stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def original(name: str) -> str | None:
    """The folded name, without suffix, of what a photo of that name is an edited copy of."""
    found = EDITED.fullmatch(name)
    return found and found[1] + (found[3] or "")


def owned(file: str, known: set[str]) -> str | None:
    """Which of the `known` photos a sidecar is of: me.json and me.jpg.json of me.jpg; of JSON me.jpg.info.json too, and
    me.jpg(1).json of me(1).jpg, as Google Takeout calls them."""
    path = folded(stem(file))
    if path in known or not (file.casefold().endswith(".json") or speaks_of_rights(PurePosixPath(file).name.encode())):
        return path if path in known else None
    if parts := NUMBERED.fullmatch(path):
        numbered = (one + parts[2] for one in shorter(parts[1]))
        if found := next((one for one in (*numbered, *shorter(parts[1])) if one in known), None):
            return found
    return next((one for one in shorter(path) if one in known), None)


def cut_off(file: str, stems: set[str]) -> str | None:
    """Which photo's long name a JSON file's surely is, cut off."""
    found = begun(folded(stem(file)), stems) if file.casefold().endswith(".json") else []
    return found[0] if len(found) == 1 else None


def begun(path: str, stems: Collection[str]) -> list[str]:
    """The photos whose long names `path` begins, wherever that ends."""
    if len(path.rpartition("/")[2]) < CUT:
        return []
    return [one for one in stems if one.startswith(path) and "/" not in one[len(path) :]]


def shorter(path: str) -> Iterator[str]:
    """A path, and what is left of it as its last parts after a dot go."""
    folder, slash, name = path.rpartition("/")
    while name:
        yield folder + slash + name
        name = name.rpartition(".")[0]


def beginnings(path: str, stems: Collection[str]) -> list[str]:
    """The longest of the names that `path` goes on from."""
    ends = (i for i in range(len(path) - 1, 0, -1) if path[i] in BETWEEN)
    return next(([path[:i].rstrip()] for i in ends if path[:i].rstrip() in stems), [])


def read(several: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """Columns that a photo's sidecars state, of which name and bytes are given; later ones go before. A wrong sidecar
    makes the photo unreadable: it may have said that the photo must not be used."""
    columns: dict[str, str] = {}
    for name, data in several:
        if name.casefold().endswith(kinds.UNREAD) or (is_text(name) and speaks_of_rights(name.encode())):
            refuse_unread(data, name)
            continue
        understand = caption if is_text(name) else fields
        columns = said.joined(columns, understand(text(data, name), name))
    return columns


def is_text(name: str) -> bool:
    return name.casefold().endswith(".txt")


def refuse_unread(data: bytes, name: str) -> None:
    """Refuse the photo for a file beside it that is not read, and has a word of licence or consent."""
    if speaks_of_rights(name.encode() + data):
        raise Unreadable(f"{name} speaks of its licence or consent, and is not read: say it in JSON instead")


def file_speaks(path: Path) -> bool:
    """`speaks_of_rights` of a file; of one that is too large or cannot be read nobody knows."""
    try:
        return path.stat().st_size > LONGEST or speaks_of_rights(path.read_bytes())
    except OSError:
        return True


def speaks_of_rights(data: bytes) -> bool:
    """Whether bytes of an unknown kind may say a licence or consent: as ASCII, or in two bytes a letter."""
    letters = data.replace(b"\0", b"").lower()
    return any(word in letters for word in (b"licen", b"consent", b"usageterms", b"webstatement"))


def caption(words: str, name: str) -> dict[str, str]:
    words = " ".join(words.split())
    return {"caption": words} if words else {}


def fields(words: str, name: str) -> dict[str, str]:
    where = f"its sidecar {name}"
    try:
        value = json.loads(words, object_pairs_hook=Pairs)
    except (ValueError, RecursionError):
        raise Unreadable(f"{where} is not valid JSON") from None
    if not isinstance(value, Pairs):
        raise Unreadable(f"{where} must hold a JSON object")
    return said.checked(said.understood(value.pairs, where), where)


def text(data: bytes, name: str) -> str:
    """UTF-8, or UTF-16 that begins with its mark, as Windows' editors save it."""
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable(f"its sidecar {name} is not UTF-8 text: save it as UTF-8") from None
