"""Untrusted files to upright sRGB pixels, or one clear reason why not: the one decoder for every entrance."""

import io
import re
import stat
import struct
import threading
import warnings
import zlib
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pillow_heif
from PIL import Image, ImageCms, UnidentifiedImageError

from iy.errors import one_line
from iy.storage import LFS_POINTER

HEAD = 512  # bytes of a file that say what it is
LARGEST = 256 * 2**20  # bytes of a file; what is larger is no photograph, and is never read
GAP = 3  # a JPEG is decoded at no less than this times the wanted side, then reduced with care
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # one channel of more than 8 bits
ORIENTATION = 0x0112  # its number in EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# How files begin. A closed list: some of PIL's other kinds (EPS, WMF) start programs.
BEGINNINGS = {
    b"\xff\xd8\xff": "JPEG",  # a telephone's MPO too
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    b"BM": "BMP",
    **dict.fromkeys((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf"), "PPM"),
}
# TGA begins with numbers only: a colour map or none, how it is packed, width and height, bits of a pixel.
TGA = re.compile(rb".[\0\1][\1-\3\x09-\x0b].{9}(?!\0\0)..(?!\0\0)..[\1\x08\x10\x18\x20]", re.DOTALL)
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2")
AVIF_BRANDS = (b"avif", b"avis")

pillow_heif.register_heif_opener()
Image.init()
warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd files: they are judged here
OPENING = threading.Lock()  # PIL's limit of pixels, which is switched off while one is opened, belongs to all threads
SRGB = ImageCms.createProfile("sRGB")
TEXTS = (b"tEXt", b"zTXt", b"iTXt")  # of a PNG
ORIENTING = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")  # such texts that may say which way is up
SHORT = 2**16  # bytes of one
PROFILE = 2**24  # bytes of an unpacked colour profile
EVERY_COLOUR = Image.fromarray(
    np.stack(np.meshgrid(*[np.arange(0, 256, 51, dtype=np.uint8)] * 3), -1).reshape(6, 36, 3)
)


class Unreadable(Exception):
    """Why a file is not a photo that can be used."""


class Limits(NamedTuple):
    """What may be decoded of one picture: that many pixels, reduced to a longer side of at most `side`."""

    pixels: int
    side: int


def contents(path: Path) -> bytes:
    """A picture file's bytes. Of a film or a pipe they are not read."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable("not a regular file")
        with open(path, "rb") as file:
            return taken(file, found.st_size)
    except OSError as error:
        raise Unreadable(f"the file cannot be read: {error.strerror}") from None


def taken(file: IO[bytes], size: int) -> bytes:
    """The `size` bytes of an open file; of what is no picture, or too large for one, only the first are read."""
    head = file.read(min(HEAD, size))
    if head:
        kind(head)
    refuse_large(size)
    return head + file.read(size - len(head))


def refuse_large(size: int) -> None:
    if size > LARGEST:
        raise Unreadable(f"{size} bytes: too large for a photograph, which has at most {LARGEST}")


def decode(data: bytes, maximum_pixels: int, maximum_side: int) -> np.ndarray:
    """The main picture of an image file, upright, as uint8 sRGB (H, W, 3), longer side at most `maximum_side`."""
    if not data:
        raise Unreadable("the file is empty")
    refuse_large(len(data))
    name, profile = kind(data), None
    if name == "PNG":
        data, profile = without_texts(data)
    image = opened(data, name)
    try:
        refuse_wide(image, name == "JPEG" and held_whole(data), maximum_pixels, maximum_side)
        return pixels(image, maximum_side, profile)
    except Unreadable:
        raise
    except Exception as error:  # decoders of broken files raise nearly every kind
        raise Unreadable(f"broken {image.format} image: {one_line(error)}") from None


def kind(data: bytes) -> str:
    """The format that a file's first bytes announce, whatever its name says."""
    if data[4:8] == b"ftyp":  # also how films begin
        brands = {data[at : at + 4] for at in range(8, min(int.from_bytes(data[:4], "big"), 256), 4)}
        if not brands.isdisjoint(AVIF_BRANDS):
            return "AVIF"
        if not brands.isdisjoint(HEIF_BRANDS):
            return "HEIF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    for beginning, name in BEGINNINGS.items():
        if data.startswith(beginning):
            return name
    if TGA.match(data):
        return "TGA"
    if data.startswith(LFS_POINTER):
        raise Unreadable("a Git LFS pointer, not the image itself: run git lfs pull where it was cloned")
    raise Unreadable("not an image, or of a kind that is not read")


def opened(data: bytes, name: str) -> Image.Image:
    """The image with only its header read, at its main picture: of a HEIC the primary, else the first frame."""
    with OPENING:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # `refuse_wide` knows what will be decoded
        try:
            return Image.open(io.BytesIO(data), formats=[name])
        except UnidentifiedImageError:
            raise Unreadable(f"broken {name} image: its header cannot be read") from None
        except Exception as error:
            raise Unreadable(f"broken {name} image: {one_line(error)}") from None
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def refuse_wide(image: Image.Image, held: bool, maximum_pixels: int, maximum_side: int) -> None:
    """Judge what memory will hold: of a JPEG, which is reduced while it is decoded, less than its size says; but not
    where its decoder has to hold it whole."""
    whole, share = image.size, GAP * maximum_side / max(image.size)
    image.draft(None, (max(1, int(whole[0] * share)), max(1, int(whole[1] * share))))
    width, height = whole if held else image.size
    if width * height > maximum_pixels:
        raise Unreadable(f"{width} x {height} pixels to decode, photos.maximum_pixels is {maximum_pixels}")


def held_whole(jpeg: bytes) -> bool:
    """Does a JPEG's decoder hold it all before there are pixels? One that is not written from top to bottom in one
    scan of all its colours, a few hundred bytes of which may claim four gigapixels; or is too odd to tell."""
    at, colours = 2, 0
    while at + 10 <= len(jpeg) and jpeg[at] == 0xFF:
        marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker in (0xC0, 0xC1):  # a frame, sequential
            colours = jpeg[at + 9]
        elif marker == 0xDA:  # a scan
            return not 0 < colours <= jpeg[at + 4]
        elif marker not in (0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE):  # neither tables nor what programs say
            return True
        at += 2 + length
    return True


def without_texts(png: bytes) -> tuple[bytes, bytes | None]:
    """A PNG without its texts and colour profile, and the profile: PIL refuses a picture for the length of those."""
    whole, profile, at = memoryview(png), None, 8
    kept = [whole[:8]]
    while at + 12 <= len(png):
        length, name = struct.unpack_from(">I4s", png, at)
        body, end = png[at + 8 : at + 8 + length] if name in (*TEXTS, b"iCCP") else b"", at + 12 + length
        if name == b"iCCP":
            profile = unpacked(body)
        elif name not in TEXTS or (length < SHORT and body.startswith(ORIENTING)):
            kept.append(whole[at:end])
        at = end
    kept.append(whole[at:])
    return png if sum(map(len, kept)) == len(png) else b"".join(kept), profile


def unpacked(chunk: bytes) -> bytes | None:
    """The profile in a PNG's chunk of a name, how it is packed and the packed bytes; None where broken or endless."""
    unpack = zlib.decompressobj()
    try:
        profile = unpack.decompress(chunk.partition(b"\0")[2][1:], PROFILE)
    except zlib.error:
        return None
    return None if unpack.unconsumed_tail else profile


def pixels(image: Image.Image, maximum_side: int | None = None, profile: bytes | None = None) -> np.ndarray:
    """An opened image as upright uint8 sRGB (H, W, 3). maximum_side: None is as large as it is; profile: of its
    colours, where the image itself does not say."""
    image.load()
    turn, profile = TURNS.get(orientation(image) or 1), profile or image.info.get("icc_profile")
    if image.mode in DEEP:
        image = eight_bits(image)
    elif image.has_transparency_data:
        image = on_white(image)
    elif image.mode in ("1", "P"):  # their numbers are names of colours: no mean can be taken
        image = image.convert("RGB")
    if maximum_side is not None:
        image.thumbnail((maximum_side, maximum_side), Image.Resampling.LANCZOS, reducing_gap=GAP)
    image = in_srgb(image, profile)
    return np.asarray(image if turn is None else image.transpose(turn))


def orientation(image: Image.Image) -> int | None:
    """What its EXIF or XMP says of which way is up; where they are broken, nothing."""
    try:
        return image.getexif().get(ORIENTATION)
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, OverflowError, struct.error):
        return None


def eight_bits(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and floating-point grey to 8 bits; PIL's own conversion would clip it to white."""
    values = np.asarray(image).astype(np.float64)
    top = values.max(initial=0)
    scale = 255 if image.mode == "F" and top <= 1 else 1 if top <= 255 else 1 / 257 if top <= 65535 else 255 / top
    return Image.fromarray(np.clip(np.round(values * scale), 0, 255).astype(np.uint8))


def on_white(image: Image.Image) -> Image.Image:
    flat = Image.new("RGBA", image.size, "white")
    flat.alpha_composite(image.convert("RGBA"))
    return flat.convert("RGB")


def in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The colours that a profile means, as sRGB. One that is broken or of another kind of picture says nothing."""
    try:
        if image.mode == "LAB":
            own = ImageCms.createProfile("LAB")
        elif profile:
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        else:
            return image.convert("RGB")
        meant = ImageCms.buildTransform(own, SRGB, image.mode, "RGB")
        return image if image.mode == "RGB" and is_identity(meant) else meant.apply(image)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image.convert("RGB")


def is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    """Does it only round? So do the profiles of sRGB, whose pixels then stay what they are."""
    seen = np.asarray(transform.apply(EVERY_COLOUR), int)
    return bool(np.abs(seen - np.asarray(EVERY_COLOUR, int)).max() <= 2)
