"""`pretrained` is stage 1 run long, on the frozen text-only foundation, one photo per person.

    python -m foundation.stage1 --photos PACK/photos --weights weights/text-only --out OUT --seconds 420

Twelve thousand pictures and their captions are encoded once and stay on the device. It ends SECONDS after it began,
drawing included. OUT then holds bundle.tar (half precision), grid.npz (for `python -m foundation.likeness`), card.json
and state.tar.0 ...: the last checkpoint in pieces, to go on from on another machine (`cat state.tar.* | tar x -C WORK`
and the same command). Checkpoints are made every 90 seconds, in WORK and in OUT. What it costs is not measured yet.
"""

import argparse
import logging
import tarfile
import time
from pathlib import Path
from typing import Any

from foundation import album, perceptual
from foundation.arms import WEIGHTS, Pixels
from foundation.grid import draw_grid
from foundation.lesson import Lesson, build
from foundation.longrun import Clock, LongTrainer
from foundation.settings import RATE, hardware, long_stage1, studio
from iy import params
from iy.device import choose_device
from iy.diffusion import Base, load_base
from iy.errors import UserError
from iy.finetune import identity
from iy.model import Personaliser, bundle
from iy.storage import atomic_path, write_bytes, write_json

PIECE = 15 * 2**20  # bytes of a file that comes back, at most
ENDLESS = 10**9  # steps, where the time ends it
log = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--photos", type=Path, required=True, help="folder with people/ and held/ (foundation.pack)")
    made.add_argument("--weights", type=Path, default=Path("weights/text-only"), help="the frozen foundation")
    made.add_argument("--dlib", type=Path, default=None, help="packed dlib network; default: the installed package's")
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--work", type=Path, default=None, help="checkpoints; default .iy/stage1/ARM")
    made.add_argument("--arm", choices=WEIGHTS, default="pixels", help="with which identity loss")
    made.add_argument("--identity-weight", type=float, default=None, help=f"of the loss; default by arm: {WEIGHTS}")
    made.add_argument("--seconds", type=float, default=None, help="the whole run ends after these")
    made.add_argument("--later", type=float, default=0.0, help="seconds that other runs will add to the training")
    made.add_argument("--reserve", type=float, default=45.0, help="seconds of these for the last pictures and files")
    made.add_argument("--steps", type=int, default=ENDLESS)
    made.add_argument("--batch", type=int, default=512)
    made.add_argument("--rate", type=float, default=RATE)
    made.add_argument("--people", type=int, default=None, help="of those packed, at most")
    made.add_argument("--drawn", type=int, default=48, help="held-out people in the grid")
    made.add_argument("--prompts", type=int, default=4)
    made.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    return made


def main() -> None:
    began = time.monotonic()
    options = parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    try:
        run(options, began)
    except UserError as error:
        raise SystemExit(str(error)) from None


def run(options: argparse.Namespace, began: float) -> None:
    if options.seconds is None and options.steps == ENDLESS:
        raise UserError("say how long: --seconds, or --steps")
    device = choose_device(options.device)
    settings = long_stage1(
        studio(options.weights),
        rate=options.rate,
        batch=options.batch,
        steps=options.steps,
        precision="bf16" if device.type == "cuda" else "no",
        identity_weight=WEIGHTS[options.arm] if options.identity_weight is None else options.identity_weight,
    )
    base = load_base(settings.base, device)
    model = Personaliser(base, settings.model)
    photos, held = album.read(options.photos / "people", options.people), album.read(options.photos / "held")
    log.info("%d photos, %d of held-out people, on %s", len(photos.captions), len(held.captions), hardware(device))
    lessons = [build(one, base, settings, model.vision.image_size, one is photos) for one in (photos, held)]
    log.info("encoded after %.0f s", time.monotonic() - began)
    left = None if options.seconds is None else options.seconds - options.reserve - (time.monotonic() - began)
    if left is not None and left <= 0:
        raise UserError(f"--seconds {options.seconds:g} are over before the first step: give more, or less --reserve")
    trainer = train(options, settings, base, model, lessons, Clock(options.steps, left, options.later))
    draw_grid(model, base, held, settings, options.drawn, options.prompts, options.out / "grid.npz")
    log.info("all after %.0f s: %s", time.monotonic() - began, options.out)
    write_json(options.out / "card.json", card(options, settings, trainer, lessons[0]))


def train(
    options: argparse.Namespace,
    settings: params.Params,
    base: Base,
    model: Personaliser,
    lessons: list[Lesson],
    clock: Clock,
) -> LongTrainer:
    """`model` after the time is over, everything else in `options.out`."""
    work = options.work or Path(".iy/stage1") / options.arm
    arm = recogniser(options, settings, base, lessons[0])

    def keep(step: int) -> None:
        deliver(model, work, options.out, card(options, settings, trainer, lessons[0]))

    trainer = LongTrainer(model, base.scheduler, *lessons, settings, clock, arm, resume=work, keep=keep)
    trainer.train()
    return trainer


def recogniser(
    options: argparse.Namespace, settings: params.Params, base: Base, lesson: Lesson
) -> Pixels | identity.IdentityNet | None:
    if options.arm == "plain":
        return None
    if options.arm == "latents":
        chosen: Any = settings.finetune.training.identity_model
        return identity.load(chosen, tuple(lesson.latents.shape[1:])).to(base.device)
    net = perceptual.packed(options.dlib) if options.dlib else perceptual.shipped()
    return Pixels(base.vae, net, lesson)


def card(options: argparse.Namespace, settings: params.Params, trainer: LongTrainer, lesson: Lesson) -> dict:
    """What made the bundle, and how it went."""
    steps, seconds = trainer.curves["seconds"][-1]
    return {
        "arm": options.arm,
        "steps": int(steps),
        "seconds": round(seconds, 1),
        "batch": options.batch,
        "pictures_per_second": round(steps * options.batch / max(seconds, 1e-9), 1),
        "pictures": len(lesson.latents),
        "captions": len(lesson),
        "people": options.people,
        "hardware": hardware(trainer.accelerator.device),
        "recorded": getattr(trainer.once, "graph", None) is not None,
        "settings": settings.resolved(),
        "curves": trainer.curves,
    }


def deliver(model: Personaliser, work: Path, out: Path, said: dict) -> None:
    """The bundle as one file, the checkpoint in pieces, the card: few files, none of more than `PIECE` bytes."""
    out.mkdir(parents=True, exist_ok=True)
    bundle.save(model, work / "bundle", {name: said[name] for name in ("arm", "steps", "pictures", "batch")}, fp16=True)
    with atomic_path(out / "bundle.tar") as aside, tarfile.open(aside, "w") as tar:
        tar.add(work / "bundle", "pretrained")
    whole = work / "state.tar"
    with atomic_path(whole) as aside, tarfile.open(aside, "w") as tar:
        for folder in sorted(work.glob("step-*")):
            tar.add(folder, folder.name)
    with open(whole, "rb") as file:
        for number, piece in enumerate(iter(lambda: file.read(PIECE), b"")):
            write_bytes(out / f"state.tar.{number}", piece)
    write_json(out / "card.json", said)


if __name__ == "__main__":
    main()
