"""The one training engine: the four stages, and the shipped `pretrained` bundle, are this with other settings and data.

    trainer = Trainer(model, base.scheduler, examples, validation, settings, stage, seed=0)
    curves = trainer.train()            # the model then holds the averaged (EMA) weights

Step k follows from (seed, k) and the weights before it: a resumed training ends with the bytes of an undisturbed one.
"""

import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from iy import params
from iy.errors import UserError
from iy.finetune import identity, savings
from iy.finetune.average import averaged
from iy.finetune.examples import Batch, Examples, choose_references, random, rows_at
from iy.finetune.loader import Loader
from iy.finetune.loss import snr_weight, target, weighted_mse
from iy.finetune.optimizer import adamw
from iy.finetune.parallel import Replicated, reduced, rows_of
from iy.finetune.progress import Progress, until_signal
from iy.finetune.sharded import Sharded
from iy.model import Personaliser
from iy.model.attention import Tokens
from iy.model.conditioning import without_text
from iy.tracking import StageRun

DRAWS, VALIDATION = 2, 3  # purposes of random numbers: each has a stream of its own

log = logging.getLogger(__name__)
Curves = dict[str, list[list[float]]]  # name -> [step, value] pairs


class Trainer:
    """Trains `model` on `examples`.

    validation: examples of other people, or None. resume: folder of checkpoints; None keeps none. run: where curves go.
    preview: called as preview(step) with the averaged weights in place, to draw pictures.
    """

    def __init__(
        self,
        model: Personaliser,
        scheduler: Any,
        examples: Examples,
        validation: Examples | None,
        settings: params.Finetune,
        stage: params.Finetuning,
        *,
        seed: int,
        resume: Path | None = None,
        run: StageRun | None = None,
        preview: Callable[[int], None] | None = None,
    ):
        if len(examples) == 0:
            raise UserError("there is nothing to train on: no accepted photo or pair of the train split was found")
        training = settings.training
        if model.unet.dtype != torch.float32 and training.precision == "no":
            raise UserError(
                f"finetune.training.precision 'no' cannot train on a base of dtype {model.unet.dtype}".replace(
                    "torch.", ""
                )
                + ": use bf16 or fp16, or base.dtype float32"
            )
        savings.check(settings)
        self.accelerator = Accelerator(mixed_precision=training.precision, cpu=model.device.type == "cpu")
        refuse_others_sharding()
        self.model, self.scheduler, self.stage, self.seed = model, scheduler, stage, seed
        self.settings, self.savings, self.checkpoint_every = training, settings.savings, settings.checkpoint_every
        self.examples, self.validation, self.resume, self.preview = examples, validation, resume, preview
        self.run = run or StageRun(None, None)
        unet: Any = model.unet
        unet.to(memory_format=torch.channels_last)  # a fifth faster on CPUs; the numbers stay
        savings.apply(model, settings.savings)
        self.rows = rows_of(self.accelerator, training.batch)
        self.parallel = (
            Sharded(self.accelerator, model)
            if settings.parallel.sharding == "fsdp"
            else Replicated(self.accelerator, model)
        )
        self.weights = self.parallel.weights
        self.ema = averaged(
            self.weights.values(), training.ema_decay, self.accelerator.device, settings.savings.average
        )
        self.optimizer = self.parallel.prepare(self.adamw())
        self.empty = self.move_text(examples.no_text())
        self.batches = Loader(
            examples,
            training,
            seed,
            DRAWS,
            rows=self.rows,
            ahead=settings.prefetch,
            pinned=self.accelerator.device.type == "cuda",
        )
        self.recogniser = self.open_recogniser()
        self.curves: Curves = {"loss": [], "validation_loss": []}
        self.unread: list[torch.Tensor] = []  # losses of the last steps, on the device

    def adamw(self) -> torch.optim.Optimizer:
        """No weight decay on gains, biases and α."""
        matrices = [p for p in self.weights.values() if p.ndim > 1]
        vectors = [p for p in self.weights.values() if p.ndim <= 1]
        return adamw(matrices, vectors, self.stage.learning_rate, self.settings.weight_decay, self.savings)

    def open_recogniser(self) -> identity.IdentityNet | None:
        """The network of the identity loss, or None without one."""
        if not self.settings.identity_weight or self.settings.identity_model is None:
            return None
        return identity.load(self.settings.identity_model, tuple(self.examples.latents.shape[1:])).to(
            self.accelerator.device
        )

    def train(self) -> Curves:
        """Run every step that is not done yet. A signal makes it save a checkpoint and leave with exit code 1."""
        first = self.restore()
        self.model.train()
        rows = self.settings.batch * self.settings.accumulate
        main = self.accelerator.is_main_process
        with until_signal() as stopped, Progress(self.stage.steps, first, rows, main) as progress:
            for step in range(first, self.stage.steps):
                self.unread.append(self.train_step(step))
                done = step + 1
                if not self.to_read(done):
                    progress.advance(None)
                    continue
                loss = self.read(done)
                self.run.log_metrics({"learning_rate": self.rate(step), "images_per_second": progress.rate}, done)
                if self.ends(done, self.settings.validate_every):
                    self.validate(done)
                leave = self.anywhere(bool(stopped))
                if leave or (done % self.checkpoint_every == 0 and done < self.stage.steps):
                    self.save(done)
                if leave:
                    raise SystemExit(
                        f"interrupted after step {done} of {self.stage.steps}: run the same command again to continue"
                    )
                progress.advance(loss)
        self.batches.close()
        self.ema.finish()
        self.parallel.finish(dict(zip(self.weights, self.ema.shadow_params, strict=True)))
        return self.curves

    def ends(self, done: int, every: int) -> bool:
        return done % every == 0 or done == self.stage.steps

    def to_read(self, done: int) -> bool:
        """Whether somebody wants to know the losses after this step: reading them waits for the device."""
        every = (self.savings.fetch_every, self.settings.validate_every, self.checkpoint_every)
        return any(self.ends(done, one) for one in every)

    def anywhere(self, stopped: bool) -> bool:
        """Whether any process was told to stop: all leave after the same step."""
        if self.accelerator.num_processes == 1:
            return stopped
        return bool(reduced(self.accelerator, torch.tensor(float(stopped), device=self.accelerator.device), "sum") > 0)

    def train_step(self, step: int) -> torch.Tensor:
        """One optimiser step over `accumulate` batches; this process's share of the mean loss, on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        total = torch.zeros((), device=self.accelerator.device)
        for part in range(self.settings.accumulate):
            with self.parallel.accumulating(part + 1 < self.settings.accumulate):
                loss = self.batch_loss(step, part) / self.settings.accumulate
                self.accelerator.backward(loss)
            total += loss.detach()
        self.parallel.collect()
        self.parallel.clip(self.settings.clip_norm)
        self.ema.give_back()
        self.optimizer.step()
        self.parallel.clear()
        self.ema.step(self.weights.values())
        return total

    def read(self, done: int) -> float:
        """Record the losses since the last reading, `done` being the last one's step; that one, if all are finite."""
        values = reduced(self.accelerator, torch.stack(self.unread), "mean").tolist()
        self.unread.clear()
        for step, value in enumerate(values, done + 1 - len(values)):
            if not math.isfinite(value):
                raise UserError(
                    f"the loss became {value} at step {step}: lower this stage's learning_rate, or set "
                    "precision to bf16 or 'no'"
                )
            self.record("loss", step, value)
        return values[-1]

    def rate(self, step: int) -> float:
        """Linear warm-up, then constant."""
        return self.stage.learning_rate * min(1.0, (step + 1) / max(1, self.stage.warmup))

    def batch_loss(self, step: int, part: int) -> torch.Tensor:
        """The loss of batch `part` of `step`, conditions dropped at random; of several processes' the mean is that."""
        settings, mine = self.settings, self.rows
        drawn, seed, rng = self.batches(step * settings.accumulate + part)
        torch.manual_seed(seed)  # whatever in the model draws numbers follows the step too
        batch = self.move(drawn)
        t = torch.from_numpy(rng.integers(0, self.scheduler.config.num_train_timesteps, settings.batch))
        edges = np.cumsum([settings.drop_text, settings.drop_image, settings.drop_both])
        kind = torch.from_numpy(np.searchsorted(edges, rng.random(settings.batch), "right"))
        text, image, both = kind == 0, kind == 1, kind == 2  # what is dropped; 3: nothing
        noise = torch.randn(settings.batch, *batch.latents.shape[1:])
        loss = self.loss(batch, t[mine], noise[mine], (text | both)[mine], (image | both)[mine])
        share = (mine.stop - mine.start) * self.accelerator.num_processes / settings.batch
        return loss if share == 1 else loss * share

    def loss(
        self, batch: Batch, t: torch.Tensor, noise: torch.Tensor, no_text: torch.Tensor, no_image: torch.Tensor
    ) -> torch.Tensor:
        """Weighted error of the prediction at timesteps t (B,) for rows whose text or image may be left out (B,)."""
        t, noise, no_text, no_image = (self.sent(one) for one in (t, noise.to(batch.latents.dtype), no_text, no_image))
        text = without_text(batch.text, self.empty, self.model.own, no_text)
        noised = self.scheduler.add_noise(batch.latents, noise, t)
        prediction = self.parallel.wrapped(noised, t, text, batch.references, ~no_image[:, None], batch.sizes)
        error = weighted_mse(
            prediction,
            target(self.scheduler, batch.latents, noise, t),
            batch.weight,
            snr_weight(self.scheduler, t, self.settings.min_snr_gamma),
        )
        if self.recogniser is None:
            return error
        drawn = identity.clean(self.scheduler, noised, prediction, t)
        clear = self.scheduler.alphas_cumprod.to(t.device)[t] * ~no_image  # noise hides who it is
        return error + self.settings.identity_weight * identity.loss(self.recogniser, drawn, batch.latents, clear)

    def move(self, batch: Batch) -> Batch:
        return batch.to(self.accelerator.device, self.model.dtype)

    def move_text(self, text: Tokens) -> Tokens:
        device, dtype = self.accelerator.device, self.model.dtype
        return {name: (hidden.to(device, dtype), mask.to(device)) for name, (hidden, mask) in text.items()}

    def sent(self, value: torch.Tensor) -> torch.Tensor:
        """On the device; a GPU copies it by itself, when it comes to it."""
        device = self.accelerator.device
        return value.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else value.to(device)

    @torch.no_grad()
    def validate(self, done: int) -> None:
        """Loss of the averaged weights on other people, always with the same noise and timesteps, and pictures."""
        examples = self.validation
        if not examples:
            return
        self.ema.store(self.weights.values())
        self.ema.copy_to(self.weights.values())
        self.model.eval()
        try:
            with savings.uncompiled(self.savings):
                count = min(self.settings.validation_batches, -(-len(examples) // self.settings.batch))
                losses = [self.validation_loss(examples, k) for k in range(count)]
                self.record("validation_loss", done, sum(losses) / count)
                self.draw(done)
        finally:
            self.model.train()
            self.ema.restore(self.weights.values())

    def draw(self, done: int) -> None:
        if self.preview is None:
            return
        with self.parallel.drawing() as mine, self.accelerator.autocast():
            if mine:
                self.preview(done)

    def validation_loss(self, examples: Examples, k: int) -> float:
        count = self.settings.batch
        chosen = rows_at(self.seed, k * count, count, examples.order)
        rng = random(self.seed, VALIDATION, k)
        references = choose_references(examples, chosen, 1.0, rng)
        batch = self.move(examples.batch(chosen, references, self.settings.face_weight))
        t = torch.linspace(0, self.scheduler.config.num_train_timesteps - 1, count).long()
        noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(int(rng.integers(2**62))))
        nothing = torch.zeros(count, dtype=torch.bool)
        with self.accelerator.autocast():
            return self.loss(batch, t, noise, nothing, nothing).item()

    def record(self, name: str, step: int, value: float) -> None:
        self.curves[name].append([step, value])
        self.run.log_metrics({name: value}, step)

    def save(self, done: int) -> None:
        if not self.resume:
            return
        self.ema.finish()
        scaler = self.accelerator.scaler
        self.parallel.save(
            self.resume,
            step=done,
            ema=self.ema.shadow_params,
            ema_step=self.ema.optimization_step,
            scaler=scaler.state_dict() if scaler else None,
            curves=self.curves,
        )

    def restore(self) -> int:
        """The step to go on from, with everything as `save` left it; 0 without a checkpoint."""
        state = self.resume and self.parallel.load(self.resume, self.ema.shadow_params)
        if not state:
            return 0
        self.ema.optimization_step, self.curves = state["ema_step"], state["curves"]
        if state["scaler"] and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        log.info("continuing after step %d", state["step"])
        return state["step"]


def refuse_others_sharding() -> None:
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        raise UserError(
            "finetune.parallel.accelerate: its file shards the model (FSDP, DeepSpeed), which iy does itself: choose "
            "multi-GPU there, and finetune.parallel.sharding: fsdp here"
        )
