"""The parts of the foundation and what each is made from. A part is made when it is first asked for, or read back.

A part in `keep` is taken as it ships; the training of one in `start` begins with what ships, at a somewhat lower rate.
"""

import platform
from collections.abc import Callable, Collection, Mapping
from functools import cache, cached_property
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch.nn import Module
from tqdm import tqdm
from transformers import ByT5Tokenizer, CLIPImageProcessor, T5EncoderModel

from iy import params
from iy.diffusion import Base, load_base
from iy.finetune import identity as identity_loss
from iy.storage import atomic_path, sha256, write_json
from iy.studio.foundation import autoencoder, identity, language, probes, quality, renders, unet
from iy.studio.foundation.train import Plan
from iy.studio.probes import ProbeNet, Probes, save_probes

WORK, WEIGHTS = Path(".iy/foundation"), Path("weights/studio")
HELD_FIRST, HELD_PEOPLE, HELD_SHOTS = 900_000, 100, 6  # people whom no part ever learns from
CAPTIONS = 3  # of each render
WORKERS = 2
KEEP, START = ("vae", "t5", "byt5"), ("vae", "clip", "t5", "byt5", "unet")
BRANCH = {"t5": "ul2", "byt5": "byt5"}  # of the text encoders, in the settings
FURTHER, SUFFIX = 0.8, "-further"  # share of the first training's rate, and what a part is then called
STEPS = {  # what one to two hours on two CPU cores allow; the losses were still falling
    "vae": 4200,
    "clip_text": 800,
    "clip": 900,
    "t5": 800,
    "byt5": 300,
    "probes": 2500,
    "unet": 3100,
    "identity": 2000,
}


class Recipe:
    """Renders of `people` persons, `shots` each; `scale`: the share of `STEPS` that is trained, unless `steps` says."""

    def __init__(
        self,
        people: int,
        shots: int,
        scale: float = 1.0,
        steps: Mapping[str, int] | None = None,
        keep: Collection[str] = (),
        start: Collection[str] = (),
    ):
        self.people, self.shots, self.keep, self.start = people, shots, keep, start
        self.steps = {name: max(10, round(count * scale)) for name, count in STEPS.items()} | dict(steps or {})
        self.work = WORK / f"{people}-{shots}-{scale:g}"
        self.work.mkdir(parents=True, exist_ok=True)

    @cached_property
    def train(self) -> renders.Renders:
        return renders.render(WORK / "renders", 0, self.people, self.shots, WORKERS)

    @cached_property
    def held(self) -> renders.Renders:
        return renders.render(WORK / "renders", HELD_FIRST, HELD_PEOPLE, HELD_SHOTS, WORKERS)

    @cached_property
    def faces(self) -> renders.Faces:
        return renders.faces(self.train.photos, self.work, WORKERS)

    @cached_property
    def held_faces(self) -> renders.Faces:
        return renders.faces(self.held.photos, self.work, WORKERS, "held-faces")

    @cached_property
    def shipped(self) -> Base:
        return load_base(params.load("studio").base)

    def plan(self, part: str, rate: float) -> Plan:
        """How `part` is trained; one that begins with what ships has a name of its own, and learns slower."""
        name, share = (part + SUFFIX, FURTHER) if part in self.start else (part, 1.0)
        return Plan(name, self.work, self.steps[part], share * rate)

    def begin(self, part: str, shipped: Callable[[], Module], build: Callable[[], Module]) -> Module:
        """The module that the training of `part` begins with."""
        return shipped().requires_grad_(True).train() if part in self.start else build()

    @cached_property
    def vae(self) -> AutoencoderKL:
        if "vae" in self.keep:
            return self.shipped.vae
        vae = self.begin("vae", lambda: self.shipped.vae, autoencoder.build)
        return autoencoder.train(vae, self.train.images, self.faces.box, self.plan("vae", autoencoder.RATE))

    @cached_property
    def latents(self) -> torch.Tensor:
        """Of the renders, scaled as the U-Net sees them (N, 4, 16, 16)."""
        whose = sha256(b"".join(weight.detach().numpy().tobytes() for weight in self.vae.parameters()))[:12]
        path = self.work / f"latents-{whose}.safetensors"
        if not path.exists():
            with atomic_path(path) as aside:
                save_file({"latents": autoencoder.latents(self.vae, self.train.images).contiguous()}, aside)
        return load_file(path)["latents"]

    @cached_property
    def probes(self) -> ProbeNet:
        decoded = cache(lambda: autoencoder.reconstructions(self.vae, self.latents))
        return probes.train(self.train, decoded, self.plan("probes", probes.RATE))

    @cached_property
    def texts(self) -> list[list[str]]:
        """Several captions of each render."""
        count = len(self.train.images)
        return [[language.caption(self.train, i, k) for k in range(CAPTIONS)] for i in tqdm(range(count), "captions")]

    @cached_property
    def words(self) -> list[str]:
        return [text for many in self.texts for text in many]

    @cached_property
    def tokenizer(self):
        return language.clip_tokenizer(self.words, self.work)

    @cached_property
    def clip_text(self) -> language.Reader:
        tokenizer = self.tokenizer
        encoder = language.clip_text(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id, seed=3)
        return self.reader("clip_text", tokenizer, encoder, language.WIDTH, language.LENGTH, 3)

    @cached_property
    def clip(self) -> language.Clip:
        vision = self.begin("clip", lambda: self.shipped.vision, lambda: language.clip_vision(3))
        return language.train_clip(
            self.tokenizer,
            language.Clip(self.clip_text, vision),
            self.train,
            self.texts,
            self.faces.crops,
            identity.people(self.train, self.faces),
            self.plan("clip", language.RATE),
        )

    @cached_property
    def t5_tokenizer(self):
        if "t5" in (*self.keep, *self.start):
            return self.shipped.text["ul2"].tokenizer
        return language.t5_tokenizer(self.words)

    @cached_property
    def t5(self) -> T5EncoderModel:
        return self.t5_kind("t5", self.t5_tokenizer, language.LONG, 6)

    @cached_property
    def byt5(self) -> T5EncoderModel:
        return self.t5_kind("byt5", ByT5Tokenizer(extra_ids=0), language.BYTES, 7)

    def t5_kind(self, part: str, tokenizer, length: int, seed: int) -> T5EncoderModel:
        if part in self.keep:
            return self.shipped.text[BRANCH[part]].encoder
        encoder = self.begin(
            part,
            lambda: self.shipped.text[BRANCH[part]].encoder,
            lambda: language.t5_encoder(len(tokenizer), seed),
        )
        return self.reader(part, tokenizer, encoder, encoder.config.d_model, length, seed).encoder

    def reader(self, part: str, tokenizer, encoder, width: int, length: int, seed: int) -> language.Reader:
        one_each = [many[i % CAPTIONS] for i, many in enumerate(self.texts)]
        plan = self.plan(part, language.READING)
        return language.train_reader(tokenizer, encoder, width, one_each, length, plan, seed)

    @cached_property
    def unet(self) -> UNet2DConditionModel:
        encode = unet.text_encoder(self.tokenizer, self.clip.text)
        model = self.begin("unet", lambda: self.shipped.unet, unet.build)
        boxes = self.faces.box * self.latents.shape[-1] / renders.SIDE
        return unet.train(model, self.latents, boxes, self.texts, encode, self.plan("unet", unet.RATE))

    @cached_property
    def identity(self) -> identity_loss.IdentityNet:
        return identity.train(self.train, self.faces, self.latents, self.plan("identity", identity.RATE))


def half(module: Module, folder: Path) -> None:
    """Save as fp16 safetensors; the loader widens them to the dtype the settings ask for."""
    module.half().to(memory_format=torch.contiguous_format).save_pretrained(folder)
    module.float()


def publish(recipe: Recipe, command: str) -> None:
    """Make every part, write the weights, and measure them on held-out people for the card."""
    seen = probes.accuracy(recipe.probes, recipe.held)
    save(recipe, seen)
    card = {
        "command": command,
        "steps": recipe.steps,
        "people": recipe.people,
        "renders": len(recipe.train.images),
        "data": f"renders of anny people (CC0 data), seeds 0 to {recipe.people - 1}",
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} CPU threads",
        "licence": "Apache-2.0",
        "people_told_apart": quality.told_apart(recipe.held_faces.box, recipe.held_faces.embedding, HELD_SHOTS),
        "psnr_db_unseen_people": round(autoencoder.psnr(recipe.vae, recipe.held.images), 2),
        "probe_accuracy_on_renders": {name: round(value, 4) for name, value in seen.items()},
        "identity_rank1_of_100_unseen_people": round(
            identity.rank1(recipe.identity, autoencoder.latents(recipe.vae, recipe.held.images), HELD_SHOTS), 4
        ),
    }
    card |= quality.measure(Probes(recipe.probes, {}), recipe.train.attributes)
    write_json(WEIGHTS / "CARD.json", card)


def save(recipe: Recipe, accuracy: dict[str, float]) -> None:
    """Write every part; `accuracy`: the probes' own, kept beside them."""
    out = WEIGHTS / "foundation"
    save_language(recipe, out)
    DDPMScheduler(**unet.SCHEDULE).save_pretrained(out / "scheduler")
    half(recipe.unet, out / "unet")  # before the autoencoder is rounded: the U-Net's latents are the unrounded one's
    half(recipe.vae, out / "vae")
    save_probes(recipe.probes, accuracy, WEIGHTS / "probes")
    identity_loss.save(recipe.identity, WEIGHTS / "identity")


def save_language(recipe: Recipe, out: Path) -> None:
    recipe.tokenizer.save_pretrained(out / "text_clip")
    half(recipe.clip.text, out / "text_clip")
    half(recipe.clip.vision, out / "vision")
    CLIPImageProcessor(
        size={"shortest_edge": renders.SIDE}, crop_size=renders.SIDE, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(out / "vision")
    for part, tokenizer in (("t5", recipe.t5_tokenizer), ("byt5", ByT5Tokenizer(extra_ids=0))):
        if part not in recipe.keep:  # what is kept stays as it is, byte for byte
            folder = out / f"text_{BRANCH[part]}"
            tokenizer.save_pretrained(folder)
            half(getattr(recipe, part), folder)
