"""`iy plan --measure`: how fast this very machine does each kind of work of a profile; a minute on two cores.

Weights are random, shapes the profile's own. Without a GPU processor seconds are taken, not the clock's: other programs
on the machine then count little.
"""

import io
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from iy import params
from iy.bench import train
from iy.curate.measure import columns
from iy.device import choose_device, gpu_name, memory_gb
from iy.diffusion import Base, encode_images
from iy.diffusion.encode import vae_decode
from iy.faces import load_analyser
from iy.plan.rates import Rates
from iy.shapes import work
from iy.shapes.base import drawn, shapes
from iy.shapes.memory import at_once, guided_parts, longest

ROUNDS, PHOTOS = 3, 4
START = "import mlflow, iy.stage, iy.finetune.run, iy.evaluate.run"


def rates(settings: params.Params, lengths: dict[str, int], say: Callable[[str], None]) -> Rates:
    device = choose_device(settings.device)
    base, on_meta = drawn(settings.base, device), shapes(settings.base)
    flops = {}
    for kind, (one, count) in ways(base, on_meta, settings, lengths).items():
        flops[kind] = count / seconds(one, device)
        say(f"{kind}: {flops[kind] / 1e9:.1f} GFLOP/s")
    each = photo_seconds(settings)
    say(", ".join(f"{name}: {value:.3f} s a photo and core" for name, value in each.items()))
    begun = starting()
    made = f"measured on {gpu_name() or platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}"
    return Rates(flops, each, begun, memory_gb(), made)


def ways(
    base: Base, on_meta: Base, settings: params.Params, lengths: dict[str, int]
) -> dict[str, tuple[Callable[[], object], float]]:
    """By kind of work a function that does some of it, and how many FLOP that is by the same count as the plan's."""
    plain, device = train.without_identity(settings), base.device
    batch, parts = settings.evaluate.batch, guided_parts(settings.draw.guidance, settings.draw.identity_guidance)
    together = at_once(settings)
    pictures = torch.randn(together, 3, base.image_size, base.image_size)
    latents = torch.randn(batch, *base.latent_shape, device=device, dtype=base.dtype)
    ids = {name: torch.zeros(together, lengths[name], dtype=torch.long, device=device) for name in base.text.keys()}

    @torch.no_grad()
    def captions() -> None:
        for name, branch in base.text.items():
            for one in (branch, branch.second):
                if one is not None:
                    one.encoder(ids[name])

    step, _ = train.ours(base, plain)
    return {
        "train": (step, work.training_step(on_meta, plain, lengths).flops),
        "draw": (
            denoising(base, settings, batch, parts, longest(on_meta)),
            work.denoising(on_meta, settings, batch, parts, longest(on_meta)).flops,
        ),
        "pictures": (lambda: encode_images(base, pictures), work.encode_pictures(on_meta, together).flops),
        "captions": (captions, work.encode_captions(on_meta, together, lengths).flops),
        "decode": (lambda: vae_decode(base.vae, latents), work.decode_pictures(on_meta, batch).flops),
    }


def denoising(
    base: Base, settings: params.Params, batch: int, parts: int, lengths: dict[str, int]
) -> Callable[[], torch.Tensor]:
    """One step of drawing `batch` pictures: all of guidance's parts."""
    model, rows = work.Personaliser(base, settings.model).eval(), batch * parts
    side, device = model.vision.image_size, base.device
    with torch.no_grad():
        seen = torch.zeros(rows, 1, 3, side, side, device=device, dtype=base.dtype)
        vision = model.vision_tokens(seen, torch.ones(rows, 1, dtype=torch.bool, device=device))
        text = {
            name: (hidden.to(device), mask.to(device)) for name, (hidden, mask) in zeros(base, rows, lengths).items()
        }
        context = model.context(text, vision)
    latents, t = (
        torch.zeros(rows, *base.latent_shape, device=device, dtype=base.dtype),
        torch.tensor(500, device=device),
    )

    @torch.no_grad()
    def one() -> torch.Tensor:
        return model.denoise(latents, t, context)

    return one


def zeros(base: Base, rows: int, lengths: dict[str, int]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    states = work.text_states(base, rows, lengths, base.dtype)
    return {name: (torch.zeros(hidden.shape, dtype=hidden.dtype), mask) for name, (hidden, mask) in states.items()}


def seconds(one: Callable[[], object], device: torch.device) -> float:
    """Median of a few rounds after a first one: the clock's on a GPU, the processor's over all threads on a CPU."""
    one()
    taken = []
    for _ in range(ROUNDS):
        start = now(device)
        one()
        taken.append(now(device) - start)
    return statistics.median(taken)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def photo_seconds(settings: params.Params) -> dict[str, float]:
    """Of one core: reading a photo of a megapixel, measuring one as large as the profile keeps it, rendering one."""
    from iy.photos import studio

    section = settings.photos
    jobs = [
        (person, shot) for person in studio.people(1, section.first_person) for shot in studio.shots(person, PHOTOS + 1)
    ]
    size = section.size if section.source == "studio" else min(section.maximum_side, 512)
    analyser = load_analyser(settings.faces, settings.usage, settings.device)
    images = studio.render_many(jobs, size, settings.workers.model_copy(update={"map": "serial"}))
    taken: dict[str, list[float]] = {"render": [], "faces": []}
    for _ in jobs:
        start = time.process_time()
        image = next(images)
        taken["render"].append(time.process_time() - start)
        image = image if section.source == "studio" else enlarged(image, section.maximum_side)
        start = time.process_time()
        columns(image, analyser)
        taken["faces"].append(time.process_time() - start)
    found = {name: statistics.median(values[1:]) for name, values in taken.items()}
    return found | reading()


def enlarged(image: np.ndarray, side: int) -> np.ndarray:
    import cv2

    return cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)


def reading() -> dict[str, float]:
    """Of a picture of a megapixel: decoding a JPEG and keeping it as PNG; opening that again."""
    import cv2

    from iy.storage import png

    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", enlarged(noise, 1000))[1]
    start = time.process_time()
    kept = png(np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)))
    between = time.process_time()
    np.asarray(Image.open(io.BytesIO(kept)).convert("RGB"))
    return {"read": between - start, "open": time.process_time() - between}


def starting() -> float:
    """Processor seconds until a stage's process has imported what it needs."""
    before = os.times()
    subprocess.run([sys.executable, "-c", START], check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system
