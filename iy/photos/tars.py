"""Photographs in WebDataset tars, as img2dataset writes them: `photos: {source: webdataset, path: FOLDER or FILE.tar}`,
here or in S3. Members that share a name up to its first dot are one sample: a picture, its caption, its JSON.

Nothing is unpacked to disk, and no name in a tar is ever used as a path.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath

from iy import params
from iy.errors import UserError, one_line
from iy.photos import kinds, persons, sidecar
from iy.photos.kinds import PICTURES
from iy.photos.photo import Photo, read_all, readable, unreadable
from iy.photos.shards import shards
from iy.photos.sidecar import Sidecars, speaks_of_rights
from iy.pictures import Unreadable, decode, taken
from iy.storage import sha256

BATCH = 16  # pictures that wait in memory
BROKEN = (tarfile.TarError, EOFError, OSError, ValueError)  # what tarfile says of bytes that are no tar
Members = dict[str, list[tarfile.TarInfo]]  # by sample, in the order of the samples' first


@dataclass
class Sample:
    """One picture's place, `tar/key`, its bytes, what its captions and JSON hold by extension, and the person of its
    folder; or why it is not used."""

    uri: str
    picture: bytes | None = None
    said: list[tuple[str, bytes]] = field(default_factory=list)
    person: str | None = None
    reason: str | None = None


def photos(settings: params.Photos, workers: params.Workers) -> Iterator[Photo]:
    """The tars' photos, tars by name, samples in their order."""
    if settings.path is None:
        raise UserError(
            "photos.source: webdataset needs photos.path: name a folder of tars, a tar, or s3://bucket/folder"
        )
    found = (sample for name, path in shards(settings.path) for sample in samples(path, name))
    return read_all(partial(read, settings), found, workers.count, batch=BATCH)


def samples(path: Path, name: str) -> Iterator[Sample]:
    """The samples of one tar, wherever in it their members lie; one that breaks off gives what is surely whole."""
    try:
        with tarfile.open(path, "r:") as tar:
            found, last, broken = listed(tar)
            if broken:  # what is missing may be a sidecar of the last
                found.pop(last, None)
            yield from gathered(tar, name, found, bool(broken))
            if broken:
                yield Sample(name, reason=f"the tar cannot be read after {len(found)} samples: {broken}")
    except BROKEN as error:
        yield Sample(name, reason=f"the tar cannot be read after 0 samples: {one_line(error)[:120]}")


def listed(tar: tarfile.TarFile) -> tuple[Members, str, str | None]:
    """A tar's members by sample, which of these came last, and why the tar breaks off where it does."""
    found: Members = {}
    key, broken = "", None
    try:
        while (member := tar.next()) is not None:
            tar.members = []  # pyright: ignore[reportAttributeAccessIssue]  # not in the stubs; it would keep them all
            if member.isdir() or passed_over(member.name):
                continue
            key = sidecar.folded(split(member.name)[0])
            found.setdefault(key, []).append(member)
        broken = unended(tar)
    except BROKEN as error:
        broken = one_line(error)[:120]
    return found, key, broken


def passed_over(name: str) -> bool:
    """What a Mac packs beside each file, and what is hidden."""
    return kinds.hidden(tuple(part for part in PurePosixPath(name).parts if part != ".."))


def unended(tar: tarfile.TarFile) -> str | None:
    """Why a tar has more than was read, of which tarfile is silent: it was cut between members, and no block of zeros
    closes it, or another was written behind it."""
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        return "unexpected end of data"
    while data := tar.fileobj.read(2**20):
        if data.count(0) != len(data):
            return "more follows its end; tars are joined by tar --concatenate, not by cat"
    return None


def gathered(tar: tarfile.TarFile, name: str, found: Members, cut: bool) -> Iterator[Sample]:
    """Each sample's pictures with what is said of them: mostly one; others carry their extension in their name. `cut`:
    the tar breaks off, and with it may have gone what is said of a picture without JSON."""
    parts = {key: [split(member.name)[1] for member in members] for key, members in found.items()}
    shown = {key: pictured(tar, members) for key, members in found.items()}
    pictures = {key: None for key, several in shown.items() if several}  # in their order
    lone = (f"{key}.json" for key, several in parts.items() if "json" in several and key not in pictures)
    beside = Sidecars((f"{key}.png" for key in pictures), lone, partial(speaks, tar, found))
    folders = [PurePosixPath(split(found[key][0].name)[0]).parts[:-1] for key in pictures]
    by_date = persons.dated(folders)
    persons.tell(folders, by_date, name)
    for key, members in found.items():
        said = statements(tar, [*found.get(sidecar.original(key) or "", []), *members])
        if key in pictures:
            said.reason = said.reason or doubt(beside, key)
        if cut and not any(part.endswith("json") for part in parts[key]):
            said.reason = "its sidecar may be in the part of the tar that is missing"
        for number, member in enumerate(shown[key] or members[:1]):
            yield photographed(tar, name, member, number, said, by_date)


def speaks(tar: tarfile.TarFile, found: Members, name: str) -> bool:
    """Whether JSON without a picture says something of licences or consents."""
    said = [one for one in found[name.removesuffix(".json")] if split(one.name)[1].endswith("json")]
    return any(one.size > sidecar.LONGEST or speaks_of_rights(contents(tar, one)) for one in said)


def doubt(beside: Sidecars, key: str) -> str | None:
    """Why it is not known what is said of a sample."""
    try:
        found = beside.of(f"{key}.png")
    except Unreadable as reason:
        return str(reason)
    return f"{found[0]} may speak of it: give both one name, up to the first dot" if found else None


def pictured(tar: tarfile.TarFile, members: list[tarfile.TarInfo]) -> list[tarfile.TarInfo]:
    """The sample's pictures: what is called so, else the first that is one by its first bytes."""
    called = [one for one in members if split(one.name)[1] in PICTURES]
    others = (one for one in members if one.isreg() and not is_statement(split(one.name)[1]))
    return called or list(islice((one for one in others if is_picture(tar, one)), 1))


def is_picture(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bool:
    try:
        return bool(image(tar, member))
    except Unreadable:
        return False


def statements(tar: tarfile.TarFile, members: list[tarfile.TarInfo]) -> Sample:
    """What a sample says of its pictures."""
    sample = Sample("")
    for member in members:
        key, kind = split(member.name)
        if (why := refused(member, key) or too_large(member, kind)) is not None:
            sample.reason = why
        elif is_statement(kind):
            data = contents(tar, member)
            if kind in ("txt", "json") or kind.partition(".")[0] in PICTURES or speaks_of_rights(kind.encode() + data):
                sample.said.append((f".{kind}", data))
    sample.said.sort(key=lambda one: (one[0].endswith(".json"), one[0] == ".json"))
    return sample


def is_statement(kind: str) -> bool:
    speaks = f".{kind}".endswith((*kinds.SIDECARS, *kinds.UNREAD))
    return speaks and (kind.endswith("json") or kind.count(".") < 2 or speaks_of_rights(kind.encode()))


def photographed(
    tar: tarfile.TarFile, name: str, member: tarfile.TarInfo, number: int, said: Sample, by_date: bool
) -> Sample:
    """One picture of a sample, or the row that says why there is none."""
    key, kind = split(member.name)
    uri = f"{name}/{key}" + (f".{kind}" if number else "")
    sample = Sample(uri, said=said.said, reason=said.reason)
    sample.person = persons.person(PurePosixPath(key).parts[:-1], by_date)
    if sample.reason is None and (kind in PICTURES or not is_statement(kind)):
        try:
            sample.picture = image(tar, member)
        except Unreadable as reason:
            sample.reason = str(reason) if kind in PICTURES else "the sample has no picture"
        except BROKEN as error:
            sample.reason = f"the tar cannot be read here: {one_line(error)[:120]}"
    return sample


def image(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """A picture, whatever it is called; of what is none only the first bytes are read."""
    file = tar.extractfile(member)
    data = taken(file, member.size) if file else b""
    if len(data) < member.size:
        raise EOFError("unexpected end of data")
    return data


def contents(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    data = file.read() if file else b""
    if len(data) < member.size:
        raise EOFError("unexpected end of data")
    return data


def too_large(member: tarfile.TarInfo, kind: str) -> str | None:
    if is_statement(kind) and member.size > sidecar.MAXIMUM_BYTES:
        return f"its {kind} file is larger than {sidecar.MAXIMUM_BYTES} bytes"
    return None


def refused(member: tarfile.TarInfo, key: str) -> str | None:
    """Why a member is not read at all. Nothing would come of its name here; but who wrote it meant no good."""
    if not member.isreg():
        return "a link, a device or the like: only files are read"
    if key.startswith("/") or ".." in PurePosixPath(key).parts:
        return "its name leads out of the tar"
    return None


def split(name: str) -> tuple[str, str]:
    """A member's name as WebDataset reads it: up to the first dot of its last part, and the rest."""
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").removeprefix("./")
    folder, slash, last = name.rpartition("/")
    key, _, kind = last.partition(".")
    return folder + slash + key, kind.lower()


def read(settings: params.Photos, sample: Sample) -> Photo:
    """One sample as a photo; whatever is wrong with it becomes the reason of a rejected row."""
    columns = {
        "id": sha256(sample.uri.encode()),
        "uri": sample.uri,
        "licence": settings.licence,
        "consent": settings.consent,
        "label": sample.person,
    }
    try:
        if sample.reason:
            raise Unreadable(sample.reason)
        if sample.picture is None:
            raise Unreadable("the sample has no picture")
        columns["id"] = sha256(sample.picture)  # first: it is known by it whatever its sidecar says
        columns |= sidecar.read(sample.said)
        return readable(decode(sample.picture, settings.maximum_pixels, settings.maximum_side), **columns)
    except Unreadable as reason:
        return unreadable(reason, **columns)
