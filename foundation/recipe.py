"""The parts of the foundation and what each is made from. A part is made when it is first asked for, or read back.

A part in `keep` is taken as it ships; the training of one in `start` begins with what ships, at a somewhat lower rate.
"""

import dataclasses
import platform
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch.nn import Module
from tqdm import tqdm
from transformers import ByT5Tokenizer, CLIPImageProcessor, CLIPVisionModelWithProjection, T5EncoderModel

from foundation import (
    autoencoder,
    identity,
    language,
    likeness,
    probes,
    quality,
    reader,
    recogniser,
    renders,
    sharpen,
    sight,
    unet,
)
from foundation.lesson import Lesson
from foundation.train import Plan
from iy import params
from iy.device import choose_device
from iy.diffusion import Base, load_base
from iy.evaluate.probes import ProbeNet, Probes, load_probes, save_probes
from iy.finetune import identity as identity_loss
from iy.model import ImagineYourselfPipeline, Personaliser, bundle
from iy.storage import atomic_path, sha256, write_json

WORK, WEIGHTS = Path(".iy/foundation"), Path("weights/studio")
HELD_FIRST, HELD_PEOPLE, HELD_SHOTS = 900_000, 100, 6  # people whom no part ever learns from
CAPTIONS = 3  # of each render
WORKERS = params.Workers(map="processes", count=2, address=None)
KEEP = ("vae", "clip", "sight", "t5", "byt5", "unet", "decoder", "probes", "identity")
START = ("vae", "clip", "sight", "t5", "byt5", "unet")
BRANCH = {"t5": "ul2", "byt5": "byt5"}  # of the text encoders, in the settings
FURTHER, SUFFIX = 0.5, "-further"  # share of the first training's rate, and what a part is then called
STEPS = {  # what one to two hours on two CPU cores allow; the losses were still falling
    "vae": 4200,
    "clip_text": 800,
    "clip": 900,
    "sight": 1200,
    "t5": 800,
    "byt5": 300,
    "probes": 2500,
    "reader": 1800,
    "unet": 3100,
    "decoder": 600,
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
        device: str = "auto",
        times: int = 1,
    ):
        self.people, self.shots, self.keep, self.start = people, shots, keep, start
        self.device, self.times = choose_device(device), times
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
        return load_base(params.load("studio").base, self.device)

    def plan(self, part: str, rate: float) -> Plan:
        """How `part` is trained; one that begins with what ships has a name of its own, and learns slower."""
        name, share = (part + SUFFIX, FURTHER) if part in self.start else (part, 1.0)
        return Plan(name, self.work, self.steps[part], share * rate, self.device, self.times)

    def trained(self, part: str) -> bool:
        return part not in self.keep and (self.work / f"{self.plan(part, 1.0).name}.safetensors").exists()

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
        return self.encoded("latents", self.train.images)

    @cached_property
    def mirrored(self) -> tuple[renders.Renders, renders.Faces]:
        return renders.mirrored(self.train, self.faces)

    def encoded(self, name: str, images: np.ndarray) -> torch.Tensor:
        """The images' latents, kept under the autoencoder's own hash."""
        whose = sha256(b"".join(weight.detach().cpu().numpy().tobytes() for weight in self.vae.parameters()))[:12]
        path = self.work / f"{name}-{whose}.safetensors"
        if not path.exists():
            with atomic_path(path) as aside:
                save_file({"latents": autoencoder.latents(self.vae, images).contiguous()}, aside)
        return load_file(path)["latents"]

    @cached_property
    def decoded(self) -> np.ndarray:
        """What the autoencoder makes of the renders."""
        return autoencoder.reconstructions(self.vae, self.latents)

    @cached_property
    def probes(self) -> ProbeNet:
        if "probes" in self.keep:
            return load_probes(WEIGHTS / "probes").net.to(self.device)
        return probes.train(self.train, lambda: self.decoded, self.plan("probes", probes.RATE))

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
        if "clip" in self.keep:
            return self.shipped.text["clip"].tokenizer
        return language.clip_tokenizer(self.words, self.work)

    @cached_property
    def clip_text(self) -> language.Reader:
        tokenizer = self.tokenizer
        encoder = language.clip_text(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id, seed=3)
        return self.read_by("clip_text", tokenizer, encoder, language.WIDTH, language.LENGTH, 3)

    @cached_property
    def clip(self) -> language.Clip | language.Towers:
        if "clip" in self.keep:
            return language.Towers(self.shipped.text["clip"].encoder, self.shipped.vision)
        vision = self.begin("clip", lambda: self.shipped.vision, lambda: language.clip_vision(3))
        return language.train_clip(
            self.tokenizer,
            language.Clip(self.clip_text, vision),
            self.train,
            self.texts,
            self.faces.crops,
            recogniser.people(self.train, self.faces),
            self.plan("clip", language.RATE),
        )

    @cached_property
    def sight(self) -> CLIPVisionModelWithProjection:
        """The vision tower."""
        if "sight" in self.keep:
            return self.shipped.vision
        tower = self.begin("sight", lambda: self.shipped.vision, lambda: self.clip.vision)
        encode = language.embedder(self.tokenizer, self.clip.text)

        def words(rows: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
            return encode([self.texts[i][rng.integers(CAPTIONS)] for i in rows])

        directions = recogniser.people(self.train, self.faces)
        return sight.train(tower, self.train, self.faces, directions, words, self.plan("sight", sight.RATE)).eval()

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
        return self.read_by(part, tokenizer, encoder, encoder.config.d_model, length, seed).encoder

    def read_by(self, part: str, tokenizer, encoder, width: int, length: int, seed: int) -> language.Reader:
        one_each = [many[i % CAPTIONS] for i, many in enumerate(self.texts)]
        plan = self.plan(part, language.READING)
        return language.train_reader(tokenizer, encoder, width, one_each, length, plan, seed)

    @cached_property
    def reader(self) -> reader.FaceReader:
        net = reader.train(
            self.train.images,
            lambda: self.decoded,
            reader.windows(self.faces.box),
            self.train.attributes,
            self.plan("reader", reader.RATE),
        )
        return net.requires_grad_(False)

    @cached_property
    def recogniser(self) -> recogniser.Recogniser:
        return recogniser.Recogniser(recogniser.means(self.train, self.faces)).to(self.device)

    @property
    def who(self) -> np.ndarray:
        """The person of each render (N,), counted from 0."""
        return self.train.person - self.train.person[0]

    @cached_property
    def lesson(self) -> Lesson:
        """The renders and their mirror images, with the other photos of the person as references."""
        turned, faces = self.mirrored
        rows = tqdm(range(len(turned.images)), "captions")
        texts = [[language.caption(turned, i, k) for k in range(CAPTIONS)] for i in rows]
        found = np.flatnonzero(np.isfinite(self.faces.box[:, 0]))
        others = [found[(self.train.person[found] == who) & (found != i)] for i, who in enumerate(self.train.person)]
        twins = self.train.twins
        return Lesson(
            torch.cat([self.latents, self.encoded("mirrored-latents", turned.images)]),
            torch.from_numpy(np.concatenate([self.train.images, turned.images])).permute(0, 3, 1, 2).contiguous(),
            np.concatenate([twins, len(twins) + twins]),
            np.concatenate([self.faces.box, faces.box]),
            np.concatenate([self.faces.landmarks, faces.landmarks]),
            self.texts + texts,
            self.train.attributes + turned.attributes,
            np.tile(self.who, 2),
            others * 2,
            unet.seen(self.sight, self.faces.crops),
        )

    @cached_property
    def personal(self) -> Personaliser:
        """The U-Net, and the attention to references that it learnt with."""
        net = self.begin("unet", lambda: self.shipped.unet, unet.build)
        base = dataclasses.replace(self.shipped, unet=net, vae=self.vae, vision=self.sight)
        # Opened first: a bundle freezes the U-Net that it stands on.
        learnt = bundle.load(WEIGHTS / "pretrained", self.shipped) if "unet" in self.start else None
        model = unet.personal(base, params.load("studio").model)
        if learnt:
            unet.begin(model, learnt)
        encode = unet.text_encoder(self.tokenizer, self.clip.text)
        critics = unet.Critics(self.vae, self.reader, self.recogniser)
        return unet.train(model, self.lesson, encode, critics, self.plan("unet", unet.RATE))

    @cached_property
    def decoder(self) -> AutoencoderKL:
        """The autoencoder as it ships: the encoder that everything learnt with, and a decoder that went on."""
        if "decoder" in self.keep:
            return self.vae
        plan = self.plan("decoder", sharpen.RATE)
        return sharpen.train(self.vae, self.latents, self.train.images, self.faces, self.recogniser, plan)

    @cached_property
    def unet(self) -> UNet2DConditionModel:
        return self.shipped.unet if "unet" in self.keep else unet.plain(self.personal)

    @cached_property
    def identity(self) -> identity_loss.IdentityNet:
        if "identity" in self.keep:
            return identity_loss.load(WEIGHTS / "identity", tuple(self.latents.shape[1:])).to(self.device)
        return identity.train(self.train, self.faces, self.latents, self.plan("identity", identity.RATE))


def half(module: Module, folder: Path) -> None:
    """Save as fp16 safetensors; the loader widens them to the dtype the settings ask for."""
    module.half().to(memory_format=torch.contiguous_format).save_pretrained(folder)
    module.float()


def hardware(device: torch.device) -> str:
    named = f"{platform.machine()}, {torch.get_num_threads()} CPU threads"
    return named if device.type == "cpu" else f"{named}, {torch.cuda.get_device_name(device)}"


def publish(recipe: Recipe, command: str) -> None:
    """Make every part, write the weights, and measure them on held-out people for the card."""
    seen = probes.accuracy(recipe.probes, recipe.held)
    save(recipe, seen, command)
    card = {
        "command": command,
        "steps": {name: count for name, count in recipe.steps.items() if recipe.trained(name)},
        "people": recipe.people,
        "renders": len(recipe.train.images),
        "data": f"renders of anny people (CC0 data), seeds 0 to {recipe.people - 1}",
        "hardware": hardware(recipe.device),
        "licence": "Apache-2.0",
        "people_told_apart": quality.told_apart(recipe.held_faces.box, recipe.held_faces.embedding, HELD_SHOTS),
        "psnr_db_unseen_people": round(autoencoder.psnr(recipe.decoder, recipe.held.images), 2),
        "probe_accuracy_on_renders": {name: round(value, 4) for name, value in seen.items()},
        "identity_rank1_of_100_unseen_people": round(
            identity.rank1(recipe.identity, autoencoder.latents(recipe.vae, recipe.held.images), HELD_SHOTS), 4
        ),
    }
    card |= quality.measure(Probes(recipe.probes, {}), recipe.train.attributes)
    pretrained = ImagineYourselfPipeline.from_pretrained(WEIGHTS / "pretrained")
    card["drawn_people_recognised"] = likeness.measure(pretrained, recipe.held, recipe.held_faces)
    write_json(WEIGHTS / "CARD.json", card)


def save(recipe: Recipe, accuracy: dict[str, float], command: str) -> None:
    """Write every part that was not kept; `accuracy`: the probes' own, kept beside them."""
    out = WEIGHTS / "foundation"
    save_language(recipe, out)
    DDPMScheduler(**unet.SCHEDULE).save_pretrained(out / "scheduler")
    if "unet" not in recipe.keep:
        half(recipe.unet, out / "unet")  # before the autoencoder is rounded: its latents are the unrounded one's
        save_pretrained(recipe.personal, command)
    if not {"vae", "decoder"} <= set(recipe.keep):
        half(recipe.decoder, out / "vae")
    if "probes" not in recipe.keep:
        save_probes(recipe.probes, accuracy, WEIGHTS / "probes")
    if "identity" not in recipe.keep:
        identity_loss.save(recipe.identity, WEIGHTS / "identity")


def save_pretrained(learnt: Personaliser, command: str) -> None:
    """The pretrained bundle's beginning: the attention to references that was learnt with the U-Net."""
    settings = params.load("studio")
    model = Personaliser(load_base(settings.base), settings.model)
    unet.begin(model, learnt)
    bundle.save(model, WEIGHTS / "pretrained", {"commands": [command]}, fp16=True)
    write_json(WEIGHTS / "PRETRAINED.json", {"commands": [command], "licence": "Apache-2.0"})


def save_language(recipe: Recipe, out: Path) -> None:
    if "clip" not in recipe.keep:
        recipe.tokenizer.save_pretrained(out / "text_clip")
        half(recipe.clip.text, out / "text_clip")
    if "sight" not in recipe.keep:
        half(recipe.sight, out / "vision")
        CLIPImageProcessor(
            size={"shortest_edge": renders.SIDE}, crop_size=renders.SIDE, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ).save_pretrained(out / "vision")
    for part, tokenizer in (("t5", recipe.t5_tokenizer), ("byt5", ByT5Tokenizer(extra_ids=0))):
        if part not in recipe.keep:  # what is kept stays as it is, byte for byte
            folder = out / f"text_{BRANCH[part]}"
            tokenizer.save_pretrained(folder)
            half(getattr(recipe, part), folder)
