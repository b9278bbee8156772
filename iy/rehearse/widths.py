"""Whether the parts of a base fit one another: widths, lengths and sides, read off the parts themselves."""

from collections.abc import Iterator
from typing import Any

from iy import params
from iy.diffusion import Base, Branch
from iy.errors import UserError
from iy.finetune.buckets import shapes
from iy.finetune.data import check_buckets
from iy.rehearse.checks import FAILS, Finding

TIME_IDS = 6  # original size, crop and target size, two numbers each: SDXL's added conditions


def everything(base: Base, settings: params.Params) -> Iterator[Finding]:
    yield own_text(base)
    yield from pooled(base)
    for name, branch in base.text.items():
        yield from lengths(name, branch)
    yield latents(base)
    if settings.evaluate.clip is None:
        yield alignment(base)
    if settings.finetune.buckets is not None:
        yield buckets(base, settings)


def own_text(base: Base) -> Finding:
    """The U-Net was trained on states of one width: its own branch must have it."""
    name, wanted = base.own, base.unet.config.cross_attention_dim
    branch, what = base.text[base.own], f"base.text.{base.own}"
    if branch.width == wanted:
        return Finding("ok", what, f"{wanted} wide, as the U-Net's cross-attention takes it")
    beside = "" if branch.second else f"; SDXL's own text needs base.text.{name}.second as well"
    return Finding(FAILS, what, f"gives states {branch.width} wide, the U-Net takes {wanted}: name its encoder{beside}")


def pooled(base: Base) -> Iterator[Finding]:
    """A U-Net with added conditions takes a pooled text of one width, and no other takes one."""
    config, second, what = base.unet.config, base.text[base.own].second, f"base.text.{base.own}.second"
    if config.addition_embed_type != "text_time":
        if second:
            yield Finding(FAILS, what, "this U-Net takes no pooled text embedding: set it to null")
        return
    wanted = config.projection_class_embeddings_input_dim - TIME_IDS * config.addition_time_embed_dim
    if second is None:
        yield Finding(FAILS, what, f"null: this U-Net takes a pooled text embedding {wanted} wide: name its encoder")
    elif (found := getattr(second.encoder.config, "projection_dim", None)) != wanted:
        yield Finding(FAILS, what, f"gives a pooled text {found} wide, the U-Net takes {wanted}: name its encoder")
    elif not hasattr(second.encoder, "text_projection"):
        yield Finding(
            FAILS, what, f"{type(second.encoder).__name__} has no pooled text: CLIPTextModelWithProjection has"
        )
    else:
        yield Finding("ok", what, f"pooled text {wanted} wide")


def alignment(base: Base) -> Finding:
    """Without a CLIP model of its own the benchmark compares pictures and prompts by the base's two towers."""
    text, seen = base.text[base.own].encoder, base.vision.config.projection_dim
    width = getattr(getattr(text, "text_projection", None), "out_features", None)
    if width != seen:
        said = f"null, but the base's own text encoder and its vision tower share no space ({width} and {seen} wide)"
        return Finding(FAILS, "evaluate.clip", f"{said}: name a CLIP model")
    return Finding("ok", "evaluate.clip", f"the base's own two towers, {seen} wide")


def lengths(name: str, branch: Branch) -> Iterator[Finding]:
    """CLIP has a place for so many tokens and no more; T5's places are relative."""
    for key, one in ((name, branch), (f"{name}.second", branch.second)):
        most: Any = one and getattr(one.encoder.config, "max_position_embeddings", None)
        if most and branch.max_length > most:
            yield Finding(
                FAILS, f"base.text.{name}.max_length", f"{branch.max_length}, but the encoder of {key} reads {most}"
            )


def latents(base: Base) -> Finding:
    """The picture's side must divide down to the U-Net's lowest level, and the latents' channels agree."""
    scale = 2 ** (len(base.vae.config.block_out_channels) - 1) * 2 ** (len(base.unet.config.block_out_channels) - 1)
    if base.image_size % scale:
        return Finding(FAILS, "base.image_size", f"{base.image_size} is no multiple of {scale}: choose one")
    channels = base.vae.config.latent_channels
    if channels != base.unet.config.in_channels:
        return Finding(
            FAILS, "base.vae", f"latents of {channels} channels, the U-Net takes {base.unet.config.in_channels}"
        )
    return Finding("ok", "base.vae", f"latents {base.latent_shape} of {base.image_size} px")


def buckets(base: Base, settings: params.Params) -> Finding:
    """Whether the U-Net takes every shape that photos are cut to."""
    wanted = settings.finetune.buckets
    assert wanted is not None, "asked only where there are some"
    try:
        check_buckets(settings, base)
    except UserError as error:
        what, _, why = str(error).partition(": ")
        return Finding(FAILS, what, why)
    count = sum(map(len, shapes(settings.base.image_size, wanted)))
    return Finding("ok", "finetune.buckets", f"{count} shapes")
