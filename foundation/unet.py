"""The studio's text-to-image U-Net: v-prediction on 16 x 16 x 4 latents, conditioned on CLIP text, as SD is.

It learns together with the attention to a reference that the pretrained bundle begins with: a share of the pictures
comes with another photo of the person, the rest without, as the foundation draws later. On two cores there is no time
for learning to draw first and to draw *somebody* afterwards. (Our choice. The bundle's later training, and every stage,
keep the U-Net frozen, as the paper does.)
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch.nn import functional as F

from foundation import pairs
from foundation.autoencoder import pixels
from foundation.language import LENGTH, WIDTH, said, targets
from foundation.lesson import SWAPPABLE, SWAPPED, Lesson, choose, picture_error
from foundation.precision import mixed
from foundation.reader import CELL, NAMES, WINDOW, FaceReader, cut_out, decoded, middle, windows, worn
from foundation.recogniser import Recogniser, from_elsewhere
from foundation.train import Plan, fit
from iy import lexicon, params
from iy.diffusion import Base
from iy.diffusion.base import TextEncoders
from iy.finetune.identity import clean
from iy.model import Personaliser
from iy.model.conditioning import Vision

CONFIG = dict(
    sample_size=16,
    in_channels=4,
    out_channels=4,
    block_out_channels=(96, 128, 160),
    layers_per_block=1,
    norm_num_groups=16,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    cross_attention_dim=WIDTH,
    attention_head_dim=(3, 4, 5),
)
RATE = 7.5e-4
BATCH = 32  # pictures of a step
READ = 0.625  # share of them whose prediction is decoded and read
CLEAR, NOISY = 700, 400  # timesteps of these are below, of the others from: mist cannot be read, and all are needed
SAID, WHO, LIKE = 0.02, 0.006, 4.0  # weights: of what the face shows, of who it is, of how alike the pictures are
SCHEDULE = dict(
    num_train_timesteps=1000,
    beta_schedule="scaled_linear",
    beta_start=0.00085,
    beta_end=0.012,
    prediction_type="v_prediction",
    rescale_betas_zero_snr=False,
    timestep_spacing="trailing",
    clip_sample=False,
)


class Critics(NamedTuple):
    """What decodes a prediction, reads the face and recognises the person."""

    vae: AutoencoderKL
    reader: FaceReader
    recogniser: Recogniser


def build(seed: int = 4) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(**CONFIG).to(memory_format=torch.channels_last)


def personal(base: Base, settings: params.Model) -> Personaliser:
    """`base` with attention to references and to its own text alone, of which U-Net and attention are trained."""
    own = {base.own: base.text[base.own]}
    only = dataclasses.replace(base, text=TextEncoders(own))
    change = {"alpha": {"vision": 1.0, base.own: 1.0}, "lora_targets": []}
    model = Personaliser(only, settings.model_copy(update=change))
    model.unet.requires_grad_(True).to(memory_format=torch.channels_last)
    model.vision.tower.requires_grad_(False)  # its answers are computed once
    for layer in model.unet.modules():
        if hasattr(layer, "set_processor") and not layer.is_cross_attention:
            layer.set_processor(AttnProcessor())  # on CPUs faster to train than the fused attention's backward
    for layer in model.cross_attentions():
        layer.processor.alpha.requires_grad_(False)
    return model


def plain(model: Personaliser) -> UNet2DConditionModel:
    """The U-Net alone, with diffusers' own attention."""
    config = {name: value for name, value in model.unet.config.items() if name != "_name_or_path"}
    unet = UNet2DConditionModel.from_config(config)
    unet.load_state_dict({name: value for name, value in model.unet.state_dict().items() if ".processor." not in name})
    return unet.eval()


def begin(model: Personaliser, learnt: Personaliser) -> None:
    """Give a fresh model the attention to references that was `learnt` with the U-Net; its vision tower stays."""
    for name in ("whole", "patch", "norm"):
        getattr(model.vision, name).load_state_dict(getattr(learnt.vision, name).state_dict())
    for layer, other in zip(model.cross_attentions(), learnt.cross_attentions(), strict=True):
        layer.processor.out["vision"].data.copy_(other.processor.out["vision"])
        for part in ("key", "value"):
            getattr(layer.processor, part)["vision"].load_state_dict(
                getattr(other.processor, part)["vision"].state_dict()
            )


def train(model: Personaliser, lesson: Lesson, encode, critics: Critics, plan: Plan, seed: int = 4) -> Personaliser:
    """The error of v, every timestep alike: Min-SNR all but silences the noisiest ones, where pose is settled. And what
    the critics say of the face in the predicted picture: is it as the caption says, is it the reference's person?

    Part of the noisy pictures show somebody else, photographed alike, and are to become the reference's person. A noisy
    picture of that very person says who it is, and the U-Net would learn to look there; but what it draws from begins
    as nobody.
    """
    schedule, rng = DDPMScheduler(**SCHEDULE), np.random.default_rng(seed)
    batch, device, starts = BATCH * plan.times, plan.device, windows(lesson.boxes)
    times, noises = torch.Generator().manual_seed(seed), torch.Generator(device).manual_seed(seed)
    read, lesson, weights = round(READ * batch), lesson.to(device), lesson.weights().to(device)

    def loss(step: int) -> torch.Tensor:
        if step % pairs.EVERY == pairs.EVERY - 1:
            return pairs.loss(model, lesson, weights, schedule, encode, rng, (times, noises), batch // 2)
        pick = rng.integers(len(lesson.latents), size=batch)
        known, words, references = choose(lesson, pick, rng)
        t = timesteps(batch, read, times)
        hidden = known & (t >= SWAPPABLE).numpy()
        swapped = hidden & (rng.random(batch) < SWAPPED)
        source = np.where(swapped, lesson.twins[pick], pick)
        wanted, shown = (lesson.latents[torch.from_numpy(rows).to(device)] for rows in (pick, source))
        noise = torch.randn(shown.shape, generator=noises, device=device)
        t, has = t.to(device), torch.from_numpy(known).to(device)
        noisy = schedule.add_noise(shown, noise, t).contiguous(memory_format=torch.channels_last)
        seen = [part[torch.from_numpy(references).to(device)].float() for part in lesson.seen]
        with mixed(device):
            tokens = model.vision.project(*seen)
            vision = Vision(tokens, has[:, None].expand(tokens.shape[:2]))
            v = model.denoise(noisy, t, model.context({model.own: encode(words)}, vision)).float()
            predicted = clean(schedule, noisy, v, t)
            faces = decoded(critics.vae, predicted[:read], starts[pick[:read]])
            features = critics.reader(middle(faces)).float()
            who, unlike = who_loss(critics.recogniser, faces, lesson, pick[:read], hidden[:read], starts, rng)
        share = schedule.alphas_cumprod.to(device)[t]
        error = picture_error(predicted, wanted, share, torch.from_numpy(swapped).to(device))
        error = error * weights[torch.from_numpy(pick).to(device)]
        said = said_loss(critics.reader, features, lesson, pick[:read], known[:read], words[:read], share[:read].sqrt())
        return error.mean() + SAID * said + WHO * who + LIKE * unlike

    return fit(plan, model, loss, decay=0.998, muon=True, fast="vision")


def timesteps(batch: int, read: int, source: torch.Generator) -> torch.Tensor:
    """(batch,), the first `read` of them not too noisy to be read."""
    clear = torch.randint(0, CLEAR, (read,), generator=source)
    return torch.cat([clear, torch.randint(NOISY, 1000, (batch - read,), generator=source)])


def said_loss(
    reader: FaceReader,
    features: torch.Tensor,
    lesson: Lesson,
    pick: np.ndarray,
    known: np.ndarray,
    words: list[str],
    clear: torch.Tensor,
) -> torch.Tensor:
    """How far features (B, F) are from what the caption says and the reference shows.

    clear (B,): weight of each picture. The expression counts three times as much as any other attribute.
    """
    facts = [
        said(text) | ({name: lesson.attributes[i].get(name) for name in lexicon.PERSON} if has else {})
        for i, has, text in zip(pick, known, words, strict=True)
    ]
    right = {name: value.to(features.device) for name, value in targets(facts, NAMES).items()}
    wrong = {
        name: F.cross_entropy(head(features), right[name], ignore_index=-1, reduction="none")
        for name, head in reader.heads.heads.items()
    }
    return ((wrong["expression"] + sum(wrong.values()) / 2) * clear).mean()


def who_loss(
    recogniser: Recogniser,
    faces: torch.Tensor,
    lesson: Lesson,
    pick: np.ndarray,
    asked: np.ndarray,
    starts: np.ndarray,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """How surprising that windows (B, 3, 48, 48) show their persons, and how unlike the true pictures they are seen.

    The means over those that are `asked` (B,). They are seen worn, from a little off and half of them in a mirror: what
    pleases the recogniser in one very picture only is no likeness, and another recogniser would not see it.
    """
    rows = np.flatnonzero(asked & np.isfinite(lesson.boxes[pick, 0]))
    if not len(rows):
        return faces.new_zeros(()), faces.new_zeros(())
    which = pick[rows]
    corners = CELL * starts[which]
    true = cut_out(lesson.images[torch.from_numpy(which).to(faces.device)], corners, CELL * WINDOW) / 127.5 - 1
    both = torch.cat([faces[torch.from_numpy(rows).to(faces.device)].float(), true], 1)
    both, landmarks = from_elsewhere(both, lesson.landmarks[which] - corners[:, None], rng)
    ours, theirs = worn(both, rng, 0.5).split(3, 1)
    maps = recogniser.maps(ours, landmarks)
    with torch.no_grad():
        others = recogniser.maps(theirs, landmarks)
    return recogniser.surprise(maps, lesson.who[which]).mean(), recogniser.unlike(maps, others).mean()


@torch.no_grad()
def seen(tower, crops: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """What the vision tower answers to references uint8 (M, 64, 64, 3): global (M, D) and patches (M, T, D), fp16."""
    batches = np.array_split(crops, max(1, len(crops) // 64))
    answers = [tower(pixel_values=pixels(part).to(tower.device)) for part in batches]
    return (
        torch.cat([answer.image_embeds.cpu() for answer in answers]),
        torch.cat([answer.last_hidden_state[:, 1:].half().cpu() for answer in answers]),
    )


def text_encoder(tokenizer, model):
    """`encode(texts)`: the CLIP text tower's last hidden state (B, L, D) and the mask (B, L) of real tokens."""

    @torch.no_grad()
    def encode(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = tokenizer(texts, padding="longest", truncation=True, max_length=LENGTH, return_tensors="pt").to(
            model.device
        )
        hidden = model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        return hidden, tokens.attention_mask.bool()

    return encode
