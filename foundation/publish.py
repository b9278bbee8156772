"""From trained parts to what ships: weights/studio and its card."""

import tarfile
import time
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from torch import nn
from transformers import ByT5Tokenizer, CLIPImageProcessor

from foundation import album, autoencoder, language, probes, renders, stage1, unet
from foundation.recipe import WORK, Recipe
from foundation.settings import hardware
from iy.evaluate.probes import save_probes
from iy.finetune import identity as identity_loss


def half(module: nn.Module, folder: Path) -> None:
    """Save as fp16 safetensors; the loader widens them to the dtype the settings ask for."""
    module.half().to(memory_format=torch.contiguous_format).save_pretrained(folder)
    module.float()


def foundation(recipe: Recipe, out: Path) -> None:
    """U-Net, autoencoder, text encoders, vision tower and schedule, each as `from_pretrained` opens it."""
    DDPMScheduler(**unet.SCHEDULE).save_pretrained(out / "scheduler")
    half(recipe.unet, out / "unet")
    half(recipe.vae, out / "vae")
    half(recipe.clip.text, out / "text_clip")
    half(recipe.clip.vision, out / "vision")
    half(recipe.t5, out / "text_ul2")
    half(recipe.byt5, out / "text_byt5")
    tokenizers(recipe, out)


def tokenizers(recipe: Recipe, out: Path) -> None:
    recipe.tokenizer.save_pretrained(out / "text_clip")
    recipe.t5_tokenizer.save_pretrained(out / "text_ul2")
    ByT5Tokenizer(extra_ids=0).save_pretrained(out / "text_byt5")
    CLIPImageProcessor(
        size={"shortest_edge": language.EYE},
        crop_size=language.EYE,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(out / "vision")


def judges(recipe: Recipe, out: Path) -> None:
    """The probes, which read prompt alignment, and the network of the identity loss."""
    save_probes(recipe.probes, probes.accuracy(recipe.probes, recipe.held), out / "probes")
    identity_loss.save(recipe.identity, out / "identity")


def pretrained(recipe: Recipe, out: Path) -> None:
    """The long stage 1 (`foundation.stage1`), on the foundation in `out`, as everybody else opens it."""
    photos = recipe.work / "photos"
    for name, folder in (("people", "people"), ("held", "held")):
        group = recipe.groups[name]
        recipe.render(name)
        for chunk in group.chunks():
            album.write(photos / folder, chunk, renders.chunk_path(WORK / "renders", chunk))
    asked = ["--photos", photos, "--weights", out, "--out", out / "stage1", "--work", recipe.work / "pretrained"]
    asked += ["--steps", recipe.steps["pretrained"], "--batch", recipe.batch["pretrained"]]
    asked += ["--device", recipe.device.type]
    if "pretrained" in recipe.seconds:
        asked += ["--seconds", recipe.seconds["pretrained"]]
    stage1.run(stage1.parser().parse_args([str(word) for word in asked]), time.monotonic())
    with tarfile.open(out / "stage1" / "bundle.tar") as tar:
        tar.extractall(out, filter="data")


def card(recipe: Recipe, command: str) -> dict:
    """What made the weights, as far as one run knows it; measured figures are added by `foundation.quality`."""
    held = autoencoder.tensor(recipe.held.images)
    return {
        "command": command,
        "licence": "Apache-2.0",
        "hardware": hardware(recipe.device),
        "groups": {name: group._asdict() for name, group in recipe.groups.items()},
        "batch": recipe.batch,
        "data": "renders of anny people (CC0 data), kept as WebP",
        "psnr_db_unseen_people": round(autoencoder.psnr(recipe.vae, recipe.held.images), 2),
        "latents_std": round(float(autoencoder.latents(recipe.vae, held).std()), 3),
    }
