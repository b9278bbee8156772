"""From any photograph of one person to the face crop that the model takes as reference."""

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from iy import params
from iy.errors import UserError, one_line
from iy.faces import Analyser
from iy.faces.crop import face_crop

MAXIMUM_PIXELS = 100_000_000  # a small file can unpack to gigabytes


def read_photo(data: bytes, name: str) -> np.ndarray:
    """The bytes of a photograph as upright uint8 RGB (H, W, 3); `name` stands for it in messages."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAXIMUM_PIXELS:
                raise UserError(f"{name}: {image.width} x {image.height} pixels are too many: make it smaller")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError:
        raise UserError(f"{name} is not an image that can be read: use a JPEG or PNG photograph") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{name} is damaged ({one_line(error)}): use another file") from None


def one_face(image: np.ndarray, name: str, analyser: Analyser, model: params.Model, size: int) -> np.ndarray:
    """uint8 (H, W, 3) -> the crop (size, size, 3) around its only face, masked as the model was trained."""
    faces = analyser.detect(image)
    if not faces:
        raise UserError(
            f"{name}: no face was found: use a photograph in which the whole face is seen, from the front or half side"
        )
    if len(faces) > 1:
        raise UserError(f"{name}: {len(faces)} faces were found: cut the photograph so that it shows one person")
    return face_crop(image, faces[0].box, faces[0].landmarks, size, model.crop_margin, model.mask_face)
