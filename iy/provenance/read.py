"""What a picture says of where it came from, and whether it was changed since it was signed. Nothing is fetched."""

import io
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iy import pictures
from iy.errors import UserError, one_line
from iy.params import Provenance
from iy.provenance import keys, xmp
from iy.provenance.watermark import missing, opened

READ = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "TIFF": "image/tiff", "GIF": "image/gif"}
READ |= {"HEIF": "image/heif", "AVIF": "image/avif"}  # what both Pillow and C2PA's library read
OFFLINE = {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True}
UNTRUSTED = "signingCredential.untrusted"
OWN, SIGNED, CHANGED, UNSIGNED = "own", "signed", "changed", "unsigned"
LONGEST = 2000  # characters that are shown of anything it says


@dataclass(frozen=True)
class Said:
    """state: own (signed by the key of these settings, unchanged), signed (by another, unchanged), changed (or damaged)
    or unsigned. faults: why it counts as changed. The rest is what the picture says; None where it says nothing.

    xmp: the source that the unsigned XMP names; watermark: whether ours is in the pixels, None where none can be read.
    """

    state: str
    faults: list[str]
    source: str | None = None
    model: str | None = None
    program: str | None = None
    time: str | None = None
    description: str | None = None
    signer: str | None = None
    xmp: str | None = None
    watermark: bool | None = None

    def json(self) -> dict[str, Any]:
        return asdict(self)


def read(path: Path, settings: Provenance, limits: pictures.Limits) -> Said:
    """What the picture at `path` says."""
    try:
        data = pictures.contents(path)
        kind = pictures.kind(data)
    except pictures.Unreadable as reason:
        raise UserError(f"{path}: {reason}: give a picture") from None
    if kind not in READ:
        raise UserError(f"{path}: a {kind} cannot carry a signed manifest: give a {', '.join(READ)}")
    rest = {"xmp": xmp.source_type(data), "watermark": watermarked(data, limits)}
    try:
        store, state = manifest(data, READ[kind], settings)
    except ValueError as fault:
        return Said(CHANGED, [clean(fault)], **rest)
    if store is None:
        return Said(UNSIGNED, [], **rest)
    failures = store["validation_results"]["activeManifest"]["failure"]
    faults = [clean(one.get("explanation") or one["code"]) for one in failures if one["code"] != UNTRUSTED]
    if state == "Invalid" or faults:
        state = CHANGED
    else:
        state = OWN if state == "Trusted" else SIGNED
    return Said(state, faults, **said(store["manifests"][store["active_manifest"]]), **rest)


def manifest(data: bytes, kind: str, settings: Provenance) -> tuple[dict | None, str | None]:
    """The manifest store with its validation, and its state; a `ValueError` where there is one that cannot be read."""
    import json

    import c2pa

    context = c2pa.Context.from_dict({"verify": OFFLINE} | anchors(settings))
    try:
        reader = c2pa.Reader.try_create(kind, io.BytesIO(data), context=context)
        if reader is None:
            return None, None
        with reader:
            return json.loads(reader.json()), reader.get_validation_state()
    except c2pa.C2paError as error:
        raise ValueError(one_line(error)) from None


def anchors(settings: Provenance) -> dict[str, Any]:
    """The certificates of these settings, as those that are trusted; nothing is made for it."""
    if settings.certificate is None and not keys.own_file().exists():
        return {}
    return {"trust": {"user_anchors": keys.signatory(settings).chain}}


def said(active: dict) -> dict[str, str | None]:
    """What a manifest says of how its picture was made."""
    made = next((one for one in actions(active) if one.get("action") == "c2pa.created"), {})
    program = (active.get("claim_generator_info") or [{}])[0]
    source = made.get("digitalSourceType")
    return {
        "source": clean(str(source).rpartition("/")[2]) if source else None,
        "model": named(made.get("softwareAgent")),
        "program": named(program),
        "time": clean(made["when"]) if "when" in made else None,
        "description": clean(made["description"]) if "description" in made else None,
        "signer": clean((active.get("signature_info") or {}).get("common_name") or "?"),
    }


def actions(active: dict) -> list[dict]:
    asserted = [one for one in active.get("assertions", ()) if str(one.get("label")).startswith("c2pa.actions")]
    found = [action for one in asserted for action in (one.get("data") or {}).get("actions") or ()]
    return [one for one in found if isinstance(one, dict)]


def named(agent: Any) -> str | None:
    """A program or model with its version, as C2PA writes them: a mapping, in older files a text."""
    if isinstance(agent, dict):
        agent = " ".join(str(agent[key]) for key in ("name", "version") if agent.get(key))
    return clean(agent) if agent else None


def clean(text: object) -> str:
    """Text of an unknown file on one line for a terminal, which control characters could steer."""
    shown = " ".join(str(text)[:LONGEST].split())
    return "".join("\ufffd" if unicodedata.category(letter)[0] == "C" else letter for letter in shown)


def watermarked(data: bytes, limits: pictures.Limits) -> bool | None:
    """Whether our watermark is there; None where it cannot be looked for."""
    if missing():
        return None
    try:
        return opened("cpu").found(np.asarray(pictures.decode(data, *limits)))
    except pictures.Unreadable:
        return None
