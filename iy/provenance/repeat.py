"""The same signed picture for the same picture and key.

Around every assertion of a manifest C2PA's library puts a random salt, so that an assertion which is redacted later
cannot be guessed from its hash. Here the salts are computed from the private key and the manifest's label: whoever has
not the key cannot guess either, and drawing twice gives the same bytes, as reproducing a run needs. The hashes of the
salted assertions in the claim, and with them the signature, are then computed anew.

Boxes are those of ISO/IEC 19566-5 (JUMBF), hashes and salts those of C2PA 2.2 (8.4.2.3 and 6.4), the signature is
COSE_Sign1 (RFC 9052, 4.2 and 4.4).
"""

import hashlib
import hmac
import zlib
from collections.abc import Iterator

from iy.provenance.keys import Signatory

CHUNK = b"caBX"  # the PNG chunk that holds a manifest store
SALT = b"\x00\x00\x00\x18c2sh"  # the head of a box with 16 bytes of salt
COSE = b"\xd2\x84"  # a tagged COSE_Sign1: an array of four


def repeatable(png: bytes, label: str, signatory: Signatory) -> bytes:
    """A PNG that this signatory signed, with fixed salts. label: of its one manifest."""
    start, length = chunk(png)
    store = png[start : start + length]
    for number, (first, last) in enumerate(salted(store)):
        salt = hmac.digest(signatory.secret, f"{label} {number}".encode(), "sha256")[:16]
        place = store.index(SALT, first) + len(SALT)
        fixed = store[first:place] + salt + store[place + 16 : last]
        old, new = hashlib.sha256(store[first + 8 : last]).digest(), hashlib.sha256(fixed[8:]).digest()
        assert store.count(old) == 1, "the claim names each assertion once"
        store = (store[:first] + fixed + store[last:]).replace(old, new)
    store = signed(store, signatory)
    return png[:start] + store + zlib.crc32(CHUNK + store).to_bytes(4, "big") + png[start + length + 4 :]


def chunk(png: bytes) -> tuple[int, int]:
    """Where the manifest store's bytes begin, and how many they are."""
    place = 8
    while png[place + 4 : place + 8] != CHUNK:
        place += 12 + int.from_bytes(png[place : place + 4], "big")
    return place + 8, int.from_bytes(png[place : place + 4], "big")


def boxes(store: bytes) -> Iterator[tuple[int, int, int]]:
    """Of every box of boxes: where it begins, where its description ends, and where it ends; in their order."""
    waiting = [(0, len(store))]
    while waiting:
        place, end = waiting.pop()
        inner = []
        while place < end:
            last = place + int.from_bytes(store[place : place + 4], "big")
            assert place + 8 <= last <= end, "boxes fill the box around them"
            if store[place + 4 : place + 8] == b"jumb":
                about = place + 8 + int.from_bytes(store[place + 8 : place + 12], "big")
                yield place, about, last
                inner.append((about, last))
            place = last
        waiting += reversed(inner)


def salted(store: bytes) -> Iterator[tuple[int, int]]:
    return ((first, last) for first, about, last in boxes(store) if SALT in store[first:about])


def content(store: bytes, label: bytes) -> tuple[int, int]:
    """Where the CBOR of the one box lies whose label begins so."""
    [found] = [
        (about + 8, last) for first, about, last in boxes(store) if store[first + 33 : about].startswith(label)
    ]  # 33: the heads of the box and of its description, a UUID, and toggles stand before the label
    return found


def signed(store: bytes, signatory: Signatory) -> bytes:
    """The store with a signature of the claim as it now is."""
    first, last = content(store, b"c2pa.claim")
    claim = store[first:last]
    first, last = content(store, b"c2pa.signature")
    cose = store[first:last]
    assert cose.startswith(COSE), "C2PA signs by COSE_Sign1"
    protected = cose[len(COSE) : len(COSE) + item(cose[len(COSE) :])]
    structure = b"\x84\x6aSignature1" + protected + b"\x40" + head(len(claim)) + claim
    return store[: last - signatory.length] + signatory.sign(structure) + store[last:]


def head(length: int) -> bytes:
    """Of a CBOR byte string of 256 bytes or more (RFC 8949, 3)."""
    return b"\x59" + length.to_bytes(2, "big") if length < 1 << 16 else b"\x5a" + length.to_bytes(4, "big")


def item(cbor: bytes) -> int:
    """How many bytes the byte string takes that stands first, head and all; it has 256 or more, certificates."""
    wide = {0x59: 2, 0x5A: 4}[cbor[0]]
    return 1 + wide + int.from_bytes(cbor[1 : 1 + wide], "big")
