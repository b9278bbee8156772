"""`iy.finetune`'s own Trainer for a machine that is had by the minute: it ends when its time is over.

The loss, the conditions that are dropped, averaging, checkpoints and validation are the Trainer's. Here are: the rate
that comes down as the time goes, steps of fixed shapes that a GPU records once and replays (`foundation.train`), and
losses that are read back now and then only, since reading makes a GPU wait.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foundation.arms import SEEN, Pixels
from foundation.lesson import Draws, Lesson, Shown
from foundation.train import Recorded, falling
from iy import params
from iy.finetune import identity
from iy.finetune.progress import until_signal
from iy.finetune.trainer import Curves, Trainer
from iy.model import Personaliser

TOLD, KEPT, READ = 10.0, 90.0, 20  # seconds between lines and between checkpoints; steps between readings
SPENT = "seconds"  # curve of [steps done, seconds trained]

log = logging.getLogger(__name__)


class Clock:
    """How much of the training is over: by steps or by time, whichever is ahead. seconds None: by steps alone.

    later: seconds that other runs will add, so that the rate comes down over all of them.
    """

    def __init__(self, steps: int, seconds: float | None = None, later: float = 0.0):
        self.steps, self.seconds, self.later = steps, seconds, later
        self.before, self.began = 0.0, time.monotonic()

    def start(self, before: float) -> None:
        """From now on; `before` seconds were trained by earlier runs."""
        self.before, self.began = before, time.monotonic()

    @property
    def now(self) -> float:
        return time.monotonic() - self.began

    @property
    def spent(self) -> float:
        return self.before + self.now

    def gone(self, step: int) -> float:
        """0 at the start, 1 at the end of all runs."""
        done = step / self.steps
        return done if self.seconds is None else max(done, self.spent / (self.before + self.seconds + self.later))

    def over(self, step: int) -> bool:
        """Whether this run is to end."""
        return step >= self.steps or (self.seconds is not None and self.now >= self.seconds)


class LongTrainer(Trainer):
    """recogniser: the identity loss of the arm, or None. keep: called as keep(step) with the averaged weights in place.

    resume: folder of checkpoints.
    """

    examples: Any  # a `Lesson`
    validation: Any  # likewise

    def __init__(
        self,
        model: Personaliser,
        scheduler: Any,
        lesson: Lesson,
        held: Lesson,
        settings: params.Params,
        clock: Clock,
        recogniser: Pixels | identity.IdentityNet | None,
        *,
        resume: Path | None,
        keep: Callable[[int], None] | None = None,
    ):
        self.clock, self.arm, self.keep = clock, recogniser, keep
        self.seen = round(SEEN * settings.finetune.training.batch) if isinstance(recogniser, Pixels) else 0
        stage: Any = settings.finetune.stages["1"]
        super().__init__(
            model,
            scheduler,
            lesson,
            held,
            settings.finetune,
            stage,
            seed=settings.seed,
            resume=resume,  # pyright: ignore
        )
        self.curves |= {SPENT: []}
        self.apart = torch.zeros((), device=self.accelerator.device)  # of the loss: what the identity adds
        on_gpu = self.accelerator.device.type == "cuda"
        self.once = Recorded(self.eager, self.on_device) if on_gpu else lambda draws: self.eager(self.on_device(draws))

    def open_recogniser(self) -> Any:
        return self.arm

    def adamw(self) -> torch.optim.Optimizer:
        """On a GPU one whose step can be recorded: its rate is a tensor there."""
        optimizer = super().adamw()
        if self.accelerator.device.type == "cuda":
            for group in optimizer.param_groups:
                group["capturable"] = True
                group["lr"] = torch.tensor(float(group["lr"]), device=self.accelerator.device)
        return optimizer

    def rate(self, step: int) -> float:
        """Linear warm-up, then down along a cosine to a fiftieth."""
        warm = min(1.0, (step + 1) / max(1, self.stage.warmup))
        return self.stage.learning_rate * warm * falling(self.clock.gone(step))

    def train(self) -> Curves:
        """Until the clock says so. A signal makes it save a checkpoint and leave with exit code 1."""
        step = first = self.restore()
        self.clock.start(self.curves[SPENT][-1][1] if self.curves[SPENT] else 0.0)
        self.model.train()
        told = kept = time.monotonic()
        mean: torch.Tensor | None = None
        with until_signal() as stopped:
            while not stopped and not self.clock.over(step):
                value = self.one_step(step)
                mean = value.clone() if mean is None else mean.lerp_(value, 0.05)
                step += 1
                if step % READ == 0 or self.accelerator.device.type == "cpu":
                    numbers = mean.tolist()  # waits for the GPU: the clock must not run ahead of it
                    if time.monotonic() - told > TOLD:
                        told = time.monotonic()
                        self.tell(step, first, numbers)
                    if time.monotonic() - kept > KEPT:
                        self.put_down(step)
                        kept = time.monotonic()
            self.put_down(step)
            if stopped:
                raise SystemExit(f"interrupted after step {step}: run the same command again to continue")
        self.ema.copy_to(self.weights.values())
        return self.curves

    def one_step(self, step: int) -> torch.Tensor:
        """The loss and the identity's part of it (2,), on the device."""
        rate = self.rate(step)
        for group in self.optimizer.param_groups:
            if torch.is_tensor(group["lr"]):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        draws = self.examples.draws(self.seed, step, self.settings, self.timesteps, self.seen)
        torch.manual_seed(int(draws.pop("seed")))
        value = self.once(draws)
        self.ema.step(self.weights.values())
        return value

    @property
    def timesteps(self) -> int:
        return self.scheduler.config.num_train_timesteps

    def eager(self, draws: Draws) -> torch.Tensor:
        """One optimiser step; nothing in it is read back."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss_of(self.examples, draws)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(list(self.weights.values()), self.settings.clip_norm)
        self.optimizer.step()
        return torch.stack([loss.detach().float(), self.apart.float()])

    def on_device(self, draws: Draws) -> Draws:
        return {name: value.to(self.accelerator.device, non_blocking=True) for name, value in draws.items()}

    def loss_of(self, lesson: Lesson, draws: Draws) -> torch.Tensor:
        batch = lesson.batch(draws)
        noise = torch.randn(batch.latents.shape, device=batch.latents.device)
        return self.loss(batch, draws["t"], noise, draws["no_text"], draws["no_image"])

    def unlike(self, drawn: torch.Tensor, batch: Any, clear: torch.Tensor) -> torch.Tensor:
        if isinstance(self.arm, Pixels):
            value = self.arm.unlike(drawn, batch, clear)
        else:
            value = super().unlike(drawn, batch, clear)
        self.apart = self.settings.identity_weight * value.detach()
        return value

    def move(self, batch: Shown) -> Shown:
        """It is where it belongs."""
        return batch

    def validation_loss(self, examples: Lesson, k: int) -> float:
        """On other people, always with the same noise and timesteps."""
        draws = examples.draws(self.seed, k, self.settings, self.timesteps, self.seen)
        torch.manual_seed(int(draws.pop("seed")))
        draws["t"] = torch.linspace(0, self.timesteps - 1, self.settings.batch).long()
        draws["no_text"], draws["no_image"] = (torch.zeros(self.settings.batch, dtype=torch.bool) for _ in range(2))
        with self.accelerator.autocast():
            return self.loss_of(examples, self.on_device(draws)).item()

    def tell(self, step: int, first: int, numbers: list[float]) -> None:
        loss, apart = numbers
        speed = (step - first) * self.settings.batch / self.clock.now
        self.curves["loss"].append([step, loss])
        log.info(
            "step %d, %.0f s, %d %% over: loss %.4f, of it identity %.4f, rate %.2g, %.0f pictures/s",
            step,
            self.clock.spent,
            100 * self.clock.gone(step),
            loss,
            apart,
            self.rate(step),
            speed,
        )
        if not np.isfinite(loss):
            raise SystemExit(f"the loss became {loss} by step {step}: lower --rate; the last checkpoint is whole")

    def put_down(self, step: int) -> None:
        """Validate, and keep what is needed to go on."""
        self.validate(step)
        self.curves[SPENT].append([step, self.clock.spent])
        self.save(step)
        if self.keep:
            self.ema.store(self.weights.values())
            self.ema.copy_to(self.weights.values())
            try:
                self.keep(step)
            finally:
                self.ema.restore(self.weights.values())
