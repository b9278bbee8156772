"""From any photograph of one person to the face crop that the model takes as reference."""

from pathlib import Path

import numpy as np

from iy import params, pictures
from iy.errors import UserError
from iy.faces import Analyser, rivals
from iy.faces.crop import face_crop
from iy.policy.rule import Policy


def read_file(path: Path) -> bytes:
    try:
        return pictures.contents(path)
    except pictures.Unreadable as reason:
        raise UserError(f"{path}: {reason}: give a JPEG, PNG or HEIC photograph") from None


def read_photo(data: bytes, name: str, limits: pictures.Limits) -> np.ndarray:
    """The bytes of a photograph as upright uint8 RGB (H, W, 3); `name` stands for it in messages."""
    try:
        return pictures.decode(data, *limits)
    except pictures.Unreadable as reason:
        raise UserError(f"{name}: {reason}: give a JPEG, PNG or HEIC photograph") from None


def one_face(
    image: np.ndarray, name: str, analyser: Analyser, model: params.Model, size: int, policy: Policy
) -> np.ndarray:
    """uint8 (H, W, 3) -> the crop (size, size, 3) around its main face, masked as the model was trained; refused where
    the policy does."""
    faces = analyser.detect(image)
    if not faces:
        raise UserError(
            f"{name}: no face was found: use a photograph in which the whole face is seen, from the front or half side"
        )
    if (count := rivals(faces)) > 1:
        raise UserError(f"{name}: {count} faces were found: cut the photograph so that it shows one person")
    policy.face(lambda: analyser.embed(image, faces[0]), name)
    return face_crop(image, faces[0].box, faces[0].landmarks, size, model.crop_margin, model.mask_face)


def admitted(
    photo: bytes,
    name: str,
    limits: pictures.Limits,
    analyser: Analyser,
    model: params.Model,
    size: int,
    policy: Policy,
) -> np.ndarray:
    """A photograph's bytes -> the crop (size, size, 3) that a model takes: the one way in for somebody's face."""
    policy.photo(photo, name)
    return one_face(read_photo(photo, name, limits), name, analyser, model, size, policy)
