"""Make the studio's foundation, probes and pretrained bundle.

    python -m iy.studio.foundation --scale 1        # hours on two cores; --scale 0.1 for a quick look

Writes weights/studio/{foundation,probes} and weights/studio/CARD.json. Work in progress stays in .iy/foundation: started
again, the recipe goes on from its last checkpoint. `python -m iy.studio.foundation.pretrained` makes the bundle after it.
"""
import argparse
import platform
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler
from tqdm import tqdm
from transformers import ByT5Tokenizer, CLIPImageProcessor

from iy import params
from iy.faces import load_analyser
from iy.faces.crop import face_crop
from iy.storage import atomic_path, write_json
from iy.studio.foundation import autoencoder, language, probes, renders, unet
from iy.studio.probes import save_probes

WORK, WEIGHTS = Path(".iy/foundation"), Path("weights/studio")
PEOPLE, SHOTS, HELD_FIRST, HELD = 2400, 6, 900_000, 200
STEPS = {"vae": 8000, "clip": 4000, "t5": 1200, "byt5": 1200, "probes": 4000, "unet": 4400}


def faces(images: np.ndarray, path: Path) -> np.ndarray:
    """Masked 64 px face crops of the renders; where no face is found, an empty (grey) crop."""
    if path.exists():
        return np.load(path)["faces"]
    settings = params.load("studio")
    analyser = load_analyser(settings.faces, settings.usage)
    crops = np.full((len(images), 64, 64, 3), 128, np.uint8)
    for i, image in enumerate(tqdm(images, "faces")):
        if found := analyser.detect(image):
            crops[i] = face_crop(image, found[0].box, found[0].landmarks, 64, settings.model.crop_margin, settings.model.mask_face)
    with atomic_path(path) as aside, open(aside, "wb") as file:
        np.savez(file, faces=crops)
    return crops


@torch.no_grad()
def latents(vae, images: np.ndarray) -> torch.Tensor:
    parts = [vae.encode(autoencoder.pixels(part)).latent_dist.mode() for part in np.array_split(images, len(images) // 64)]
    return torch.cat(parts) * vae.config.scaling_factor


def half(module, folder: Path) -> None:
    """Save as fp16 safetensors; the loader widens them to the dtype the settings ask for."""
    module.half().to(memory_format=torch.contiguous_format).save_pretrained(folder)
    module.float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1., help="share of the full number of steps")
    scale = parser.parse_args().scale
    steps = {name: max(10, round(count * scale)) for name, count in STEPS.items()}
    work, began = WORK / "work", time.time()
    work.mkdir(parents=True, exist_ok=True)
    train = renders.render(WORK / "renders", 0, PEOPLE, SHOTS, 64, 2)
    held = renders.render(WORK / "renders", HELD_FIRST, HELD, SHOTS, 64, 2)
    out = WEIGHTS / "foundation"

    vae = autoencoder.train(train.images, work, steps["vae"])
    half(vae, out / "vae")
    card = {"psnr_db_unseen_people": round(autoencoder.psnr(vae, held.images[:256]), 2)}

    net = probes.train(train, work, steps["probes"])
    card["probe_accuracy"] = {k: round(v, 4) for k, v in probes.accuracy(net, held).items()}
    save_probes(net, card["probe_accuracy"], WEIGHTS / "probes")

    texts = [[language.caption(train, i, k) for k in range(4)] for i in tqdm(range(len(train.images)), "captions")]
    flat = [text for many in texts for text in many]
    for name in ("text_clip", "text_ul2", "text_byt5"):
        (out / name).mkdir(parents=True, exist_ok=True)
    tokenizer = language.clip_tokenizer(flat, out / "text_clip")
    clip = language.train_clip(tokenizer, train, faces(train.images, WORK / "faces.npz"), work, steps["clip"])
    tokenizer.save_pretrained(out / "text_clip")
    half(clip.text, out / "text_clip")
    half(clip.vision, out / "vision")
    CLIPImageProcessor(size={"shortest_edge": 64}, crop_size=64, image_mean=[.5] * 3, image_std=[.5] * 3).save_pretrained(out / "vision")
    for name, words, length, seed in (("t5", language.t5_tokenizer(flat), language.LONG, 6), ("byt5", ByT5Tokenizer(extra_ids=0), language.BYTES, 7)):
        encoder = language.train_reader(name, words, language.t5_encoder(len(words), seed), flat, length, work, steps[name], seed)
        folder = out / {"t5": "text_ul2", "byt5": "text_byt5"}[name]
        words.save_pretrained(folder)
        half(encoder, folder)

    DDPMScheduler(**unet.SCHEDULE).save_pretrained(out / "scheduler")
    model = unet.train(latents(vae, train.images), texts, unet.text_encoder(tokenizer, clip.text), work, steps["unet"])
    half(model, out / "unet")
    write_json(WEIGHTS / "CARD.json", card | {
        "command": f"python -m iy.studio.foundation --scale {scale}", "people": PEOPLE, "renders": len(train.images), "steps": steps,
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} CPU threads", "licence": "Apache-2.0",
        "minutes_of_last_call": round((time.time() - began) / 60), "data": "renders of anny people (CC0 data), seeds 0 to 2399"})


if __name__ == "__main__":
    main()
