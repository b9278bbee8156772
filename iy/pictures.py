"""Untrusted files to upright sRGB pixels, or one clear reason why not: the one decoder for every entrance."""

import io
import stat
import threading
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pillow_heif
from PIL import Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from iy.errors import one_line

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
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2")
AVIF_BRANDS = (b"avif", b"avis")

pillow_heif.register_heif_opener()
Image.init()
# A telephone's colour profile, an editor's history: legitimate, and larger than PIL's own limit of 1 MiB.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 16 * 2**20)
warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd files: they are judged here
OPENING = threading.Lock()  # PIL's limit of pixels, which is switched off while one is opened, belongs to all threads
SRGB = ImageCms.createProfile("sRGB")


class Unreadable(Exception):
    """Why a file is not a photo that can be used."""


class Limits(NamedTuple):
    """What may be decoded of one picture: that many pixels, reduced to a longer side of at most `side`."""

    pixels: int
    side: int


def contents(path: Path) -> bytes:
    """A file's bytes. Nothing of a film or a pipe is read."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable("not a regular file")
        refuse_large(found.st_size)
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)  # it may have grown
    except OSError as error:
        raise Unreadable(f"the file cannot be read: {error.strerror}") from None
    refuse_large(len(data))
    return data


def refuse_large(size: int) -> None:
    if size > LARGEST:
        raise Unreadable(f"{size} bytes: too large for a photograph, which has at most {LARGEST}")


def decode(data: bytes, maximum_pixels: int, maximum_side: int) -> np.ndarray:
    """The main picture of an image file, upright, as uint8 sRGB (H, W, 3), longer side at most `maximum_side`."""
    if not data:
        raise Unreadable("the file is empty")
    refuse_large(len(data))
    image = opened(data)
    try:
        refuse_wide(image, maximum_pixels, maximum_side)
        return pixels(image, maximum_side)
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
    raise Unreadable("not an image, or of a kind that is not read")


def opened(data: bytes) -> Image.Image:
    """The image with only its header read, at its main picture: of a HEIC the primary, else the first frame."""
    name = kind(data)
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


def refuse_wide(image: Image.Image, maximum_pixels: int, maximum_side: int) -> None:
    """Judge what memory will hold: of a JPEG, which is reduced while it is decoded, less than its size says. But a
    progressive one is held whole."""
    whole, share = image.size, GAP * maximum_side / max(image.size)
    image.draft(None, (max(1, int(whole[0] * share)), max(1, int(whole[1] * share))))
    width, height = whole if "progressive" in image.info else image.size
    if width * height > maximum_pixels:
        raise Unreadable(f"{width} x {height} pixels to decode, photos.maximum_pixels is {maximum_pixels}")


def pixels(image: Image.Image, maximum_side: int | None = None) -> np.ndarray:
    """An opened image as upright uint8 sRGB (H, W, 3); None: as large as it is."""
    image.load()
    turn, profile = TURNS.get(image.getexif().get(ORIENTATION)), image.info.get("icc_profile")
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
    if image.mode == "LAB":
        return ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), SRGB, outputMode="RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else None
        if source is not None and "srgb" not in ImageCms.getProfileDescription(source).lower():
            return ImageCms.profileToProfile(image, source, SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        pass
    return image.convert("RGB")
