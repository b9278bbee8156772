"""Training steps, ours beside the usual way, on one U-Net with random weights: images/s, memory, what learns.

ours     `iy.finetune`'s own Trainer on encoded examples: four branches, LoRA, the vision tower, average of weights
in loop  public IP-Adapter training: pictures, captions and references encoded at every step; the adapter learns
cached   the same with latents and text encoded beforehand
bare     the U-Net alone, forward and backward with frozen weights: no trainer can be faster

Random pictures and states; ours without the identity loss. On a CPU in turns, and memory by a process for each way; on
a GPU one after the other.
"""

import contextlib
import gc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from iy import params
from iy.bench import stock
from iy.bench.attention import READ
from iy.bench.measure import Case, against_all, in_turns, report
from iy.bench.memory import held
from iy.device import choose_device
from iy.diffusion import POOLED, Base, encode_images
from iy.finetune.examples import Examples, Texts
from iy.finetune.trainer import Trainer
from iy.model import Personaliser
from iy.shapes import work
from iy.shapes.base import drawn, shapes

WAYS = ("ours", "in loop", "cached", "bare")
TEXT = 77  # tokens to which the usual way pads
EXAMPLES = 64
AUTOCAST = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
Step = Callable[[], object]


def run(settings: params.Params, rounds: int, device: str, memory: bool) -> dict:
    """Images per second; peak megabytes of each way; trainable weights; on a GPU the share of its products reached."""
    settings, where = without_identity(settings), choose_device(device)
    if where.type == "cuda":
        seconds, trainable, megabytes = one_by_one(settings, rounds, where)
    else:
        made = {way: step(way, settings, where) for way in WAYS}
        seconds = in_turns({way: one for way, (one, _) in made.items()}, rounds)
        trainable = {way: count for way, (_, count) in made.items()}
        megabytes = {way: alone(way, settings, device) for way in WAYS} if memory else {}
    training = settings.finetune.training
    rate = {way: round(training.batch / value, 4) for way, value in seconds.items()}
    cases = against_all("training", rate, "images/s")
    cases += against_all("peak memory", megabytes, "MB") if megabytes else []
    if where.type == "cuda":
        cases.append(utilisation(settings, seconds["ours"], where))
    how = {"dtype": settings.base.dtype, "precision": training.precision, "batch": training.batch, "rounds": rounds}
    return report(cases, where, trainable=trainable, megabytes=megabytes, **how)


def one_by_one(settings: params.Params, rounds: int, device: torch.device) -> tuple[dict, dict, dict]:
    """Seconds, trainable weights and peak megabytes of each way alone: a GPU does not hold all of them at once."""
    seconds, trainable, megabytes = {}, {}, {}
    for way in WAYS:
        torch.cuda.reset_peak_memory_stats()
        one, trainable[way] = step(way, settings, device)
        seconds |= in_turns({way: one}, rounds)
        megabytes[way] = held(device)
        del one
        gc.collect()
        torch.cuda.empty_cache()
    return seconds, trainable, megabytes


def without_identity(settings: params.Params) -> params.Params:
    training = settings.finetune.training.model_copy(update={"identity_model": None, "identity_weight": 0.0})
    return settings.model_copy(update={"finetune": settings.finetune.model_copy(update={"training": training})})


def step(way: str, settings: params.Params, device: torch.device) -> tuple[Step, int]:
    """A function that trains one step in its way, and how many weights it trains."""
    base = drawn(settings.base, device, only_own=True)
    if way == "ours":
        return ours(base, settings)
    if way == "bare":
        return bare(base, settings)
    return usual(base, settings, cached=way == "cached")


def ours(base: Base, settings: params.Params) -> tuple[Step, int]:
    model = Personaliser(base, settings.model)
    stage = settings.finetune.stages["1"]
    trainer = Trainer(
        model, base.scheduler, examples(base, model), None, settings.finetune, stage, seed=settings.seed
    )  # fmt: skip
    trainer.model.train()
    steps = iter(range(stage.steps))
    return lambda: trainer.train_step(next(steps)), sum(one.numel() for one in model.trainable_parameters())


def examples(base: Base, model: Personaliser) -> Examples:
    """Encoded examples of random content: latents, states of a caption of some 25 words and of none, face crops."""
    numbers, side = torch.Generator().manual_seed(0), model.vision.image_size
    pooled = base.text[base.own].second

    def states(length: int) -> dict[str, torch.Tensor]:
        found = {
            name: torch.randn(min(length, READ.get(name, TEXT)), branch.width, generator=numbers).to(base.dtype)
            for name, branch in base.text.items()
        }
        if pooled:
            wide = pooled.encoder.config.projection_dim
            found[POOLED] = torch.randn(1, wide, generator=numbers).to(base.dtype)
        return found

    rows = [states(1), states(TEXT)]
    return Examples(
        torch.randn(EXAMPLES, *base.latent_shape, generator=numbers),
        Texts({name: [row[name] for row in rows] for name in rows[0]}),
        np.ones(EXAMPLES, int),
        0,
        torch.randint(0, 256, (EXAMPLES, 3, side, side), generator=numbers, dtype=torch.uint8),
        np.arange(EXAMPLES),
        [np.array([], int)] * EXAMPLES,
        np.full((EXAMPLES, 4), np.nan, np.float32),
    )


def usual(base: Base, settings: params.Params, cached: bool) -> tuple[Step, int]:
    """IP-Adapter's training loop: its projection, keys and values learn, everything else is frozen."""
    training, unet = settings.finetune.training, stock.with_adapter(base)
    learnt = [weight for name, weight in unet.named_parameters() if "processor" in name or "encoder_hid_proj" in name]
    for weight in learnt:
        weight.data = weight.data.float()
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(learnt, 1e-4, weight_decay=training.weight_decay)
    own, count, device = base.text[base.own], training.batch, base.device
    pictures = torch.randn(count, 3, base.image_size, base.image_size)
    seen = torch.randn(count, 3, base.vision.config.image_size, base.vision.config.image_size)
    ids = torch.randint(0, own.encoder.config.vocab_size, (count, TEXT))
    kept = (encode_images(base, pictures), caption(base, ids)) if cached else None

    def one() -> float:
        latents, (text, pooled) = kept or (encode_images(base, pictures.to(device)), caption(base, ids))
        with torch.no_grad():
            tower = base.vision(seen.to(device, base.dtype), output_hidden_states=True)
        with autocast(training.precision, device):
            conditions = {"image_embeds": [tower.last_hidden_state[:, None]]} | added(base, pooled)
            loss = noised_loss(unet, base, latents, text, conditions)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return one, sum(weight.numel() for weight in learnt)


def bare(base: Base, settings: params.Params) -> tuple[Step, int]:
    """The frozen U-Net and its own text: gradients of the latents alone."""
    training, unet, count = settings.finetune.training, base.unet, settings.finetune.training.batch
    latents = torch.randn(count, *base.latent_shape, device=base.device, dtype=base.dtype, requires_grad=True)
    own = base.text[base.own]
    text = torch.randn(count, READ.get(base.own, TEXT), own.width, device=base.device, dtype=base.dtype)
    pooled = own.second and torch.randn(
        count, own.second.encoder.config.projection_dim, device=base.device, dtype=base.dtype
    )

    def one() -> None:
        with autocast(training.precision, base.device):
            loss = noised_loss(unet, base, latents, text, added(base, pooled))
        loss.backward()
        latents.grad = None

    return one, 0


def noised_loss(unet: Any, base: Base, latents: torch.Tensor, text: torch.Tensor, conditions: dict) -> torch.Tensor:
    noise = torch.randn_like(latents)
    t = torch.randint(0, base.scheduler.config.num_train_timesteps, (len(latents),), device=latents.device)
    noised = base.scheduler.add_noise(latents, noise, t)
    said = unet(noised, t, text, added_cond_kwargs=conditions or None).sample
    return F.mse_loss(said.float(), noise.float())


@torch.no_grad()
def caption(base: Base, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """States of the base's own text and, where there is a second encoder, its pooled embedding."""
    own = base.text[base.own]
    first = own.encoder(ids.to(base.device), output_hidden_states=True)
    if own.second is None:
        return first.last_hidden_state, None
    other = own.second.encoder(ids.to(base.device), output_hidden_states=True)
    return torch.cat([first.hidden_states[-2], other.hidden_states[-2]], 2), other.text_embeds


def added(base: Base, pooled: torch.Tensor | None) -> dict[str, torch.Tensor]:
    if pooled is None:
        return {}
    side = base.image_size
    sizes = torch.tensor([side, side, 0, 0, side, side], dtype=pooled.dtype, device=pooled.device)
    return {"text_embeds": pooled, "time_ids": sizes.expand(len(pooled), -1)}


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    dtype = AUTOCAST[precision]
    return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()


def alone(way: str, settings: params.Params, device: str) -> float:
    """Peak megabytes of a process that trains two steps in one way."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(peak, way, settings.resolved(), device).result()


def peak(way: str, resolved: dict, device: str) -> float:
    where = choose_device(device)
    one, _ = step(way, params.parse(resolved, "iy bench train"), where)
    for _ in range(2):
        one()
    return held(where)


def utilisation(settings: params.Params, seconds: float, device: torch.device) -> Case:
    """Share of the card's matrix products per second, measured in the same run, that our step's own come to."""
    base = shapes(settings.base)
    lengths = {name: READ.get(name, TEXT) for name in base.text}
    reached = work.training_step(base, settings, lengths).flops / seconds / 1e12
    return Case("model FLOP/s", "matrix products", round(reached, 2), round(products(device), 2), "TFLOP/s")


def products(device: torch.device, side: int = 8192) -> float:
    """TFLOP/s of one large bf16 product on random numbers."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / in_turns({"product": lambda: a @ b}, 10)["product"] / 1e12
