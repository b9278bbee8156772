"""How a drawn picture leaves: as a PNG that says in a signed C2PA manifest, and in XMP, that a model drew it.

C2PA 2.2: https://c2pa.org/specifications/. Neither prompt nor face is said unless the settings ask for the prompt.
"""

import hashlib
import io
import json
import logging
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from PIL import Image

from iy import __version__
from iy.errors import UserError
from iy.params import Provenance
from iy.provenance import xmp
from iy.provenance.keys import Signatory, signatory
from iy.provenance.repeat import repeatable
from iy.provenance.watermark import Watermark, open_watermark
from iy.storage import png

log = logging.getLogger(__name__)
PICTURE = "image/png"
OFF = "pictures leave without a mark that a model drew them (provenance.mark is false): see docs/provenance.md"
# Signing is checked by who reads, and needs no network; pictures are small: a thumbnail of each would double them.
BUILDING = {"verify": {"verify_after_sign": False}, "builder": {"thumbnail": {"enabled": False}}}


@dataclass(frozen=True)
class Drawer:
    """The model that drew, as it is named in its pictures. version: of its weights."""

    name: str
    version: str


class Marker:
    """Makes PNGs of drawn pictures. Equal pictures, said the same of at the same time, give equal bytes."""

    def __init__(self, settings: Provenance, drawer: Drawer, signatory: Signatory, watermark: Watermark | None) -> None:
        import c2pa

        self.settings, self.drawer, self.signatory, self.watermark = settings, drawer, signatory, watermark
        self.version = __version__
        chain = signatory.chain.encode()
        self.signer = c2pa.C2paSignerInfo(signatory.algorithm.encode(), chain, signatory.secret, None)
        self.context = c2pa.Context.from_dict(BUILDING)

    def png(
        self, image: np.ndarray, when: datetime | None, prompt: str | None = None, source: str = xmp.TRAINED
    ) -> bytes:
        """A drawn picture, uint8 (H, W, 3), as a marked PNG. when: it was drawn; None is not said."""
        if self.watermark is not None:
            image = self.watermark.put(image)
        time = None if when is None else when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        said = self.manifest(source, time, prompt if self.settings.prompt else None)
        return self.sign(self.plain(image, source, time), said)

    def plain(self, image: np.ndarray, source: str, time: str | None) -> bytes:
        """The PNG with its XMP, unsigned."""
        said = {"xmp:CreatorTool": f"iy {self.version}"} | ({"xmp:CreateDate": time} if time else {})
        out, info = io.BytesIO(), xmp.chunks(xmp.packet(source, said))
        Image.fromarray(image).save(out, "PNG", compress_level=6, pnginfo=info)
        return out.getvalue()

    def sign(self, plain: bytes, said: dict[str, Any]) -> bytes:
        """The PNG with a manifest that says so; its two identifiers are computed from all that it stands for."""
        import c2pa

        key = hashlib.sha256(json.dumps([said, self.signatory.chain], sort_keys=True).encode() + plain).digest()
        label = f"urn:c2pa:{uuid.UUID(bytes=key[:16], version=4)}"
        instance = f"xmp:iid:{uuid.UUID(bytes=key[16:], version=4)}"
        builder = c2pa.Builder.from_json(said | {"label": label, "instance_id": instance}, self.context)
        out = io.BytesIO()
        with builder, c2pa.Signer.from_info(self.signer) as signer:
            builder.sign(signer, PICTURE, io.BytesIO(plain), out)
        return repeatable(out.getvalue(), label, self.signatory)

    def manifest(self, source: str, time: str | None, prompt: str | None) -> dict[str, Any]:
        """What is said: a model of this name and version made it, with this program, at this time."""
        made: dict[str, Any] = {
            "action": "c2pa.created",
            "digitalSourceType": source,
            "softwareAgent": {"name": self.drawer.name, "version": self.drawer.version},
        }
        if time is not None:
            made["when"] = time
        if prompt is not None:
            made["description"] = f"prompt: {prompt}"
        return {
            "claim_generator_info": [{"name": "iy", "version": self.version}],
            "format": PICTURE,
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [made]}}],
        }


class Unmarked:
    """Makes plain PNGs: what there is instead where provenance.mark is false."""

    def png(
        self, image: np.ndarray, when: datetime | None, prompt: str | None = None, source: str = xmp.TRAINED
    ) -> bytes:
        return png(image)


def open_marker(
    settings: Provenance, drawer: Callable[[], Drawer], device: str, watermark: bool = True
) -> Marker | Unmarked:
    """What drawn pictures leave through. drawer: asked where pictures are marked, for a version may take seconds.

    watermark: False for pictures that are measured: it would change what is measured.
    """
    if not settings.mark:
        log.warning(OFF)
        return Unmarked()
    put = open_watermark(settings, device) if watermark else None
    return Marker(settings, drawer(), signatory(settings), put)


def clock() -> datetime:
    """Now; or the time that SOURCE_DATE_EPOCH names, for bytes that repeat (reproducible-builds.org)."""
    return said_time() or datetime.now(UTC)


def said_time() -> datetime | None:
    """The time that SOURCE_DATE_EPOCH names, if it does."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if text is None:
        return None
    try:
        return datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError):
        raise UserError(f"SOURCE_DATE_EPOCH={text!r:.40} is not a number of seconds since 1970") from None
