"""A profile's base on disk with random weights: the folders that `iy.diffusion` opens, at the real sizes."""

from pathlib import Path
from typing import Any

import torch

from iy import params
from iy.shapes import published
from iy.shapes.base import drawn_in, scheduler
from iy.shapes.letters import clip_letters, tokenizer


def write(base: params.Base, folder: Path, device: torch.device) -> params.Base:
    """Every part drawn on `device` in the base's dtype and saved below `folder`; the base as it opens from there."""
    import diffusers
    import transformers

    with drawn_in(getattr(torch, base.dtype)):
        for key, part in base.parts().items():
            place = folder / key
            if key == "scheduler":
                scheduler(base).save_pretrained(place)
                continue
            with device, torch.no_grad():
                library: Any = diffusers if key in ("unet", "vae") else transformers
                made: Any = published.model(library, part, key)
            made.save_pretrained(place)
            del made
            if isinstance(part, params.TextEncoder):
                tokenizer(part).save_pretrained(place)
    eyes(base, folder / "vision")
    return opened_from(base, folder)


def opened_from(base: params.Base, folder: Path) -> params.Base:
    """The same parts, each in the subfolder of its key."""
    found: dict[str, Any] = base.model_dump(mode="json", by_alias=True)

    def place(part: dict, key: str) -> None:
        part |= {"path": str(folder), "subfolder": key}

    for key in ("unet", "vae", "scheduler", "vision"):
        place(found[key], key)
    for name, branch in found["text"].items():
        place(branch, f"text.{name}")
        if branch["second"]:
            place(branch["second"], f"text.{name}.second")
    return params.Base.model_validate(found)


def eyes(base: params.Base, folder: Path) -> None:
    """The vision tower's preprocessor_config.json."""
    import transformers

    mean, std = published.normalisation(base.vision)
    side = published.configuration(base.vision, "vision")["image_size"]
    transformers.CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size=side, image_mean=list(mean), image_std=list(std)
    ).save_pretrained(folder)


def clip(folder: Path, device: torch.device) -> str:
    """A CLIP model of ViT-L/14's size, for the benchmark's score."""
    import transformers

    found = published.table()["parts"]["openai/clip-vit-large-patch14"]
    with device:
        made = transformers.CLIPModel(transformers.CLIPConfig(**found["config"]))
    made.save_pretrained(folder)
    clip_letters(transformers.CLIPTokenizer).save_pretrained(folder)
    transformers.CLIPImageProcessor().save_pretrained(folder)
    return str(folder)
