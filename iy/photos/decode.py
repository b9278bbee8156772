"""Untrusted bytes to upright RGB pixels, or one clear reason why not."""

import io
import warnings

import numpy as np
import pillow_heif
from PIL import Image, ImageOps, UnidentifiedImageError

# No EPS, WMF and the like: they start other programs.
WANTED = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF", "TGA")
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # one channel of more than 8 bits
pillow_heif.register_heif_opener()
Image.init()
FORMATS = [kind for kind in WANTED if kind in Image.OPEN]


class Unreadable(Exception):
    """Why a file is not a photo that can be used."""


def decode(data: bytes, maximum_pixels: int, maximum_side: int) -> np.ndarray:
    """The first frame of an image file, upright, as uint8 RGB (H, W, 3), longer side at most `maximum_side`."""
    if not data:
        raise Unreadable("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns of large and odd files: judged here instead
        image = opened(data, maximum_pixels)
        try:
            return pixels(image, maximum_side)
        except Exception as error:  # decoders of broken files raise nearly every kind
            raise Unreadable(f"broken {image.format} image: {brief(error)}") from None


def opened(data: bytes, maximum_pixels: int) -> Image.Image:
    """The image with only its header read; refused when it would decode to more than `maximum_pixels`."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise Unreadable("not an image, or of a kind that is not read") from None
    except Exception as error:
        raise Unreadable(f"broken image: {brief(error)}") from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    if image.width * image.height > maximum_pixels:
        raise Unreadable(f"{image.width} x {image.height} pixels, photos.maximum_pixels is {maximum_pixels}")
    return image


def pixels(image: Image.Image, maximum_side: int) -> np.ndarray:
    image.seek(0)
    if image.mode in DEEP:
        image = eight_bits(image)
    elif "A" in image.getbands() or "transparency" in image.info:
        image = on_white(image)
    image.thumbnail((maximum_side, maximum_side), Image.Resampling.LANCZOS, reducing_gap=3)
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def eight_bits(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and floating-point grey to 8 bits; PIL's own conversion would clip it to white."""
    values = np.asarray(image).astype(np.float64)
    top = values.max(initial=0)
    scale = 255 if image.mode == "F" and top <= 1 else 1 if top <= 255 else 1 / 257 if top <= 65535 else 255 / top
    grey = Image.fromarray(np.clip(np.round(values * scale), 0, 255).astype(np.uint8))
    grey.info = {key: value for key, value in image.info.items() if key == "exif"}
    return grey


def on_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    flat = Image.new("RGBA", image.size, "white")
    flat.alpha_composite(layer)
    flat.info = {key: value for key, value in image.info.items() if key == "exif"}
    return flat


def brief(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
