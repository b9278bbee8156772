"""The same in XMP, as IPTC's photo metadata asks for pictures that a model drew: a packet to write, and one read.

https://iptc.org/standards/photo-metadata/ (Digital Source Type); XMP: ISO 16684-1.
"""

import io
import re
from xml.sax.saxutils import quoteattr

from PIL import Image, PngImagePlugin

SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TRAINED = f"{SOURCE}trainedAlgorithmicMedia"
COMPOSED = f"{SOURCE}compositeWithTrainedAlgorithmicMedia"  # drawn pictures beside others
CHUNK = "XML:com.adobe.xmp"
FOUND = re.compile(rb"""DigitalSourceType(?:\s*=\s*["']|\s*>\s*)\s*(http[^"'<>\s]{1,200})""")
PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description
 rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 {attributes}/></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""


def packet(source: str, said: dict[str, str]) -> str:
    """XMP that says where the picture came from, and these properties, such as xmp:CreatorTool."""
    every = {"Iptc4xmpExt:DigitalSourceType": source} | said
    return PACKET.format(attributes=" ".join(f"{name}={quoteattr(value)}" for name, value in every.items()))


def chunks(xmp: str) -> PngImagePlugin.PngInfo:
    """What Pillow writes into a PNG beside its pixels."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt(CHUNK, xmp)
    return info


def source_type(data: bytes) -> str | None:
    """What a picture's XMP says of its source; None where it says nothing. Nothing of the XML is expanded."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            xmp = image.info.get("xmp") or image.info.get(CHUNK) or b""
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    found = FOUND.search(xmp.encode() if isinstance(xmp, str) else xmp)
    return found[1].decode("ascii", "replace") if found else None
