"""The parts of what ships, in order, and what each is made from. A part is made when first asked for, or read back.

Nothing here knows people: the U-Net, the text encoders and the autoencoder learn from renders and captions (the
autoencoder's perceptual loss is `foundation.perceptual`). `identity` and `pretrained` come after it and on top of it.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import ByT5Tokenizer, T5EncoderModel

from foundation import autoencoder, captions, identity, language, perceptual, probes, renders, unet
from foundation.renders import Group
from foundation.train import Plan
from iy import params
from iy.device import choose_device
from iy.evaluate.probes import ProbeNet
from iy.finetune.identity import IdentityNet
from iy.narration import Caption

WORK = Path(".iy/foundation")
WORKERS = params.Workers(map="processes", count=2, address=None)
GROUPS = {  # of renders; the foundation learns from the first two, `pretrained` from the second alone
    "base": Group(0, 1500, 2),
    "people": Group(400_000, 6000, 1),
    "held": Group(900_000, 100, 6),  # no part ever learns from these
}
STEPS = {
    "vae": 6000,
    "clip_text": 2000,
    "clip": 3000,
    "t5": 3000,
    "byt5": 4000,
    "unet": 8000,
    "probes": 5000,
    "identity": 4000,
    "pretrained": 3000,
}
BATCH = {
    "vae": 64,
    "clip_text": 256,
    "clip": 256,
    "t5": 256,
    "byt5": 256,
    "unet": 512,
    "probes": 256,
    "identity": 512,
    "pretrained": 512,
}
VIEWS = 4  # of a render that the U-Net sees, and as many of its mirror image


class Recipe:
    """groups: of renders, as in `GROUPS`; scale: the share of `STEPS` that is trained, unless `steps` says; seconds:
    when parts end at the latest."""

    def __init__(
        self,
        groups: Mapping[str, Group],
        device: str,
        scale: float = 1.0,
        steps: Mapping[str, int] | None = None,
        batch: Mapping[str, int] | None = None,
        seconds: Mapping[str, float] | None = None,
    ):
        self.groups, self.device = groups, choose_device(device)
        self.steps = {name: max(4, round(count * scale)) for name, count in STEPS.items()} | dict(steps or {})
        self.batch = BATCH | dict(batch or {})
        self.seconds = dict(seconds or {})
        sizes = "-".join(f"{group.people}x{group.shots}" for group in groups.values())
        self.work = WORK / f"{renders.looks()}-{sizes}-{scale:g}"
        self.work.mkdir(parents=True, exist_ok=True)

    def plan(self, part: str, rate: float) -> Plan:
        size = self.steps[part], rate, self.batch[part]
        return Plan(part, self.work, *size, self.device, self.seconds.get(part))

    def render(self, name: str) -> renders.Renders:
        return renders.render(WORK / "renders", self.groups[name], WORKERS)

    @cached_property
    def base(self) -> renders.Renders:
        return renders.together(self.render("base"), self.people)

    @cached_property
    def people(self) -> renders.Renders:
        return self.render("people")

    @cached_property
    def held(self) -> renders.Renders:
        return self.render("held")

    @cached_property
    def vae(self) -> AutoencoderKL:
        net = perceptual.shipped().to(memory_format=torch.channels_last)
        return autoencoder.train(
            autoencoder.build(), self.base, net, self.plan("vae", autoencoder.RATE)
        ).requires_grad_(False)

    @cached_property
    def captions(self) -> list[list[Caption]]:
        """Of the renders, then of their mirror images; `captions.STYLES` each."""
        return captions.captions(self.base) + captions.captions(self.base, mirror=True)

    @cached_property
    def flat(self) -> list[Caption]:
        return [one for several in self.captions for one in several]

    @cached_property
    def read(self) -> list[Caption]:
        """What the T5 and ByT5 kinds learn to read: incomplete, long and misspelt too, with words in quotes."""
        return captions.read(self.base)

    @cached_property
    def tokenizer(self):
        return language.clip_tokenizer([one.text for one in self.flat], self.work)

    @cached_property
    def clip_tokens(self) -> language.Tokens:
        return language.Tokens(self.tokenizer, self.flat, language.LENGTH)

    @cached_property
    def clip(self) -> language.Clip:
        tokenizer = self.tokenizer
        text = language.clip_text(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id, seed=3)
        clip = language.Clip(text, language.clip_vision(3))
        clip.reader = language.train_reader(
            self.clip_tokens, text, language.WIDTH, False, self.plan("clip_text", language.READING), 3
        ).train()
        turned = np.where(self.base.turns[:, None, None, None], self.base.images[:, :, ::-1], self.base.images)
        images = autoencoder.tensor(np.concatenate([self.base.images, turned]))
        shown = self.base.attributes + self.base.turned
        plan = self.plan("clip", language.RATE)
        return language.train_clip(clip, self.clip_tokens, len(captions.STYLES), images, shown, plan)

    @cached_property
    def t5_tokenizer(self):
        return language.t5_tokenizer([one.text for one in self.read])

    @cached_property
    def t5(self) -> T5EncoderModel:
        return self.t5_kind("t5", self.t5_tokenizer, language.LONG, spells=False, seed=6)

    @cached_property
    def byt5(self) -> T5EncoderModel:
        return self.t5_kind("byt5", ByT5Tokenizer(extra_ids=0), language.BYTES, spells=True, seed=7)

    def t5_kind(self, part: str, tokenizer, length: int, spells: bool, seed: int) -> T5EncoderModel:
        encoder = language.t5_encoder(len(tokenizer), seed)
        tokens, plan = language.Tokens(tokenizer, self.read, length), self.plan(part, language.READING)
        return language.train_reader(tokens, encoder, encoder.config.d_model, spells, plan, seed).encoder

    @cached_property
    def views(self) -> torch.Tensor:
        return unet.views(self.vae, self.base.images, VIEWS, self.base.turns)

    @cached_property
    def lesson(self) -> unet.Lesson:
        empty = language.Tokens(self.tokenizer, [Caption("", {}, ())], language.LENGTH)
        states, mask = language.encoded(self.clip.text, self.clip_tokens, self.device)
        nothing, real = language.encoded(self.clip.text, empty, self.device)
        styles, count = len(captions.STYLES), len(self.base.images)
        row = torch.arange(2 * VIEWS * count, device=self.device)
        shown = row % count + count * (row >= VIEWS * count)  # the render, or its mirror image
        return unet.Lesson(self.views, shown * styles, styles, torch.cat([states, nothing]), torch.cat([mask, real]))

    @cached_property
    def unet(self) -> UNet2DConditionModel:
        return unet.train(unet.build(), self.lesson, self.plan("unet", unet.RATE))

    @cached_property
    def probes(self) -> ProbeNet:
        plan = self.plan("probes", probes.RATE)
        return probes.train(
            self.base, lambda: autoencoder.reconstructions(self.vae, self.views[: len(self.base.images)].float()), plan
        )

    @cached_property
    def identity(self) -> IdentityNet:
        seen = unet.views(self.vae, self.people.images, 2, self.people.turns)
        return identity.train(self.people, seen, self.plan("identity", identity.RATE))

    @cached_property
    def clip_text(self) -> nn.Module:
        return self.clip.text
