"""The one training engine: the four stages, and the shipped `pretrained` bundle, are this with other settings and data.

    trainer = Trainer(model, base.scheduler, examples, validation, settings, stage, seed=0)
    curves = trainer.train()            # the model then holds the averaged (EMA) weights

Step k follows from (seed, k) and the weights before it: a resumed training ends with the bytes of an undisturbed one.
"""

import contextlib
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel

from iy import params
from iy.errors import UserError
from iy.finetune import identity
from iy.finetune.checkpoint import load_checkpoint, save_checkpoint
from iy.finetune.examples import Batch, Examples, choose_references, random, rows_at
from iy.finetune.loader import Loader
from iy.finetune.loss import snr_weight, target, weighted_mse
from iy.finetune.progress import Progress, until_signal
from iy.model import Personaliser
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
        self.accelerator = Accelerator(mixed_precision=training.precision, cpu=model.device.type == "cpu")
        self.model, self.scheduler, self.stage, self.seed = model, scheduler, stage, seed
        self.settings, self.checkpoint_every = training, settings.checkpoint_every
        self.examples, self.validation, self.resume, self.preview = examples, validation, resume, preview
        self.run = run or StageRun(None, None)
        unet: Any = model.unet
        unet.to(memory_format=torch.channels_last)  # a fifth faster on CPUs; the numbers stay
        self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        for weight in self.weights.values():
            weight.data = weight.data.float()  # AdamW's small steps vanish in half precision
        self.ema = EMAModel(self.weights.values(), decay=training.ema_decay, foreach=True)
        self.ema.to(self.accelerator.device)
        self.wrapped, self.optimizer = self.accelerator.prepare(model, self.adamw())
        self.empty = examples.no_text()
        self.batches = Loader(
            examples,
            training,
            seed,
            DRAWS,
            stride=self.accelerator.num_processes,
            ahead=settings.prefetch,
            pinned=self.accelerator.device.type == "cuda",
        )
        self.recogniser = self.open_recogniser()
        self.curves: Curves = {"loss": [], "validation_loss": []}

    def adamw(self) -> torch.optim.Optimizer:
        """No weight decay on gains, biases and α."""
        matrices = [p for p in self.weights.values() if p.ndim > 1]
        vectors = [p for p in self.weights.values() if p.ndim <= 1]
        return torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": self.settings.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            self.stage.learning_rate,
            fused=True,
        )

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
        rows = self.settings.batch * self.settings.accumulate * self.accelerator.num_processes
        main = self.accelerator.is_main_process
        with until_signal() as stopped, Progress(self.stage.steps, first, rows, main) as progress:
            for step in range(first, self.stage.steps):
                loss = self.train_step(step)
                done = step + 1
                self.record("loss", done, loss)
                self.run.log_metrics({"learning_rate": self.rate(step), "images_per_second": progress.rate}, done)
                if done % self.settings.validate_every == 0 or done == self.stage.steps:
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
        self.ema.copy_to(self.weights.values())
        return self.curves

    def anywhere(self, stopped: bool) -> bool:
        """Whether any process was told to stop: all leave after the same step."""
        if self.accelerator.num_processes == 1:
            return stopped
        return bool(self.reduced(torch.tensor(float(stopped), device=self.accelerator.device), "sum") > 0)

    def reduced(self, value: torch.Tensor, how: str) -> torch.Tensor:
        """One tensor of those of all processes."""
        return cast(torch.Tensor, self.accelerator.reduce(value, how))  # a tensor for a tensor

    def train_step(self, step: int) -> float:
        """One optimiser step over `accumulate` batches; the mean loss over all processes."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        total = torch.zeros((), device=self.accelerator.device)
        for part in range(self.settings.accumulate):
            more = part + 1 < self.settings.accumulate
            with self.accelerator.no_sync(self.wrapped) if more else contextlib.nullcontext():
                loss = self.batch_loss(step, part) / self.settings.accumulate
                self.accelerator.backward(loss)
            total += loss.detach()
        self.accelerator.clip_grad_norm_(self.weights.values(), self.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.step(self.weights.values())
        value = self.reduced(total, "mean").item()
        if not math.isfinite(value):
            raise UserError(
                f"the loss became {value} at step {step + 1}: lower this stage's learning_rate, or set "
                "precision to bf16 or 'no'"
            )
        return value

    def rate(self, step: int) -> float:
        """Linear warm-up, then constant."""
        return self.stage.learning_rate * min(1.0, (step + 1) / max(1, self.stage.warmup))

    def batch_loss(self, step: int, part: int) -> torch.Tensor:
        """The loss of this process's rows of batch `part` of `step`, conditions dropped at random."""
        settings, count = self.settings, self.accelerator.num_processes
        drawn, seed, rng = self.batches((step * settings.accumulate + part) * count + self.accelerator.process_index)
        torch.manual_seed(seed)  # whatever in the model draws numbers follows the step too
        batch = self.move(drawn)
        t = torch.from_numpy(rng.integers(0, self.scheduler.config.num_train_timesteps, settings.batch))
        edges = np.cumsum([settings.drop_text, settings.drop_image, settings.drop_both])
        kind = torch.from_numpy(np.searchsorted(edges, rng.random(settings.batch), "right"))
        text, image, both = kind == 0, kind == 1, kind == 2  # what is dropped; 3: nothing
        return self.loss(batch, t, torch.randn(batch.latents.shape), text | both, image | both)

    def loss(
        self, batch: Batch, t: torch.Tensor, noise: torch.Tensor, no_text: torch.Tensor, no_image: torch.Tensor
    ) -> torch.Tensor:
        """Weighted error of the prediction at timesteps t (B,) for rows whose text or image may be left out (B,)."""
        device = self.accelerator.device
        t, noise = t.to(device), noise.to(device, batch.latents.dtype)
        text = without_text(batch.text, self.move_text(batch.latents.dtype), self.model.own, no_text.to(device))
        noised = self.scheduler.add_noise(batch.latents, noise, t)
        prediction = self.wrapped(noised, t, text, batch.references, ~no_image.to(device)[:, None], batch.sizes)
        error = weighted_mse(
            prediction,
            target(self.scheduler, batch.latents, noise, t),
            batch.weight,
            snr_weight(self.scheduler, t, self.settings.min_snr_gamma),
        )
        if self.recogniser is None:
            return error
        drawn = identity.clean(self.scheduler, noised, prediction, t)
        clear = self.scheduler.alphas_cumprod.to(device)[t] * ~no_image.to(device)  # noise hides who it is
        return error + self.settings.identity_weight * identity.loss(self.recogniser, drawn, batch.latents, clear)

    def move(self, batch: Batch) -> Batch:
        return batch.to(self.accelerator.device, self.model.dtype)

    def move_text(self, dtype: torch.dtype) -> dict:
        return {
            name: (hidden.to(self.accelerator.device, dtype), mask.to(self.accelerator.device))
            for name, (hidden, mask) in self.empty.items()
        }

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
            count = min(self.settings.validation_batches, -(-len(examples) // self.settings.batch))
            self.record("validation_loss", done, sum(self.validation_loss(examples, k) for k in range(count)) / count)
            if self.preview and self.accelerator.is_main_process:
                with self.accelerator.autocast():
                    self.preview(done)
        finally:
            self.model.train()
            self.ema.restore(self.weights.values())

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
        if self.resume and self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            save_checkpoint(
                self.resume,
                step=done,
                weights=self.weights,
                ema=self.ema.shadow_params,
                ema_step=self.ema.optimization_step,
                optimizer=self.optimizer,
                scaler=scaler.state_dict() if scaler else None,
                curves=self.curves,
            )

    def restore(self) -> int:
        """The step to go on from, with everything as `save` left it; 0 without a checkpoint."""
        state = self.resume and load_checkpoint(
            self.resume, weights=self.weights, ema=self.ema.shadow_params, optimizer=self.optimizer
        )
        if not state:
            return 0
        self.ema.optimization_step, self.curves = state["ema_step"], state["curves"]
        if state["scaler"] and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        log.info("continuing after step %d", state["step"])
        return state["step"]
