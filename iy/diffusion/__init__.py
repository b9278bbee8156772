"""The frozen text-to-image model: opened part by part from settings, and its encoders."""

from iy.diffusion.base import POOLED, Base, Branch, Opening, TextEncoders, load_base, load_text, load_vae
from iy.diffusion.encode import (
    decode_latents,
    encode_images,
    encode_text,
    text_states,
    to_pixels,
    vae_decode,
    vae_encode,
)

__all__ = [
    "POOLED",
    "Base",
    "Branch",
    "Opening",
    "TextEncoders",
    "decode_latents",
    "encode_images",
    "encode_text",
    "load_base",
    "load_text",
    "load_vae",
    "text_states",
    "to_pixels",
    "vae_decode",
    "vae_encode",
]
